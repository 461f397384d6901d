"""Where a placement can be put, and who is in the way: as if everything had been looked at."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing import Bid, Era, FirstFit, Inventory, ResourceRequest, TimeGrid
from era_pricing.bids import Commitment
from era_pricing.books import Books
from era_pricing.moving import Openings
from era_pricing.plan import Span
from era_pricing.reservations import Placement, Reservation, Share, Window
from era_pricing.waiting import Waiting
from tests.pricing.small_pool import GPU, build

SLOT, CAPACITY, NODES = 10, 4, 2
GRID = TimeGrid(SLOT, 2000 * SLOT)

promises = st.lists(
    st.tuples(
        st.integers(0, 900),  # first slot
        st.sampled_from([1, 7, 150, 600]),  # slots
        st.integers(0, NODES - 1),
        st.integers(1, CAPACITY),
    ),
    max_size=12,
)


def placement(start, slots, units, node=0):
    share = Share(f"node-{node}", "gpu", units, {GPU: units})
    parts = GRID.index_up(start + slots * SLOT) - GRID.index(start)
    return Placement(start, start + slots * SLOT, (0,) * parts, (share,))


def books_with(taken):
    books = Books(GRID, Inventory.of_nodes({f"node-{n}": {GPU: CAPACITY} for n in range(NODES)}))
    for number, (first, slots, node, units) in enumerate(taken):
        span = Span(first, first + slots, ((node, (units,)),))
        if books.plan.fits(span):
            books.plan.add(str(number), (span,))
    return books


@settings(deadline=None)
@given(
    promises,
    st.integers(1, 2 * CAPACITY),
    st.sampled_from([1, 5, 90, 300]),
    st.integers(0, 9000),  # where it is now
    st.integers(0, 5000),  # arrival
    st.integers(0, 9000),  # slack
    st.lists(st.tuples(st.integers(0, 900), st.integers(1, 50)), max_size=2),
)
def test_openings_are_those_of_a_search_through_the_whole_window(
    taken, units, slots, start, arrival, slack, kept_free
):
    books, job = books_with(taken), placement(start, slots, units)
    window = Window(arrival, arrival + slots * SLOT + slack)
    untouched = [(first, first + count) for first, count in kept_free]
    openings = Openings(books, books.plan, job, window, 0, untouched)

    def fits(first):
        if any(first < end and low < first + slots for low, end in untouched):
            return False
        free = books.plan.free(first, slots)[:, 0].min(axis=1)
        return free.sum() >= units

    last = (window.deadline // SLOT) - slots
    expected = [at * SLOT for at in range(-(-arrival // SLOT), last + 1) if fits(at)]
    assert list(openings) == expected
    assert openings.last() == (expected[-1] if expected else None)
    near = min(expected, key=lambda each: abs(each - start), default=None)
    assert openings.nearest(start) == near
    for each in expected[:1]:
        found = openings.place(each)
        assert (found.start, found.end) == (each, each + slots * SLOT)
        assert books.plan.fits(books.span(found))


actions = st.lists(
    st.tuples(
        st.sampled_from(["add", "discard", "later"]),
        st.integers(0, 120),  # which
        st.integers(0, 400),  # start
        st.integers(1, 30),  # slots
        st.integers(0, 40),  # from the arrival to the start
        st.integers(0, 50),  # slack
    ),
    max_size=300,
)


@settings(deadline=None)
@given(actions, st.integers(0, 4000), st.integers(1, 200))
def test_waiting_keeps_what_a_dictionary_keeps(steps, first, count):
    waiting, model, now = Waiting(1), {}, 0
    for action, number, start, slots, early, slack in steps:
        key = str(number)
        if action == "later":
            now += 3 * SLOT
        elif action == "discard":
            waiting.discard(key)
            model.pop(key, None)
        else:
            begin = start * SLOT
            job = placement(begin, slots, 1)
            window = Window(max(begin - early * SLOT, 0), begin + (slots + slack) * SLOT)
            made = Reservation(key, (job,), 0, Commitment.FLEXIBLE, (window,))
            waiting.add(made, (Span(start, start + slots, ((0, (1,)),)),))
            model[key] = made
    begun = {key for key, each in model.items() if each.start <= now}
    # What has begun may be forgotten, and then comes last if it is added again.
    left = [key for key in model if key not in begun]
    assert sorted(waiting.keys(now)) == sorted(left)
    span = Span(first // SLOT, first // SLOT + count, ((0, (1,)),))
    found = waiting.overlapping(span, now)
    assert set(found) == {
        key
        for key in left
        if model[key].start // SLOT < span.end and span.first < model[key].end // SLOT
    }
    deadlines = [model[key].windows[0].deadline for key in found]
    assert deadlines == sorted(deadlines, reverse=True)


def test_only_what_lies_where_units_are_missing_is_moved():
    """A long job is promised its time beside others; those that leave it room stay."""
    era: Era = build(grid=TimeGrid(10, 1000), algorithm=FirstFit())

    def reserve(job, units, duration, arrival, deadline):
        request = ResourceRequest({"gpu": units}, duration, arrival, deadline)
        made = era.make_reservation(job, Bid.of(request, 10**12, Commitment.FLEXIBLE), 0)
        assert made.accepted
        return made.reservation

    # The pool has room for all but the first of them beside the long one.
    capacity = int(era.capacity(0, 1)[0])
    first = reserve("wide", capacity, 20, 10, 900)
    second = reserve("narrow", 1, 20, 45, 1000)
    long = reserve("long", capacity - 1, 80, 10, 90)
    now = {each.job_id: each for each in era.reservations(0)}
    assert long.start == 10
    assert now["wide"].start != first.start
    assert now["narrow"] == second


@pytest.mark.parametrize("units", [1, 3])
def test_jobs_start_early_in_the_order_of_their_planned_starts(units):
    """When units become idle, what was planned for the earliest takes them."""
    era: Era = build(grid=TimeGrid(10, 1000), algorithm=FirstFit())
    capacity = int(era.capacity(0, 1)[0])

    def reserve(job, asked, duration, commitment):
        request = ResourceRequest({"gpu": asked}, duration, 0, 900)
        made = era.make_reservation(job, Bid.of(request, 10**12, commitment), 0)
        assert made.reservation is not None
        return made.reservation.start

    assert reserve("running", capacity, 50, Commitment.FIXED) == 0
    for number in range(3):
        assert reserve(f"job-{number}", units, 30, Commitment.FLEXIBLE) >= 50
    planned = sorted(era.reservations(0)[1:], key=lambda each: each.start)
    era.release("running", 10)
    begun = {each.job_id for each in era.reservations(10) if each.start == 10}
    assert begun == {each.job_id for each in planned[: capacity // units]}
