"""A real JupyterHub with the market, for tests: its own ports, folder and processes."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from era_hub.client import EraClient

T = TypeVar("T")

# Time is sold in slots of ten seconds, so that tests see reservations begin and end.
FAST = {"Pool.slot": 10, "Pool.horizon": 86_400}

CONFIG = """
import sys
from pathlib import Path
import era_hub

c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}{base_path}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "cookie_secret"
c.ConfigurableHTTPProxy.command = [str(Path(sys.executable).parent / "configurable-http-proxy")]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.pid_file = "proxy.pid"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "market"
c.Authenticator.allowed_users = {{"ann", "bob", "anna"}}
c.Authenticator.admin_users = {{"admin"}}
c.JupyterHub.load_groups = {{"lab": {{"users": ["ann"]}}}}
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.default_url = "/lab"
# A stop need not wait for a polite server in tests.
c.LocalProcessSpawner.interrupt_timeout = 2
# What tests drive the hub with; it is no part of the market.
c.JupyterHub.services = [
    {{"name": "tests", "api_token": "{token}"}},
    {{"name": "other-spawner", "api_token": "{spawner_token}"}},
]
c.JupyterHub.load_roles = [
    {{
        "name": "tests",
        "services": ["tests"],
        "scopes": ["admin:users", "admin:servers", "tokens", "access:servers", "list:users"],
    }},
    {{
        "name": "other-spawner",
        "services": ["other-spawner"],
        "scopes": ["access:services!service=era", "custom:era:spawn"],
    }},
]
{extra}
era_hub.setup(c, state_dir=".", spawner="{spawner}", system_users={system_users},
    gpus={gpus}, options={options!r})
"""


def until(question: Callable[[], T], timeout: float = 30, what: str = "it") -> T:
    """Ask again and again until the answer is true; returns that answer."""
    deadline = time.monotonic() + timeout
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}; last answer: {answer!r}")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class RunningHub:
    """Start with ``with RunningHub(folder) as hub``; everything it starts ends with it."""

    def __init__(
        self,
        folder: Path,
        *,
        gpus: int = 8,
        options: Mapping[str, Any] | None = None,
        base_path: str = "/",
        extra: str = "",
        system_users: bool = False,
        spawner: str = "era-local",
    ) -> None:
        self.folder = folder
        self.base_path = base_path
        self.port, self.hub_port, self.proxy_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}{base_path}"
        self.token, self.spawner_token = secrets.token_hex(16), secrets.token_hex(16)
        # Passes in quick succession: tests wait for what the reconciler does.
        settings = {"EraHub.interval": 0.2, "EraHub.log_level": "INFO", **(options or {})}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "jupyterhub_config.py").write_text(
            CONFIG.format(
                port=self.port,
                hub_port=self.hub_port,
                proxy_port=self.proxy_port,
                base_path=base_path,
                token=self.token,
                spawner_token=self.spawner_token,
                system_users=system_users,
                spawner=spawner,
                gpus=gpus,
                options=settings,
                extra=extra,
            )
        )
        self.http = httpx.Client(
            base_url=f"{self.url}hub/api",
            headers={"Authorization": f"token {self.token}"},
            timeout=60,
        )
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[EraClient] = []

    # -- life -----------------------------------------------------------------

    def __enter__(self) -> RunningHub:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        for client in self._clients:
            client.close()

    def start(self) -> None:
        with (self.folder / "hub.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "--config=jupyterhub_config.py"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._healthy, 60, f"the hub; see {self.folder}/hub.log")

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End the hub alone, as a lack of memory would: SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def _healthy(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()
        urls = (f"{self.url}hub/health", f"{self.url}services/era/api/v1/health")
        try:
            return all(httpx.get(url).status_code == 200 for url in urls)
        except httpx.HTTPError:
            return False

    def log(self) -> str:
        return (self.folder / "hub.log").read_text(errors="replace")

    def service_pid(self) -> int:
        """The process id of the market's service."""
        import psutil

        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            if "era_hub" in child.cmdline():
                return child.pid
        raise AssertionError("the service is not running")

    # -- people -----------------------------------------------------------------

    def user_token(self, name: str, scopes: list[str] | None = None) -> str:
        """A token of the user's own, as from the hub's token page."""
        self.http.post(f"/users/{name}")
        body = {"scopes": scopes} if scopes else {}
        answer = self.http.post(f"/users/{name}/tokens", json=body)
        answer.raise_for_status()
        token: str = answer.json()["token"]
        return token

    def client(self, name: str, scopes: list[str] | None = None) -> EraClient:
        """The market as this user."""
        return self.client_with(self.user_token(name, scopes))

    def client_with(self, token: str) -> EraClient:
        client = EraClient(f"{self.url}services/era", token)
        self._clients.append(client)
        return client

    def spawner(self) -> EraClient:
        """The market as a service that acts for users, as the hub's spawner does."""
        return self.client_with(self.spawner_token)

    # -- servers ----------------------------------------------------------------

    def start_server(self, user: str, options: dict[str, Any], name: str = "") -> httpx.Response:
        """Ask for a notebook server through the Hub's REST API."""
        self.http.post(f"/users/{user}")
        path = f"/users/{user}/servers/{name}" if name else f"/users/{user}/server"
        return self.http.post(path, json=options)

    def stop_server(self, user: str, name: str = "") -> httpx.Response:
        path = f"/users/{user}/servers/{name}" if name else f"/users/{user}/server"
        return self.http.delete(path)

    def server(self, user: str, name: str = "") -> dict[str, Any] | None:
        """The server as the Hub knows it; None if it does not run."""
        answer = self.http.get(f"/users/{user}")
        found: dict[str, Any] | None = answer.json()["servers"].get(name)
        return found if found and (found["ready"] or found["pending"]) else None

    def until_ready(self, user: str, name: str = "", timeout: float = 60) -> dict[str, Any]:
        def ready() -> dict[str, Any] | None:
            found = self.server(user, name)
            return found if found and found["ready"] else None

        found = until(ready, timeout, f"the server of {user}; see {self.folder}/hub.log")
        assert found is not None
        return found

    def until_gone(self, user: str, name: str = "", timeout: float = 60) -> None:
        until(lambda: self.server(user, name) is None, timeout, f"the end of {user}'s server")

    def environment(self, user: str) -> dict[str, str]:
        """Environment variables of the user's running server process."""
        import psutil

        home = str(self.folder / "homes")
        for process in psutil.process_iter(["cmdline"]):
            if "jupyterhub.singleuser" not in (process.info["cmdline"] or ()):
                continue
            found = process.environ()
            if found.get("JUPYTERHUB_USER") == user and found.get("HOME", "").startswith(home):
                return found
        raise AssertionError(f"no server of {user} runs")
