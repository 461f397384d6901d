"""Reservations from the bid to their end."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from era_pricing import (
    Algorithm,
    Allocation,
    Bid,
    BidError,
    CapacityChange,
    Configuration,
    DuplicateReservation,
    Feedback,
    FirstFit,
    Inventory,
    PricedResource,
    Prior,
    TimeGrid,
    UnknownReservation,
)
from era_pricing.algorithms import OnDemand
from tests.pricing.small_pool import GPU, HOUR, RICH, ask, build, change, held


def book(era, job_id, arrival, hours=1, count=1, now=0, configuration="gpu"):
    """Reserve exactly from `arrival` on."""
    request = ask(configuration, hours * HOUR, arrival, arrival + hours * HOUR, count)
    decision = era.make_reservation(job_id, Bid.of(request, RICH), now=now)
    assert decision.accepted, decision.reason
    return decision.reservation


def hourly(*weights):
    """Prices that differ by hour: with 4 GPUs left, one costs 840 * (1 - 3 / demand)."""
    return Prior(840, 6, [*weights, *([0] * (23 - len(weights))), 6])


def test_a_start_inside_a_slot_pays_its_share_of_the_first_and_last_slot(make_era):
    era = make_era(predictor=hourly(4, 5, 6))
    assert list(era.prices("gpu", 0, 3)) == [210, 336, 420]
    quote = era.quote(ask("gpu", 2 * HOUR, 900, 900 + 2 * HOUR))
    # 3/4 of the first slot, the second, 1/4 of the third: 157.5 + 336 + 105, rounded up.
    assert quote.slot_prices == (158, 336, 105)
    assert (quote.start, quote.end, quote.price) == (900, 900 + 2 * HOUR, 599)
    assert list(quote.starts) == [900]


def test_candidates_are_now_the_slot_boundaries_and_the_last_second_to_start(make_era):
    era = make_era()
    quote = era.quote(ask("gpu", 3000, 100, 4 * HOUR + 50), now=70)
    assert list(quote.starts) == [100, HOUR, 2 * HOUR, 3 * HOUR, 3 * HOUR + 50]
    assert len(quote.prices) == 5
    later = era.quote(ask("gpu", 3000, 100, 3 * HOUR), now=4000)
    assert list(later.starts) == [4000, 2 * HOUR]


def test_a_start_inside_a_slot_needs_the_slot_after_its_last_full_one(make_era):
    era = make_era()
    book(era, "full", 2 * HOUR, count=4)
    starts = era.quote(ask("gpu", HOUR, 1800, 5 * HOUR)).starts
    assert list(starts) == [1800, HOUR, 3 * HOUR, 4 * HOUR]
    starts = era.quote(ask("gpu", HOUR, HOUR + 1, 5 * HOUR)).starts
    assert list(starts) == [3 * HOUR, 4 * HOUR]


def test_of_equal_prices_the_earliest_start_wins(make_era):
    quote = make_era().quote(ask("gpu", HOUR, 0, 9 * HOUR))
    assert set(quote.prices) == {quote.price}
    assert quote.start == 0


def test_the_same_hour_costs_the_same_on_any_grid(make_era):
    prices = {
        make_era(grid=TimeGrid(slot, 48 * HOUR), price_floor=1_000_001, algorithm=FirstFit())
        .quote(ask("gpu", HOUR, 0, HOUR))
        .price
        for slot in (60, 300, HOUR)
    }
    assert prices == {1_000_001}


@pytest.mark.parametrize(
    ("request_", "now", "says"),
    [
        (("gpu", 3500, 0, 3550), 0, "3500 seconds take 3600 in whole slots of 3600"),
        (("gpu", HOUR, 0, 2 * HOUR), HOUR + 1, "the window has 3599 left"),
        (("gpu", HOUR, 48 * HOUR, 50 * HOUR), 0, "the pool sells until 172800"),
        (("gpu", HOUR, 10**11, 2 * 10**11), 0, "the pool sells until 172800"),
        (("two", HOUR, 0, 2 * HOUR), 0, "no room for 2 GPUs for 3600 seconds"),
    ],
)
def test_a_request_that_fits_nowhere_gets_a_reason_and_no_price(make_era, request_, now, says):
    era = make_era()
    for hour in (0, 1):
        book(era, f"full-{hour}", hour * HOUR, count=3)
    quote = era.quote(ask(*request_), now=now)
    assert not quote.feasible
    assert quote.price is None
    assert not len(quote.starts)
    assert says in quote.reason
    decision = era.make_reservation("a", Bid.of(ask(*request_), RICH), now=now)
    assert not decision.accepted
    assert decision.price is None
    assert decision.reason == quote.reason


def test_the_horizon_moves_with_now(make_era):
    era = make_era()
    last = ask("gpu", HOUR, 48 * HOUR, 49 * HOUR)
    assert not era.quote(last, now=HOUR - 1).feasible
    assert era.quote(last, now=HOUR).feasible


def test_bundles_without_the_priced_resource_cost_nothing_and_always_fit(make_era):
    era = make_era(capacity=0)
    assert book(era, "a", 100, configuration="cpu", count=50).price == 0
    assert list(era.prices("cpu", 0, 2)) == [0, 0]
    assert era.get_current_allocation(now=200)["a"].placements[0].configurations == {"cpu": 50}
    assert era.cancel("a", now=300) == 0


def test_a_job_id_is_used_once(make_era):
    era = make_era()
    book(era, "a", 0)
    with pytest.raises(DuplicateReservation, match="'a'"):
        book(era, "a", 5 * HOUR)
    assert era.promised(0, 8).sum() == 1


def test_an_ended_job_id_is_in_use_until_the_running_slot_ends(make_era):
    era = make_era()
    book(era, "a", 600)  # ends inside the second slot
    with pytest.raises(DuplicateReservation):
        book(era, "a", 5 * HOUR, now=2 * HOUR - 1)
    book(era, "a", 5 * HOUR, now=2 * HOUR)


def test_a_release_frees_the_rest_of_the_running_slot(make_era):
    era = make_era()
    book(era, "a", 0, count=4)
    era.release("a", now=10)
    again = book(era, "a", 10, count=4, now=10)
    assert again.start == 10


@pytest.mark.parametrize("job_id", ["", None, 7])
def test_a_job_id_is_a_text(make_era, job_id):
    with pytest.raises(ValueError, match="job_id must be a text"):
        book(make_era(), job_id, 0)


@pytest.mark.parametrize("give_back", ["cancel", "release"])
def test_before_the_start_all_is_refunded_and_freed(make_era, give_back):
    era = make_era()
    reservation = book(era, "a", 1800, hours=2, now=900)
    assert getattr(era, give_back)("a", now=1799) == reservation.price > 0
    assert not era.promised(0, 10).any()


@pytest.mark.parametrize(
    ("now", "kept"),
    [
        (1800, 1),  # the first slot has begun
        (HOUR - 1, 1),
        (HOUR, 2),
        (2 * HOUR, 3),
        (2 * HOUR + 1799, 3),
    ],
)
@pytest.mark.parametrize("give_back", ["cancel", "release"])
def test_a_release_refunds_the_slots_that_have_not_begun(make_era, give_back, now, kept):
    era = make_era(predictor=hourly(4, 5, 6))
    parts = book(era, "a", 1800, hours=2).slot_prices
    assert len(parts) == 3
    assert min(parts) > 0
    assert getattr(era, give_back)("a", now=now) == sum(parts[kept:])
    assert not era.promised(now, 3).any()
    assert era.get_current_allocation(now) == {}
    with pytest.raises(UnknownReservation):
        getattr(era, give_back)("a", now=now)


def test_what_has_ended_cannot_be_given_back(make_era):
    era = make_era()
    book(era, "a", 0)
    book(era, "b", 1800)
    for job_id, now in [("a", HOUR), ("b", HOUR + 1800), ("never", HOUR + 1801)]:
        with pytest.raises(UnknownReservation, match=f"no reservation with job id '{job_id}'"):
            era.release(job_id, now=now)
        with pytest.raises(KeyError):
            era.cancel(job_id, now=now)


def test_forget_leaves_no_trace(make_era):
    era = make_era()
    request = ask("two", 3 * HOUR, 700, 4 * HOUR)
    before = era.quote(request)
    assert era.make_reservation("a", Bid.of(request, RICH)).accepted
    assert era.quote(request).price > before.price
    era.forget("a")
    assert era.quote(request).price == before.price
    assert era.reservations() == ()
    assert era.make_reservation("a", Bid.of(request, RICH)).price == before.price
    with pytest.raises(UnknownReservation):
        era.forget("b")


def test_the_allocation_is_what_should_run_now(make_era):
    era = make_era()
    book(era, "a", 1800, count=2)
    expected = {"a": Allocation(era.reservations()[0].placements, 1800 + HOUR)}
    assert era.get_current_allocation(now=1799) == {}
    assert era.get_current_allocation(now=1800) == expected
    assert era.get_current_allocation(now=1799 + HOUR) == expected
    assert era.get_current_allocation(now=1800 + HOUR) == {}


def test_asking_about_the_future_changes_nothing(make_era):
    era = make_era()
    book(era, "a", HOUR)
    far = 10 * HOUR
    era.quote(ask("gpu", HOUR, far, far + HOUR), now=far)
    era.prices("gpu", far, 3, now=far)
    era.reservations(now=far)
    assert era.get_current_allocation(now=far) == {}
    assert list(era.get_current_allocation(now=HOUR)) == ["a"]
    assert list(era.promised(HOUR, 1)) == [1]


def test_time_never_runs_backwards(make_era):
    era = make_era()
    book(era, "a", 5 * HOUR, now=5 * HOUR)
    decision = era.make_reservation("b", Bid.of(ask("gpu", HOUR, 0, 6 * HOUR), RICH), now=0)
    assert decision.reservation.start == decision.reservation.made == 5 * HOUR


def test_the_clock_is_asked_when_no_time_is_given(make_era):
    now = 0.0
    era = make_era(clock=lambda: now)
    book(era, "a", HOUR, hours=2, now=None)
    now = 2.5 * HOUR
    assert "a" in era.get_current_allocation()
    assert era.quote(ask("gpu", HOUR, 0, 9 * HOUR)).starts[0] == now
    assert era.release("a") == 0


def test_prices_per_slot_for_charts(make_era):
    era = make_era(predictor=hourly(4, 5, 6))
    book(era, "full", HOUR, count=4)
    assert list(era.prices("gpu", 10, 3, now=10)) == [210, -1, 420]
    assert list(era.prices("two", 0, 3, now=HOUR)) == [-1, -1, 420 + 560]
    assert list(era.prices("gpu", 48 * HOUR, 2, now=HOUR - 1)) == [-1, -1]
    assert list(era.prices("gpu", 48 * HOUR, 2, now=HOUR)) == [210, -1]
    assert list(era.capacity(0, 2)) == [4, 4]
    assert list(era.promised(0, 3)) == [0, 4, 0]


def test_feedback_is_kept_as_the_last_observation(make_era):
    era = make_era()
    feedback = Feedback(consumption={"a": 0.5}, waiting={"a": 2})
    result = era.update(feedback, now=0)
    assert era.observation == feedback
    assert (result.released, result.broken, result.unknown) == ({}, {}, ())


def test_terminated_jobs_are_released_once(make_era):
    era = make_era(predictor=hourly(4, 5, 6))
    parts = book(era, "a", 0, hours=2).slot_prices
    result = era.update(Feedback(terminated=["a", "a", "b"]), now=100)
    assert result.released == {"a": parts[1]}
    assert result.unknown == ("a", "b")


def test_more_capacity_can_be_sold(make_era):
    era = make_era()
    book(era, "a", 0, count=4)
    era.update(Feedback(capacity=[change(0, None, 6)]), now=0)
    book(era, "b", 0, count=2)
    assert list(era.capacity(0, 2)) == [6, 6]


def test_lost_capacity_breaks_the_latest_first_and_no_more_than_needed(make_era):
    era = make_era()
    book(era, "large", 0, hours=3, count=3)
    book(era, "small", 0, hours=3, count=1)
    kept = book(era, "elsewhere", 5 * HOUR)
    large = next(r for r in era.reservations() if r.job_id == "large")
    result = era.update(Feedback(capacity=[change(2 * HOUR, 3 * HOUR, 2)]), now=HOUR)
    assert result.broken == {"large": large.price}  # all of it, though an hour was used
    assert [r.job_id for r in era.reservations()] == ["small", kept.job_id]
    assert list(era.promised(HOUR, 5)) == [1, 1, 0, 0, 1]
    with pytest.raises(UnknownReservation):
        era.release("large", now=HOUR)


def test_of_two_that_cannot_both_stay_the_earlier_made_stays(make_era):
    era = make_era()
    book(era, "first", 0, count=2)
    book(era, "second", 0, count=2)
    assert list(era.update(Feedback(capacity=[change(0, None, 3)]), now=0).broken) == ["second"]
    assert list(era.update(Feedback(capacity=[change(0, None, 2)]), now=0).broken) == []


def test_what_was_released_makes_room_before_a_promise_is_broken(make_era):
    era = make_era()
    book(era, "a", 0, count=2)
    book(era, "b", 0, count=2)
    era.release("a", now=10)
    assert era.update(Feedback(capacity=[change(10, None, 2)]), now=10).broken == {}
    assert list(era.promised(0, 1)) == [2]


def test_what_ended_earlier_in_the_slot_is_not_broken(make_era):
    era = make_era()
    book(era, "a", 600, count=2)  # ends inside the second slot, which stays occupied
    book(era, "b", HOUR, count=2)
    assert era.update(Feedback(), now=HOUR).broken == {}
    result = era.update(Feedback(capacity=[change(HOUR, None, 2)]), now=HOUR + 700)
    assert result.broken == {}
    assert list(era.promised(HOUR, 1)) == [2]


@pytest.mark.parametrize(
    "bad",
    [
        (0, 0, {GPU: 1}),
        (5, 2, {GPU: 1}),
        (0, None, {GPU: -1}),
        (0, None, {GPU: 1.5}),
        (0.5, None, {GPU: 1}),
        (0, None, {GPU: True}),
        (0, None, {"example.com/tpu": 1}),
    ],
)
def test_feedback_with_a_bad_change_changes_nothing(make_era, bad):
    era = make_era()
    book(era, "a", 0)
    with pytest.raises(ValueError, match="must|is not a quantity"):
        era.update(
            Feedback(capacity=[change(0, None, 0), CapacityChange(*bad)], terminated=["a"]), now=0
        )
    assert list(era.capacity(0, 1)) == [4]
    assert list(era.get_current_allocation(now=0)) == ["a"]


def test_a_slot_has_the_least_capacity_of_its_seconds(make_era):
    era = make_era()
    changes = [
        change(HOUR + 60, HOUR + 120, 1),
        change(2 * HOUR, 3 * HOUR, 9),
        change(4 * HOUR - 1, None, 7),
    ]
    era.update(Feedback(capacity=changes), now=0)
    assert list(era.capacity(0, 6)) == [4, 1, 9, 4, 7, 7]
    era.update(Feedback(capacity=[change(HOUR, 2 * HOUR, 5)]), now=0)  # overrides what was there
    assert list(era.capacity(0, 6)) == [4, 5, 9, 4, 7, 7]
    era.update(Feedback(), now=3 * HOUR)  # what lies behind is dropped, the rest stays
    assert list(era.capacity(3 * HOUR, 3)) == [4, 7, 7]


def test_the_engine_forgets_capacity_changes_of_the_past(make_era):
    inventory = Inventory.single({GPU: 4})
    era = make_era(inventory=inventory)
    for hour in range(100):
        era.update(
            Feedback(capacity=[change(hour * HOUR, (hour + 1) * HOUR, hour % 4)]), now=hour * HOUR
        )
    assert len(pickle.dumps(inventory)) < len(pickle.dumps(Inventory.single({GPU: 4}))) + 200


def test_restore_rebuilds_the_plan_in_the_order_of_making(make_era):
    era = make_era()
    book(era, "a", 1800, hours=3, count=2, now=100)
    book(era, "b", HOUR, hours=2, now=200)
    book(era, "c", 40 * HOUR, now=300)
    again = make_era()
    again.restore(reversed(era.reservations()), now=300)
    assert again.reservations() == era.reservations()
    assert list(again.promised(0, 48)) == list(era.promised(0, 48))
    assert again.release("a", now=HOUR) == era.release("a", now=HOUR)
    again.restore(era.reservations(), now=2 * HOUR)
    assert [r.job_id for r in again.reservations()] == ["b", "c"]
    again.restore([], now=2 * HOUR)
    assert not again.promised(0, 60).any()


def test_restore_leaves_out_what_has_ended_and_keeps_what_lies_beyond_the_horizon(make_era):
    old = held("old", 1, 0, HOUR, (5,), 0)
    far = held("far", 1, 100 * HOUR, 101 * HOUR, (5,), 0)
    era = make_era()
    era.restore([old, far], now=HOUR)
    assert era.reservations() == (far,)
    assert list(era.promised(99 * HOUR, 3)) == [0, 1, 0]
    assert era.cancel("far", now=2 * HOUR) == 5


def test_restore_refuses_what_it_cannot_tell_apart_or_refund(make_era):
    one = held("a", 1, 0, HOUR, (5,), 0)
    with pytest.raises(DuplicateReservation):
        make_era().restore([one, one])
    finer = held("a", 1, 0, HOUR, (5, 5), 0)
    with pytest.raises(ValueError, match="'a' has 2 slot prices, but takes 1 slots of 3600"):
        make_era().restore([finer])


class Fixed(Algorithm):
    """Answers what the test wants it to."""

    name = "fixed"

    def __init__(self, rates, menu=slice(None)):
        self._rates, self._menu = rates, menu

    def rates(self, units, market):
        return np.array(self._rates[: len(market.times)])

    def offers(self, starts, prices, earliest):
        return self._menu


def test_an_algorithm_can_keep_slots_from_sale_but_not_oversell(make_era):
    era = make_era(algorithm=Fixed([20, -1, 20, 20]))
    book(era, "full", 3 * HOUR, count=4, now=0)
    quote = era.quote(ask("gpu", HOUR, 0, 4 * HOUR))
    assert list(quote.starts) == [0, 2 * HOUR]


def test_an_algorithm_can_decline(make_era):
    decision = make_era(algorithm=Fixed([20, 30], slice(0))).make_reservation(
        "a", Bid.of(ask("gpu", HOUR, 0, 2 * HOUR), RICH)
    )
    assert decision.price is None
    assert decision.reason == "fixed offers no start in the window"
    assert list(decision.quote.prices) == []


@pytest.mark.parametrize("rates", [[20], [20.0, 20.0]])
def test_an_algorithm_must_answer_integers_for_every_slot(make_era, rates):
    with pytest.raises(TypeError, match="rates of fixed must be 2 64-bit integers"):
        make_era(algorithm=Fixed(rates)).quote(ask("gpu", HOUR, 0, 2 * HOUR))


def test_first_fit_does_not_charge_a_job_for_asking_within_a_slot(make_era):
    """A start inside a slot takes a slot more; who asked at the boundary would pay less."""
    era = make_era(algorithm=FirstFit(120))

    def offer(arrival, hours):
        request = ask("gpu", HOUR, arrival, arrival + hours * HOUR)
        quote = era.quote(Bid.of(request, 0, "flexible"))
        return quote.start, quote.price

    assert offer(HOUR - 1, 3) == offer(HOUR, 3) == (HOUR, 120)
    assert offer(HOUR - 1, 1) == (HOUR - 1, 240)


@pytest.mark.parametrize("commitment", ["fixed", "preemptible"])
def test_prices_beyond_64_bits_are_no_bargain(make_era, commitment):
    """Slots that a steep penalty makes dearer than can be counted are dear, and no error."""
    era = make_era(late_penalty=2.0, predictor=Prior(10**15, 6))
    prices = [
        era.quote(Bid.of(ask("gpu", hours * HOUR, 40 * HOUR, 47 * HOUR), 0, commitment)).price
        for hours in (1, 2, 7)
    ]
    assert prices == sorted(prices)
    assert prices[0] > 10**12
    assert era.quote(ask("gpu", HOUR, 0, 47 * HOUR)).start == 0


def test_the_hourly_price_is_what_an_hour_from_now_costs_at_a_steady_price(make_era):
    era = make_era(predictor=hourly(4))
    wanted = ask("gpu", HOUR, 0, HOUR)
    assert era.hourly_price("gpu", 0) == era.quote(wanted, 0).price
    book(era, "a", 0, count=4)
    assert era.hourly_price("gpu", 0) is None
    with pytest.raises(BidError):
        era.hourly_price("none such", 0)


def test_a_ceiling_limits_the_price_of_each_unit(make_era):
    era = make_era(price_ceiling=500)
    free = make_era()
    assert list(free.prices("two", 0, 1)) == [420 + 560]
    assert list(era.prices("two", 0, 1)) == [420 + 500]


def test_a_late_penalty_is_part_of_the_price_and_favours_the_early_start(make_era):
    era = make_era(predictor=Prior(840, 0), price_floor=100, late_penalty=0.5)
    quote = era.quote(ask("gpu", HOUR, 0, 4 * HOUR))
    assert list(quote.prices) == [math.ceil(100 * math.exp(0.5 * h)) for h in range(4)]


def test_a_late_penalty_takes_no_unit_over_the_ceiling(make_era):
    """Units at 420 and 560 of a ceiling of 700; the floor doubles in an hour, to 280."""
    late = {"price_floor": 140, "price_ceiling": 700, "late_penalty": math.log(2)}
    era = make_era(**late)
    # What lies 280 above a floor of 140 lies 210 above one of 280, and 420 lies 315 above it.
    expected = [420 + 560, (280 + 210) + (280 + 315), (560 + 70) + (560 + 105), 1400, 1400]
    assert list(era.prices("two", 0, 5)) == expected
    assert list(make_era(**{**late, "price_floor": 700}).prices("two", 0, 2)) == [1400, 1400]
    on_demand = make_era(**late, algorithm=OnDemand(700))
    long = Bid.of(ask("gpu", 4 * HOUR, 0, 4 * HOUR), 4 * 700)
    assert on_demand.make_reservation("a", long).price == 4 * 700


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"priced": []}, "priced must name at least one"),
        ({"priced": [PricedResource(GPU, 1, Prior(9, 9))] * 2}, "priced must name each .* once"),
        ({"priced": [PricedResource("tpu", 1, Prior(9, 9))]}, "must be in the inventory.*'tpu'"),
        ({"configurations": [Configuration("a", {})] * 2}, "two configurations are named 'a'"),
        ({"late_penalty": -1}, "late_penalty must be"),
        ({"late_penalty": math.nan}, "late_penalty must be"),
        ({"chunk": 0}, "chunk must be"),
        ({"chunk": 1.5}, "chunk must be"),
        ({"early_start": "sometimes"}, "sometimes"),
    ],
)
def test_engines_that_make_no_sense(make_era, parameters, says):
    with pytest.raises(ValueError, match=says):
        make_era(**parameters)


@pytest.mark.parametrize(
    ("floor", "ceiling", "says"),
    [(0, None, "price_floor"), (1.5, None, "price_floor"), (5, 0, "ceiling"), (5, 4, "ceiling")],
)
def test_prices_that_make_no_sense(floor, ceiling, says):
    with pytest.raises(ValueError, match=says):
        PricedResource(GPU, floor, Prior(9, 9), ceiling)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (("tpu", HOUR, 0, HOUR), "configurations must be among cpu, four, gpu, two; got 'tpu'"),
        (
            ("gpu", HOUR, 0, 9 * HOUR, 5),
            r"configurations\['gpu'\] must be at most 4: .*5 GPUs asked",
        ),
        (("gpu", HOUR, 0, 2 * HOUR), r"deadline must be after now \(9000 UTC seconds\)"),
        (("gpu", 49 * HOUR, 0, 60 * HOUR), "duration must be at most 172800 seconds"),
    ],
)
def test_bids_that_the_pool_can_never_serve_name_the_field(make_era, changes, says):
    request = ask(*changes)
    with pytest.raises(BidError, match=f"^{says}"):
        make_era().quote(request, now=9000)
    two = Bid(Bid.of(ask("gpu", HOUR, 0, 9 * HOUR), 1).alternatives * 2)
    path = Bid((two.alternatives[0], Bid.of(request, 1).alternatives[0]))
    with pytest.raises(BidError, match=rf"^alternatives\[1\].{says}"):
        make_era().make_reservation("a", path, now=9000)


def test_several_pools_are_several_engines(make_era):
    one, other = make_era(), make_era(capacity=1)
    book(one, "a", 0, count=4)
    assert other.quote(ask("gpu", HOUR, 0, HOUR)).feasible
    assert not one.quote(ask("gpu", HOUR, 0, HOUR)).feasible


def test_a_bundle_that_is_called_by_its_contents_needs_no_announcement(make_era):
    era = make_era(nodes={"a": {GPU: 4, "cpu": "8"}})
    request = ask("cpu=2,nvidia.com/gpu=2", HOUR, 0, HOUR)
    reservation = era.make_reservation("a", Bid.of(request, RICH), now=0).reservation
    assert reservation.placements[0].units == {GPU: 2, "cpu": 2000}
    assert (
        reservation.price
        == era.make_reservation(
            "b", Bid.of(ask("two", HOUR, HOUR, 2 * HOUR), RICH), now=0
        ).reservation.price
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("nvidia.com/gpus=1", "resources must be among .*; got 'nvidia.com/gpus'"),
        ("cpu=1", "resources must have some nvidia.com/gpu"),
        ("nvidia.com/gpu=9", "no node is that large"),
        ("nvidia.com/gpu=01", "configurations must be among"),
    ],
)
def test_a_bundle_the_pool_can_never_give_is_refused(make_era, name, wrong):
    era = make_era(nodes={"a": {GPU: 4, "cpu": "8"}})
    with pytest.raises(BidError, match=wrong):
        era.quote(ask(name, HOUR, 0, HOUR))


def test_a_configuration_may_not_be_called_like_another_bundle(make_era):
    with pytest.raises(ValueError, match="must not have a '='"):
        make_era(configurations=[Configuration("cpu=2", {GPU: "1"})])


def test_the_forecast_is_what_a_bundle_will_cost_with_a_band(make_era):
    era = make_era(predictor=Prior(840, 6, uncertainty=0.3))
    found = era.forecast("two", 0, 51, now=HOUR)
    # Of 840, 1 - 3 / 6 for the first of four units and 1 - 2 / 6 for the second.
    assert found.expected[1] == pytest.approx(420 + 560)
    assert found.expected[1] == pytest.approx(era.prices("two", HOUR, 1, now=HOUR)[0])
    assert (found.low[1:49] < found.expected[1:49]).all()
    assert (found.expected[1:49] < found.high[1:49]).all()
    assert np.isnan(found.expected[[0, 49, 50]]).all()


def test_the_forecast_rises_with_what_is_promised(make_era):
    era = make_era()
    before = era.forecast("gpu", 5 * HOUR, 1).expected[0]
    book(era, "a", 5 * HOUR, count=2)
    assert era.forecast("gpu", 5 * HOUR, 1).expected[0] > before


def test_price_limits_change_for_what_is_sold_from_then_on():
    era = build(price_floor=10, price_ceiling=None)
    before = era.quote(ask("gpu", HOUR, 0, HOUR)).price
    kept = era.make_reservation("a", Bid.of(ask("gpu", HOUR, 0, HOUR), RICH)).reservation
    era.limit_prices(2000, 3000)
    assert era.price_limits == (2000, 3000)
    assert 2000 <= era.quote(ask("gpu", HOUR, 0, HOUR)).price <= 3000
    assert era.hourly_price("four") is None and 4000 <= era.hourly_price("two") <= 6000
    assert era.reservations() == (kept,)
    with pytest.raises(ValueError, match="price_ceiling"):
        era.limit_prices(2000, 1999)
    assert era.price_limits == (2000, 3000)
    era.limit_prices(10, None)
    era.release("a")
    assert era.quote(ask("gpu", HOUR, 0, HOUR)).price == before
