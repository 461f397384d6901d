"""What the algorithms have in common whose price does not depend on demand."""

from __future__ import annotations

import operator

import numpy as np

from era_pricing.algorithms.base import Algorithm, Market
from era_pricing.arrays import IntArray


class FixedPrice(Algorithm):
    """Every unit costs the same at any time.

    Parameters
    ----------
    price
        Micro-credits per unit per hour; the price floor if None.

    Raises
    ------
    ValueError
        If `price` is not a positive integer.
    """

    def __init__(self, price: int | None = None) -> None:
        self._price = None if price is None else positive("price", price)

    def rates(self, units: int, market: Market) -> IntArray:
        """See `Algorithm.rates`."""
        price = market.price_floor if self._price is None else self._price
        return np.full(len(market.times), price * units, dtype=np.int64)


def positive(name: str, number: int) -> int:
    """`number` if it is a whole number above 0.

    Raises
    ------
    ValueError
        If it is not; the text begins with `name`.
    """
    try:
        whole = 0 if isinstance(number, bool) else operator.index(number)
    except TypeError:
        whole = 0
    if whole <= 0:
        raise ValueError(f"{name} must be a positive whole number, got {number!r}")
    return whole
