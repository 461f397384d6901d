"""From a prior to history, as history comes in."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors.base import Forecast, Predictor, SeenRequest
from era_pricing.predictors.history import History
from era_pricing.workload import Workload


class Blend(Predictor):
    """A mean of two predictors that moves from the first to the second.

    In a slot whose time of day has been seen on n days, what was learned has the
    weight ``n / (2 * half_life)``, at most 1. So the hours already seen are learned
    first, and a prior that is far off has no influence in the end. Prices and costs
    are averaged, not demands; so they stay monotone and additive as those of the two
    are.

    Parameters
    ----------
    prior
        What is assumed at first.
    learned
        What learns, for example ``LP.from_nothing(capacity, slot)``, or one with a
        short history.
    half_life
        Days after which both count the same; after twice as many the prior is
        left out.

    Raises
    ------
    ValueError
        If `half_life` is not a positive number.
    """

    name: ClassVar[str] = "blend"

    def __init__(self, prior: Predictor, learned: History, half_life: float = 1) -> None:
        if not (math.isfinite(half_life) and half_life > 0):
            raise ValueError(f"half_life must be a positive number of days, got {half_life!r}")
        self.prior = prior
        self.learned = learned
        self._half_life = float(half_life)

    def weight(self, t: IntArray) -> FloatArray:
        """Weight of what was learned, 0 to 1, of the shape of `t`."""
        return np.minimum(self.learned.days_seen(t) / (2 * self._half_life), 1)

    def price(self, t: IntArray, now: int, quantity: FloatArray | IntArray) -> FloatArray:
        """See `Predictor.price`."""
        return self.price_if(t, now, quantity, 1.0)

    def price_if(
        self, t: IntArray, now: int, quantity: FloatArray | IntArray, factor: FloatArray | float
    ) -> FloatArray:
        """See `Predictor.price_if`."""
        prior = np.maximum(self.prior.price_if(t, now, quantity, factor), 0)
        learned = self.learned.price_if(t, now, quantity, factor)
        weight, none = self.weight(t), np.less(quantity, 0)
        mean = _mean(weight, np.where(none, 0, prior), np.where(none, 0, learned))
        price: FloatArray = np.where(none, np.inf, mean)
        return price

    def cost(
        self,
        t: IntArray,
        now: int,
        remaining: IntArray,
        units: int,
        floor: int,
        ceiling: int | None = None,
    ) -> FloatArray:
        """See `Predictor.cost`."""
        limits = {} if ceiling is None else {"ceiling": ceiling}
        prior = self.prior.cost(t, now, remaining, units, floor, **limits)
        learned = self.learned.cost(t, now, remaining, units, floor, **limits)
        return _mean(self.weight(t), prior, learned)

    def uncertainty(self, t: IntArray, now: int, quantity: FloatArray | IntArray) -> FloatArray:
        """See `Predictor.uncertainty`."""
        prior = self.prior.uncertainty(t, now, quantity)
        return _mean(self.weight(t), prior, self.learned.uncertainty(t, now, quantity))

    def forecast(
        self,
        t: IntArray,
        now: int,
        quantity: FloatArray | IntArray,
        floor: int = 0,
        ceiling: int | None = None,
        low: float = 0.1,
        high: float = 0.9,
    ) -> Forecast:
        """See `Predictor.forecast`: the mean of the two, also of the ends of the band."""
        a = self.prior.forecast(t, now, quantity, floor, ceiling, low, high)
        b = self.learned.forecast(t, now, quantity, floor, ceiling, low, high)
        weight = self.weight(t)
        return Forecast(
            _mean(weight, a.expected, b.expected),
            _mean(weight, a.low, b.low),
            _mean(weight, a.high, b.high),
        )

    def begin(self, now: int) -> None:
        """See `Predictor.begin`; for both."""
        self.prior.begin(now)
        self.learned.begin(now)

    def observe(self, seen: SeenRequest) -> None:
        """See `Predictor.observe`; both hear of it."""
        self.prior.observe(seen)
        self.learned.observe(seen)

    def expected(self, now: int, until: int) -> tuple[Workload, FloatArray]:
        """See `Predictor.expected`: those of both, by the weight of their arrival."""
        a, some = self.prior.expected(now, until)
        b, others = self.learned.expected(now, until)
        some, others = some * (1 - self.weight(a.arrival)), others * self.weight(b.arrival)
        weights = np.concatenate((some, others))
        chosen = weights > 0
        return Workload.concatenate([a, b]).select(chosen), weights[chosen]


def _mean(weight: FloatArray, prior: FloatArray, learned: FloatArray) -> FloatArray:
    mean: FloatArray = (1 - weight) * prior + weight * learned
    return mean
