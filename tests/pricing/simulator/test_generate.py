"""Generators keep their promises on average, and the same seed gives the same workload."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from era_pricing.simulator.bidfiles import read_bids
from era_pricing.simulator.commands.generate import generate
from era_pricing.simulator.formats import read_csv, read_workload
from era_pricing.simulator.generate import (
    YAHOO,
    YAHOO_SCENARIO,
    LogNormal,
    Quantiles,
    mean_load,
    philly_like,
    poisson,
    split,
    yahoo,
)
from era_pricing.simulator.scenario import (
    FLAT,
    MONDAY,
    WEEK,
    Cycle,
    Drift,
    Scenario,
    Values,
    Windows,
)
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import COLUMNS, Workload, WorkloadError

LARGE = Scenario(capacity=2000, span=2 * WEEK, longest=2 * DAY)
"""About 130,000 requests, so that shares and means are sharp."""


def same(a: Workload, b: Workload) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(getattr(a, column), getattr(b, column)) for column in COLUMNS
    )


def count_of(workload: Workload, label: str) -> int:
    return sum(one == label for one in workload.classes)


@pytest.mark.parametrize("draw", [poisson, philly_like, yahoo])
def test_the_seed_decides(draw):
    assert same(draw(5), draw(5))
    assert not same(draw(5), draw(6))


@pytest.mark.parametrize("draw", [poisson, philly_like, yahoo])
def test_requests_are_sorted_and_on_the_grid(draw):
    workload = draw(1)
    align = 300 if draw is yahoo else 1800
    assert (np.diff(workload.submitted) >= 0).all()
    assert workload.submitted.min() >= MONDAY
    assert workload.submitted.max() < MONDAY + WEEK
    for column in ("arrival", "deadline", "duration"):
        assert not (getattr(workload, column) % align).any()
    assert workload.units.max() <= (64 if draw is not yahoo else 2120)


@pytest.mark.parametrize("load", [0.5, 2.0])
@pytest.mark.parametrize("align", [None, 3 * HOUR])
def test_the_mean_load_is_as_asked(load, align):
    scenario = replace(LARGE, load=load, align=align, cycle=Cycle(0.8, 3, 0.6))
    assert mean_load(poisson(1, scenario), 2000, 2 * WEEK) == pytest.approx(load, rel=0.03)


def test_the_mean_load_of_philly_like_jobs():
    scenario = Scenario(capacity=4000, span=WEEK, longest=7 * DAY)
    assert mean_load(philly_like(1, scenario), 4000, WEEK) == pytest.approx(2, rel=0.1)


def test_daily_and_weekly_cycles():
    workload = poisson(2, replace(LARGE, cycle=Cycle(daily=0.5, peak_hour=15, weekly=0.5)))
    by_hour = np.bincount(workload.submitted % DAY // HOUR, minlength=24) / len(workload) * 24
    hours = np.arange(24) + 0.5
    assert by_hour == pytest.approx(1 + 0.5 * np.cos((hours - 15) * np.pi / 12), abs=0.06)
    weekday = np.array([np.datetime64(int(t), "s").item().weekday() for t in workload.submitted])
    by_day = np.bincount(weekday, minlength=7) / len(workload) * 7
    assert by_day == pytest.approx([1.2] * 5 + [0.5] * 2, abs=0.05)


def test_without_cycles_all_hours_are_alike():
    workload = poisson(2, replace(LARGE, cycle=FLAT))
    by_hour = np.bincount(workload.submitted % DAY // HOUR, minlength=24) / len(workload) * 24
    assert by_hour == pytest.approx(1, abs=0.06)


def test_shares_of_waits_and_leads():
    windows = Windows(0.2, 0.5, within_hours=4 * HOUR, within_days=DAY, ahead=0.25, lead=DAY)
    workload = poisson(3, replace(LARGE, windows=windows, align=None))
    wait = workload.deadline - workload.arrival - workload.duration
    lead = workload.arrival - workload.submitted
    labels = np.array(workload.classes)
    assert (wait[labels == "tight"] == 0).all()
    assert (wait[labels == "hours"] <= 4 * HOUR).all()
    assert (wait[labels == "days"] >= 4 * HOUR).all()
    assert wait.max() <= DAY
    assert (labels == "tight").mean() == pytest.approx(0.2, abs=0.01)
    assert (labels == "hours").mean() == pytest.approx(0.5, abs=0.01)
    assert (lead > 0).mean() == pytest.approx(0.25, abs=0.01)
    assert lead[lead > 0].mean() == pytest.approx(DAY / 2, rel=0.05)


def test_sizes_and_durations():
    workload = poisson(
        4,
        replace(LARGE, align=None, longest=None),
        units={1: 3, 16: 1},
        durations=LogNormal(HOUR, 0.5),
    )
    assert set(workload.units.tolist()) == {1, 16}
    assert (workload.units == 16).mean() == pytest.approx(0.25, abs=0.02)
    logs = np.log(workload.duration)
    assert logs.mean() == pytest.approx(np.log(HOUR), abs=0.02)
    assert logs.std() == pytest.approx(0.5, abs=0.02)


def test_large_and_long_requests_are_cut():
    scenario = replace(LARGE, capacity=4, load=500, longest=3 * HOUR)
    workload = poisson(4, scenario)
    assert workload.units.max() == 4
    assert workload.duration.max() == 3 * HOUR
    assert poisson(4, replace(scenario, most_units=2)).units.max() == 2


def test_values_per_unit_hour():
    workload = poisson(5, replace(LARGE, values=Values(median=3, sigma=0.7)))
    logs = np.log(workload.value / 1e6 / workload.unit_hours)
    assert logs.mean() == pytest.approx(np.log(3), abs=0.02)
    assert logs.std() == pytest.approx(0.7, abs=0.02)
    flat = poisson(5, replace(LARGE, values=Values(median=2, sigma=0, urgency=5)))
    density = flat.value / 1e6 / flat.unit_hours
    tight = np.array(flat.classes) == "tight"
    np.testing.assert_allclose(density, np.where(tight, 10, 2), rtol=1e-5)


def test_values_can_depend_on_size():
    workload = poisson(5, replace(LARGE, values=Values(sigma=0, size_exponent=-0.5)))
    density = workload.value / 1e6 / workload.unit_hours
    expected = (workload.unit_hours / np.median(workload.unit_hours)) ** -0.5
    np.testing.assert_allclose(density, expected, rtol=1e-3)


def test_changing_the_values_leaves_the_rest():
    plain, other = poisson(6), poisson(6, Scenario(longest=2 * DAY, values=Values(median=9)))
    assert np.array_equal(plain.deadline, other.deadline)
    assert other.value == pytest.approx(9 * plain.value, rel=1e-4, abs=20)


def test_a_shift_in_load_and_values():
    drift = Drift(shift_at=WEEK, load_factor=0.5, value_factor=3.0)
    scenario = replace(LARGE, drift=drift, values=Values(sigma=0))
    before, after = split(poisson(7, scenario), MONDAY + WEEK)
    assert len(after) / len(before) == pytest.approx(0.5, rel=0.03)
    np.testing.assert_allclose(before.value / 1e6 / before.unit_hours, 1, rtol=1e-5)
    np.testing.assert_allclose(after.value / 1e6 / after.unit_hours, 3, rtol=1e-5)


def test_a_split_gives_the_moment_itself_to_the_later_part():
    workload = Workload([1, 2, 3], [3] * 3, [9] * 3, [1] * 3, [1] * 3, [0] * 3)
    before, after = split(workload, 2)
    assert (before.submitted.tolist(), after.submitted.tolist()) == ([1], [2, 3])


def test_trends():
    drift = Drift(load_trend=1.0, value_trend=-0.25)
    scenario = replace(LARGE, drift=drift, values=Values(sigma=0))
    workload = poisson(8, scenario)
    before, after = split(workload, MONDAY + WEEK)
    assert len(after) / len(before) == pytest.approx(2.5 / 1.5, rel=0.03)
    weeks = (workload.submitted - MONDAY) / WEEK
    density = workload.value / 1e6 / workload.unit_hours
    np.testing.assert_allclose(density, 1 - 0.25 * weeks, rtol=1e-3)


def test_bursts():
    single, burst = poisson(9, LARGE), poisson(9, replace(LARGE, burst=10))
    assert len(burst) == pytest.approx(len(single), rel=0.05)
    moments = len(np.unique(burst.submitted))
    assert len(burst) / moments == pytest.approx(10, rel=0.1)


def test_load_0_and_a_load_that_falls_to_nothing_give_empty_workloads():
    assert len(poisson(1, replace(LARGE, load=0))) == 0
    assert len(poisson(1, replace(LARGE, drift=Drift(load_factor=0)))) == 0


def test_the_yahoo_classes():
    workload = yahoo(1)
    labels = np.array(workload.classes)
    units = [20, 410, 1005, 133, 456, 2120]
    assert [one.units for one in YAHOO] == units
    for number, one in enumerate(YAHOO):
        mine = labels == f"class-{number}"
        assert 1400 <= mine.sum() <= 1500
        assert set(workload.units[mine].tolist()) == {units[number]}
        assert set(workload.duration[mine].tolist()) == {max(one.duration, 300)}
        price = workload.value[mine] / 1e6 / workload.unit_hours[mine]
        assert price == pytest.approx(1 if number == 5 else 10)
    work = [one.map_seconds + one.reduce_seconds for one in YAHOO]
    assert max(work) == work[5]


def test_the_number_of_yahoo_jobs():
    workload = yahoo(1, replace(YAHOO_SCENARIO, burst=7), jobs=(3, 3))
    assert [count_of(workload, f"class-{k}") for k in range(6)] == [3] * 6
    assert len(yahoo(1, jobs=(0, 0))) == 0


def test_philly_like_jobs_are_mostly_small_and_most_work_is_in_large_ones():
    workload = philly_like(1, Scenario(capacity=4000, span=WEEK, longest=7 * DAY, align=None))
    small = workload.units == 1
    assert small.mean() == pytest.approx(0.93, abs=0.01)
    assert workload.unit_hours[small].sum() / workload.unit_hours.sum() < 0.35
    assert 700 < np.median(workload.duration) < 1400


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Scenario(load=float("nan")), "the load must be at least 0, got nan"),
        (lambda: Scenario(capacity=0), "the capacity must be at least 1"),
        (lambda: Scenario(span=0), "the span must be at least 1"),
        (lambda: Scenario(align=0), "the alignment must be at least 1"),
        (lambda: Scenario(burst=0.5), "the mean burst must be at least 1"),
        (lambda: Cycle(daily=1.5), "the daily amplitude must be at least 0 and at most 1"),
        (lambda: Windows(tight=0.8), "must add up to at most 1, got 0.8 [+] 0.4"),
        (lambda: Windows(within_days=60), "the wait of days must be at least 21600"),
        (lambda: Values(sigma=-1), "the values' sigma must be at least 0"),
        (lambda: Drift(value_factor=float("inf")), "the values' factor must be at least 0"),
        (lambda: LogNormal(0), "a median of more than 0 seconds"),
        (lambda: Quantiles((0, 0.5), (1, 2)), "shares must increase from 0 to 1"),
        (lambda: Quantiles((0, 1), (0, 2)), "seconds must be 2 numbers above 0"),
        (lambda: poisson(1, units={1: -1}), "frequencies .* must be 0 or more"),
        (lambda: poisson(1, units={}), "frequencies"),
        (lambda: poisson(1, units={0: 1}), "needs 1 unit or more, got 0"),
        (lambda: yahoo(1, jobs=(9, 3)), "jobs must be a range"),
    ],
)
def test_settings_that_make_no_sense(make, says):
    with pytest.raises(WorkloadError, match=says):
        make()


def invoke(*arguments: object):
    return CliRunner().invoke(generate, [str(one) for one in arguments])


def test_the_command_writes_csv_to_the_standard_output():
    result = invoke("poisson", "--quiet", "--seed", 4)
    assert result.exit_code == 0, result.output
    assert same(read_csv(result.stdout.splitlines(keepends=True)), poisson(4))


def test_the_history_comes_before_the_workload(tmp_path):
    past, week = tmp_path / "past.csv", tmp_path / "week.csv.gz"
    result = invoke("poisson", "--seed", 4, "--history", past, "-o", week)
    assert result.exit_code == 0, result.output
    history, workload = read_workload(past), read_workload(week)
    together = poisson(4, Scenario(span=3 * WEEK, longest=2 * DAY))
    assert same(Workload.concatenate([history, workload]), together)
    assert history.submitted.max() < MONDAY + 2 * WEEK <= workload.submitted.min()
    assert f"{len(workload):,} requests in 7d" in result.stderr


def test_the_command_writes_bids(tmp_path):
    result = invoke("philly-like", "--days", 2, "--seed", 4, "-o", tmp_path / "w.jsonl")
    assert result.exit_code == 0, result.output
    bids = read_bids(tmp_path / "w.jsonl")
    assert bids.names == ()
    assert set(bids.classes) <= {f"{n}-gpu" for n in (1, 2, 4, 8, 16, 32)}
    assert len(bids) > 100


def test_options_reach_the_generators(tmp_path):
    path = tmp_path / "w.csv"
    result = invoke(
        "yahoo",
        "--jobs",
        5,
        5,
        "--days",
        1,
        "--start",
        "2025-06-01",
        "--align",
        "none",
        "--tight",
        1,
        "--hours",
        0,
        "--ahead",
        0,
        "--value",
        7,
        "-o",
        path,
    )
    assert result.exit_code == 0, result.output
    workload = read_workload(path)
    assert len(workload) == 30
    assert (workload.deadline - workload.arrival == workload.duration).all()
    assert workload.duration.min() == 60
    assert (workload.submitted // DAY == 1_748_736_000 // DAY).all()
    large = np.array(workload.classes) == "class-5"
    assert workload.value[~large] / 1e6 == pytest.approx(7 * workload.unit_hours[~large])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("poisson", "--units", "1:x"), "must be like 1:4,2:3,8:1"),
        (("poisson", "--units", "0:1"), "needs 1 unit or more"),
        (("poisson", "--tight", "0.9"), "must add up to at most 1"),
        (("poisson", "--align", "3x"), "must be a duration"),
        (("poisson", "--value", "nan"), "the median value must be at least 0"),
        (("poisson", "--burst", "0"), "the mean burst"),
        (("poisson", "--history", "h.csv", "--history-days", "0"), "--history-days above 0"),
        (("poisson", "-o", "w.parquet"), "w.parquet: the name must end in .csv"),
        (("poisson", "-o", "no/such/folder/w.csv"), "cannot be written"),
        (("trace", "none.csv"), "none.csv: cannot be read: No such file"),
    ],
)
def test_mistakes_on_the_command_line_get_a_sentence(arguments, says):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output
