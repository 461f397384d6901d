"""First-fit: a fixed price, and the earliest start at which the units fit."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from era_pricing.algorithms.base import Algorithm, Market
from era_pricing.arrays import IntArray


class FirstFit(Algorithm):
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

    def __init__(self, price: int | None = None) -> None:
        if price is not None and (isinstance(price, bool) or int(price) != price or price <= 0):
            raise ValueError(f"price must be a positive whole number, got {price!r}")
        self._price = price

    def rates(self, units: int, market: Market) -> IntArray:
        """See `Algorithm.rates`."""
        price = market.price_floor if self._price is None else self._price
        return np.full(len(market.times), price * units, dtype=np.int64)

    def choose(self, starts: IntArray, prices: IntArray, market: Market) -> int:
        """The earliest start."""
        return 0
