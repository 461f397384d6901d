"""What admins ask: accounts, who holds what, what was asked for, and the records."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import case, func, literal_column, select, tuple_
from sqlalchemy.orm import Session

from .. import admin_models as models
from .. import views
from ..answers import NotFound
from ..explained import explain
from ..market import OPEN
from ..models import State
from ..store.audit_log import AuditLog
from ..store.books import Told, prove
from ..store.ledger import Ledger
from ..store.lots import live
from ..store.tables import Account, Lot, Reservation, SeenBid
from . import words
from .there import known

DAY = 86_400

AT_LEAST = 5
"""A sum of what declined bids offered is shown over at least so many of them.

And only when the day is over: from the same sum before and after a single bid, that
bid's value could be told.
"""


class Questions:
    """Answers that change nothing, within the caller's session.

    Parameters
    ----------
    session : Session
        May be read-only.
    now : int
    """

    def __init__(self, session: Session, now: int) -> None:
        self.session = session
        self.now = now

    # -- accounts ---------------------------------------------------------------

    def accounts(
        self,
        kind: str | None = None,
        search: str = "",
        below: int | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> models.AccountPage:
        """Accounts by kind and name; those of users and groups unless `kind` says another."""
        query = select(Account).order_by(Account.kind, Account.name)
        if kind is None:
            query = query.where(Account.kind != "system")
        else:
            query = query.where(Account.kind == kind)
        if search:
            found = func.lower(Account.name).contains(search.lower(), autoescape=True)
            query = query.where(found)
        if below is not None:
            query = query.where(Account.balance < below)
        if after:
            last_kind, _, last_name = after.partition(":")
            last = tuple_(Account.kind, Account.name) > tuple_(last_kind, last_name)
            query = query.where(last)
        rows = list(self.session.scalars(query.limit(limit + 1)))
        shown = rows[:limit]
        following = words.subject(shown[-1]) if len(rows) > limit else None
        return models.AccountPage(items=self._lines(shown), next=following)

    def account(self, kind: str, name: str) -> models.AccountLine:
        """One account; raises `NotFound`."""
        return self._lines([self._account(kind, name)])[0]

    def statement(
        self, kind: str, name: str, before: int | None = None, limit: int = 100
    ) -> models.AdminStatement:
        """An account with its entries, each explained; raises `NotFound`."""
        account = self._account(kind, name)
        ledger = Ledger(self.session, self.now)
        found = ledger.statement(account, limit + 1, before)
        lots = [
            models.LapsingCredits(remaining=each.remaining, expires=views.when(each.expires))
            for each in ledger.lots(account)
        ]
        return models.AdminStatement(
            account=self._lines([account])[0],
            lots=lots,
            items=[
                models.StatementLine(
                    id=each.id,
                    at=views.when(each.at),
                    kind=each.kind,
                    amount=each.amount,
                    balance=each.balance,
                    reservation=each.reservation_id,
                    actor=each.actor,
                    memo=each.memo,
                    text=explain(each),
                    expires=None if each.expires is None else views.when(each.expires),
                )
                for each in found[:limit]
            ],
            next=found[limit - 1].id if len(found) > limit else None,
        )

    def _account(self, kind: str, name: str) -> Account:
        account = Ledger(self.session, self.now).find(kind, name)
        if account is None:
            raise NotFound(f"there is no account of {words.owner(kind, name)}")
        return account

    def _lines(self, accounts: list[Account]) -> list[models.AccountLine]:
        numbers = [each.id for each in accounts]
        promised = (
            select(Reservation.account_id, func.count(), func.sum(Reservation.price))
            .where(Reservation.account_id.in_(numbers), Reservation.state.in_(OPEN))
            .group_by(Reservation.account_id)
        )
        held = {number: (count, int(sum_)) for number, count, sum_ in self._rows(promised)}
        over = Lot.expires <= self.now
        lots = (
            select(
                Lot.account_id,
                func.sum(case((over, 0), else_=Lot.remaining)),
                func.sum(case((over, Lot.remaining), else_=0)),
            )
            .where(Lot.account_id.in_(numbers), live())
            .group_by(Lot.account_id)
        )
        lapsing = {number: (int(later), int(now)) for number, later, now in self._rows(lots)}
        lines = []
        for each in accounts:
            count, price = held.get(each.id, (0, 0))
            later, lapsed = lapsing.get(each.id, (0, 0))
            lines.append(
                models.AccountLine(
                    kind=each.kind,
                    name=each.name,
                    balance=each.balance - lapsed,
                    held=price,
                    overdraft=each.overdraft,
                    lapsing=later,
                    open_reservations=count,
                    created=views.when(each.created),
                )
            )
        return lines

    # -- who holds and waits for what ---------------------------------------------

    def holders(
        self, user: str | None = None, after: str | None = None, limit: int = 100
    ) -> models.HolderPage:
        """Users with open reservations, by name."""
        names = (
            select(Reservation.user)
            .where(Reservation.state.in_(OPEN))
            .distinct()
            .order_by(Reservation.user)
            .limit(limit + 1)
        )
        if user is not None:
            names = names.where(Reservation.user == user)
        if after is not None:
            names = names.where(Reservation.user > after)
        users = list(self.session.scalars(names))
        shown = users[:limit]
        by_user = defaultdict(list)
        for each in self.open_reservations(shown):
            by_user[each.user].append(each)
        return models.HolderPage(
            items=[self._holder(name, by_user[name]) for name in shown],
            next=shown[-1] if len(users) > limit else None,
        )

    def _holder(self, user: str, found: list[models.OpenReservation]) -> models.Holder:
        return models.Holder(
            user=user,
            gpus_now=sum(each.gpus for each in found if each.state is State.ACTIVE),
            gpus_waiting=sum(each.gpus for each in found if each.waiting),
            gpus_later=sum(each.gpus for each in found if each.start > views.when(self.now)),
            held=sum(each.price for each in found),
            reservations=found,
        )

    def open_reservations(self, users: Iterable[str]) -> list[models.OpenReservation]:
        """What these users have reserved and not yet had, in the order of the starts."""
        query = (
            select(Reservation, Account.kind, Account.name)
            .outerjoin(Account, Account.id == Reservation.account_id)
            .where(Reservation.user.in_(list(users)), Reservation.state.in_(OPEN))
            .order_by(Reservation.start, Reservation.id)
        )
        return [
            models.OpenReservation(
                id=row.id,
                kind=row.kind,
                user=row.user,
                payer=f"group:{name}" if kind == "group" else "own",
                configuration=row.configuration,
                gpus=row.units,
                state=State(row.state),
                start=views.when(row.start),
                end=views.when(row.end),
                price=row.price,
                waiting=row.state == State.ACCEPTED and row.start <= self.now,
                message=row.message,
            )
            for row, kind, name in self._rows(query)
        ]

    # -- what was asked for -------------------------------------------------------

    def demand(self, pool: str, days: int) -> models.Demand:
        """What was asked for on each of the last days."""
        today = self.now - self.now % DAY
        # Not a bound value: PostgreSQL would not see that it groups by the same.
        day = SeenBid.submitted - SeenBid.submitted % literal_column(str(DAY))
        size = SeenBid.units * SeenBid.duration
        took = SeenBid.accepted
        query = (
            select(
                day,
                func.count(),
                func.sum(case((took, 1), else_=0)),
                func.sum(size),
                func.sum(case((took, size), else_=0)),
                func.sum(case((took, 0), else_=SeenBid.value)),
            )
            .where(SeenBid.pool == pool, SeenBid.submitted >= today - (days - 1) * DAY)
            .group_by(day)
            .order_by(day)
        )
        return models.Demand(
            pool=pool,
            at_least=AT_LEAST,
            days=[
                models.DemandDay(
                    day=views.when(begin),
                    bids=bids,
                    accepted=accepted,
                    declined=bids - accepted,
                    gpu_hours_asked=round(int(asked) / 3600, 2),
                    gpu_hours_accepted=round(int(given) / 3600, 2),
                    turned_away=int(value)
                    if bids - accepted >= AT_LEAST and begin < today
                    else None,
                )
                for begin, bids, accepted, asked, given, value in self._rows(query)
            ],
        )

    # -- records --------------------------------------------------------------------

    def audit(
        self,
        actor: str | None = None,
        subject: str | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> models.AuditPage:
        """What admins changed, newest first."""
        rows = AuditLog(self.session).read(limit + 1, before, actor, subject, action)
        return models.AuditPage(
            items=[
                models.AuditLine(
                    id=row.id,
                    at=views.when(row.at),
                    actor=row.actor,
                    action=row.action,
                    subject=row.subject,
                    before=row.before,
                    after=row.after,
                    request_id=row.request_id,
                )
                for row in rows[:limit]
            ],
            next=rows[limit - 1].id if len(rows) > limit else None,
        )

    def books(
        self, capacities: dict[str, int] | None = None, told: Told = lambda *_: None
    ) -> models.Books:
        """Prove the books from every entry.

        Parameters
        ----------
        capacities : dict of str to int, optional
            Units of pools, from now on. Default: what the database knows, at all times.
        told : callable, optional
            Hears how far the proof is.
        """
        begin = time.monotonic()
        if capacities is None:
            findings = prove(self.session, known(self.session, self.now), told=told)
        else:
            findings = prove(self.session, capacities, since=self.now, told=told)
        return models.Books(
            at=views.when(self.now),
            sound=not findings,
            seconds=round(time.monotonic() - begin, 3),
            findings=[
                models.BookFinding(check=each.check, subject=each.subject, text=each.text)
                for each in findings
            ],
        )

    def _rows(self, query: Any) -> Any:
        return self.session.execute(query)
