"""What is stored, for those who ask: reservations, jobs, accounts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session, contains_eager, selectinload

from .. import models, records
from ..answers import Due, Run, Statement, Work
from ..explained import entry
from ..models import Kind, State
from ..store.ledger import Ledger, Movement
from ..store.tables import Job, Reservation
from .paying import NO_GROUPS, Paying, held
from .rows import OPEN, job_row, reservation_row, show, show_all, show_job
from .state import PoolState


@dataclass(frozen=True)
class Place:
    """Where a list goes on: after the reservation of this time and id."""

    created: int
    id: str


@dataclass(frozen=True)
class Filter:
    """Which reservations are meant; all for which nothing is said.

    `since` and `until` are UTC seconds: what overlaps with the time between them.
    """

    user: str | None = None
    current: bool = False
    kind: Kind | None = None
    state: State | None = None
    configuration: str | None = None
    since: int | None = None
    until: int | None = None
    after: Place | None = None

    def narrow(self, query: Select[Any]) -> Select[Any]:
        """The query for what is meant, newest first."""
        for name in ("user", "kind", "state", "configuration"):
            value = getattr(self, name)
            if value is not None:
                query = query.where(getattr(Reservation, name) == value)
        if self.current:
            query = query.where(Reservation.state.in_(OPEN))
        if self.since is not None:
            query = query.where(Reservation.end > self.since)
        if self.until is not None:
            query = query.where(Reservation.start < self.until)
        if self.after is not None:
            place = (self.after.created, self.after.id)
            query = query.where(tuple_(Reservation.created, Reservation.id) < place)
        return query.order_by(Reservation.created.desc(), Reservation.id.desc())


class Questions:
    """Answers that change nothing."""

    def __init__(self, state: PoolState) -> None:
        self.state = state

    def reservation(self, reservation_id: str) -> models.Reservation:
        """One reservation; raises `NotFound`."""
        with self.state.reading() as session:
            return show(session, reservation_row(session, reservation_id))

    def reservations(
        self,
        user: str | None = None,
        current: bool = False,
        kind: Kind | None = None,
        limit: int = 500,
        **more: Any,
    ) -> list[models.Reservation]:
        """Reservations, newest first.

        More ways to narrow the list are the fields of `Filter`.
        """
        meant = Filter(user=user, current=current, kind=kind, **more)
        query = meant.narrow(select(Reservation).filter_by(pool=self.state.pool)).limit(limit)
        with self.state.reading() as session:
            return show_all(session, session.scalars(query))

    def due(self, reservation_id: str | None = None) -> list[Due]:
        """What may have a workload now, newest first.

        These are the open reservations whose time has come, and the ended ones still
        stopping; of those, only the one named if an id is given.
        """
        now = self.state.clock()
        begun = Reservation.state.in_(OPEN) & (Reservation.start <= now)
        query = (
            Filter()
            .narrow(select(Reservation).filter_by(pool=self.state.pool))
            .where(begun | Reservation.has_workload)
            .options(selectinload(Reservation.placements))
        )
        if reservation_id is not None:
            query = query.where(Reservation.id == reservation_id)
        with self.state.reading() as session:
            rows = list(session.scalars(query))
            shown = show_all(session, rows)
            return [_due(row, seen, now) for row, seen in zip(rows, shown, strict=True)]

    def job(self, job_id: str) -> models.Job:
        """One job; raises `NotFound`."""
        with self.state.reading() as session:
            return show_job(session, job_row(session, job_id))

    def jobs(
        self, user: str | None = None, current: bool = False, limit: int = 200, **more: Any
    ) -> list[models.Job]:
        """Jobs, newest first; narrowed as `reservations` are."""
        meant = Filter(user=user, current=current, kind=Kind.JOB, **more)
        query = (
            select(Job)
            .join(Job.reservation)
            .options(contains_eager(Job.reservation))
            .where(Reservation.pool == self.state.pool)
        )
        with self.state.reading() as session:
            rows = list(session.scalars(meant.narrow(query).limit(limit)))
            return [show_job(session, row) for row in rows]

    def work(self, job_id: str) -> Work:
        """What a job is to run."""
        with self.state.reading() as session:
            job = job_row(session, job_id)
            files = {} if job.script is None else {job.filename: job.script}
            return Work(tuple(job.command), files, dict(job.environment))

    def statement(
        self,
        user: str,
        limit: int = 100,
        before: int | None = None,
        account: str = models.OWN,
        groups: Collection[str] = NO_GROUPS,
    ) -> Statement:
        """An account that the user may pay from; opened on first sight.

        Parameters
        ----------
        before : int, optional
            Only movements older than the one of this number.
        account : str
            As a bid names it.
        groups : collection of str
            Those that the user is in now.

        Raises
        ------
        Forbidden
            If it is the account of a group that the user is not in.
        """
        with self.state.transaction() as session:
            ledger = Ledger(session, self.state.clock())
            purse = Paying(self.state).purse(session, user, groups, account)
            movements = ledger.statement(purse.account, limit, before)
            return Statement(
                balance=ledger.balance(purse.account),
                held=held(session, purse.account),
                entries=_entries(session, user, movements),
            )


def _due(row: Reservation, shown: models.Reservation, now: int) -> Due:
    part = records.part_at(row, now) if row.state in OPEN else None
    return Due(
        reservation=shown,
        now=None if part is None else Run(part.start, part.end, tuple(part.nodes)),
        started=row.runs,
        nodes=None if row.run_nodes is None else tuple(row.run_nodes),
        end=row.run_end,
        displaced=row.state in OPEN and records.displaced(row, now),
    )


def _entries(session: Session, reader: str, movements: list[Movement]) -> list[models.LedgerEntry]:
    """What a reader may know of the movements: of others' no name and no reservation."""
    meant = {each.reservation_id for each in movements if each.reservation_id}
    query = select(Reservation).where(Reservation.id.in_(meant))
    # The job tells what the reservation is for.
    found = session.scalars(query.options(selectinload(Reservation.job)))
    rows = {row.id: row for row in found}
    return [entry(each, rows.get(each.reservation_id or ""), reader) for each in movements]
