"""Who may write: one service per pool.

On PostgreSQL several services share a database, and one of them writes for each pool. It
holds an advisory lock of the pool on the very connection that it writes on. So it can't be
the writer without knowing: if PostgreSQL loses that connection, the lock and the
transaction under way are lost together, and a new connection is refused here until it has
the lock. No clock decides anything; the beat in the table `writers` only tells people and
the other services where the writer is.

A SQLite file belongs to one service, which locks a file beside it; a second one is an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, delete, event, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from .database import Database
from .tables import WriterRow

HOLDER = text(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid::bigint = :high AND objid::bigint = :low"
)


class NotLeading(RuntimeError):
    """Another service writes for this pool now."""


class Forbidden(RuntimeError):
    """This service may not depose the writer."""


class InUse(RuntimeError):
    """Another service has the SQLite file."""


@dataclass(frozen=True)
class Leader:
    """The service that writes for a pool: where it answers, since when, and its last sign."""

    address: str
    since: int
    beat: int


class Writer:
    """This service's candidacy for the one writer of a pool.

    Its methods belong on the database's writer thread (`Database.run`).

    Parameters
    ----------
    database : Database
    pool : str
    address : str
        Where the other services find this one.
    clock : callable
        UTC seconds now.
    """

    def __init__(
        self,
        database: Database,
        pool: str,
        address: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self.pool = pool
        self.address = address
        self.clock = clock
        # What belongs to the connection that holds the lock, and ends with it.
        self._info: dict[Any, Any] = {}
        self._key = ("writer", pool)
        self.terms = 0
        """How often this service has become the writer."""
        if database.dialect == "postgresql":
            event.listen(database.engine, "invalidate", self._connection_lost)
            event.listen(database.engine, "close", self._connection_lost)

    @property
    def leading(self) -> bool:
        """Whether this service is the writer, as far as it knows."""
        return self._info.get(self._key) is self

    def try_lead(self) -> bool:
        """Become the writer if there is none, or say that this one is still there.

        Call it every second or so, whether it leads or not.

        Raises
        ------
        InUse
            If another service has opened the same SQLite file.
        """
        if self.database.dialect == "sqlite" and not self.leading:
            _lock_file(self.database, self)
            self._info = {self._key: self}
            self.terms += 1
            with self.database.session.begin() as session:
                self._announce(session, new=True)
            return True
        with self.database.session.begin() as session:
            connection = session.connection()
            new = not self._holds(connection)
            if new and not self._take(connection):
                return False
            self._announce(session, new)
        return True

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction of the pool's writer.

        Raises
        ------
        NotLeading
            If its connection does not hold the pool's lock.
        """
        with self.database.session.begin() as session:
            if not self._holds(session.connection()):
                raise NotLeading(f"this service is not the writer of pool {self.pool}")
            yield session

    def release(self) -> None:
        """Let another service take over at once."""
        if not self.leading:
            return
        with self.begin() as session:
            session.execute(delete(WriterRow).filter_by(pool=self.pool))
        if self.database.dialect == "sqlite":
            _unlock_file(self.database, self)
        else:
            with self.database.session.begin() as session:
                if self._holds(session.connection()):
                    unlock = text("SELECT pg_advisory_unlock(:key)")
                    session.execute(unlock, {"key": _number(self.pool)})
        self._info.pop(self._key, None)

    def _take(self, connection: Connection) -> bool:
        lock = text("SELECT pg_try_advisory_lock(:key)")
        if not connection.execute(lock, {"key": _number(self.pool)}).scalar_one():
            return False
        self.terms += 1
        self._info = connection.info
        self._info[self._key] = self
        return True

    def _holds(self, connection: Connection) -> bool:
        if self.database.dialect == "sqlite":
            return self.leading
        return connection.info.get(self._key) is self

    def _announce(self, session: Session, new: bool) -> None:
        now = int(self.clock())
        mine = update(WriterRow).filter_by(pool=self.pool, address=self.address)
        # The row may be another's still, if this one could not store its own when it began.
        if new or not session.execute(mine.values(beat=now)).rowcount:  # type: ignore[attr-defined]
            session.execute(delete(WriterRow).filter_by(pool=self.pool))
            session.add(WriterRow(pool=self.pool, address=self.address, since=now, beat=now))

    def _connection_lost(self, _connection: Any, record: Any, _error: Any = None) -> None:
        record.info.pop(self._key, None)


def leader(session: Session, pool: str) -> Leader | None:
    """The service that writes for a pool, if one has said so; it may have died since."""
    row = session.get(WriterRow, pool, populate_existing=True)
    return None if row is None else Leader(row.address, row.since, row.beat)


def holder(session: Session, pool: str) -> int | None:
    """PostgreSQL's process that serves the writer of a pool; None if nobody holds the lock."""
    key = _number(pool)
    return session.scalar(HOLDER, {"high": key >> 32 & 0xFFFF_FFFF, "low": key & 0xFFFF_FFFF})


def depose(session: Session, pool: str, process: int) -> bool:
    """End the connection of a pool's writer, if it still is that of this process.

    With the connection it loses the lock, and what it has not committed.

    Raises
    ------
    Forbidden
        If this service's role in PostgreSQL may not do that.
    """
    if holder(session, pool) != process:
        return False
    try:
        return bool(session.scalar(text("SELECT pg_terminate_backend(:pid)"), {"pid": process}))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "42501":
            raise
        raise Forbidden(
            f"PostgreSQL does not let this service end process {process}, which serves the "
            f"frozen writer of pool {pool}; let all services log in as one role, or grant "
            "this one pg_signal_backend"
        ) from error


def _number(pool: str) -> int:
    digest = hashlib.sha256(f"era-hub writer {pool}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


# A service's writers of several pools share the lock of their file.
_files: dict[Database, tuple[IO[str], set[Writer]]] = {}


def _lock_file(database: Database, writer: Writer) -> None:
    if database in _files:
        _files[database][1].add(writer)
        return
    path = Path(f"{database.url.database}.lock")
    path.touch(mode=0o600)
    file = path.open("r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        other = file.read().strip() or "unknown"
        file.close()
        raise InUse(
            f"{database.url.database} is in use by another service (process {other}); "
            "stop it, or share a PostgreSQL database"
        ) from None
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    _files[database] = (file, {writer})


def _unlock_file(database: Database, writer: Writer) -> None:
    file, writers = _files[database]
    writers.discard(writer)
    if not writers:
        del _files[database]
        file.close()
