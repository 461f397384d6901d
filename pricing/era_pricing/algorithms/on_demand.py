"""On-demand: a fixed price, at once or never."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from era_pricing.algorithms.fixed_price import FixedPrice
from era_pricing.arrays import IntArray


class OnDemand(FixedPrice):
    """What clouds sell without a reservation: a start right now, as long as there is room.

    A request begins at the first moment of its window that is not past, or it is
    turned away.

    Parameters
    ----------
    price
        Micro-credits per unit per hour; the price floor if None.

    Raises
    ------
    ValueError
        If `price` is not a positive integer.
    """

    name: ClassVar[str] = "on-demand"

    def offers(self, starts: IntArray, prices: IntArray, earliest: int) -> slice:
        """The start at `earliest`, or none."""
        return slice(int(np.searchsorted(starts, earliest, side="right")))
