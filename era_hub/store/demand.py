"""What prices have been learned from, kept so that a restart does not forget it."""

from __future__ import annotations

from dataclasses import fields

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from era_pricing.predictors import SeenRequest

from .bulk import gather, plain
from .tables import AlgorithmState, SeenBid

KEPT = 8 * 7 * 86_400
"""Seconds for which requests are kept: as long as the predictors remember them."""

MOST = 20_000
"""Most requests read back, the newest: a start must not take minutes."""


FIELDS = tuple(each.name for each in fields(SeenRequest))


class Demand:
    """The requests decided in a pool, within the caller's transaction.

    They hold sealed bids, so nothing here is for any API, and they do not say who bid.
    """

    def __init__(self, session: Session, pool: str, resource: str) -> None:
        self.session = session
        self.pool = pool
        self.resource = resource

    def remember(self, seen: SeenRequest) -> None:
        """Keep a request that has been decided."""
        row = {"pool": self.pool, "resource": self.resource}
        gather(self.session, plain(SeenBid), row | {name: getattr(seen, name) for name in FIELDS})

    def prune(self, now: int) -> None:
        """Drop requests that are too old to be remembered."""
        old = SeenBid.submitted < now - KEPT
        self.session.execute(delete(SeenBid).filter_by(pool=self.pool).where(old))

    def recall(self, now: int) -> list[SeenRequest]:
        """The requests of the past weeks, in the order in which they were decided."""
        query = (
            select(SeenBid)
            .filter_by(pool=self.pool, resource=self.resource)
            .where(SeenBid.submitted >= now - KEPT)
            .order_by(SeenBid.submitted.desc(), SeenBid.id.desc())
            .limit(MOST)
        )
        rows = list(self.session.scalars(query))
        return [_seen(row) for row in rows[::-1]]

    def newest(self) -> int:
        """The number of the newest request of any pool; 0 if there is none."""
        return self.session.scalar(select(func.max(SeenBid.id))) or 0

    def after(self, number: int) -> list[tuple[int, SeenRequest]]:
        """The requests that are newer than the one of this number, with theirs."""
        query = (
            select(SeenBid)
            .filter_by(pool=self.pool, resource=self.resource)
            .where(SeenBid.id > number)
            .order_by(SeenBid.id)
        )
        return [(row.id, _seen(row)) for row in self.session.scalars(query)]


def _seen(row: SeenBid) -> SeenRequest:
    return SeenRequest(**{name: getattr(row, name) for name in FIELDS})


def keep_state(session: Session, pool: str, state: bytes, now: int) -> None:
    """Keep what a pool's algorithm has worked out."""
    session.merge(AlgorithmState(pool=pool, at=now, state=state))


def kept_state(session: Session, pool: str) -> bytes | None:
    """What a pool's algorithm has worked out; None if nothing."""
    row = session.get(AlgorithmState, pool)
    return None if row is None else row.state
