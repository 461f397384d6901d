"""The algorithms that need no forecast: on-demand, first-fit, exponential."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_pricing.algorithms import (
    BasicEcon,
    Exponential,
    FirstFit,
    Market,
    OnDemand,
    find_algorithm,
)
from era_pricing.predictors import Predictor, Prior

HOUR = 3600
CREDIT = 1_000_000


class Silent(Predictor):
    """Nobody should ask it."""

    name = "silent"

    def price(self, t, now, quantity):
        raise AssertionError("a forecast was asked for")


def market(capacity, promised, floor=1000, ceiling=None, predictor=None):
    promised = np.atleast_1d(np.asarray(promised, dtype=np.int64))
    return Market(
        now=0,
        slot=HOUR,
        times=HOUR * np.arange(len(promised)),
        capacity=np.full(len(promised), capacity),
        promised=promised,
        predictor=predictor or Silent(),
        price_floor=floor,
        price_ceiling=ceiling,
    )


@pytest.mark.parametrize("algorithm", [OnDemand, FirstFit])
def test_a_fixed_price_is_the_same_for_all_units_at_all_times(algorithm):
    pool = market(8, [0, 3, 8])
    assert algorithm(price=250).rates(4, pool).tolist() == [1000] * 3
    assert algorithm().rates(4, pool).tolist() == [4000] * 3


@pytest.mark.parametrize(
    ("starts", "earliest", "offered"),
    [([500, HOUR, 2 * HOUR], 500, [500]), ([HOUR, 2 * HOUR], 500, []), ([HOUR], HOUR, [HOUR])],
)
def test_on_demand_starts_at_once_or_never(starts, earliest, offered):
    starts = np.array(starts)
    menu = OnDemand(price=1).offers(starts, np.ones(len(starts), dtype=np.int64), earliest)
    assert starts[menu].tolist() == offered


@pytest.mark.parametrize(("prices", "offered"), [([9, 9, 1], 500), ([9, 6, 1], HOUR)])
def test_first_fit_takes_the_earliest_start_or_the_boundary_after_it(prices, offered):
    starts = np.array([500, HOUR, 2 * HOUR])
    assert starts[FirstFit().offers(starts, np.array(prices), 500)].tolist() == [offered]


def test_exponential_rises_from_the_lowest_to_the_highest_price():
    pool = market(1000, [0, 500, 999])
    rates = Exponential(low=CREDIT, high=100 * CREDIT).rates(1, pool)
    np.testing.assert_allclose(rates / CREDIT, [1, 10, 100], rtol=0.01)


@pytest.mark.parametrize(
    ("low", "high", "floor", "ceiling", "ends"),
    [
        (None, None, 1000, 5000, (1000, 5000)),
        (None, None, 1000, None, (1000, 100_000)),
        (2000, None, 1000, None, (2000, 200_000)),
        (2000, None, 1000, 8000, (2000, 8000)),
        (2000, 4000, 1000, 9000, (2000, 4000)),
        (None, 500, 1000, None, (1000, 1000)),
    ],
)
def test_exponential_takes_its_ends_from_its_parameters_or_the_limits(
    low, high, floor, ceiling, ends
):
    pool = market(100_000, [0, 99_999], floor, ceiling)
    np.testing.assert_allclose(Exponential(low, high).rates(1, pool), ends, rtol=0.001)


prices = st.integers(1, 10**9)


@given(
    low=prices,
    ratio=st.integers(1, 10**4),
    capacity=st.integers(1, 200_000),
    data=st.data(),
)
def test_exponential_is_additive_and_never_falls_with_what_is_promised(low, ratio, capacity, data):
    algorithm = Exponential(low, low * ratio)
    promised = data.draw(st.integers(0, capacity - 1))
    units = data.draw(st.integers(1, capacity - promised))
    some = data.draw(st.integers(0, units))
    whole = int(algorithm.rates(units, market(capacity, promised))[0])
    if 0 < some < units:
        first = int(algorithm.rates(some, market(capacity, promised))[0])
        then = int(algorithm.rates(units - some, market(capacity, promised + some))[0])
        assert first + then == whole
    assert units * low - 1 <= whole <= units * low * ratio * (1 + 1e-9) + 1
    if promised:
        assert algorithm.rates(units, market(capacity, promised - 1))[0] <= whole + 1


def test_exponential_does_not_overflow_where_nothing_can_be_had():
    rates = Exponential(1, 10**15).rates(7, market(0, [0, 9]))
    assert (rates >= 0).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"low": 0}, "^low must be a positive whole number, got 0"),
        ({"high": 1.5}, "^high must be a positive whole number, got 1.5"),
        ({"low": 5, "high": 4}, "^high must be at least low"),
    ],
)
def test_exponential_names_the_parameter_that_is_wrong(parameters, message):
    with pytest.raises(ValueError, match=message):
        Exponential(**parameters)


@pytest.mark.parametrize("price", [0, -5, 1.5, True, "7", float("nan")])
@pytest.mark.parametrize("algorithm", [OnDemand, FirstFit])
def test_a_fixed_price_is_a_positive_number(algorithm, price):
    with pytest.raises(ValueError, match="^price must be a positive whole number"):
        algorithm(price)


def test_basic_econ_cuts_the_price_of_each_unit_at_the_ceiling():
    """The sum alone would make two halves cheaper than the whole."""
    prior = Prior(10 * CREDIT, 10)
    pool = market(10, [0, 4], 1000, 5 * CREDIT, prior)
    whole = BasicEcon().rates(6, pool)
    first = BasicEcon().rates(3, pool)
    then = BasicEcon().rates(3, market(10, [3, 7], 1000, 5 * CREDIT, prior))
    assert (first + then).tolist() == whole.tolist()
    assert (whole[0], whole[1]) == ((1 + 2 + 3 + 4 + 5 + 5) * CREDIT, (5 + 5 * 5) * CREDIT)


def test_all_are_found_by_name():
    names = {"basic-econ": BasicEcon, "on-demand": OnDemand, "first-fit": FirstFit}
    for name, algorithm in {**names, "exponential": Exponential}.items():
        assert find_algorithm(name) is algorithm
