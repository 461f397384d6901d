"""The cloud's side of a pool: what must run now, and what a scheduler says of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from .. import records, views
from ..answers import MarketError
from ..cloud_models import (
    Allocated,
    Allocation,
    CapacitySpan,
    EndedWorkload,
    FailedWorkload,
    Feedback,
    FeedbackResult,
    Moved,
    Settled,
)
from ..models import JobState, Kind, State
from ..store.capacity import Capacity, Span
from ..store.tables import Reservation
from .life import Life
from .rows import OPEN
from .state import PoolState
from .supply import Supply

MANY = 500
"""Ids in one query: databases limit the parameters of a statement."""

LOST = "the cluster has less to give than when this was reserved"


class CloudSide:
    """`get_current_allocation` and `update` of the engine, for a scheduler of others."""

    def __init__(self, state: PoolState, life: Life, supply: Supply) -> None:
        self.state = state
        self.life = life
        self.supply = supply

    def allocation(self) -> Allocation:
        """What must run now. It is the same answer until something changes."""
        state, era, now = self.state, self.state.era, self.state.clock()
        running = era.get_current_allocation(now)
        found = []
        with state.reading() as session:
            for row in _rows(session, running):
                if row.state not in OPEN:
                    continue  # ended by another service since the engine looked
                promised = running[row.id]
                found.append(
                    Allocated(
                        id=row.id,
                        kind=Kind(row.kind),
                        user=row.user,
                        server_name=row.server_name,
                        configuration=row.configuration,
                        count=row.count,
                        units=promised.units.get(era.resource, 0),
                        gpus=row.gpus if row.state == State.ACTIVE else None,
                        state=State(row.state),
                        start=views.when(row.start),
                        end=views.when(promised.end),
                        preemptible=promised.overrun,
                    )
                )
        return Allocation(
            pool=state.pool,
            resource=era.resource,
            capacity=int(era.capacity(now - now % era.grid.slot, 1)[0]),
            running=sorted(found, key=lambda each: (each.start, each.id)),
        )

    def update(self, feedback: Feedback) -> FeedbackResult:
        """Take in what a scheduler has observed; what it said before changes nothing.

        First what has ended or failed is settled, then the capacity changes. What there
        is no room for any more is given up with a full refund.

        Raises
        ------
        MarketError
            If the capacity is more than the pool has.
        """
        spans = None if feedback.capacity is None else self._spans(feedback.capacity)
        settled: dict[str, Settled] = {}
        said: list[EndedWorkload | FailedWorkload] = [*feedback.ended, *feedback.failed]
        unknown: list[str] = []
        broken: list[Settled] = []
        moved: list[Moved] = []
        with self.state.transaction() as session:
            for each in said:
                row = session.get(Reservation, each.id)
                if row is None or row.pool != self.state.pool:
                    unknown.append(each.id)
                    continue
                self._settle(row, each)
                settled[row.id] = _settled(row)
            if spans is not None and Capacity(session).report(self.state.pool, spans):
                effects = self.supply.take_effect(session, LOST)
                for loss in effects.losses:
                    broken.append(_settled(session.get_one(Reservation, loss.reservation.id)))
                moved = [Moved(id=r.id, start=r.start, end=r.end) for r in effects.moved]
        return FeedbackResult(
            settled=list(settled.values()), broken=broken, moved=moved, unknown=unknown
        )

    def _settle(self, row: Reservation, said: EndedWorkload | FailedWorkload) -> None:
        # Whether its GPUs are free is left to the reconciler, which looks for itself.
        if isinstance(said, FailedWorkload):
            message = "the cluster could not run it" + (f": {said.reason}" if said.reason else "")
            self.life.end(row.id, State.FAILED, message, refund_all=True)
        elif row.job is None:
            self.life.give_back(row.id)
        else:
            state = JobState.FAILED if said.exit_code else JobState.SUCCEEDED
            records.end_job(row.job, state, said.exit_code, said.message)
            self.life.end(row.id, State.COMPLETED)

    def _spans(self, capacity: Iterable[CapacitySpan]) -> list[Span]:
        there, found = self.state.size, []
        for number, each in enumerate(capacity):
            if each.units > there:
                raise MarketError(
                    f"capacity.{number}.units: pool {self.state.pool} has {there} units, "
                    f"so at most {there}; got {each.units}"
                )
            start = 0 if each.start is None else _seconds(each.start)
            found.append(Span(start, None if each.end is None else _seconds(each.end), each.units))
        return found


def _rows(session: Session, ids: Iterable[str]) -> Iterable[Reservation]:
    left = iter(ids)
    while some := list(islice(left, MANY)):
        yield from session.scalars(select(Reservation).where(Reservation.id.in_(some)))


def _settled(row: Reservation) -> Settled:
    return Settled(id=row.id, state=State(row.state), price=row.price, refunded=row.refunded)


def _seconds(time: datetime) -> int:
    return max(0, int(time.timestamp()))
