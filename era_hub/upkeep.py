"""What has to be done as time passes, though nobody asks for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .changes import Change
from .market import Market
from .store.answers import Answers
from .store.database import Database, Unavailable
from .store.demand import Demand
from .store.grants import Grants
from .store.ledger import Ledger

REMEMBERED = 7 * 86_400
"""Seconds for which the answer to a request with an Idempotency-Key is kept."""

PRUNE = 3600
"""Seconds between two looks for answers that are too old."""


class Upkeep:
    """Pays grants that are due, takes back credits that lapse, and forgets what is too old.

    Each step is a transaction that can be repeated after any crash: what was paid, or
    taken back, is stored with the credits.

    Parameters
    ----------
    market : Market
    database : Database
        All steps run on its writer thread.
    clock : callable
        UTC seconds now.
    interval : float
        Seconds between two passes.
    """

    def __init__(
        self,
        market: Market,
        database: Database,
        clock: Callable[[], int],
        interval: float,
        log: logging.Logger,
    ) -> None:
        self.market = market
        self.database = database
        self.clock = clock
        self.interval = interval
        self.log = log
        self._pruned = 0

    async def run(self) -> None:
        """Pass again and again until cancelled."""
        while True:
            try:
                await self.run_once()
            except Unavailable as error:
                self.log.warning("%s; trying again", error)
            except Exception:
                self.log.exception("A pass of the upkeep failed; the next one follows")
            await asyncio.sleep(self.interval)

    async def run_once(self) -> None:
        """Everything that is due now."""
        while await self.database.run(self._book):
            pass
        if self.clock() - self._pruned >= PRUNE:
            while await self.database.run(self._prune):
                pass
            self._pruned = self.clock()

    def _book(self) -> int:
        """A step of what is due; how many accounts and lots it served."""
        now = self.clock()
        with self.market.reading() as session:
            due = [Grants(session, now).next_at(), Ledger(session, now).next_expiry()]
        if all(time is None or time > now for time in due):
            return 0
        with self.market.transaction() as session:
            done = Ledger(session, now).expire() + Grants(session, now).run()
            # Whose accounts these are is not told: everybody looks at their own again.
            self.market.note_change(Change("account"))
        return done

    def _prune(self) -> int:
        now = self.clock()
        with self.market.transaction() as session:
            Demand(session, self.market.pool, self.market.era.resource).prune(now)
            return Answers(session).prune(now - REMEMBERED)
