"""What lies near a span is found as if everything had been looked at."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing import Bid, FirstFit, Inventory, ResourceRequest, TimeGrid
from era_pricing.plan import Plan, Span
from tests.pricing.small_pool import GPU, build

GRID = TimeGrid(10, 1000)
NODES = 2

spans = st.builds(
    lambda first, length, node: Span(first, first + length, ((node, (1,)),)),
    st.integers(0, 60),
    st.integers(1, 40),
    st.integers(0, NODES - 1),
)
steps = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "advance"]), st.integers(0, 9), spans, spans),
    max_size=40,
)


def played(actions):
    plan = Plan(Inventory.of_nodes({f"node-{n}": {GPU: 9} for n in range(NODES)}), GRID)
    for action, key, one, other in actions:
        name = str(key)
        if action == "advance":
            plan.advance(plan.base + key)
        elif action == "remove" and name in plan:
            plan.remove(name)
        elif action == "add" and name not in plan:
            shift = plan.base
            both = [
                each._replace(first=each.first + shift, end=each.end + shift)
                for each in (one, other)
            ]
            plan.add(name, tuple(both))
    return plan


def shares_a_slot(own, span):
    slots = max(own.first, span.first) < min(own.end, span.end)
    return slots and {node for node, _ in own.loads} & {node for node, _ in span.loads}


@settings(deadline=None)
@given(steps, spans, st.sets(st.integers(0, 9)))
def test_overlapping_promises_are_found(actions, span, among):
    plan, keys = played(actions), {str(key) for key in among}
    found = plan.overlapping([span], keys)
    expected = {
        key
        for key, held in plan.spans.items()
        if key in keys and any(shares_a_slot(own, span) for own in held)
    }
    assert len(found) == len(set(found))
    assert set(found) == expected
    copied = plan.copy()
    for key in list(plan.spans):
        plan.remove(key)
    assert set(copied.overlapping([span], keys)) == expected
    assert plan.overlapping([span], keys) == []


@settings(deadline=None)
@given(steps, st.integers(0, 80))
def test_promises_that_begin_before_a_slot_are_found(actions, later):
    plan = played(actions)
    slot = plan.base + later
    expected = {
        key
        for key, held in plan.spans.items()
        if any(own.first < max(slot, 0) and own.end > plan.base for own in held)
    }
    found = set(plan.begin_before(slot, plan.spans))
    # Spans that are over do not matter; where another of the same key is kept they may count.
    over = {key for key, held in plan.spans.items() if any(own.end <= plan.base for own in held)}
    assert found - over == expected - over


class Everything(FirstFit):
    """First-fit that has all starts priced before it keeps the first."""

    takes_earliest = False


asked = st.lists(
    st.tuples(
        st.integers(1, 4),  # units
        st.integers(1, 90),  # duration
        st.integers(0, 60),  # from now to the arrival
        st.integers(0, 120),  # slack
        st.integers(0, 15),  # to the next request
        st.sampled_from(["fixed", "flexible"]),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(asked)
def test_pricing_only_the_earliest_start_changes_nothing(requests):
    eras = [build(grid=GRID, algorithm=kind()) for kind in (FirstFit, Everything)]
    now = 0
    for number, (units, duration, ahead, slack, gap, commitment) in enumerate(requests):
        now += gap
        arrival = now + ahead
        request = ResourceRequest({"gpu": units}, duration, arrival, arrival + duration + slack)
        bid = Bid.of(request, 10**12, commitment)
        one, other = (era.make_reservation(str(number), bid, now) for era in eras)
        assert one.reservation == other.reservation
        assert one.reason == other.reason
        assert one.quote.starts.tolist() == other.quote.starts.tolist()
        assert one.quote.prices.tolist() == other.quote.prices.tolist()
