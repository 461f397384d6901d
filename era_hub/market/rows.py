"""Looking up stored reservations and jobs, and showing them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from .. import models, views
from ..answers import NotFound, Outdated
from ..models import OWN, State
from ..store.tables import Account, Job, Reservation

OPEN = (State.ACCEPTED, State.ACTIVE)


def reservation_row(session: Session, reservation_id: str) -> Reservation:
    """The row of a reservation; raises `NotFound`."""
    row = session.get(Reservation, reservation_id)
    if row is None:
        raise NotFound(f"there is no reservation {reservation_id!r}")
    return row


def job_row(session: Session, job_id: str) -> Job:
    """The row of a job; raises `NotFound`."""
    row = session.get(Job, job_id)
    if row is None:
        raise NotFound(f"there is no job {job_id!r}")
    return row


def check_version(row: Reservation, versions: Collection[int] | None) -> None:
    """Raise `Outdated` if a reservation is at none of the versions that a caller means."""
    if versions is not None and row.version not in versions:
        raise Outdated(f"reservation {row.id} has changed since you looked; look again")


def payer_of(session: Session, row: Reservation) -> str:
    """The account that pays for a reservation, as a bid names it."""
    account = None if row.account_id is None else session.get(Account, row.account_id)
    return OWN if account is None or account.kind == "user" else f"group:{account.name}"


def show(session: Session, row: Reservation) -> models.Reservation:
    """A reservation as it is now, its version included."""
    session.flush()
    return views.reservation(row, payer_of(session, row))


def show_job(session: Session, row: Job) -> models.Job:
    """A job as it is now."""
    session.flush()
    return views.job(row, payer_of(session, row.reservation))


def show_all(session: Session, rows: Iterable[Reservation]) -> list[models.Reservation]:
    """Many reservations, with one look at the accounts that pay for them."""
    found = list(rows)
    with_groups = {row.account_id for row in found if row.groups}
    # Whoever is in no group pays from their own account.
    groups = select(Account.id, Account.name).where(
        Account.id.in_(with_groups), Account.kind == "group"
    )
    names = {row.id: row.name for row in session.execute(groups)} if with_groups else {}
    return [
        views.reservation(row, f"group:{names[row.account_id]}" if row.account_id in names else OWN)
        for row in found
    ]
