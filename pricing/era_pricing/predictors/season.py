"""What is expected on an ordinary day, learned from the record of the days past."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors.record import LEADS, Record
from era_pricing.timegrid import DAY

WEEK: Final = 7 * DAY

_POOLED = 0.05
"""Days of the mean over the whole day that are mixed into each time of day."""

SHAPE: Final = 4.0
"""Days of the pooled profile that are mixed into the profile of a day of the week."""

_DAMPING = 0.8
"""Share of a week's growth that is expected of the next week."""

_SIGNIFICANCE = 0.05

_WHOLE = 0.5
"""Share of the demand of a day that must have been seen for its total to count."""


@dataclass(frozen=True)
class Trend:
    """Demand relative to its mean over the history, a straight line that levels off.

    Attributes
    ----------
    level
        At the end of the history, `end`, UTC seconds.
    slope
        Growth per week until then.

    References
    ----------
    E. S. Gardner and E. McKenzie, "Forecasting Trends in Time Series", Management
    Science 31(10), 1985: a trend that is damped forecasts better further ahead.
    """

    level: float = 1.0
    slope: float = 0.0
    end: int = 0

    def at(self, t: IntArray) -> FloatArray:
        """Factor at the times `t`, between 1/3 and 3, of the shape of `t`."""
        ahead = (t - self.end) / WEEK
        later = -np.expm1(math.log(_DAMPING) * np.maximum(ahead, 0)) / -math.log(_DAMPING)
        return np.clip(self.level + self.slope * np.where(ahead < 0, ahead, later), 1 / 3, 3)

    @property
    def flat(self) -> bool:
        """Whether the factor is 1 at all times."""
        return self.slope == 0 and self.level == 1


@dataclass(frozen=True, eq=False)
class Season:
    """Expected demand in a cycle of s slots: a day, or a week that begins on a Thursday.

    Attributes
    ----------
    demand : FloatArray, shape (s, leads, levels)
        Units by class of lead time and class of price.
    prices : FloatArray, shape (levels,)
        Price of each class, micro-credits per unit per hour, ascending.
    trend : Trend
        What to multiply it by.
    seen : FloatArray, shape (slots of a day,)
        On how many days each slot was seen.
    between : FloatArray, shape (slots of a day,)
        Squared relative deviation of a day's demand, beyond that of independent
        requests.
    size : FloatArray, shape (slots of a day,)
        Mean units of a request in a slot, large ones counted by their units.
    weekdays : FloatArray, shape (7,), or None
        Demand on each day of the week, from Thursday on, relative to the mean; None
        if they are alike.
    """

    demand: FloatArray
    prices: FloatArray
    trend: Trend
    seen: FloatArray
    between: FloatArray
    size: FloatArray
    weekdays: FloatArray | None = None


def learn(record: Record, half_life: float, weekly: bool | None, trend: bool) -> Season:
    """The season of what is on record.

    Parameters
    ----------
    record
        Past demand.
    half_life
        Age in days at which a day counts half.
    weekly
        Whether days of the week differ; None to decide by an analysis of variance
        of the daily totals, given two whole weeks.
    trend
        Whether to look for growth.

    Notes
    -----
    Demand is pieces seen, divided by the share of the submissions that could have
    been seen (`Record.exposure`), so days that are only partly covered, the
    running one too, enter with what they tell.
    """
    days = record.days()
    exposure = record.exposure(days)
    first, prices = record.levels()
    end = record.end or 0
    weights = 0.5 ** (np.maximum(end / DAY - 1 - days, 0) / half_life)

    def total(chosen: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        """Units on the days chosen, and the days they stand for."""
        units = np.zeros((record.slots, len(LEADS), len(prices)))
        for day, weight in zip(days[chosen], weights[chosen], strict=True):
            units += weight * record.demand(int(day), first, len(prices))
        return units, np.tensordot(weights[chosen], exposure[chosen], 1)

    units, stands_for = total(np.ones(len(days), np.bool_))
    pooled = _pool(units, stands_for)
    totals = _Totals(record, days, weights, exposure, pooled)
    factors = totals.weekdays(weekly)
    growth = totals.trend(factors, end) if trend else Trend()
    demand = pooled
    if factors is not None:
        shapes = []
        for weekday in range(7):
            units, stands_for = total(days % 7 == weekday)
            usual = SHAPE * factors[weekday] * pooled
            shapes.append((units + usual) / (stands_for + SHAPE)[:, :, None])
        demand = np.concatenate(shapes)
    between, size = totals.deviation(factors)
    return Season(demand, prices, growth, exposure[:, :, 0].sum(axis=0), between, size, factors)


def _pool(units: FloatArray, stands_for: FloatArray) -> FloatArray:
    """Mean per day; times of day that were hardly seen lean on the others."""
    seen = stands_for.sum(axis=0)[:, None]
    mean = np.divide(units.sum(axis=0), seen, out=np.zeros(units.shape[1:]), where=seen > 0)
    pooled: FloatArray = (units + _POOLED * mean) / (stands_for + _POOLED)[:, :, None]
    return pooled


class _Totals:
    """The days most of which was seen, each as one number: seen over expected."""

    def __init__(
        self,
        record: Record,
        days: IntArray,
        weights: FloatArray,
        exposure: FloatArray,
        pooled: FloatArray,
    ) -> None:
        by_slot = pooled.sum(axis=2)
        expected = (exposure * by_slot).sum(axis=2)
        good = expected.sum(axis=1) >= _WHOLE * by_slot.sum()
        if not by_slot.any():
            good[:] = False
        self._days, self._weights = days[good], weights[good]
        self._expected = expected[good]
        self._seen = np.zeros(self._expected.shape)
        self._squares = np.zeros(self._expected.shape)
        first, prices = record.levels()
        for row, day in enumerate(self._days):
            self._seen[row] = record.demand(int(day), first, len(prices)).sum(axis=(1, 2))
            self._squares[row] = record.squares(int(day))
        self._ratio = self._seen.sum(axis=1) / self._expected.sum(axis=1)

    def weekdays(self, weekly: bool | None) -> FloatArray | None:
        """Factor for each day of the week, or None if they are taken to be alike.

        An analysis of variance: if the days of the week do not differ more than
        chance explains, they are alike. Otherwise each one's mean is shrunk towards
        the common one by the share of the variance that chance explains, as by
        James and Stein ("Estimation with Quadratic Loss", 1961).
        """
        weekday = self._days % 7
        counts = np.bincount(weekday, minlength=7)
        if weekly is False or (weekly is None and counts.min() < 2) or not self._ratio.any():
            return None
        mean = float(self._ratio.mean())
        sums = np.bincount(weekday, self._ratio, 7)
        means: FloatArray = np.divide(sums, counts, out=np.full(7, mean), where=counts > 0)
        relative = means / mean
        groups = int((counts > 0).sum()) - 1
        rest = len(weekday) - groups - 1
        if groups < 1 or rest < 1:
            return relative
        within = float(((self._ratio - means[weekday]) ** 2).sum()) / rest
        between = float((counts * (means - mean) ** 2).sum()) / groups
        if within <= 1e-12 * between:
            return relative
        statistic = between / max(within, 1e-12)
        if weekly is None and fdtrc(groups, rest, statistic) > _SIGNIFICANCE:
            return None
        keep = max(0.0, 1 - 1 / statistic) if statistic > 0 else 0.0
        factors: FloatArray = 1 + keep * (relative - 1)
        return factors

    def trend(self, factors: FloatArray | None, end: int) -> Trend:
        """Growth over the days, shrunk to nothing where it could be chance.

        With t the slope over its standard error, the share ``1 - 4 / t**2`` of it is
        kept if that is above 0. Needs two whole weeks. Days of the week on which
        nobody comes tell nothing.
        """
        usual = np.ones(len(self._days)) if factors is None else factors[self._days % 7]
        busy = usual > 0.05
        if len(self._days) < 14 or busy.sum() < 4:
            return Trend()
        ratio = self._ratio[busy] / usual[busy]
        weeks = (self._days[busy] + 0.5 - end / DAY) / 7
        centred = weeks - weeks.mean()
        spread = float((centred**2).sum())
        slope = float((centred * ratio).sum()) / spread
        rest = ratio - ratio.mean() - slope * centred
        error = float((rest**2).sum()) / (len(ratio) - 2) / spread
        if slope**2 <= 4 * error or abs(slope) < 1e-9:
            return Trend()
        slope *= 1 - 4 * error / slope**2
        # The pooled demand is that of the mean day, as the days were weighted.
        middle = float(np.average(weeks, weights=self._weights[busy]))
        return Trend(1 - slope * middle, slope, end)

    def deviation(self, factors: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """`Season.between` and `Season.size`."""
        slots = self._expected.shape[1]
        if not len(self._days):
            return np.full(slots, 0.25), np.ones(slots)
        usual = self._expected * (1 if factors is None else factors[self._days % 7][:, None])
        mean = usual.mean(axis=0)
        scale = np.maximum(mean, 1e-9 * max(float(mean.max()), 1e-300)) ** 2
        squares, seen = self._squares.sum(axis=0), self._seen.sum(axis=0)
        size = np.divide(squares, seen, out=np.ones(slots), where=seen > 0)
        chance = self._squares.mean(axis=0) / scale
        count = len(self._days)
        off = ((self._seen - usual) ** 2).sum(axis=0) / scale
        own = np.maximum(off - (count - 1) * chance, 0)  # `count - 1` times the variance
        common = own.mean() / max(count - 1, 1)
        # Four days' worth of the common variance; for a single day there is nothing else.
        return (own + 4 * common) / (count + 3), size
