"""Demand from a known distribution, for a pool without history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.bids import MOST_VALUE
from era_pricing.predictors.base import Predictor
from era_pricing.timegrid import HOUR
from era_pricing.workload import Workload

_LEVELS = 16
"""Prices at which `Prior.expected` cuts the demand curve."""

_LEADS = 4
"""Lead times at which it cuts the submissions."""


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
    uncertainty
        Standard deviation of the demand as a share of what is expected; only the
        band of `forecast` depends on it.

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
        uncertainty: float = 0.3,
    ) -> None:
        if not (math.isfinite(max_price) and max_price > 0):
            raise ValueError(f"max_price must be a positive number, got {max_price!r}")
        if not (math.isfinite(peak_demand) and peak_demand >= 0):
            raise ValueError(f"peak_demand must be 0 or more units, got {peak_demand!r}")
        if not (math.isfinite(lead_time) and lead_time >= 0):
            raise ValueError(f"lead_time must be 0 or more seconds, got {lead_time!r}")
        if not (math.isfinite(uncertainty) and uncertainty >= 0):
            raise ValueError(f"uncertainty must be a share of 0 or more, got {uncertainty!r}")
        weights = np.ones(24) if profile is None else np.asarray(profile, dtype=np.float64)
        if weights.shape != (24,) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError("profile must have 24 weights, one for each UTC hour, 0 or more")
        if not weights.any():
            raise ValueError("profile must have at least one weight above 0")
        self._max_price = float(max_price)
        self._hourly: FloatArray = weights * (peak_demand / weights.max())
        self._lead_time = float(lead_time)
        self._uncertainty = float(uncertainty)

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
        self,
        t: IntArray,
        now: int,
        remaining: IntArray,
        units: int,
        floor: int,
        ceiling: int | None = None,
    ) -> FloatArray:
        """See `Predictor.cost`; an arithmetic series between floor and ceiling.

        The i-th unit leaves the quantity remaining - i behind, so its price rises
        with i: the first ones cost the floor, the last ones the ceiling, and those
        between lie on a straight line and cost their number times their mean.
        """
        demand = self.demand(t, now)
        above_floor = demand * max(0.0, 1 - floor / self._max_price)
        at_floor = np.clip(np.ceil(remaining - above_floor) - 1, 0, units)
        at_floor[above_floor <= 0] = units
        below_ceiling = np.full(demand.shape, float(units))
        if ceiling is not None:
            above_ceiling = demand * max(0.0, 1 - ceiling / self._max_price)
            below_ceiling = np.clip(np.ceil(remaining - above_ceiling) - 1, at_floor, units)
            below_ceiling[above_ceiling <= 0] = units
        between = below_ceiling - at_floor
        # They leave from remaining - below_ceiling to remaining - at_floor - 1 behind.
        mean = remaining - (below_ceiling + at_floor + 1) / 2
        share = np.zeros(demand.shape)
        np.divide(mean, demand, out=share, where=between > 0)
        total: FloatArray = at_floor * floor + between * (self._max_price * (1 - share))
        total += (units - below_ceiling) * (ceiling or 0)
        return total

    def uncertainty(self, t: IntArray, now: int, quantity: FloatArray | IntArray) -> FloatArray:
        """See `Predictor.uncertainty`; the same everywhere."""
        return super().uncertainty(t, now, quantity) + self._uncertainty

    def expected(self, now: int, until: int) -> tuple[Workload, FloatArray]:
        """See `Predictor.expected`: the linear demand cut into requests.

        For each hour 16 requests for one unit in just that hour, whose values are
        evenly spaced from 0 to `max_price`, each submitted at the middle of one of 4
        equally likely ranges of the lead time. What would have been submitted before
        now is left out.
        """
        leads = np.zeros(1)
        if self._lead_time:
            leads = -self._lead_time * np.log1p(-(np.arange(_LEADS) + 0.5) / _LEADS)
        first, end = -(-now // HOUR), (until + int(leads[-1])) // HOUR + 1
        hour, lead, level = (
            grid.ravel()
            for grid in np.meshgrid(
                np.arange(first, max(first, end), dtype=np.int64),
                leads.astype(np.int64),
                np.arange(_LEVELS),
                indexing="ij",
            )
        )
        weights = self._hourly[hour % 24] / (len(leads) * _LEVELS)
        submitted = hour * HOUR - lead
        chosen = (submitted >= now) & (submitted < until) & (weights > 0)
        arrival = hour[chosen] * HOUR
        one = np.ones(len(arrival), dtype=np.int64)
        worth = self._max_price * (level[chosen] + 0.5) / _LEVELS
        value = np.minimum(np.rint(worth), MOST_VALUE).astype(np.int64)
        requests = Workload(submitted[chosen], arrival, arrival + HOUR, one, HOUR * one, value)
        return requests, weights[chosen]
