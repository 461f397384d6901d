"""``era-hub demo`` as somebody at a terminal has it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.end_to_end.people import spawn, xsrf
from tests.running_hub import free_ports, until

ERA_HUB = str(Path(sys.executable).parent / "era-hub")


class Demo:
    """A running demo; its screen is a file."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.screen = folder.parent / "screen"
        command = [ERA_HUB, "demo", "--dir", str(folder), "--port", str(port), *options]
        with self.screen.open("wb") as screen:
            self.process = subprocess.Popen(command, stdout=screen, stderr=subprocess.STDOUT)

    def text(self) -> str:
        return self.screen.read_text()

    def password(self) -> str:
        found = until(lambda: re.search(r"Password\s+(\S+)", self.text()), 90, "the password")
        return found[1]

    def family(self) -> list[psutil.Process]:
        """Every process the demo has started: it is in its folder or descends from it."""
        mine = psutil.Process(self.process.pid).children(recursive=True)
        for each in psutil.process_iter(["cwd"]):
            if (each.info["cwd"] or "").startswith(str(self.folder)) and each not in mine:
                mine.append(each)
        return mine

    @contextmanager
    def logged_in(self, user: str, password: str) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url, follow_redirects=True, timeout=60) as client:
            page = client.get("/hub/login")
            data = {"username": user, "password": password, "_xsrf": xsrf(page)}
            answer = client.post("/hub/login", params={"_xsrf": xsrf(page)}, data=data)
            assert "logout" in answer.text.lower(), answer.text
            yield client

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(90)


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Demo]:
    demo = Demo(folder, free_ports(1)[0], *options)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.stop()


@pytest.mark.slow
def test_start_use_stop_and_start_again(tmp_path: Path) -> None:
    folder = tmp_path / "demo folder"
    with running(folder) as demo:
        password = demo.password()
        if "simulated" in demo.text():
            assert "8 (simulated, since no real one was found)" in demo.text()
        assert oct((folder / "password").stat().st_mode & 0o777) == "0o600"
        assert (folder / "homes" / "ann" / "train_digits.ipynb").exists()
        with demo.logged_in("ann", password) as ann:
            spawn(ann, configuration="gpu-1", hours="1", max_price="9")
            until(lambda: ann.get("/user/ann/api").status_code == 200, 60, "the notebook server")
            page = ann.get("/services/era/")
            assert "Your reservations" in page.text
            bearer = {"X-XSRFToken": re.search(r'name="era-xsrf" content="([^"]+)"', page.text)[1]}
            job = ann.post(
                "/services/era/api/v1/jobs",
                headers=bearer | {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"},
                json={
                    "configuration": "gpu-1",
                    "duration": "1h",
                    "value": 9_000_000,
                    "script": "import time; print('on', flush=True); time.sleep(3000)",
                },
            ).json()["job"]
            log = f"/services/era/api/v1/jobs/{job['id']}/log"
            until(lambda: "on" in ann.get(log).text, 60, "the job")
        family = demo.family()
        names = " ".join(" ".join(each.cmdline()) for each in family)
        for part in ("jupyterhub", "era_hub serve", "configurable-http-proxy", "singleuser"):
            assert part in names
        assert demo.stop() == 0
        assert "Start again" in demo.text()
        until(lambda: not [each for each in family if each.is_running()], 20, "their end")
        assert password not in (folder / "jupyterhub.log").read_text()

    with running(folder) as demo:
        assert demo.password() == password
        with demo.logged_in("ann", password) as ann:
            found = ann.get("/services/era/").text
            assert "ann" in found
            reservations = _api(ann, "reservations")
            assert {each["kind"] for each in reservations} == {"notebook", "job"}
            spent = sum(each["price"] - each["refunded"] for each in reservations)
            account = _api(ann, "account")
            assert account["balance"] + account["held"] + spent >= 100_000_000
        with demo.logged_in("admin", password) as admin:
            assert admin.get("/hub/admin").status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_nothing_is_left_of_a_hub_that_dies(tmp_path: Path) -> None:
    with running(tmp_path / "demo") as demo:
        demo.password()
        family = demo.family()
        [hub] = [each for each in family if "jupyterhub" in each.cmdline()]
        assert len(family) > 2
        hub.kill()
        assert demo.process.wait(60) == 1
        assert "ended by itself" in demo.text()
        assert not [each for each in family if each.is_running()]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [ERA_HUB, "demo", "--dir", str(tmp_path / "demo"), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"Port {port} is taken" in " ".join(done.stdout.split())


def test_help_teaches() -> None:
    done = subprocess.run(
        [ERA_HUB, "demo", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200"},
    )
    for word in ("--port", "--dir", "--gpus", "ann, bob and admin", "Ctrl-C"):
        assert word in done.stdout


def _api(client: httpx.Client, path: str) -> object:
    page = client.get("/services/era/")
    token = re.search(r'name="era-xsrf" content="([^"]+)"', page.text)[1]
    return client.get(f"/services/era/api/v1/{path}", headers={"X-XSRFToken": token}).json()
