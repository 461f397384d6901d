"""Bid-price: duals of sampled futures, and what happens to prices between two solutions."""

from __future__ import annotations

import numpy as np
import pytest

from era_pricing import Bid, Feedback, TimeGrid
from era_pricing.algorithms import BidPrice
from era_pricing.predictors import Predictor
from era_pricing.workload import Workload
from tests.pricing.small_pool import HOUR, RICH, ask, build

DAY = 24 * HOUR


class Foresight(Predictor):
    """Knows what will be asked for, `each` times.

    Rows are (submitted, arrival, deadline, units, hours, rate); the rate is the value of a unit
    and hour in micro-credits.
    """

    name = "foresight"

    def __init__(self, *rows, each=50.0):
        columns = np.array(rows, dtype=np.int64).reshape(-1, 6).T
        submitted, arrival, deadline, units, hours, rate = columns
        self.requests = Workload(
            submitted, arrival, deadline, units, hours * HOUR, units * hours * rate
        )
        self.each = each

    def price(self, t, now, quantity):
        return np.broadcast_to(900.0, np.broadcast_shapes(np.shape(t), np.shape(quantity)))

    def expected(self, now, until):
        ahead = (self.requests.submitted >= now) & (self.requests.submitted < until)
        return self.requests.select(ahead), np.full(int(ahead.sum()), self.each)


def crowd(hour, rate=500, units=1):
    """Requests, fifty expected, that can only run in one hour."""
    return (hour * HOUR, hour * HOUR, (hour + 1) * HOUR, units, 1, rate)


def pool(predictor, **options):
    """Four GPUs, priced by the duals alone if nothing else is said."""
    changes = {key: options.pop(key) for key in ("price_floor", "price_ceiling") if key in options}
    algorithm = BidPrice(**{"samples": 2, "interval": HOUR, "local": 0, **options})
    return build(algorithm=algorithm, predictor=predictor, **changes)


def offer(era, hour, count=1, now=0):
    start = hour * HOUR
    return era.quote(ask("gpu", HOUR, start, start + HOUR, count), now=now).price


def test_nobody_expected_means_the_floor():
    assert offer(pool(Foresight(), curvature=0), hour=5) == 10


def test_the_first_question_may_be_about_later():
    """Before the clock has got there, and before anything else has been asked."""
    era = pool(Foresight(crowd(5, rate=500)), curvature=0)
    assert offer(era, hour=5, now=HOUR) > 10


def test_a_slot_costs_what_the_others_would_pay_for_it():
    era = pool(Foresight(crowd(5, rate=500), crowd(7, rate=900)), curvature=0)
    assert offer(era, hour=5) == pytest.approx(500, rel=0.2)
    assert offer(era, hour=7) == pytest.approx(900, rel=0.2)
    assert offer(era, hour=6) == 10


def test_demand_that_can_go_elsewhere_does_not_make_a_slot_dear():
    flexible = (0, 0, 40 * HOUR, 1, 1, 500)
    era = pool(Foresight(flexible), curvature=0)
    assert offer(era, hour=5) < 100


@pytest.mark.parametrize(("lookahead", "dear"), [(3 * DAY, True), (None, False), (6 * DAY, False)])
def test_it_looks_as_far_ahead_as_bookings_go(lookahead, dear):
    """Three days have no room for all of these, but they can wait for six."""
    patient = (0, 0, 6 * DAY, 1, 1, 500)
    grid = TimeGrid(slot=HOUR, horizon=7 * DAY)
    algorithm = BidPrice(local=0, curvature=0, interval=HOUR, lookahead=lookahead)
    era = build(grid=grid, algorithm=algorithm, predictor=Foresight(patient, each=400.0))
    assert (offer(era, hour=5) > 300) is dear


def test_what_was_submitted_already_no_longer_counts():
    early = (0, 5 * HOUR, 6 * HOUR, 1, 1, 500)
    era = pool(Foresight(early), curvature=0, smoothing=0)
    assert offer(era, hour=5) > 400
    era.update(Feedback(), now=1)
    era.update(Feedback(), now=HOUR)
    assert offer(era, hour=5, now=HOUR) == 10


@pytest.mark.parametrize(("deadline", "scarce"), [(6 * HOUR, True), (40 * HOUR, False)])
def test_promises_that_may_be_moved_leave_room_for_others(deadline, scarce):
    """Of four GPUs three are promised in an hour for which two more are expected."""
    late = (2 * HOUR, 5 * HOUR, 6 * HOUR, 1, 1, 500)
    era = pool(Foresight(late, each=2.0), curvature=0, smoothing=0, samples=20)
    bid = Bid.of(ask("gpu", HOUR, 5 * HOUR, deadline, 3), RICH, "flexible")
    assert era.make_reservation("job", bid, now=0).accepted
    era.update(Feedback(), now=HOUR)
    price = int(era.prices("gpu", 5 * HOUR, 1, now=HOUR)[0])
    assert (price > 250) is scarce


def rise(predictor):
    """How much dearer two bookings make the third of four GPUs."""
    era = pool(predictor, curvature=2, samples=20)
    before = offer(era, hour=5)
    bid = Bid.of(ask("gpu", HOUR, 5 * HOUR, 6 * HOUR, 2), RICH)
    assert era.make_reservation("a", bid, now=0).accepted
    return offer(era, hour=5) / before


def test_bookings_raise_the_price_at_once_the_less_the_more_alike_values_are():
    spread = [crowd(5, rate) for rate in np.geomspace(50, 5000, 60).astype(int)]
    alike, diverse = rise(Foresight(crowd(5))), rise(Foresight(*spread, each=0.15))
    assert 1 <= alike < 1.3
    assert diverse > 1.5


def test_bookings_behind_the_forecast_lower_prices():
    """Of those expected to book in the first hours for hour 9 nobody comes."""
    coming = [(hour * HOUR, 9 * HOUR, 10 * HOUR, 1, 1, 500) for hour in range(9)]

    def later(tracking):
        era = pool(Foresight(*coming), curvature=0, smoothing=0, tracking=tracking)
        for hour in range(4):
            era.update(Feedback(), now=hour * HOUR)
        return era.prices("gpu", 9 * HOUR, 1, now=3 * HOUR)[0]

    assert later(1.5) < 0.8 * later(0)


def test_the_price_is_a_mean_of_what_is_foreseen_and_what_the_slot_would_bring():
    prices = [offer(pool(Foresight(crowd(5)), curvature=0, local=w), hour=5) for w in (0, 0.5, 1)]
    assert prices[2] == 900
    assert prices[1] == pytest.approx((prices[0] + prices[2]) / 2, abs=1)


def test_large_requests_pay_for_what_they_displace():
    spread = [crowd(5, rate) for rate in np.geomspace(50, 5000, 60).astype(int)]
    era = pool(Foresight(*spread, each=0.15), curvature=2)
    assert offer(era, hour=5, count=4) > 1.3 * 4 * offer(era, hour=5)


def test_a_request_pays_less_for_its_own_units_than_what_was_booked_before_makes_them_cost():
    spread = [crowd(5, rate) for rate in np.geomspace(50, 5000, 60).astype(int)]
    whole = pool(Foresight(*spread, each=0.15), curvature=4)
    parts = pool(Foresight(*spread, each=0.15), curvature=4)
    bid = Bid.of(ask("gpu", HOUR, 5 * HOUR, 6 * HOUR, 2), RICH)
    first = parts.make_reservation("a", bid, now=0).price
    assert offer(whole, hour=5, count=4) < 0.9 * (first + offer(parts, hour=5, count=2))


def test_the_unit_that_is_one_too_few_for_a_large_request_is_dear():
    """Four GPUs: the first taken leaves too few for four, the second hardly matters."""
    era = pool(Foresight(crowd(5, rate=500, units=4)))
    first = offer(era, hour=5)
    assert first == pytest.approx(4 * 500, rel=0.1)
    assert offer(era, hour=5, count=4) == pytest.approx(4 * 500, rel=0.1)
    assert era.make_reservation(
        "a", Bid.of(ask("gpu", HOUR, 5 * HOUR, 6 * HOUR), RICH), now=0
    ).accepted
    assert offer(era, hour=5) == 10


def test_steady_prices_do_not_know_sizes():
    """The price after the first unit would fall."""
    era = pool(Foresight(crowd(5, rate=500, units=4)), steady=True)
    first = offer(era, hour=5)
    assert era.make_reservation(
        "a", Bid.of(ask("gpu", HOUR, 5 * HOUR, 6 * HOUR), RICH), now=0
    ).accepted
    assert offer(era, hour=5) >= first


@pytest.mark.parametrize("count", [1, 4])
def test_no_price_is_higher_than_anybody_foreseen_would_pay(count):
    """So where all values are alike nobody is turned away while units are free."""
    era = pool(Foresight(crowd(5)), tracking=0, curvature=50)
    for number in range(4 // count):
        assert offer(era, hour=5, count=count) <= 500 * count
        bid = Bid.of(ask("gpu", HOUR, 5 * HOUR, 6 * HOUR, count), 500 * count)
        assert era.make_reservation(str(number), bid, now=0).accepted


def test_floor_and_ceiling_hold_for_each_unit():
    foresight = Foresight(crowd(5), crowd(9, rate=5000))
    era = pool(foresight, curvature=4, price_floor=10, price_ceiling=520)
    single = offer(era, hour=5)
    assert single < 520
    assert offer(era, hour=5, count=4) < 4 * 520
    rest = [offer(era, hour=5, count=n) - offer(era, hour=5, count=n - 1) for n in (2, 3, 4)]
    assert rest == sorted(rest)
    assert rest[-1] == pytest.approx(520, abs=1)
    dear = pool(Foresight(crowd(5, rate=5000)), price_ceiling=520)
    assert offer(dear, hour=5, count=4) == pytest.approx(4 * 520, abs=1)


def test_the_same_seed_gives_the_same_prices():
    def prices(seed):
        era = pool(
            Foresight(*(crowd(hour, 100 * hour) for hour in range(1, 9)), each=3.0), seed=seed
        )
        return era.prices("gpu", 0, 24, now=0).tolist()

    assert prices(1) == prices(1)
    assert prices(1) != prices(2)


@pytest.mark.parametrize("steady", [False, True])
def test_steady_prices_do_not_fall_while_demand_stays_away(steady):
    """Those expected to book by now for hour 8 have not come; fewer are still to come."""
    expected = [(hour * HOUR, 8 * HOUR, 9 * HOUR, 1, 1, 100 * (7 - hour)) for hour in range(6)]
    era = pool(Foresight(*expected), steady=steady, smoothing=0.0)
    seen = []
    for hour in range(6):
        era.update(Feedback(), now=hour * HOUR)
        seen.append(era.prices("gpu", 8 * HOUR, 1, now=hour * HOUR)[0])
    assert (seen == sorted(seen)) is steady


def test_what_is_given_back_lowers_even_a_steady_price():
    era = pool(Foresight(crowd(5)), steady=True)
    before = offer(era, hour=5)
    era.make_reservation("a", Bid.of(ask("gpu", HOUR, 5 * HOUR, 6 * HOUR, 2), RICH), now=0)
    assert offer(era, hour=5) > before
    era.cancel("a", now=0)
    assert offer(era, hour=5) == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"curvature": -1}, "curvature"),
        ({"curvature": float("nan")}, "curvature"),
        ({"local": 1.1}, "local"),
        ({"tracking": -1}, "tracking"),
        ({"smoothing": 1}, "smoothing"),
        ({"lookahead": HOUR}, "lookahead"),
        ({"interval": 0}, "interval"),
        ({"samples": 1.5}, "samples"),
    ],
)
def test_what_makes_no_sense_is_refused(options, named):
    with pytest.raises(ValueError, match=named):
        BidPrice(**options)
