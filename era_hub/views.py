"""From database rows to public models."""

from __future__ import annotations

from datetime import UTC, datetime

from . import models
from .store.tables import Job, Reservation

LATEST = int(datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp())


def when(seconds: int) -> datetime:
    """UTC seconds as an aware datetime, or the last one that there is."""
    return datetime.fromtimestamp(min(seconds, LATEST), UTC)


def text(seconds: int) -> str:
    """UTC seconds for people, in an error message."""
    return f"{when(seconds):%Y-%m-%d %H:%M} UTC"


def reservation(row: Reservation, payer: str = models.OWN) -> models.Reservation:
    """The public view of a reservation, its sealed value included: strip it for others.

    `payer` is the account that pays, as a bid names it.
    """
    active = row.state == models.State.ACTIVE
    return models.Reservation(
        id=row.id,
        kind=models.Kind(row.kind),
        user=row.user,
        server_name=row.server_name,
        configuration=row.configuration,
        count=row.count,
        units=row.units,
        state=models.State(row.state),
        arrival=when(row.arrival),
        deadline=when(row.deadline),
        duration=row.duration,
        start=when(row.start),
        end=when(row.end),
        value=row.value,
        price=row.price,
        refunded=row.refunded,
        account=payer,
        version=row.version,
        gpus=row.gpus if active else None,
        resources=row.resources,
        nodes=row.nodes if row.run_nodes is None else row.run_nodes,
        commitment=models.Commitment(row.commitment),
        message=row.message,
        created=when(row.created),
        ended=when(row.ended) if row.ended is not None else None,
    )


def job(row: Job, payer: str = models.OWN) -> models.Job:
    """The public view of a job; progress is read from its log by the caller."""
    state = models.JobState(row.state)
    return models.Job(
        id=row.id,
        name=row.name,
        user=row.reservation.user,
        state=state,
        progress=1.0 if state is models.JobState.SUCCEEDED else None,
        exit_code=row.exit_code,
        message=row.message,
        directory=row.directory,
        reservation=reservation(row.reservation, payer),
    )
