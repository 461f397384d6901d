"""Background jobs and their logs."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field

from .. import models
from ..market import Coming
from ..models import JobState
from .base import ApiHandler, Scope, endpoint
from .groups import groups_of
from .lists import ListQuery, page
from .once import once
from .reservations import BidHandler
from .versions import VersionedHandler

# A progress bar as tqdm and its kin print it: " 45%|####      | 45/100".
BAR = re.compile(rb"(\d{1,3})%\|")
TAIL = 4096
CHUNK = 1 << 20


class LogQuery(BaseModel):
    """Which part of the log."""

    offset: int = Field(0, ge=0, description="in bytes")


class JobsHandler(BidHandler):
    """GET and POST jobs"""

    @endpoint("Background jobs, newest first", list[models.Job], query=ListQuery)
    async def get(self, query: ListQuery) -> list[models.Job]:
        narrowed = {**query.narrowed(), "user": self.looking_at(query.user, query.everybody)}
        found = await self.read(lambda: self.services.market.jobs(**narrowed))
        return [await see(self, each) for each in page(self, query, found)]

    @endpoint(
        "Bid for a background job",
        models.JobOutcome,
        body=models.JobRequest,
        scopes=(Scope.BID,),
    )
    async def post(self, body: models.JobRequest) -> models.JobOutcome:
        user = self.acting_for(None)
        groups = await groups_of(self, user)
        outcome = await once(
            self, models.JobOutcome, body, self._reserve, user, body, groups, coming=Coming(user)
        )
        self.decided(outcome)
        return outcome

    def _reserve(
        self, user: str, body: models.JobRequest, groups: tuple[str, ...]
    ) -> models.JobOutcome:
        return self.outcome(self.services.market.reserve(user, body, groups), body)


class OneJobHandler(VersionedHandler):
    """What is done with one job."""

    async def own_job(self, job_id: str) -> models.Job:
        """A job the caller may see and end: their own, or any for admins and the spawner."""
        return _seen(self, await self.read(self.services.market.job, job_id))


class JobHandler(OneJobHandler):
    """GET and DELETE jobs/{id}"""

    @endpoint("One background job", models.Job)
    async def get(self, job_id: str) -> models.Job:
        job = await see(self, await self.read(self.services.market.job, job_id))
        self.tag(job)
        return job

    @endpoint("Stop a job, or take it out of the queue", models.Job)
    async def delete(self, job_id: str) -> models.Job:
        await self.own_job(job_id)
        ended = await once(self, models.Job, None, self._cancel, job_id)
        self.services.reconciler.wake()
        return ended

    def _cancel(self, job_id: str) -> models.Job:
        market = self.services.market
        market.give_back(job_id, versions=self.versions())
        return _seen(self, market.job(job_id))


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
    shown = _seen(handler, job)
    if job.state is JobState.RUNNING:
        tail = await handler.services.cloud.read_log(job.id, job.user, -TAIL, TAIL)
        bars = BAR.findall(tail)
        if bars:
            shown.progress = min(int(bars[-1]), 100) / 100
    return shown


def _seen(handler: ApiHandler, job: models.Job) -> models.Job:
    return job.model_copy(update={"reservation": handler.may_see(job.reservation)})


def _whole_characters(raw: bytes) -> bytes:
    """Leave a character cut in two for the next read."""
    for cut in range(1, min(4, len(raw)) + 1):
        byte = raw[-cut]
        if byte & 0b1100_0000 != 0b1000_0000:
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return raw[:-cut] if length > cut else raw
    return raw
