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

from .answers import Conflict
from .clouds.base import Cloud, CloudError, JobSpec, JobStatus, Phase
from .hub import Hub, HubError
from .market import Market
from .models import JobState, Kind, Reservation, State
from .orphans import Orphans
from .patience import PatientHub
from .store.database import Database
from .timing import Backoff, Jumps

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a failed step is tried again, at first and at most."""

WATCH = 15.0
"""Seconds between looks at a server that should be running."""

STARTING = 10.0
"""Seconds given to the Hub to start a server before it is asked again."""


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
    ) -> None:
        self.market = market
        self.database = database
        self.cloud = cloud
        self.hub = PatientHub(hub, monotonic, log)
        self.orphans = Orphans(market, database, cloud, self.hub, log)
        self.clock = clock
        self.monotonic = monotonic
        self.interval = interval
        self.lease = lease
        self.grace = grace
        self.log = log
        self._woken = asyncio.Event()
        self._pauses: dict[str, _Pause] = {}
        self._missing: dict[str, float] = {}
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
        todo = await self._call(self.market.reservations, with_workload=True, limit=1_000_000)
        known = {each.id for each in todo}
        self._pauses = {key: each for key, each in self._pauses.items() if key in known}
        self._missing = {key: each for key, each in self._missing.items() if key in known}
        # Ends before starts, so that freed GPUs can be handed over in the same pass.
        await asyncio.gather(*(self._step(each) for each in todo if self._over(each)))
        await asyncio.gather(*(self._step(each) for each in todo if not self._over(each)))

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
        self._awake_since = self.clock()
        self._sweep_at = self.monotonic() + SWEEP
        self._missing.clear()
        self._pauses.clear()
        self.orphans.forget()
        self.hub.recover()

    async def settle_jobs(self) -> None:
        """Settle the jobs that have ended by now; the service's last act when it stops."""
        for each in await self._call(self.market.reservations, current=True, kind=Kind.JOB):
            status = await self.cloud.status(each.id, each.user)
            if each.state is State.ACTIVE and status.phase is Phase.ENDED:
                await self._job(each, self.clock())

    def _over(self, reservation: Reservation) -> bool:
        return reservation.state.final or _seconds(reservation.end) <= self.clock()

    async def _step(self, reservation: Reservation) -> None:
        now, tick = self.clock(), self.monotonic()
        pause = self._pauses.get(reservation.id)
        if pause is None or pause.state is not reservation.state:
            tries = pause.tries if pause else Backoff(FIRST_PAUSE, LONGEST_PAUSE)
            pause = self._pauses[reservation.id] = _Pause(reservation.state, tries)
        if pause.until > tick:
            return
        try:
            if self._over(reservation) and not reservation.state.final:
                # It may have been extended since this pass has begun.
                reservation = await self._call(self.market.reservation, reservation.id)
            if reservation.kind is Kind.JOB:
                rest = await self._job(reservation, now)
            else:
                rest = await self._notebook(reservation, now)
        except (HubError, CloudError, Conflict) as error:
            self._postpone(reservation, pause, tick, error)
        except Exception as error:
            self.log.exception("Reservation %s: a step failed", reservation.id)
            self._postpone(reservation, pause, tick, error)
        else:
            pause.tries.clear()
            pause.failed = False
            left = max(0, _seconds(reservation.end) - now)
            pause.until = tick + min(rest, left)

    def _postpone(
        self, reservation: Reservation, pause: _Pause, tick: float, error: Exception
    ) -> None:
        pause.failed = True
        if isinstance(error, HubError) and error.ill:
            # The hub is at fault and says so itself; it is asked again for all of them.
            pause.until = tick + self.hub.pause
            return
        pause.tries.fail(tick)
        pause.until = pause.tries.until
        length = pause.tries.length
        self.log.info("Reservation %s: next try in %g s: %s", reservation.id, length, error)

    async def _call(self, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        return await self.database.run(function, *args, **kwargs)

    # -- jobs -------------------------------------------------------------------------

    async def _job(self, reservation: Reservation, now: int) -> float:
        """Bring one job forward; returns the seconds until the next look."""
        if reservation.state is State.ACCEPTED:
            if _seconds(reservation.end) <= now:
                # The service was away for the whole reservation: not the user's fault.
                message = "the service was not running at the reserved time"
                await self._call(self.market.job_failed_to_start, reservation.id, message)
            elif _seconds(reservation.start) <= now:
                await self._start_job(reservation)
            return 0
        status = await self.cloud.status(reservation.id, reservation.user)
        if status.phase is Phase.RUNNING:
            end = _seconds(reservation.end)
            if self._over(reservation):
                await self.cloud.stop(reservation.id, reservation.user)
            elif status.end is not None and status.end < end:
                self.log.info("Job %s has time until %d", reservation.id, end)
                await self.cloud.extend(reservation.id, reservation.user, end)
        elif status.phase is Phase.ENDED:
            state = _job_state(status, reservation.state)
            await self._call(
                self.market.job_ended, reservation.id, state, status.exit_code, status.message
            )
        elif self._over(reservation) or await self._was_started(reservation.id):
            # Whatever runs on without its directory must be gone before its GPUs are free.
            await self.cloud.stop(reservation.id, reservation.user)
            message = "no trace of the job was found; was its directory removed?"
            await self._call(self.market.job_ended, reservation.id, JobState.FAILED, None, message)
        else:
            await self._start_job(reservation)  # the service died between claim and start
        return 0

    async def _was_started(self, job_id: str) -> bool:
        job = await self._call(self.market.job, job_id)
        return job.state is not JobState.QUEUED

    async def _start_job(self, reservation: Reservation) -> None:
        claimed = await self._call(self.market.claim, reservation.id)
        work = await self._call(self.market.work, reservation.id)
        spec = JobSpec(
            id=claimed.id,
            user=claimed.user,
            command=work.command,
            files=work.files,
            environment=work.environment,
            gpus=tuple(claimed.gpus or ()),
            end=_seconds(claimed.end),
            grace=min(self.grace, claimed.duration // 4),
        )
        try:
            directory = await self.cloud.start(spec)
        except CloudError as error:
            await self._call(self.market.job_failed_to_start, claimed.id, str(error))
            return
        await self._call(self.market.job_started, claimed.id, directory)
        self.log.info("Started job %s of %s on GPUs %s", claimed.id, claimed.user, claimed.gpus)

    # -- notebooks --------------------------------------------------------------------

    async def _notebook(self, reservation: Reservation, now: int) -> float:
        """Bring one notebook forward; returns the seconds until the next look."""
        if reservation.state is State.ACCEPTED:
            if _seconds(reservation.end) <= now:
                await self._missed(reservation)
            elif _seconds(reservation.start) <= now:
                await self._start_notebook(reservation)
                return STARTING
            return 0
        if reservation.state is State.ACTIVE and _seconds(reservation.end) > now:
            return await self._watch_notebook(reservation)
        if reservation.state is State.ACTIVE:
            message = "the reservation has ended"
            await self._call(self.market.end, reservation.id, State.COMPLETED, message)
        await self._stop_notebook(reservation)
        return 0

    async def _start_notebook(self, reservation: Reservation) -> None:
        # The spawner claims the reservation; what runs comes from there, not from here.
        options = {"reservation": reservation.id}
        try:
            await self.hub.start(reservation.user, reservation.server_name, options)
        except HubError as error:
            message = f"the server has not started yet: {error}"
            if message != reservation.message:
                await self._call(self.market.note, reservation.id, message)
            raise

    async def _missed(self, reservation: Reservation) -> None:
        """A notebook that never started: refunded, unless its user kept the server busy."""
        if _seconds(reservation.end) <= self._awake_since:
            refund, message = True, "the service was not running at the reserved time"
        elif await self.hub.server(reservation.user, reservation.server_name) is not None:
            refund = False
            message = "not used: the server was running on another reservation all the time"
        else:
            refund, message = True, reservation.message or "the server could not be started in time"
        state = State.FAILED if refund else State.COMPLETED
        await self._call(self.market.end, reservation.id, state, message, refund_all=refund)

    async def _watch_notebook(self, reservation: Reservation) -> float:
        server = await self.hub.server(reservation.user, reservation.server_name)
        now = self.monotonic()
        if server is not None:
            self._missing.pop(reservation.id, None)
            return WATCH
        since = self._missing.setdefault(reservation.id, now)
        if now - since >= self.lease:
            self.log.warning("Reservation %s has lost its server: released", reservation.id)
            await self._call(self.market.give_back, reservation.id, stopped=True)
        return min(WATCH, self.lease / 4)

    async def _stop_notebook(self, reservation: Reservation) -> None:
        server = await self.hub.server(reservation.user, reservation.server_name)
        if server is None or await self._belongs_to_another(reservation):
            await self._call(self.market.workload_gone, reservation.id)
        elif server.pending != "stop":
            self.log.info("Stopping the server of reservation %s", reservation.id)
            await self.hub.stop(reservation.user, reservation.server_name)

    async def _belongs_to_another(self, reservation: Reservation) -> bool:
        """Whether the running server is already that of the user's next reservation."""
        mine = await self._call(
            self.market.reservations, user=reservation.user, kind=Kind.NOTEBOOK, current=True
        )
        return any(
            each.state is State.ACTIVE
            and each.server_name == reservation.server_name
            and each.id != reservation.id
            for each in mine
        )


def _job_state(status: JobStatus, state: State) -> JobState:
    if status.timed_out:
        return JobState.TIMED_OUT
    if state in (State.CANCELLED, State.RELEASED):
        return JobState.CANCELLED
    return JobState.SUCCEEDED if status.exit_code == 0 else JobState.FAILED


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
