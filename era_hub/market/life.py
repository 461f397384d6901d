"""The life of a reservation: it starts, is given back or ends, and is settled."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from era_pricing import UnknownReservation

from .. import models, records, views
from ..answers import Conflict
from ..models import JobState, State
from ..store.ledger import Ledger
from ..store.tables import Reservation
from .rows import OPEN, check_version, job_row, reservation_row, show
from .state import PoolState


class Life:
    """What happens to reservations once they are made. Every step may be repeated."""

    def __init__(self, state: PoolState) -> None:
        self.state = state

    def claim(self, reservation_id: str) -> models.Reservation:
        """Start a reservation: give it GPUs of its own. Claiming twice changes nothing.

        GPUs are chosen at the start, not at the promise: whatever runs then leaves
        enough indices free, while choosing earlier could fragment the future.

        Raises
        ------
        Conflict
            If it has not begun, has ended, or its GPUs are still being freed.
        """
        now = self.state.clock()
        with self.state.transaction() as session:
            row = reservation_row(session, reservation_id)
            if row.state not in OPEN:
                raise Conflict(f"reservation {row.id} is {row.state}; make a new one")
            part = records.part_at(row, now)
            if part is None:
                raise Conflict(_not_now(row, now))
            if row.state == State.ACCEPTED or not row.has_workload or row.run_nodes != part.nodes:
                row.gpus = self._free_gpus(session, row)
                row.nodes = row.run_nodes = part.nodes
                row.run_end = part.end
                row.runs += 1
                row.state = State.ACTIVE
                row.has_workload = True
                row.message = ""
                self.state.note_reservation(row)
            return show(session, row)

    def run_over(self, reservation_id: str, message: str = "", again: bool = True) -> None:
        """The workload is gone before its reservation, which goes on elsewhere, or later.

        Parameters
        ----------
        message : str
            For its owner.
        again : bool
            Whether it may be started in what is left of the same part.
        """
        with self.state.transaction() as session:
            self._run_over(reservation_row(session, reservation_id), message, again)

    def give_back(
        self,
        reservation_id: str,
        stopped: bool = False,
        versions: Collection[int] | None = None,
    ) -> models.Reservation:
        """Cancel a reservation before its start, release it after. Harmless when repeated.

        Parameters
        ----------
        stopped : bool
            The caller knows that its workload is gone.
        versions : collection of int, optional
            Those that the caller means.

        Raises
        ------
        Outdated
            If it is at another version.
        """
        with self.state.transaction() as session:
            row = reservation_row(session, reservation_id)
            check_version(row, versions)
            moved = row.state == State.ACTIVE and records.displaced(row, self.state.clock())
            if stopped and moved:
                self._run_over(row, "its node was lost: the server can start again elsewhere")
            elif row.state in OPEN:
                early = row.state == State.ACCEPTED and self.state.clock() < row.start
                self._end(session, row, State.CANCELLED if early else State.RELEASED)
                if row.job is not None:
                    records.end_job(row.job, JobState.CANCELLED)
            if stopped:
                row.has_workload = False
            return show(session, row)

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
        with self.state.transaction() as session:
            row = reservation_row(session, reservation_id)
            if row.state in OPEN:
                self._end(session, row, state, message, refund_all)
                if row.job is not None:
                    records.end_job(row.job, JobState.FAILED, message=message)
            if stopped:
                row.has_workload = False

    def note(self, reservation_id: str, message: str) -> None:
        """Tell the owner of an open reservation why it has not started yet."""
        with self.state.transaction() as session:
            row = reservation_row(session, reservation_id)
            row.message = message
            self.state.note_reservation(row)

    def job_started(self, job_id: str, directory: str) -> None:
        """The cloud has started a job."""
        with self.state.transaction() as session:
            job = job_row(session, job_id)
            job.directory = directory
            if job.state == JobState.QUEUED:
                job.state = JobState.RUNNING
                self.state.note_reservation(job.reservation)

    def job_ended(self, job_id: str, state: JobState, exit_code: int | None, message: str) -> None:
        """A job's process is gone: settle its reservation and free its GPUs."""
        with self.state.transaction() as session:
            job = job_row(session, job_id)
            records.end_job(job, state, exit_code, message)
            if job.reservation.state in OPEN:
                self._end(session, job.reservation, State.COMPLETED)
            job.reservation.has_workload = False
            self.state.note_reservation(job.reservation)

    def job_failed_to_start(self, job_id: str, message: str) -> None:
        """The cloud could not start a job: full refund."""
        self.end(job_id, State.FAILED, message, refund_all=True, stopped=True)

    def workload_gone(self, reservation_id: str) -> None:
        """The workload of an ended reservation has stopped: its GPUs are free."""
        with self.state.transaction() as session:
            reservation_row(session, reservation_id).has_workload = False

    def _run_over(self, row: Reservation, message: str, again: bool = True) -> None:
        row.has_workload = False
        row.gpus = row.run_nodes = None
        if again:
            row.run_end = None
        if row.state in OPEN:
            row.state = State.ACCEPTED
            row.message = message or row.message
            row.nodes = records.nodes_from(row, self.state.clock())
            if row.job is not None:
                row.job.state = JobState.QUEUED
        self.state.note_reservation(row)

    # -- inside -----------------------------------------------------------------------

    def _end(
        self,
        session: Session,
        row: Reservation,
        state: State,
        message: str = "",
        refund_all: bool = False,
    ) -> None:
        now = self.state.clock()
        try:
            refund = self.state.era.release(row.id, now)
        except UnknownReservation:
            refund = 0  # over already; the plan has forgotten it
        if refund_all:
            refund = row.price
        ledger = Ledger(session, now)
        if row.account_id is None:
            row.account_id = ledger.user(row.user, self.state.grant).id
        account = ledger.get(row.account_id)
        memo = f"{state} {row.configuration}"
        ledger.settle(account, row.price, refund, row.id, memo, broken=refund_all)
        row.state, row.refunded, row.ended, row.message = state, refund, now, message
        self.state.note_reservation(row, money=True)

    def _free_gpus(self, session: Session, row: Reservation) -> list[int] | None:
        """GPUs that nobody uses, by index; None where the nodes number their own."""
        if self.state.gpus is None:
            return None
        taken = {
            index
            for each in session.scalars(select(Reservation).filter_by(has_workload=True))
            for index in each.gpus or ()
            if each.id != row.id
        }
        free = [index for index in self.state.gpus if index not in taken]
        if len(free) < row.units:
            raise Conflict("the GPUs are still being freed; they are yours within moments")
        return free[: row.units]


def _not_now(row: Reservation, now: int) -> str:
    if row.start <= now < row.end:
        return f"reservation {row.id} goes on later; it is paused now"
    return f"reservation {row.id} runs from {views.text(row.start)} only"
