"""What the free units of a slot are worth to those still to come, by how many they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.relaxation import allocate
from era_pricing.timegrid import HOUR
from era_pricing.workload import Workload, every_nth

_PORTIONS = 128
"""Most columns of a table: larger pools are counted in portions of several units."""

_MOST = 4_000
"""Most kinds of request gone through."""

_WIDTH = 0.3
"""How far slots may differ in price and still share a request, relative to the mean price."""

_FINE, _COARSE = 0.1, 0.25
"""Shares of the pool that requests take, up to which their sizes do not matter, and from which
on they are all that does."""


@dataclass(frozen=True, eq=False)
class Worth:
    """Value that the free units of each slot can be expected to serve.

    Where requests are large beside the pool, what a unit is worth depends on what is
    free beside it: the first of 64 takes the place of one of two requests for 32, the
    second hardly anybody's. For each slot by itself the requests expected are gone
    through from the last one submitted to the first. One that comes with probability p,
    asks for W units and is worth r an hour adds to the worth V of f free units

        p * max(0, r - (V(f) - V(f - W)))

    which is what it gains there if it gets them whenever it outbids what they are worth
    without it. Requests that can wait count in part in each of the slots of their
    window, those that the prices send them to. V(f) - V(f - W) is the price of W units,
    so parts always cost what the whole does.

    Parameters
    ----------
    table : FloatArray, shape (n, k + 1)
        Micro-credits per hour, by slot and by portions of the pool that are free.
    portion
        Units in a portion, 1 or more.

    References
    ----------
    K. T. Talluri, G. J. van Ryzin, "The Theory and Practice of Revenue Management",
    Springer 2004, section 3.4.4, for the decomposition of a network by dynamic
    programming. That requests are larger than one unit, and how one is shared among
    slots, is ours.
    """

    table: FloatArray
    portion: float
    _limited: dict[tuple[float, float], FloatArray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        expected: Workload,
        weights: FloatArray,
        prices: FloatArray,
        first: int,
        step: int,
        capacity: int,
    ) -> Self:
        """The worth in slots of `step` seconds from absolute index `first` on.

        Parameters
        ----------
        expected, weights
            Kinds of request still to come, and how many of each.
        prices : FloatArray, shape (n,)
            What a unit of each slot is thought to cost; it tells where those run who
            can wait.
        first, step, capacity
            The first slot, counted from 1970; seconds in a slot; most units there are.
        """
        table = np.zeros((len(prices), min(capacity, _PORTIONS) + 1))
        portion = capacity / (table.shape[1] - 1)
        expected, weights = every_nth(expected, weights, _MOST)
        span = first * step, (first + len(prices)) * step
        requests, rates, chance = _windows(expected, weights, span, step, capacity)
        if not len(requests):
            return cls(table, portion)
        width = max(_WIDTH * float(prices.mean()), 1e-9)
        row, slot, part = allocate(requests, prices, width, first, step)
        part *= chance[row]
        ends = np.searchsorted(row, np.arange(len(requests) + 1)).tolist()
        units = (requests.units / portion).tolist()
        for each, rate in enumerate(rates.tolist()):
            own = slice(ends[each], ends[each + 1])
            _serve(table, slot[own] - first, part[own, None], units[each], rate)
        return cls(np.rint(table), portion)

    def cost(
        self,
        rows: IntArray,
        free: IntArray,
        units: int,
        beyond: FloatArray,
        low: float,
        high: float,
    ) -> FloatArray:
        """Price of `units` units in some slots, micro-credits per hour.

        Parameters
        ----------
        rows, free : IntArray, shape (m,)
            Rows of the table, and the units that are free there.
        units
            Asked for.
        beyond : FloatArray, shape (m,)
            Price of each unit that is not free, but that others would leave.
        low, high
            Least and greatest price of a unit.
        """
        table = self._between(low, high)
        have = np.clip(free / self.portion, 0, table.shape[1] - 1)
        after = have - units / self.portion
        found = _at(table, rows, have) - _at(table, rows, np.maximum(after, 0))
        moved = np.maximum(-after, 0) * self.portion
        total: FloatArray = found + moved * np.clip(beyond, low, high)
        return total

    def _between(self, low: float, high: float) -> FloatArray:
        """The table, with each portion worth between `low` and `high` for each of its units.

        What a jump exceeds the greatest price by goes to the units after it.
        """
        if (low, high) not in self._limited:
            count = np.arange(self.table.shape[1]) * self.portion
            table = np.maximum.accumulate(self.table - low * count, axis=1) + low * count
            if high < np.inf:
                table = np.minimum.accumulate(table - high * count, axis=1) + high * count
            self._limited.clear()
            self._limited[low, high] = table
        return self._limited[low, high]


def importance(expected: Workload, weights: FloatArray, capacity: int) -> float:
    """How much the sizes of requests matter, 0 to 1.

    That depends on the share of the pool which the request that a mean unit belongs to
    takes besides this unit; single units fit wherever there is one.
    """
    work = weights * expected.units * expected.duration
    total = float(work.sum())
    if not total or not capacity:
        return 0.0
    besides = np.minimum(expected.units, capacity) - 1
    share = float(work @ besides) / total / capacity
    return min(max((share - _FINE) / (_COARSE - _FINE), 0.0), 1.0)


def _windows(
    expected: Workload, weights: FloatArray, span: tuple[int, int], step: int, capacity: int
) -> tuple[Workload, FloatArray, FloatArray]:
    """Requests that fit into the span, in whole slots, the last submitted first.

    With what each is worth an hour, and the chance that it comes, times the part of its
    slots that it needs.
    """
    begin, end = span
    duration = -(-expected.duration // step) * step
    arrival = np.maximum(expected.arrival, begin)
    deadline = np.minimum(np.maximum(expected.deadline, arrival + duration), end)
    (fits,) = np.nonzero((deadline - arrival >= duration) & (expected.units <= capacity))
    order = fits[np.argsort(-expected.submitted[fits], kind="stable")]
    requests = Workload(
        expected.submitted[order],
        arrival[order],
        deadline[order],
        expected.units[order],
        duration[order],
        expected.value[order],
    )
    rates = expected.value[order] * (HOUR / expected.duration[order])
    chance = -np.expm1(-weights[order]) * (expected.duration[order] / duration[order])
    return requests, rates, chance


def _serve(
    table: FloatArray, rows: IntArray, chance: FloatArray, portions: float, rate: float
) -> None:
    """Add to the worth of each slot what a request may gain there; in place.

    `rows` ascend; `chance`, of shape (m, 1), is that of coming and of running there.
    """
    if not len(rows):
        return
    whole = int(rows[-1]) - int(rows[0]) + 1 == len(rows)
    found = table[rows[0] : rows[-1] + 1] if whole else table[rows]
    count = found.shape[1]
    down = int(np.ceil(portions))
    rest = down - portions
    # A part of a portion is worth that part of it.
    gain = found[:, : count - down] - found[:, down:]
    if rest:
        gain += rest * (found[:, 1 : count - down + 1] - found[:, : count - down])
    gain += rate
    np.maximum(gain, 0, out=gain)
    gain *= chance
    found[:, down:] += gain
    if not whole:
        table[rows] = found


def _at(table: FloatArray, rows: IntArray, portions: FloatArray) -> FloatArray:
    """The worth of so many portions, also of parts of them."""
    below = np.minimum(portions.astype(np.int64), table.shape[1] - 2)
    low = table[rows, below]
    found: FloatArray = low + (portions - below) * (table[rows, below + 1] - low)
    return found
