"""Credits that lapse: which are spent first, and where a refund goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, literal_column, select
from sqlalchemy.orm import Session

from .tables import Lot


@dataclass(frozen=True)
class Part:
    """Some of an amount: of a lot, or of what never lapses."""

    lot_id: int | None
    amount: int


Parts = list[Part]


def live() -> ColumnElement[bool]:
    """Lots with something in them, in the words of their index."""
    return Lot.remaining > literal_column("0")


def take(lots: Sequence[Lot], amount: int) -> Parts:
    """Spend: from these lots in their order, the rest from what never lapses."""
    parts: Parts = []
    for lot in lots:
        if amount == 0:
            break
        part = min(lot.remaining, amount)
        lot.remaining -= part
        amount -= part
        parts.append(Part(lot.id, part))
    if amount:
        parts.append(Part(None, amount))
    return parts


def put_back(session: Session, sources: Parts, amount: int, lapsed: int | None = None) -> Parts:
    """Refund: what was taken last goes back first, so what never lapses before all lots.

    With a time `lapsed`, what came from lots that had lapsed by then comes back for good.
    """
    numbers = [each.lot_id for each in sources if each.lot_id is not None]
    lots = {}
    if numbers:
        query = select(Lot).where(Lot.id.in_(numbers))
        found = session.scalars(query, execution_options={"populate_existing": True})
        lots = {lot.id: lot for lot in found}
    parts: Parts = []
    plain = [each for each in sources if each.lot_id is None]
    lapsing = [each for each in sources if each.lot_id is not None]
    lapsing.sort(key=lambda each: (lots[each.lot_id or 0].expires, each.lot_id), reverse=True)
    for source in [*plain, *lapsing]:
        part = min(source.amount, amount)
        amount -= part
        lot = None if source.lot_id is None else lots[source.lot_id]
        if lot is not None and lapsed is not None and lot.expires <= lapsed:
            lot = None
        if part:
            parts.append(Part(None if lot is None else lot.id, part))
        if part and lot is not None:
            lot.remaining += part
    return parts
