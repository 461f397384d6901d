"""The market: one writer that turns bids into reservations and money.

Budget check, engine call, ledger hold and reservation row happen in one
transaction, on the database's writer thread (`Database.run`). The engine's plan
is a cache of the database: whenever a transaction fails half-way the plan is
rebuilt from what is stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.orm import Session

from era_pricing import (
    Bid,
    BidError,
    Configuration,
    Decision,
    Era,
    Feedback,
    ResourceRequest,
    UnknownReservation,
)
from era_pricing import Quote as EngineQuote
from era_pricing import Reservation as Promise

from . import models, records, views
from .answers import (
    Conflict,
    MarketError,
    NotFound,
    Statement,
    Verdict,
    Work,
    accepted,
    declined,
    hours,
    too_poor,
)
from .models import JobState, Kind, State
from .store.database import Database
from .store.demand import Demand
from .store.ledger import Ledger
from .store.tables import Job, Reservation

OPEN = (State.ACCEPTED, State.ACTIVE)


class Market:
    """All changes of one pool's promises and of the money behind them.

    Parameters
    ----------
    database : Database
    era : Era
        The engine; its plan is rebuilt from the database by `rebuild`.
    configurations : sequence of Configuration
        What is for sale, in the order in which it is shown.
    pool : str
    gpus : sequence of int
        Indices of the pool's GPUs.
    grant : int
        Starting grant of a new account, in micro-credits.
    clock : callable
        UTC seconds now.
    """

    def __init__(
        self,
        database: Database,
        era: Era,
        configurations: Sequence[Configuration],
        pool: str,
        gpus: Sequence[int],
        grant: int,
        clock: Callable[[], int],
    ) -> None:
        self.database = database
        self.era = era
        self.configurations = {each.name: each for each in configurations}
        self.pool = pool
        self.gpus = tuple(gpus)
        self.grant = grant
        self.clock = clock

    # -- bids ---------------------------------------------------------------------

    def quote(self, request: models.RequestBase) -> EngineQuote:
        """Prices for a request, without commitment.

        Raises
        ------
        BidError
            If the request makes no sense; the text says what to change.
        """
        now = self.clock()
        return self.era.quote(self._resource_request(request, now), now)

    def reserve(
        self,
        user: str,
        request: models.ReservationRequest | models.JobRequest,
        idempotency_key: str | None = None,
    ) -> Verdict:
        """Decide on a bid; if the market takes it, hold its price and store it.

        Raises
        ------
        BidError
            If the request makes no sense; the text says what to change.
        Conflict
            If the user holds a reservation for the same server and time.
        """
        now = self.clock()
        with self._transaction() as session:
            repeated = _by_key(session, user, idempotency_key)
            if repeated is not None:
                return accepted(repeated, None)
            ledger = Ledger(session, now)
            account = ledger.user(user, self.grant)
            job_id = str(uuid.uuid4())
            wanted = self._resource_request(request, now)
            balance = ledger.balance(account)
            # Nobody can pay more than they have; what they can't pay is no demand either.
            value = min(request.value, balance)
            decision = self.era.make_reservation(job_id, Bid.of(wanted, value), now)
            self._remember(session, wanted, value, decision, now)
            promise, price = decision.reservation, decision.price
            if promise is None:
                poor = price is not None and price <= request.value
                reason = too_poor(price or 0, balance) if poor else declined(decision)
                return Verdict(False, price, reason, decision.quote)
            double = _double(session, user, request, promise)
            if double is None:
                row = records.new_reservation(promise, wanted, user, request, idempotency_key)
                row.pool, row.units = self.pool, self._units(promise)
                session.add(row)
                session.flush()
                what = f"{request.configuration} for {hours(row.duration)}"
                ledger.hold(account, row.price, row.id, f"reserved {what}")
                return accepted(row, decision.quote)
            self.era.forget(job_id)
        # After the transaction, which keeps what the forecast has learned from the bid.
        raise double

    # -- the life of a reservation --------------------------------------------------

    def claim(self, reservation_id: str) -> models.Reservation:
        """Start a reservation: give it GPUs of its own. Claiming twice changes nothing.

        GPUs are chosen at the start, not at the promise: whatever runs then leaves
        enough indices free, while choosing earlier could fragment the future.

        Raises
        ------
        Conflict
            If it has not begun, has ended, or its GPUs are still being freed.
        """
        now = self.clock()
        with self._transaction() as session:
            row = _get(session, reservation_id)
            if row.state not in OPEN:
                raise Conflict(f"reservation {row.id} is {row.state}; make a new one")
            if not row.start <= now < row.end:
                raise Conflict(f"reservation {row.id} runs from {views.text(row.start)} only")
            if row.state == State.ACCEPTED or not row.has_workload:
                row.gpus = self._free_gpus(session, row.units)
                row.state = State.ACTIVE
                row.has_workload = True
                row.message = ""
            return views.reservation(row)

    def give_back(self, reservation_id: str, stopped: bool = False) -> models.Reservation:
        """Cancel a reservation before its start, release it after. Harmless when repeated.

        Parameters
        ----------
        stopped : bool
            The caller knows that its workload is gone.
        """
        with self._transaction() as session:
            row = _get(session, reservation_id)
            if row.state in OPEN:
                early = row.state == State.ACCEPTED and self.clock() < row.start
                self._end(session, row, State.CANCELLED if early else State.RELEASED)
                if row.job is not None:
                    records.end_job(row.job, JobState.CANCELLED)
            if stopped:
                row.has_workload = False
            return views.reservation(row)

    def end(
        self,
        reservation_id: str,
        state: State,
        message: str = "",
        refund_all: bool = False,
        stopped: bool = False,
    ) -> None:
        """End an open reservation and settle it; one that has ended stays as it is.

        Parameters
        ----------
        stopped : bool
            The caller knows that its workload is gone.
        """
        with self._transaction() as session:
            row = _get(session, reservation_id)
            if row.state in OPEN:
                self._end(session, row, state, message, refund_all)
                if row.job is not None:
                    records.end_job(row.job, JobState.FAILED, message=message)
            if stopped:
                row.has_workload = False

    def note(self, reservation_id: str, message: str) -> None:
        """Tell the owner of an open reservation why it has not started yet."""
        with self._transaction() as session:
            _get(session, reservation_id).message = message

    def job_started(self, job_id: str, directory: str) -> None:
        """The cloud has started a job."""
        with self._transaction() as session:
            job = _get_job(session, job_id)
            job.directory = directory
            if job.state == JobState.QUEUED:
                job.state = JobState.RUNNING

    def job_ended(self, job_id: str, state: JobState, exit_code: int | None, message: str) -> None:
        """A job's process is gone: settle its reservation and free its GPUs."""
        with self._transaction() as session:
            job = _get_job(session, job_id)
            records.end_job(job, state, exit_code, message)
            if job.reservation.state in OPEN:
                self._end(session, job.reservation, State.COMPLETED)
            job.reservation.has_workload = False

    def job_failed_to_start(self, job_id: str, message: str) -> None:
        """The cloud could not start a job: full refund."""
        self.end(job_id, State.FAILED, message, refund_all=True, stopped=True)

    def workload_gone(self, reservation_id: str) -> None:
        """The workload of an ended reservation has stopped: its GPUs are free."""
        with self._transaction() as session:
            _get(session, reservation_id).has_workload = False

    # -- questions --------------------------------------------------------------------

    def reservation(self, reservation_id: str) -> models.Reservation:
        """One reservation; raises `NotFound`."""
        with self._transaction() as session:
            return views.reservation(_get(session, reservation_id))

    def reservations(
        self,
        user: str | None = None,
        current: bool = False,
        kind: Kind | None = None,
        with_workload: bool = False,
        limit: int = 500,
    ) -> list[models.Reservation]:
        """Reservations, newest first; with `with_workload` also ended ones still stopping."""
        query = select(Reservation).filter_by(pool=self.pool)
        if user is not None:
            query = query.filter_by(user=user)
        if kind is not None:
            query = query.filter_by(kind=kind)
        if with_workload:
            query = query.where(Reservation.state.in_(OPEN) | Reservation.has_workload)
        elif current:
            query = query.where(Reservation.state.in_(OPEN))
        query = query.order_by(Reservation.created.desc(), Reservation.id).limit(limit)
        with self._transaction() as session:
            return [views.reservation(row) for row in session.scalars(query)]

    def job(self, job_id: str) -> models.Job:
        """One job; raises `NotFound`."""
        with self._transaction() as session:
            return views.job(_get_job(session, job_id))

    def jobs(
        self, user: str | None = None, current: bool = False, limit: int = 200
    ) -> list[models.Job]:
        """Jobs, newest first."""
        query = select(Job).join(Reservation).filter(Reservation.pool == self.pool)
        if user is not None:
            query = query.where(Reservation.user == user)
        if current:
            query = query.where(Reservation.state.in_(OPEN))
        query = query.order_by(Reservation.created.desc(), Reservation.id).limit(limit)
        with self._transaction() as session:
            return [views.job(row) for row in session.scalars(query)]

    def work(self, job_id: str) -> Work:
        """What a job is to run."""
        with self._transaction() as session:
            job = _get_job(session, job_id)
            files = {} if job.script is None else {job.filename: job.script}
            return Work(tuple(job.command), files, dict(job.environment))

    def statement(self, user: str, limit: int = 100) -> Statement:
        """The user's account; opened, with its starting grant, on first sight."""
        with self._transaction() as session:
            ledger = Ledger(session, self.clock())
            account = ledger.user(user, self.grant)
            still_open = select(Reservation.price).where(
                Reservation.user == user, Reservation.state.in_(OPEN)
            )
            return Statement(
                balance=ledger.balance(account),
                held=sum(session.scalars(still_open)),
                movements=ledger.statement(account, limit),
            )

    # -- inside -----------------------------------------------------------------------

    def honour(self) -> None:
        """Give up what the pool can no longer honour, with a full refund.

        Called at the start of the service, when the pool may have fewer GPUs than
        at its end.
        """
        broken = self.era.update(Feedback(), self.clock()).broken
        for reservation_id in broken:
            message = "the pool has fewer GPUs than when this was reserved"
            self.end(reservation_id, State.FAILED, message, refund_all=True)

    def rebuild(self) -> None:
        """Make the engine's plan what the database says."""
        query = select(Reservation).where(
            Reservation.pool == self.pool,
            Reservation.state.in_(OPEN),
            Reservation.end > self.clock(),
        )
        with self.database.session.begin() as session:
            self.era.restore(
                [records.promise(row, self.era.resource) for row in session.scalars(query)]
            )

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        try:
            with self.database.session.begin() as session:
                yield session
        except (MarketError, BidError):
            raise  # found before the engine changed anything
        except Exception:
            self.rebuild()
            raise

    def _remember(
        self, session: Session, wanted: ResourceRequest, value: int, decision: Decision, now: int
    ) -> None:
        """Store what the engine has just told its predictor, for the next start."""
        units = sum(
            count * self.configurations[name].units(self.era.resource)
            for name, count in wanted.configurations.items()
        )
        if units:
            seen = records.seen(wanted, units, value, decision, now)
            Demand(session, self.pool, self.era.resource).remember(seen)

    def _check_size(self, request: models.RequestBase) -> None:
        """What the engine would say of its own fields, in words of the request's."""
        if request.configuration not in self.configurations:
            known = ", ".join(sorted(self.configurations))
            raise BidError(f"configuration must be one of {known}; got {request.configuration!r}")
        each = self.configurations[request.configuration].units(self.era.resource)
        if each * request.count > len(self.gpus):
            most = len(self.gpus) // each
            works = f"count must be at most {most}" if most else "configuration must be smaller"
            raise BidError(
                f"{works}: {each * request.count} GPUs asked, the pool has {len(self.gpus)}"
            )

    def _resource_request(self, request: models.RequestBase, now: int) -> ResourceRequest:
        self._check_size(request)
        arrival = now if request.arrival is None else int(request.arrival.timestamp())
        begin = max(arrival, now)
        sold_until = self.era.grid.horizon_end(now)
        if begin + request.duration > sold_until:
            raise BidError(
                f"arrival: time is sold until {views.text(sold_until)} only; "
                "choose an earlier arrival or a shorter duration"
            )
        # The engine sells whole slots; what rounding adds must not cost a start.
        rounded = self.era.grid.slots_for(request.duration) * self.era.grid.slot
        deadline = begin + request.duration
        if request.deadline is not None:
            deadline = int(request.deadline.timestamp())
        if deadline <= now:
            raise BidError(f"deadline: {request.deadline} has passed; choose a later one")
        if deadline - begin < request.duration:
            raise BidError(
                f"deadline: the window of {deadline - begin} s is shorter than the duration of "
                f"{request.duration} s; choose a later deadline or a shorter duration"
            )
        return ResourceRequest(
            configurations={request.configuration: request.count},
            duration=request.duration,
            arrival=begin,
            deadline=min(deadline + rounded - request.duration, views.LATEST),
        )

    def _units(self, promise: Promise) -> int:
        return promise.placements[0].units.get(self.era.resource, 0)

    def _end(
        self,
        session: Session,
        row: Reservation,
        state: State,
        message: str = "",
        refund_all: bool = False,
    ) -> None:
        now = self.clock()
        try:
            refund = self.era.release(row.id, now)
        except UnknownReservation:
            refund = 0  # over already; the plan has forgotten it
        if refund_all:
            refund = row.price
        ledger = Ledger(session, now)
        account = ledger.user(row.user, self.grant)
        ledger.settle(account, row.price, refund, row.id, f"{state} {row.configuration}")
        row.state, row.refunded, row.ended, row.message = state, refund, now, message

    def _free_gpus(self, session: Session, units: int) -> list[int]:
        taken = {
            index
            for row in session.scalars(select(Reservation).filter_by(has_workload=True))
            for index in row.gpus or ()
        }
        free = [index for index in self.gpus if index not in taken]
        if len(free) < units:
            raise Conflict("the GPUs are still being freed; they are yours within moments")
        return free[:units]


def _get(session: Session, reservation_id: str) -> Reservation:
    row = session.get(Reservation, reservation_id)
    if row is None:
        raise NotFound(f"there is no reservation {reservation_id!r}")
    return row


def _get_job(session: Session, job_id: str) -> Job:
    row = session.get(Job, job_id)
    if row is None:
        raise NotFound(f"there is no job {job_id!r}")
    return row


def _double(
    session: Session,
    user: str,
    request: models.ReservationRequest | models.JobRequest,
    promise: Promise,
) -> Conflict | None:
    """One server can't run on two reservations: the second would be paid for nothing.

    One that runs already does not count, since its user may end it before.
    """
    if isinstance(request, models.JobRequest):
        return None
    other = session.scalar(
        select(Reservation)
        .filter_by(
            user=user,
            server_name=request.server_name,
            kind=Kind.NOTEBOOK,
            state=State.ACCEPTED,
        )
        .where(Reservation.start < promise.end, Reservation.end > promise.start)
    )
    if other is None:
        return None
    return Conflict(
        f"you hold a reservation for this server already, from {views.text(other.start)} "
        f"to {views.text(other.end)}; use that one, cancel it, or choose another time"
    )


def _by_key(session: Session, user: str, key: str | None) -> Reservation | None:
    if key is None:
        return None
    return session.scalar(select(Reservation).filter_by(user=user, idempotency_key=key))
