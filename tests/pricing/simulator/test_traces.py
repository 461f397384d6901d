"""Traces: what is read, what is skipped, and how jobs become requests."""

from __future__ import annotations

import gzip
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner

from era_pricing.simulator.commands.generate import generate
from era_pricing.simulator.formats import read_workload
from era_pricing.simulator.generate import Quantiles, mean_load, philly_like
from era_pricing.simulator.scenario import MONDAY, WEEK, Cycle, Drift, Scenario, Values
from era_pricing.simulator.traces import Jobs, from_trace, measure, read_trace
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import WorkloadError

PHILLY = """timestamp,duration,num_gpus,gpu_time,cluster
2017-10-03 12:00:00,7200.0,8,57600.0,aa
2017-10-02 00:00:30,59.5,1,59.5,bb
2017-10-04 00:00:00,0.0,1,0.0,bb
2017-10-05 00:00:00,10.0,0,0.0,bb
"""
SWF = """; Version: 2.2
; UnixStartTime: 1000000
;
 1 10 5 3600 4 -1 -1 8 7200 -1 1 3 1 2 7 1 -1 -1
 2 20 5 -1 -1 -1 -1 8 7200 -1 1 3 1 2 -1 1 -1 -1
 3 30 5 0 4 -1 -1 4 7200 -1 0 3 1 2 7 1 -1 -1
 4 40 5 60 -1 -1 -1 -1 7200 -1 1 3 1 2 7 1 -1 -1
 5 0 5 60.5 1 -1 -1 1 7200 -1 1 3 1 2 7 1 -1 -1
"""


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def table(jobs: Jobs) -> list[tuple[object, ...]]:
    columns = (jobs.submitted.tolist(), jobs.units.tolist(), jobs.duration.tolist(), jobs.classes)
    return list(zip(*columns, strict=True))


@pytest.fixture
def trace() -> Jobs:
    """Two weeks of jobs, one every ten minutes, of 1 to 8 units and up to 8 hours."""
    rng = np.random.default_rng(0)
    submitted = MONDAY + np.arange(0, 2 * WEEK, 600)
    count = len(submitted)
    return Jobs(
        submitted,
        2 ** rng.integers(0, 4, count),
        rng.integers(60, 8 * HOUR, count),
        tuple(f"vc{k}" for k in range(count)),
    )


SCENARIO = Scenario(span=WEEK, capacity=64, align=None)


def test_philly(tmp_path):
    (tmp_path / "philly.csv").write_text(PHILLY)
    (tmp_path / "philly.csv.gz").write_bytes(gzip.compress(PHILLY.encode()))
    for name in ("philly.csv", "philly.csv.gz"):
        jobs = read_trace(tmp_path / name)
        assert table(jobs) == [
            (at("2017-10-02T00:00:30"), 1, 60, "bb"),
            (at("2017-10-03T12:00:00"), 8, 7200, "aa"),
        ]
        assert jobs.skipped == 2


def test_swf(tmp_path):
    (tmp_path / "trace.swf").write_text(SWF)
    (tmp_path / "trace.swf.gz").write_bytes(gzip.compress(SWF.encode()))
    for name in ("trace.swf", "trace.swf.gz"):
        jobs = read_trace(tmp_path / name)
        assert table(jobs) == [
            (1_000_000, 1, 61, "queue 7"),
            (1_000_010, 4, 3600, "queue 7"),
            (1_000_020, 8, 7200, ""),  # asked for, as what it had isn't known
        ]
        assert jobs.skipped == 2


def test_swf_without_a_start_begins_in_2024(tmp_path):
    (tmp_path / "t.swf").write_text("1 10 5 3600 4 -1 -1 8 7200\n")
    assert table(read_trace(tmp_path / "t.swf")) == [(MONDAY + 10, 4, 3600, "")]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.swf", "; x\n\n1 2 3 four 5 6 7 8 9\n", "line 3: must be the 18 numbers .* '1 2 3 four"),
        ("t.swf", "1 2 3\n", "line 1: must be the 18 numbers"),
        ("t.swf", "1 nan 3 4 5 6 7 8 9\n", "line 1: must be the 18 numbers"),
        ("t.csv", PHILLY.replace("num_gpus", "gpus"), "line 1: column `num_gpus` is missing"),
        ("t.csv", PHILLY.replace("7200.0", "long"), "line 2, column duration: .* got 'long'"),
        ("t.csv", PHILLY.replace("59.5,1", "inf,1"), "line 3, column duration: .* got 'inf'"),
        ("t.csv", PHILLY + "yesterday,1,1,1,x\n", "line 6, column timestamp: .* got 'yesterday'"),
        ("t.csv", PHILLY + "2017-10-03 12:00:00,1\n", "line 6, column num_gpus: .* got None"),
        ("t.csv", "", "line 1: column `timestamp` is missing"),
    ],
)
def test_bad_traces(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(WorkloadError, match=f"{name}, {says}"):
        read_trace(tmp_path / name)


def test_jobs_keep_their_times_sizes_and_classes(trace):
    workload = from_trace(trace, 1, SCENARIO)
    used = trace.submitted < MONDAY + WEEK
    assert np.array_equal(workload.submitted, trace.submitted[used])
    assert np.array_equal(workload.units, trace.units[used])
    assert np.array_equal(workload.duration, trace.duration[used])
    assert workload.classes == trace.classes[: used.sum()]


def test_only_what_is_drawn_depends_on_the_seed(trace):
    one, again, other = (from_trace(trace, seed, SCENARIO) for seed in (1, 1, 2))
    assert np.array_equal(one.value, again.value)
    assert np.array_equal(one.deadline, again.deadline)
    assert not np.array_equal(one.value, other.value)
    assert not np.array_equal(one.deadline, other.deadline)
    assert np.array_equal(one.duration, other.duration)


def test_a_part_of_the_trace(trace):
    workload = from_trace(trace, 1, replace(SCENARIO, start=MONDAY + 3 * DAY, span=DAY))
    assert len(workload) == 144
    assert workload.submitted.min() == MONDAY + 3 * DAY
    with pytest.raises(
        WorkloadError,
        match="no job between 2024-02-05 and 2024-02-12; it has 2016 from 2024-01-01 to 2024-01-14",
    ):
        from_trace(trace, 1, replace(SCENARIO, start=MONDAY + 5 * WEEK))
    with pytest.raises(WorkloadError, match="it has 0$"):
        from_trace(trace.select(np.arange(0)), 1, SCENARIO)


def test_jobs_are_left_out_to_reach_a_load(trace):
    everything = {(s, u, d) for s, u, d, _ in table(trace)}
    full = mean_load(from_trace(trace, 1, SCENARIO), 64, WEEK)
    workload = from_trace(trace, 1, SCENARIO, load=full / 3)
    assert mean_load(workload, 64, WEEK) == pytest.approx(full / 3, rel=0.02)
    rows = zip(
        workload.submitted.tolist(),
        workload.units.tolist(),
        workload.duration.tolist(),
        strict=True,
    )
    assert set(rows) < everything


def test_jobs_are_repeated_on_other_days_to_reach_a_load(trace):
    full = mean_load(from_trace(trace, 1, SCENARIO), 64, WEEK)
    workload = from_trace(trace, 1, SCENARIO, load=2.5 * full)
    assert mean_load(workload, 64, WEEK) == pytest.approx(2.5 * full, rel=0.02)
    moments = {(time % DAY, label) for time, _, _, label in table(trace)}
    copies = zip((workload.submitted % DAY).tolist(), workload.classes, strict=True)
    assert set(copies) <= moments  # at the same time of day
    assert workload.submitted.max() < MONDAY + WEEK
    per_day = np.bincount((workload.submitted - MONDAY) // DAY)
    assert per_day == pytest.approx(2.5 * 144, rel=0.2)
    with pytest.raises(WorkloadError, match="the load must be above 0"):
        from_trace(trace, 1, SCENARIO, load=0.0)


def test_sizes_are_cut_and_times_aligned(trace):
    scenario = replace(SCENARIO, most_units=4, longest=2 * HOUR, align=1800)
    workload = from_trace(trace, 1, scenario)
    assert workload.units.max() == 4
    assert workload.duration.max() == 2 * HOUR
    assert not (workload.duration % 1800).any()
    assert not (workload.arrival % 1800).any()


def test_values_can_drift(trace):
    drift = Drift(shift_at=3 * DAY, value_factor=2.0)
    workload = from_trace(trace, 1, replace(SCENARIO, drift=drift, values=Values(sigma=0)))
    density = workload.value / 1e6 / workload.unit_hours
    late = workload.submitted >= MONDAY + 3 * DAY
    assert density[late] == pytest.approx(2, rel=1e-3)
    assert density[~late] == pytest.approx(1, rel=1e-3)


def test_measuring_what_was_drawn_gives_the_parameters_back():
    cycle = Cycle(daily=0.4, peak_hour=9, weekly=0.3)
    drawn = philly_like(
        1, Scenario(capacity=5000, span=4 * WEEK, cycle=cycle, align=None, load=1.5)
    )
    shape = measure(Jobs(drawn.submitted, drawn.units, drawn.duration, drawn.classes))
    assert shape.cycle.daily == pytest.approx(0.4, abs=0.04)
    assert shape.cycle.peak_hour == pytest.approx(9, abs=0.5)
    assert shape.cycle.weekly == pytest.approx(0.3, abs=0.04)
    assert shape.load == pytest.approx(7500, rel=0.15)
    assert [one.units for one in shape.classes] == [1, 2, 4, 8, 16, 32]
    assert shape.classes[0].weight / len(drawn) == pytest.approx(0.932, abs=0.005)
    durations = shape.classes[0].durations
    assert isinstance(durations, Quantiles)
    median = durations.seconds[durations.shares.index(0.5)]
    assert median == pytest.approx(1011, rel=0.1)
    with pytest.raises(WorkloadError, match="no job"):
        measure(Jobs(*[np.zeros(0, dtype=np.int64)] * 3, ()))


def test_the_command(tmp_path):
    trace, out, past = tmp_path / "philly.csv", tmp_path / "w.csv", tmp_path / "h.csv"
    trace.write_text(PHILLY)
    runner = CliRunner()
    arguments = ["trace", str(trace), "-o", str(out), "--align", "none"]
    result = runner.invoke(generate, arguments)
    assert result.exit_code == 0, result.output
    assert "2 jobs of unknown or no size are left out" in result.stderr
    assert read_workload(out).classes == ("bb", "aa")
    split = ["--history", str(past), "--history-days", "1", "--from", "2017-10-02"]
    result = runner.invoke(generate, [*arguments, *split, "--to", "2017-10-04"])
    assert result.exit_code == 0, result.output
    assert read_workload(past).classes == ("bb",)
    assert read_workload(out).classes == ("aa",)
    for more, says in (
        (["--to", "2017-10-03"], "--to must be after"),
        (["--to", "2017-10-05", "--days", "1"], "give either --to or --days"),
    ):
        result = runner.invoke(generate, [*arguments, *split, *more])
        assert result.exit_code == 2
        assert says in result.stderr
