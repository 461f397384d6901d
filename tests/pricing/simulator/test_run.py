"""Runs: what happens, in which order, and that it happens again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from era_pricing.bids import Alternative, Bid, Commitment, ResourceRequest, ValueStep
from era_pricing.configurations import Configuration
from era_pricing.simulator.bidfiles import BidList
from era_pricing.simulator.building import prior_of, requests_of
from era_pricing.simulator.cloud import KEPT
from era_pricing.simulator.mechanism import GPU, Mechanism, Pool, SetupError
from era_pricing.simulator.metrics import series, span, summarise
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.run import ACCEPTED, NO_ROOM, REFUSED, TOO_DEAR, Run, simulate
from era_pricing.workload import Workload
from tests.pricing.simulator.small import CREDIT, DAY, ECON, GREEDY, HOUR, demand, row, rows


def run(workload: Workload, mechanism: Mechanism = GREEDY, capacity: int = 4) -> Run:
    return simulate(workload, mechanism, Pool.of(capacity))


def same(one: Run, other: Run) -> bool:
    names = ("answer", "fate", "price", "refund", "worth", "promised_start", "start", "stints")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_answers_and_what_they_cost() -> None:
    found = run(
        rows(
            row(0, 0, 2 * HOUR, 4, 2 * HOUR, 1),  # fits, at 0.01 a unit-hour
            row(10, 10, 3 * HOUR, 1, 2 * HOUR, 1),  # no room before its deadline
            row(20, 20, 9 * HOUR, 1, HOUR, 0.005),  # worth less than it costs
            row(30, 30, 9 * HOUR, 5, HOUR, 9),  # more than there is
            row(40, 40, 9 * HOUR, 1, HOUR, 0.01),  # worth exactly what it costs
        )
    )
    assert found.answer.tolist() == [ACCEPTED, NO_ROOM, TOO_DEAR, REFUSED, ACCEPTED]
    assert found.price.tolist() == [80_000, 0, 0, 0, 10_000]
    assert found.worth.tolist() == [CREDIT, 0, 0, 0, 10_000]
    assert found.start.tolist() == [0, -1, -1, -1, 2 * HOUR]
    assert found.stints.tolist() == [[0, 0, 2 * HOUR, 4], [4, 2 * HOUR, 3 * HOUR, 1]]


def test_an_empty_workload_runs() -> None:
    found = run(Workload.empty())
    assert len(found.answer) == 0 and found.stints.shape == (0, 4) and len(found.capacity) == 0


def test_requests_are_played_in_the_order_of_their_submission() -> None:
    late, early = row(100, 100, 2 * HOUR + 100, 4, HOUR, 9), row(0, 0, HOUR, 4, HOUR, 1)
    found = run(rows(late, early))
    assert found.requests.columns.submitted.tolist() == [0, 100]
    assert found.price.tolist() == [40_000, 40_000]
    assert found.start.tolist() == [0, HOUR]


@pytest.mark.parametrize("mechanism", [GREEDY, ECON])
def test_the_same_again(mechanism: Mechanism) -> None:
    assert same(run(demand(), mechanism), run(demand(), mechanism))


def test_nobody_is_promised_what_is_not_there() -> None:
    found = run(demand(rows=400), capacity=6)
    curves = series(found)
    assert curves.load.max() <= 6 + 1e-9
    assert (found.answer == ACCEPTED).sum() > 50 and (found.answer == NO_ROOM).any()


def test_reserved_times_lie_in_the_windows() -> None:
    workload = demand(rows=300)
    found = run(workload, ECON)
    accepted = found.answer == ACCEPTED
    ends = np.zeros(len(workload), dtype=np.int64)
    ends[found.stints[:, 0]] = found.stints[:, 2]
    assert set(found.stints[:, 0].tolist()) == set(np.flatnonzero(accepted).tolist())
    assert (found.start[accepted] >= workload.arrival[accepted]).all()
    assert (ends[accepted] <= workload.deadline[accepted]).all()
    assert (found.fate[accepted] == KEPT).all()


def test_nobody_pays_more_than_it_is_worth_to_them() -> None:
    workload = demand(rows=300)
    found = run(workload, ECON)
    assert (found.price <= workload.value).all()
    assert (found.price[found.answer != ACCEPTED] == 0).all()


def test_a_long_pause_is_passed_over() -> None:
    far = 40 * 365 * DAY
    found = run(rows(row(0, 0, HOUR, 1, HOUR, 1), row(far, far, far + HOUR, 1, HOUR, 1)))
    assert found.answer.tolist() == [ACCEPTED, ACCEPTED]
    assert found.start.tolist() == [0, far]


def test_progress_counts_every_request() -> None:
    seen: list[int] = []
    simulate(demand(rows=600), GREEDY, Pool.of(4), progress=seen.append)
    assert sum(seen) == 600 and len(seen) > 1


def test_the_horizon_reaches_as_far_as_requests_look_ahead() -> None:
    ahead = row(0, 20 * DAY, 21 * DAY, 1, DAY, 9)
    assert run(ahead).answer.tolist() == [ACCEPTED]
    short = replace(GREEDY, horizon=2 * DAY)
    assert run(ahead, short).answer.tolist() != [ACCEPTED]


def test_a_ceiling_limits_the_price() -> None:
    # Half of them are worth less, so it is bought for the ceiling where it would cost more.
    ceiling = replace(ECON, price_ceiling=20_000)
    found = run(demand(rows=300), ceiling)
    accepted = found.answer == ACCEPTED
    slots = -(-found.requests.columns.duration // 1800)
    most = found.requests.columns.units * slots * 10_000
    assert accepted.any() and (found.price <= most)[accepted].all()
    assert (run(demand(rows=300), ECON).price > most).any()


def test_a_late_penalty_makes_waiting_dearer() -> None:
    waits = row(0, 10 * HOUR, 11 * HOUR, 1, HOUR, 9)
    plain, late = run(waits), run(waits, replace(GREEDY, late_penalty=0.1))
    assert late.price[0] > 2 * plain.price[0]


def test_the_commitment_reaches_the_engine() -> None:
    for commitment in Commitment:
        found = run(demand(rows=60), replace(GREEDY, commitment=commitment))
        assert (found.answer == ACCEPTED).any()
    # A preemptible job fits around what is reserved.
    busy = row(0, HOUR, 2 * HOUR, 4, HOUR, 9)
    long = row(0, 0, 3 * HOUR, 4, 2 * HOUR, 9)
    rising = Mechanism("exponential", "prior")
    assert run(rows(busy, long), rising).answer.tolist() == [ACCEPTED, NO_ROOM]
    split = run(rows(busy, long), replace(rising, commitment=Commitment.PREEMPTIBLE))
    assert split.answer.tolist() == [ACCEPTED, ACCEPTED]
    assert (split.stints[:, 0] == 1).sum() == 2
    assert summarise(split).unit_hours == 12


# -- bids ------------------------------------------------------------------------------


def of(*alternatives: Alternative, submitted: int = 0) -> BidList:
    return BidList((submitted,), (Bid(alternatives),))


def need(name: str, count: int, hours: int, deadline: int = DAY) -> ResourceRequest:
    return ResourceRequest({name: count}, hours * HOUR, 0, deadline)


NODES = Pool(
    {"a": {GPU: 4, "cpu": "8"}, "b": {GPU: 4, "cpu": "8"}},
    (Configuration("one", {GPU: "1"}), Configuration("four", {GPU: "4", "cpu": "8"})),
)


def play(bids: BidList, pool: Pool = NODES, mechanism: Mechanism = GREEDY) -> Run:
    there, requests = requests_of(bids, pool)
    return simulate(requests, mechanism, there)


def test_alternatives_and_requests_that_belong_together() -> None:
    both = Alternative((need("four", 1, 2), need("one", 2, 1)), (ValueStep(None, 9 * CREDIT),))
    cheap = Alternative((need("one", 1, 1),), (ValueStep(None, CREDIT),))
    found = play(of(cheap, both))
    assert found.worth.tolist() == [9 * CREDIT]
    assert sorted(found.stints[:, 3].tolist()) == [2, 4]
    assert summarise(found).unit_hours == 10


def test_the_value_is_that_of_the_reserved_end() -> None:
    steps = (ValueStep(HOUR, 9 * CREDIT), ValueStep(None, 4 * CREDIT))
    assert play(of(Alternative((need("one", 1, 1),), steps))).worth.tolist() == [9 * CREDIT]
    assert play(of(Alternative((need("one", 1, 2),), steps))).worth.tolist() == [4 * CREDIT]


def test_a_bundle_stays_on_one_node() -> None:
    def three(name: str) -> Alternative:
        return Alternative((need(name, 1, 2, 2 * HOUR),), (ValueStep(None, CREDIT),))

    pool = Pool(
        {"a": {GPU: 4}, "b": {GPU: 4}},
        (Configuration("three", {GPU: "3"}), Configuration("two", {GPU: "2"})),
    )
    bids = tuple(Bid((three(name),)) for name in ("three", "three", "two"))
    found = play(BidList((0, 0, 0), bids), pool)
    assert found.answer.tolist() == [ACCEPTED, ACCEPTED, NO_ROOM]


def test_bundles_that_bids_bring_along_are_for_sale() -> None:
    from era_pricing.simulator.bidfiles import bids_of

    workload = demand(rows=50)
    there, requests = requests_of(bids_of(workload), replace(Pool.of(4), configurations=()))
    found = simulate(requests, GREEDY, there)
    assert np.array_equal(found.answer, run(workload).answer)
    assert np.array_equal(found.price, run(workload).price)


def test_several_priced_resources_add_up() -> None:
    floors = {GPU: 10_000, "cpu": 100}
    pool = replace(NODES, priced=(GPU, "cpu"), floors=floors)
    found = play(of(Alternative((need("four", 1, 1),), (ValueStep(None, CREDIT * 9),))), pool)
    assert found.price.tolist() == [4 * 10_000 + 8_000 * 100]


# -- setting up -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mechanism", "says"),
    [
        (replace(GREEDY, algorithm="nobody"), "no plug-in named 'nobody'"),
        (replace(GREEDY, predictor="nobody"), "no plug-in named 'nobody'"),
        (replace(GREEDY, predictor="lp"), "give one with --history"),
        (replace(GREEDY, options={"color": "1"}), "they have: .*price"),
        (replace(GREEDY, options={"price": "-1"}), "first-fit: price must be"),
        (replace(GREEDY, options={"predictor.price": "1"}), "'predictor.price'"),
        (replace(GREEDY, options={"history": "1"}), "'history'"),
        (replace(GREEDY, options={"chunk": "0"}), "chunk must be"),
    ],
)
def test_what_cannot_be_built_is_said(mechanism: Mechanism, says: str) -> None:
    with pytest.raises(SetupError, match=says):
        run(demand(rows=5), mechanism)


def test_options_reach_the_plug_ins() -> None:
    one = row(0, 0, DAY, 1, HOUR, 9)
    assert run(one, replace(GREEDY, options={"price": "500000"})).price.tolist() == [500_000]
    named = replace(GREEDY, options={"algorithm.price": "500000"})
    assert run(one, named).price.tolist() == [500_000]


def test_options_reach_the_engine() -> None:
    # The second fits only where the first was put, which may be moved.
    tight = rows(row(0, HOUR, 9 * HOUR, 4, HOUR, 9), row(10, HOUR, 2 * HOUR, 4, HOUR, 9))
    moved = run(tight)
    assert moved.answer.tolist() == [ACCEPTED, ACCEPTED]
    assert moved.start.tolist() == [2 * HOUR, HOUR] and moved.promised_start[0] == HOUR
    for options in ({"replan": "false"}, {"engine.replan": "false"}):
        assert run(tight, replace(GREEDY, options=options)).answer.tolist() == [ACCEPTED, NO_ROOM]


def test_a_history_is_learned_from() -> None:
    busy, idle = demand(1, 400, 6), demand(1, 10, 6)
    asked = demand(2, 60, begin=7 * DAY)
    mechanism = Mechanism("basic-econ", "lp")
    dear = simulate(asked, mechanism, Pool.of(4), history=busy)
    cheap = simulate(asked, mechanism, Pool.of(4), history=idle)
    assert np.nanmean(dear.prices[:, 1]) > 2 * np.nanmean(cheap.prices[:, 1])


def test_what_a_prior_is_told() -> None:
    told = prior_of(row(0, 0, 10 * HOUR, 2, 5 * HOUR, 30), 1800)
    # 30 credits for 10 unit-hours; 10 unit-hours spread over 10 hours; begins by hour 5.
    assert told["max_price"] == 2 * 3 * CREDIT
    assert told["profile"][:10] == pytest.approx([1.0] * 10)
    assert told["lead_time"] == 2.5 * HOUR


def test_the_span_goes_from_the_first_submission_to_the_last_deadline() -> None:
    assert span(row(1900, 4000, 9000, 1, 60, 1), 1800) == (1, 4)
    assert span(Workload.empty(), 1800) == (0, 0)


def test_requests_can_be_moved_in_time() -> None:
    moved = run(Requests(demand()).shifted(7 * DAY).columns, GREEDY)
    assert np.array_equal(moved.price, run(demand()).price)
