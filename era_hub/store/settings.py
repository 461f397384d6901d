"""What admins set for a pool: bounds of its price, what is held back, and maintenance."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..models import format_credits
from .tables import Maintenance, PoolSettings
from .versions import Missing, expect, remove, store

KEEP: Any = object()
"""Leave as it is."""


class Settings:
    """Reads and changes settings within the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def pool(self, name: str) -> PoolSettings:
        """A pool's settings; of version 0, and not stored, if none were ever made."""
        row = self.session.get(PoolSettings, name)
        if row is not None:
            return row
        return PoolSettings(pool=name, price_floor=None, price_ceiling=None, held_back=0, version=0)

    def set(
        self,
        pool: str,
        version: int,
        *,
        price_floor: int | None,
        price_ceiling: int | None,
        held_back: int,
    ) -> PoolSettings:
        """Replace a pool's settings; version 0 for the first ones."""
        if price_floor is not None and price_floor < 0:
            raise ValueError(f"price_floor must be at least 0; got {price_floor}")
        if price_ceiling is not None and price_ceiling < (price_floor or 0):
            ceiling, floor = format_credits(price_ceiling), format_credits(price_floor or 0)
            raise ValueError(
                f"price_ceiling: {ceiling} credits are below the price floor of {floor}"
            )
        if held_back < 0:
            raise ValueError(f"held_back must be at least 0; got {held_back}")
        row = self.session.get(PoolSettings, pool)
        expect(f"pool {pool}", row, version)
        row = row or PoolSettings(pool=pool)
        row.price_floor, row.price_ceiling, row.held_back = price_floor, price_ceiling, held_back
        store(self.session, f"pool {pool}", row)
        return row

    # -- maintenance ----------------------------------------------------------

    def maintenance(self, pool: str, since: int | None = None) -> list[Maintenance]:
        """A pool's maintenance windows that end after `since`, the earliest first."""
        query = select(Maintenance).filter_by(pool=pool)
        if since is not None:
            query = query.where(Maintenance.end > since)
        return list(self.session.scalars(query.order_by(Maintenance.start, Maintenance.id)))

    def plan(self, pool: str, start: int, end: int, units: int | None, reason: str) -> Maintenance:
        """A new maintenance window, of so many units or of all."""
        row = Maintenance(pool=pool, start=start, end=end, units=units, reason=reason)
        _check(row)
        self.session.add(row)
        self.session.flush()
        return row

    def change(
        self,
        window: int,
        version: int,
        *,
        start: int = KEEP,
        end: int = KEEP,
        units: int | None = KEEP,
        reason: str = KEEP,
    ) -> Maintenance:
        """Change a maintenance window."""
        row = self._window(window)
        expect(f"maintenance {window}", row, version)
        changes = {"start": start, "end": end, "units": units, "reason": reason}
        changed = {
            name: getattr(row, name) if value is KEEP else value for name, value in changes.items()
        }
        _check(Maintenance(**changed))
        for name, value in changed.items():
            setattr(row, name, value)
        store(self.session, f"maintenance {window}", row)
        return row

    def drop(self, window: int, version: int) -> None:
        """Call a maintenance window off."""
        remove(self.session, f"maintenance {window}", self._window(window), version)

    def _window(self, window: int) -> Maintenance:
        row = self.session.get(Maintenance, window)
        if row is None:
            raise Missing(f"there is no maintenance {window}")
        return row


def _check(row: Maintenance) -> None:
    if row.end <= row.start:
        raise ValueError("a maintenance window must end after its start")
    if row.units is not None and row.units < 1:
        raise ValueError(f"units must be at least 1; got {row.units}")
