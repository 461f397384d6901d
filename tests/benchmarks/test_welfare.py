"""The benchmark of welfare: what its shapes draw, its own plug-ins, and what it is asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import shapes, welfare
from era_pricing.algorithms import Market
from era_pricing.algorithms.first_fit import FirstFit
from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors import Prior
from era_pricing.simulator.mechanism import Pool
from era_pricing.simulator.run import ACCEPTED, simulate
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

NAMES = [shape.name for shape in shapes.SHAPES]


def shape_of(name: str) -> shapes.Shape:
    return next(shape for shape in shapes.SHAPES if shape.name == name)


def drawn(name: str) -> tuple[Workload, Workload]:
    """What is played of a shape, and its past."""
    requests, past = shape_of(name).draw(seed=1)
    return requests.columns, past


def slack_of(jobs: Workload) -> IntArray:
    slack: IntArray = jobs.deadline - jobs.arrival - jobs.duration
    return slack


def hourly_value(jobs: Workload) -> FloatArray:
    """Credits per unit and hour."""
    rate: FloatArray = jobs.value / jobs.unit_hours / 1e6
    return rate


# Shapes.


@pytest.mark.parametrize("name", NAMES)
def test_a_shape_draws_two_weeks_to_learn_from_and_then_the_week_that_is_played(name: str) -> None:
    jobs, past = drawn(name)
    begin = shape_of(name).scenario.start + shapes.PAST
    assert len(past) > len(jobs) > 100
    assert past.submitted.max() < begin <= jobs.submitted.min()
    assert begin - past.submitted.min() > 13 * DAY
    assert 6 * DAY < jobs.submitted.max() - begin < 7 * DAY


def test_a_seed_draws_the_same_again_and_another_seed_something_else() -> None:
    mixed = shape_of("mixed")
    first, again, other = (mixed.draw(seed)[0].columns for seed in (1, 1, 2))
    assert first.value.tolist() == again.value.tolist()
    assert first.value[:50].tolist() != other.value[:50].tolist()


def test_nobody_can_wait_where_it_is_tight() -> None:
    for jobs in drawn("tight"):
        assert not slack_of(jobs).any()


def test_the_patient_can_wait_for_up_to_two_days() -> None:
    for jobs in drawn("patient"):
        slack = slack_of(jobs)
        assert slack.max() <= 2 * DAY
        # Waits are rounded to whole slots, the shortest of them to none.
        assert (slack > 0).mean() > 0.98
        assert 0.9 * DAY < slack.mean() < 1.1 * DAY


def test_all_values_are_the_same_where_they_are_alike() -> None:
    for jobs in drawn("alike"):
        np.testing.assert_allclose(hourly_value(jobs), 1, rtol=1e-5)
    assert hourly_value(drawn("mixed")[0]).std() > 0.5


def test_some_requests_want_half_of_the_cluster_where_they_are_large() -> None:
    for jobs in drawn("large"):
        assert set(jobs.units.tolist()) == {1, 8, 32}
        assert 0.2 < (jobs.units == 32).mean() < 0.4
    assert drawn("mixed")[0].units.max() == 8


def test_more_comes_and_is_worth_more_than_the_past_told_where_demand_drifts() -> None:
    jobs, past = drawn("drift")
    daily, before = jobs.unit_hours.sum() / 7, past.unit_hours.sum() / 14
    assert 1.3 < daily / before < 1.9
    assert 1.3 < np.median(hourly_value(jobs)) / np.median(hourly_value(past)) < 1.7


def test_bookings_are_made_ahead_where_they_are_in_advance() -> None:
    jobs, _ = drawn("advance")
    assert (jobs.arrival - jobs.submitted > HOUR).mean() > 0.9
    usual, _ = drawn("mixed")
    assert (usual.arrival - usual.submitted < shapes.SLOT).all()


def test_the_urgent_are_worth_more_than_the_bulk() -> None:
    jobs, _ = drawn("bulk and urgent")
    urgent, value = slack_of(jobs) == 0, hourly_value(jobs)
    assert 0.25 < urgent.mean() < 0.35
    assert slack_of(jobs)[~urgent].min() >= DAY
    assert 4 < np.median(value[urgent]) / np.median(value[~urgent]) < 6


def test_less_comes_on_saturdays_and_sundays_where_they_are_quiet() -> None:
    _, past = drawn("weekends")
    # 1970-01-01 was a Thursday; the past has ten working days and four others.
    quiet = (past.submitted // DAY + 3) % 7 >= 5
    assert quiet.sum() / 4 < 0.4 * (~quiet).sum() / 10


def test_requests_come_together_where_there_are_bursts() -> None:
    for name, least, most in (("bursts", 7, 13), ("mixed", 1, 1.1)):
        jobs, _ = drawn(name)
        assert least <= len(jobs) / len(np.unique(jobs.submitted)) <= most


# Plug-ins without a name.


def test_a_plug_in_is_served_as_by_the_simulator() -> None:
    requests, past = replace(shape_of("mixed"), days=1).draw(seed=1)
    served = shapes.served_by(FirstFit(), Prior(1, 0.0), requests, past)
    pool = Pool.of(shapes.CAPACITY)
    run = simulate(requests, welfare.MECHANISMS["greedy"], pool, history=past, seed=1)
    assert 0.2 < (run.answer == ACCEPTED).mean() < 0.9
    assert served == pytest.approx(run.worth.sum() / 1e6, rel=1e-12)


def oracle_rates(units: int, first: int, count: int) -> list[int]:
    """Of so many slots, with prices for the slots 1000 to 1002."""
    algorithm = shapes.OraclePrices(1000, np.array([5e5, 0.0, 1_999_999.6]))
    zeros = np.zeros(count, dtype=np.int64)
    times = (np.arange(count, dtype=np.int64) + first) * shapes.SLOT
    market = Market(int(times[0]), shapes.SLOT, times, zeros + 64, zeros, Prior(1, 0.0), 1)
    rates = algorithm.rates(units, market)
    assert rates.dtype == np.int64
    return [int(rate) for rate in rates]


def test_oracle_prices_are_zero_outside_of_their_slots() -> None:
    assert oracle_rates(1, first=998, count=7) == [0, 0, 500_000, 0, 2_000_000, 0, 0]
    assert oracle_rates(1, first=1002, count=2) == [2_000_000, 0]
    assert oracle_rates(1, first=0, count=3) == [0, 0, 0]
    assert oracle_rates(1, first=1003, count=3) == [0, 0, 0]


@pytest.mark.parametrize("units", [2, 3, 64])
def test_oracle_prices_of_several_units_are_so_many_times_that_of_one(units: int) -> None:
    one = oracle_rates(1, first=998, count=7)
    assert oracle_rates(units, first=998, count=7) == [units * rate for rate in one]


# Waiting.


@pytest.fixture
def named() -> Workload:
    """Requests that keep their names in whatever order they come."""
    jobs, _ = drawn("mixed")
    return replace(jobs, names=tuple(map(str, range(len(jobs)))))


def waiters(jobs: Workload) -> Workload:
    """In the order of the requests that they were drawn from."""
    rows = np.flatnonzero(np.array(jobs.classes) == shapes.WAITERS).tolist()
    return jobs.select(sorted(rows, key=lambda row: int(jobs.names[row])))


def others(jobs: Workload) -> Workload:
    return jobs.select(np.array(jobs.classes) != shapes.WAITERS)


def test_the_same_requests_wait_however_long_and_keep_their_values(named: Workload) -> None:
    usual = waiters(shapes.delayed(named, 0, seed=1))
    able = slack_of(named) >= 6 * HOUR
    assert len(usual) == pytest.approx(0.05 * able.sum(), abs=1)
    for hours in shapes.DELAYS:
        late = waiters(shapes.delayed(named, hours * HOUR, seed=1))
        assert late.names == usual.names
        for column in ("submitted", "arrival", "deadline", "units", "duration", "value"):
            later, before = getattr(late, column), getattr(usual, column)
            if column == "submitted":
                before = before + hours * HOUR
            if column == "arrival":
                before = np.maximum(before, late.submitted)
                assert ((later - before >= 0) & (later - before < shapes.SLOT)).all()
            else:
                np.testing.assert_array_equal(later, before)


def test_another_seed_lets_others_wait(named: Workload) -> None:
    one, two = (waiters(shapes.delayed(named, HOUR, seed)) for seed in (1, 2))
    assert len(one) == len(two)
    assert set(one.names) != set(two.names)


@pytest.mark.parametrize("hours", shapes.DELAYS)
def test_windows_hold_their_jobs_after_a_delay_and_begin_with_slots(
    named: Workload, hours: int
) -> None:
    jobs = shapes.delayed(named, hours * HOUR, seed=1)
    assert len(jobs) == len(named)
    assert (np.diff(jobs.submitted) >= 0).all()
    assert (jobs.arrival >= jobs.submitted).all()
    assert not (jobs.arrival % shapes.SLOT).any()
    assert (slack_of(jobs) >= 0).all()


@pytest.mark.parametrize("hours", shapes.DELAYS)
def test_a_delay_leaves_those_who_do_not_wait_as_they_were(named: Workload, hours: int) -> None:
    left = others(shapes.delayed(named, hours * HOUR, seed=1))
    before = named.select(list(map(int, left.names)))
    assert 0 < len(left) < len(named)
    for column in ("submitted", "arrival", "deadline", "units", "duration", "value"):
        np.testing.assert_array_equal(getattr(left, column), getattr(before, column))


# What it is asked for.


def test_an_unknown_shape_is_refused_and_the_known_ones_are_told() -> None:
    result = CliRunner().invoke(welfare.main, ["--shapes", "mixed, square"])
    assert result.exit_code == 2
    known = ", ".join([*NAMES, shapes.PHILLY])
    assert f"Invalid value for '--shapes': 'square' is none of {known}\n" in result.output


def test_shapes_come_in_their_order_and_with_the_days_asked_for(tmp_path: Path) -> None:
    chosen = shapes.chosen_shapes(["alike", "tight"], tmp_path / "no.csv", 3)
    assert [(shape.name, shape.days) for shape in chosen] == [("tight", 3), ("alike", 3)]


@pytest.mark.parametrize("asked", [[], ["philly", "tight"]])
def test_philly_is_left_out_with_a_note_where_its_trace_is_missing(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "no.csv.gz"
    chosen = shapes.chosen_shapes(asked, trace, 7)
    assert [shape.name for shape in chosen] == (["tight"] if asked else NAMES)
    told = capsys.readouterr()
    assert told.err == f"philly is left out: there is no {trace}\n"
    assert told.out == ""


def test_nothing_is_said_of_a_missing_trace_that_nobody_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes.chosen_shapes(["tight"], tmp_path / "no.csv.gz", 7)
    assert capsys.readouterr().err == ""


def test_philly_alone_without_its_trace_is_an_error(tmp_path: Path) -> None:
    trace = str(tmp_path / "no.csv.gz")
    result = CliRunner().invoke(welfare.main, ["--shapes", "philly", "--trace", trace])
    assert result.exit_code == 2
    assert "philly is left out" in result.output
    assert "Error: no shape is left" in result.output


def test_help_tells_every_shape_and_mechanism() -> None:
    result = CliRunner().invoke(welfare.main, ["--help"])
    assert result.exit_code == 0
    mechanisms = (name for name in welfare.MECHANISMS if name != welfare.SLOW)
    for name in (*NAMES, shapes.PHILLY, *mechanisms, welfare.FIXED, welfare.ORACLE):
        assert re.search(rf"^ +{re.escape(name)} +\S", result.output, re.MULTILINE), name
