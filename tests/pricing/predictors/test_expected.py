"""The requests still to come, as the algorithms get them that plan ahead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing.predictors import Blend, Prior, SeenRequest, Spread
from era_pricing.workload import Workload
from tests.pricing.predictors.past import CREDIT, DAY, HOUR, at, crowd, every_day

NOW = int(at(21, 0))


def units_in(requests, weights, start, end):
    """Expected unit-seconds of those whose window begins in [start, end)."""
    inside = (requests.arrival >= start) & (requests.arrival < end)
    return float((weights * requests.units * requests.duration)[inside].sum())


def test_as_many_are_expected_as_there_were_each_week():
    predictor = Spread(crowd(1, 21, 40), 16, HOUR, trend=False, half_life=1e6)
    for days in (1, 7, 14):
        _, weights = predictor.expected(NOW, NOW + days * DAY)
        assert weights.sum() == pytest.approx(40 * days, rel=0.15)


def test_they_come_at_the_same_time_of_the_week_with_the_same_wishes():
    past = every_day([0, 7, 14], hour=9, units=3, hours=2, lead=5, slack=1)
    requests, weights = Spread(past, 8, HOUR, weekly=True).expected(NOW, NOW + 7 * DAY)
    assert set(requests.submitted.tolist()) == {int(at(21, 4))}
    assert set(requests.arrival.tolist()) == {int(at(21, 9))}
    assert set(requests.deadline.tolist()) == {int(at(21, 12))}
    assert set(requests.value.tolist()) == {3 * 2 * 2 * CREDIT}
    assert weights.sum() == pytest.approx(1, rel=0.05)


def test_where_days_are_alike_all_of_them_tell_about_each():
    past = Workload.concatenate([every_day([day], units=day + 1) for day in range(14)])
    requests, weights = Spread(past, 64, HOUR, trend=False).expected(NOW, NOW + DAY)
    assert set(requests.units.tolist()) == set(range(1, 15))
    assert weights.sum() == pytest.approx(1, rel=0.05)


def test_a_quiet_weekday_stays_quiet():
    busy = every_day([day for day in range(28) if day % 7 not in (5, 6)] * 10)
    quiet = every_day([day for day in range(28) if day % 7 in (5, 6)] * 2)
    predictor = Spread(Workload.concatenate([busy, quiet]), 64, HOUR)
    requests, weights = predictor.expected(int(at(28, 0)), int(at(35, 0)))
    day = (requests.submitted - int(at(28, 0))) // DAY
    assert np.bincount(day, weights, 7) == pytest.approx([10] * 5 + [2] * 2, rel=0.1)


def test_the_latest_week_counts_most():
    past = every_day(range(7), units=1)
    more = every_day(range(7, 14), units=5)
    predictor = Spread(Workload.concatenate([past, more]), 8, HOUR, half_life=3.5)
    requests, weights = predictor.expected(NOW, NOW + 7 * DAY)
    share = weights[requests.units == 5].sum() / weights.sum()
    assert share == pytest.approx(0.8, abs=0.03)


def test_a_history_of_some_days_repeats_every_day():
    predictor = Spread(every_day(range(3)), 8, HOUR)
    _, weights = predictor.expected(int(at(3, 0)), int(at(13, 0)))
    assert weights.sum() == pytest.approx(10, rel=0.01)


def test_growth_brings_more_of_them():
    growing = crowd(6, 28, growth=0.4)
    now = int(at(28, 0))
    _, with_trend = Spread(growing, 16, HOUR).expected(now, now + 7 * DAY)
    _, without = Spread(growing, 16, HOUR, trend=False).expected(now, now + 7 * DAY)
    assert with_trend.sum() > 1.05 * without.sum()


@settings(deadline=None, max_examples=20)
@given(room=st.integers(1, 600), days=st.integers(1, 20))
def test_where_there_are_too_many_a_choice_stands_for_all(room, days):
    past = crowd(2, 14, 30)
    predictor = Spread(past, 16, HOUR, trend=False, room=room)
    requests, weights = predictor.expected(NOW, NOW + days * DAY)
    assert len(requests) <= room
    if room >= 200:
        assert weights.sum() == pytest.approx(30 * days, rel=0.35)


def test_memory_stays_within_its_room_while_learning():
    predictor = Spread.from_nothing(16, HOUR, room=100, weeks=2)
    past = crowd(3, 40, 50)
    for row in zip(
        past.submitted.tolist(), past.deadline.tolist(), past.value.tolist(), strict=True
    ):
        predictor.observe(seen(*row))
    requests, weights = predictor.expected(int(at(40, 0)), int(at(47, 0)))
    assert len(requests) <= 100
    assert weights.sum() == pytest.approx(350, rel=0.35)


def seen(submitted, deadline, value):
    return SeenRequest(submitted, submitted, deadline, 1, 60, value, True)


@pytest.mark.parametrize("lead_time", [0, HOUR, 5 * HOUR])
def test_a_prior_expects_the_units_of_its_demand(lead_time):
    prior = Prior(5 * CREDIT, 12, [1 + hour % 3 for hour in range(24)], lead_time)
    requests, weights = prior.expected(NOW, NOW + 20 * DAY)
    start = NOW + 3 * DAY
    asked = units_in(requests, weights, start, start + DAY)
    assert asked == pytest.approx(float(prior.demand(start + HOUR * np.arange(24), 0).sum()) * HOUR)
    worth = requests.value / (requests.units * requests.duration / HOUR)
    dear = worth > 2.5 * CREDIT
    above = units_in(requests.select(dear), weights[dear], start, start + DAY)
    assert above == pytest.approx(asked / 2)


def test_a_prior_leaves_out_what_was_submitted_before_now():
    prior = Prior(5 * CREDIT, 12, lead_time=4 * HOUR)
    requests, weights = prior.expected(NOW, NOW + DAY)
    soon = units_in(requests, weights, NOW, NOW + 2 * HOUR) / HOUR
    later = units_in(requests, weights, NOW + 16 * HOUR, NOW + 18 * HOUR) / HOUR
    assert soon == pytest.approx(float(prior.demand(at(21, np.array([0, 1])), NOW).sum()), abs=6)
    assert soon < later == 24


def test_a_blend_moves_from_the_one_to_the_other():
    prior = Prior(5 * CREDIT, 12)
    counts = []
    for days in (0, 1, 8):
        past = every_day(range(days), units=7)
        learned = Spread(past, 16, HOUR, cold_start=True)
        requests, weights = Blend(prior, learned, half_life=2).expected(NOW, NOW + DAY)
        counts.append((weights[requests.units == 1].sum(), weights[requests.units == 7].sum()))
    (before, none), (some, few), (nothing, after) = counts
    assert (before, none) == (pytest.approx(24 * 12), 0)
    assert before > some > 0
    assert 0 < few < 1
    assert (nothing, after) == (0, pytest.approx(1, rel=0.01))
