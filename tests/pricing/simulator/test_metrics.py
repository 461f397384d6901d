"""Numbers and curves, on runs that can be worked out by hand, and the bound on all others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing.bids import Commitment
from era_pricing.simulator.bidfiles import bids_of
from era_pricing.simulator.building import requests_of
from era_pricing.simulator.cloud import CloudModel
from era_pricing.simulator.mechanism import Mechanism, Pool
from era_pricing.simulator.metrics import bound_of, classes, omniscient, series, summarise
from era_pricing.simulator.run import Run, simulate
from era_pricing.workload import Workload
from tests.pricing.simulator.small import ECON, GREEDY, HOUR, demand, row, rows


def run(workload: Workload, mechanism: Mechanism = GREEDY, capacity: int = 4) -> Run:
    return simulate(workload, mechanism, Pool.of(capacity))


THREE = rows(
    row(0, 0, 2 * HOUR, 4, 2 * HOUR, 1),
    row(10, 10, 3 * HOUR, 1, 2 * HOUR, 3),
    row(3 * HOUR, 3 * HOUR, 5 * HOUR, 1, HOUR, 2),
)


def test_the_numbers_of_a_small_run() -> None:
    found = run(THREE)
    summary = summarise(found, bound_of(found))
    assert (summary.requests, summary.accepted, summary.rejected) == (3, 2, 1)
    assert (summary.too_dear, summary.no_room, summary.refused) == (0, 1, 0)
    assert (summary.requested_value, summary.welfare) == (6, 3)
    assert summary.revenue == pytest.approx(0.09)
    assert summary.unit_hours == 9
    assert summary.utilization == 9 / (4 * 5)
    assert summary.late_jobs == 0
    # Whoever knows them all takes the second one whole, and of the first what is left.
    assert summary.omniscient_bound is not None
    assert 5 <= summary.omniscient_bound < 6
    assert summary.welfare_ratio == pytest.approx(3 / summary.omniscient_bound)
    assert summary.decision_us_p50 is not None and summary.decision_us_p50 > 0


def test_an_empty_run_has_sound_numbers() -> None:
    found = run(Workload.empty())
    summary = summarise(found, bound_of(found))
    assert summary.welfare == summary.utilization == summary.omniscient_bound == 0
    assert summary.welfare_ratio == 1 and summary.decision_us_p50 is None
    assert classes(found) == () and len(series(found).times) == 0


def test_all_that_is_asked_for_free_of_value() -> None:
    nothing = row(0, 0, HOUR, 1, HOUR, 0)
    summary = summarise(run(nothing), omniscient(nothing, 4, 1800))
    assert summary.accepted == 0 and summary.welfare_ratio == 1


def test_the_curves_of_a_small_run() -> None:
    curves = series(run(THREE), omniscient(THREE, 4, 1800))
    assert curves.times.tolist() == list(range(0, 5 * HOUR, 1800))
    assert curves.load.tolist() == [4, 4, 4, 4, 0, 0, 1, 1, 0, 0]
    assert set(curves.capacity.tolist()) == {4}
    assert curves.requested.tolist() == [4] * 6 + [6] * 4
    assert curves.welfare.tolist() == [1] * 6 + [3] * 4
    assert curves.revenue == pytest.approx([0.08] * 6 + [0.09] * 4)
    assert (np.diff(curves.bound) >= 0).all() and curves.bound[-1] > 4.9
    assert np.isfinite(curves.price[0]) and curves.price[0] == pytest.approx(0.01)


def test_the_load_counts_parts_of_slots() -> None:
    curves = series(run(row(600, 600, 600 + HOUR, 2, HOUR, 9)))
    assert curves.load.tolist() == pytest.approx([2 * 1200 / 1800, 2, 2 * 600 / 1800])


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_load_adds_up_to_the_stints(seed: int) -> None:
    found = run(demand(seed, rows=60, days=0.5), capacity=6)
    _, start, end, units = found.stints.T
    whole = series(found).load.sum() * 1800
    assert whole == pytest.approx((units * (end - start)).sum())


def test_classes_are_counted_by_label() -> None:
    labelled = replace(THREE, classes=("big", "small", "small"))
    big, small = classes(run(labelled))
    assert (big.label, big.requests, big.accepted, big.welfare) == ("big", 1, 1, 1)
    assert (small.label, small.requests, small.accepted, small.requested_value) == (
        "small",
        2,
        1,
        5,
    )
    assert small.revenue == pytest.approx(0.01) and small.late == 0


def test_without_labels_classes_go_by_value() -> None:
    found = run(demand(rows=200), ECON)
    counts = classes(found)
    assert [each.requests for each in counts] == [50, 50, 50, 50]
    shares = [each.accepted / each.requests for each in counts]
    assert shares == sorted(shares) and shares[0] < shares[-1]
    alike = Workload(*(np.repeat(column, 5) for column in _columns(row(0, 0, HOUR, 1, HOUR, 2))))
    assert sum(each.requests for each in classes(run(alike))) == 5


def _columns(workload: Workload) -> list[np.ndarray]:
    names = ("submitted", "arrival", "deadline", "units", "duration", "value")
    return [getattr(workload, name) for name in names]


# -- the bound ---------------------------------------------------------------------------

CLOUDS = (
    CloudModel(),
    CloudModel(early_share=0.7, early_least=0.01),
    CloudModel(poll=600, job_mtbf=3),
    CloudModel(node_mtbf=5, node_repair=5),
    CloudModel(tenant_share=0.2, tenant_load=1.0, early_share=1.0),
)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 60),
    capacity=st.integers(1, 8),
    cloud=st.sampled_from(CLOUDS),
    mechanism=st.sampled_from([GREEDY, ECON]),
    commitment=st.sampled_from(list(Commitment)),
    slot=st.sampled_from([900, 1800, 3600]),
)
def test_nothing_exceeds_the_bound(
    seed: int,
    size: int,
    capacity: int,
    cloud: CloudModel,
    mechanism: Mechanism,
    commitment: Commitment,
    slot: int,
) -> None:
    chosen = replace(mechanism, commitment=commitment, slot=slot)
    found = simulate(
        demand(seed, size, days=0.5), chosen, Pool.of(capacity), cloud=cloud, seed=seed
    )
    summary = summarise(found, bound_of(found, 1e-3))
    assert summary.omniscient_bound is not None
    assert summary.welfare <= summary.omniscient_bound + 1e-6
    assert summary.omniscient_bound <= summary.requested_value + 1e-6


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), capacity=st.integers(1, 8))
def test_nothing_exceeds_the_bound_of_bids(seed: int, capacity: int) -> None:
    there, requests = requests_of(
        bids_of(demand(seed, 40, days=0.5)), replace(Pool.of(capacity), configurations=())
    )
    found = simulate(requests, GREEDY, there)
    assert summarise(found).welfare <= bound_of(found, 1e-3).value + 1e-6


def test_the_bound_is_reached_where_nothing_conflicts() -> None:
    found = run(THREE, capacity=8)
    assert summarise(found).welfare == 6 == bound_of(found).value
