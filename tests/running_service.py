"""The service as a process of its own beside a real hub: to be killed, frozen and copied.

The hub knows the service as one that somebody else starts. Several of them may run on one
database: they share name, token and database, and have ports of their own.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

import httpx

from era_hub.client import EraClient
from tests.running_hub import RunningHub, free_ports, until

# Comes after `era_hub.setup`, which has made a service that the hub would start itself.
UNMANAGED = """
for each in c.JupyterHub.services:
    if each["name"] == "era":
        del each["command"]
        each.update(url="http://{host}:{port}", api_token="{token}")
c.EraSpawnerMixin.era_url = "http://{host}:{port}{base_path}services/era"
"""


class HubBeside(RunningHub):
    """A hub that does not start the service; options as of `RunningHub`.

    Parameters
    ----------
    host : str
        Address on which hub and service listen for each other and for notebooks.
    """

    def __init__(
        self, folder: Path, host: str = "127.0.0.1", extra: str = "", **options: Any
    ) -> None:
        super().__init__(folder, extra=f'c.JupyterHub.hub_ip = "{host}"\n{extra}', **options)
        self.host = host
        self.service_token = secrets.token_hex(16)
        self.service_ports = free_ports(1)
        with (folder / "jupyterhub_config.py").open("a") as file:
            file.write(
                UNMANAGED.format(
                    host=host,
                    port=self.service_ports[0],
                    base_path=self.base_path,
                    token=self.service_token,
                )
            )

    def start(self) -> None:
        # The hub waits half a minute for somebody to answer there, and then goes on.
        try:
            nobody = HTTPServer((self.host, self.service_ports[0]), _Nobody)
        except OSError:
            # The service does, when it is the hub that comes back.
            super().start()
            return
        with nobody:
            Thread(target=nobody.serve_forever, daemon=True).start()
            try:
                super().start()
            finally:
                nobody.shutdown()

    def _healthy(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()
        try:
            return httpx.get(f"{self.url}hub/health").status_code == 200
        except httpx.HTTPError:
            return False


class _Nobody(BaseHTTPRequestHandler):
    """Answers that there is nothing yet: any answer but a failure will do."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class RunningService:
    """Start with ``with RunningService(hub) as service``; it ends with it.

    Parameters
    ----------
    hub : HubBeside
        Runs already.
    db_url : str, optional
        SQLite or PostgreSQL; default: SQLite in the hub's folder.
    options : mapping of str to value
        Settings of the service, as ``{"Pool.slot": 10}``.
    gpus : int
        So many are simulated.
    replica : int
        0 is the one to which the hub's proxy passes requests on; the others are reached
        at their own port only.
    """

    def __init__(
        self,
        hub: HubBeside,
        db_url: str | None = None,
        options: Mapping[str, Any] | None = None,
        gpus: int = 8,
        replica: int = 0,
    ) -> None:
        while len(hub.service_ports) <= replica:
            hub.service_ports += free_ports(1)
        self.hub = hub
        self.name = f"service-{replica}"
        self.port = hub.service_ports[replica]
        self.prefix = f"{hub.base_path}services/era/"
        self.url = f"http://{hub.host}:{self.port}{self.prefix}"
        # A password must not show in the list of processes.
        self._config = hub.folder / f"{self.name}.json"
        settings: dict[str, Any] = {
            "EraHub.state_dir": str(hub.folder),
            "EraHub.interval": 0.2,
            "LocalCloud.simulated_gpus": gpus,
            "LocalCloud.system_users": False,
            "LocalCloud.home_root": str(hub.folder / "homes"),
            **({"EraHub.db_url": db_url} if db_url else {}),
            **(options or {}),
        }
        self._write(settings)
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[EraClient] = []

    def _write(self, settings: Mapping[str, Any]) -> None:
        sections: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            section, _, option = name.partition(".")
            sections.setdefault(section, {})[option] = value
        self._config.touch(mode=0o600)
        self._config.write_text(json.dumps(sections))

    # -- life -----------------------------------------------------------------

    def __enter__(self) -> RunningService:
        try:
            self.start()
        except BaseException:
            self.kill()
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

    def start(self, wait: bool = True) -> None:
        """Start it; with `wait`, return when it answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "era_hub", "serve", f"--config={self._config}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment()},
                start_new_session=True,
            )
        if wait:
            until(self.healthy, 60, f"the service; see {self._log}")

    def healthy(self) -> bool:
        """Whether it answers. It is an error if the process has ended by itself."""
        assert self.process is not None and self.process.poll() is None, self.log()
        try:
            return httpx.get(f"{self.url}api/v1/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def pid(self) -> int:
        assert self.process is not None, "the service is not running"
        return self.process.pid

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it as the hub does, with SIGTERM."""
        if self.process is None:
            return
        self.thaw()
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let it do nothing, as in a virtual machine that is being moved."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def _log(self) -> Path:
        return self.hub.folder / f"{self.name}.log"

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _environment(self) -> dict[str, str]:
        """What the hub would tell a service that it starts."""
        hub, scope = self.hub, "access:services!service=era"
        return {
            "JUPYTERHUB_SERVICE_NAME": "era",
            "JUPYTERHUB_SERVICE_PREFIX": self.prefix,
            "JUPYTERHUB_SERVICE_URL": f"http://{self.hub.host}:{self.port}",
            "JUPYTERHUB_API_TOKEN": hub.service_token,
            "JUPYTERHUB_API_URL": f"http://{hub.host}:{hub.hub_port}{hub.base_path}hub/api",
            "JUPYTERHUB_BASE_URL": hub.base_path,
            "JUPYTERHUB_CLIENT_ID": "service-era",
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([scope]),
            "JUPYTERHUB_OAUTH_SCOPES": json.dumps([scope]),
        }

    # -- people -----------------------------------------------------------------

    def client(self, name: str, scopes: list[str] | None = None) -> EraClient:
        """This replica as this user, not by way of the hub's proxy."""
        return self.client_with(self.hub.user_token(name, scopes))

    def client_with(self, token: str) -> EraClient:
        client = EraClient(self.url, token)
        self._clients.append(client)
        return client
