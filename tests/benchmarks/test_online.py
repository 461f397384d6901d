"""The benchmark of the best policy: that it is what it says, on draws of a day."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import online
from benchmarks.shapes import CAPACITY

DAY = online.Setting(online.SIZES["large"], days=1)
DRAWS = [DAY.draw(seed)[0] for seed in range(400)]


@pytest.fixture(scope="module")
def optimum() -> online.Optimum:
    return online.Optimum(DAY)


def test_twice_as_much_is_asked_for_as_there_is_and_the_past_is_like_the_week() -> None:
    played, past = online.Setting(online.SIZES["small"], days=14).draw(seed=1)
    for requests in (played, past):
        asked = (requests.units * requests.duration).sum() / (CAPACITY * 14 * 24 * 3600)
        assert asked == pytest.approx(online.LOAD, rel=0.1)
        assert (requests.deadline == requests.arrival + requests.duration).all()
    assert past.submitted.max() < online.MONDAY <= played.submitted.min()


@pytest.mark.parametrize("price", [0.0, 0.3, 1.0, 4.0])
def test_what_a_value_is_above_a_price_on_average(price: float) -> None:
    values = np.random.default_rng(1).lognormal(0, 1, 1_000_000)
    expected = np.maximum(values - price, 0).mean()
    assert online.surplus(np.array([price]))[0] == pytest.approx(expected, rel=0.02)


def test_the_policy_serves_on_average_what_the_recursion_says(optimum: online.Optimum) -> None:
    served = fmean(optimum.play(requests) for requests in DRAWS)
    assert served == pytest.approx(optimum.welfare, rel=0.03)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_other_prices_serve_less(
    optimum: online.Optimum, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = fmean(optimum.play(requests) for requests in DRAWS)
    price = optimum.price
    monkeypatch.setattr(optimum, "price", lambda *state: factor * price(*state))
    assert fmean(optimum.play(requests) for requests in DRAWS) < 0.995 * best


def test_prices_rise_with_units_and_with_what_is_promised(optimum: online.Optimum) -> None:
    prices = [optimum.price(20, 8, 8, 0, units) for units in (1, 8, 32)]
    assert 0 < prices[0] < prices[1] < prices[2]
    assert optimum.price(20, 8, 8, 32, 8) > prices[1]


def test_a_quick_run_prints_its_setting() -> None:
    done = CliRunner().invoke(
        online.main, ["--sizes", "large", "--days", "1", "--seeds", "1", "--seed", "3"]
    )
    assert done.exit_code == 0, done.output
    assert "large" in done.output
    assert "bid-price" in done.output
