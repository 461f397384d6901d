"""How requests spread over the slots of their windows at given prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import FloatArray, IntArray

STEPS = 60
"""Most steps in finding the levels; halving alone then leaves 2**-60 of the range."""


class Shape:
    """The windows of a table whose cell (i, r) is the i-th slot of row r.

    Parameters
    ----------
    counts : IntArray, shape (r,)
        Slots in each row; the cells below them are out of reach.
    head, tail : FloatArray, shape (r,)
        Share of the first and of the last slot inside the window; `tail` is 1
        where there is only one slot.
    slots : FloatArray, shape (r,)
        Slots each row needs.
    """

    def __init__(
        self, counts: IntArray, head: FloatArray, tail: FloatArray, slots: FloatArray
    ) -> None:
        self.counts = counts
        self.height = int(counts.max(initial=0))
        self.head, self.tail, self.slots = head, tail, slots
        self._last = (counts - 1, np.arange(len(counts)))

    def part(self, rows: IntArray) -> Shape:
        """Some of the rows."""
        return Shape(self.counts[rows], self.head[rows], self.tail[rows], self.slots[rows])

    def trim(self, cells: FloatArray) -> FloatArray:
        """Count a row's first and last slot only as far as inside the window; in place."""
        cells[0] *= self.head
        cells[self._last] *= self.tail
        return cells


@dataclass(eq=False)
class Spread:
    """How one unit of each row spreads over its window; everything by smoothing width.

    Parameters
    ----------
    level : FloatArray, shape (r,)
        The level up to which each row buys.
    above : FloatArray, shape (h, r)
        Level less price.
    share : FloatArray, shape (h, r)
        Part of each slot used: `above`, clipped to 0 ... 1.
    cost : FloatArray, shape (r,)
        Smoothed cost of one unit: exact if the shares sum to the slots needed, and
        less than that at any other level.
    """

    level: FloatArray
    above: FloatArray
    share: FloatArray
    cost: FloatArray

    @classmethod
    def at(cls, shape: Shape, prices: FloatArray, level: FloatArray) -> Spread:
        """The spread at some level."""
        above = level - prices
        share = np.clip(above, 0.0, 1.0)
        inner = above - 0.5 * share
        shape.trim(share)
        inner *= share
        return cls(level, above, share, (level - 0.5) * shape.slots - inner.sum(axis=0))

    def plain_cost(self, shape: Shape) -> FloatArray:
        """Cost of one unit without smoothing, or a little less."""
        below = shape.trim(np.maximum(self.above - 0.5, 0.0))
        cost: FloatArray = (self.level - 0.5) * shape.slots - below.sum(axis=0)
        return cost

    def improve(
        self,
        shape: Shape,
        prices: FloatArray,
        worth: FloatArray,
        tight: npt.NDArray[np.bool_],
        top: float,
        accuracy: float,
    ) -> None:
        """Move the levels until each row has the slots it needs, to a relative `accuracy`.

        Rows that cost more than they are `worth` are left as they are, for the true
        cost is not less; so are `tight` ones, which need all of their window.
        """
        missing = shape.slots - self.share.sum(axis=0)
        wrong = (np.abs(missing) > accuracy * shape.slots) & ~tight & (self.cost < worth)
        (rows,) = np.nonzero(wrong)
        if not len(rows):
            return
        part = shape.part(rows)
        chosen = prices[: part.height].take(rows, axis=1)
        level = _find(part, chosen, self.level[rows], missing[rows], top, accuracy)
        found = Spread.at(part, chosen, level)
        self.level[rows], self.cost[rows] = level, found.cost
        self.above[: part.height, rows] = found.above
        self.share[: part.height, rows] = found.share


def _find(
    shape: Shape,
    prices: FloatArray,
    level: FloatArray,
    missing: FloatArray,
    top: float,
    accuracy: float,
) -> FloatArray:
    """Levels between 0 and `top` at which each row gets the slots it needs.

    Newton's method, kept in brackets: the slots a row gets are piecewise linear and
    rising in its level, so a step is exact once it is on the right piece.
    """
    result = level.copy()
    rows = np.arange(len(level))
    low, high = np.zeros(len(level)), np.full(len(level), top)
    above = level - prices
    for _ in range(STEPS):
        np.copyto(low, level, where=missing > 0.0)
        np.copyto(high, level, where=missing <= 0.0)
        guess = _newton(shape, above, level, missing)
        inside = (guess > low) & (guess < high)
        level = np.where(inside, guess, 0.5 * (low + high))
        result[rows] = level
        above = level - prices
        missing = shape.slots - shape.trim(np.clip(above, 0.0, 1.0)).sum(axis=0)
        wrong = np.abs(missing) > accuracy * shape.slots
        count = np.count_nonzero(wrong)
        if not count:
            break
        if count < 0.7 * len(wrong):
            (keep,) = np.nonzero(wrong)
            shape = shape.part(keep)
            prices = prices[: shape.height].take(keep, axis=1)
            above = above[: shape.height].take(keep, axis=1)
            rows, level, missing = rows[keep], level[keep], missing[keep]
            low, high = low[keep], high[keep]
    return result


def _newton(shape: Shape, above: FloatArray, level: FloatArray, missing: FloatArray) -> FloatArray:
    """One step; where the level lies in a gap between prices, over that gap."""
    slope = shape.trim(((above > 0.0) & (above < 1.0)).astype(np.float64)).sum(axis=0)
    (flat,) = np.nonzero(slope == 0.0)
    slope[flat] = 1.0
    guess: FloatArray = level + missing / slope
    if len(flat):
        gap, short = above[:, flat], missing[flat]
        up = -np.where(gap <= 0.0, gap, -np.inf).max(axis=0)
        down = 1.0 - np.where(gap >= 1.0, gap, np.inf).min(axis=0)
        guess[flat] = level[flat] + np.where(short > 0.0, up, down) + short
    return guess
