"""A market of several nodes: where promises are, what moves, and what a lost node costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from era_hub.clouds.base import Node
from era_hub.market import Conflict, Market
from era_hub.models import Kind, Reservation, State, micro_credits
from era_pricing import BidError
from tests.era_hub.small_market import (
    DAWN,
    HOUR,
    Clock,
    job,
    market_on,
    notebook,
    open_market,
    unbalanced,
)

SLOT = 300
GPU = "nvidia.com/gpu"
NODE = {GPU: "8", "cpu": "64", "memory": "512Gi"}
TWO = (Node("a", NODE), Node("b", NODE))
SOLD: list[dict[str, Any]] = [
    {"name": "gpu-1", "resources": {GPU: "1", "cpu": "4"}},
    {"name": "gpu-4", "resources": {GPU: "4", "cpu": "16", "memory": "64Gi"}},
    {"name": "gpu-8", "resources": {GPU: "8", "cpu": "32"}},
]
GRANT = micro_credits("1000")


@pytest.fixture
def market(tmp_path: Path, clock: Clock) -> Iterator[Market]:
    opened = open_market(tmp_path, clock, cluster=TWO, configurations=SOLD, grant="1000")
    yield opened
    opened.database.close()


def reserve(market: Market, request: Any, user: str = "ann") -> Reservation:
    made = market.reserve(user, request)
    assert made.reservation is not None, made.reason
    return made.reservation


def restarted(market: Market, clock: Clock, nodes: tuple[Node, ...] = TWO, **pool: Any) -> Market:
    """The same pool, as a service sees it that has just started."""
    pool = {"configurations": SOLD, "grant": "1000", **pool}
    again = market_on(market.database, clock, cluster=nodes, **pool)
    again.honour()
    return again


def promised(market: Market) -> list[Any]:
    return sorted(market.era.reservations(), key=lambda each: each.job_id)


def test_a_promise_names_its_node_and_what_it_has_there(market: Market) -> None:
    first, second = reserve(market, notebook(8)), reserve(market, notebook(4), "bob")
    assert [each.nodes for each in (first, second)] in ([["a"], ["b"]], [["b"], ["a"]])
    assert second.resources == {GPU: "4", "cpu": "16", "memory": "64Gi"}
    # Six GPUs are free, but on no node.
    refused = market.reserve("eve", notebook(8))
    assert not refused.accepted


def test_a_notebook_runs_on_one_node(market: Market) -> None:
    with pytest.raises(BidError, match="count must be 1"):
        market.reserve("ann", notebook(4, count=2))
    made = reserve(market, job(8, count=2))
    assert sorted(made.nodes) == ["a", "b"]


def test_nobody_can_ask_for_more_than_a_node_has(market: Market) -> None:
    market.take_nodes([Node("a", {**NODE, "cpu": "8"}), Node("b", {**NODE, "cpu": "8"})])
    with pytest.raises(BidError):
        market.reserve("ann", notebook(4))
    assert reserve(market, notebook(1)).nodes


def test_a_notebook_whose_node_is_lost_goes_on_elsewhere(market: Market, clock: Clock) -> None:
    made = reserve(market, notebook(4, 2))
    claimed = market.claim(made.id)
    (lost,) = claimed.nodes
    (other,) = {"a", "b"} - {lost}
    clock.now += 10 * 60
    effects = market.take_nodes([each for each in TWO if each.name == other])
    assert ([each.id for each in effects.moved], effects.losses) == ([made.id], [])
    (due,) = market.due()
    assert due.displaced and due.now is not None and due.now.nodes == (other,)
    # When its server stops, that is no reason to give the rest back.
    waiting = market.give_back(made.id, stopped=True)
    assert (waiting.state, waiting.nodes) == (State.ACCEPTED, [other])
    assert "node was lost" in waiting.message
    again = market.claim(made.id)
    assert (again.state, again.nodes, again.end) == (State.ACTIVE, [other], made.end)
    assert not market.due()[0].displaced
    assert promised(restarted(market, clock, (TWO[0] if other == "a" else TWO[1],))) == promised(
        market
    )


def test_what_finds_no_room_is_refunded_and_told(market: Market, clock: Clock) -> None:
    kept, lost = reserve(market, notebook(8, 2)), reserve(market, notebook(8, 2), "bob")
    for each in (kept, lost):
        market.claim(each.id)
    (gone,) = market.reservation(lost.id).nodes
    clock.now += SLOT
    effects = market.take_nodes([each for each in TWO if each.name != gone])
    assert [each.reservation.id for each in effects.losses] == [lost.id]
    ended = market.reservation(lost.id)
    assert (ended.state, ended.refunded) == (State.FAILED, lost.price)
    assert "lost the nodes" in ended.message
    assert market.statement("bob").balance == GRANT
    assert market.reservation(kept.id).state is State.ACTIVE
    assert unbalanced(market.database) == []


def test_a_job_that_waits_moves_out_of_the_way(market: Market, clock: Clock) -> None:
    made = reserve(market, job(8, 1, deadline=DAWN + 6 * HOUR))
    market.claim(made.id)
    clock.now += SLOT
    (lost,) = made.nodes
    reserve(market, notebook(8, 1), "bob")
    market.take_nodes([each for each in TWO if each.name != lost])
    (due,) = (each for each in market.due() if each.reservation.kind is Kind.JOB)
    assert due.displaced
    market.run_over(made.id, "its node was lost")
    moved = market.reservation(made.id)
    assert moved.state is State.ACCEPTED
    assert moved.start > made.start
    assert moved.price == made.price
    with pytest.raises(Conflict, match="runs from"):
        market.claim(made.id)


@pytest.mark.parametrize(("algorithm", "given_back"), [("basic-econ", 1), ("bid-price", 2)])
def test_a_job_starts_early_where_gpus_are_idle(
    tmp_path: Path, clock: Clock, algorithm: str, given_back: int
) -> None:
    """By `bid-price` only if they cost no more than later: the last ones may be wanted dearly."""
    market = open_market(
        tmp_path, clock, cluster=TWO, configurations=SOLD, grant="1000", algorithm=algorithm
    )
    held = [reserve(market, notebook(8, 1), user) for user in ("bob", "eve")]
    made = reserve(market, job(8, 1, deadline=DAWN + 6 * HOUR))
    assert made.start.timestamp() == DAWN + HOUR
    clock.now += SLOT
    for number, each in enumerate(held, 1):
        market.give_back(each.id)
        early = market.reservation(made.id)
        moved = number >= given_back
        assert early.start.timestamp() == (clock.now if moved else DAWN + HOUR)
    assert early.price == made.price
    assert promised(restarted(market, clock, algorithm=algorithm)) == promised(market)
    market.database.close()


def test_a_preemptible_job_runs_in_parts(market: Market, clock: Clock) -> None:
    for user in ("bob", "eve"):
        reserve(market, notebook(8, 1, arrival=DAWN + HOUR, deadline=DAWN + 2 * HOUR), user)
    request = job(8, 2, deadline=DAWN + 3 * HOUR, commitment="preemptible")
    made = reserve(market, request)
    assert (made.end - made.start).total_seconds() == 3 * HOUR
    assert made.duration == 2 * HOUR
    market.claim(made.id)
    (due,) = (each for each in market.due() if each.reservation.id == made.id)
    assert due.end == DAWN + HOUR
    clock.now = DAWN + HOUR
    (due,) = (each for each in market.due() if each.reservation.id == made.id)
    assert (due.now, due.displaced) == (None, True)
    market.run_over(made.id, again=False)
    with pytest.raises(Conflict, match="goes on later"):
        market.claim(made.id)
    assert promised(restarted(market, clock)) == promised(market)
    clock.now = DAWN + 2 * HOUR
    market.claim(made.id)
    (due,) = (each for each in market.due() if each.reservation.id == made.id)
    assert (due.started, due.end) == (2, DAWN + 3 * HOUR)


def test_what_runs_on_a_cordoned_node_goes_on_and_nothing_new_starts_there(
    market: Market, clock: Clock
) -> None:
    runs = reserve(market, notebook(4, 2))
    market.claim(runs.id)
    (name,) = runs.nodes
    clock.now += SLOT
    nodes = [Node(each.name, NODE, open=each.name != name) for each in TWO]
    effects = market.take_nodes(nodes)
    assert (effects.losses, effects.moved) == ([], [])
    assert market.claim(runs.id).nodes == [name]
    for user in ("bob", "eve"):
        made = market.reserve(user, notebook(4, 1)).reservation
        assert made is not None and made.nodes != [name]
    assert not market.reserve("joe", notebook(4, 1)).accepted
    again = restarted(market, clock, tuple(nodes))
    assert again.reservation(runs.id).state is State.ACTIVE
    # Its end leaves nothing that could be sold.
    again.give_back(runs.id, stopped=True)
    again.take_nodes(nodes)
    assert not again.reserve("joe", notebook(4, 1)).accepted


def test_a_cluster_may_have_no_nodes_yet(tmp_path: Path, clock: Clock) -> None:
    opened = open_market(tmp_path, clock, cluster=(), configurations=SOLD)
    with pytest.raises(BidError):
        opened.reserve("ann", notebook(1))
    opened.take_nodes(TWO)
    assert reserve(opened, notebook(1)).nodes
    assert (opened.size, opened.for_sale) == (16, 16)
    opened.database.close()
