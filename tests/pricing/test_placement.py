"""Bundles on nodes: what is said to fit does, and nothing that fits is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing.placement import Bundle, Need, assign, open_slots, open_starts, sliding_minimum


def one(count, *units):
    return Need.of([Bundle("x", count, units)])


pools = st.integers(1, 4).flatmap(
    lambda nodes: st.lists(
        st.lists(st.lists(st.integers(-1, 6), min_size=9, max_size=9), min_size=2, max_size=2),
        min_size=nodes,
        max_size=nodes,
    )
)


def brute(least, need):
    """Whether the bundles fit into nodes of these sizes, tried in all ways."""
    bundles = [b.units for b in need.bundles for _ in range(b.copies) if any(b.units)]
    for places in product(range(len(least)), repeat=len(bundles)):
        used = np.zeros_like(least)
        for node, units in zip(places, bundles, strict=True):
            used[node] += units
        if (used[used > 0] <= least[used > 0]).all():
            return True
    return False


@settings(deadline=None)
@given(pools, st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 9))
def test_equal_bundles_fit_exactly_where_some_way_to_place_them_exists(
    pool, count, gpus, cpus, length
):
    free, need = np.array(pool), one(count, gpus, cpus)
    starts = open_starts(free, need, length)
    assert len(starts) == 9 - length + 1
    for start, fits in enumerate(starts):
        part = free[:, :, start : start + length]
        assert fits == brute(part.min(axis=2), need)
        found = assign(part, need)
        assert (found is not None) == fits
        if found is not None:
            check(part, need, found)
    slots = open_slots(free, need)
    assert [brute(free[:, :, t], need) for t in range(9)] == list(slots)


@settings(deadline=None)
@given(
    pools,
    st.lists(st.tuples(st.integers(1, 2), st.integers(0, 4), st.integers(0, 2)), max_size=3),
    st.integers(1, 4),
)
def test_mixed_bundles_that_are_said_to_fit_get_their_nodes(pool, kinds, length):
    free = np.array(pool)
    kinds = [(1, 1, 0), *kinds]
    bundles = [Bundle(str(n), count, (g, c)) for n, (count, g, c) in enumerate(kinds)]
    need = Need.of(sorted(bundles, key=lambda bundle: bundle.units, reverse=True))
    for start, fits in enumerate(open_starts(free, need, length)):
        part = free[:, :, start : start + length]
        found = assign(part, need)
        if fits:
            assert found is not None
        if found is not None:
            check(part, need, found)


def check(part, need, found):
    """Every bundle is placed once, and no node holds more than it has."""
    for bundle in need.bundles:
        placed = sum(b.copies for _, b in found if b.configuration == bundle.configuration)
        assert placed == bundle.copies
    used = np.zeros(part.shape[:2], dtype=int)
    for node, bundle in found:
        used[node] += np.array(bundle.units) * bundle.copies
    assert (used[used > 0] <= part.min(axis=2)[used > 0]).all()


def test_four_gpus_that_are_scattered_do_not_make_a_node_of_four():
    free = np.full((4, 1, 3), 1)
    assert not open_starts(free, one(1, 4), 3).any()
    assert open_starts(free, one(4, 1), 3).all()


def test_a_bundle_stays_on_its_node_for_the_whole_interval():
    # In each slot some node has room, but no node has it throughout.
    free = np.array([[[2, 0]], [[0, 2]]])
    assert open_slots(free, one(1, 2)).all()
    assert not open_starts(free, one(1, 2), 2).any()


def test_the_fullest_node_that_has_room_is_filled_first():
    free = np.array([[[8]], [[3]], [[1]]])
    assert assign(free, one(2, 1)) == ((1, Bundle("x", 2, (1,))),)
    assert assign(free, one(1, 1)) == ((2, Bundle("x", 1, (1,))),)


@pytest.mark.parametrize("length", range(1, 9))
def test_the_sliding_minimum_is_the_least_of_each_window(length):
    values = np.random.default_rng(length).integers(0, 99, (3, 2, 8))
    found = sliding_minimum(values, length)
    windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=-1)
    np.testing.assert_array_equal(found, windows.min(axis=-1))
