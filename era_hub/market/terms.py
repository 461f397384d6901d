"""What admins have set for a pool: prices, capacity held back, maintenance.

And what a foreign scheduler says that there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy.orm import Session

from ..answers import MarketError
from ..models import format_credits
from ..store.capacity import Capacity, Span
from ..store.settings import Settings


@dataclass(frozen=True)
class Outage:
    """Units of the pool that are not there in [start, end); all of them if `units` is None."""

    start: int
    end: int
    units: int | None


@dataclass(frozen=True)
class Terms:
    """The terms on which a pool sells. Prices are micro-credits for a unit and an hour."""

    floor: int
    ceiling: int | None
    held_back: int
    outages: tuple[Outage, ...]
    reported: tuple[Span, ...] = ()

    @classmethod
    def of(cls, session: Session, pool: str, configured: tuple[int, int | None]) -> Terms:
        """The terms that are stored.

        Parameters
        ----------
        configured : tuple of int and int or None
            Floor and ceiling where none are stored.

        Raises
        ------
        MarketError
            If the floor is not above zero, or the ceiling below it.
        """
        settings = Settings(session)
        stored: Any = settings.pool(pool)
        floor = configured[0] if stored.price_floor is None else stored.price_floor
        ceiling = configured[1] if stored.price_ceiling is None else stored.price_ceiling
        if floor <= 0:
            raise MarketError("price_floor must be above 0")
        if ceiling is not None and ceiling < floor:
            raise MarketError(
                f"price_ceiling must be at least the price floor, which is "
                f"{format_credits(floor)} credits; got {format_credits(ceiling)}"
            )
        planned = settings.maintenance(pool)
        outages = tuple(Outage(each.start, each.end, each.units) for each in planned)
        reported = Capacity(session).reported(pool)
        return cls(floor, ceiling, stored.held_back or 0, outages, reported)

    def for_sale(self, units: int) -> list[tuple[int, int | None, int]]:
        """What of a pool of so many units is for sale: start, end, units; the last one counts."""
        found: list[tuple[int, int | None, int]] = [(0, None, max(units - self.held_back, 0))]
        edges = {edge for each in self.outages for edge in (each.start, each.end)}
        edges |= {edge for each in self.reported for edge in (each.start, each.end or 0)}
        for start, end in pairwise([*sorted(edges), None]):
            assert start is not None
            there = min(self._planned(start, units), self._said(start, units))
            if there < units:
                found.append((start, end, max(there - self.held_back, 0)))
        return found

    def _planned(self, at: int, units: int) -> int:
        """What maintenance leaves."""
        out = [each for each in self.outages if each.start <= at < each.end]
        return units - sum(units if each.units is None else each.units for each in out)

    def _said(self, at: int, units: int) -> int:
        """What the scheduler says that there is: it knows of maintenance too."""
        for each in reversed(self.reported):
            if each.start <= at and (each.end is None or at < each.end):
                return min(each.units, units)
        return units
