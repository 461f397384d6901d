"""What becomes of a promise: early starts, making room, chunks, extensions, lost capacity."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing import (
    Alternative,
    BasicEcon,
    Bid,
    BidError,
    Commitment,
    EarlyStart,
    Feedback,
    FirstFit,
    Prior,
    ResourceRequest,
    TimeGrid,
    UnknownReservation,
    ValueStep,
)
from tests.pricing.small_pool import GPU, HOUR, RICH, ask, build, change

FIXED, FLEXIBLE, PREEMPTIBLE = Commitment.FIXED, Commitment.FLEXIBLE, Commitment.PREEMPTIBLE


def hourly(*weights):
    """With 4 GPUs left, one costs 840 * (1 - 3 / demand) in each hour."""
    return Prior(840, 6, [*weights, *([0] * (23 - len(weights))), 6])


def book(era, job_id, hours, first, last, count=1, commitment=FLEXIBLE, now=0, **more):
    """Reserve some hours in the window from hour `first` to hour `last`."""
    request = ask("gpu", hours * HOUR, int(first * HOUR), int(last * HOUR), count)
    decision = era.make_reservation(job_id, Bid.of(request, RICH, commitment, **more), now)
    assert decision.accepted, decision.reason
    return decision.reservation


def plan(era):
    """Start of each reservation in hours."""
    return {r.job_id: r.start / HOUR for r in era.reservations()}


# Early starts.


def test_a_job_starts_early_once_its_arrival_has_come_and_its_units_are_idle():
    era = build(predictor=hourly(6, 6, 6, 0))
    job = book(era, "job", 2, 1, 20)
    notebook = book(era, "notebook", 1, 1, 20, commitment=FIXED)
    assert job.start == 3 * HOUR
    assert notebook.start >= 3 * HOUR
    result = era.update(Feedback(), now=HOUR)
    assert plan(era) == {"job": 1, "notebook": notebook.start / HOUR}
    moved = next(r for r in era.reservations() if r.job_id == "job")
    assert result.moved == (moved,)
    assert (moved.end, moved.price, moved.slot_prices) == (3 * HOUR, job.price, job.slot_prices)
    assert era.update(Feedback(), now=HOUR).moved == ()


@pytest.mark.parametrize(("early_start", "start"), [("idle", 1), ("never", 3), ("cheaper", 3)])
def test_when_jobs_start_early_is_a_choice(early_start, start):
    era = build(predictor=hourly(6, 6, 6, 0), early_start=early_start)
    book(era, "job", 1, 1, 20)
    era.update(Feedback(), now=HOUR)
    assert plan(era) == {"job": start}


class Patient(BasicEcon):
    early_start = EarlyStart.CHEAPER


@pytest.mark.parametrize(("options", "start"), [({}, 3), ({"early_start": "idle"}, 1)])
def test_the_algorithm_says_when_jobs_start_early_if_nobody_else_does(options, start):
    era = build(predictor=hourly(6, 6, 6, 0), algorithm=Patient(), **options)
    book(era, "job", 1, 1, 20)
    era.update(Feedback(), now=HOUR)
    assert plan(era) == {"job": start}


def test_a_job_starts_early_where_that_costs_no_more():
    era = build(
        predictor=Prior(840, 6, [6, 6, 6, 0] + [0] * 20, lead_time=60), early_start="cheaper"
    )
    assert book(era, "job", 1, 1, 20).start == 3 * HOUR
    era.update(Feedback(), now=HOUR)  # now nobody else is expected for this hour
    assert plan(era) == {"job": 1}


def test_a_release_lets_a_job_begin_at_once_inside_a_slot():
    era = build(algorithm=FirstFit())
    book(era, "full", 4, 0, 4, count=4, commitment=FIXED)
    job = book(era, "job", 2, 0, 20, count=2)
    assert job.start == 4 * HOUR
    era.release("full", now=HOUR + 1800)
    moved = next(r for r in era.reservations())
    assert (moved.start, moved.end) == (HOUR + 1800, 3 * HOUR + 1800)
    assert moved.price == job.price
    assert len(moved.slot_prices) == 3  # cut anew at the slot boundaries
    assert list(era.promised(HOUR, 4)) == [2, 2, 2, 0]


def test_a_job_does_not_start_early_over_a_promise():
    era = build(algorithm=FirstFit(), early_start="idle")
    book(era, "soon", 1, 1, 2, count=4, commitment=FIXED)
    book(era, "full", 1, 0, 1, count=4, commitment=FIXED)
    job = book(era, "job", 2, 0, 20)
    assert job.start == 2 * HOUR
    era.release("full", now=0)
    assert plan(era)["job"] == 2  # two hours do not fit before the promise
    era.release("soon", now=0)
    assert plan(era)["job"] == 0


def test_a_job_does_not_start_before_its_arrival():
    era = build(predictor=hourly(0, 0, 6, 6, 0))
    assert book(era, "job", 1, 2, 9).start == 4 * HOUR
    era.update(Feedback(), now=HOUR)
    assert plan(era) == {"job": 4}


# Making room.


def test_a_job_is_moved_to_make_room_for_a_bid_that_does_not_fit():
    era = build(algorithm=FirstFit(), early_start="never")
    job = book(era, "job", 2, 0, 6, count=3, now=0)
    assert job.start == 0
    later = book(era, "later", 1, 4, 9, count=3)
    assert later.start == 4 * HOUR
    request = ask("gpu", 2 * HOUR, 4 * HOUR, 6 * HOUR, 2)
    quote = era.quote(request)
    assert quote.feasible
    decision = era.make_reservation("notebook", Bid.of(request, RICH))
    assert decision.price == quote.price
    assert decision.reservation.start == 4 * HOUR
    assert plan(era)["later"] == 6
    assert max(era.promised(0, 12)) <= 4


def test_nothing_is_moved_where_the_engine_is_told_not_to():
    era = build(algorithm=FirstFit(), early_start="never", replan=False)
    book(era, "later", 1, 4, 9, count=3)
    assert not era.quote(ask("gpu", HOUR, 4 * HOUR, 5 * HOUR, 2)).feasible


def test_what_has_begun_or_is_fixed_is_not_moved():
    era = build(algorithm=FirstFit())
    book(era, "job", 2, 0, 9, count=3)
    book(era, "notebook", 1, 4, 9, count=3, commitment=FIXED)
    assert not era.quote(ask("gpu", HOUR, 0, HOUR, 2), now=0).feasible
    assert not era.quote(ask("gpu", HOUR, 4 * HOUR, 5 * HOUR, 2), now=0).feasible


def test_a_job_is_not_moved_past_the_deadline_for_which_it_paid():
    era = build(algorithm=FirstFit(), early_start="never")
    request = ask("gpu", HOUR, 4 * HOUR, 20 * HOUR, 3)
    steps = (ValueStep(5 * HOUR, RICH), ValueStep(None, RICH - 10**6))
    bid = Bid((Alternative((request,), steps),), FLEXIBLE)
    assert era.make_reservation("job", bid, 0).reservation.start == 4 * HOUR
    assert not era.quote(ask("gpu", HOUR, 4 * HOUR, 5 * HOUR, 2)).feasible


def test_nothing_is_moved_to_a_start_that_has_passed():
    nodes = {"a": {GPU: 3}, "b": {GPU: 2}}
    grid = TimeGrid(10, 200)
    era = build(nodes=nodes, grid=grid, algorithm=FirstFit(), early_start="never")

    def make(job_id, count, duration, arrival, deadline, commitment, now):
        request = ask("gpu", duration, arrival, deadline, count)
        before = {r.job_id: r.start for r in era.reservations(now)}
        era.make_reservation(job_id, Bid.of(request, RICH, commitment), now)
        for each in era.reservations(now):
            start = before.get(each.job_id, now)
            assert each.start >= now or each.start == start

    for number in range(4):
        arrival = 5 + 5 * number
        make(f"a-{number}", 1 + number % 3, 20, arrival, arrival + 60, FLEXIBLE, 5)
    make("b", 2, 20, 5, 30, FIXED, 5)
    for number in range(2):
        arrival = 8 + 5 * number
        make(f"c-{number}", 1 + number, 20, arrival, arrival + 37, FLEXIBLE, 8)
    make("d", 1, 40, 29, 100, FIXED, 8)
    era.forget("d")
    make("e", 2, 20, 45, 70, FIXED, 32)


jobs = st.lists(
    st.tuples(
        st.integers(1, 3),  # hours
        st.integers(1, 4),  # GPUs
        st.integers(0, 8),  # arrival
        st.integers(0, 6),  # slack
        st.sampled_from([FIXED, FLEXIBLE, FLEXIBLE, FLEXIBLE]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=200)
@given(jobs, st.booleans(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 8))
def test_whatever_is_moved_stays_in_its_window_and_in_the_pool(jobs, nodes, hours, count, first):
    pool = {"a": {GPU: 3}, "b": {GPU: 1}} if nodes else None
    era = build(nodes=pool, predictor=Prior(840, 0), early_start="never")
    made = {}
    for number, (length, units, arrival, slack, commitment) in enumerate(jobs):
        request = ask(
            "gpu", length * HOUR, arrival * HOUR, (arrival + length + slack) * HOUR, units
        )
        quote = era.quote(request)
        decision = era.make_reservation(str(number), Bid.of(request, RICH, commitment), 0)
        assert decision.accepted == quote.feasible
        if decision.accepted:
            assert decision.price == quote.price
            made[str(number)] = (request, commitment, decision.reservation)
    tight = ask("gpu", hours * HOUR, first * HOUR, (first + hours) * HOUR, count)
    wide = ask("gpu", hours * HOUR, 0, 20 * HOUR, count)
    if era.quote(tight).feasible:
        assert era.quote(wide).price <= era.quote(tight).price
        assert first * HOUR in era.quote(wide).starts
    promised = [0] * 24
    for reservation in era.reservations():
        request, commitment, first_told = made.pop(reservation.job_id)
        assert request.arrival <= reservation.start
        assert reservation.end <= request.deadline
        assert reservation.price == first_told.price
        if commitment is FIXED:
            assert reservation.start == first_told.start
        for slot in range(reservation.start // HOUR, reservation.end // HOUR):
            promised[slot] += request.configurations["gpu"]
    assert not made
    assert list(era.promised(0, 24)) == promised
    assert max(promised) <= 4


# Preemptible jobs.


def test_a_preemptible_job_takes_the_cheapest_slots():
    era = build(predictor=hourly(4, 6, 5, 6, 4))
    whole = era.quote(ask("gpu", 3 * HOUR, 0, 5 * HOUR))
    job = book(era, "job", 3, 0, 5, commitment=PREEMPTIBLE)
    assert [(p.start // HOUR, p.end // HOUR) for p in job.placements] == [(0, 1), (2, 3), (4, 5)]
    assert job.slot_prices == (210, 336, 210)
    assert job.price < whole.price
    assert list(era.promised(0, 5)) == [1, 0, 1, 0, 1]
    assert sorted(era.get_current_allocation(now=2 * HOUR)) == ["job"]
    assert era.get_current_allocation(now=HOUR) == {}


def test_a_chunk_has_at_least_the_length_it_must_have():
    era = build(predictor=hourly(4, 6, 6, 6, 4, 4), chunk=2)
    job = book(era, "job", 4, 0, 6, commitment=PREEMPTIBLE)
    assert [(p.start // HOUR, p.end // HOUR) for p in job.placements] == [(0, 2), (4, 6)]


def test_a_preemptible_job_fits_around_what_is_promised():
    era = build(algorithm=FirstFit(), chunk=1)
    book(era, "notebook", 1, 1, 2, count=4, commitment=FIXED)
    request = ask("gpu", 2 * HOUR, 0, 3 * HOUR, 4)
    assert not era.quote(Bid.of(request, RICH, FLEXIBLE)).feasible
    decision = era.make_reservation("job", Bid.of(request, RICH, PREEMPTIBLE))
    # First-fit sells the earliest start alone, so it has no chunks on its menu.
    assert not decision.accepted
    era = build(chunk=1)
    book(era, "notebook", 1, 1, 2, count=4, commitment=FIXED)
    decision = era.make_reservation("job", Bid.of(request, RICH, PREEMPTIBLE))
    assert [p.start for p in decision.reservation.placements] == [0, 2 * HOUR]


def test_half_a_chunked_job_is_refunded_for_what_has_not_begun():
    era = build(predictor=hourly(4, 6, 5, 6, 4), early_start="never")
    book(era, "job", 3, 0, 5, commitment=PREEMPTIBLE)
    assert era.release("job", now=HOUR + 5) == 336 + 210
    assert not era.promised(0, 9).any()


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(0, 9), min_size=12, max_size=12),
    st.lists(st.integers(0, 4), min_size=12, max_size=12),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 3 * HOUR),
    st.integers(0, HOUR),
)
def test_chunks_cost_the_least_there_is(weights, taken, hours, chunk, count, arrival, slack):
    era = build(predictor=Prior(840, 9, [*weights, *([9] * 12)]), chunk=chunk)
    for hour, units in enumerate(taken):
        if units:
            book(era, f"taken-{hour}", 1, hour, hour + 1, count=units, commitment=FIXED)
    request = ask("gpu", hours * HOUR, arrival, 12 * HOUR - slack, count)
    whole = era.quote(Bid.of(request, RICH, FLEXIBLE)).price
    price = era.quote(Bid.of(request, RICH, PREEMPTIBLE)).price
    costs = era.prices("gpu", 0, 12) if count == 1 else None
    expected = [] if whole is None else [whole]
    if costs is not None:
        least = cheapest_chunks(
            costs, -(-arrival // HOUR), (12 * HOUR - slack) // HOUR, hours, chunk
        )
        expected += [] if least is None else [least]
        assert price == min(expected, default=None)
    elif whole is not None:
        assert price <= whole


def cheapest_chunks(costs, first, end, hours, chunk):
    """By trying all ways to lay the chunks."""
    number = -(-hours // chunk)

    def least(at, left):
        if left == 0:
            return 0
        if at + chunk > end:
            return None
        options = [least(at + 1, left)]
        if all(costs[t] >= 0 for t in range(at, at + chunk)):
            rest = least(at + chunk, left - 1)
            if rest is not None:
                options.append(int(sum(costs[at : at + chunk])) + rest)
        return min((option for option in options if option is not None), default=None)

    return least(first, number) if end - first >= hours else None


# Extensions.


def test_an_extension_pays_todays_price_for_the_time_after_the_end():
    era = build(predictor=hourly(4, 5, 6))
    first = book(era, "a", 1, 0, 1, commitment=FIXED)
    decision = era.extend("a", HOUR, 400)
    assert (decision.accepted, decision.price) == (True, 336)
    assert decision.reservation.slot_prices == (first.price, 336)
    assert decision.reservation.end == 2 * HOUR
    assert list(era.promised(0, 3)) == [1, 1, 0]
    refused = era.extend("a", 1, 419)
    assert (refused.accepted, refused.price, refused.reservation) == (False, 420, None)
    assert list(era.promised(0, 3)) == [1, 1, 0]
    assert era.release("a", now=HOUR) == 0


def test_an_extension_costs_what_was_quoted_and_a_quote_promises_nothing():
    era = build(predictor=hourly(4, 5, 6))
    book(era, "a", 1, 0, 1, commitment=FIXED)
    for seconds in (1, HOUR, 2 * HOUR):
        assert era.quote_extension("a", seconds).price == era.extend("a", seconds, 0).price
    assert list(era.promised(0, 3)) == [1, 0, 0]
    assert era.quote_extension("a", HOUR).price == era.extend("a", HOUR, RICH).price == 336
    assert not era.quote_extension("a", 48 * HOUR).feasible
    with pytest.raises(UnknownReservation):
        era.quote_extension("b", HOUR)


def test_an_extension_inside_a_slot_pays_the_rest_of_it_first():
    era = build(predictor=hourly(4, 5, 6))
    book(era, "a", 1, 0.5, 1.5, commitment=FIXED)
    decision = era.extend("a", HOUR, RICH)
    # Of the running slot a GPU is promised already, to itself.
    assert decision.price == (504 + 420) // 2
    assert decision.reservation.slot_prices == (105, 168 + 252, 210)


def test_what_follows_is_moved_for_an_extension_if_it_can_be():
    era = build(algorithm=FirstFit(), early_start="never")
    book(era, "a", 1, 0, 1, count=3, commitment=FIXED)
    book(era, "job", 1, 1, 9, count=3)
    assert era.extend("a", HOUR, RICH).accepted
    assert plan(era) == {"a": 0, "job": 2}
    book(era, "b", 1, 2, 3, commitment=FIXED)
    book(era, "notebook", 1, 3, 4, count=4, commitment=FIXED)
    refused = era.extend("a", 2 * HOUR, RICH)
    assert not refused.accepted
    assert refused.price is None
    assert refused.reason == "what comes after it on its nodes is promised to others"


def test_a_job_that_has_not_begun_moves_for_its_extension():
    era = build(algorithm=FirstFit(), early_start="never")
    book(era, "notebook", 1, 3, 4, count=4, commitment=FIXED)
    assert book(era, "job", 1, 2, 9, count=2).start == 2 * HOUR
    decision = era.extend("job", HOUR, RICH)
    assert decision.accepted
    assert (decision.reservation.start, decision.reservation.end) == (4 * HOUR, 6 * HOUR)
    assert list(era.promised(2 * HOUR, 5)) == [0, 4, 2, 2, 0]


def test_extensions_that_make_no_sense_are_refused():
    era = build()
    book(era, "a", 1, 0, 1)
    with pytest.raises(BidError, match="^seconds must be"):
        era.extend("a", 0, 5)
    with pytest.raises(BidError, match="^value must be"):
        era.extend("a", HOUR, -1)
    with pytest.raises(UnknownReservation):
        era.extend("b", HOUR, 5)
    far = era.extend("a", 48 * HOUR, RICH)
    assert not far.accepted
    assert "sells until" in far.reason


# Lost capacity.


def test_jobs_move_before_a_promise_is_broken():
    era = build(algorithm=FirstFit(), early_start="never")
    notebook = book(era, "notebook", 2, 2, 4, count=2, commitment=FIXED)
    book(era, "job", 2, 2, 9, count=2)
    result = era.update(Feedback(capacity=[change(2 * HOUR, 4 * HOUR, 2)]), now=0)
    assert result.broken == {}
    assert plan(era) == {"notebook": 2, "job": 4}
    assert [r.job_id for r in result.moved] == ["job"]
    lost = era.update(Feedback(capacity=[change(0, None, 1)]), now=0)
    assert lost.broken["notebook"] == notebook.price
    assert era.reservations() == ()


def test_a_job_on_another_node_moves_for_a_notebook_that_lost_its_own():
    era = build(nodes={"a": {GPU: 4}, "b": {GPU: 4}}, algorithm=FirstFit(), early_start="never")
    book(era, "notebook", 2, 2, 4, count=4, commitment=FIXED)
    book(era, "job", 2, 2, 9, count=4)
    nodes = {r.job_id: r.placements[0].nodes for r in era.reservations()}
    result = era.update(Feedback(capacity=[change(0, None, 0, nodes["notebook"][0])]), now=0)
    assert result.broken == {}
    assert plan(era) == {"notebook": 2, "job": 4}
    assert {r.placements[0].nodes for r in era.reservations()} == {nodes["job"]}


def test_a_chunk_moves_away_from_lost_capacity_and_not_onto_another_one():
    era = build(predictor=hourly(4, 6, 5, 6, 4, 6), early_start="never")
    book(era, "job", 3, 0, 6, count=1, commitment=PREEMPTIBLE, now=0)
    result = era.update(Feedback(capacity=[change(2 * HOUR, 3 * HOUR, 0)]), now=HOUR)
    assert result.broken == {}
    starts = sorted(p.start // HOUR for p in era.reservations()[0].placements)
    assert starts == [0, 1, 4]


def pieces(era, job_id="job"):
    """Start and end of each placement in hours, and its nodes."""
    found = next(r for r in era.reservations() if r.job_id == job_id)
    return [(p.start / HOUR, p.end / HOUR, *p.nodes) for p in found.placements]


def lose(era, first, last, left=0, node=None, now=0.0):
    """Take capacity away from hour `first` to hour `last`."""
    loss = change(int(first * HOUR), int(last * HOUR), left, node)
    return era.update(Feedback(capacity=[loss]), now=int(now * HOUR))


def test_what_is_left_of_a_running_preemptible_job_moves_and_what_is_done_stays():
    era = build(predictor=Prior(840, 0), early_start="never")
    told = book(era, "job", 4, 0, 20, count=2, commitment=PREEMPTIBLE)
    assert pieces(era) == [(0, 4, "pool")]
    result = lose(era, 1, 3, now=1.5)
    assert result.broken == {}
    assert pieces(era) == [(0, 1.5, "pool"), (3, 5.5, "pool")]
    assert result.moved == era.reservations()
    now = result.moved[0]
    assert (now.price, sum(now.slot_prices)) == (told.price, told.price)
    assert list(era.promised(2 * HOUR, 5)) == [0, 2, 2, 2, 0]
    assert era.get_current_allocation(now=int(1.5 * HOUR)) == {}
    assert sorted(era.get_current_allocation(now=3 * HOUR)) == ["job"]
    again = build(predictor=Prior(840, 0))
    again.restore(era.reservations(), now=int(1.5 * HOUR))
    assert list(again.promised(2 * HOUR, 5)) == [0, 2, 2, 2, 0]


def test_a_preemptible_job_goes_on_at_once_where_another_node_has_room():
    era = build(nodes={"a": {GPU: 4}, "b": {GPU: 4}}, predictor=Prior(840, 0), early_start="never")
    book(era, "job", 2, 0, 9, count=2, commitment=PREEMPTIBLE)
    assert lose(era, 0.5, 9, node="a", now=0.5).broken == {}
    assert pieces(era) == [(0, 0.5, "a"), (0.5, 2, "b")]


def test_a_preemptible_job_goes_on_until_the_capacity_is_lost():
    era = build(predictor=Prior(840, 0), early_start="never")
    book(era, "job", 4, 0, 20, commitment=PREEMPTIBLE)
    assert lose(era, 2, 5, now=0.5).broken == {}
    assert pieces(era) == [(0, 2, "pool"), (5, 7, "pool")]


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [(1, [(0, 1), (3, 4), (5, 7)]), (2, [(0, 1), (5, 7), (8, 9)]), (9, None)],
)
def test_what_is_left_is_split_where_it_does_not_fit_in_one_piece(chunk, expected):
    era = build(predictor=Prior(840, 0), early_start="never", chunk=chunk)
    job = book(era, "job", 4, 0, 10, commitment=PREEMPTIBLE)
    for hour in (4, 7):
        book(era, f"notebook-{hour}", 1, hour, hour + 1, count=4, commitment=FIXED)
    result = lose(era, 1, 3, now=1)
    if expected is None:
        assert result.broken == {"job": job.price}
    else:
        assert result.broken == {}
        assert pieces(era) == [(*each, "pool") for each in expected]
    assert max(era.promised(0, 12)) <= 4


def test_a_running_flexible_job_begins_again_and_pays_no_more():
    era = build(predictor=Prior(840, 0), early_start="never")
    told = book(era, "job", 3, 0, 9, count=2)
    result = lose(era, 1, 3, left=1, now=1.5)
    assert result.broken == {}
    assert pieces(era) == [(3, 6, "pool")]
    now = era.reservations()[0]
    assert (now.price, now.slot_prices) == (told.price, told.slot_prices)
    assert era.get_current_allocation(now=2 * HOUR) == {}
    assert era.cancel("job", now=2 * HOUR) == told.price  # it has had nothing


def test_a_running_flexible_job_begins_again_at_once_on_another_node():
    era = build(nodes={"a": {GPU: 4}, "b": {GPU: 4}}, predictor=Prior(840, 0))
    book(era, "job", 2, 0, 9, count=2)
    assert lose(era, 0.5, 9, node="a", now=0.5).broken == {}
    assert pieces(era) == [(0.5, 2.5, "b")]


def test_nothing_starts_early_where_capacity_has_just_been_lost():
    era = build(predictor=hourly(6, 6, 6, 0))
    book(era, "job", 1, 1, 20)
    assert plan(era) == {"job": 3}
    result = lose(era, 1, 3, now=1)
    assert (result.moved, result.broken, plan(era)) == ((), {}, {"job": 3})


@pytest.mark.parametrize("commitment", [FIXED, FLEXIBLE, PREEMPTIBLE])
def test_a_running_job_without_time_to_begin_again_is_broken(commitment):
    era = build(predictor=Prior(840, 0))
    told = book(era, "job", 3, 0, 4, commitment=commitment)
    assert lose(era, 1, 3, now=1).broken == {"job": told.price}
    assert era.reservations() == ()


def test_a_job_that_began_again_may_be_moved_and_broken_again():
    era = build(predictor=Prior(840, 0), early_start="never")
    told = book(era, "job", 2, 0, 7)
    lose(era, 1, 3, now=1)
    book(era, "notebook", 1, 3, 4, count=4, commitment=FIXED, now=HOUR)
    assert pieces(era) == [(4, 6, "pool")]  # it has not begun, so it makes room
    lose(era, 4, 5, now=4.5)
    assert pieces(era) == [(5, 7, "pool")]
    assert lose(era, 5, 6, now=5.5).broken == {"job": told.price}


def test_who_can_begin_again_gives_way_to_who_cannot():
    era = build(predictor=Prior(840, 0), early_start="never")
    book(era, "parts", 3, 0, 9, commitment=PREEMPTIBLE)
    book(era, "job", 3, 0, 9)
    book(era, "notebook", 3, 0, 3, commitment=FIXED)
    assert lose(era, 1, 3, left=2, now=1).broken == {}
    assert pieces(era, "parts") == [(0, 1, "pool"), (3, 5, "pool")]
    assert pieces(era, "job") == [(0, 3, "pool")]
    assert lose(era, 1, 3, left=1, now=2).broken == {}
    assert pieces(era, "job") == [(3, 6, "pool")]
    assert pieces(era, "notebook") == [(0, 3, "pool")]


def test_a_notebook_that_has_not_begun_moves_to_another_node():
    era = build(nodes={"a": {GPU: 4}, "b": {GPU: 4}}, algorithm=FirstFit())
    told = book(era, "notebook", 2, 2, 4, count=2, commitment=FIXED)
    assert told.placements[0].nodes == ("a",)
    assert era.update(Feedback(capacity=[change(0, None, 0, "a")]), now=0).broken == {}
    assert era.reservations()[0].placements[0].nodes == ("b",)
    assert era.reservations()[0].start == told.start


def test_a_node_that_joins_can_be_sold():
    era = build(nodes={"a": {GPU: 1}}, algorithm=FirstFit())
    four = ResourceRequest({"four": 1}, HOUR, 0, 9 * HOUR)
    with pytest.raises(BidError, match="no node is that large"):
        era.quote(four)
    era.update(Feedback(capacity=[change(2 * HOUR, None, 4, "b")]), now=0)
    assert era.quote(four).start == 2 * HOUR


# Overruns.


def test_an_overrun_goes_on_while_the_units_are_idle():
    era = build(price_floor=100, algorithm=FirstFit())
    made = book(era, "a", 1, 0, 1, count=2, commitment=FIXED, overrun=2 * HOUR)
    assert (made.price, made.overrun_price) == (200 + 400, 400)
    assert "a" in era.get_current_allocation(now=HOUR - 1)
    running = era.get_current_allocation(now=HOUR)["a"]
    assert (running.overrun, running.end, running.placements) == (True, 3 * HOUR, made.placements)
    assert not era.promised(HOUR, 3).any()  # it can be sold all the while
    assert "a" not in era.get_current_allocation(now=3 * HOUR)
    assert era.update(Feedback(), now=3 * HOUR).overruns == {"a": 0}


def test_an_overrun_gives_way_to_a_reservation_and_is_refunded_for_the_rest():
    era = build(price_floor=100, algorithm=FirstFit())
    book(era, "a", 1, 0, 1, count=2, commitment=FIXED, overrun=2 * HOUR)
    book(era, "b", 1, 2, 3, count=3, commitment=FIXED)
    assert era.get_current_allocation(now=2 * HOUR - 1)["a"].overrun
    assert sorted(era.get_current_allocation(now=2 * HOUR)) == ["b"]
    assert era.update(Feedback(), now=2 * HOUR + 5).overruns == {"a": 200}
    assert era.update(Feedback(), now=2 * HOUR + 6).overruns == {}


def test_an_overrun_ends_when_its_units_are_sold_inside_the_slot():
    era = build(price_floor=100, algorithm=FirstFit())
    book(era, "a", 1, 0, 1, count=4, commitment=FIXED, overrun=HOUR)
    book(era, "b", 1, 1.25, 2.25, commitment=FIXED, now=HOUR + 900)
    assert sorted(era.get_current_allocation(now=HOUR + 900)) == ["b"]
    assert era.update(Feedback(), now=HOUR + 901).overruns == {"a": 300}


def test_an_overrun_follows_a_job_that_started_early():
    era = build(predictor=hourly(6, 6, 0))
    job = book(era, "job", 1, 1, 9, overrun=HOUR)
    assert job.start == 2 * HOUR
    era.update(Feedback(), now=HOUR)
    assert era.get_current_allocation(now=2 * HOUR)["job"].overrun
    assert era.get_current_allocation(now=3 * HOUR) == {}
    assert era.update(Feedback(), now=9 * HOUR).overruns == {"job": 0}


def test_an_overrun_can_be_given_back():
    era = build(price_floor=100, algorithm=FirstFit())
    book(era, "a", 1, 0, 1, count=4, commitment=FIXED, overrun=HOUR)
    era.update(Feedback(), now=HOUR)
    assert era.release("a", now=HOUR + 1800) == 200
    assert era.get_current_allocation(now=HOUR + 1800) == {}
    with pytest.raises(UnknownReservation):
        era.release("a", now=HOUR + 1801)


def test_of_two_overruns_the_one_that_began_first_goes_on():
    era = build(price_floor=100, algorithm=FirstFit(), grid=TimeGrid(HOUR, 48 * HOUR))
    book(era, "a", 1, 0, 1, count=3, commitment=FIXED, overrun=5 * HOUR)
    book(era, "b", 1, 1, 2, count=1, commitment=FIXED, overrun=5 * HOUR)
    book(era, "c", 1, 2, 3, count=1, commitment=FIXED)
    assert sorted(era.get_current_allocation(now=2 * HOUR)) == ["a", "c"]


def test_an_overrun_that_never_begins_is_refunded_with_the_reservation():
    era = build(price_floor=100, algorithm=FirstFit())
    made = book(era, "a", 1, 0, 1, commitment=FIXED, overrun=HOUR)
    assert era.cancel("a", now=0) == made.overrun_price
    made = book(era, "b", 1, 2, 3, commitment=FIXED, overrun=HOUR)
    assert era.cancel("b", now=HOUR) == made.price


def test_an_overrun_survives_a_restore():
    era = build(price_floor=100, algorithm=FirstFit())
    made = book(era, "a", 1, 0, 1, commitment=FIXED, overrun=HOUR)
    again = build(price_floor=100, algorithm=FirstFit())
    again.restore([made], now=HOUR + 600)
    assert again.get_current_allocation(now=HOUR + 600)["a"].overrun
    assert again.update(Feedback(), now=2 * HOUR).overruns == {"a": 0}


def test_a_notebook_goes_on_elsewhere_when_its_node_is_lost():
    era = build(nodes={"a": {GPU: "4"}, "b": {GPU: "4"}})
    made = book(era, "notebook", 4, 0, 4, commitment=FIXED)
    (lost,) = made.placements[0].nodes
    (other,) = {"a", "b"} - {lost}
    result = era.update(Feedback([change(HOUR, None, 0, lost)]), now=HOUR + 10)
    assert not result.broken
    (moved,) = result.moved
    done, rest = moved.placements
    assert (done.start, done.end, done.nodes) == (0, HOUR + 10, (lost,))
    assert (rest.start, rest.end, rest.nodes) == (HOUR + 10, 4 * HOUR, (other,))
    assert moved.price == made.price
    # Without room for the rest of its time it is broken.
    again = era.update(Feedback([change(HOUR, None, 0, other)]), now=HOUR + 20)
    assert again.broken == {"notebook": made.price}
