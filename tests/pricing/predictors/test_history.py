"""What is learned from past requests: how much, when, at which price, and how far ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing.predictors import LP, Predictor, SeenRequest, Spread
from era_pricing.workload import Workload
from tests.pricing.predictors.past import CREDIT, DAY, HOUR, at, crowd, every_day, requests

both = pytest.mark.parametrize("kind", [Spread, LP])


def far_ahead(predictor, t):
    """Demand in a slot when all of it is still to come."""
    return predictor.demand(np.asarray(t), int(np.min(t)) - 30 * DAY)


def learn_all(predictor, workload, **changes):
    """Let a predictor observe requests, and one more a day later, so that it renews itself."""
    columns = ("submitted", "arrival", "deadline", "units", "duration", "value")
    for row in zip(*(getattr(workload, column).tolist() for column in columns), strict=True):
        predictor.observe(replace(SeenRequest(*row, accepted=True), **changes))
    last = int(workload.submitted[-1]) + DAY
    predictor.observe(SeenRequest(last, last, last + HOUR, 1, HOUR, 0, False))


# -- how much, when, at which price ----------------------------------------------------


@both
def test_what_was_wanted_every_day_is_expected_again_at_its_price(kind):
    predictor = kind(every_day(range(14), hour=10, units=3, rate=2), 8, HOUR)
    now = int(at(13, 23))
    at_ten = at(14, 10)
    np.testing.assert_allclose(predictor.demand(at_ten, now), 3, rtol=0.05)
    prices = predictor.price(at_ten, now, np.array([0, 1, 2, 4, 5]))
    np.testing.assert_allclose(prices[:2], 2 * CREDIT, rtol=0.01)
    assert 1.8 * CREDIT < prices[2] < 2.001 * CREDIT
    assert list(prices[3:]) == [0, 0]
    elsewhere = at(14, np.array([3, 8, 12, 20]))
    assert (predictor.price(elsewhere, now, 0) < 0.01 * CREDIT).all()


@both
def test_demand_is_the_mean_over_the_days(kind):
    predictor = kind(every_day(range(0, 28, 2), units=4), 8, HOUR, weekly=False)
    assert far_ahead(predictor, at(30, 10)) == pytest.approx(2, rel=0.1)


@both
def test_dear_demand_sets_the_price_while_little_is_left(kind):
    days = range(14)
    past = Workload.concatenate(
        [every_day(days, units=2, rate=5), every_day(days, units=3, rate=1)]
    )
    predictor = kind(past, 5, HOUR)
    prices = predictor.price(at(15, 10), int(at(13, 23)), np.array([0, 1, 3, 6]))
    np.testing.assert_allclose(prices / CREDIT, [5, 5, 1, 0], rtol=0.1, atol=0.05)


@both
def test_floor_and_ceiling_hold_for_each_unit(kind):
    days = range(14)
    past = Workload.concatenate(
        [every_day(days, units=2, rate=5), every_day(days, units=3, rate=1)]
    )
    predictor = kind(past, 9, HOUR)
    question = (at(np.array([15]), 10), int(at(13, 23)), np.array([9]), 9)
    cost = predictor.cost(*question, CREDIT // 2, ceiling=3 * CREDIT)
    np.testing.assert_allclose(cost / CREDIT, 2 * 3 + 3 * 1 + 4 * 0.5, rtol=0.03)


@both
def test_less_than_a_unit_expected_costs_that_share_of_its_price(kind):
    predictor = kind(every_day(range(0, 28, 4), units=1, rate=2), 8, HOUR, weekly=False)
    price = predictor.price(at(29, 10), int(at(28, 0)), np.array(0))
    assert price == pytest.approx(2 * CREDIT / 4, rel=0.15)


@both
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), slot=st.sampled_from([300, 1800, HOUR, 2 * HOUR]))
def test_all_the_work_of_a_day_is_placed_somewhere(kind, seed, slot):
    past = crowd(seed, days=7, each_day=30)
    predictor = kind(past, 16, slot, weekly=False, half_life=1e6, trend=False)
    day = at(8, np.arange(0, 24, predictor.resolution / HOUR))
    expected = far_ahead(predictor, day).sum() * predictor.resolution
    asked = float((past.units * (-(-past.duration // slot) * slot)).sum())
    assert expected * 7 == pytest.approx(asked, rel=0.2)


def test_a_flexible_request_is_spread_over_its_window_or_put_where_it_is_not_in_the_way():
    days = range(14)
    firm = every_day(days, hour=9, hours=6, units=8, rate=3)
    flexible = every_day(days, hour=9, hours=6, units=8, rate=1, slack=9)
    past = Workload.concatenate([firm, flexible])
    peak, evening, now = at(15, 12), at(15, 19), int(at(14, 0))
    spread, lp = Spread(past, 8, HOUR), LP(past, 8, HOUR)
    assert spread.demand(peak, now) > 11
    assert lp.demand(peak, now) == pytest.approx(8, rel=0.1)
    assert lp.demand(evening, now) > spread.demand(evening, now) + 1


def test_the_optimum_also_tells_what_it_turns_away():
    days = range(14)
    past = Workload.concatenate(
        [every_day(days, units=8, rate=3), every_day(days, units=8, rate=1)]
    )
    lp = LP(past, 8, HOUR)
    prices = lp.price(at(15, 10), int(at(14, 0)), np.array([4, 12]))
    np.testing.assert_allclose(prices / CREDIT, [3, 1], rtol=0.05)


# -- lead time -----------------------------------------------------------------------


@both
def test_what_is_asked_for_long_before_is_not_to_come_any_more(kind):
    predictor = kind(every_day(range(14), hour=18, lead=12), 8, HOUR)
    evening = at(15, 18)
    shares = [
        float(predictor.share_to_come(evening, int(evening) - hours * HOUR))
        for hours in (30, 20, 6, 1, 0)
    ]
    np.testing.assert_allclose(shares, [1, 1, 0, 0, 0], atol=0.02)
    assert predictor.price(evening, int(evening) - 6 * HOUR, 0) < 0.01 * CREDIT


@pytest.mark.parametrize("kind", [Spread, LP])
@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 3), hour=st.floats(0, 24), hours=st.lists(st.floats(-5, 500), min_size=2)
)
def test_the_share_to_come_falls_from_one_to_none(kind, seed, hour, hours):
    predictor, t = learned(kind, seed), at(40, hour)
    nows = [int(t) - round(before * HOUR) for before in sorted(hours)]
    shares = [float(predictor.share_to_come(t, now)) for now in nows]
    assert all(0 <= share <= 1 + 1e-9 for share in shares)
    assert (np.diff(shares) >= -1e-9).all()
    assert predictor.share_to_come(t, int(t) - 80 * DAY) == pytest.approx(1)
    assert predictor.demand(t, int(t) + DAY) == 0


_LEARNED: dict[tuple[type[Predictor], int], Spread | LP] = {}


def learned(kind, seed):
    if (kind, seed) not in _LEARNED:
        _LEARNED[kind, seed] = kind(crowd(seed), 16, 1800)
    return _LEARNED[kind, seed]


def test_who_comes_late_and_pays_more_is_waited_for():
    """Early bookers pay little, late ones a lot: close to the slot only the latter are left."""
    days = range(28)
    early = every_day(days, hour=15, units=6, rate=1, lead=20)
    late = every_day(days, hour=15, units=6, rate=4, lead=2)
    predictor = Spread(Workload.concatenate([early, late]), 16, HOUR)
    t = at(29, 15)
    long_before, shortly_before = (
        predictor.price(t, int(t) - hours * HOUR, np.array([1, 8])) / CREDIT for hours in (40, 8)
    )
    np.testing.assert_allclose(long_before, [4, 1], rtol=0.05)
    np.testing.assert_allclose(shortly_before, [4, 0], rtol=0.05, atol=0.05)


# -- seasons, trend, drift -------------------------------------------------------------


@both
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32), weeks=st.integers(-50, 500))
def test_a_history_that_is_weeks_older_says_the_same(kind, seed, weeks):
    past, t, now = crowd(seed, 8, 20), at(10, np.arange(0, 24, 0.5)), int(at(9, 11.3))
    older = past.shifted(-weeks * 7 * DAY)
    quantity = np.array([[0], [5], [20]])
    prices = [
        kind(history, 16, 1800, trend=False).price(t, now, quantity) for history in (past, older)
    ]
    np.testing.assert_allclose(*prices, rtol=1e-6, atol=1)


def test_quiet_weekends_are_learned_from_two_weeks_but_not_from_less():
    saturday, monday = at(47, 15), at(49, 15)  # day 0 is a Monday
    for days, least, most in ((9, 0.75, 1.35), (16, 0.0, 0.5)):
        predictor = Spread(crowd(5, days, weekend=0.1), 16, HOUR)
        ratio = far_ahead(predictor, saturday) / far_ahead(predictor, monday)
        assert least < ratio < most


@pytest.mark.parametrize("seed", range(6))
def test_days_of_the_week_that_differ_by_chance_are_taken_to_be_alike(seed):
    predictor = Spread(crowd(seed, 21), 16, HOUR)
    week = far_ahead(predictor, at(30 + np.arange(7), 15))
    usual = Spread(crowd(seed, 21), 16, HOUR, weekly=True)
    assert np.ptp(week) <= 0.5 * np.ptp(far_ahead(usual, at(30 + np.arange(7), 15))) + 1e-9


def test_growth_goes_on_but_levels_off():
    growing = Spread(crowd(6, 28, growth=0.4), 16, HOUR)
    level = [float(far_ahead(growing, at(27 + 7 * week, 15))) for week in range(6)]
    assert level[1] > level[0]
    growth = np.diff(level)
    assert (growth[1:] < 0.9 * growth[:-1]).all()
    without = Spread(crowd(6, 28, growth=0.4), 16, HOUR, trend=False)
    assert level[0] > far_ahead(without, at(28, 15))


@pytest.mark.parametrize("growth", [-2, -0.24, 0.4, 3])
def test_no_trend_takes_demand_beyond_a_third_or_three_times(growth):
    predictor = Spread(crowd(7, 28, growth=growth), 16, HOUR)
    flat = Spread(crowd(7, 28, growth=growth), 16, HOUR, trend=False)
    for day in (28, 60, 1000):
        ratio = far_ahead(predictor, at(day, 15)) / far_ahead(flat, at(day, 15))
        assert 1 / 3 - 1e-9 <= ratio <= 3 + 1e-9


def test_a_history_that_ends_at_noon_does_not_halve_the_day():
    past = crowd(8, 15)
    cut = past.select(past.submitted < at(14, 12))
    t = at(20, np.array([2, 6, 14, 20]))
    whole = far_ahead(Spread(past.select(past.submitted < at(14, 0)), 16, HOUR), t)
    np.testing.assert_allclose(far_ahead(Spread(cut, 16, HOUR), t), whole, rtol=0.2)


@pytest.mark.parametrize("days", [3, 40])
def test_time_that_nobody_watched_is_not_taken_for_quiet(days):
    predictor = Spread(every_day(range(10)), 8, HOUR)
    learn_all(predictor, every_day(range(9 + days, 15 + days)))
    assert far_ahead(predictor, at(17 + days, 10)) == pytest.approx(3, rel=0.1)


@both
def test_what_is_observed_after_a_change_replaces_what_was(kind):
    predictor = kind(every_day(range(14), units=8), 16, HOUR, weeks=3, half_life=3)
    learn_all(predictor, every_day(range(14, 35), units=2))
    assert far_ahead(predictor, at(36, 10)) == pytest.approx(2, rel=0.2)


# -- learning as it goes -----------------------------------------------------------------


def test_what_is_observed_counts_from_the_next_day_on():
    predictor = Spread(every_day(range(4, 7)), 8, HOUR)
    t, now = at(9, 10), int(at(7, 1))
    before = predictor.price(t, now, 3)
    for hour in range(1, 23):
        start = int(at(7, hour))
        predictor.observe(SeenRequest(start, int(t), int(t) + HOUR, 8, HOUR, 8 * CREDIT, True))
        assert predictor.price(t, now, 3) == before
    midnight = int(at(8, 0.1))
    predictor.observe(SeenRequest(midnight, midnight, midnight + HOUR, 1, HOUR, 1, False))
    assert predictor.price(t, now, 3) > before


@both
def test_observing_and_being_given_a_history_come_to_the_same(kind):
    past = crowd(9, 10)
    given_all, observer = kind(past, 16, 1800), kind.from_nothing(16, 1800)
    learn_all(observer, past)
    day = at(12, np.arange(0, 24, 0.5))
    np.testing.assert_allclose(
        far_ahead(observer, day).mean(), far_ahead(given_all, day).mean(), rtol=0.15
    )
    np.testing.assert_allclose(
        np.minimum(observer.price(day, int(at(11, 0)), 10), 5 * CREDIT),
        np.minimum(given_all.price(day, int(at(11, 0)), 10), 5 * CREDIT),
        atol=0.7 * CREDIT,
    )


def test_the_allocation_of_a_day_knows_what_was_placed_the_day_before():
    """Booked at night for the morning; who comes in the morning can wait for the afternoon."""
    days = range(10)
    booked = every_day(days, hour=9, hours=3, units=8, rate=3, lead=11)
    flexible = every_day(days, hour=8, hours=3, units=8, rate=1, slack=5)
    lp = LP.from_nothing(8, HOUR, weekly=False, half_life=1e6)
    learn_all(lp, Workload.concatenate([booked, flexible]).sorted())
    assert far_ahead(lp, at(12, 10)) == pytest.approx(8, rel=0.05)
    assert far_ahead(lp, at(12, 14)) > 4


def test_the_allocation_of_a_day_leaves_room_for_those_expected_on_the_next():
    """Who comes at night could also be served in the morning, which others always need."""
    days = range(14)
    firm = every_day(days, hour=8, hours=4, units=8, rate=3)
    night = every_day(days, hour=22, hours=4, units=8, rate=1, slack=10)
    lp = LP.from_nothing(8, HOUR, weekly=False, half_life=3)
    learn_all(lp, Workload.concatenate([firm, night]).sorted())
    assert far_ahead(lp, at(16, 10)) < 8.8
    assert far_ahead(lp, at(16, 3)) > 2.5


def test_what_is_older_than_the_history_is_ignored():
    past = every_day(range(14))
    predictor, untouched = Spread(past, 8, HOUR), Spread(past, 8, HOUR)
    for seen in every_day(range(13), hour=8, units=8).submitted.tolist():
        predictor.observe(SeenRequest(seen, seen, seen + HOUR, 8, HOUR, 10**9, True))
    later = int(at(14, 1))
    for each in (predictor, untouched):
        for day in range(3):
            start = later + day * DAY
            each.observe(SeenRequest(start, start, start + HOUR, 1, HOUR, CREDIT, True))
    t = at(18, np.arange(24))
    np.testing.assert_array_equal(far_ahead(predictor, t), far_ahead(untouched, t))


def test_requests_that_make_no_sense_are_left_out():
    predictor = Spread.from_nothing(8, HOUR)
    start = int(at(0, 1))
    for arrival, deadline, units, duration, value in (
        (start, start + HOUR, 0, HOUR, 1),
        (start, start + 10, 1, HOUR, 1),
        (start, start + HOUR, 1, 0, 1),
        (start, start + HOUR, 1, HOUR, -1),
        (start - HOUR, start + HOUR - 1, 1, HOUR, 1),
    ):
        predictor.observe(SeenRequest(start, arrival, deadline, units, duration, value, False))
    past = start - 10 * HOUR  # the window began long ago
    predictor.observe(SeenRequest(start, past, start + HOUR, 2, HOUR, 2 * CREDIT, True))
    predictor.observe(SeenRequest(start + DAY, start + DAY, start + 2 * DAY, 1, HOUR, 0, False))
    assert far_ahead(predictor, at(3, 1)) == pytest.approx(2, rel=0.2)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32))
def test_a_predictor_of_the_same_seed_says_the_same(seed):
    one, other = (Spread(crowd(1, 7, 40), 16, HOUR, room=50, seed=seed) for _ in range(2))
    now = int(at(8, 0))
    (a, some), (b, others) = one.expected(now, now + DAY), other.expected(now, now + DAY)
    assert list(a.value) == list(b.value)
    assert list(some) == list(others)


# -- requests that were never sent -------------------------------------------------------


@pytest.mark.parametrize("price", [None, 3 * CREDIT])
def test_cheap_demand_is_made_up_for_where_people_see_the_price_first(price):
    """Half of those below the price send no bid, so those who do count for two."""
    kept = {}
    for unsent in (0, 0.5):
        predictor = Spread.from_nothing(8, HOUR, unsent=unsent, weekly=False)
        learn_all(
            predictor,
            every_day(range(10), units=2, rate=1),
            accepted=False,
            price=price and 2 * price,
        )
        kept[unsent] = far_ahead(predictor, at(12, 10))
    assert kept[0.5] / kept[0] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("price", [None, CREDIT])
def test_those_who_could_afford_it_all_came(price):
    demand = {}
    for unsent in (0, 0.9):
        predictor = Spread.from_nothing(8, HOUR, unsent=unsent, weekly=False)
        learn_all(predictor, every_day(range(10), units=2, rate=3), price=price and 2 * price)
        demand[unsent] = far_ahead(predictor, at(12, 10))
    assert demand[0.9] == pytest.approx(demand[0], rel=0.02)


def test_nobody_stands_for_more_than_ten():
    predictor = Spread.from_nothing(8, HOUR, unsent=1.0, weekly=False)
    learn_all(predictor, every_day(range(10), units=1), accepted=False, price=10**9)
    assert far_ahead(predictor, at(12, 10)) == pytest.approx(10, rel=0.05)


# -- what comes in and cannot be used ------------------------------------------------------


@both
def test_an_empty_history_is_refused_with_a_way_out(kind):
    with pytest.raises(ValueError, match="^history must .* use 'blend', .* or 'prior'$"):
        kind(Workload.empty(), 8, HOUR)


@both
def test_without_a_history_nobody_is_expected(kind):
    predictor, t = kind.from_nothing(8, HOUR), at(0, np.arange(24))
    assert not predictor.price(t, int(at(0, 0)), 0).any()
    np.testing.assert_array_equal(
        predictor.cost(t, int(at(0, 0)), np.full(24, 8), 3, 7), np.full(24, 21)
    )
    assert not predictor.days_seen(t).any()
    requests, weights = predictor.expected(int(at(0, 0)), int(at(9, 0)))
    assert len(requests) == len(weights) == 0


@both
@pytest.mark.parametrize(
    "past",
    [
        every_day(range(14), rate=0),
        every_day([0]),
        requests([(0, 0, 1, 1, 1, 1)] * 50),
        requests([(0, 0, 24 * 365 * 50, 1, 1, 1)]),
        requests([(0, 24 * 300, 24 * 301, 1, 1, 1)]),
        requests([(0, 0, 24 * 200, 1, 24 * 200, 1), (500, 500, 501, 1000, 1, 5)]),
        requests([(0, 0, 1, 1, 1, 1), (24 * 400, 24 * 400, 24 * 400 + 1, 1, 1, 1)]),
    ],
    ids=[
        "worthless",
        "single",
        "at once",
        "no hurry",
        "far ahead",
        "long and large",
        "a year apart",
    ],
)
def test_odd_histories_give_sound_prices(kind, past):
    predictor = kind(past, 8, HOUR)
    now = int(past.submitted[-1])
    t = now // HOUR * HOUR + HOUR * np.arange(48)
    band = predictor.forecast(t, now, np.arange(48) % 9)
    assert np.isfinite([band.low, band.expected, band.high]).all()
    cost = predictor.cost(t, now, np.full(48, 8), 8, 10)
    assert np.isfinite(cost).all()
    assert (cost >= 80).all()
    dearest = past.value * HOUR / (past.units * past.duration)
    assert (band.high <= dearest.max() * (1 + 1e-9) + 1e-6).all()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"slot": -300}, "slot"),
        ({"slot": 0.5}, "slot"),
        ({"weeks": 0}, "weeks"),
        ({"period": True}, "period"),
        ({"room": 0}, "room"),
        ({"half_life": 0}, "half_life"),
        ({"half_life": float("nan")}, "half_life"),
        ({"unsent": 1.2}, "unsent"),
        ({"unsent": float("nan")}, "unsent"),
    ],
)
def test_a_wrong_parameter_is_named(options, field):
    with pytest.raises(ValueError, match=f"^{field} must"):
        Spread(every_day([0]), **{"capacity": 8, "slot": HOUR, **options})
