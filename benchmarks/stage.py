"""What the benchmarks of the running service share: a hub, a store, clients, and the audit.

Everything is real: JupyterHub, the service as a process of its own, SQLite or PostgreSQL on
a disk of its own, which can be filled up. Only the GPUs are simulated.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.postgres import PostgresServer, find_postgres
from tests.running_service import HubBeside

STORES = ("sqlite", "postgresql")
GROUPS = ("lab", "team", "course")

# Nobody looks at the notebooks: what stands for a server is cheap, and given up soon.
HUB = """
c.Authenticator.allowed_users = {{*c.Authenticator.allowed_users, *{users!r}}}
c.JupyterHub.load_groups = {groups!r}
c.Spawner.cmd = ["sleep", "60"]
c.Spawner.http_timeout = 2
c.JupyterHub.allow_named_servers = True
c.JupyterHub.log_level = "WARN"
"""


class Lost(Exception):
    """No answer came: nobody knows whether the request was carried out."""


class Api:
    """One user's connection to one or several replicas; not for several threads at once."""

    def __init__(self, urls: Sequence[str], token: str, timeout: float = 30) -> None:
        self._parts = [urlsplit(url) for url in urls]
        self._token = token
        self._timeout = timeout
        self._number = 0
        self._connection: http.client.HTTPConnection | None = None

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
        version: int | None = None,
    ) -> tuple[int, Any]:
        """Status and answer of one request; `Lost` if there is none."""
        parts = self._parts[self._number]
        if self._connection is None:
            self._connection = http.client.HTTPConnection(parts.netloc, timeout=self._timeout)
        headers = {"Authorization": f"token {self._token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        try:
            text = None if body is None else json.dumps(body)
            self._connection.request(method, f"{parts.path}api/v1/{path}", text, headers)
            response = self._connection.getresponse()
            raw = response.read()
            return response.status, json.loads(raw) if raw else None
        except (http.client.HTTPException, OSError, ValueError) as error:
            self.close()
            raise Lost(repr(error)) from None

    def until_answered(self, method: str, path: str, end: float, **call: Any) -> tuple[int, Any]:
        """Ask again, of one replica after the other, until there is an answer.

        The service says with 503 that it can't say what has become of a request, and with
        502 a replica that it could not pass it on. `TimeoutError` after `end` (monotonic).
        """
        while True:
            try:
                status, answer = self.call(method, path, **call)
                if status not in (502, 503):
                    return status, answer
            except Lost:
                pass
            if time.monotonic() > end:
                raise TimeoutError(f"no answer to {method} {path}")
            self.turn()
            time.sleep(0.02)

    def turn(self) -> None:
        """Ask the next replica from now on."""
        if len(self._parts) > 1:
            self.close()
            self._number = (self._number + 1) % len(self._parts)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass
class Store:
    """A database on a disk of its own, if there may be one."""

    kind: str
    folder: Path
    url: str
    postgres: PostgresServer | None = None
    disk: Path | None = None
    _filler: list[Path] = field(default_factory=list)

    def fill(self) -> None:
        """Use up the disk: writing fails from now on, as the system says it."""
        assert self.disk is not None
        path = self.disk / "filler"
        self._filler.append(path)
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass

    def free(self) -> None:
        """Make room again."""
        while self._filler:
            self._filler.pop().unlink()

    def restart(self) -> None:
        """Stop PostgreSQL as in a crash, and start it again."""
        assert self.postgres is not None
        self.postgres.stop()
        self.postgres.start()


@contextmanager
def open_store(kind: str, disk_mib: int = 0) -> Iterator[Store]:
    """A new store; with `disk_mib` on a disk of that size, for which one must be root."""
    folder = Path(tempfile.mkdtemp(prefix="era-bench-"))
    folder.chmod(0o755)
    disk = _mount(folder / "disk", disk_mib) if disk_mib else None
    server = None
    try:
        place = disk or folder
        if kind == "sqlite":
            yield Store(kind, folder, f"sqlite:///{place / 'era.sqlite'}", disk=disk)
        else:
            programs = find_postgres()
            if programs is None:
                raise SystemExit("no PostgreSQL server: install the package postgresql")
            server = PostgresServer(programs)
            _make_durable(server)
            name = _create(server, disk)
            url = server.url(name).render_as_string(hide_password=False)
            yield Store(kind, folder, url, server, disk)
    finally:
        if server is not None:
            server.close()
        if disk is not None:
            subprocess.run(["umount", str(disk)], check=True)
        shutil.rmtree(folder)


def _mount(path: Path, mib: int) -> Path:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0755", "tmpfs", str(path)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("no disk of its own: run as root, or without the full disk")
    return path


def _make_durable(server: PostgresServer) -> None:
    """The tests' server forgets everything at a power cut; this one shall not."""
    for setting in ("fsync", "full_page_writes"):
        server.execute(f"ALTER SYSTEM SET {setting} = on")
    server.execute("SELECT pg_reload_conf()")


def _create(server: PostgresServer, disk: Path | None) -> str:
    if disk is None:
        return server.create()
    space = disk / "tables"
    space.mkdir()
    if os.getuid() == 0:
        shutil.chown(space, *_owner(server.data))
    server.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
    server.execute("CREATE DATABASE era_small TABLESPACE small")
    return "era_small"


def _owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


class Stage(HubBeside):
    """A hub with many users in overlapping groups, and their tokens.

    Parameters
    ----------
    folder : path
    users : int
        Every second of them is in the first group, every third in the second, and every
        fourth in the third.
    """

    def __init__(self, folder: Path, users: int) -> None:
        self.users = [f"user-{number:02d}" for number in range(users)]
        members = {group: {"users": self.users[:: index + 2]} for index, group in enumerate(GROUPS)}
        super().__init__(folder, extra=HUB.format(users=set(self.users), groups=members))
        self.tokens: dict[str, str] = {}

    def start(self) -> None:
        super().start()
        for name in (*self.users, "admin"):
            self.tokens[name] = self.user_token(name)

    def groups_of(self, number: int) -> list[str]:
        """The groups of the user of that number."""
        return [group for index, group in enumerate(GROUPS) if number % (index + 2) == 0]


def audit(url: str) -> dict[str, Any]:
    """What ``era-hub audit`` finds, as JSON says it, and the seconds it took."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "era_hub", "audit", "--json"],
        env={**os.environ, "ERA_DB_URL": url},
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"era-hub audit failed with {done.returncode}")
    books: dict[str, Any] = json.loads(done.stdout)
    return books | {"took": round(time.monotonic() - begin, 2)}


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of all lie; nan if there is none."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def heading() -> str:
    """Command, date and machine, as a result is quoted with."""
    command = " ".join([f"python -m benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}"
    return (
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}"
    )


def table(rows: Sequence[tuple[str, Any]]) -> str:
    """Rows of a Markdown table."""
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)
