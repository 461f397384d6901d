"""The benchmark of random shapes: what it draws, and what it prints."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import random_shapes
from benchmarks.random_shapes import FEWEST, MOST, PLAYED, Draw
from era_pricing.timegrid import DAY

DRAWS = [Draw.of(number) for number in range(200)]


def test_a_number_stands_for_the_same_shape_and_requests_every_time() -> None:
    for number in (1, 3):
        (past, played), (again, replayed) = (Draw.of(number).workloads() for _ in range(2))
        assert Draw.of(number) == DRAWS[number]
        assert np.array_equal(past.value, again.value)
        assert np.array_equal(played.deadline, replayed.deadline)


def test_the_shapes_differ_in_everything() -> None:
    assert {draw.slot for draw in DRAWS} == {900, 1800, 3600}
    assert {draw.past for draw in DRAWS} == {2, 7, 14, 28}
    for few, name in ((5, "capacity"), (6, "load"), (3, "burst"), (4, "longest")):
        assert len({getattr(draw.scenario, name) for draw in DRAWS}) == few
    assert len({draw.scenario.drift for draw in DRAWS}) > 4
    assert len({len(draw.units) for draw in DRAWS}) > 2


@pytest.mark.parametrize("number", range(0, 200, 23))
def test_requests_fit_into_the_pool_and_begin_with_the_history(number: int) -> None:
    draw = DRAWS[number]
    past, played = draw.workloads()
    begin = draw.scenario.start + draw.past * DAY
    assert (past.submitted < begin).all()
    assert (played.submitted >= begin).all()
    assert max(draw.units) <= draw.scenario.capacity
    assert set(played.units.tolist()) <= set(draw.units)


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_a_shape_is_played_by_all_mechanisms(runner: CliRunner) -> None:
    done = runner.invoke(
        random_shapes.main, ["--shapes", "1", "--first", "3", "--jobs", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    (shape,) = json.loads(done.stdout)["shapes"]
    assert FEWEST <= shape["requests"] <= MOST
    assert set(shape["ratios"]) == set(PLAYED)
    assert all(0 < ratio <= 1 for ratio in shape["ratios"].values())
    assert shape["ratios"]["bid-price"] > shape["ratios"]["greedy"]


def test_what_comes_out_is_summed_up(runner: CliRunner) -> None:
    done = runner.invoke(random_shapes.main, ["--shapes", "1", "--first", "3", "--jobs", "1"])
    assert done.exit_code == 0, done.output
    assert "bid-price over" in done.stdout
    assert "1.1 or more" in done.stdout
