"""Small demand and mechanisms for the tests of the simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from era_pricing.simulator.formats import write_workload
from era_pricing.simulator.mechanism import Mechanism
from era_pricing.workload import Workload

HOUR = 3600
DAY = 24 * HOUR
CREDIT = 1_000_000

GREEDY = Mechanism("first-fit", "prior")
ECON = Mechanism("basic-econ", "prior")


def demand(seed: int = 0, rows: int = 120, days: float = 2, begin: int = 0) -> Workload:
    """Random requests for 1 to 4 units, with some slack, partly made in advance."""
    rng = np.random.default_rng(seed)
    submitted = np.sort(rng.integers(0, int(days * DAY), rows)) + begin
    duration = rng.integers(600, 5 * HOUR, rows)
    arrival = submitted + rng.integers(0, 4 * HOUR, rows) * (rng.random(rows) < 0.4)
    deadline = arrival + duration + rng.integers(1800, 9 * HOUR, rows)
    units = rng.integers(1, 5, rows)
    value = units * duration * rng.lognormal(0, 1, rows) / HOUR * CREDIT
    return Workload(submitted, arrival, deadline, units, duration, value.astype(np.int64))


def row(
    submitted: int, arrival: int, deadline: int, units: int, duration: int, credits: float
) -> Workload:
    """A single request."""
    columns = ([submitted], [arrival], [deadline], [units], [duration], [int(credits * CREDIT)])
    return Workload(*(np.array(column) for column in columns))


def rows(*requests: Workload) -> Workload:
    """Several requests."""
    return Workload.concatenate(requests)


def write(workload: Workload, path: Path) -> str:
    """The name of a CSV file with a workload."""
    write_workload(workload, path)
    return str(path)
