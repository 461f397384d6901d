"""What a drawn workload looks like: cycles, drift, windows, values, and how to draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.bids import MOST_VALUE
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import MOST_UNITS, Workload, WorkloadError

WEEK: Final = 7 * DAY
MONDAY: Final = 1_704_067_200
"""2024-01-01 00:00 UTC, a Monday: where drawn workloads begin."""

MICRO: Final = 1_000_000
_STEP: Final = 300  # seconds between the points at which the rate of submissions is computed


def _check(name: str, value: float, least: float, greatest: float = math.inf) -> None:
    """Refuse a number outside [least, greatest]; NaN is never inside, nor is infinity."""
    if not (least <= value <= greatest and math.isfinite(value)):
        limit = "" if math.isinf(greatest) else f" and at most {greatest:g}"
        raise WorkloadError(f"{name} must be at least {least:g}{limit}, got {value}")


@dataclass(frozen=True)
class Cycle:
    """How the rate of submissions swings around its mean.

    Parameters
    ----------
    daily
        Amplitude of a cosine over the day, 0 to 1: 0.5 means from 50 % to 150 %.
    peak_hour
        Hour of the day (UTC) at its top.
    weekly
        Share by which Saturday and Sunday lie below the mean, 0 to 1; the five
        other days lie above it by two fifths of that.
    """

    daily: float = 0.5
    peak_hour: float = 14.0
    weekly: float = 0.2

    def __post_init__(self) -> None:
        _check("the daily amplitude", self.daily, 0, 1)
        _check("the hour of the peak", self.peak_hour, 0, 24)
        _check("the weekly amplitude", self.weekly, 0, 1)

    def factor(self, time: IntArray) -> FloatArray:
        """Rate at `time` (UTC seconds) relative to the mean over whole weeks."""
        angle = (time % DAY / HOUR - self.peak_hour) * (math.pi / 12)
        weekend = (time // DAY + 3) % 7 >= 5  # 1970-01-01 was a Thursday
        week = np.where(weekend, 1 - self.weekly, 1 + 0.4 * self.weekly)
        return np.asarray((1 + self.daily * np.cos(angle)) * week, dtype=np.float64)


FLAT: Final = Cycle(daily=0, weekly=0)


@dataclass(frozen=True)
class Drift:
    """How load and values change in the long run; by default not at all.

    Parameters
    ----------
    load_trend, value_trend
        Change per week, relative to the beginning: 0.1 adds 10 % a week.
    shift_at
        Seconds from the beginning at which load and values jump.
    load_factor, value_factor
        What they are multiplied by from then on.
    """

    load_trend: float = 0.0
    value_trend: float = 0.0
    shift_at: int = 0
    load_factor: float = 1.0
    value_factor: float = 1.0

    def __post_init__(self) -> None:
        _check("the trend of the load", self.load_trend, -10)
        _check("the trend of the values", self.value_trend, -10)
        _check("the moment of the shift", self.shift_at, 0)
        _check("the load's factor", self.load_factor, 0)
        _check("the values' factor", self.value_factor, 0)

    def load(self, elapsed: IntArray) -> FloatArray:
        """Factor on the rate of submissions, `elapsed` seconds after the beginning."""
        return self._factor(elapsed, self.load_trend, self.load_factor)

    def value(self, elapsed: IntArray) -> FloatArray:
        """Factor on the values of what is submitted then."""
        return self._factor(elapsed, self.value_trend, self.value_factor)

    def _factor(self, elapsed: IntArray, trend: float, jump: float) -> FloatArray:
        straight = np.maximum(1 + trend * elapsed / WEEK, 0)
        return np.asarray(straight * np.where(elapsed >= self.shift_at, jump, 1.0))


@dataclass(frozen=True)
class Windows:
    """How long requests can wait, and how far ahead they are made.

    Parameters
    ----------
    tight
        Share of requests that must start the moment they arrive.
    hours
        Share that can wait up to `within_hours`; the rest can wait longer than
        that, up to `within_days`. Waits are uniform in their range.
    within_hours, within_days
        Seconds.
    ahead
        Share of requests made in advance: their window begins up to `lead`
        seconds (uniform) after the submission. The others' begins with it.
    lead
        Seconds.
    """

    tight: float = 0.3
    hours: float = 0.4
    within_hours: int = 6 * HOUR
    within_days: int = 2 * DAY
    ahead: float = 0.2
    lead: int = 2 * DAY

    def __post_init__(self) -> None:
        _check("the share of tight requests", self.tight, 0, 1)
        _check("the share of requests that wait for hours", self.hours, 0, 1)
        if self.tight + self.hours > 1 + 1e-9:
            raise WorkloadError(
                "the shares of tight requests and of those that wait for hours must add up to "
                f"at most 1, got {self.tight:g} + {self.hours:g}"
            )
        _check("the wait of hours", self.within_hours, 1)
        _check("the wait of days", self.within_days, self.within_hours)
        _check("the share made in advance", self.ahead, 0, 1)
        _check("the lead", self.lead, 0)


@dataclass(frozen=True)
class Values:
    """What requests are worth to their bidders.

    Parameters
    ----------
    median
        Credits per unit and hour.
    sigma
        Standard deviation of its logarithm; 0: all alike.
    size_exponent
        Value per unit-hour grows with the request's unit-hours to this power,
        relative to the median request: 0 no relation, -0.3 small ones are worth
        more per unit-hour.
    urgency
        Factor on the value of tight requests.
    """

    median: float = 1.0
    sigma: float = 0.8
    size_exponent: float = 0.0
    urgency: float = 1.0

    def __post_init__(self) -> None:
        _check("the median value", self.median, 0)
        _check("the values' sigma", self.sigma, 0, 10)
        _check("the exponent of size", self.size_exponent, -10, 10)
        _check("the factor of urgency", self.urgency, 0)


@dataclass(frozen=True)
class Scenario:
    """Everything the generators share.

    Parameters
    ----------
    start
        UTC seconds of the beginning.
    span
        Seconds over which requests are submitted.
    capacity
        Units of the cluster that `load` is relative to.
    load
        Unit-seconds asked for over what the cluster has in the span; more than 1
        is more than fits. Drift comes on top.
    cycle, drift, windows, values
        See there.
    burst
        Mean number of requests submitted at the same moment (geometric).
    align
        Seconds: arrivals and durations are rounded up to multiples, waits to the
        nearest multiple. None: to the second. Without alignment a tight request
        seldom fits into whole slots.
    longest
        Longer durations are cut to this, seconds; None: never.
    most_units
        Larger requests are cut to this; None: to `capacity`.
    """

    start: int = MONDAY
    span: int = WEEK
    capacity: int = 64
    load: float = 2.0
    cycle: Cycle = field(default_factory=Cycle)
    drift: Drift = field(default_factory=Drift)
    windows: Windows = field(default_factory=Windows)
    values: Values = field(default_factory=Values)
    burst: float = 1.0
    align: int | None = 30 * 60
    longest: int | None = None
    most_units: int | None = None

    def __post_init__(self) -> None:
        _check("the beginning", self.start, 0)
        _check("the span", self.span, 1)
        _check("the capacity", self.capacity, 1, MOST_UNITS)
        _check("the load", self.load, 0)
        _check("the mean burst", self.burst, 1)
        for name, limit in (
            ("the alignment", self.align),
            ("the longest duration", self.longest),
            ("the greatest number of units", self.most_units),
        ):
            if limit is not None:
                _check(name, limit, 1)

    def fit(self, units: IntArray, duration: FloatArray | IntArray) -> tuple[IntArray, IntArray]:
        """Units and durations after cutting and alignment; durations are 1 second or more."""
        most = self.capacity if self.most_units is None else self.most_units
        seconds = np.maximum(np.rint(duration).astype(np.int64), 1)
        if self.longest is not None:
            seconds = np.minimum(seconds, self.longest)
        return np.minimum(units, most), round_up(seconds, self.align)


def round_up(seconds: IntArray, align: int | None) -> IntArray:
    """`seconds` rounded up to multiples of `align` (None: as they are)."""
    if align is None:
        return seconds
    return np.asarray(-(-seconds // align) * align, dtype=np.int64)


def submissions(
    rng: np.random.Generator, scenario: Scenario, count: int | None, rate: float = 0.0
) -> IntArray:
    """Times of submission within the span, sorted.

    Parameters
    ----------
    rng
        Source of randomness.
    scenario
        Gives span, cycle, drift and burst.
    count
        How many; None: a Poisson process of mean `rate`.
    rate
        Requests per second before drift.

    Returns
    -------
    IntArray, shape (count,)
        UTC seconds.
    """
    edges = np.append(np.arange(0, scenario.span, _STEP, dtype=np.int64), scenario.span)
    middles = (edges[:-1] + edges[1:]) // 2
    density = scenario.cycle.factor(scenario.start + middles) * scenario.drift.load(middles)
    mass = np.concatenate(([0.0], np.cumsum(density * np.diff(edges))))
    if mass[-1] <= 0:
        return np.zeros(0, dtype=np.int64)
    if count is None:
        moments = int(rng.poisson(rate * mass[-1] / scenario.burst))
    else:
        moments = math.ceil(count / scenario.burst)
    times = np.interp(rng.random(moments) * mass[-1], mass, edges).astype(np.int64)
    times = np.minimum(times, scenario.span - 1) + scenario.start
    if scenario.burst > 1:
        times = np.repeat(times, rng.geometric(1 / scenario.burst, moments))
        if count is not None:
            times = rng.choice(times, count, replace=len(times) < count) if count else times[:0]
    return np.sort(times)


def complete(
    rng: np.random.Generator,
    scenario: Scenario,
    submitted: IntArray,
    units: IntArray,
    duration: IntArray,
    *,
    classes: Sequence[str] | None = None,
    base: FloatArray | None = None,
) -> Workload:
    """Jobs with drawn windows and values, as a workload sorted by submission.

    Parameters
    ----------
    rng
        Source of randomness; waits, leads and values each have a stream of their
        own, so that changing one of them leaves the others as they were.
    scenario
        Gives windows, values, drift and alignment.
    submitted, units, duration : IntArray, shape (m,)
        As `Scenario.fit` leaves them.
    classes
        Labels; None: "tight", "hours" or "days", after how long it can wait.
    base : FloatArray, shape (m,), optional
        Median value per unit-hour of each, in credits, instead of the scenario's.

    Returns
    -------
    Workload
        Values are drawn per unit-hour reserved, after alignment, and are at least
        one micro-credit.
    """
    waits, leads, worth = rng.spawn(3)
    kind, slack = _waits(waits, scenario, len(submitted))
    arrival = round_up(submitted + _leads(leads, scenario, len(submitted)), scenario.align)
    unit_hours = units * (duration / HOUR)
    values = scenario.values
    rate = np.full(len(submitted), values.median) if base is None else base
    rate = rate * np.exp(values.sigma * worth.standard_normal(len(submitted)))
    if len(submitted):
        rate = rate * (unit_hours / np.median(unit_hours)) ** values.size_exponent
    rate = rate * np.where(kind == 0, values.urgency, 1.0)
    rate = rate * scenario.drift.value(submitted - scenario.start)
    micro = np.clip(np.rint(rate * unit_hours * MICRO), 1, MOST_VALUE).astype(np.int64)
    labels = np.array(["tight", "hours", "days"])[kind] if classes is None else classes
    return Workload(
        submitted,
        arrival,
        arrival + duration + slack,
        units,
        duration,
        micro,
        classes=tuple(map(str, labels)),
    ).sorted()


def _waits(rng: np.random.Generator, scenario: Scenario, count: int) -> tuple[IntArray, IntArray]:
    """Kind (0 tight, 1 hours, 2 days) and seconds each can wait."""
    windows = scenario.windows
    which = rng.random(count)
    kind = (which >= windows.tight).astype(np.int64)
    kind += which >= windows.tight + windows.hours
    within = rng.random(count)
    low = np.array([0, 0, windows.within_hours])[kind]
    high = np.array([0, windows.within_hours, windows.within_days])[kind]
    slack = low + within * (high - low)
    step = scenario.align or 1
    return kind, np.rint(slack / step).astype(np.int64) * step


def _leads(rng: np.random.Generator, scenario: Scenario, count: int) -> IntArray:
    early = rng.random(count) < scenario.windows.ahead
    lead = rng.random(count) * scenario.windows.lead
    return np.where(early, lead, 0).astype(np.int64)
