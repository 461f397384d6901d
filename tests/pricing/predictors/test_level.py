"""How what is learned follows a day that is not like those before."""

from __future__ import annotations

import numpy as np
import pytest

from era_pricing.predictors import LP, Spread
from era_pricing.predictors.base import SeenRequest
from tests.pricing.predictors.past import CREDIT, DAY, HOUR, at, crowd

DAYS = 14


def learned(kind=Spread, days=DAYS, **options):
    return kind(crowd(1, days, each_day=200), 16, 1800, **options)


def observe(predictor, day, until, times=1.0, rate=1.0, seed=2):
    """The requests of a day up to an hour, so many times as many, and worth so much more."""
    drawn = crowd(seed, 1, each_day=200 * times)
    shift = day * DAY
    for row in np.flatnonzero(drawn.submitted + shift < at(day, until)):
        predictor.observe(
            SeenRequest(
                int(drawn.submitted[row]) + shift,
                int(drawn.arrival[row]) + shift,
                int(drawn.deadline[row]) + shift,
                int(drawn.units[row]),
                int(drawn.duration[row]),
                int(drawn.value[row] * rate),
                False,
            )
        )


def foreseen(predictor, day, hour):
    """How many requests are expected in the coming day, and what a unit and hour is worth."""
    now = int(at(day, hour))
    requests, weights = predictor.expected(now, now + DAY)
    rates = requests.value / (requests.units * requests.duration) * HOUR / CREDIT
    return weights.sum(), weights @ rates / weights.sum()


@pytest.mark.parametrize("kind", [Spread, LP])
def test_a_day_like_the_others_changes_nothing_before_it_is_over(kind):
    predictor, same = learned(kind), learned(kind)
    observe(predictor, DAYS, until=18)
    assert foreseen(predictor, DAYS, 18) == foreseen(same, DAYS, 18)
    t, now = at(DAYS + 1, 12), int(at(DAYS, 18))
    assert predictor.price(t, now, 3) == same.price(t, now, 3)


@pytest.mark.parametrize(("times", "low", "high"), [(2.0, 1.5, 2.2), (0.3, 0.25, 0.6)])
def test_more_or_fewer_requests_are_expected_on_the_same_day(times, low, high):
    predictor, usual = learned(), learned()
    observe(predictor, DAYS, until=18, times=times)
    number, rate = foreseen(predictor, DAYS, 18)
    before, same = foreseen(usual, DAYS, 18)
    assert low < number / before < high
    assert rate == pytest.approx(same, rel=0.25)
    t, now = at(DAYS + 1, 12), int(at(DAYS, 18))
    assert (predictor.price(t, now, 3) > usual.price(t, now, 3)) == (times > 1)
    assert (predictor.demand(t, now) > usual.demand(t, now)) == (times > 1)


def test_dearer_requests_are_expected_on_the_same_day():
    predictor, usual = learned(), learned()
    observe(predictor, DAYS, until=18, rate=2.0)
    number, rate = foreseen(predictor, DAYS, 18)
    before, same = foreseen(usual, DAYS, 18)
    assert number == before
    assert 1.5 < rate / same < 2.2
    t, now = at(DAYS + 1, 12), int(at(DAYS, 18))
    for quantity in (0, 3):
        price, usually = (each.price(t, now, quantity) for each in (predictor, usual))
        assert price / usually == pytest.approx(rate / same, rel=1e-6)


def test_prices_stay_as_they_are_within_half_an_hour():
    predictor = learned()
    observe(predictor, DAYS, until=18, times=2.0)
    t, now = at(DAYS + 1, 12), int(at(DAYS, 18.1))
    seen = SeenRequest(now, now, now + HOUR, 1, HOUR, CREDIT, False)
    predictor.observe(seen)
    before = predictor.price(t, now, 3)
    for _ in range(50):
        predictor.observe(seen)
    assert predictor.price(t, now, 3) == before


def test_a_surge_that_is_over_is_forgotten():
    predictor = learned()
    observe(predictor, DAYS, until=24, times=2.0)
    during = predictor.price(at(DAYS + 1, 12), int(at(DAYS + 1, 0)), 3)
    for day in range(DAYS + 1, DAYS + 5):
        observe(predictor, day, until=24, seed=day)
    after = predictor.price(at(DAYS + 5, 12), int(at(DAYS + 5, 0)), 3)
    usual = learned().price(at(DAYS + 5, 12), int(at(DAYS + 5, 0)), 3)
    assert abs(after - usual) < 0.4 * abs(during - usual)


@pytest.mark.parametrize("options", [{"unsent": 0.5}, {"days": 3}])
def test_the_forecast_stays_where_a_difference_would_tell_nothing(options):
    """Where some see the price and stay away, and where days are not known to be alike."""
    predictor, same = learned(**options), learned(**options)
    observe(predictor, DAYS, until=18, times=3.0, rate=2.0)
    assert foreseen(predictor, DAYS, 18) == foreseen(same, DAYS, 18)


def test_parts_cost_what_the_whole_does_on_a_day_of_dear_requests():
    predictor = learned()
    observe(predictor, DAYS, until=18, times=1.5, rate=3.0)
    t, now, floor, ceiling = at(DAYS + 1, np.arange(24)), int(at(DAYS, 18)), 300_000, 2_500_000
    left = np.full(24, 12)
    whole = predictor.cost(t, now, left, 5, floor, ceiling)
    parts = predictor.cost(t, now, left, 2, floor, ceiling)
    parts = parts + predictor.cost(t, now, left - 2, 3, floor, ceiling)
    np.testing.assert_allclose(whole, parts, rtol=1e-9)
    assert (whole >= 5 * floor).all()
    assert (whole <= 5 * ceiling).all()
    assert len(np.unique(whole)) > 3
