"""A real PostgreSQL server for tests: in a folder of its own, on a socket and a loopback port."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL

PASSWORD = "not-for-any-log"
TEMPLATE = "era_template"


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs: where Debian puts them, or on PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    on_path = shutil.which("postgres")
    found = [*debian, *([Path(on_path).resolve()] if on_path else [])]
    return found[0].parent if found else None


class PostgresServer:
    """A server that forgets everything; a Unix socket is trusted, the port wants `PASSWORD`.

    A `durable` one waits for the disk at each commit, as in production.
    """

    def __init__(self, programs: Path, durable: bool = False) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="era-pg-"))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.port = _free_port()
        self._numbers = count(1)
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            names = {each.pw_name for each in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        options = ["-U", "era", "-A", "trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"]
        self._call("initdb", "-D", str(self.data), "-N", "-E", "UTF8", "--locale=C", *options)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "on" if durable else "off",
            "full_page_writes": "on" if durable else "off",
            "max_connections": 60,
        }
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(lines)
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        log = str(self.folder / "log")
        self._call("pg_ctl", "-D", str(self.data), "-l", log, "-w", "start")

    def stop(self) -> None:
        """Stop at once, as in a crash."""
        self._call("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def close(self) -> None:
        """Stop and forget."""
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str, **changes: Any) -> URL:
        """By way of the socket; `changes` are those of `sqlalchemy.URL.set`."""
        query = {"host": str(self.folder), "port": str(self.port)}
        url = URL.create("postgresql", username="era", database=database, query=query)
        return url.set(**changes) if changes else url

    def loopback(self, database: str, password: str | None = PASSWORD) -> URL:
        """By way of the port, where a password is wanted."""
        return URL.create("postgresql", "era", password, "127.0.0.1", self.port, database)

    def execute(self, statement: str) -> list[Any]:
        """Do something as the server's admin."""
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="era", dbname="postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create(self, template: str = "template1") -> str:
        """A new database."""
        name = f"era_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        subprocess.run(
            command,
            cwd=self.folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
