"""The plan is what its spans add up to, and its memory is bounded."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing.plan import Plan, Span

SIZE = 12

steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "advance"]),
        st.integers(0, 5),
        st.integers(0, 15),
        st.integers(1, 6),
        st.integers(0, 4),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps)
def test_a_plan_rebuilt_from_its_spans_equals_the_plan(actions):
    plan = Plan(SIZE)
    for action, key, slot, length, units in actions:
        name, first = str(key), plan.base + slot
        if action == "advance":
            plan.advance(plan.base + length)
        elif action == "add" and name not in plan:
            plan.add(name, Span(first, first + length, units))
        elif action == "remove" and name in plan:
            plan.remove(name)
    rebuilt = Plan(SIZE)
    rebuilt.advance(plan.base)
    for name, span in plan.spans.items():
        rebuilt.add(name, span)
    low = plan.base
    np.testing.assert_array_equal(rebuilt.promised(low, 40), plan.promised(low, 40))
    for slot in range(low, low + 40):
        expected = sum(s.units for s in plan.spans.values() if s.first <= slot < s.end)
        assert plan.promised(slot, 1) == [expected]
    if plan.length == rebuilt.length:
        assert rebuilt == plan


def test_plans_that_differ_are_not_equal():
    one, other = Plan(SIZE), Plan(SIZE)
    assert one == other
    assert one != "plan"
    one.add("a", Span(2, 4, 1))
    assert one != other
    other.add("a", Span(2, 4, 2))
    assert one != other


def test_memory_is_bounded_as_time_goes_on():
    plan = Plan(SIZE)
    for slot in range(1000):
        plan.advance(slot)
        plan.add(f"job-{slot}", Span(slot + 3, slot + 6, 1))
    assert plan.length == SIZE
    assert len(plan.spans) == 6
    assert list(plan.promised(999, 7)) == [3, 3, 3, 3, 2, 1, 0]


def test_the_window_grows_for_a_span_beyond_it_and_shrinks_again():
    plan = Plan(SIZE)
    plan.add("far", Span(50, 60, 1))
    assert plan.length == 60
    plan.advance(55)
    assert plan.length == SIZE
    assert list(plan.promised(55, 7)) == [1, 1, 1, 1, 1, 0, 0]
