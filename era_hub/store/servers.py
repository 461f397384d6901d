"""When users' servers are reserved: one server can't run on two reservations."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import bindparam, select, tuple_
from sqlalchemy.orm import Session

from ..models import Kind, State
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
        missing = [server for server in servers if server not in known]
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

    def _read(self, servers: list[Server]) -> dict[Server, Times]:
        found: dict[Server, Times] = {server: [] for server in servers}
        with self.session.no_autoflush:
            rows = self.session.execute(_RESERVED, {"servers": servers})
            for user, server, start, end in rows:
                found[user, server].append((start, end))
        return found


# Made but once: to build a statement takes as long as to execute it.
_NAME = (Reservation.user, Reservation.server_name)
_RESERVED = select(*_NAME, Reservation.start, Reservation.end).where(
    tuple_(*_NAME).in_(bindparam("servers", expanding=True)),
    Reservation.kind == Kind.NOTEBOOK,
    Reservation.state == State.ACCEPTED,
)
