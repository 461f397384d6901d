"""What admins have ruled: policies and quotas, copied into memory.

Every bid needs them and they seldom change. So a service keeps a copy of them all, and
each transaction reads one number that says whether the copy still holds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.orm import Session

from .tables import Policy, Quota, RulesVersion


@dataclass(frozen=True)
class Limits:
    """What is in force; None is no limit. `gpu_seconds` are those of a `period`."""

    gpus: int | None = None
    gpu_seconds: int | None = None
    period: int | None = None
    longest: int | None = None
    horizon: int | None = None
    configurations: tuple[str, ...] | None = None

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return any(value is not None for value in vars(self).values())


@dataclass(frozen=True)
class Rules:
    """All policies and quotas of one version.

    Parameters
    ----------
    version : int
    pays : dict
        What the policy of a (kind, name) says about who pays; None says nothing.
    ranks : dict
        The rank of a group's policy, by name.
    quotas : dict
        Limits by (kind, name).
    """

    version: int
    pays: dict[tuple[str, str], str | None]
    ranks: dict[str, int]
    quotas: dict[tuple[str, str], Limits]

    def payers(self, user: str, groups: Collection[str]) -> list[str | None]:
        """What the policies for a user say, the most important first."""
        ranked = sorted((self.ranks[name], name) for name in groups if name in self.ranks)
        keys = [("user", user), *(("group", name) for _, name in ranked)]
        return [self.pays[key] for key in keys if key in self.pays]

    def limits(self, kind: str, names: Collection[str]) -> list[Limits]:
        """The quotas of one kind with these names, as far as there are any."""
        return [self.quotas[kind, name] for name in names if (kind, name) in self.quotas]


def rules(session: Session) -> Rules:
    """The rules as this transaction sees them."""
    known: Rules | None = session.info.get("rules")
    if known is not None:
        return known
    bind = session.get_bind()
    engine = bind.engine if isinstance(bind, Connection) else bind
    version = session.scalar(select(RulesVersion.version)) or 0
    found = _copies.get(engine)
    if found is None or found.version != version:
        found = _read(session, version)
        # What this transaction has changed is nobody else's before it is committed.
        if not session.info.get("rules_changed"):
            _copies[engine] = found
    session.info["rules"] = found
    return found


def changed(session: Session) -> None:
    """Say that this transaction changes a policy or a quota."""
    session.execute(update(RulesVersion).values(version=RulesVersion.version + 1))
    session.info["rules_changed"] = True
    session.info.pop("rules", None)


def limits_of(row: Quota) -> Limits:
    """The limits that a quota sets."""
    return Limits(
        gpus=row.gpus,
        gpu_seconds=row.gpu_seconds,
        period=row.period,
        longest=row.longest,
        horizon=row.horizon,
        configurations=None if row.configurations is None else tuple(row.configurations),
    )


# One copy for each database that is open; replaced as a whole, so threads may share it.
_copies: WeakKeyDictionary[Engine | Any, Rules] = WeakKeyDictionary()


def _read(session: Session, version: int) -> Rules:
    policies = session.execute(select(Policy.kind, Policy.name, Policy.pays, Policy.rank)).all()
    return Rules(
        version=version,
        pays={(row.kind, row.name): row.pays for row in policies},
        ranks={row.name: row.rank for row in policies if row.kind == "group"},
        quotas={(row.kind, row.name): limits_of(row) for row in session.scalars(select(Quota))},
    )
