"""A price that rises exponentially with what is promised, and needs no forecast."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from era_pricing.algorithms.base import Algorithm, Market
from era_pricing.algorithms.fixed_price import positive
from era_pricing.arrays import FloatArray, IntArray

_RANGE = 100
"""Highest over lowest price where neither a parameter nor a ceiling says."""

_LARGEST = float(2**60)


class Exponential(Algorithm):
    """Posted prices between `low` and `high`, exponential in the share promised.

    In a slot with the share u of its units promised, a unit costs
    ``low * (high / low) ** u``: the lowest price when all are free, the highest when
    none is. Nothing has to be known of the demand but about what bidders value a
    unit at the least and at the most, which is what `low` and `high` should be.

    W units cost the integral of that from the share promised before them to the
    share promised with them, so splitting a request changes nothing. The integral
    is rounded at both ends, so parts add up to the whole to the micro-credit.

    Parameters
    ----------
    low
        Price of a unit when all is free, micro-credits per hour; the price floor if
        None.
    high
        Price when nothing is left, at least `low`. If None, the price ceiling;
        without one, 100 times `low`.

    Raises
    ------
    ValueError
        If a price is not a positive integer, or `high` is below `low`.

    References
    ----------
    R. Zhou, Z. Li, C. Wu, Z. Huang, "An Efficient Cloud Market Mechanism for
    Computing Jobs With Soft Deadlines", IEEE/ACM Transactions on Networking 25(2),
    2017, for the exponential form. The ends are set as above, without the constants
    of a proof, so no bound on the welfare is claimed.
    """

    name: ClassVar[str] = "exponential"

    def __init__(self, low: int | None = None, high: int | None = None) -> None:
        self._low = None if low is None else positive("low", low)
        self._high = None if high is None else positive("high", high)
        if self._low is not None and self._high is not None and self._high < self._low:
            raise ValueError(f"high must be at least low ({low}), got {high!r}")

    def rates(self, units: int, market: Market) -> IntArray:
        """See `Algorithm.rates`."""
        low = float(market.price_floor if self._low is None else self._low)
        high = self._high if self._high is not None else market.price_ceiling
        growth = np.log(max(low * _RANGE if high is None else float(high), low) / low)
        capacity = np.maximum(market.capacity, 1).astype(np.float64)
        staying = market.staying(units)
        before = self._integral(staying, capacity, low, growth)
        after = self._integral(staying + units, capacity, low, growth)
        return after - before

    def _integral(
        self, promised: IntArray, capacity: FloatArray, low: float, growth: float
    ) -> IntArray:
        """Price of the first units promised, in whole micro-credits per hour."""
        share = np.clip(promised / capacity, 0.0, 1.0)
        worth = capacity * (np.expm1(growth * share) / growth if growth else share) * low
        return np.rint(np.minimum(worth, _LARGEST)).astype(np.int64)
