"""Quotas: how much anybody may reserve, whatever they can pay.

Each sort of limit is looked up by itself: a user's own quota decides; if it says nothing of
that sort, the most generous of the quotas for members of the user's groups; else that for
everyone; else there is no limit. A quota of a group limits in sum what its account pays for.
Checked in the transaction of the reservation, so no two can slip through together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from ..models import State
from .peaks import Peak, Span, clock_time, highest, hours, period_start
from .policies import Payer
from .rules import Limits, Rules, changed, rules
from .tables import Quota, Reservation
from .versions import Stale, expect, remove, store

OPEN = (State.ACCEPTED, State.ACTIVE)
KINDS = ("everyone", "user", "member", "group")


@dataclass(frozen=True)
class Wanted:
    """What is to be reserved, by whom, and who is to pay."""

    user: str
    groups: Collection[str]
    payer: Payer
    account_id: int | None
    configuration: str
    gpus: int
    start: int
    end: int


@dataclass(frozen=True)
class Refusal:
    """The limit in the way, its value, and what is left of it."""

    limit: str
    value: Any
    left: int | None
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Usage:
    """A limit in force, and how much of it is used; None where nothing is used up."""

    limit: str
    value: Any
    used: int | None
    left: int | None
    whose: str


@dataclass(frozen=True)
class Scope:
    """Limits, for whom they are, and which reservations count."""

    whose: str
    limits: Limits
    mine: ColumnElement[bool]


class Quotas:
    """Reads, changes and checks quotas within the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def set(
        self,
        kind: str,
        name: str,
        *,
        version: int | None = None,
        gpus: int | None = None,
        gpu_seconds: int | None = None,
        period: int | None = None,
        longest: int | None = None,
        horizon: int | None = None,
        configurations: Sequence[str] | None = None,
    ) -> Quota:
        """Set all limits of a quota; without `version` there must be none yet.

        Parameters
        ----------
        kind : str
            ``everyone``, ``user``, ``member`` (each member of a group) or ``group`` (what
            its account pays for, in sum).
        name : str
            Of the user or group; empty for everyone.
        gpus : int, optional
            GPUs at once.
        gpu_seconds, period : int, optional
            GPU-seconds of the reservations that start in a period of so many seconds.
            Periods are counted from Monday, 1970-01-05 00:00 UTC.
        longest : int, optional
            Seconds of one reservation.
        horizon : int, optional
            How many seconds from now a reservation may end.
        configurations : sequence of str, optional
            Those allowed.
        """
        if kind not in KINDS or bool(name) == (kind == "everyone"):
            raise ValueError(f"a quota of {kind} {name!r}")
        if (gpu_seconds is None) != (period is None):
            raise ValueError("gpu_seconds and period go together")
        limits = {
            "gpus": gpus,
            "gpu_seconds": gpu_seconds,
            "period": period,
            "longest": longest,
            "horizon": horizon,
        }
        for limit, value in limits.items():
            least = 1 if limit == "period" else 0
            if value is not None and value < least:
                raise ValueError(f"{limit} must be at least {least}; got {value}")
        row = self._row(kind, name)
        expect(_what(kind, name), row, version)
        row = row or Quota(kind=kind, name=name)
        for limit, value in limits.items():
            setattr(row, limit, value)
        row.configurations = None if configurations is None else sorted({*configurations})
        store(self.session, _what(kind, name), row)
        changed(self.session)
        return row

    def remove(self, kind: str, name: str, version: int) -> None:
        """Lift a quota."""
        row = self._row(kind, name)
        if row is None:
            raise Stale(_what(kind, name), version, 0)
        remove(self.session, _what(kind, name), row, version)
        changed(self.session)

    def all(self) -> list[Quota]:
        """All quotas, by kind and name."""
        return list(self.session.scalars(select(Quota).order_by(Quota.kind, Quota.name)))

    def limits(self, user: str, groups: Collection[str]) -> Limits:
        """The limits of a user."""
        return _of_user(rules(self.session), user, groups)

    def group_limits(self, name: str) -> Limits:
        """The limits in sum of what a group pays for."""
        return rules(self.session).quotas.get(("group", name), Limits())

    def check(self, wanted: Wanted, now: int, without: str | None = None) -> list[Refusal]:
        """What stands against a reservation; nothing if it may be made.

        Parameters
        ----------
        wanted : Wanted
        now : int
        without : str, optional
            A reservation that the wanted one replaces, as when it is extended.
        """
        refusals: list[Refusal] = []
        for scope in self._scopes(wanted.user, wanted.groups, wanted.payer, wanted.account_id):
            for limit in (self._size, self._gpus, self._gpu_seconds):
                refusals += limit(scope, wanted, now, without)
        return refusals

    def usage(
        self,
        user: str,
        groups: Collection[str],
        now: int,
        payer: Payer | None = None,
        account_id: int | None = None,
    ) -> list[Usage]:
        """Every limit in force for a user, and for what a group pays if one is named."""
        found = []
        for scope in self._scopes(user, groups, payer or Payer("user", user), account_id):
            limits = scope.limits
            if limits.gpus is not None:
                busy = highest(self._spans(scope, now, now + 1), now, now + 1)
                used = busy.units
                found.append(_usage("gpus", limits.gpus, used, scope))
            if limits.gpu_seconds is not None and limits.period is not None:
                used = self._used(scope, period_start(now, limits.period), limits.period)
                found.append(_usage("gpu_seconds", limits.gpu_seconds, used, scope))
            for name in ("longest", "horizon", "configurations"):
                if (value := getattr(limits, name)) is not None:
                    found.append(Usage(name, value, None, None, scope.whose))
        return found

    # -- inside ---------------------------------------------------------------

    def _size(
        self, scope: Scope, wanted: Wanted, now: int, _without: str | None
    ) -> Iterable[Refusal]:
        limits, whose = scope.limits, scope.whose
        length = wanted.end - wanted.start
        if limits.configurations is not None and wanted.configuration not in limits.configurations:
            allowed = ", ".join(limits.configurations) or "none"
            text = f"configurations: {whose} may have {allowed}, not {wanted.configuration}"
            yield Refusal("configurations", limits.configurations, None, text)
        if limits.longest is not None and length > limits.longest:
            text = (
                f"longest: at most {hours(limits.longest)} h in one reservation for {whose}, "
                f"{hours(length)} h asked"
            )
            yield Refusal("longest", limits.longest, limits.longest, text)
        if limits.horizon is not None and wanted.end > now + limits.horizon:
            until = clock_time(now + limits.horizon)
            text = (
                f"horizon: at most {hours(limits.horizon)} h ahead for {whose}, "
                f"that is until {until} UTC; this ends at {clock_time(wanted.end)} UTC"
            )
            yield Refusal("horizon", limits.horizon, limits.horizon, text)

    def _gpus(
        self, scope: Scope, wanted: Wanted, _now: int, without: str | None
    ) -> Iterable[Refusal]:
        most = scope.limits.gpus
        if most is None or not wanted.gpus:
            return
        spans = self._spans(scope, wanted.start, wanted.end, without)
        busy = highest(spans, wanted.start, wanted.end)
        if busy.units + wanted.gpus > most:
            left = max(most - busy.units, 0)
            text = (
                f"gpus: at most {most} GPU{_s(most)} at once for {scope.whose}, {_left(left, busy)}"
            )
            yield Refusal("gpus", most, left, text)

    def _gpu_seconds(
        self, scope: Scope, wanted: Wanted, _now: int, without: str | None
    ) -> Iterable[Refusal]:
        most, period = scope.limits.gpu_seconds, scope.limits.period
        if most is None or period is None or not wanted.gpus:
            return
        begin = period_start(wanted.start, period)
        used = self._used(scope, begin, period, without)
        asked = wanted.gpus * (wanted.end - wanted.start)
        if used + asked > most:
            left = max(most - used, 0)
            text = (
                f"gpu_seconds: at most {hours(most)} GPU-hours in {hours(period)} h for "
                f"{scope.whose}, {hours(left) if left else 'none'} left from "
                f"{clock_time(begin)} to {clock_time(begin + period)} UTC, {hours(asked)} asked"
            )
            yield Refusal("gpu_seconds", most, left, text)

    def _scopes(
        self, user: str, groups: Collection[str], payer: Payer, account_id: int | None
    ) -> list[Scope]:
        scopes = [Scope(user, self.limits(user, groups), Reservation.user == user)]
        if payer.kind == "group":
            mine = Reservation.account_id == account_id
            scopes.append(Scope(f"group {payer.name}", self.group_limits(payer.name), mine))
        return scopes

    def _spans(self, scope: Scope, start: int, end: int, without: str | None = None) -> list[Span]:
        """Open reservations that overlap a time."""
        query = select(Reservation.start, Reservation.end, Reservation.units).where(
            scope.mine,
            Reservation.end > start,
            Reservation.start < end,
            Reservation.state.in_(OPEN),
            Reservation.units > 0,
        )
        if without is not None:
            query = query.where(Reservation.id != without)
        return [Span(*row) for row in self.session.execute(query)]

    def _used(self, scope: Scope, begin: int, period: int, without: str | None = None) -> int:
        """GPU-seconds of the reservations that start in a period.

        One that ended early counts with its time until then, and a failed one not at all.
        """
        ended = func.coalesce(Reservation.ended, Reservation.end)
        end = case((ended < Reservation.end, ended), else_=Reservation.end)
        length = case((end > Reservation.start, end - Reservation.start), else_=0)
        query = select(func.coalesce(func.sum(Reservation.units * length), 0)).where(
            scope.mine,
            Reservation.end > begin,  # what starts later ends later: the index has the end
            Reservation.start >= begin,
            Reservation.start < begin + period,
            Reservation.state != State.FAILED,
        )
        if without is not None:
            query = query.where(Reservation.id != without)
        return int(self.session.scalar(query) or 0)

    def _row(self, kind: str, name: str) -> Quota | None:
        return self.session.scalar(select(Quota).filter_by(kind=kind, name=name))


def _of_user(ruled: Rules, user: str, groups: Collection[str]) -> Limits:
    levels = [
        ruled.limits("user", [user]),
        ruled.limits("member", groups),
        ruled.limits("everyone", [""]),
    ]

    def decides(given: Callable[[Limits], bool]) -> list[Limits]:
        """The limits of the first level that says something of a sort."""
        said = ([limits for limits in level if given(limits)] for level in levels)
        return next((level for level in said if level), [])

    sums = decides(lambda each: each.gpu_seconds is not None)
    best = max(sums, key=_rate, default=Limits())
    lists = [each.configurations or () for each in decides(lambda e: e.configurations is not None)]
    return Limits(
        gpus=max((e.gpus or 0 for e in decides(lambda e: e.gpus is not None)), default=None),
        gpu_seconds=best.gpu_seconds,
        period=best.period,
        longest=max(
            (e.longest or 0 for e in decides(lambda e: e.longest is not None)), default=None
        ),
        horizon=max(
            (e.horizon or 0 for e in decides(lambda e: e.horizon is not None)), default=None
        ),
        configurations=tuple(sorted({*sum(lists, ())})) if lists else None,
    )


def _rate(limits: Limits) -> tuple[float, int]:
    """What is more generous: more in the long run; if equal, more at a time."""
    return (limits.gpu_seconds or 0) / (limits.period or 1), limits.gpu_seconds or 0


def _usage(limit: str, value: int, used: int, scope: Scope) -> Usage:
    return Usage(limit, value, used, max(value - used, 0), scope.whose)


def _left(left: int, busy: Peak) -> str:
    which = f"{left or 'none'} {'are' if left > 1 else 'is'} left"
    return f"{which} from {clock_time(busy.start)} to {clock_time(busy.end)} UTC"


def _s(number: int) -> str:
    return "" if number == 1 else "s"


def _what(kind: str, name: str) -> str:
    return f"the quota of {kind} {name}".rstrip()
