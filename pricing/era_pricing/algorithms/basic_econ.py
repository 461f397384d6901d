"""Algorithm 1 of the ERA paper: price what is promised against what will come."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from era_pricing.algorithms.base import Algorithm, Market
from era_pricing.arrays import FloatArray, IntArray, rounded_up

_LARGEST = float(2**62)


class BasicEcon(Algorithm):
    """Basic-Econ: each unit costs what the demand it displaces would have paid.

    For slot t, the price of the i-th unit is the highest one at which predicted
    demand, what is promised and i units together exceed the capacity; the cost of
    W units is the sum over i = 1, ..., W. Where there is a price ceiling, no unit
    costs more than that: the price of each is cut, not that of all of them, since
    otherwise two halves could be cheaper than the whole.

    References
    ----------
    M. Babaioff et al., "ERA: A Framework for Economic Resource Allocation for the
    Cloud", WWW'17 Companion, pp. 635-642, Algorithm 1.
    """

    name: ClassVar[str] = "basic-econ"

    def rates(self, units: int, market: Market) -> IntArray:
        """See `Algorithm.rates`; the sum over units is rounded up, so that splitting never pays."""
        return rounded_up(np.minimum(displaced(units, market), _LARGEST))


def displaced(units: int, market: Market) -> FloatArray:
    """What the predicted demand that `units` units displace in each slot would have paid.

    Returns
    -------
    FloatArray, shape (n,)
        Micro-credits per hour, each unit between floor and ceiling.
    """
    remaining = np.maximum(market.free, units)
    question = (market.times, market.now, remaining, units, market.price_floor)
    if market.price_ceiling is None:
        return market.predictor.cost(*question)
    return market.predictor.cost(*question, ceiling=market.price_ceiling)
