"""Plans: what more GPUs are worth, where it can be said beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from era_pricing.simulator.planning import Plan, by_hour, plan
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.workers import open_workers
from tests.pricing.simulator.small import DAY, ECON, HOUR, demand, row, rows

# Three jobs want the only GPU in the same hour; another hour is quiet.
RUSH = rows(
    row(0, 8 * HOUR, 9 * HOUR, 1, HOUR, 8),
    row(0, 8 * HOUR, 9 * HOUR, 1, HOUR, 5),
    row(0, 8 * HOUR, 9 * HOUR, 1, HOUR, 1),
    row(0, 12 * HOUR, 13 * HOUR, 1, HOUR, 3),
)


def planned(*added: int, **more: object) -> Plan:
    with open_workers(1) as workers:
        return plan(Requests(RUSH), 1, added, 1800, workers, **more)  # type: ignore[arg-type]


def test_each_gpu_is_worth_the_best_job_that_was_turned_away() -> None:
    found = planned(1, 2, 3)
    assert [size.capacity for size in found.sizes] == [1, 2, 3, 4]
    assert [size.bound for size in found.sizes] == pytest.approx([11, 16, 17, 17], rel=1e-3)
    assert found.gains() == pytest.approx([0, 5, 1, 0], abs=0.02)
    assert found.requested_value == 17
    assert found.turned_away.sum() == pytest.approx(6, rel=1e-2)


def test_the_peak_is_found() -> None:
    start, end, worth = planned(1).peaks()[0]
    assert (start, end) == (8 * HOUR, 9 * HOUR)
    assert 5 - 0.1 <= worth <= 8 + 0.1


def test_larger_steps_share_the_gain() -> None:
    assert planned(2).gains() == pytest.approx([0, 3], rel=1e-2)


def test_a_mechanism_is_run_at_each_size() -> None:
    found = planned(1, mechanism=ECON)
    welfare = [size.summary.welfare for size in found.sizes if size.summary]
    assert len(welfare) == 2 and welfare[0] <= 11 + 1e-3
    assert found.as_dict()["sizes"][1]["run"]["welfare"] == welfare[1]


def test_more_is_never_worth_less() -> None:
    with open_workers(1) as workers:
        found = plan(Requests(demand(rows=200)), 4, [1, 3], 1800, workers, tolerance=1e-3)
    bounds = [size.bound for size in found.sizes]
    assert (np.diff(bounds) > 0).all()
    assert len(found.prices) == len(found.times) == len(found.turned_away)


def test_nothing_is_missing_where_there_is_enough() -> None:
    with open_workers(1) as workers:
        found = plan(Requests(RUSH), 9, [1], 1800, workers)
    assert found.turned_away.sum() == pytest.approx(0, abs=1e-6)
    assert found.gains()[1] == pytest.approx(0, abs=1e-3)


def test_the_week_begins_on_monday() -> None:
    monday = 1_704_067_200  # 2024-01-01
    times = monday + np.arange(0, 2 * DAY, 1800)
    week = by_hour(times, np.where(times < monday + HOUR, 4.0, 1.0))
    assert week[0, 0] == 4 and week[0, 1] == week[1, 23] == 1
    assert np.isnan(week[2:]).all()
