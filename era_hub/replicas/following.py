"""How a service that does not write keeps up with the one that does.

It listens on a connection of its own, and builds its plan anew from the database when it
is told that something has changed: at once if it has not done so for a while, and else so
seldom that following takes a bounded share of its time. Whoever listens to its events is
told of a change when its own plan knows it.
"""

from __future__ import annotations

import asyncio
import logging
import time

from ..changes import Change, Changes
from ..market import Market
from ..store.database import Database
from ..store.demand import Demand
from ..store.election import Writer
from .news import channel, understand

SHARE = 5.0
"""A service waits at least so many times as long as it took to build its plan the last time."""

AGAIN = 1.0
"""Seconds until what has failed is tried again."""


class Follower:
    """Keeps the plan of a service that does not write up to date.

    Parameters
    ----------
    market : Market
        Whose plan it is.
    writer : Writer
        This service's candidacy: while it leads, it knows what it writes.
    sender : str
        The name under which this service tells the others what it has changed.
    seen : int
        The number of the newest bid that the market's predictor has learned from.
    """

    def __init__(
        self, market: Market, writer: Writer, sender: str, seen: int, log: logging.Logger
    ) -> None:
        self.market = market
        self.database: Database = market.database
        self.changes: Changes = market.changes
        self.writer = writer
        self.sender = sender
        self.seen = seen
        self.log = log
        self._heard: dict[Change, None] = {}
        self._missed = False
        self._behind_since: float | None = None
        self._catching_since: float | None = None
        self._deaf_since: float | None = time.monotonic()
        self._awake = asyncio.Event()
        self._spent = 0.0

    @property
    def lag(self) -> float:
        """Seconds for which something may have changed that is not known here."""
        times = (self._behind_since, self._catching_since, self._deaf_since)
        since = [each for each in times if each is not None]
        return time.monotonic() - min(since) if since and not self.writer.leading else 0.0

    async def run(self) -> None:
        """Listen and follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._follow())

    def catch_up(self) -> None:
        """Learn what is stored; on the writer thread."""
        begin = time.monotonic()
        era = self.market.era
        with self.database.reader.begin() as session:
            new = Demand(session, self.market.pool, era.resource).after(self.seen)
        for number, request in new:
            era.learn(era.resource, request)
            self.seen = number
        self.market.rebuild()
        self._spent = time.monotonic() - begin

    # -- listening ----------------------------------------------------------------------

    async def _listen(self) -> None:
        # Who has a SQLite file does without PostgreSQL's driver.
        from psycopg import AsyncConnection

        while True:
            try:
                async with await AsyncConnection.connect(
                    autocommit=True, **self.database.connecting()
                ) as connection:
                    await connection.execute(f"LISTEN {channel(self.market.pool)}".encode())
                    # Nobody knows what was told before.
                    self._hear_all()
                    self._deaf_since = None
                    async for told in connection.notifies():
                        self._hear(told.payload)
            except Exception as error:
                self.log.warning("The connection that listens was lost: %s", error)
            if self._deaf_since is None:
                self._deaf_since = time.monotonic()
            await asyncio.sleep(AGAIN)

    def _hear(self, payload: str) -> None:
        try:
            news = understand(payload)
        except ValueError as error:
            self.log.warning("A notification was not understood: %s", error)
            self._hear_all()
            return
        if news.sender == self.sender:
            return
        if not news.complete:
            self._hear_all()
            return
        self._heard.update(dict.fromkeys(news.changes))
        self._wake()

    def _hear_all(self) -> None:
        self._missed = True
        self._wake()

    def _wake(self) -> None:
        if self._behind_since is None:
            self._behind_since = time.monotonic()
        self._awake.set()

    # -- following ----------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            await self._awake.wait()
            self._awake.clear()
            heard, missed = self._heard, self._missed
            self._heard, self._missed = {}, False
            self._catching_since, self._behind_since = self._behind_since, None
            try:
                # Who leads has learned everything when it began to, and has written the rest.
                await self._unless_leading()
            except Exception as error:
                self.log.warning("Can't follow the writer: %s; trying again", error)
                self._heard = heard | self._heard
                self._missed |= missed
                self._behind_since, self._catching_since = self._catching_since, None
                self._awake.set()
                await asyncio.sleep(AGAIN)
                continue
            self._catching_since = None
            self._tell(heard, missed)
            await asyncio.sleep(SHARE * self._spent)

    async def _unless_leading(self) -> None:
        def catch_up() -> None:
            if not self.writer.leading:
                self.catch_up()

        await self.database.run(catch_up)

    def _tell(self, heard: dict[Change, None], missed: bool) -> None:
        if missed and not self.writer.leading:
            self.changes.lose()
        elif heard:
            self.changes.publish(*heard)
