"""What bidders may rely on: flexibility never costs, and the value is never looked at."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing import (
    BasicEcon,
    Bid,
    Configuration,
    Era,
    FirstFit,
    Inventory,
    Prior,
    Reservation,
    ResourceRequest,
    TimeGrid,
)

HOUR = 3600
SPAN = 10 * HOUR
times = st.integers(0, SPAN)


@st.composite
def pools(draw):
    """A pool of 6 GPUs with some promises, at any second; windows need not fit the slots."""
    era = Era(
        TimeGrid(HOUR, 24 * HOUR),
        Inventory(6),
        [Configuration("gpu", {"nvidia.com/gpu": "1"})],
        draw(st.sampled_from([BasicEcon(), FirstFit(123)])),
        Prior(997, 7, draw(st.lists(st.integers(1, 9), min_size=24, max_size=24))),
        13,
        lambda: 0,
    )
    taken = draw(st.lists(st.integers(0, 6), min_size=10, max_size=10))
    era.restore(
        Reservation(str(t), "gpu", n, n, t * HOUR, (t + 1) * HOUR, (0,), 0)
        for t, n in enumerate(taken)
    )
    return era


@st.composite
def requests(draw):
    arrival = draw(st.integers(0, SPAN - 1))
    deadline = draw(st.integers(arrival + 1, SPAN))
    duration = draw(st.integers(1, deadline - arrival))
    return ResourceRequest("gpu", duration, arrival, deadline, draw(st.integers(1, 4)))


def price(era, request):
    quote = era.quote(request)
    return float("inf") if quote.price is None else quote.price


@settings(deadline=None)
@given(pools(), requests(), times, times)
def test_a_wider_window_never_costs_more(era, request, earlier, later):
    wider = ResourceRequest(
        "gpu",
        request.duration,
        max(0, request.arrival - earlier),
        min(SPAN, request.deadline + later),
        request.count,
    )
    assert price(era, wider) <= price(era, request)


@settings(deadline=None)
@given(pools(), requests(), st.integers(0, 2), st.integers(0, 5 * HOUR))
def test_fewer_units_or_less_time_never_cost_more(era, request, units, seconds):
    less = ResourceRequest(
        "gpu",
        max(1, request.duration - seconds),
        request.arrival,
        request.deadline,
        max(1, request.count - units),
    )
    assert price(era, less) <= price(era, request)


@settings(deadline=None)
@given(pools(), requests())
def test_no_second_of_the_window_is_cheaper_than_the_offer(era, request):
    offer = price(era, request)
    for start in range(request.arrival, request.deadline - request.duration, 1201):
        alone = ResourceRequest(
            "gpu", request.duration, start, start + request.duration, request.count
        )
        assert offer <= price(era, alone)


@settings(deadline=None)
@given(pools(), requests())
def test_what_is_quoted_is_charged(era, request):
    quote = era.quote(request)
    assert era.quote(request).price == quote.price  # asking changes nothing
    decision = era.make_reservation("a", Bid(request, 10**12))
    assert decision.price == quote.price
    assert decision.accepted == quote.feasible
    if quote.feasible:
        assert decision.reservation.price == quote.price == sum(quote.slot_prices)
        assert decision.reservation.start == quote.start
        assert min(quote.slot_prices) >= 0
        assert quote.price in quote.prices
        assert quote.start in quote.starts


class Recorder(BasicEcon):
    """Notes down all that the engine lets it know."""

    def __init__(self):
        self.heard = []
        self.outcomes = []

    def rates(self, units, market):
        self.heard.append(("rates", units, market.now, tuple(market.times), tuple(market.free)))
        return super().rates(units, market)

    def choose(self, starts, prices, market):
        self.heard.append(("choose", tuple(starts), tuple(prices), sorted(vars(market))))
        return super().choose(starts, prices, market)

    def settle(self, offer, taken):
        self.heard.append(("settle", offer))
        self.outcomes.append(taken)


@pytest.mark.parametrize("above", [-(10**6), -1, 0, 1, 10**9])
def test_a_bid_wins_from_the_price_on_and_the_algorithm_never_sees_its_value(make_era, above):
    request = ResourceRequest("two", 2 * HOUR, 500, 30 * HOUR)
    expected = make_era().quote(request).price
    value = max(0, expected + above)
    asked, recorder = Recorder(), Recorder()
    make_era(algorithm=asked).make_reservation("a", Bid(request, expected))
    decision = make_era(algorithm=recorder).make_reservation("a", Bid(request, value))
    assert decision.accepted == (value >= expected)
    assert decision.price == expected
    assert (decision.reservation is None) == (not decision.accepted)
    assert (decision.reason is None) == decision.accepted
    assert recorder.heard == asked.heard
    assert recorder.outcomes == [decision.accepted]
