"""Who writes: this service tries to, does what only the writer does, or watches who does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from ..market import Market
from ..plugins import ConfigurationError
from ..store.database import Database, Unavailable
from ..store.election import (
    Forbidden,
    InUse,
    Leader,
    NotLeading,
    Writer,
    depose,
    holder,
    leader,
)
from .following import Follower
from .news import tell

LOOK = 0.5
"""Seconds between two looks who writes."""

BEAT = 1.0
"""Seconds between two signs of the writer."""

HANDOVER = 30
"""Seconds that a service which ends may keep its SQLite file from the next one."""

READ_ONLY = "25006"
"""SQLSTATE of a transaction that only reads, and was asked to write."""

Duty = Callable[[], Awaitable[None]]

asking: ContextVar[bool] = ContextVar("asking", default=False)
"""Whether what is under way only asks. Where another service writes it gets transactions
that can't write, for calls that may but seldom do."""


class Replica:
    """One of the services of a pool: the writer, or one that follows it.

    Parameters
    ----------
    writer : Writer
        This service's candidacy.
    sender : str
        The name under which it tells the others what it has changed.
    patience : float
        Seconds for which the writer may give no sign before it is deposed.
    """

    def __init__(self, writer: Writer, sender: str, patience: float, log: logging.Logger) -> None:
        self.writer = writer
        self.database: Database = writer.database
        self.sender = sender
        self.patience = patience
        self.log = log
        self.leader: Leader | None = None
        """Who writes, as it was stored at the last look; perhaps it has died."""
        self._market: Market | None = None
        self._follower: Follower | None = None
        self._built = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._watched: tuple[Leader | None, int | None] | None = None
        self._still = 0.0
        self._looked = 0.0

    # -- what it is ---------------------------------------------------------------------

    @property
    def alone(self) -> bool:
        """Whether there can be no other service: the database is a file."""
        return self.database.dialect != "postgresql"

    @property
    def leading(self) -> bool:
        """Whether this service writes, as far as it knows."""
        return self.writer.leading and self._built == self.writer.terms

    @property
    def lag(self) -> float:
        """Seconds for which others may have changed what is not known here."""
        return 0.0 if self.leading or self._follower is None else self._follower.lag

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction of the market: a writing one, which the others are told of.

        Raises
        ------
        NotLeading
            If another service writes.
        """
        if asking.get() and not self.leading:
            with self._only_reading() as session:
                yield session
            return
        newest = None
        with self.writer.begin() as session:
            yield session
            if not self.alone:
                newest = tell(
                    session, self.writer.pool, self.sender, session.info.get("changes", ())
                )
        if newest is not None and self._follower is not None:
            self._follower.seen = newest

    @contextmanager
    def _only_reading(self) -> Iterator[Session]:
        try:
            with self.database.reader.begin() as session:
                yield session
                session.flush()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != READ_ONLY:
                raise
            raise NotLeading(f"only the writer of pool {self.writer.pool} can do this") from error

    # -- its life -----------------------------------------------------------------------

    async def open(self) -> None:
        """Wait for a SQLite file that the service before has not left yet."""
        end = time.monotonic() + HANDOVER
        while self.alone and not self.writer.leading:
            try:
                await self.database.run(self.writer.try_lead)
            except InUse as error:
                if time.monotonic() > end:
                    raise ConfigurationError(f"EraHub.db_url: {error}") from None
                await asyncio.sleep(LOOK)

    async def enter(self, market: Market, seen: int) -> None:
        """Lead or follow with a market that has just been made.

        Parameters
        ----------
        seen : int
            The number of the newest bid that its predictor has learned from.

        Raises
        ------
        ValueError
            If the market can't go on with what is stored.
        """
        self._market = market
        self._follower = Follower(market, self.writer, self.sender, seen, self.log)

        def enter() -> None:
            if not self._lead(market):
                market.rebuild()

        await self.database.run(enter)
        if not self.leading:
            self.log.info("Another service writes for pool %s: following it", self.writer.pool)
            await self._watch()

    async def run(self, duties: Sequence[Duty]) -> None:
        """Lead whenever nobody else does, until cancelled.

        Parameters
        ----------
        duties : sequence of callable
            What is done while this service leads, and cancelled when it does not.
        """
        async with asyncio.TaskGroup() as tasks:
            if not self.alone and self._follower is not None:
                tasks.create_task(self._follower.run())
            try:
                while True:
                    try:
                        await self._step(duties)
                    except Exception:
                        self.log.exception("A look at who writes failed; the next one follows")
                    await asyncio.sleep(BEAT if self.leading else LOOK)
            finally:
                await self._stop()

    async def _step(self, duties: Sequence[Duty]) -> None:
        market = self._market
        assert market is not None
        try:
            await self.database.run(self._lead, market)
        except Unavailable as error:
            self.log.warning("%s; trying again", error)
        except Exception:
            self.log.exception("This service can't lead; trying again")
        if self.leading and not self._tasks:
            self._tasks = [asyncio.ensure_future(duty()) for duty in duties]
        elif not self.leading and self._tasks:
            self.log.warning("Another service writes for pool %s now", self.writer.pool)
            await self._stop()
        if not self.leading and not self.alone:
            with suppress(Unavailable):
                await self._watch()

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _lead(self, market: Market) -> bool:
        """Whether this service writes; one that begins to learns what others have written."""
        if not self.writer.try_lead():
            return False
        if self._built != self.writer.terms:
            try:
                assert self._follower is not None
                self._follower.catch_up()
                self._built = self.writer.terms
                market.honour()
            except BaseException:
                # Nobody may write with a plan that is not what is stored.
                self._built = 0
                with suppress(Exception):  # the database is lost, and with it the lock
                    self.writer.release()
                raise
            self.log.info("This service writes for pool %s now", self.writer.pool)
        return True

    # -- watching the writer --------------------------------------------------------------

    async def _watch(self) -> None:
        """Look who writes, and depose a writer that has given no sign for too long."""
        pool = self.writer.pool

        def look() -> tuple[Leader | None, int | None]:
            with self.database.reader.begin() as session:
                return leader(session, pool), holder(session, pool)

        found, now = await self.database.read(look), time.monotonic()
        self.leader, process = found
        # Time in which nobody looked is none in which the writer gave no sign: perhaps it
        # was this service that was frozen, or the database.
        self._still += min(now - self._looked, 2 * LOOK)
        self._looked = now
        if found != self._watched or process is None:
            self._watched, self._still = found, 0.0
        elif self._still >= self.patience:
            self._still = 0.0
            await self._depose(process)

    async def _depose(self, process: int) -> None:
        pool = self.writer.pool

        def end() -> bool:
            with self.database.reader.begin() as session:
                return depose(session, pool, process)

        try:
            if await self.database.read(end):
                text = "The writer of pool %s has given no sign for %g s: deposed"
                self.log.warning(text, pool, self.patience)
        except Forbidden as error:
            self.log.error("%s", error)
