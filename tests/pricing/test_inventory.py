"""What there is, where, and when."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing import Inventory
from tests.pricing.small_pool import GPU, HOUR

TWO_NODES = {"a": {GPU: 4, "cpu": "8"}, "b": {GPU: 2}}


def gpus(inventory, times, length=HOUR):
    """Units per node, in intervals that begin at `times` hours."""
    at = inventory.resources.index(GPU)
    found = inventory.capacity(np.array(times, dtype=np.int64) * HOUR, length)
    return found[:, at].tolist()


def test_nodes_hold_what_they_were_given_in_base_units():
    inventory = Inventory.of_nodes(TWO_NODES)
    assert inventory.nodes == ("a", "b")
    assert inventory.resources == (GPU, "cpu")
    assert inventory.capacity(np.array([0]), 1).tolist() == [[[4], [8000]], [[2], [0]]]


def test_a_pool_without_nodes_is_one_node():
    inventory = Inventory.single({GPU: "1k"})
    assert len(inventory.nodes) == 1
    assert gpus(inventory, [0, 5]) == [[1000, 1000]]


def test_a_maintenance_window_takes_a_node_away_and_gives_it_back():
    inventory = Inventory.of_nodes(TWO_NODES)
    inventory.set_capacity("a", 2 * HOUR, 4 * HOUR, {GPU: 0})
    assert gpus(inventory, [1, 2, 3, 4]) == [[4, 0, 0, 4], [2, 2, 2, 2]]
    inventory.set_capacity("a", 3 * HOUR, None, {GPU: 1})  # whatever was set before
    assert gpus(inventory, [1, 2, 3, 4]) == [[4, 0, 1, 1], [2, 2, 2, 2]]


def test_nodes_join_leave_and_join_again():
    inventory = Inventory.of_nodes(TWO_NODES)
    inventory.add_node("c", {GPU: 8}, 2 * HOUR)
    assert inventory.nodes == ("a", "b", "c")
    assert gpus(inventory, [1, 2])[2] == [0, 8]
    inventory.remove_node("c", 3 * HOUR)
    inventory.add_node("c", {GPU: 7}, 5 * HOUR)
    assert gpus(inventory, [2, 3, 4, 5])[2] == [8, 0, 0, 7]


def test_a_node_that_is_there_cannot_join():
    with pytest.raises(ValueError, match="node 'a' is in the pool already; use set_capacity"):
        Inventory.of_nodes(TWO_NODES).add_node("a", {GPU: 1})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("c", 0, None, {GPU: 1}), "node must be one of a, b; got 'c'"),
        ((None, 0, None, {GPU: 1}), "node must be named, since there are 2"),
        (("a", 0, None, {"tpu": 1}), "resource must be one of nvidia.com/gpu, cpu; got 'tpu'"),
        (("a", 0, None, {GPU: -1}), "capacity of nvidia.com/gpu: .*'-1'"),
        (("a", 0, None, {GPU: "500m"}), "must be a whole number, got '500m'"),
        (("a", 0, None, {"cpu": "1u"}), "must be a whole number of thousandths, got '1u'"),
        (("a", 5, 5, {GPU: 1}), r"end must be after start \(5\), got 5"),
        (("a", -9, -2, {GPU: 1}), r"end must be after start \(0\), got -2"),
        (("a", 0.5, None, {GPU: 1}), "start and end must be UTC seconds"),
        (("a", 0, True, {GPU: 1}), "start and end must be UTC seconds"),
    ],
)
def test_changes_that_make_no_sense_change_nothing(arguments, says):
    inventory = Inventory.of_nodes(TWO_NODES)
    with pytest.raises(ValueError, match=says):
        inventory.set_capacity(*arguments)
    assert gpus(inventory, [0, 1]) == [[4, 4], [2, 2]]


@pytest.mark.parametrize("nodes", [{}, {"": {GPU: 1}}, {"a": {GPU: "many"}}, {"a": {GPU: 1.5}}])
def test_inventories_that_make_no_sense(nodes):
    with pytest.raises(ValueError, match="node|quantity"):
        Inventory.of_nodes(nodes)


def test_changes_of_the_past_take_no_memory():
    sizes = []
    for days in (1, 30):
        inventory = Inventory.single({GPU: 4})
        for hour in range(24 * days):
            inventory.drop_before(hour * HOUR)
            inventory.set_capacity(None, hour * HOUR, (hour + 1) * HOUR, {GPU: hour % 4})
        sizes.append(len(pickle.dumps(inventory)))
        assert gpus(inventory, [hour, hour + 1]) == [[3, 4]]
    assert sizes[1] < sizes[0] + 100


changes = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(-5, 40),
        st.one_of(st.none(), st.integers(1, 20)),
        st.integers(0, 9),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(changes, st.integers(1, 7))
def test_an_interval_has_the_least_of_its_seconds(steps, length):
    inventory = Inventory.of_nodes(TWO_NODES)
    by_second = {"a": [4] * 60, "b": [2] * 60}
    for node, start, seconds, units in steps:
        end = None if seconds is None else max(start, 0) + seconds
        inventory.set_capacity(node, start, end, {GPU: units})
        for second in range(max(start, 0), 60 if end is None else min(end, 60)):
            by_second[node][second] = units
    times = np.arange(0, 60 - length, length)
    found = inventory.capacity(times, length)[:, 0]
    for row, node in enumerate(inventory.nodes):
        assert found[row].tolist() == [min(by_second[node][t : t + length]) for t in times]
