"""Background jobs and their logs."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field

from .. import models
from ..models import JobState
from .base import ApiHandler, Scope, endpoint
from .reservations import ListQuery, ReservationsHandler

# A progress bar as tqdm and its kin print it: " 45%|####      | 45/100".
BAR = re.compile(rb"(\d{1,3})%\|")
TAIL = 4096
CHUNK = 1 << 20


class LogQuery(BaseModel):
    """Which part of the log."""

    offset: int = Field(0, ge=0, description="in bytes")


class JobsHandler(ReservationsHandler):
    """GET and POST jobs"""

    @endpoint("Background jobs, newest first", list[models.Job], query=ListQuery)
    async def get(self, query: ListQuery) -> list[models.Job]:
        user = self.looking_at(query.user, query.everybody)
        found = await self.run(
            self.services.market.jobs, user=user, current=query.current, limit=query.limit
        )
        return [await see(self, each) for each in found]

    @endpoint(
        "Bid for a background job",
        models.JobOutcome,
        body=models.JobRequest,
        scopes=(Scope.BID,),
    )
    async def post(self, body: models.JobRequest) -> models.JobOutcome:
        verdict = await self.bid(self.acting_for(None), body)
        job = verdict.job and await see(self, verdict.job)
        return models.JobOutcome(job=job, **await self.outcome(body, verdict))


class OneJobHandler(ApiHandler):
    """What is done with one job."""

    async def own_job(self, job_id: str) -> models.Job:
        """A job the caller may see and end: their own, or any for admins and the spawner."""
        job = await self.run(self.services.market.job, job_id)
        self.may_see(job.reservation)
        return job


class JobHandler(OneJobHandler):
    """GET and DELETE jobs/{id}"""

    @endpoint("One background job", models.Job)
    async def get(self, job_id: str) -> models.Job:
        return await see(self, await self.run(self.services.market.job, job_id))

    @endpoint("Stop a job, or take it out of the queue", models.Job)
    async def delete(self, job_id: str) -> models.Job:
        await self.own_job(job_id)
        await self.run(self.services.market.give_back, job_id)
        self.services.reconciler.wake()
        return await see(self, await self.run(self.services.market.job, job_id))


class LogHandler(OneJobHandler):
    """GET jobs/{id}/log"""

    @endpoint("A piece of a job's log", models.Log, query=LogQuery)
    async def get(self, job_id: str, query: LogQuery) -> models.Log:
        # The state first: what is read after a job has ended is all there will be.
        job = await self.own_job(job_id)
        raw = await self.services.cloud.read_log(job.id, job.user, query.offset, CHUNK)
        complete = job.state.final and len(raw) < CHUNK
        if not complete:
            raw = _whole_characters(raw)
        return models.Log(
            text=raw.decode("utf-8", "replace"),
            offset=query.offset + len(raw),
            complete=complete,
        )


async def see(handler: ApiHandler, job: models.Job) -> models.Job:
    """The job as the caller may see it, with progress as its log tells."""
    shown = job.model_copy(update={"reservation": handler.may_see(job.reservation)})
    if job.state is JobState.RUNNING:
        tail = await handler.services.cloud.read_log(job.id, job.user, -TAIL, TAIL)
        bars = BAR.findall(tail)
        if bars:
            shown.progress = min(int(bars[-1]), 100) / 100
    return shown


def _whole_characters(raw: bytes) -> bytes:
    """Leave a character cut in two for the next read."""
    for cut in range(1, min(4, len(raw)) + 1):
        byte = raw[-cut]
        if byte & 0b1100_0000 != 0b1000_0000:
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return raw[:-cut] if length > cut else raw
    return raw
