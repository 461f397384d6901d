"""What all predictors promise to the algorithms and to the price chart."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing.predictors import LP, Blend, Predictor, Prior, Spread, find_predictor
from era_pricing.workload import Workload
from tests.pricing.predictors.past import CREDIT, DAY, HOUR, MONDAY, at, crowd, every_day

KINDS = ["prior", "prior, lead", "spread", "spread, weekly", "spread, thin", "lp", "blend"]


@cache
def build(kind: str) -> Predictor:
    prior = Prior(5 * CREDIT, 20, list(range(24)), lead_time=4 * HOUR)
    match kind:
        case "prior":
            return Prior(5 * CREDIT, 20)
        case "prior, lead":
            return prior
        case "spread":
            return Spread(crowd(1), 16, 300)
        case "spread, weekly":
            return Spread(crowd(2, 21, weekend=0.2, growth=0.3), 16, HOUR, weekly=True)
        case "spread, thin":
            return Spread(every_day([0], units=1, lead=30), 16, 300)
        case "lp":
            return LP(crowd(3), 16, 1800)
        case _:
            return Blend(prior, Spread(crowd(4, 2), 16, 300), half_life=3)


@st.composite
def questions(draw):
    """A predictor, some slots, and a moment before or among them."""
    now = at(draw(st.integers(20, 24)), draw(st.floats(0, 24)))
    start = now // 300 * 300 + draw(st.integers(-2, 300)) * 300
    times = start + 300 * draw(st.integers(1, 40)) * np.arange(draw(st.integers(1, 12)))
    return build(draw(st.sampled_from(KINDS))), times, int(now)


units = st.integers(1, 40)


@settings(deadline=None)
@given(questions(), st.lists(st.floats(0, 1e6), min_size=2, max_size=6).map(sorted))
def test_prices_are_numbers_that_do_not_rise_with_the_units_left(question, quantities):
    predictor, t, now = question
    prices = predictor.price(t[:, None], now, np.array(quantities))
    assert prices.shape == (len(t), len(quantities))
    assert np.isfinite(prices).all()
    assert (np.diff(prices, axis=1) <= 1e-6 * CREDIT).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_for_sale_below_nothing(kind):
    assert np.isinf(build(kind).price(at(22, np.arange(24)), int(at(20, 3)), np.array(-1))).all()


@settings(deadline=None)
@given(
    questions(),
    st.integers(0, 200),
    units,
    units,
    st.sampled_from([1, 20_000, CREDIT]),
    st.sampled_from([None, CREDIT, 3 * CREDIT]),
)
def test_parts_cost_together_what_the_whole_costs(question, spare, some, others, floor, ceiling):
    predictor, t, now = question
    left = np.full(len(t), some + others + spare)
    limits = {} if ceiling is None else {"ceiling": ceiling}
    whole = predictor.cost(t, now, left, some + others, floor, **limits)
    first = predictor.cost(t, now, left, some, floor, **limits)
    then = predictor.cost(t, now, left - some, others, floor, **limits)
    np.testing.assert_allclose(first + then, whole, rtol=1e-9, atol=0.01)
    assert np.isfinite(whole).all()
    assert (whole >= (some + others) * floor * (1 - 1e-12)).all()
    if ceiling is not None:
        assert (whole <= (some + others) * ceiling * (1 + 1e-12)).all()


@settings(deadline=None)
@given(questions(), st.integers(0, 200), units, st.integers(1, 50))
def test_units_cost_no_less_when_fewer_are_left(question, spare, units, fewer):
    predictor, t, now = question
    left = np.full(len(t), units + spare)
    plenty = predictor.cost(t, now, left + fewer, units, 20_000)
    assert (predictor.cost(t, now, left, units, 20_000) >= plenty - 0.01).all()


@settings(deadline=None)
@given(questions(), st.integers(0, 60), units, st.sampled_from([1, 20_000, CREDIT]))
def test_units_cost_the_sum_of_their_prices(question, spare, units, floor):
    """But for the units at which the price falls to the floor.

    In a table these may be some; a blend takes the mean of what two predictors say.
    """
    predictor, t, now = question
    left = np.full(len(t), units + spare)
    cost = predictor.cost(t, now, left, units, floor)
    summed = Predictor.cost(predictor, t, now, left, units, floor)
    assert (cost >= summed * (1 - 1e-9) - 0.01).all()
    within_the_floor = 1 + (units if isinstance(predictor, Blend) else min(units, 4))
    assert (cost <= summed * (1 + 1e-9) + within_the_floor * floor + 0.01).all()


@settings(deadline=None)
@given(
    questions(),
    st.integers(0, 40),
    st.sampled_from([0, 20_000]),
    st.sampled_from([None, 2 * CREDIT]),
)
def test_the_band_holds_the_expected_price(question, quantity, floor, ceiling):
    predictor, t, now = question
    narrow = predictor.forecast(t, now, quantity, floor, ceiling, 0.4, 0.6)
    wide = predictor.forecast(t, now, quantity, floor, ceiling)
    for band in (narrow, wide):
        assert (floor <= band.low).all()
        assert ceiling is None or (band.high <= ceiling).all()
        assert (band.low <= band.expected).all()
        assert (band.expected <= band.high).all()
        assert np.isfinite(band.high).all()
    np.testing.assert_allclose(narrow.expected, wide.expected)
    assert (wide.low <= narrow.low + 1e-6).all()
    assert (wide.high >= narrow.high - 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_price_that_could_go_either_way_has_a_band_on_both_sides(kind):
    t, now = at(22, 15), int(at(20, 3))
    predictor = build(kind)
    quantity = 0 if kind == "spread, thin" else 6
    if kind == "spread, thin":
        t = at(22, 10.5)
    band = predictor.forecast(t, now, quantity)
    assert band.low < band.expected < band.high


@pytest.mark.parametrize(("low", "high"), [(0, 0.9), (0.6, 0.9), (0.1, 1), (0.1, float("nan"))])
def test_a_band_needs_shares_on_either_side_of_the_middle(low, high):
    with pytest.raises(ValueError, match="^low and high must be shares"):
        build("prior").forecast(at(22, 0), MONDAY, 1, low=low, high=high)


@settings(deadline=None)
@given(
    st.sampled_from(KINDS), st.floats(14, 30), st.floats(-1, 20).map(lambda days: round(days * DAY))
)
def test_expected_requests_are_submitted_in_the_time_asked_for(kind, day, length):
    now = int(at(day, 0))
    requests, weights = build(kind).expected(now, now + length)
    assert isinstance(requests, Workload)
    assert weights.shape == (len(requests),)
    assert (requests.submitted >= now).all()
    assert (requests.submitted < now + length).all()
    assert np.isfinite(weights).all()
    assert (weights > 0).all()


def test_all_are_found_by_name():
    assert [find_predictor(name) for name in ("prior", "spread", "lp", "blend")] == [
        Prior,
        Spread,
        LP,
        Blend,
    ]


class Bare(Prior):
    """A predictor of somebody else that answers only what it must."""

    cost, uncertainty = Predictor.cost, Predictor.uncertainty
    observe, expected = Predictor.observe, Predictor.expected


def test_what_a_predictor_leaves_out_has_a_default():
    bare, t = Bare(CREDIT, 10), at(0, np.arange(3))
    band = bare.forecast(t, MONDAY, 4)
    np.testing.assert_allclose([band.low, band.high], [band.expected, band.expected])
    requests, weights = bare.expected(MONDAY, MONDAY + DAY)
    assert len(requests) == len(weights) == 0
    capped = bare.cost(t, MONDAY, np.full(3, 10), 10, 1, ceiling=CREDIT // 2)
    np.testing.assert_allclose(capped, CREDIT * (0.1 + 0.2 + 0.3 + 0.4 + 6 * 0.5))
