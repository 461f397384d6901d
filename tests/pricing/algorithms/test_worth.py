"""What free units are worth by how many they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_pricing.algorithms.worth import Worth, importance
from era_pricing.timegrid import HOUR
from era_pricing.workload import Workload

FIRST = 100


def expected(*rows):
    """Rows are (submitted, arrival, deadline, units, hours, rate of a unit).

    Windows are in hours from the first slot on; of the submissions the order alone matters.
    """
    columns = np.array(rows, dtype=np.int64).reshape(-1, 6).T
    submitted, arrival, deadline, units, hours, rate = columns
    value = units * hours * rate
    begin, end = FIRST * HOUR + HOUR * arrival, FIRST * HOUR + HOUR * deadline
    return Workload(submitted, begin, end, units, HOUR * hours, value)


def worth_of(requests, each, capacity, slots=3):
    weights = np.full(len(requests), each)
    return Worth.of(requests, weights, np.ones(slots), FIRST, HOUR, capacity)


def price(worth, free, units, slot=0, beyond=0.0, low=0.0, high=float("inf")):
    rows, have = np.array([slot]), np.array([free])
    return float(worth.cost(rows, have, units, np.array([beyond]), low, high)[0])


def test_the_unit_that_is_one_too_few_for_a_large_request_is_dear():
    worth = worth_of(expected((0, 0, 1, 32, 1, 100)), each=50.0, capacity=64)
    assert price(worth, free=64, units=1) == pytest.approx(0, abs=1)
    worth = worth_of(expected(*[(0, 0, 1, 32, 1, 100)] * 4), each=50.0, capacity=64)
    assert price(worth, free=64, units=1) == pytest.approx(3200, abs=1)
    assert price(worth, free=63, units=1) == pytest.approx(0, abs=1)
    assert price(worth, free=64, units=32) == pytest.approx(3200, abs=1)


def test_two_requests_by_hand():
    """One for 1 unit at 90 may come first, one for 2 units at 50 each perhaps after it."""
    requests = expected((0, 0, 1, 1, 1, 90), (1, 0, 1, 2, 1, 50))
    worth = worth_of(requests, each=0.5, capacity=2, slots=1)
    chance = -np.expm1(-0.5)
    late = [0, 0, chance * 100]
    both = [0, chance * 90, late[2] + chance * (90 - late[2])]
    found = [price(worth, free=n, units=n) for n in (1, 2)]
    assert found == pytest.approx(both[1:], abs=0.51)


def test_who_can_wait_counts_in_each_slot_of_the_window_for_a_part():
    tight = worth_of(expected((0, 1, 2, 1, 1, 90)), each=0.1, capacity=1)
    patient = worth_of(expected((0, 0, 3, 1, 1, 90)), each=0.1, capacity=1)
    assert [round(price(tight, 1, 1, slot)) for slot in range(3)] == [0, 9, 0]
    assert [round(price(patient, 1, 1, slot)) for slot in range(3)] == [3, 3, 3]


def test_nobody_expected_is_worth_nothing():
    worth = worth_of(expected(), each=1.0, capacity=8)
    assert price(worth, free=8, units=8) == 0
    too_large = worth_of(expected((0, 0, 1, 9, 1, 90), (0, 0, 9, 1, 8, 90)), 1.0, capacity=8)
    assert price(too_large, free=8, units=8) == 0


def test_units_that_others_leave_cost_what_is_said():
    worth = worth_of(expected((0, 0, 1, 2, 1, 50)), each=0.2, capacity=4)
    two = price(worth, free=2, units=2)
    assert price(worth, free=2, units=3, beyond=70.0) == two + 70
    assert price(worth, free=2, units=3, beyond=70.0, high=60.0) == min(two, 120) + 60


def test_many_kinds_of_request_are_thinned():
    few = expected(*[(0, 0, 1, 2, 1, rate) for rate in range(50, 60)])
    many = expected(*[(0, 0, 1, 2, 1, rate) for rate in range(50, 60) for _ in range(1000)])
    fine = worth_of(many, each=0.0005, capacity=8)
    coarse = worth_of(few, each=0.5, capacity=8)
    assert price(fine, 8, 8) == pytest.approx(price(coarse, 8, 8), rel=0.1)


def test_a_large_pool_is_counted_in_portions():
    small = worth_of(expected((0, 0, 1, 32, 1, 100)), each=3.0, capacity=64)
    large = worth_of(expected((0, 0, 1, 32_000, 1, 100)), each=3.0, capacity=64_000)
    for free, units in ((64, 16), (64, 32), (48, 32)):
        assert price(large, 1000 * free, 1000 * units) == pytest.approx(
            1000 * price(small, free, units), rel=0.05, abs=3000
        )


rows = st.tuples(
    st.integers(0, 3),
    st.integers(0, 2),
    st.just(3),
    st.integers(1, 9),
    st.just(1),
    st.integers(1, 999),
)


@given(
    st.lists(rows, max_size=12),
    st.floats(0.01, 3),
    st.integers(1, 300),
    st.data(),
)
def test_parts_cost_what_the_whole_does_and_each_unit_within_its_limits(list_, each, size, data):
    worth = worth_of(expected(*list_), each, capacity=size)
    free = data.draw(st.integers(0, size))
    first, second = (data.draw(st.integers(1, 9)) for _ in range(2))
    beyond = data.draw(st.floats(0, 999))
    low = data.draw(st.sampled_from([0.0, 13.0]))
    high = data.draw(st.sampled_from([100.0, 400.0, float("inf")]))
    limits = {"beyond": beyond, "low": low, "high": high}
    whole = price(worth, free, first + second, **limits)
    parts = (
        price(worth, free, first, **limits),
        price(worth, max(free - first, 0), second, **limits),
    )
    assert sum(parts) == pytest.approx(whole)
    for part, units in zip(parts, (first, second), strict=True):
        assert low * units - 1e-6 <= part <= high * units + 1e-6


@pytest.mark.parametrize(
    ("units", "at_least", "at_most"),
    [(1, 0, 0), (4, 0, 0), (8, 0, 0.1), (16, 0.8, 1), (32, 1, 1), (99, 1, 1)],
)
def test_sizes_matter_as_far_as_requests_take_much_of_the_pool(units, at_least, at_most):
    requests = expected((0, 0, 1, units, 1, 10))
    assert at_least <= importance(requests, np.ones(1), 64) <= at_most
    assert importance(expected(), np.zeros(0), 64) == 0
    assert importance(requests, np.ones(1), 0) == 0
