"""Who pays for a bid that does not say: the user, or a group of theirs.

The user's own policy comes first, then that of the user's groups with the lowest rank, then
the user's own account. Ranks are unique, so it is plain which of two groups pays. A policy
that names a group of which the user is no member says nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from .rules import changed, rules
from .tables import Account, Policy
from .versions import Stale, expect, remove, store

GROUP = "group:"


class NotAllowed(Exception):
    """The user may not spend from this account."""


@dataclass(frozen=True)
class Payer:
    """An account that pays: of a user, or of a group."""

    kind: str
    name: str

    def __str__(self) -> str:
        return "own" if self.kind == "user" else f"{GROUP}{self.name}"


class Policies:
    """Reads and changes who pays, within the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def set(
        self,
        kind: str,
        name: str,
        pays: str | None,
        rank: int | None = None,
        version: int | None = None,
    ) -> Policy:
        """Set the policy of a user or group; without `version` there must be none yet.

        Parameters
        ----------
        kind : str
            ``user`` or ``group``.
        name : str
        pays : str or None
            ``own``, ``group:NAME``, or None for no say.
        rank : int, optional
            Of a group: the lowest of a user's groups decides.
        version : int, optional
            Of the policy that is replaced.
        """
        if kind not in ("user", "group") or not name:
            raise ValueError(f"a policy of {kind} {name!r}")
        if pays not in (None, "own") and not (pays.startswith(GROUP) and pays != GROUP):
            raise ValueError(f"pays must be own or group:NAME; got {pays!r}")
        if (rank is None) != (kind == "user"):
            raise ValueError("a group's policy needs a rank, and a user's has none")
        row = self.session.get(Policy, (kind, name))
        expect(_what(kind, name), row, version)
        if rank is not None:
            other = self.session.scalar(select(Policy).filter_by(rank=rank))
            if other is not None and other is not row:
                raise ValueError(f"rank {rank} is that of group {other.name}; choose another")
        row = row or Policy(kind=kind, name=name)
        row.pays, row.rank = pays, rank
        store(self.session, _what(kind, name), row)
        changed(self.session)
        return row

    def remove(self, kind: str, name: str, version: int) -> None:
        """Forget the policy of a user or group."""
        row = self.session.get(Policy, (kind, name))
        if row is None:
            raise Stale(_what(kind, name), version, 0)
        remove(self.session, _what(kind, name), row, version)
        changed(self.session)

    def all(self) -> list[Policy]:
        """All policies: those of users by name, then those of groups by rank."""
        query = select(Policy).order_by(Policy.kind.desc(), Policy.rank, Policy.name)
        return list(self.session.scalars(query))

    def payer(self, user: str, groups: Collection[str], wanted: str | None = None) -> Payer:
        """Who pays for a user's bid: what the bid says, or what policy says.

        Raises
        ------
        NotAllowed
            If the bid names a group of which the user is no member.
        """
        if wanted is not None:
            return _allowed(user, groups, wanted)
        for pays in rules(self.session).payers(user, groups):
            if pays is None or (pays != "own" and pays.removeprefix(GROUP) not in groups):
                continue
            return _allowed(user, groups, pays)
        return Payer("user", user)

    def choices(self, user: str, groups: Collection[str]) -> list[Payer]:
        """The accounts that a user may choose from: the own one, and those of the groups."""
        query = select(Account.name).where(Account.kind == "group", Account.name.in_(groups))
        named = self.session.scalars(query.order_by(Account.name))
        return [Payer("user", user), *(Payer("group", name) for name in named)]


def _allowed(user: str, groups: Collection[str], wanted: str) -> Payer:
    if wanted == "own":
        return Payer("user", user)
    name = wanted.removeprefix(GROUP)
    if name == wanted or name not in groups:
        raise NotAllowed(f"{user} may not pay from {wanted!r}; choose own or a group of yours")
    return Payer("group", name)


def _what(kind: str, name: str) -> str:
    return f"the policy of {kind} {name}"
