"""First-fit: a fixed price, and the earliest start at which the units fit."""

from __future__ import annotations

from typing import ClassVar

from era_pricing.algorithms.fixed_price import FixedPrice
from era_pricing.arrays import IntArray


class FirstFit(FixedPrice):
    """Greedy allocation at a price that does not depend on demand.

    Parameters
    ----------
    price
        Micro-credits per unit per hour; the price floor if None.

    Raises
    ------
    ValueError
        If `price` is not a positive integer.
    """

    name: ClassVar[str] = "first-fit"
    takes_earliest: ClassVar[bool] = True

    def offers(self, starts: IntArray, prices: IntArray, earliest: int) -> slice:
        """Only the earliest start, or the next one if that costs less.

        It does for what may be moved, if the earliest is inside a slot: such a start takes a
        slot more. Somebody who waits for the boundary must not be better off by that.
        """
        at = int(prices[:2].argmin())
        return slice(at, at + 1)
