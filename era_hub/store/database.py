"""Opening the database, bringing its tables up to date, its writer thread and its readers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

from .bulk import BulkSession

T = TypeVar("T")

MIGRATION_LOCK = 0x4552_4100_0001
"""Advisory lock of PostgreSQL that a migration holds: services may start together."""

GONE = ("08", "57P")
"""SQLSTATE classes of PostgreSQL: the connection failed, or the server is going down."""


PATIENCE = 0.005
"""Seconds for which the writer thread keeps an answer, to give it together with others."""


class Unavailable(RuntimeError):
    """The database does not answer, or can't store anything; nothing was changed."""


class Database:
    """A database with one writer and a few readers, each on a thread of its own.

    The market has a single writer per pool. Giving the writer a thread and a connection of
    its own serialises budget check, engine call and ledger without locks, and keeps the
    web server's event loop free while the disk is busy. Readers see a snapshot of what is
    committed, and never wait for the writer.

    Parameters
    ----------
    url : str or sqlalchemy.URL
        ``sqlite:////var/lib/era/era.sqlite``, or ``postgresql://era@host/era``. PostgreSQL's
        password is best left out of it: libpq finds it in ``PGPASSFILE`` or ``PGPASSWORD``.
    readers : int
        How many reader threads, and connections.
    """

    def __init__(self, url: str | URL, readers: int = 4) -> None:
        self.url = _understood(make_url(url))
        self.dialect = self.url.get_backend_name()
        self.engine = _open(self.url)
        self.session: sessionmaker[BulkSession] = sessionmaker(
            self.engine, class_=BulkSession, expire_on_commit=False
        )
        self._reading = _open(self.url, readers)
        self.reader: sessionmaker[Session] = sessionmaker(self._reading, expire_on_commit=False)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="era-writer")
        self._calls: deque[_Call] = deque()
        # Held by whoever does what only one may do at a time: see `ask`.
        self._turn = Lock()
        self._readers = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="era-reader")

    def __repr__(self) -> str:
        return f"Database({self.url.render_as_string(hide_password=True)!r})"

    def migrate(self) -> None:
        """Bring the tables up to date with this version of the service."""
        config = Config()
        scripts = str(Path(__file__).parent / "migrations")
        config.set_main_option("script_location", scripts.replace("%", "%%"))
        with self.engine.connect() as connection:
            if self.dialect == "sqlite":
                # A table that is rebuilt is dropped first. Inside a transaction this
                # pragma would change nothing.
                _pragma(connection, "foreign_keys=OFF")
            try:
                with connection.begin():
                    if self.dialect == "postgresql":
                        lock = text("SELECT pg_advisory_xact_lock(:key)")
                        connection.execute(lock, {"key": MIGRATION_LOCK})
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")
                    if self.dialect == "sqlite":
                        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                        if broken:
                            raise RuntimeError(f"rows without what they refer to: {broken[:3]}")
            finally:
                if self.dialect == "sqlite":
                    _pragma(connection, "foreign_keys=ON")

    def connecting(self) -> dict[str, Any]:
        """How psycopg reaches the same PostgreSQL database."""
        _, found = self.engine.dialect.create_connect_args(self.url)
        return {**found, **_patience(self.url)}

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function on the writer thread.

        A caller that is cancelled meanwhile does not interrupt it: what was begun is
        either committed as a whole or not at all.

        Raises
        ------
        Unavailable
            If the database was lost meanwhile. It was then rolled back, unless the
            connection broke while it was committing: call again with the same
            idempotency key to learn which.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(lambda: function(*args, **kwargs), future))
        self._thread.submit(self._work)
        return await future

    async def ask(self, function: Callable[..., T], *args: Any) -> T:
        """Call what uses no database and takes about a millisecond, as `run` does.

        While the writer thread has nothing to do, it is called at once on the thread of the
        caller: to change threads twice costs more than a quote.
        """
        if self._turn.acquire(blocking=False):
            try:
                return function(*args)
            finally:
                self._turn.release()
        return await self.run(function, *args)

    def _work(self) -> None:
        """Answer the calls that wait, on the writer thread.

        Waking the event loop costs more than many a call, so they are answered together,
        unless that would keep the first of them waiting.
        """
        done: list[_Call] = []
        since = time.monotonic()
        while self._calls:
            with self._turn:
                call = self._calls.popleft()
                call.make()
            done.append(call)
            if time.monotonic() - since > PATIENCE:
                _answer(done)
                done, since = [], time.monotonic()
        _answer(done)

    async def read(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function on a reader thread; it opens its session by `reader`.

        What a lost connection interrupted is called once more, so it may only read.

        Raises
        ------
        Unavailable
            If the database can't be reached.
        """

        def attempt() -> T:
            try:
                return function(*args, **kwargs)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            return function(*args, **kwargs)

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, lambda: _clearly(attempt))

    def close(self) -> None:
        """Finish what is under way and close the connections."""
        self._readers.shutdown(wait=True)
        self._thread.shutdown(wait=True)
        self._reading.dispose()
        self.engine.dispose()


@dataclass
class _Call:
    """What the writer thread is to do, and who waits for it."""

    function: Callable[[], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def make(self) -> None:
        try:
            self.result = _clearly(self.function)
        except BaseException as error:
            self.error = error

    def answer(self) -> None:
        if self.future.done():  # whoever asked has gone
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


def _answer(calls: Sequence[_Call]) -> None:
    for loop, theirs in groupby(calls, lambda call: call.future.get_loop()):
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            loop.call_soon_threadsafe(_deliver, list(theirs))


def _deliver(calls: Sequence[_Call]) -> None:
    for call in calls:
        call.answer()


def unavailable(error: BaseException) -> Unavailable | None:
    """What to say if an error means that the database can't be used now."""
    if not isinstance(error, DBAPIError):
        return None
    state = getattr(error.orig, "sqlstate", None)
    said = str(error.orig)
    if state == "53100" or "database or disk is full" in said:
        return Unavailable("the disk of the database is full")
    if "database is locked" in said:
        return Unavailable("the database is busy with something else; try again in a moment")
    connecting = state is None and type(error.orig).__module__.startswith("psycopg")
    if error.connection_invalidated or connecting or (state or "").startswith(GONE):
        return Unavailable("the database does not answer; try again in a moment")
    return None


def _clearly(function: Callable[[], T]) -> T:
    try:
        return function()
    except DBAPIError as error:
        clear = unavailable(error)
        if clear is None:
            raise
        raise clear from error


def _understood(url: URL) -> URL:
    backend = url.get_backend_name()
    if backend == "postgresql":
        # The one driver there is, however the URL puts it.
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ValueError(f"the database must be SQLite or PostgreSQL, not {backend}")
    if not url.database or url.database == ":memory:":
        raise ValueError("SQLite needs a file: sqlite:////path/to/era.sqlite")
    return url


def _open(url: URL, readers: int = 0) -> Engine:
    """The writer's engine, with its one connection, or that of so many readers."""
    options: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": readers or 1,
        "max_overflow": 0,
        # A statement's values are sealed bids and scripts: not for error messages.
        "hide_parameters": True,
    }
    if url.get_backend_name() == "postgresql":
        return _open_postgresql(url, options, bool(readers))
    if not readers:
        # Scripts and sealed bids are nobody else's business; SQLite gives its
        # journals the mode of the database.
        path = Path(str(url.database))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _read_sqlite if readers else _configure_sqlite)
    event.listen(engine, "begin", _begin_deferred if readers else _begin_immediate)
    return engine


def _open_postgresql(url: URL, options: dict[str, Any], reading: bool) -> Engine:
    options["connect_args"] = _patience(url)
    if reading:
        execution = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        options["execution_options"] = execution
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _configure_postgresql)
    return engine


def _patience(url: URL) -> dict[str, str]:
    # A host that died without a word is noticed within seconds. What the URL says comes first.
    wanted = {
        "connect_timeout": "5",
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "application_name": "era-hub",
    }
    return {name: value for name, value in wanted.items() if name not in url.query}


def _configure_postgresql(connection: Any, _record: Any) -> None:
    # The same from the server's side, which otherwise would keep a dead writer's lock for
    # hours. It takes no effect on a Unix socket, which needs none of it.
    autocommit, connection.autocommit = connection.autocommit, True
    with connection.cursor() as cursor:
        cursor.execute("SET tcp_keepalives_idle = 5")
        cursor.execute("SET tcp_keepalives_interval = 2")
        cursor.execute("SET tcp_keepalives_count = 3")
        # A transaction that nobody goes on with must not hold up the others for ever.
        cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
    connection.autocommit = autocommit


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Transactions are begun by `_begin_immediate`; the driver must not begin its own.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # Money: a promise that was answered must survive a power cut.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _read_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")


def _pragma(connection: Any, setting: str) -> None:
    connection.connection.driver_connection.execute(f"PRAGMA {setting}")
