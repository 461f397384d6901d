"""Prices that go on in another process: after a restart, and on another replica."""

from __future__ import annotations

import pytest

from era_pricing import Bid, Era, Feedback
from era_pricing.algorithms import BidPrice
from tests.pricing.small_pool import HOUR, RICH, ask, build

NOW = 6 * HOUR


def pool(**options: object) -> Era:
    return build(algorithm=BidPrice(**{"interval": HOUR, **options}))


def after_six_hours(**options: object) -> Era:
    """A pool that has solved seven times, with bookings at different times."""
    era = pool(**options)
    for hour in range(7):
        era.update(Feedback(), now=hour * HOUR)
        wanted = ask("two", 2 * HOUR, (hour + 3) * HOUR, (hour + 9) * HOUR)
        era.make_reservation(f"job-{hour}", Bid.of(wanted, RICH), now=hour * HOUR + 60)
    return era


def prices(era: Era, configuration: str = "gpu") -> list[int]:
    return [int(each) for each in era.prices(configuration, NOW, 40, now=NOW + 120)]


@pytest.mark.parametrize("options", [{}, {"steady": True}, {"smoothing": 0.9, "local": 0.0}])
@pytest.mark.parametrize("configuration", ["gpu", "four"])
def test_prices_are_the_same_where_an_engine_goes_on_from_a_state(options, configuration):
    era = after_six_hours(**options)
    again = pool(**options)
    again.restore(era.reservations(), now=NOW + 120, state=era.take_state())
    assert prices(again, configuration) == prices(era, configuration)


def test_so_are_those_solved_later():
    era, again = after_six_hours(), pool()
    again.restore(era.reservations(), now=NOW + 120, state=era.take_state())
    for each in (era, again):
        each.update(Feedback(), now=NOW + HOUR)
    first, second = (each.prices("gpu", NOW + HOUR, 30, now=NOW + HOUR) for each in (era, again))
    assert first.tolist() == second.tolist()


def test_without_a_state_prices_begin_anew():
    era, again = after_six_hours(), pool()
    again.restore(era.reservations(), now=NOW + 120)
    assert prices(again) != prices(era)


@pytest.mark.parametrize("spoil", [lambda state: b"", lambda state: b"x" * 99, lambda s: s[:-40]])
def test_a_state_that_cannot_be_read_is_left_aside(spoil):
    era, again, anew = after_six_hours(), pool(), pool()
    again.restore(era.reservations(), now=NOW + 120, state=spoil(era.take_state()))
    anew.restore(era.reservations(), now=NOW + 120)
    assert prices(again) == prices(anew)


@pytest.mark.parametrize("options", [{"steady": True}, {"interval": 2 * HOUR}])
def test_so_is_one_of_prices_that_mean_something_else(options):
    era, again, anew = after_six_hours(**options), pool(), pool()
    again.restore(era.reservations(), now=NOW + 120, state=era.take_state())
    anew.restore(era.reservations(), now=NOW + 120)
    assert prices(again) == prices(anew)


def test_a_state_is_given_once_for_each_solution():
    era = pool()
    assert era.take_state() is None
    era.update(Feedback(), now=0)
    assert era.take_state() is not None
    assert era.take_state() is None
    era.update(Feedback(), now=HOUR - 1)
    assert era.take_state() is None
    era.update(Feedback(), now=HOUR)
    assert era.take_state() is not None


def test_prices_that_follow_from_books_and_forecast_need_none():
    era = build()
    era.update(Feedback(), now=0)
    assert era.take_state() is None
