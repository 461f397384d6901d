"""Between the engine's promises and the database's rows."""

from __future__ import annotations

from collections.abc import Collection

from era_pricing import Decision, ResourceRequest
from era_pricing import Reservation as Promise
from era_pricing.predictors import SeenRequest

from . import models
from .models import JobState, Kind, State
from .store.tables import Job, Reservation


def new_reservation(
    promise: Promise,
    wanted: ResourceRequest,
    user: str,
    groups: Collection[str],
    request: models.ReservationRequest | models.JobRequest,
) -> Reservation:
    """The row of a bid the engine has just accepted, with its job's if it is one."""
    row = Reservation(
        id=promise.job_id,
        kind=Kind.JOB if isinstance(request, models.JobRequest) else Kind.NOTEBOOK,
        user=user,
        server_name=getattr(request, "server_name", ""),
        configuration=request.configuration,
        count=request.count,
        units=0,
        state=State.ACCEPTED,
        arrival=wanted.arrival,
        deadline=wanted.deadline,
        duration=promise.end - promise.start,
        value=request.value,
        price=promise.price,
        refunded=0,
        slot_prices=list(promise.slot_prices),
        start=promise.start,
        end=promise.end,
        gpus=None,
        has_workload=False,
        message="",
        created=promise.made,
        ended=None,
        groups=sorted(groups),
        version=1,
        job=None,
    )
    if isinstance(request, models.JobRequest):
        row.job = Job(
            id=row.id,
            name=request.name,
            script=request.script,
            filename=request.filename,
            command=[*(request.command or ["python3", request.filename]), *request.args],
            environment=request.environment,
            state=JobState.QUEUED,
            directory=None,
            exit_code=None,
            message="",
        )
    return row


def extend(row: Reservation, longer: Promise, value: int) -> None:
    """Let a row be what its reservation has become by an extension worth so much."""
    row.end, row.duration = longer.end, longer.end - longer.start
    row.price, row.slot_prices = longer.price, list(longer.slot_prices)
    row.value = min(row.value + value, models.MAX_CREDITS * models.MICRO)


def promise(row: Reservation, resource: str) -> Promise:
    """The engine's view of a stored reservation of so many units of a resource."""
    return Promise.of(
        job_id=row.id,
        configuration=row.configuration,
        count=row.count,
        units={resource: row.units},
        start=row.start,
        end=row.end,
        slot_prices=row.slot_prices,
        made=row.created,
    )


def seen(
    wanted: ResourceRequest, units: int, value: int, decision: Decision, now: int
) -> SeenRequest:
    """A decided bid for so many units, as the engine tells the predictors of it."""
    return SeenRequest(
        submitted=now,
        arrival=max(wanted.arrival, now),
        deadline=wanted.deadline,
        units=units,
        duration=wanted.duration,
        value=value,
        accepted=decision.accepted,
        price=decision.price,
    )


def end_job(job: Job, state: JobState, exit_code: int | None = None, message: str = "") -> None:
    """What has become of a job; what was said first stays."""
    if not JobState(job.state).final:
        job.state, job.exit_code, job.message = state, exit_code, message
