"""A known distribution, and the way from it to what has been learned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing.predictors import Blend, Predictor, Prior, SeenRequest, Spread
from era_pricing.workload import Workload
from tests.pricing.predictors.past import CREDIT, DAY, HOUR, at, crowd, every_day

NOW = int(at(14, 3))


@settings(deadline=None)
@given(
    peak=st.floats(0, 60),
    spare=st.integers(0, 40),
    units=st.integers(1, 40),
    floor=st.integers(1, 2 * CREDIT),
    above=st.integers(0, CREDIT),
    lead_time=st.sampled_from([0, 600, DAY]),
)
def test_with_a_ceiling_the_closed_form_is_still_the_sum(
    peak, spare, units, floor, above, lead_time
):
    prior = Prior(CREDIT, peak, list(range(24)), lead_time)
    question = (at(0, np.arange(30)), int(at(0, 0)), np.full(30, units + spare), units, floor)
    closed = prior.cost(*question, ceiling=floor + above)
    summed = Predictor.cost(prior, *question, ceiling=floor + above)
    np.testing.assert_allclose(closed, summed, rtol=1e-9, atol=1e-3)


@pytest.mark.parametrize("uncertainty", [-0.1, float("nan"), float("inf")])
def test_a_prior_refuses_an_uncertainty_that_is_none(uncertainty):
    with pytest.raises(ValueError, match="^uncertainty must"):
        Prior(CREDIT, 1, uncertainty=uncertainty)


def test_the_band_of_a_prior_is_that_of_a_lognormal_demand():
    prior = Prior(10 * CREDIT, 20, uncertainty=0.5)
    band = prior.forecast(at(0, np.array([5])), int(at(0, 0)), 10, low=0.1, high=0.9)
    factor = np.exp(0.5 * 1.2815515655)
    np.testing.assert_allclose(band.expected, 5 * CREDIT)
    np.testing.assert_allclose(band.high, (1 - 10 / (20 * factor)) * 10 * CREDIT)
    np.testing.assert_allclose(band.low, (1 - 10 / (20 / factor)) * 10 * CREDIT)


def test_the_band_is_wider_where_days_differ_more():
    calm = Workload.concatenate([every_day(range(20), units=1)] * 6)
    busy, quiet = every_day(range(0, 20, 2), units=1), every_day(range(1, 20, 2), units=1)
    wild = Spread(
        Workload.concatenate([busy] * 11 + [quiet]),
        16,
        HOUR,
        weekly=False,
    )
    t, now = at(22, 10), int(at(20, 0))
    assert wild.uncertainty(t, now, 4) > Spread(calm, 16, HOUR).uncertainty(t, now, 4)


def test_what_few_requests_decide_is_less_certain_than_what_many_do():
    predictor = Spread(crowd(4, 14, 300), 64, HOUR)
    deviation = predictor.uncertainty(at(15, 15), NOW, np.array([2, 20, 60]))
    assert (np.diff(deviation) < 0).all()


def test_the_band_holds_most_of_what_then_happens():
    past, inside = crowd(8, 35, 80), []
    predictor = Spread(past.select(past.submitted < at(28, 0)), 16, HOUR)
    t, left = np.arange(0, 24, 3), np.array([[3], [8], [14]])
    for day in range(28, 35):
        own = past.select((past.submitted >= at(day, 0)) & (past.submitted < at(day + 1, 0)))
        happened = Spread(own, 16, HOUR, weekly=False, trend=False)
        actual = happened.price(at(day, t + 9), int(at(day, 0)), left)
        band = predictor.forecast(at(day, t + 9), int(at(day, 0)), left)
        inside.append((band.low - 1 <= actual) & (actual <= band.high + 1))
    assert 0.6 < np.mean(inside) <= 1


def test_a_blend_begins_with_its_prior():
    prior = Prior(5 * CREDIT, 20)
    blend = Blend(prior, Spread.from_nothing(16, HOUR))
    t = at(15, np.arange(24))
    question = (t, NOW, np.full(24, 12), 5, 1000)
    np.testing.assert_allclose(blend.cost(*question), prior.cost(*question))
    np.testing.assert_allclose(blend.price(t, NOW, 7), prior.price(t, NOW, 7))
    np.testing.assert_allclose(
        blend.cost(*question, ceiling=2 * CREDIT), prior.cost(*question, ceiling=2 * CREDIT)
    )


def test_a_blend_ends_with_what_was_learned_however_wrong_the_prior():
    learned = Spread(crowd(1, 14), 16, HOUR)
    blend = Blend(Prior(10**12, 10**6), learned, half_life=3)
    t = at(15, np.arange(24))
    np.testing.assert_allclose(blend.price(t, NOW, 7), learned.price(t, NOW, 7))
    np.testing.assert_allclose(blend.uncertainty(t, NOW, 7), learned.uncertainty(t, NOW, 7))


def test_the_hours_that_were_seen_are_learned_first():
    past = crowd(2, 1, 200)
    morning = past.select(past.submitted < at(0, 12))
    blend = Blend(Prior(5 * CREDIT, 20), Spread(morning, 16, HOUR), half_life=1)
    weight = blend.weight(at(1, np.array([8, 11, 14, 22])))
    assert (weight[:2] > 0.3).all()
    assert (weight[2:] < 0.05).all()


def test_after_its_half_life_a_blend_is_half_way():
    blend = Blend(Prior(5 * CREDIT, 20), Spread(crowd(3, 4, 100), 16, HOUR), half_life=4)
    assert blend.weight(at(5, 15)) == pytest.approx(0.5, abs=0.02)


def test_a_blend_learns_from_what_it_observes():
    blend = Blend(Prior(CREDIT, 0), Spread.from_nothing(16, HOUR))
    t = at(9, 10)
    assert blend.price(t, int(at(9, 1)), 2) == 0
    for day in range(8):
        start = int(at(day, 10))
        blend.observe(SeenRequest(start, start, start + HOUR, 4, HOUR, 8 * CREDIT, True))
    assert blend.price(t, int(at(9, 1)), 2) == pytest.approx(2 * CREDIT, rel=0.1)


@pytest.mark.parametrize("half_life", [0, -1, float("nan")])
def test_a_blend_needs_a_half_life(half_life):
    with pytest.raises(ValueError, match="^half_life must"):
        Blend(Prior(CREDIT, 1), Spread.from_nothing(8, HOUR), half_life=half_life)
