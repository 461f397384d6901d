"""Splitting a preemptible job into chunks, each on the cheapest slots there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from era_pricing.arrays import IntArray
from era_pricing.placement import BoolArray

_NEVER = 2**61


@dataclass(frozen=True, eq=False)
class Chunks:
    """Where the chunks of a job may lie, and what each slot costs.

    Attributes
    ----------
    first : int
        Absolute index of the first slot.
    rates : IntArray, shape (n,)
        Price of the whole request in each slot, micro-credits per hour.
    fits : bool array, shape (n - length + 1,)
        Whether a chunk may begin in each slot.
    length : int
        Slots of a chunk.
    number : int
        Chunks needed.
    """

    first: int
    rates: IntArray
    fits: BoolArray
    length: int
    number: int

    def cheapest(self, end: int) -> tuple[int, tuple[int, ...]] | None:
        """The chunks that cost least in all and end by slot `end`, the earliest of equals.

        Returns
        -------
        int, tuple of int
            The sum of their rates, and the absolute index of each one's first slot,
            ascending; None if there are not as many.
        """
        count = min(end - self.first - self.length + 1, len(self.fits))
        if count <= 0:
            return None
        sums = np.zeros(len(self.rates) + 1, dtype=np.int64)
        np.cumsum(self.rates, out=sums[1:])
        costs = (sums[self.length :] - sums[: len(sums) - self.length])[:count]
        if self.length == 1:
            found = _smallest(costs, self.fits[:count], self.number)
        else:
            found = _apart(costs, self.fits[:count], self.length, self.number)
        if found is None:
            return None
        return int(costs[found].sum()), tuple((found + self.first).tolist())


def _smallest(costs: IntArray, fits: BoolArray, number: int) -> IntArray | None:
    open_ = np.flatnonzero(fits)
    if len(open_) < number:
        return None
    order = np.argsort(costs[open_], kind="stable")[:number]
    return np.sort(open_[order])


def _apart(costs: IntArray, fits: BoolArray, length: int, number: int) -> IntArray | None:
    """The cheapest `number` intervals of equal length that do not overlap.

    Notes
    -----
    Weighted interval scheduling: with t slots looked at, the least cost of j intervals
    is that with t - 1, or that of j - 1 intervals in t - length slots and one more.
    All j at once, so the work is one pass over the slots.
    """
    least = np.full((length + 1, number + 1), _NEVER, dtype=np.int64)
    least[:, 0] = 0
    taken = np.zeros((len(costs), number + 1), dtype=np.bool_)
    for begin, cost in enumerate(costs.tolist()):
        row = (begin + length) % (length + 1)
        before = least[(begin + length - 1) % (length + 1)]
        least[row] = before
        if fits[begin]:
            # The row of `begin` slots, before it is overwritten by the next one.
            more = np.minimum(least[begin % (length + 1), :-1] + cost, _NEVER)
            taken[begin, 1:] = more < before[1:]
            np.minimum(before[1:], more, out=least[row, 1:])
    if least[(len(costs) - 1 + length) % (length + 1), number] >= _NEVER:
        return None
    found = []
    begin = len(costs) - 1
    while number:
        if taken[begin, number]:
            found.append(begin)
            number -= 1
            begin -= length
        else:
            begin -= 1
    return np.array(found[::-1], dtype=np.int64)
