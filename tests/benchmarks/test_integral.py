"""The benchmark of whole jobs: its starts, schedules and bounds on problems of known optimum."""

from __future__ import annotations

import numpy as np
from click.testing import CliRunner

from benchmarks import integral
from era_pricing.workload import Workload

SLOT = integral.SLOT


def jobs(*rows: tuple[int, int, int, int, float]) -> Workload:
    """From arrival, deadline and duration in slots, units, and value in credits."""
    arrival, deadline, duration, units, value = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    times = (each * SLOT for each in (arrival, arrival, deadline))
    return Workload(*times, units, duration * SLOT, (value * 1e6).astype(np.int64))


def test_starts_are_the_slots_from_which_a_request_ends_in_time() -> None:
    starts = integral.all_starts(jobs((0, 4, 2, 1, 1), (1, 3, 2, 1, 1)), 0, 4)
    assert list(zip(starts.request.tolist(), starts.slot.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 1),
    ]


def test_a_schedule_never_exceeds_the_capacity_and_serves_nobody_twice() -> None:
    random = np.random.default_rng(5)
    rows = []
    for _ in range(60):
        arrival, duration = int(random.integers(0, 20)), int(random.integers(1, 6))
        deadline = arrival + duration + int(random.integers(0, 8))
        rows.append(
            (arrival, deadline, duration, int(random.integers(1, 5)), float(random.random()))
        )
    starts = integral.all_starts(jobs(*rows), 0, 40)
    prices = np.zeros(40)
    order = np.arange(60)
    total, chosen = integral.schedule(starts, 6, order, prices)
    request, slot = starts.request[chosen], starts.slot[chosen]
    assert len(set(request.tolist())) == len(request) < 60
    used = np.zeros(40, dtype=np.int64)
    for each, first in zip(request.tolist(), slot.tolist(), strict=True):
        used[first : first + starts.length[each]] += starts.units[each]
    assert used.max() <= 6
    assert np.isclose(total, starts.value[request].sum())
    found, most = integral.best_schedule(starts, 6, 30)
    assert total <= found <= most * (1 + 1e-6)


def test_what_does_not_fit_as_a_whole_is_lost_to_whole_jobs_alone() -> None:
    # Two jobs that need two of the three units: in part, half of the other can be served.
    both = jobs((0, 1, 1, 2, 10), (0, 1, 1, 2, 8))
    row = integral.whole("two", 1, both, 3, 30)
    assert np.isclose(row.bound, 14, rtol=2e-3)
    assert np.isclose(row.found * row.bound, 10)
    assert np.isclose(row.most * row.bound, 10, rtol=1e-3)
    assert row.rounded <= row.found


def test_a_quick_run_prints_a_row_for_each_shape() -> None:
    done = CliRunner().invoke(
        integral.main, ["--shapes", "large,tight", "--days", "1", "--limit", "3"]
    )
    assert done.exit_code == 0, done.output
    for name in ("large", "tight"):
        assert name in done.output


def test_an_unknown_shape_is_refused() -> None:
    done = CliRunner().invoke(integral.main, ["--shapes", "round"])
    assert done.exit_code == 2
    assert "'round' is none of" in done.output
