"""From the price of each slot to the price of each start."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import IntArray
from era_pricing.timegrid import HOUR, TimeGrid


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
    boundaries = np.arange(first_boundary, last + 1, grid.slot, dtype=np.int64)
    ends = [last] if last > earliest and last % grid.slot else []
    return np.concatenate(([earliest], boundaries, ends)).astype(np.int64)


class Tariff:
    """Rates of n adjacent slots, ready to be added up. All arithmetic is exact.

    Parameters
    ----------
    grid
        The time grid.
    first
        Absolute index of the first slot.
    rates : IntArray, shape (n,)
        Price of the whole request in each slot, micro-credits per hour.
    for_sale : bool array, shape (n,)
        Whether the request fits in each slot.

    Raises
    ------
    OverflowError
        If a rate is so high that the sum over the horizon would exceed 64 bits.

    Notes
    -----
    A start o seconds into a slot pays (slot - o) / slot of the first slot's cost
    and o / slot of the last one's. With rates per hour this is the sum of rate
    times seconds, an integer, divided by 3600. The price is that, rounded up to
    whole micro-credits; the price of a part is the rounded price up to its end
    less the rounded price up to its beginning. So the parts are non-negative
    integers and sum to the price.
    """

    def __init__(
        self, grid: TimeGrid, first: int, rates: IntArray, for_sale: npt.NDArray[np.bool_]
    ) -> None:
        limit = (2**62) // (grid.horizon + grid.slot)
        self._grid = grid
        self._first = first
        self._rates: IntArray = np.where(for_sale, rates, 0)
        self._for_sale = for_sale
        if self._rates.size and int(self._rates.max()) > limit:
            raise OverflowError(f"prices must stay below {limit} micro-credits per hour")

    @cached_property
    def hourly(self) -> IntArray:
        """Micro-credits per hour in each slot; -1 where it is not for sale."""
        return np.where(self._for_sale, self._rates, -1)

    @cached_property
    def slot_prices(self) -> IntArray:
        """Price of each whole slot, micro-credits; -1 where it is not for sale."""
        return np.where(self._for_sale, _money(self._rates * self._grid.slot), -1)

    def totals(self, starts: IntArray, slots: int) -> tuple[IntArray, IntArray]:
        """Feasible starts and their prices.

        Parameters
        ----------
        starts : IntArray, shape (m,)
            UTC seconds, ascending; each with all the slots it touches among the n.
        slots
            Length of the reservation in slots.

        Returns
        -------
        starts, prices : IntArray, shape (k,)
            Those at which every slot touched is for sale; micro-credits.
        """
        begin, offset = np.divmod(starts, self._grid.slot)
        begin -= self._first
        end = begin + slots
        blocked = _sums(~self._for_sale)
        fits = blocked[end + (offset > 0)] == blocked[begin]
        paid = _sums(self._rates) * self._grid.slot
        rates = np.append(self._rates, 0)
        total = paid[end] - paid[begin] + offset * (rates[end] - rates[begin])
        return starts[fits], _money(total[fits])

    def parts(self, start: int, end: int) -> tuple[int, ...]:
        """Prices of the parts of [start, end) between slot boundaries."""
        edges = self._grid.segments(start, end)
        slots = edges[:-1] // self._grid.slot - self._first
        owed = _money(_sums(self._rates[slots] * np.diff(edges)))
        return tuple(int(part) for part in np.diff(owed))


def _sums(values: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> IntArray:
    """Sums of the first 0, 1, ..., n values."""
    out = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=out[1:])
    return out


def _money(rate_seconds: IntArray) -> IntArray:
    """Micro-credits for sums of rates per hour times seconds, rounded up."""
    return -(-rate_seconds // HOUR)
