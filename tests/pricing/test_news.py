"""What algorithms and predictors are told, and what they are not."""

from __future__ import annotations

import numpy as np

from era_pricing import (
    Alternative,
    BasicEcon,
    Bid,
    Commitment,
    Configuration,
    Feedback,
    FirstFit,
    Inventory,
    Piece,
    PricedResource,
    Prior,
    ValueStep,
)
from era_pricing.predictors import LP, Spread
from era_pricing.workload import Workload
from tests.pricing.small_pool import GPU, HOUR, RICH, ask, build

FLEXIBLE = Commitment.FLEXIBLE


class Listener(BasicEcon):
    """Keeps what it is told."""

    def __init__(self):
        self.offers_heard = []
        self.outlooks = []

    def settle(self, offer, taken):
        self.offers_heard.append((offer, taken))

    def prepare(self, outlook):
        self.outlooks.append(outlook)


class Diary(Prior):
    """Keeps what it has seen."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = []

    def observe(self, seen):
        self.seen.append(seen)


def test_an_offer_tells_units_times_and_price_but_no_value():
    algorithm = Listener()
    era = build(algorithm=algorithm)
    first, second = ask("two", HOUR, 0, HOUR), ask("gpu", 2 * HOUR, HOUR, 5 * HOUR)
    bid = Bid((Alternative((first, second), (ValueStep(None, RICH),)),))
    price = era.make_reservation("a", bid).price
    era.make_reservation("b", Bid.of(ask("gpu", HOUR, 0, HOUR), 0))
    (offer, taken), (_, declined) = algorithm.offers_heard
    assert (taken, declined) == (True, False)
    assert offer.units == {GPU: 3}
    assert offer.spans == (Piece(0, HOUR, {GPU: 2}), Piece(HOUR, 3 * HOUR, {GPU: 1}))
    assert (offer.start, offer.end, offer.price) == (0, 3 * HOUR, price)


def test_what_fits_nowhere_is_no_offer():
    algorithm = Listener()
    era = build(algorithm=algorithm)
    era.make_reservation("a", Bid.of(ask("gpu", HOUR, 0, HOUR, 4), RICH))
    era.make_reservation("b", Bid.of(ask("gpu", HOUR, 0, HOUR), RICH))
    assert len(algorithm.offers_heard) == 1


def test_an_algorithm_prepares_for_each_slot_and_resource_before_it_prices():
    algorithm, now = Listener(), 0
    era = build(
        algorithm=algorithm,
        inventory=Inventory.single({GPU: 4, "cpu": 8}),
        priced=[PricedResource(GPU, 10, Prior(840, 6), 700), PricedResource("cpu", 1, Prior(9, 9))],
        clock=lambda: now,
    )
    era.quote(ask("gpu", HOUR, 0, HOUR))
    era.quote(ask("gpu", HOUR, 0, HOUR))
    assert [outlook.resource for outlook in algorithm.outlooks] == [GPU, "cpu"]
    first = algorithm.outlooks[0]
    assert (first.now, first.first, first.price_floor, first.price_ceiling) == (0, 0, 10, 700)
    assert list(first.capacity) == [4] * 48
    now = 5 * HOUR + 7
    era.quote(ask("gpu", HOUR, 5 * HOUR, 9 * HOUR))
    assert [(outlook.now, outlook.first) for outlook in algorithm.outlooks[2:]] == [(now, 5)] * 2


def test_an_algorithm_that_is_not_due_is_given_no_outlook():
    class Daily(Listener):
        def due(self, resource, now):
            return now % (24 * HOUR) < HOUR

    algorithm, now = Daily(), 0
    era = build(algorithm=algorithm, clock=lambda: now)
    for now in (0, HOUR, 5 * HOUR, 24 * HOUR):
        era.quote(ask("gpu", HOUR, now, now + HOUR))
    assert [outlook.now for outlook in algorithm.outlooks] == [0, 24 * HOUR]


def test_a_question_about_the_future_prepares_for_the_present_alone():
    algorithm = Listener()
    era = build(algorithm=algorithm)
    for hour in (9, 10):
        era.quote(ask("gpu", HOUR, 0, 30 * HOUR), now=hour * HOUR)
        assert [outlook.now for outlook in algorithm.outlooks] == [0]


def test_an_outlook_separates_what_is_firm_from_what_may_be_moved():
    algorithm = Listener()
    era = build(algorithm=algorithm, early_start="never")
    for name, commitment in (("fixed", Commitment.FIXED), ("flexible", FLEXIBLE)):
        request = ask("gpu", HOUR, 3 * HOUR, 9 * HOUR, 2)
        made = era.make_reservation(name, Bid.of(request, RICH, commitment), 0)
    era.update(Feedback(), now=HOUR)
    outlook = algorithm.outlooks[-1]
    promised = era.promised(HOUR, 8)
    assert promised.sum() == 4
    assert outlook.firm.sum() == 2
    assert (outlook.firm[:8] <= promised).all()
    flexible = outlook.flexible
    assert (flexible.arrival.tolist(), flexible.deadline.tolist()) == ([3 * HOUR], [9 * HOUR])
    assert (flexible.units.tolist(), flexible.duration.tolist()) == ([2], [HOUR])
    assert flexible.value.tolist() == [made.price]  # what was paid, not what was bid
    start = made.reservation.start
    era.update(Feedback(), now=start)  # it begins, and is firm from then on
    assert len(algorithm.outlooks[-1].flexible) == 0
    np.testing.assert_array_equal(algorithm.outlooks[-1].firm[:4], era.promised(start, 4))


def test_predictors_see_every_request_and_what_became_of_it():
    diary = Diary(840, 6)
    era = build(predictor=diary)
    request = ask("two", 2 * HOUR, HOUR, 5 * HOUR)
    price = era.make_reservation("a", Bid.of(request, 900), 100).price
    era.make_reservation("b", Bid.of(request, 1), 200)
    taken, declined = diary.seen
    assert (taken.submitted, taken.arrival, taken.deadline) == (100, HOUR, 5 * HOUR)
    assert (taken.units, taken.duration, taken.value) == (2, 2 * HOUR, 900)
    assert (taken.accepted, taken.price) == (price <= 900, price)
    assert (declined.submitted, declined.value, declined.accepted) == (200, 1, False)


def test_predictors_see_requests_that_fit_nowhere():
    diary = Diary(840, 6)
    era = build(predictor=diary, algorithm=FirstFit())
    for name in "ab":
        era.make_reservation(name, Bid.of(ask("gpu", HOUR, 0, HOUR, 3), RICH))
    assert [(seen.accepted, seen.price) for seen in diary.seen] == [(True, 30), (False, None)]


def test_the_value_is_divided_among_resources_and_requests_by_their_price_at_the_floor():
    gpu, cpu = Diary(840, 6), Diary(9, 9)
    era = build(
        algorithm=FirstFit(),
        inventory=Inventory.single({GPU: 4, "cpu": 8}),
        configurations=[
            Configuration("both", {GPU: 1, "cpu": "10m"}),
            Configuration("gpu", {GPU: 1}),
        ],
        priced=[PricedResource(GPU, 90, gpu), PricedResource("cpu", 1, cpu)],
    )
    requests = (ask("both", HOUR, 0, HOUR), ask("gpu", HOUR, 0, 9 * HOUR))
    era.make_reservation("a", Bid((Alternative(requests, (ValueStep(None, 1900),)),)))
    assert [(seen.units, seen.value, seen.price) for seen in gpu.seen] == [(1, 900, 90)] * 2
    assert [(seen.units, seen.value, seen.price) for seen in cpu.seen] == [(10, 100, 10)]


class Moody(Prior):
    """Thinks less of the demand with every bid that it has heard of, as soon as a slot begins."""

    def __init__(self):
        super().__init__(max_price=840, peak_demand=6)
        self.heard = self.known = 0

    def begin(self, now):
        self.known = self.heard

    def observe(self, seen):
        self.heard += 1

    def cost(self, *arguments):
        return super().cost(*arguments) / (1 + self.known)


def test_what_is_learned_changes_prices_when_a_slot_begins_and_not_before():
    era = build(predictor=Moody())
    wanted = ask("gpu", HOUR, 10 * HOUR, 11 * HOUR)
    before = era.quote(wanted, 10).price
    for job_id in ("a", "b"):
        era.make_reservation(job_id, Bid.of(wanted, 0), 20)
        assert era.quote(wanted, 30).price == before
    era.update(Feedback(), HOUR)
    assert era.quote(wanted, HOUR).price == before // 3


def test_a_purchase_does_not_make_the_next_one_cheaper_when_the_forecast_is_due():
    # Nobody has asked for a day, and what was learned then is taken in.
    rng = np.random.default_rng(1)
    submitted = np.sort(rng.integers(0, 14 * 24 * HOUR, 400))
    history = Workload(
        submitted, submitted, submitted + 6 * HOUR, np.full(400, 2), np.full(400, HOUR),
        np.full(400, 2 * 840),
    )  # fmt: skip
    now = 14 * 24 * HOUR
    for predictor in (Spread(history, 4, HOUR), LP(history, 4, HOUR)):
        era = build(predictor=predictor)
        for number in range(20):
            low = Bid.of(ask("gpu", HOUR, now, now + 6 * HOUR), 1)
            era.make_reservation(f"poor-{number}", low, now + 60 * number)
        later = now + 24 * HOUR + 5
        wanted = ask("gpu", HOUR, later + HOUR, later + 6 * HOUR)
        era.update(Feedback(), later)
        before = era.quote(wanted, later).price
        era.make_reservation("zero", Bid.of(wanted, 0), later)
        assert era.quote(wanted, later).price == before
