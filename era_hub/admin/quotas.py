"""Limits of users, of groups' members, of groups in sum, and of everyone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from ..admin_models import AdminChange, Effect, LimitUse, QuotaRequest
from ..admin_models import Quota as PublicQuota
from ..answers import NotFound
from ..market import OPEN
from ..store.peaks import Span, highest, period_start
from ..store.quotas import Limits
from ..store.quotas import Quotas as Rows
from ..store.tables import Account, Quota, Reservation
from . import words
from .desk import Call, Desk, Done

Above = dict[tuple[str, str], str]
"""By whose limit and which: what is reserved of it."""

FIELDS = ("gpus", "gpu_seconds", "period", "longest", "horizon", "configurations")


def public(row: Quota) -> PublicQuota:
    """The public view of a row."""
    fields = (*FIELDS, "kind", "name", "version")
    return PublicQuota.model_validate({name: getattr(row, name) for name in fields})


def listed(session: Session) -> list[PublicQuota]:
    """All rows: everyone, then groups' members, groups, users."""
    order = ("everyone", "member", "group", "user")
    found = [public(row) for row in Rows(session).all()]
    return sorted(found, key=lambda each: (order.index(each.kind), each.name))


def usage(session: Session, user: str, groups: Iterable[str], now: int) -> list[LimitUse]:
    """A user's limits, and what is left of them."""
    return [
        LimitUse(
            limit=each.limit,
            value=each.value,
            used=each.used,
            left=each.left,
            text=words.limit(each.limit, each.value, each.used),
        )
        for each in Rows(session).usage(user, list(groups), now)
    ]


def groups_seen(session: Session, user: str) -> list[str]:
    """The groups that a user was in at the last bid."""
    query = (
        select(Reservation.groups)
        .filter_by(user=user)
        .order_by(Reservation.created.desc())
        .limit(1)
    )
    return list(session.scalar(query) or [])


class Quotas:
    """What admins do to quotas."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def set(self, call: Call, wanted: QuotaRequest) -> AdminChange:
        """Set all limits of a row."""

        def work(session: Session, now: int) -> Done:
            rows = Rows(session)
            before = _record(session, wanted.kind, wanted.name)
            limits = {name: getattr(wanted, name) for name in FIELDS}
            version = wanted.version or None
            rows.set(wanted.kind, wanted.name, version=version, **limits)
            session.flush()
            effects = [words.info(_says(wanted.kind, wanted.name, words.limits(wanted)))]
            unknown = set(wanted.configurations or ()) - set(self.desk.market.configurations)
            if unknown:
                names = ", ".join(sorted(unknown))
                effects.append(words.warning(f"not for sale here: {names}"))
            effects += _hurt(_above(session, wanted.kind, wanted.name, now))
            after = _record(session, wanted.kind, wanted.name)
            subject = f"{wanted.kind}:{wanted.name}"
            return Done("quota.set", subject.rstrip(":"), before, after, effects)

        return self.desk.change(call, work)

    def remove(self, call: Call, kind: str, name: str, version: int) -> AdminChange:
        """Say nothing of them any more: the next row decides."""

        def work(session: Session, now: int) -> Done:
            before = _record(session, kind, name)
            if before is None:
                raise NotFound(f"there is no quota for {words.owner(kind, name)}")
            Rows(session).remove(kind, name, version)
            session.flush()
            effects = [
                words.info(f"no limits for {words.owner(kind, name)} in this place any more")
            ]
            effects += _hurt(_above(session, kind, name, now))
            return Done("quota.remove", f"{kind}:{name}".rstrip(":"), before, None, effects)

        return self.desk.change(call, work)


def _record(session: Session, kind: str, name: str) -> dict[str, object] | None:
    row = session.scalar(select(Quota).filter_by(kind=kind, name=name))
    if row is None:
        return None
    shown = public(row).model_dump(mode="json", exclude={"kind", "name"})
    return {key: value for key, value in shown.items() if value is not None}


def _says(kind: str, name: str, limits: list[str]) -> str:
    who = words.owner(kind, name)
    if kind == "group":
        who = f"what the group {name} pays for, in sum"
    return f"{who}: {'; '.join(limits)}" if limits else f"{who}: no limits in this place"


def _hurt(above: Above) -> list[Effect]:
    """Who is above a limit, and what that means."""
    found = []
    for (whose, _), holds in above.items():
        user = None if whose.startswith("the group ") else whose
        stays = "reservations stay, new bids are refused"
        found.append(words.warning(f"{whose} is above a limit now with {holds}: {stays}", user))
    return words.shortened(found, "users") or [words.info("nobody is above a limit now")]


def _above(session: Session, kind: str, name: str, now: int) -> Above:
    """Whom a row may concern and who has reserved more than a limit allows, and how much."""
    rows = Rows(session)
    if kind == "group":
        account = session.scalar(select(Account).filter_by(kind="group", name=name))
        if account is None:
            return {}
        mine = Reservation.account_id == account.id
        return _over(session, words.owner(kind, name), rows.group_limits(name), mine, now)
    found = {}
    for user, groups in _concerned(session, kind, name).items():
        mine = Reservation.user == user
        found.update(_over(session, user, rows.limits(user, groups), mine, now))
    return found


def _over(
    session: Session, whose: str, limits: Limits, mine: ColumnElement[bool], now: int
) -> Above:
    """The limits that what is reserved from now on exceeds."""
    query = select(Reservation.start, Reservation.end, Reservation.units).where(
        mine, Reservation.state.in_(OPEN), Reservation.end > now
    )
    spans = [Span(*row) for row in session.execute(query)]
    found = {}
    if limits.gpus is not None and spans:
        most = highest(spans, now, max(span.end for span in spans)).units
        if most > limits.gpus:
            found[whose, "gpus"] = f"{most} GPUs of {limits.gpus}"
    if limits.gpu_seconds is not None and limits.period is not None:
        by_period: defaultdict[int, int] = defaultdict(int)
        for start, end, units in spans:
            by_period[period_start(start, limits.period)] += units * (end - start)
        most = max(by_period.values(), default=0)
        if most > limits.gpu_seconds:
            reserved = f"{most / 3600:g} GPU-hours of {limits.gpu_seconds / 3600:g} in a period"
            found[whose, "gpu_seconds"] = reserved
    return found


def _concerned(session: Session, kind: str, name: str) -> dict[str, list[str]]:
    """Users with open reservations, and their groups when they made the last one."""
    query = select(Reservation.user, Reservation.groups).where(Reservation.state.in_(OPEN))
    if kind == "user":
        query = query.where(Reservation.user == name)
    rows = session.execute(query.order_by(Reservation.created))
    found = {user: list(groups or ()) for user, groups in rows}
    if kind == "member":
        found = {user: groups for user, groups in found.items() if name in groups}
    return found
