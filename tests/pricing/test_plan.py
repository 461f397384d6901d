"""The plan is what its spans add up to, and its memory is bounded."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing import Inventory, TimeGrid
from era_pricing.plan import Plan, Span
from tests.pricing.small_pool import GPU

SIZE = 12
GRID = TimeGrid(10, SIZE * 10)


def empty(nodes=2):
    names = {f"node-{n}": {GPU: 5, "cpu": "4m"} for n in range(nodes)}
    return Plan(Inventory.of_nodes(names), GRID)


def span(first, end, gpus, cpus=0, node=0):
    return Span(first, end, ((node, (gpus, cpus)),))


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "advance"]),
        st.integers(0, 5),
        st.integers(0, 15),
        st.integers(1, 6),
        st.integers(0, 4),
        st.integers(0, 1),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps)
def test_a_plan_rebuilt_from_its_spans_equals_the_plan(actions):
    plan = empty()
    for action, key, slot, length, units, node in actions:
        name, first = str(key), plan.base + slot
        if action == "advance":
            plan.advance(plan.base + length)
        elif action == "add" and name not in plan:
            spans = (
                span(first, first + length, units, node=node),
                span(first + 9, first + 9 + length, 1, units, 1 - node),
            )
            plan.add(name, spans)
        elif action == "remove" and name in plan:
            plan.remove(name)
    rebuilt = empty()
    rebuilt.advance(plan.base)
    for name, spans in plan.spans.items():
        rebuilt.add(name, spans)
    assert rebuilt == plan
    held = [each for spans in plan.spans.values() for each in spans]
    for slot in range(plan.base, plan.base + 40):
        here = [each.loads[0] for each in held if each.first <= slot < each.end]
        for node in range(2):
            used = np.sum([u for n, u in here if n == node], axis=0) + np.zeros(2, int)
            free = plan.free(slot, 1)[node, :, 0]
            assert list(free) == [5 - used[0], 4 - used[1]]
        assert plan.promised(0, slot, 1) == [sum(units[0] for _, units in here)]
        assert plan.promised(1, slot, 1) == [sum(units[1] for _, units in here)]


def test_plans_that_differ_are_not_equal():
    one, other = empty(), empty()
    assert one == other
    assert one != "plan"
    one.add("a", (span(2, 4, 1),))
    assert one != other
    other.add("a", (span(2, 4, 1, node=1),))
    assert one != other


def test_memory_is_bounded_as_time_goes_on():
    plan = empty()
    for slot in range(1000):
        dropped = plan.advance(slot)
        assert dropped == ([f"job-{slot - 6}"] if slot >= 6 else [])
        plan.add(f"job-{slot}", (span(slot + 3, slot + 6, 1),))
    assert plan.length <= 2 * SIZE
    assert len(plan.spans) == 6
    assert list(plan.promised(0, 999, 7)) == [3, 3, 3, 3, 2, 1, 0]


def test_adding_and_taking_back_again_and_again_takes_no_memory():
    plan = empty()
    plan.add("stays", (span(1, 3, 1),))
    for _ in range(1000):
        plan.add("a", (span(50, 60, 1),))
        plan.remove("a")
    assert len(plan._ends) < 200
    assert plan.advance(3) == ["stays"]


def test_the_window_grows_for_a_span_beyond_it_and_shrinks_again():
    plan = empty()
    plan.add("far", (span(50, 60, 1),))
    assert plan.length >= 60
    assert list(plan.promised(0, 49, 3)) == [0, 1, 1]
    plan.advance(55)
    assert list(plan.promised(0, 55, 7)) == [1, 1, 1, 1, 1, 0, 0]
    plan.advance(70)
    plan.advance(90)
    assert plan.length <= 2 * SIZE


def test_a_trial_leaves_no_trace():
    plan, before = empty(), empty()
    with plan.trial() as trial:
        trial.add((span(0, 3, 2), span(100, 105, 1)))
        assert list(plan.free(0, 4)[0, 0]) == [3, 3, 3, 5]
        assert not plan.fits(span(2, 5, 4))
        assert plan.fits(span(2, 5, 3))
    assert plan == before


def test_a_node_that_joins_adds_to_what_is_free():
    inventory = Inventory.of_nodes({"a": {GPU: 5}})
    plan = Plan(inventory, GRID)
    plan.add("x", (Span(1, 3, ((0, (2,)),)),))
    assert not plan.refresh()
    inventory.add_node("b", {GPU: 3}, 20)
    assert plan.refresh()
    assert plan.free(0, 4)[:, 0].tolist() == [[5, 3, 3, 5], [0, 0, 3, 3]]
    assert list(plan.capacity(0, 0, 4)) == [5, 5, 8, 8]
    assert list(plan.promised(0, 0, 4)) == [0, 2, 2, 0]
