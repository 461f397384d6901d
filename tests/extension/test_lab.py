"""The extension for JupyterLab: in a real Jupyter server, and in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

import era_hub
from era_extension import _jupyter_labextension_paths
from era_extension.lab.notices import Answer, Notices
from era_hub.models import Kind, Notice
from tests.extension.fake_service import TOKEN, FakeService, a_reservation
from tests.running_hub import free_ports, until

LOGIN = "only-the-owner-of-the-server-knows"
OWN = "3f9c01"
WARNING = "Your reservation ends in 5 min, and the server stops then. Save your work."
BASE_URL = "/@/space%20word/user/ann/"
OPTIONS = [
    "--ip=127.0.0.1",
    "--no-browser",
    "--allow-root",
    "--ServerApp.port_retries=0",
    f"--ServerApp.base_url={BASE_URL}",
]
LAB_OPTIONS = [
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
]
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Market(FakeService):
    """The service, with a notebook's reservation that ends in five minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.problem, self.requests = None, []
        end = datetime.now(UTC) + timedelta(minutes=5)
        self.reservations = [a_reservation(id=OWN, kind=Kind.NOTEBOOK, end=end)]
        self.notices = [a_notice()]

    def answer(self, method: str, parts: list[str], offset: int) -> Any:
        if method == "GET" and parts[0] == "reservations" and len(parts) == 2:
            return next((each for each in self.reservations if each.id == parts[1]), None)
        return super().answer(method, parts, offset)

    def extend(self, by: timedelta) -> None:
        old = self.reservations[0]
        self.reservations = [old.model_copy(update={"end": old.end + by})]
        self.notices = []


def a_notice(reservation: str = OWN, minutes: int = 5, text: str = WARNING) -> Notice:
    return Notice(
        id=f"{reservation}-{minutes}",
        level="warning",
        text=text,
        reservation=reservation,
        at=datetime.now(UTC),
    )


class Server:
    """A Jupyter server of its own, as the hub would start it."""

    def __init__(self, folder: Path, module: str, environment: dict[str, str]) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}{BASE_URL}"
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"token {LOGIN}"})
        self.log = folder / "server.log"
        options = OPTIONS + (LAB_OPTIONS if module == "jupyterlab" else [])
        # The extension is found where it is installed; a person's own settings are not.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ERA_", "JUPYTER"))}
        own = {"HOME": str(folder), "JUPYTER_TOKEN": LOGIN, "JUPYTERHUB_API_TOKEN": TOKEN}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, f"--port={port}", *options],
                cwd=folder,
                env={**kept, **own, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.http.get("api/status").status_code == 200
        except httpx.HTTPError:
            return False

    def notices(self) -> dict[str, Any]:
        answer = self.http.get("era/notices")
        assert answer.status_code == 200, answer.text
        assert TOKEN not in answer.text + str(answer.headers)
        return answer.json()

    def stop(self) -> str:
        """End it; returns its log."""
        self.http.close()
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
        return self.log.read_text()


@contextmanager
def running(folder: Path, module: str = "jupyter_server", **environment: str) -> Iterator[Server]:
    server = Server(folder, module, environment)
    try:
        until(server.healthy, 60, f"the server; see {server.log}")
        yield server
    finally:
        log = server.stop()
    assert "Traceback" not in log
    assert TOKEN not in log


@pytest.fixture(scope="module")
def open_market() -> Iterator[Market]:
    market = Market()
    yield market
    market.close()


@pytest.fixture
def market(open_market: Market) -> Market:
    open_market.reset()
    return open_market


@pytest.fixture(scope="module")
def server(open_market: Market, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running(folder, ERA_URL=open_market.url, ERA_RESERVATION=OWN) as server:
        yield server


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """What a server with this environment would answer."""
    for name in ("ERA_URL", "ERA_TOKEN", "ERA_RESERVATION"):
        monkeypatch.delenv(name, raising=False)

    async def ask() -> Answer:
        notices = Notices()
        try:
            return await notices.look()
        finally:
            await notices.close()

    def look(**environment: str) -> Answer:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return asyncio.run(ask())

    return look


# -- the server extension -----------------------------------------------------


def test_notices_and_the_end_are_passed_on(server: Server, market: Market) -> None:
    market.notices = [a_notice("another-server", 15), a_notice()]
    before = server.http.get("api/status").json()["last_activity"]
    answer = server.notices()
    assert answer["notices"] == [{"id": f"{OWN}-5", "level": "warning", "text": WARNING}]
    assert datetime.fromisoformat(answer["end"]) == market.reservations[0].end
    assert abs(datetime.fromisoformat(answer["now"]) - datetime.now(UTC)) < timedelta(seconds=30)
    assert (answer["enabled"], answer["error"]) == (True, "")
    # A tab left open must not keep an idle server alive.
    assert server.http.get("api/status").json()["last_activity"] == before


def test_strangers_are_refused(server: Server, market: Market) -> None:
    assert httpx.get(f"{server.url}era/notices").status_code == 403
    wrong = {"Authorization": f"token {TOKEN}"}
    assert httpx.get(f"{server.url}era/notices", headers=wrong).status_code == 403
    assert market.requests == []


def test_a_market_that_fails_is_said_to(server: Server, market: Market) -> None:
    market.reservations = []
    answer = server.notices()
    assert (len(answer["notices"]), answer["end"]) == (1, None)
    assert answer["error"] == "There is no such thing."
    market.problem = (403, "Log in first.")
    answer = server.notices()
    assert (answer["notices"], answer["end"], answer["error"]) == ([], None, "Log in first.")
    market.problem = (200, "not what was asked for")
    assert "ERA_URL" in server.notices()["error"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/services/era", "http://[", "nowhere"])
def test_no_market_where_it_should_be(look: Callable[..., Answer], url: str) -> None:
    answer = look(ERA_URL=url.format(port=free_ports(1)[0]), JUPYTERHUB_API_TOKEN=TOKEN)
    assert (answer["notices"], answer["end"], answer["enabled"]) == ([], None, True)
    assert answer["error"]
    assert TOKEN not in answer["error"]


def test_a_server_without_a_reservation(look: Callable[..., Answer], market: Market) -> None:
    answer = look(ERA_URL=market.url, JUPYTERHUB_API_TOKEN=TOKEN)
    assert (len(answer["notices"]), answer["end"], answer["error"]) == (1, None, "")


def test_a_server_without_a_token(look: Callable[..., Answer], market: Market) -> None:
    assert "token" in look(ERA_URL=market.url, JUPYTERHUB_API_TOKEN="")["error"]
    assert market.requests == []


def test_a_server_of_somebody_else_stays_silent(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        answer = server.notices()
        assert (answer["enabled"], answer["notices"]) == (False, [])
        assert (answer["end"], answer["error"]) == (None, "")


# -- the front end ------------------------------------------------------------


def test_the_front_end_has_the_packages_version() -> None:
    (paths,) = _jupyter_labextension_paths()
    source = Path(sys.modules["era_extension"].__file__ or "").parent / paths["src"]
    package = json.loads((source / "package.json").read_text())
    assert package["version"] == era_hub.__version__
    assert package["name"] == paths["dest"]
    assert (source / package["jupyterlab"]["_build"]["load"]).is_file()


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        page = browser.new_page(locale="en-GB", timezone_id="UTC")
        page.on("pageerror", lambda error: faults.append(f"{error} {error.stack}"))
        page.on("console", lambda m: m.type == "error" and faults.append(f"{m.text} {m.location}"))
        page.on("dialog", lambda dialog: faults.append(f"era-extension {dialog.message}"))
        yield page
        browser.close()
    # JupyterLab's own faults, such as requests cut off by a reload, are not ours.
    assert [fault for fault in faults if "era-extension" in fault] == []


def open_lab(page: Page, server: Server) -> None:
    page.goto(f"{server.url}lab?token={LOGIN}")
    page.locator("#jp-main-statusbar").wait_for(timeout=60_000)


def look_again(page: Page) -> None:
    """What the page does when it comes back into view."""
    with page.expect_response("**/era/notices*"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@pytest.mark.browser
def test_in_jupyterlab(market: Market, tmp_path: Path, page: Page) -> None:
    with running(tmp_path, "jupyterlab", ERA_URL=market.url, ERA_RESERVATION=OWN) as server:
        open_lab(page, server)
        warnings = page.locator(".Toastify__toast--warning")
        left = page.locator("#jp-main-statusbar .era-time-left")
        expect(warnings).to_have_text(WARNING)
        expect(left).to_have_text("5 min left")
        assert "era-warn" in (left.get_attribute("class") or "").split()

        # Once is enough, also after a reload.
        look_again(page)
        expect(warnings).to_have_count(1)
        page.reload()
        expect(left).to_have_text("5 min left")
        expect(warnings).to_have_count(0)

        # A newer one is shown as it is written.
        text = "Save <img src=x onerror=alert(1)>"
        market.notices = [a_notice(minutes=1, text=text)]
        look_again(page)
        expect(warnings).to_have_text(text)

        # While the market fails, what was known still holds.
        market.problem = (503, "The market is closed.")
        look_again(page)
        expect(left).to_have_attribute("title", re.compile("The market is closed."))
        expect(left).to_have_text("5 min left")
        expect(warnings).to_have_text(text)
        market.problem = None

        # After an extension the warning is no longer true.
        market.extend(timedelta(hours=1))
        look_again(page)
        expect(warnings).to_have_count(0)
        expect(left).to_contain_text("GPUs until ")
        assert "era-warn" not in (left.get_attribute("class") or "").split()
        assert TOKEN not in page.content()
        check_words(page, server)


def check_words(page: Page, server: Server) -> None:
    """The words of the status item, for several times left."""
    module = f"{server.url}lab/extensions/era-extension/static/notices.js"
    now = datetime(2026, 3, 2, 14, tzinfo=UTC).timestamp() * 1000
    words = {
        40 * 60: "GPUs until 14:40",
        15 * 60 + 1: "GPUs until 14:15",
        15 * 60: "15 min left",
        12.4 * 60: "12 min left",
        20: "1 min left",
        0: "GPU time is over",
        30 * 3600: "GPUs until Tue 20:00",
    }
    script = (
        "async ([module, now, times]) => { const { timeLeft } = await import(module);"
        " return times.map((left) => timeLeft(now + left * 1000, now).text); }"
    )
    assert page.evaluate(script, [module, now, list(words)]) == list(words.values())


@pytest.mark.browser
def test_in_a_jupyterlab_of_somebody_else(tmp_path: Path, page: Page) -> None:
    with running(tmp_path, "jupyterlab") as server:
        with page.expect_response("**/era/notices*"):
            open_lab(page, server)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_timeout(500)
        assert [url for url in requests if "era/notices" in url] == []
        expect(page.locator(".era-time-left")).to_be_hidden()
