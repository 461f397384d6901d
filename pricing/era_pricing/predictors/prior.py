"""Demand from a known distribution, for a pool without history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors.base import Predictor
from era_pricing.timegrid import HOUR


class Prior(Predictor):
    """Linear demand: at price p, the share 1 - p / max_price of it remains.

    Parameters
    ----------
    max_price
        Price at which nobody buys, micro-credits per unit per hour.
    peak_demand
        Units that would be taken for nothing in the busiest hour of the day.
    profile
        24 relative weights, one for each UTC hour; flat if None. Only their
        ratios count: the largest stands for `peak_demand`.
    lead_time
        Seconds by which bids come ahead of what they ask for, on average, as an
        exponential distribution: of the demand for time t, the share
        ``1 - exp(-(t - now) / lead_time)`` is still to come. With 0, all of it is.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    name: ClassVar[str] = "prior"

    def __init__(
        self,
        max_price: int,
        peak_demand: float,
        profile: Sequence[float] | None = None,
        lead_time: float = 0,
    ) -> None:
        if not (math.isfinite(max_price) and max_price > 0):
            raise ValueError(f"max_price must be a positive number, got {max_price!r}")
        if not (math.isfinite(peak_demand) and peak_demand >= 0):
            raise ValueError(f"peak_demand must be 0 or more units, got {peak_demand!r}")
        if not (math.isfinite(lead_time) and lead_time >= 0):
            raise ValueError(f"lead_time must be 0 or more seconds, got {lead_time!r}")
        weights = np.ones(24) if profile is None else np.asarray(profile, dtype=np.float64)
        if weights.shape != (24,) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError("profile must have 24 weights, one for each UTC hour, 0 or more")
        if not weights.any():
            raise ValueError("profile must have at least one weight above 0")
        self._max_price = float(max_price)
        self._hourly: FloatArray = weights * (peak_demand / weights.max())
        self._lead_time = float(lead_time)

    def demand(self, t: IntArray, now: int) -> FloatArray:
        """Units at price zero that are still to be asked for, of the shape of `t`."""
        demand: FloatArray = self._hourly[(t // HOUR) % 24]
        if self._lead_time:
            demand = demand * -np.expm1(-np.maximum(t - now, 0) / self._lead_time)
        return demand

    def price(self, t: IntArray, now: int, quantity: FloatArray | IntArray) -> FloatArray:
        """See `Predictor.price`; zero where no demand is left, however few the units."""
        demand, quantity = np.broadcast_arrays(self.demand(t, now), quantity)
        share = np.ones(demand.shape)
        with np.errstate(over="ignore"):  # next to no demand: -inf, which stands for the floor
            np.divide(quantity, demand, out=share, where=demand > 0)
            price = np.where(demand > 0, self._max_price * (1 - share), 0.0)
        return np.where(quantity < 0, np.inf, price)

    def cost(
        self, t: IntArray, now: int, remaining: IntArray, units: int, floor: int
    ) -> FloatArray:
        """See `Predictor.cost`; an arithmetic series once the floor is passed.

        The i-th unit leaves the quantity remaining - i behind, so its price rises
        with i: the first ones cost the floor, the others lie on a straight line
        and cost their number times their mean.
        """
        demand = self.demand(t, now)
        above_floor = demand * max(0.0, 1 - floor / self._max_price)
        at_floor = np.clip(np.ceil(remaining - above_floor) - 1, 0, units)
        at_floor[above_floor <= 0] = units
        above = units - at_floor
        # Quantities left by the others: from remaining - units to remaining - at_floor - 1.
        mean = remaining - (units + at_floor + 1) / 2
        share = np.zeros(demand.shape)
        np.divide(mean, demand, out=share, where=above > 0)
        total: FloatArray = at_floor * floor + above * (self._max_price * (1 - share))
        return total
