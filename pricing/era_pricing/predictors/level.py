"""By how much requests run ahead of what is expected of them, in number and in value."""

from __future__ import annotations

import math

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors.base import SeenRequest
from era_pricing.timegrid import DAY
from era_pricing.workload import Workload

STEP = 1800
"""Seconds between two comparisons."""

_KEPT = 0.5 ** (STEP / DAY)
"""Share of what was compared that still counts a step later: half of it after a day."""

_MOST = 3.0

_UNUSUAL = 3.0
"""Standard deviations up to which a difference is taken for chance."""

_FINENESS = 0.05
"""Steps in which the logarithm of the prices' level changes: tables depend on it."""


class Level:
    """Today's demand relative to the forecast.

    The number of requests and the mean logarithm of their value per unit and second are
    compared with those expected, the last day's the most. With z by how many standard
    deviations one of them is off, the share ``1 - 9 / z**2`` of the difference is
    believed, and nothing of it if that is below 0. For so much is compared in a week that
    two deviations are nothing unusual. So a forecast that holds is left alone, and a
    sudden change is followed within hours.

    Attributes
    ----------
    units, prices : float
        What to multiply the forecast by, between 1/3 and 3.
    """

    def __init__(self) -> None:
        self.units = 1.0
        self.prices = 1.0
        self._dispersion = math.inf
        self._variance = 0.0
        self._step = 0
        self._coming = self._dear = np.zeros(0)
        self._count = self._valued = self._logs = 0.0
        # Sums over the past, which fade: requests expected and seen, those with a value,
        # and by how much the logarithms of these were off.
        self._expected = self._seen = self._worth = self._off = 0.0

    def expect(
        self, requests: Workload, weights: FloatArray, start: int, dispersion: float
    ) -> None:
        """Take in what the forecast is from now on.

        Parameters
        ----------
        requests, weights
            Expected from `start` on.
        start
            UTC seconds.
        dispersion
            Variance of the number of requests over its mean; infinite if not known.
        """
        self._dispersion = dispersion
        self._step = start // STEP
        at: IntArray = requests.submitted // STEP - self._step
        worth = np.where(requests.value > 0, weights, 0.0)
        logs = np.log(np.maximum(requests.value, 1) / (requests.units * requests.duration))
        some = max(float(worth.sum()), 1e-9)
        mean = float(worth @ logs) / some
        self._variance = float(worth @ (logs - mean) ** 2) / some
        self._coming = np.bincount(at, weights).astype(np.float64, copy=False)
        valued, total = np.bincount(at, worth), np.bincount(at, worth * logs)
        self._dear = np.divide(total, valued, out=np.full(len(total), mean), where=valued > 0)

    def note(self, seen: SeenRequest) -> None:
        """Count a request; those of the steps before have been compared."""
        self._count += 1
        if seen.value > 0:
            self._valued += 1
            self._logs += math.log(seen.value / (seen.units * seen.duration))

    def advance(self, now: int) -> None:
        """Compare what was seen in the steps that have ended, if any has."""
        passed = now // STEP - self._step
        if passed <= 0:
            return
        coming, dear = self._coming[:passed], self._dear[:passed]
        faded = _KEPT ** (passed - 1 - np.arange(len(coming)))
        first, before = _KEPT ** (passed - 1), _KEPT**passed
        self._expected = before * self._expected + float(coming @ faded)
        self._seen = before * self._seen + first * self._count
        self._worth = before * self._worth + first * self._valued
        off = self._logs - self._valued * float(dear[0]) if len(dear) else 0.0
        self._off = before * self._off + first * off
        self._coming, self._dear = self._coming[passed:], self._dear[passed:]
        self._step += passed
        self._count = self._valued = self._logs = 0.0
        self._compare()

    def _compare(self) -> None:
        ahead = self._seen - self._expected
        self.units = self.prices = 1.0
        if not math.isfinite(self._dispersion) or self._expected <= 0:
            return
        kept = _believed(ahead**2, self._dispersion * self._expected)
        self.units = min(max(1 + kept * ahead / self._expected, 1 / _MOST), _MOST)
        if self._worth > 0:
            variance = self._dispersion * self._variance * self._worth
            mean = _believed(self._off**2, variance) * self._off / self._worth
            mean = min(max(mean, -math.log(_MOST)), math.log(_MOST))
            self.prices = math.exp(_FINENESS * round(mean / _FINENESS))


def _believed(square: float, variance: float) -> float:
    """Share of a difference that is not taken for chance."""
    return max(0.0, 1 - _UNUSUAL**2 * variance / square) if square > 0 else 0.0
