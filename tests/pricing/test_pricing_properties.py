"""What bidders may rely on, whatever the algorithm.

Flexibility never costs, asking for less never costs more, splitting never pays, and a
bid that tells the truth is never worse off than one that does not.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing import (
    Alternative,
    BasicEcon,
    Bid,
    Commitment,
    Configuration,
    FirstFit,
    Inventory,
    PricedResource,
    Prior,
    Reservation,
    ResourceRequest,
    Share,
    TimeGrid,
    ValueStep,
    Window,
)
from era_pricing.algorithms import BidPrice, Exponential, OnDemand
from era_pricing.reservations import Placement
from era_pricing.workload import Workload
from tests.pricing.small_pool import GPU, HOUR, ask, build

SPAN = 10 * HOUR
hours = st.integers(0, 9).map(lambda hour: hour * HOUR)
times = st.integers(0, SPAN) | hours
everywhere = settings(deadline=None, max_examples=150)

ALGORITHMS = {
    "basic-econ": BasicEcon,
    "first-fit": lambda: FirstFit(123),
    "on-demand": lambda: OnDemand(150),
    "exponential": Exponential,
    "bid-price": lambda: BidPrice(samples=1),
}


class Foreseen(Prior):
    """Foresees, besides, single requests for one to six GPUs in each of the next hours."""

    def expected(self, now, until):
        hour = np.repeat(np.arange(now // HOUR + 1, now // HOUR + 20), 6)
        units = np.tile(np.arange(1, 7), len(hour) // 6)
        start, length = hour * HOUR, np.full(len(hour), HOUR)
        value = units * (60 + 17 * (hour + units) % 400)
        requests = Workload(start - 1, start, start + 3 * HOUR, units, length, value)
        return requests, np.full(len(hour), 0.3)


SHAPES = [{"pool": {GPU: 6, "cpu": "6"}}, {"a": {GPU: 4, "cpu": "3"}, "b": {GPU: 2, "cpu": "3"}}]
CONFIGURATIONS = [
    Configuration("gpu", {GPU: "1"}),
    Configuration("two", {GPU: "2", "cpu": "500m"}),
    Configuration("cpu", {"cpu": "1"}),
]


@st.composite
def pools(
    draw, algorithms=tuple(ALGORITHMS), ceilings=(None, 150, 500), penalties=(0.0, 0.05, 1.0)
):
    """A pool of 6 GPUs with some promises, of which some may be moved."""
    name = draw(st.sampled_from(algorithms))
    nodes = draw(st.sampled_from(SHAPES))
    profile = draw(st.lists(st.integers(1, 9), min_size=24, max_size=24))
    predictor = draw(st.sampled_from([Prior, Foreseen]))
    ceiling = draw(st.sampled_from(ceilings))
    era = build(
        grid=TimeGrid(HOUR, 24 * HOUR),
        inventory=Inventory.of_nodes(nodes),
        configurations=CONFIGURATIONS,
        algorithm=ALGORITHMS[name](),
        priced=[
            PricedResource(GPU, 13, predictor(997, 7, profile), ceiling),
            PricedResource("cpu", 1, Prior(2, 9000)),
        ],
        late_penalty=draw(st.sampled_from(penalties)),
        replan=draw(st.booleans()),
        chunk=draw(st.integers(1, 3)),
    )
    held = []
    for node, units in nodes.items():
        for hour in range(10):
            taken = draw(st.integers(0, units[GPU]))
            movable = draw(st.booleans()) if hour else False
            if taken:
                held.append(promise(f"{node}-{hour}", node, taken, hour, movable))
    era.restore(held, now=0)
    return era


def promise(job_id, node, gpus, hour, movable):
    """An hour that is promised; it may be moved if `movable`."""
    share = Share(node, "gpu", gpus, {GPU: gpus})
    placement = Placement(hour * HOUR, (hour + 1) * HOUR, (0,), (share,))
    commitment = Commitment.FLEXIBLE if movable else Commitment.FIXED
    windows = (Window(max(hour - 3, 1) * HOUR, (hour + 5) * HOUR),) if movable else ()
    return Reservation(job_id, (placement,), 0, commitment, windows)


@st.composite
def requests(draw, shortest=1):
    latest = SPAN - shortest
    arrival = draw(st.integers(0, latest) | hours.filter(lambda time: time <= latest))
    deadline = draw(st.integers(arrival + shortest, SPAN))
    length = deadline - arrival
    duration = draw(st.integers(1, length) | st.just(min(HOUR, length)))
    return ask(draw(names), duration, arrival, deadline, draw(st.integers(1, 3)))


splits = st.sampled_from([[1, 1], [1, 2], [2, 1], [1, 1, 1]])
names = st.sampled_from(["gpu", "two", "cpu"])
commitments = st.sampled_from(list(Commitment))


def change(request, units=0, seconds=0, earlier=0, later=0):
    """The request with fewer bundles, less time, or a wider window."""
    counts = {name: max(1, count - units) for name, count in request.configurations.items()}
    return ResourceRequest(
        counts,
        max(1, request.duration - seconds),
        max(0, request.arrival - earlier),
        min(SPAN, request.deadline + later),
    )


def price(era, request, commitment=Commitment.FIXED):
    found = era.quote(Bid.of(request, 0, commitment)).price
    return float("inf") if found is None else found


@everywhere
@given(pools(), requests(), commitments, times)
def test_a_later_deadline_never_costs_more(era, request, commitment, later):
    wider = change(request, later=later)
    assert price(era, wider, commitment) <= price(era, request, commitment)


@everywhere
@given(
    pools(tuple(name for name in ALGORITHMS if name != "on-demand")), requests(), commitments, times
)
def test_an_earlier_arrival_never_costs_more(era, request, commitment, earlier):
    wider = change(request, earlier=earlier)
    assert price(era, wider, commitment) <= price(era, request, commitment)


@everywhere
@given(pools(), requests(), commitments, st.integers(0, 2), st.integers(0, 5 * HOUR))
def test_fewer_units_or_less_time_never_cost_more(era, request, commitment, units, seconds):
    less = change(request, units=units, seconds=seconds)
    assert price(era, less, commitment) <= price(era, request, commitment)


@everywhere
@given(pools(), requests(), commitments)
def test_being_more_flexible_never_costs_more(era, request, commitment):
    """A job that can be split pays at most what one in one piece pays."""
    whole = price(era, request, Commitment.FLEXIBLE)
    assert price(era, request, Commitment.PREEMPTIBLE) <= whole


@everywhere
@given(pools(("basic-econ", "exponential", "bid-price", "first-fit")), requests())
def test_no_second_of_the_window_is_cheaper_than_the_offer(era, request):
    offer = price(era, request)
    for start in range(request.arrival, request.deadline - request.duration, 1201):
        alone = ResourceRequest(
            request.configurations, request.duration, start, start + request.duration
        )
        assert offer <= price(era, alone)


@everywhere
@given(
    pools(),
    names,
    splits,
    times,
    commitments,
)
def test_splitting_a_request_never_pays(era, name, parts, arrival, commitment):
    """At one and the same time, that is, and while nobody is moved aside for a part.

    At different times the parts are something else; and where others were moved for the
    first part, the second finds another pool.
    """
    duration, others = 2 * HOUR, era.reservations()
    whole = ask(name, duration, arrival, arrival + duration, sum(parts))
    together, total = price(era, whole, commitment), 0
    for number, count in enumerate(parts):
        part = ask(name, duration, arrival, arrival + duration, count)
        decision = era.make_reservation(str(number), Bid.of(part, 10**12, commitment))
        if not decision.accepted:
            return
        total += decision.price
    if era.reservations()[: len(others)] == others:
        assert together <= total


# A price ceiling, with a penalty for late slots.


@st.composite
def pools_with_ceilings(draw):
    """A ceiling around the floor, the fixed prices or the greatest price; and a pool with it."""
    ceiling = draw(st.sampled_from([13, 150, 500, 1200]))
    return ceiling, draw(pools(ceilings=(ceiling,)))


@everywhere
@given(pools_with_ceilings(), st.integers(1, 4), requests(shortest=HOUR), commitments)
def test_no_unit_costs_more_than_the_ceiling(limited, count, request, commitment):
    ceiling, era = limited
    assert max(era.prices("gpu", 0, 24)) <= ceiling
    wanted = ResourceRequest({"gpu": count}, request.duration, request.arrival, request.deadline)
    assert max(era.quote(Bid.of(wanted, 0, commitment)).slot_prices, default=0) <= count * ceiling


# Bids with several alternatives.


@st.composite
def alternatives(draw):
    first = draw(requests(shortest=HOUR))
    more = draw(st.lists(requests(shortest=HOUR), max_size=1))
    return (first, *more), draw(steps(len(more)))


@st.composite
def steps(draw, several):
    """The deadlines of the steps of a value, the last one open."""
    return sorted(draw(st.sets(st.integers(1, SPAN), max_size=2)))


@st.composite
def values(draw, deadlines):
    """Falling values, one for each step."""
    found = draw(
        st.sets(st.integers(0, 9000), min_size=len(deadlines) + 1, max_size=len(deadlines) + 1)
    )
    falling = sorted(found, reverse=True)
    return tuple(ValueStep(d, v) for d, v in zip([*deadlines, None], falling, strict=True))


@st.composite
def bids_and_lies(draw):
    """A bid, and one for the same things with other values."""
    given = draw(st.lists(alternatives(), min_size=1, max_size=3))
    commitment = draw(commitments)
    told = [Alternative(wanted, draw(values(deadlines))) for wanted, deadlines in given]
    lies = []
    for wanted, deadlines in given:
        # Who asks for one thing may lie about when it is worth something, too.
        other = draw(steps(0)) if len(wanted) == 1 and draw(st.booleans()) else deadlines
        lies.append(Alternative(wanted, draw(values(other))))
    return Bid(tuple(told), commitment), Bid(tuple(lies), commitment)


def utility(era, truth, bid):
    """What somebody gains who says `bid` where `truth` is how it is."""
    decision = deepcopy(era).make_reservation("a", bid)
    if not decision.accepted:
        return 0
    assert decision.price is not None
    end = decision.quote.end
    return truth.alternatives[decision.quote.alternative].value_at(end) - decision.price


@everywhere
@given(pools(), bids_and_lies())
def test_no_misreport_of_the_value_helps(era, bids):
    truth, lie = bids
    gain = utility(era, truth, truth)
    assert gain >= 0
    assert utility(era, truth, lie) <= gain


@everywhere
@given(pools(), bids_and_lies())
def test_what_is_quoted_is_charged(era, bids):
    bid, _ = bids
    quote = era.quote(bid)
    assert era.quote(bid).price == quote.price  # asking changes nothing
    decision = era.make_reservation("a", bid)
    assert decision.price == quote.price
    assert decision.quote.placements == quote.placements
    assert len(quote.menus) == len(bid.alternatives)
    if not quote.feasible:
        assert not decision.accepted
        assert decision.reason == quote.reason
        return
    alternative = bid.alternatives[quote.alternative]
    assert decision.accepted == (quote.price <= alternative.value_at(quote.end))
    assert sum(quote.slot_prices) == quote.price
    assert min(quote.slot_prices) >= 0
    if decision.accepted:
        reservation = decision.reservation
        assert reservation.placements == quote.placements
        assert reservation.price == quote.price
        assert reservation in era.reservations()


@everywhere
@given(pools(), st.lists(requests(shortest=HOUR), min_size=2, max_size=3), commitments)
def test_the_price_of_requests_together_is_that_of_one_after_the_other(era, wanted, commitment):
    bid = Bid((Alternative(tuple(wanted), (ValueStep(None, 10**12),)),), commitment)
    quote = era.quote(bid)
    if not quote.feasible:
        return
    apart = deepcopy(era)
    prices = []
    for number, request in enumerate(wanted):
        before = apart.reservations()
        decision = apart.make_reservation(str(number), Bid.of(request, 10**12, commitment))
        if apart.reservations()[: len(before)] != before:
            return  # others were moved, which is not done for one of several requests
        prices.append(decision.price)
    assert quote.price == sum(prices)


@everywhere
@given(pools(), bids_and_lies())
def test_the_best_alternative_for_the_bidder_is_taken(era, bids):
    bid, _ = bids
    alone = [era.quote(Bid((each,), bid.commitment)) for each in bid.alternatives]
    gains = [
        each.value_at(quote.end) - quote.price
        for each, quote in zip(bid.alternatives, alone, strict=True)
        if quote.feasible
    ]
    quote = era.quote(bid)
    assert quote.feasible == bool(gains)
    if gains:
        best = bid.alternatives[quote.alternative].value_at(quote.end) - quote.price
        assert best == max(gains)


class Recorder(BasicEcon):
    """Notes down all that the engine lets it know."""

    def __init__(self):
        self.heard = []
        self.outcomes = []

    def rates(self, units, market):
        self.heard.append(("rates", units, market.now, tuple(market.times), tuple(market.free)))
        self.heard.append(("market", sorted(vars(market))))
        return super().rates(units, market)

    def offers(self, starts, prices, earliest):
        self.heard.append(("offers", tuple(starts), tuple(prices), earliest))
        return super().offers(starts, prices, earliest)

    def settle(self, offer, taken):
        self.heard.append(("settle", offer))
        self.outcomes.append(taken)


@pytest.mark.parametrize("above", [-(10**6), -1, 0, 1, 10**9])
def test_a_bid_wins_from_the_price_on_and_the_algorithm_never_sees_its_value(make_era, above):
    request = ask("two", 2 * HOUR, 500, 30 * HOUR)
    expected = make_era().quote(request).price
    value = max(0, expected + above)
    asked, recorder = Recorder(), Recorder()
    make_era(algorithm=asked).make_reservation("a", Bid.of(request, expected))
    decision = make_era(algorithm=recorder).make_reservation("a", Bid.of(request, value))
    assert decision.accepted == (value >= expected)
    assert decision.price == expected
    assert (decision.reservation is None) == (not decision.accepted)
    assert (decision.reason is None) == decision.accepted
    assert recorder.heard == asked.heard
    assert recorder.outcomes == [decision.accepted]
