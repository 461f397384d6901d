"""Who pays where a bid does not say."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ..admin_models import AdminChange, Effect, PayerPolicy, PayerPolicyRequest
from ..answers import NotFound
from ..store.ledger import Ledger
from ..store.policies import Policies as Rows
from ..store.tables import Policy
from . import words
from .desk import Call, Desk, Done


def public(row: Policy) -> PayerPolicy:
    """The public view of a policy."""
    return PayerPolicy(
        kind=row.kind, name=row.name, pays=row.pays, rank=row.rank, version=row.version
    )


def listed(session: Session) -> list[PayerPolicy]:
    """All policies: users', then groups' in the order in which they are asked."""
    found = [public(row) for row in Rows(session).all()]
    return sorted(found, key=lambda each: (each.kind != "user", each.rank or 0, each.name))


class Policies:
    """What admins do to policies."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def set(self, call: Call, wanted: PayerPolicyRequest) -> AdminChange:
        """Set who pays for a user or for a group's members."""

        def work(session: Session, now: int) -> Done:
            before = _record(session, wanted.kind, wanted.name)
            version = wanted.version or None
            Rows(session).set(wanted.kind, wanted.name, wanted.pays, wanted.rank, version)
            session.flush()
            after = _record(session, wanted.kind, wanted.name)
            effects = [_effect(wanted.kind, wanted.name, wanted.pays)]
            effects += _warnings(Ledger(session, now), wanted.kind, wanted.pays)
            return Done("policy.set", f"{wanted.kind}:{wanted.name}", before, after, effects)

        return self.desk.change(call, work)

    def remove(self, call: Call, kind: str, name: str, version: int) -> AdminChange:
        """Say nothing of them any more: the next policy decides."""

        def work(session: Session, _now: int) -> Done:
            before = _record(session, kind, name)
            if before is None:
                raise NotFound(f"there is no policy for {words.owner(kind, name)}")
            Rows(session).remove(kind, name, version)
            session.flush()
            follows = "policies of the user's groups" if kind == "user" else "other policies"
            note = f"no policy for {_whose(kind, name)} any more: {follows} decide, and without "
            effects = [words.info(f"{note}one each user's own account pays")]
            return Done("policy.remove", f"{kind}:{name}", before, None, effects)

        return self.desk.change(call, work)


def _record(session: Session, kind: str, name: str) -> dict[str, object] | None:
    row = session.get(Policy, (kind, name))
    return None if row is None else public(row).model_dump(mode="json", exclude={"kind", "name"})


def _whose(kind: str, name: str) -> str:
    return f"members of the group {name}" if kind == "group" else name


def _effect(kind: str, name: str, pays: str) -> Effect:
    payer = "their own account" if pays == "own" else f"the group {pays.removeprefix('group:')}"
    bids = f"bids of {_whose(kind, name)} that do not name an account are paid by {payer}"
    return words.info(f"{bids}; what is reserved already stays as it is")


def _warnings(ledger: Ledger, kind: str, pays: str) -> list[Effect]:
    if pays == "own":
        return []
    group = pays.removeprefix("group:")
    account = ledger.find("group", group)
    found = []
    if account is None:
        found.append(words.warning(f"the group {group} has no account yet; grant it credits first"))
    elif ledger.available(account) <= 0:
        found.append(words.warning(f"the group {group} has nothing to spend now"))
    if kind == "user":
        found.append(words.info(f"it holds as long as the user is in the group {group}"))
    return found
