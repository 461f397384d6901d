"""When users' servers are reserved: one server can't run on two reservations."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from sqlalchemy import Executable, select
from sqlalchemy.orm import Session

from ..models import Kind, State
from .pairs import parameters, wanted
from .tables import Reservation

Server = tuple[str, str]
"""A user, and the name of a server of theirs."""

Times = list[tuple[int, int]]


class Servers:
    """Looks for reservations of notebook servers that have not started."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def read_ahead(self, servers: Collection[Server]) -> None:
        """Read the times of several servers at once."""
        known = self._known()
        missing = set(servers) - known.keys()
        if missing:
            known.update(self._read(missing))

    def reserved(self, user: str, server_name: str, start: int, end: int) -> tuple[int, int] | None:
        """A reserved time of the server that overlaps [start, end), if there is one."""
        server = (user, server_name)
        self.read_ahead([server])
        times = self._known()[server]
        return next((each for each in times if each[0] < end and each[1] > start), None)

    def note(self, user: str, server_name: str, start: int, end: int) -> None:
        """Count a reservation that this transaction adds: reading ahead has not seen it."""
        server = (user, server_name)
        self.read_ahead([server])
        self._known()[server].append((start, end))

    def _known(self) -> dict[Server, Times]:
        return self.session.info.setdefault("servers", {})  # type: ignore[no-any-return]

    def _read(self, servers: Collection[Server]) -> dict[Server, Times]:
        found: dict[Server, Times] = {server: [] for server in servers}
        with self.session.no_autoflush:
            rows = self.session.execute(_reserved(len(servers)), parameters(servers))
            for user, server, start, end in rows:
                found[user, server].append((start, end))
        return found


# Made but once: to build a statement takes as long as to execute it.
@cache
def _reserved(count: int) -> Executable:
    """Of so many servers."""
    servers, of = wanted(count), Reservation
    return (
        select(of.user, of.server_name, of.start, of.end)
        .join(servers, (of.user == servers.c.first) & (of.server_name == servers.c.second))
        .where(of.kind == Kind.NOTEBOOK, of.state == State.ACCEPTED)
    )
