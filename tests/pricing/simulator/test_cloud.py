"""The cloud model: polls, crashes, early ends, lost and taken capacity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_pricing.bids import Alternative, Bid, Commitment, ResourceRequest, ValueStep
from era_pricing.simulator.bidfiles import BidList
from era_pricing.simulator.building import requests_of
from era_pricing.simulator.cloud import (
    BROKEN,
    FAILED,
    KEPT,
    LATE,
    Capacity,
    Cloud,
    CloudModel,
    Ending,
    shares_seen,
)
from era_pricing.simulator.mechanism import GPU, Pool
from era_pricing.simulator.metrics import bound_of, series, summarise
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.run import ACCEPTED, Run, simulate
from era_pricing.workload import Workload
from tests.pricing.simulator.small import CREDIT, DAY, ECON, GREEDY, HOUR, demand, row, rows

WILD = CloudModel(
    poll=120,
    early_share=0.4,
    job_mtbf=5,
    node_mtbf=20,
    node_repair=3,
    tenant_share=0.2,
    tenant_cycle=0.1,
)


def run(workload: Workload, cloud: CloudModel, capacity: int = 8, seed: int = 0) -> Run:
    return simulate(workload, GREEDY, Pool.of(capacity), cloud=cloud, seed=seed)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("poll", -1), ("early_share", 1.5), ("nodes", 0), ("job_mtbf", float("nan"))],
)
def test_settings_out_of_range_are_named(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{setting} must be"):
        CloudModel(**{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("commitment", list(Commitment))
def test_everything_goes_wrong_and_the_books_still_add_up(commitment: Commitment) -> None:
    mechanism = replace(GREEDY, commitment=commitment)
    found = simulate(demand(rows=500), mechanism, Pool.of(8), cloud=WILD)
    accepted = found.answer == ACCEPTED
    summary = summarise(found)
    assert {BROKEN, FAILED, KEPT} <= set(found.fate[accepted].tolist())
    assert summary.late_jobs == summary.broken + summary.failed + summary.overdue
    assert (found.refund <= found.price).all() and (found.refund >= 0).all()
    assert (found.refund == found.price)[accepted & (found.fate == BROKEN)].all()
    assert (found.worth[accepted & (found.fate != KEPT)] == 0).all()
    curves = series(found)
    assert (curves.load <= 8 + 1e-9).all() and found.capacity.min() < 8


@pytest.mark.parametrize("cloud", [CloudModel(), WILD])
def test_the_same_seed_gives_the_same_run(cloud: CloudModel) -> None:
    one, two, other = (run(demand(rows=200), cloud, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.stints, two.stints) and np.array_equal(one.refund, two.refund)
    assert np.array_equal(one.capacity, two.capacity)
    assert cloud.ideal == np.array_equal(one.stints, other.stints)


def test_a_harmless_cloud_changes_nothing() -> None:
    """Polls at the slots' own pace and crashes that never come leave an ideal run."""
    workload = demand(rows=200)
    slots = Workload(
        workload.submitted // 1800 * 1800,
        -(-workload.arrival // 1800) * 1800,
        -(-workload.deadline // 1800) * 1800 + 1800,
        workload.units,
        -(-workload.duration // 1800) * 1800,
        workload.value,
    )
    plain, polled = run(slots, CloudModel()), run(slots, CloudModel(poll=1800, job_mtbf=1e9))
    for name in ("answer", "fate", "price", "refund", "worth", "start"):
        assert np.array_equal(getattr(plain, name), getattr(polled, name)), name
    assert summarise(plain).unit_hours == pytest.approx(summarise(polled).unit_hours)


# -- broken nodes ----------------------------------------------------------------------


BREAKS = CloudModel(node_mtbf=8)


def broken_nodes(commitment: Commitment, seed: int = 0) -> Run:
    mechanism = replace(GREEDY, commitment=commitment)
    return simulate(demand(seed, rows=300), mechanism, Pool.of(8), cloud=BREAKS, seed=seed)


def test_a_stopped_job_keeps_what_it_has_done_and_one_that_begins_again_does_not() -> None:
    for commitment in (Commitment.FLEXIBLE, Commitment.PREEMPTIBLE):
        found = broken_nodes(commitment)
        again = 0
        for number in np.flatnonzero(found.fate == KEPT).tolist():
            mine = found.stints[found.stints[:, 0] == number]
            mine = mine[mine[:, 1].argsort()]
            again += len(mine) > 1
            last = mine if commitment is Commitment.PREEMPTIBLE else mine[-1:]
            worked = int((last[:, 2] - last[:, 1]).sum())
            assert worked == found.requests.columns.duration[number]  # then it leaves
            assert mine[-1, 2] <= found.requests.columns.deadline[number]
        assert again > 2


def test_who_can_begin_again_is_late_less_often() -> None:
    shares = {}
    for commitment in Commitment:
        runs = [summarise(broken_nodes(commitment, seed)) for seed in range(3)]
        shares[commitment] = sum(each.late_jobs for each in runs) / sum(e.accepted for e in runs)
    assert shares[Commitment.PREEMPTIBLE] < shares[Commitment.FIXED]
    assert shares[Commitment.FLEXIBLE] < shares[Commitment.FIXED]


# -- single jobs -----------------------------------------------------------------------


def test_a_look_comes_late() -> None:
    cloud = Cloud(CloudModel(poll=60), 1, 0)
    assert cloud.run((0,), 90, 3690, 3600, 9999, False) == Ending(3720, KEPT, 0)
    assert cloud.run((0,), 90, 3690, 3600, 3700, False) == Ending(3720, LATE, 0)
    assert cloud.run((0,), 120, 3720, 3600, 3720, False) == Ending(3720, KEPT, 0)


def test_work_that_does_not_fit_fails_or_goes_on_in_the_next_chunk() -> None:
    cloud = Cloud(CloudModel(poll=60), 1, 0)
    assert cloud.run((0,), 0, 1800, 2000, 9999, False) == Ending(1800, FAILED, 2000)
    assert cloud.run((0,), 0, 1800, 2000, 9999, True) == Ending(1800, None, 200)


def test_a_crash_begins_again_if_there_is_time() -> None:
    """With the same crashes, more reserved time can only help, and work can only hurt."""
    cloud = Cloud(CloudModel(job_mtbf=1), 1, 7)
    kept = [
        [cloud.run((key,), 0, end, 3600, 10**9, False).fate == KEPT for end in (3600, 7200, 36000)]
        for key in range(200)
    ]
    assert all(sorted(line) == line for line in kept)
    shares = np.mean(kept, axis=0)
    assert 0.25 < shares[0] < 0.5 < shares[1] < shares[2]


def test_jobs_that_end_early_give_the_rest_back() -> None:
    cloud = CloudModel(early_share=1, early_least=0.01)
    long = row(0, 0, 10 * HOUR, 1, 10 * HOUR, 99)
    found = [run(long, cloud, seed=seed) for seed in range(20)]
    hours = [summarise(each).unit_hours for each in found]
    assert max(hours) < 10 and min(hours) < 5 and len(set(hours)) == 20
    for each, taken in zip(found, hours, strict=True):
        begun = -(-int(taken * HOUR) // 1800)
        assert each.price[0] - each.refund[0] == begun * 5_000
        assert each.worth[0] == 99 * CREDIT


def test_what_jobs_need_can_be_told() -> None:
    asked = rows(row(0, 0, 2 * HOUR, 1, 2 * HOUR, 99), row(60, 1800, 3 * HOUR, 2, 2 * HOUR, 99))
    told = Requests(asked, needed=np.array([1000, 2 * HOUR]))
    found = simulate(told, GREEDY, Pool.of(4))
    assert sorted(found.stints.tolist()) == [[0, 0, 1000, 1], [1, 1800, 1800 + 2 * HOUR, 2]]
    assert found.refund[0] > 0 == found.refund[1]
    assert summarise(found, bound_of(found)).welfare_ratio == 1


def test_what_ends_early_is_sold_again() -> None:
    first, second = (
        row(0, 0, 9 * HOUR, 8, 9 * HOUR, 99),
        row(HOUR * 8, HOUR * 8, 9 * HOUR, 8, HOUR, 9),
    )
    assert run(rows(first, second), CloudModel()).answer.tolist() == [ACCEPTED, 2]
    cloud = CloudModel(early_share=1, early_least=0.01)
    answers = [run(rows(first, second), cloud, seed=seed).answer[1] for seed in range(20)]
    assert answers.count(ACCEPTED) > 10


# -- capacity --------------------------------------------------------------------------


def course(model: CloudModel, names: tuple[str, ...] = ("pool",), seed: int = 0) -> np.ndarray:
    there = Capacity(model, names, seed)
    return np.array([there.step(time) for time in range(0, 200 * DAY, 1800)])


def test_nodes_break_and_are_repaired() -> None:
    shares = course(CloudModel(node_mtbf=30, node_repair=10, nodes=4))
    assert set(np.unique(shares)) == {0, 0.25, 0.5, 0.75, 1}
    assert shares.mean() == pytest.approx(0.75, abs=0.03)
    named = course(CloudModel(node_mtbf=30, node_repair=10), ("a", "b", "c"))
    assert set(np.unique(named)) == {0, 1} and not np.array_equal(named[:, 0], named[:, 1])


def test_other_tenants_take_capacity_and_give_it_back() -> None:
    shares = course(CloudModel(tenant_share=0.2, tenant_load=0.95, tenant_swing=0.1))[:, 0]
    assert shares.max() == 1 and 0 <= shares.min() < 0.5
    # The free part is (1 - 0.8 x) / 0.2 for a load x that is normal around 0.95.
    assert (shares < 1).mean() == pytest.approx(0.309, abs=0.03)
    steps = np.abs(np.diff(shares))
    assert np.median(steps) < 0.1, "it has a memory"
    calm = course(CloudModel(tenant_share=0.2, tenant_load=0.5, tenant_swing=0.1))
    assert (calm == 1).all()


def test_the_daily_cycle_of_others_has_its_height_in_the_afternoon() -> None:
    model = CloudModel(tenant_share=0.2, tenant_load=1.1, tenant_swing=0.05, tenant_cycle=0.1)
    shares = course(model)[:, 0].reshape(200, 48).mean(axis=0)
    assert shares.argmin() == pytest.approx(30, abs=2)


def test_lost_capacity_breaks_promises_with_a_full_refund() -> None:
    found = run(demand(rows=300), CloudModel(node_mtbf=10, node_repair=10))
    broken = found.fate == BROKEN
    assert broken.any() and (found.refund[broken] == found.price[broken]).all()


@settings(max_examples=20, deadline=None)
@given(
    poll=st.sampled_from([0, 60, 300, 1800, 3600]),
    begin=st.integers(0, 10_000),
    seed=st.integers(0, 5),
)
def test_the_bound_sees_the_capacity_of_the_run(poll: int, begin: int, seed: int) -> None:
    model = CloudModel(poll=poll, tenant_share=0.2, tenant_load=1, node_mtbf=20)
    pool = Pool.of(8)
    found = run(demand(rows=20, days=0.5, begin=begin), model, seed=seed)
    first = int(found.requests.columns.submitted.min())
    slots = range(found.first_slot, found.first_slot + len(found.capacity))
    seen = pool.left(GPU, shares_seen(model, ("pool",), seed, first, slots, 1800))
    assert (seen >= found.capacity).all()
    if poll in (0, 1800):
        assert np.array_equal(seen, found.capacity)


def mixed_bids(seed: int, rows: int = 60) -> BidList:
    """Alternatives, requests that belong together, and jobs that may be split."""
    rng = np.random.default_rng(seed)
    submitted = np.sort(rng.integers(0, DAY, rows)).tolist()

    def need(now: int) -> ResourceRequest:
        hours, slack = int(rng.integers(1, 5)), int(rng.integers(1, 12))
        units = {"unit": int(rng.integers(1, 4))}
        return ResourceRequest(units, hours * HOUR, now, now + (hours + slack) * HOUR)

    bids = []
    for now in submitted:
        alternatives = tuple(
            Alternative(
                tuple(need(now) for _ in range(rng.integers(1, 3))),
                (ValueStep(now + 8 * HOUR, 9 * CREDIT), ValueStep(None, 4 * CREDIT)),
            )
            for _ in range(rng.integers(1, 3))
        )
        bids.append(Bid(alternatives, tuple(Commitment)[rng.integers(3)]))
    return BidList(tuple(submitted), tuple(bids))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), cloud=st.sampled_from([CloudModel(), WILD]))
def test_bids_of_all_kinds_go_through_it(seed: int, cloud: CloudModel) -> None:
    pool, requests = requests_of(mixed_bids(seed), Pool.of(6))
    found = simulate(requests, ECON, pool, cloud=cloud, seed=seed)
    accepted, summary = found.answer == ACCEPTED, summarise(found)
    assert accepted.any() and (found.fate[accepted] >= KEPT).all()
    assert cloud is WILD or summary.late_jobs == 0
    assert (series(found).load <= 6 + 1e-9).all()
    assert (found.refund <= found.price).all()
    assert summary.welfare <= bound_of(found, 1e-3).value + 1e-6


def test_basic_econ_meets_the_same_cloud() -> None:
    found = simulate(demand(rows=100), ECON, Pool.of(8), cloud=WILD)
    assert (found.answer == ACCEPTED).any()
