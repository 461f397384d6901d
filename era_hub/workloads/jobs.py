"""One job's next step: started, stopped, paused between its parts, begun again, settled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..answers import Due
from ..clouds.base import Cloud, CloudError, CloudUnavailable, JobSpec, JobStatus, Phase
from ..market import Market
from ..models import JobState, State

MOST_LOST = 5
"""Runs of a job that may be lost before the job is given up, and refunded."""


class Jobs:
    """Brings jobs forward. Every step may be repeated.

    Parameters
    ----------
    market : Market
    call : callable
        Calls a method of the market on its thread.
    cloud : Cloud
    grace : int
        Seconds between a job's SIGTERM and its end.
    """

    def __init__(
        self,
        market: Market,
        call: Callable[..., Any],
        cloud: Cloud,
        grace: int,
        log: logging.Logger,
    ) -> None:
        self.market = market
        self.call = call
        self.cloud = cloud
        self.grace = grace
        self.log = log

    async def step(self, due: Due, over: bool) -> float:
        """Bring one job forward; returns the seconds until the next look.

        Parameters
        ----------
        over : bool
            Whether its reservation has ended.
        """
        job_id = due.reservation.id
        if due.reservation.state is State.ACCEPTED:
            await self._waits(due, over)
            return 0
        status = await self.cloud.status(job_id, due.reservation.user)
        if status.phase is not Phase.UNKNOWN and status.run < due.started - 1:
            await self._old_run(due, status, over)
        elif status.phase is Phase.RUNNING:
            await self._runs(due, status, over)
        elif status.phase is Phase.ENDED:
            await self._has_ended(due, status, over)
        elif over or await self._was_started(job_id):
            # Whatever runs on without its directory must be gone before its GPUs are free.
            await self.cloud.stop(job_id, due.reservation.user)
            message = "no trace of the job was found; was its directory removed?"
            await self.call(self.market.job_ended, job_id, JobState.FAILED, None, message)
        else:
            await self._start(due)  # the service died between claim and start
        return 0

    async def settle(self, due: Due) -> None:
        """Settle a job that has ended by now."""
        status = await self.cloud.status(due.reservation.id, due.reservation.user)
        if due.reservation.state is State.ACTIVE and status.phase is Phase.ENDED:
            await self._has_ended(due, status, over=False)

    async def _waits(self, due: Due, over: bool) -> None:
        """Nothing runs: before its first part, or between two."""
        job_id = due.reservation.id
        if over and due.started:
            message = due.reservation.message or "its time was over"
            await self.call(self.market.job_ended, job_id, JobState.TIMED_OUT, None, message)
        elif over:
            # The service was away for the whole reservation: not the user's fault.
            message = "the service was not running at the reserved time"
            await self.call(self.market.job_failed_to_start, job_id, message)
        elif due.now is not None and (due.end is None or due.now.end > due.end):
            await self._start(due)

    async def _old_run(self, due: Due, status: JobStatus, over: bool) -> None:
        """The service died when it had claimed a run, and not yet started it."""
        if status.phase is Phase.RUNNING:
            await self.cloud.stop(due.reservation.id, due.reservation.user)
        elif over or due.reservation.state.final:
            await self._has_ended(due, status, over)
        else:
            await self._start(due)

    async def _runs(self, due: Due, status: JobStatus, over: bool) -> None:
        job_id, user = due.reservation.id, due.reservation.user
        if over or due.displaced:
            await self.cloud.stop(job_id, user)
        elif status.end is not None and due.end is not None and status.end < due.end:
            self.log.info("Job %s has time until %d", job_id, due.end)
            await self.cloud.extend(job_id, user, due.end)
        elif status.message and status.message != due.reservation.message:
            await self.call(self.market.note, job_id, status.message)

    async def _has_ended(self, due: Due, status: JobStatus, over: bool) -> None:
        reservation = due.reservation
        later = due.end is not None and int(reservation.end.timestamp()) > due.end
        unfinished = (status.timed_out and later) or status.lost or due.displaced
        if over or reservation.state.final or not unfinished:
            state = _job_state(status, reservation.state)
            await self.call(
                self.market.job_ended, reservation.id, state, status.exit_code, status.message
            )
            await self.cloud.forget(reservation.id, reservation.user)
        elif status.lost and due.started >= MOST_LOST:
            message = f"given up after {due.started} starts: {status.message}"
            await self.call(self.market.job_failed_to_start, reservation.id, message)
        else:
            # One whose time is over goes on in its next part, and not in what is left of this.
            again = not status.timed_out
            await self.call(self.market.run_over, reservation.id, status.message, again)

    async def _was_started(self, job_id: str) -> bool:
        job = await self.call(self.market.job, job_id)
        return job.state is not JobState.QUEUED

    async def _start(self, due: Due) -> None:
        claimed = await self.call(self.market.claim, due.reservation.id)
        (now,) = await self.call(self.market.due, claimed.id)
        work = await self.call(self.market.work, claimed.id)
        assert now.end is not None
        spec = JobSpec(
            id=claimed.id,
            user=claimed.user,
            command=work.command,
            files=work.files,
            environment=work.environment,
            gpus=tuple(claimed.gpus or ()),
            end=now.end,
            grace=min(self.grace, claimed.duration // 4),
            run=now.started - 1,
            nodes=now.nodes or (),
            resources=claimed.resources,
            configuration=claimed.configuration,
        )
        try:
            directory = await self.cloud.start(spec)
        except CloudUnavailable:
            raise  # tried again
        except CloudError as error:
            await self.call(self.market.job_failed_to_start, claimed.id, str(error))
            return
        await self.call(self.market.job_started, claimed.id, directory)
        where = f"on {', '.join(spec.nodes)}" if spec.nodes else f"on GPUs {claimed.gpus}"
        self.log.info("Started job %s of %s %s", claimed.id, claimed.user, where)


def _job_state(status: JobStatus, state: State) -> JobState:
    if status.timed_out:
        return JobState.TIMED_OUT
    if state in (State.CANCELLED, State.RELEASED):
        return JobState.CANCELLED
    return JobState.SUCCEEDED if status.exit_code == 0 else JobState.FAILED
