"""How large pools are, and what a foreign scheduler has said of its capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from .tables import CapacityReport, PoolSize


@dataclass(frozen=True)
class Span:
    """So many units in [start, end), UTC seconds; for good if `end` is None."""

    start: int
    end: int | None
    units: int


class Capacity:
    """Reads and writes both within the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def reported(self, pool: str) -> tuple[Span, ...]:
        """What was said last, in its order."""
        query = select(CapacityReport).filter_by(pool=pool).order_by(CapacityReport.id)
        return tuple(Span(row.start, row.end, row.units) for row in self.session.scalars(query))

    def report(self, pool: str, spans: Sequence[Span]) -> bool:
        """Replace what was said; whether it is another thing than before."""
        if tuple(spans) == self.reported(pool):
            return False
        self.session.execute(delete(CapacityReport).where(CapacityReport.pool == pool))
        for each in spans:
            self.session.add(
                CapacityReport(pool=pool, start=each.start, end=each.end, units=each.units)
            )
            self.session.flush()  # their ids keep the order
        return True

    def sizes(self) -> dict[str, list[tuple[int, int]]]:
        """Since when each pool has had how many units, the earliest first."""
        found: dict[str, list[tuple[int, int]]] = {}
        for row in self.session.scalars(select(PoolSize).order_by(PoolSize.since)):
            found.setdefault(row.pool, []).append((row.since, row.units))
        return found

    def note_size(self, pool: str, units: int, now: int) -> None:
        """From now on a pool has so many units."""
        newest = select(PoolSize).filter_by(pool=pool).order_by(PoolSize.since.desc()).limit(1)
        row = self.session.scalar(newest)
        if row is not None and row.units == units:
            return
        if row is not None and row.since >= now:
            row.units = units
        else:
            self.session.add(PoolSize(pool=pool, since=now, units=units))
