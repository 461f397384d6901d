"""Histories to learn from, small enough to know what should come out."""

from __future__ import annotations

import numpy as np

from era_pricing.workload import Workload

HOUR, DAY = 3600, 86_400
CREDIT = 1_000_000
MONDAY = 1_800_230_400  # 2027-01-18 00:00 UTC


def requests(rows) -> Workload:
    """From tuples: submitted, arrival, deadline (hours from MONDAY), units, hours, rate.

    The rate is what a unit is worth per hour, in credits.
    """
    columns = np.array(list(rows), dtype=float).reshape(-1, 6).T
    submitted, arrival, deadline, units, hours, rate = columns
    return Workload(
        MONDAY + np.rint(submitted * HOUR),
        MONDAY + np.rint(arrival * HOUR),
        MONDAY + np.rint(deadline * HOUR),
        units,
        np.rint(hours * HOUR),
        np.rint(rate * CREDIT * units * hours),
    )


def every_day(days, hour=10, units=3, hours=1, rate=2, lead=0, slack=0) -> Workload:
    """One request on each of the days given, submitted `lead` hours ahead."""
    return requests(
        (
            day * 24 + hour - lead,
            day * 24 + hour,
            day * 24 + hour + hours + slack,
            units,
            hours,
            rate,
        )
        for day in days
    )


def at(day, hour) -> np.ndarray:
    """A time, or several."""
    return MONDAY + np.rint(np.asarray(day) * DAY + np.asarray(hour) * HOUR).astype(np.int64)


def crowd(seed, days=14, each_day=60, weekend=1.0, growth=0.0) -> Workload:
    """Poisson arrivals with a busy afternoon, lognormal values, and mixed slack."""
    random = np.random.default_rng(seed)
    submitted = []
    for day in range(days):
        level = each_day * max(1 + growth * day / 7, 0) * (weekend if day % 7 >= 5 else 1)
        hours = random.triangular(0, 15, 24, random.poisson(level))
        submitted += [day * 24 + hour for hour in np.sort(hours)]
    count = len(submitted)
    hours = np.clip(random.lognormal(0.5, 0.8, count), 0.2, 24)
    start = np.array(submitted) + random.choice([0, 0, 3], count)
    rows = zip(
        submitted,
        start,
        start + hours * random.choice([1.1, 2, 5], count) + 0.01,
        random.choice([1, 2, 4, 8], count),
        hours,
        random.lognormal(0, 0.7, count),
        strict=True,
    )
    return requests(rows)
