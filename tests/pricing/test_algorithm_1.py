"""The engine against Algorithm 1 of the paper, written down literally."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing import (
    BasicEcon,
    Feedback,
    FirstFit,
    Predictor,
    Prior,
)
from tests.pricing.small_pool import HOUR, ask, change, held

MAX_PRICE = 840  # divisible by every demand below, so that all prices are integers


def unit_price(demand, promised, i, capacity, floor):
    """The highest p at which demand_t(p) + promised + i exceeds the capacity.

    At the supremum of these p the two sides are equal, hence >=.
    """
    for p in range(MAX_PRICE, -1, -1):
        if demand and demand * (MAX_PRICE - p) + (promised + i) * MAX_PRICE >= capacity * MAX_PRICE:
            return max(p, floor)
    return floor


def algorithm_1(demand, promised, capacity, W, T, A, D, floor):
    """Total cost of each feasible start in [A, D - T], the last one included."""
    cost = {}
    for t in range(A, D):
        if promised[t] + W <= capacity[t]:
            cost[t] = sum(
                unit_price(demand[t], promised[t], i, capacity[t], floor) for i in range(1, W + 1)
            )
    total = {}
    for t in range(A, D - T + 1):
        if all(u in cost for u in range(t, t + T)):
            total[t] = sum(cost[u] for u in range(t, t + T))
    return total


slots = 10


@st.composite
def situations(draw):
    demand = draw(st.lists(st.integers(0, 8), min_size=slots, max_size=slots))
    capacity = draw(st.lists(st.integers(0, 9), min_size=slots, max_size=slots))
    promised = [draw(st.integers(0, c)) for c in capacity]
    A = draw(st.integers(0, slots - 1))
    D = draw(st.integers(A + 1, slots))
    T = draw(st.integers(1, D - A))
    W = draw(st.integers(1, 9))
    return demand, promised, capacity, W, T, A, D, draw(st.integers(1, 300))


def engine_for(make_era, demand, promised, capacity, floor):
    profile = [*demand, *([0] * (23 - slots)), 8]
    era = make_era(capacity=9, predictor=Prior(MAX_PRICE, 8, profile), price_floor=floor)
    changes = [change(t * HOUR, (t + 1) * HOUR, c) for t, c in enumerate(capacity)]
    era.update(Feedback(capacity=changes), now=0)
    era.restore(
        held(f"promised-{t}", n, t * HOUR, (t + 1) * HOUR, (0,))
        for t, n in enumerate(promised)
        if n
    )
    return era


@settings(deadline=None)
@given(situations())
def test_the_engine_prices_every_start_as_algorithm_1_does(make_era, situation):
    demand, promised, capacity, W, T, A, D, floor = situation
    expected = algorithm_1(*situation)
    era = engine_for(make_era, demand, promised, capacity, floor)
    quote = era.quote(ask("gpu", T * HOUR, A * HOUR, D * HOUR, W))
    assert dict(zip(quote.starts // HOUR, quote.prices, strict=True)) == expected
    if not expected:
        assert not quote.feasible
        assert quote.price is None
        assert quote.reason
        return
    assert quote.price == min(expected.values())
    assert quote.start == HOUR * next(t for t in sorted(expected) if expected[t] == quote.price)
    assert sum(quote.slot_prices) == quote.price
    assert len(quote.slot_prices) == T


def test_the_last_feasible_start_is_a_candidate_and_wins_if_cheapest(make_era):
    era = engine_for(make_era, [8] * 9 + [0], [0] * slots, [4] * slots, 5)
    quote = era.quote(ask("gpu", HOUR, 0, 10 * HOUR))
    assert (quote.start, quote.price) == (9 * HOUR, 5)


@settings(deadline=None)
@given(
    remaining=st.integers(1, 40),
    units=st.integers(1, 40),
    peak=st.floats(0, 60),
    lead_time=st.sampled_from([0, 600, 86400]),
    floor=st.integers(1, 2_000_000),
)
def test_the_closed_form_of_the_prior_agrees_with_the_sum_over_units(
    remaining, units, peak, lead_time, floor
):
    remaining = max(remaining, units)
    prior = Prior(1_000_000, peak, list(range(24)), lead_time)
    t = np.arange(0, 30) * HOUR
    left = np.full(30, remaining)
    closed = prior.cost(t, 0, left, units, floor)
    summed = Predictor.cost(prior, t, 0, left, units, floor)
    np.testing.assert_allclose(closed, summed, rtol=1e-9, atol=1e-3)


def test_the_default_sum_over_units_gives_the_same_quotes(make_era):
    class Plain(Prior):
        cost = Predictor.cost

    request = ask("two", 3 * HOUR, 1000, 40 * HOUR, count=2)
    profile = [1 + h % 7 for h in range(24)]
    fast, slow = (
        make_era(predictor=kind(840, 6, profile, 9000)).quote(request) for kind in (Prior, Plain)
    )
    assert fast.price == slow.price
    assert fast.slot_prices == slow.slot_prices


@pytest.mark.parametrize(
    ("now", "price"),
    [
        (0, 840 * (1 - 3 / (6 * (1 - np.exp(-4))))),  # 4 lead times before the slot
        (4 * HOUR, 10),  # nothing is still to come: the floor
    ],
)
def test_demand_that_has_come_no_longer_counts(make_era, now, price):
    era = make_era(predictor=Prior(840, 6, lead_time=HOUR))
    quote = era.quote(ask("gpu", HOUR, 4 * HOUR, 5 * HOUR), now=now)
    assert quote.price == math.ceil(price)


def test_no_demand_is_left_to_come_for_a_slot_that_has_begun():
    assert list(Prior(840, 6, lead_time=HOUR).demand(np.array([0, 500]), 500)) == [0, 0]


def test_a_predictor_is_only_asked_about_units_that_there_can_be(make_era):
    class Careful(Prior):
        def price(self, t, now, quantity):
            assert (quantity >= 0).all()
            return super().price(t, now, quantity)

        cost = Predictor.cost

    era = make_era(predictor=Careful(840, 6))
    era.restore([held("a", 4, 0, HOUR, (1,))])
    assert list(era.prices("two", 0, 2)) == [-1, 980]


def test_prior_follows_the_hours_of_the_day():
    night_and_day = Prior(100, 10, [1] * 12 + [4] * 12)
    prices = night_and_day.price(np.array([0, 13, 25, 40]) * HOUR, 0, np.array(2))
    np.testing.assert_allclose(prices, [20, 80, 20, 80])


def test_prior_broadcasts_times_against_quantities():
    prices = Prior(100, 10).price(np.zeros((3, 1), dtype=np.int64), 0, np.array([0, 5, 10, -1]))
    np.testing.assert_allclose(prices, [[100, 50, 0, np.inf]] * 3)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"max_price": 0}, "max_price"),
        ({"max_price": float("nan")}, "max_price"),
        ({"peak_demand": -1}, "peak_demand"),
        ({"profile": [1] * 23}, "profile"),
        ({"profile": [-1] + [1] * 23}, "profile"),
        ({"profile": [0] * 24}, "profile"),
        ({"lead_time": float("inf")}, "lead_time"),
    ],
)
def test_prior_names_the_parameter_that_is_wrong(parameters, field):
    with pytest.raises(ValueError, match=f"^{field} must"):
        Prior(**{"max_price": 100, "peak_demand": 5, **parameters})


def test_first_fit_takes_the_earliest_start_at_its_price(make_era):
    era = make_era(algorithm=FirstFit(price=100), predictor=Prior(840, 6, [9] * 5 + [0] * 19))
    era.restore([held("a", 4, 0, HOUR, (1,))])
    quote = era.quote(ask("two", 2 * HOUR, 0, 20 * HOUR))
    assert (quote.start, quote.price) == (HOUR, 400)
    assert set(quote.prices) == {400}


def test_first_fit_without_a_price_asks_the_floor(make_era):
    era = make_era(algorithm=FirstFit(), price_floor=70)
    assert era.quote(ask("gpu", HOUR, 0, HOUR)).price == 70


@pytest.mark.parametrize("price", [0, -5, 1.5, True])
def test_first_fit_refuses_a_price_that_is_not_positive(price):
    with pytest.raises(ValueError, match="price must be"):
        FirstFit(price)


@pytest.mark.parametrize("algorithm", [BasicEcon(), FirstFit(price=1)])
def test_no_price_is_below_the_floor(make_era, algorithm):
    era = make_era(algorithm=algorithm, predictor=Prior(840, 0), price_floor=50)
    assert era.quote(ask("two", 3 * HOUR, 0, 9 * HOUR)).price == 2 * 3 * 50
