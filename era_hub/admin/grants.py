"""Standing grants: credits given at a time, or again and again."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .. import views
from ..admin_models import AdminChange, Effect, GrantChange, GrantRequest, StandingGrant
from ..store.grants import Grants as Rows
from ..store.ledger import Ledger
from ..store.tables import Account, Grant
from . import words
from .desk import Call, Desk, Done


def public(row: Grant) -> StandingGrant:
    """The public view of a standing grant."""
    return StandingGrant(
        id=row.id,
        kind=row.kind,
        name=row.name,
        amount=row.amount,
        period=row.period,
        cap=row.cap,
        anchor=views.when(row.anchor),
        expires_after=row.expires_after,
        next_at=None if row.next_at is None else views.when(row.next_at),
        created=views.when(row.created),
        actor=row.actor,
        ended=None if row.ended is None else views.when(row.ended),
        version=row.version,
    )


def listed(
    session: Session,
    now: int,
    kind: str | None = None,
    name: str | None = None,
    ended: bool = False,
) -> list[StandingGrant]:
    """The standing grants; with `ended` also those that are over."""
    rows = Rows(session, now).all(ended)
    return [public(row) for row in rows if kind in (None, row.kind) and name in (None, row.name)]


class Grants:
    """What admins do to standing grants."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def create(self, call: Call, wanted: GrantRequest) -> AdminChange:
        """Plan credits. What is due is given by the service, within moments."""

        def work(session: Session, now: int) -> Done:
            anchor = now if wanted.anchor is None else int(wanted.anchor.timestamp())
            if wanted.period is None:
                anchor = max(anchor, now)  # who has come since then is meant too
            row = Rows(session, now).create(
                wanted.kind,
                wanted.name,
                wanted.amount,
                actor=call.actor,
                period=wanted.period,
                cap=wanted.cap,
                anchor=anchor,
                expires_after=wanted.expires_after,
            )
            session.flush()
            effects = [words.info(_terms(row)), *_first(session, now, row)]
            return Done("grant.create", f"grant:{row.id}", None, _record(row), effects)

        return self.desk.change(call, work)

    def change(self, call: Call, grant_id: int, wanted: GrantChange) -> AdminChange:
        """Give other amounts from the next time on."""

        def work(session: Session, now: int) -> Done:
            rows = Rows(session, now)
            old = rows.get(grant_id)
            before, was = _record(old), _terms(old)
            row = rows.change(
                grant_id,
                wanted.version,
                amount=wanted.amount,
                cap=wanted.cap,
                expires_after=wanted.expires_after,
            )
            session.flush()
            effects = [words.info(f"before: {was}"), words.info(f"then: {_terms(row)}")]
            return Done("grant.change", f"grant:{row.id}", before, _record(row), effects)

        return self.desk.change(call, work)

    def end(self, call: Call, grant_id: int, version: int) -> AdminChange:
        """Give nothing more. What was given stays where it is."""

        def work(session: Session, now: int) -> Done:
            rows = Rows(session, now)
            old = rows.get(grant_id)
            before, was, due = _record(old), _terms(old), old.next_at
            rows.end(grant_id, version)
            session.flush()
            effects = [words.info(f"no longer: {was}")]
            if due is not None:
                effects.append(words.info(f"what was to come at {views.text(due)} does not come"))
            effects.append(words.info("what was given stays on the accounts"))
            after = _record(rows.get(grant_id))
            return Done("grant.end", f"grant:{grant_id}", before, after, effects)

        return self.desk.change(call, work)


def _record(row: Grant) -> dict[str, object]:
    return public(row).model_dump(mode="json", exclude={"id", "created", "actor"})


def _terms(row: Grant) -> str:
    """Such as ``ann gets 50.00 credits every 7 days, topped up to 200.00 credits at most``."""
    found = f"{words.owner(row.kind, row.name)} gets {words.credits(row.amount)}"
    if row.period is None:
        found += f" once, at {views.text(row.anchor)}"
    else:
        found += f" every {words.hour_or_more(row.period)}"
        if row.next_at is not None:
            found += f", next at {views.text(row.next_at)}"
    if row.cap is not None:
        found += f", topped up to {words.credits(row.cap)} at most"
    if row.expires_after is not None:
        found += f"; they lapse after {words.hour_or_more(row.expires_after)}"
    return found


def _first(session: Session, now: int, row: Grant) -> list[Effect]:
    """What the first time does."""
    if row.kind == "everyone":
        users = session.scalar(select(func.count()).select_from(Account).filter_by(kind="user"))
        total = words.credits(row.amount * (users or 0))
        return [words.info(f"{users or 0:,} users have an account: at most {total} each time")]
    ledger = Ledger(session, now)
    account = ledger.find(row.kind, row.name)
    who = words.owner(row.kind, row.name)
    user = row.name if row.kind == "user" else None
    if account is None:
        return [words.warning(f"{who} has no account yet. Check the name", user)]
    if row.next_at is None or row.next_at > now:
        return []
    before = ledger.balance(account)
    given = row.amount if row.cap is None else min(row.amount, max(0, row.cap - before))
    change = words.from_to(before, before + given)
    return [words.info(f"{who}'s balance {change} at the first time, which is now", user)]
