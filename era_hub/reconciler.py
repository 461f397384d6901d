"""One loop that makes the world match the market's promises.

Each pass compares every open reservation, and every workload still around, with
what should be: starts what is due, ends what is over, and settles what has ended.
Every step is idempotent, so that a pass can be repeated after any crash; steps
that failed are tried again with growing pauses.

Promises go by the wall clock, patience by one that is never set and stands still
while the machine sleeps. Now and then it looks for what runs without a promise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from .answers import Conflict, Due
from .clouds.base import Cloud, CloudError
from .hub import Hub, HubError
from .market import Market
from .models import Kind, State
from .orphans import Orphans
from .patience import PatientHub
from .store.database import Database
from .timing import Backoff, Jumps
from .workloads.jobs import Jobs
from .workloads.notebooks import Notebooks

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a failed step is tried again, at first and at most."""

SWEEP = 60.0
"""Seconds between looks for what runs without a reservation."""


@dataclass
class _Pause:
    """When a reservation needs the next look, as long as its state is the same."""

    state: State
    tries: Backoff
    until: float = 0.0
    failed: bool = False


class Reconciler:
    """Drives one pool.

    Parameters
    ----------
    market : Market
    database : Database
        Market calls run on its writer thread.
    cloud : Cloud
        Runs jobs.
    hub : Hub
        Runs notebook servers.
    clock : callable
        UTC seconds now.
    monotonic : callable
        Seconds by a clock that is never set, and stands still while the machine sleeps.
    interval : float
        Seconds between passes; `wake` brings the next one forward.
    lease : int
        Seconds for which an active notebook reservation may be without a server
        (a hub restart, say) before it is released.
    grace : int
        Seconds between a job's SIGTERM and its end.
    no_show : int
        Seconds after which a reservation that nobody shows up for is released; 0 for never.
    """

    def __init__(
        self,
        market: Market,
        database: Database,
        cloud: Cloud,
        hub: Hub,
        clock: Callable[[], int],
        interval: float,
        lease: int,
        grace: int,
        log: logging.Logger,
        monotonic: Callable[[], float] = time.monotonic,
        no_show: int = 0,
    ) -> None:
        self.market = market
        self.database = database
        self.cloud = cloud
        self.hub = PatientHub(hub, monotonic, log)
        self.orphans = Orphans(market, database, cloud, self.hub, log)
        self.clock = clock
        self.monotonic = monotonic
        self.interval = interval
        self.log = log
        self.jobs = Jobs(market, self._call, cloud, grace, log)
        self.notebooks = Notebooks(
            market, self._call, self.hub, clock, monotonic, lease, no_show, log
        )
        self._woken = asyncio.Event()
        self._pauses: dict[str, _Pause] = {}
        self._jumps = Jumps(clock, monotonic)
        self._begin()
        self.last_pass: float | None = None
        """When the last whole pass ended (`time.monotonic`)."""

    @property
    def postponed(self) -> int:
        """Reservations whose last step failed and is tried again later."""
        return sum(each.failed for each in self._pauses.values())

    def wake(self) -> None:
        """Something has changed: pass again now."""
        self._woken.set()

    async def run(self) -> None:
        """Pass again and again until cancelled."""
        # Until now another service did this, or nobody.
        self._jumps.look()
        self._begin()
        while True:
            self._woken.clear()
            try:
                await self.run_once()
                if self.monotonic() >= self._sweep_at:
                    await self.sweep()
                self.last_pass = time.monotonic()
            except Exception:
                self.log.exception("A pass of the reconciler failed; the next one follows")
            try:
                await asyncio.wait_for(self._woken.wait(), self.interval)
            except TimeoutError:
                continue

    async def run_once(self) -> None:
        """One pass over everything that is open or still running."""
        self._look_at_the_clock()
        self.hub.begin()
        await self._call(self.market.pass_time)
        todo = await self._call(self.market.due)
        known = {each.reservation.id for each in todo}
        self._pauses = {key: each for key, each in self._pauses.items() if key in known}
        self.notebooks.keep(known)
        # Ends before starts, so that freed GPUs can be handed over in the same pass.
        turns: tuple[list[Due], list[Due]] = [], []
        for each in todo:
            turns[not (each.displaced or self._over(each))].append(each)
        for some in turns:
            await asyncio.gather(*map(self._step, some))

    async def sweep(self) -> None:
        """Look for what runs without a reservation."""
        self._sweep_at = self.monotonic() + SWEEP
        await self.orphans.look()

    def _look_at_the_clock(self) -> None:
        jump = self._jumps.look()
        if not jump:
            return
        way = "ahead" if jump > 0 else "back"
        why = "this machine slept, or its clock was set" if jump > 0 else "it was set"
        self.log.warning("The clock has jumped %s by %.0f s: %s", way, abs(jump), why)
        if jump > 0:
            # Nobody had the time to answer: who was missed before counts as there, and
            # whatever has failed may go well now.
            self._begin()

    def _begin(self) -> None:
        """Nothing was seen until now: neither what is missing nor what has failed."""
        self._sweep_at = self.monotonic() + SWEEP
        self.notebooks.forget()
        self._pauses.clear()
        self.orphans.forget()
        self.hub.recover()

    async def settle_jobs(self) -> None:
        """Settle the jobs that have ended by now; the service's last act when it stops."""
        for each in await self._call(self.market.due):
            if each.reservation.kind is Kind.JOB:
                await self.jobs.settle(each)

    def _over(self, due: Due) -> bool:
        return due.reservation.state.final or _seconds(due.reservation.end) <= self.clock()

    async def _step(self, due: Due) -> None:
        key, state, tick = due.reservation.id, due.reservation.state, self.monotonic()
        pause = self._pauses.get(key)
        if pause is None or pause.state is not state:
            tries = pause.tries if pause else Backoff(FIRST_PAUSE, LONGEST_PAUSE)
            pause = self._pauses[key] = _Pause(state, tries)
        if pause.until > tick and not due.displaced:
            return
        try:
            if self._over(due) and not state.final:
                # It may have been extended since this pass has begun.
                (due,) = await self._call(self.market.due, key)
            kind = self.jobs if due.reservation.kind is Kind.JOB else self.notebooks
            rest = await kind.step(due, self._over(due))
        except (HubError, CloudError, Conflict) as error:
            self._postpone(key, pause, tick, error)
        except Exception as error:
            self.log.exception("Reservation %s: a step failed", key)
            self._postpone(key, pause, tick, error)
        else:
            pause.tries.clear()
            pause.failed = False
            left = max(0, _seconds(due.reservation.end) - self.clock())
            pause.until = tick + min(rest, left)

    def _postpone(self, key: str, pause: _Pause, tick: float, error: Exception) -> None:
        pause.failed = True
        if isinstance(error, HubError) and error.ill:
            # The hub is at fault and says so itself; it is asked again for all of them.
            pause.until = tick + self.hub.pause
            return
        pause.tries.fail(tick)
        pause.until = pause.tries.until
        self.log.info("Reservation %s: next try in %g s: %s", key, pause.tries.length, error)

    async def _call(self, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        return await self.database.run(function, *args, **kwargs)


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
