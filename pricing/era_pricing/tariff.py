"""From the price of each slot to the price of each start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import FloatArray, IntArray, rounded_up
from era_pricing.predictors.base import Predictor
from era_pricing.timegrid import HOUR, TimeGrid

_LARGEST = 2**60


@dataclass(frozen=True)
class PricedResource:
    """A resource that has a price.

    Parameters
    ----------
    name
        Name of the resource, for example ``nvidia.com/gpu``.
    price_floor
        Least price of a unit, micro-credits per hour; above zero. The unit is the
        one in which the engine counts: for `cpu` a thousandth of a core.
    predictor
        Forecast of demand that the algorithm may ask.
    price_ceiling
        Greatest price of a unit, micro-credits per hour, whatever its slot; None for no
        limit.

    Raises
    ------
    ValueError
        If a price is no positive integer, or the ceiling is below the floor.
    """

    name: str
    price_floor: int
    predictor: Predictor
    price_ceiling: int | None = None

    def __post_init__(self) -> None:
        for field in ("price_floor", "price_ceiling"):
            price = getattr(self, field)
            if field == "price_ceiling" and price is None:
                continue
            if isinstance(price, bool) or not isinstance(price, int) or price <= 0:
                raise ValueError(
                    f"{field} must be a whole number of micro-credits per hour above 0, "
                    f"got {price!r}"
                )
        if self.price_ceiling is not None and self.price_ceiling < self.price_floor:
            raise ValueError(
                f"price_ceiling must be at least the price_floor ({self.price_floor}), "
                f"got {self.price_ceiling}"
            )

    def limited(self, rates: IntArray, units: int, late: FloatArray | None) -> IntArray:
        """What `units` units cost, once floor, ceiling and the penalty have been applied.

        Parameters
        ----------
        rates : IntArray, shape (n,)
            What the algorithm says they cost together in each slot, micro-credits per hour.
        units
            How many.
        late : FloatArray, shape (n,), or None
            Factors of the penalty for late slots, 1 or more.

        Notes
        -----
        Without a ceiling c the rate is multiplied by the factor. With one, a unit at the
        floor costs the factor times as much, at most c; a unit at the ceiling costs c;
        and between them the new price is a straight line in the old one. So no unit costs
        more than c, nor more than the factor times as much. Cutting the product off at c
        would do that for one unit, but only the sum over units is known here, and a limit
        on their sum would make it pay to split a request. A straight line keeps sums.
        """
        least, most = units * self.price_floor, _LARGEST
        if self.price_ceiling is not None:
            most = units * self.price_ceiling
        rates = np.minimum(np.maximum(rates, least), most)
        if late is None:
            return rates
        if self.price_ceiling is None:
            return rounded_up(np.minimum(rates * late, float(_LARGEST)))
        lowest = np.minimum(self.price_floor * late, self.price_ceiling)
        range_ = max(self.price_ceiling - self.price_floor, 1)
        share = (self.price_ceiling - lowest) / range_
        return np.minimum(rounded_up(units * lowest + (rates - least) * share), most)


def checked(priced: Sequence[PricedResource]) -> tuple[PricedResource, ...]:
    """The priced resources, if there are any and none is named twice."""
    priced = tuple(priced)
    if not priced:
        raise ValueError("priced must name at least one resource")
    if len({each.name for each in priced}) < len(priced):
        raise ValueError("priced must name each resource once")
    return priced


def candidate_starts(grid: TimeGrid, earliest: int, deadline: int, slots: int) -> IntArray:
    """Starts that are worth pricing in a window.

    They are `earliest`, the slot boundaries after it, and the last start from
    which `slots` slots end by `deadline`. Between two boundaries the price is a
    straight line, so no other start is cheaper than all of these.

    Parameters
    ----------
    grid
        The time grid.
    earliest, deadline
        The window, UTC seconds.
    slots
        Length of the reservation in slots.

    Returns
    -------
    IntArray, shape (m,)
        UTC seconds, ascending; empty if the window is too short.
    """
    last = deadline - slots * grid.slot
    if last < earliest:
        return np.empty(0, dtype=np.int64)
    first_boundary = (grid.index(earliest) + 1) * grid.slot
    count = max(0, (last - first_boundary) // grid.slot + 1)
    ends = last > earliest and last % grid.slot > 0
    starts = np.empty(1 + count + ends, dtype=np.int64)
    starts[0] = earliest
    starts[1 : 1 + count] = np.arange(
        first_boundary, first_boundary + count * grid.slot, grid.slot, dtype=np.int64
    )
    if ends:
        starts[-1] = last
    return starts


def dearest(grid: TimeGrid) -> int:
    """The highest rate whose sum over the horizon still fits 64 bits, micro-credits per hour.

    What costs more, such as slots that are weeks away under a steep penalty for late ones,
    costs this instead, which hardly anybody can bid.
    """
    return int(2**62 // (grid.horizon + 2 * grid.slot))


class Tariff:
    """Rates of n adjacent slots, ready to be added up. All arithmetic is exact.

    Parameters
    ----------
    grid
        The time grid.
    first
        Absolute index of the first slot.
    rates : IntArray, shape (n,)
        Price of the whole request in each slot, micro-credits per hour; at most `dearest`.
    for_sale : bool array, shape (n,)
        Whether the request may have each slot.
    whole
        Whether every slot that is touched is paid in full.

    Notes
    -----
    A start o seconds into a slot pays (slot - o) / slot of the first slot's cost
    and o / slot of the last one's; with `whole` it pays all of both. With rates per
    hour this is the sum of rate times seconds, an integer, divided by 3600. The
    price is that, rounded up to whole micro-credits; the price of a part is the
    rounded price up to its end less the rounded price up to its beginning. So the
    parts are non-negative integers and sum to the price.
    """

    def __init__(
        self,
        grid: TimeGrid,
        first: int,
        rates: IntArray,
        for_sale: npt.NDArray[np.bool_],
        whole: bool = False,
    ) -> None:
        self.grid = grid
        self._first = first
        self._all = bool(for_sale.all())
        self._rates: IntArray = rates if self._all else np.where(for_sale, rates, 0)
        self._for_sale = for_sale
        self._whole = whole

    @cached_property
    def hourly(self) -> IntArray:
        """Micro-credits per hour in each slot; -1 where it is not for sale."""
        return np.where(self._for_sale, self._rates, -1)

    @cached_property
    def slot_prices(self) -> IntArray:
        """Price of each whole slot, micro-credits; -1 where it is not for sale."""
        return np.where(self._for_sale, money(self._rates * self.grid.slot), -1)

    def totals(self, starts: IntArray, slots: int) -> tuple[npt.NDArray[np.bool_], IntArray]:
        """Which starts are for sale, and the price at each.

        Parameters
        ----------
        starts : IntArray, shape (m,)
            UTC seconds, ascending, as of `candidate_starts`: at adjacent slot boundaries,
            but for the first and the last; each with all the slots it touches among the n.
        slots
            Length of the reservation in slots.

        Returns
        -------
        fits : bool array, shape (m,)
            Whether every slot touched is for sale.
        prices : IntArray, shape (m,)
            Micro-credits; without meaning where it does not fit.
        """
        slot, count = self.grid.slot, len(starts)
        # Only the first and the last may lie inside a slot.
        head = int(int(starts[0]) % slot > 0)
        tail = int(count > 1 and int(starts[-1]) % slot > 0)
        low = self.grid.index_up(int(starts[0])) - self._first
        middle = slice(low, low + count - head - tail)
        ends = slice(middle.start + slots, middle.stop + slots)
        paid = _sums(self._rates)
        paid *= slot
        total = np.empty(count, dtype=np.int64)
        total[head : count - tail] = paid[ends] - paid[middle]
        fits = np.ones(count, dtype=np.bool_)
        if not self._all:
            blocked = _sums(~self._for_sale)
            fits[head : count - tail] = blocked[ends] == blocked[middle]
        for at in (0,) * head + (count - 1,) * tail:
            begin, offset = divmod(int(starts[at]), slot)
            begin -= self._first
            end = begin + slots
            fits[at] = bool(self._for_sale[begin : end + 1].all())
            if self._whole:
                total[at] = paid[end + 1] - paid[begin]
                continue
            more = int(self._rates[end]) - int(self._rates[begin])
            total[at] = int(paid[end]) - int(paid[begin]) + offset * more
        return fits, money(total)

    def parts(self, start: int, end: int) -> tuple[int, ...]:
        """Prices of the parts of [start, end) between slot boundaries."""
        slot = self.grid.slot
        first, last = self.grid.index(start), self.grid.index_up(end)
        rates = self._rates[first - self._first : last - self._first]
        paid = rates * slot
        if not self._whole:
            paid[0] -= int(rates[0]) * (start - first * slot)
            paid[-1] -= int(rates[-1]) * (last * slot - end)
        owed = money(np.cumsum(paid))
        owed[1:] -= owed[:-1].copy()
        return tuple(owed.tolist())

    def whole_slots(self, slots: IntArray) -> tuple[int, ...]:
        """Prices of whole slots, by absolute index and ascending, that are bought together."""
        owed = money(_sums(self._rates[slots - self._first] * self.grid.slot))
        return tuple(np.diff(owed).tolist())


Amount = TypeVar("Amount", int, IntArray)


def recut(prices: tuple[int, ...], edges: IntArray, new_edges: IntArray) -> tuple[int, ...]:
    """Cut a price at other boundaries, after a reservation of the same length has moved.

    Parameters
    ----------
    prices
        The price of each of the n parts.
    edges, new_edges : IntArray, shapes (n + 1,) and (k + 1,)
        Boundaries of the old and the new parts, UTC seconds; both are of the same
        length from the first to the last.

    Returns
    -------
    tuple of int
        Prices of the k parts; each moment of the reservation keeps its price, up to
        rounding, and the sum stays the same.
    """
    paid = _sums(np.array(prices, dtype=np.int64))
    there = np.interp(new_edges - new_edges[0], edges - edges[0], paid)
    owed = np.minimum(np.rint(there).astype(np.int64), paid[-1])
    owed[-1] = paid[-1]
    return tuple(np.diff(owed).tolist())


def _sums(values: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> IntArray:
    """Sums of the first 0, 1, ..., n values."""
    out = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=out[1:])
    return out


def money(rate_seconds: Amount) -> Amount:
    """Micro-credits for sums of rates per hour times seconds, rounded up."""
    return -(-rate_seconds // HOUR)
