"""Opening the database, bringing its tables up to date, and its one writer thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

T = TypeVar("T")


class Database:
    """A database whose every access happens on one thread.

    The market has a single writer per pool. Giving the writer a thread of its own
    serialises budget check, engine call and ledger without locks, and keeps the
    web server's event loop free while the disk is busy.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, e.g. ``sqlite:////var/lib/era/era.sqlite``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _open(url)
        self.session: sessionmaker[Session] = sessionmaker(self.engine, expire_on_commit=False)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="era-writer")

    def migrate(self) -> None:
        """Bring the tables up to date with this version of the service."""
        config = Config()
        scripts = str(Path(__file__).parent / "migrations")
        config.set_main_option("script_location", scripts.replace("%", "%%"))
        with self.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function on the writer thread.

        A caller that is cancelled meanwhile does not interrupt it: what was begun is
        either committed as a whole or not at all.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Finish what is under way and close the connections."""
        self._thread.shutdown(wait=True)
        self.engine.dispose()


def _open(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        # Scripts and sealed bids are nobody else's business; SQLite gives its
        # journals the mode of the database.
        Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(parsed.database).touch(mode=0o600)
    engine = create_engine(url)
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    return engine


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


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
