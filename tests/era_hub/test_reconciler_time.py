"""The reconciler: clocks jump, machines sleep, hubs fall ill, and orphans run."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from era_hub.market import Conflict
from era_hub.models import ExtensionRequest, JobState, Reservation, State
from tests.era_hub.small_market import HOUR, balances, job, notebook
from tests.era_hub.small_world import GRANT, LEASE, STUBBORN, World, until

MORE = ExtensionRequest(duration=HOUR, value=GRANT)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


# -- more time for what runs --------------------------------------------------


@pytest.mark.asyncio
async def test_a_running_job_learns_of_its_new_end(world: World) -> None:
    made = await world.running()
    assert (await world.cloud.status(made.id, "ann")).end == int(made.end.timestamp())
    assert (await world.call("extend", made.id, MORE)).accepted
    longer = await world.see(made)
    await world.passes()

    async def told() -> bool:
        return (await world.cloud.status(made.id, "ann")).end == int(longer.end.timestamp())

    await until(told)
    # At its first end it goes on, also for a service that has just begun.
    world.clock.now += HOUR
    world.restart()
    await world.passes(2)
    assert (await world.see_job(made)).state is JobState.RUNNING
    world.let_go(made)
    await world.process_gone(made)
    await world.passes()
    ended = await world.see_job(made)
    assert ended.state is JobState.SUCCEEDED
    # The slot that had begun is paid, the rest of the hour is not.
    assert 0 < ended.reservation.refunded < longer.price - made.price
    assert await world.balance() == GRANT - longer.price + ended.reservation.refunded


@pytest.mark.asyncio
async def test_what_is_extended_while_a_pass_looks_at_it_is_not_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, server = await world.running(), await world.serving("bob")
    seen = await world.call("due")
    for each in (work, server):
        assert (await world.call("extend", each.id, MORE)).accepted
    world.clock.now += HOUR
    really = world.market.due
    monkeypatch.setattr(world.market, "due", lambda *which: really(*which) if which else seen)
    await world.passes()
    monkeypatch.undo()
    for each in (work, server):
        assert (await world.see(each)).state is State.ACTIVE
    assert world.served.stops() == []


# -- clocks that jump, machines that sleep ------------------------------------


@pytest.mark.asyncio
async def test_nobody_loses_a_notebook_because_the_machine_slept(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lasting, short = await world.serving(hours=6), await world.serving("bob", hours=1)
    # The hub has not found the server again: missing before the sleep and after it.
    found_again = world.served.servers.pop(("ann", ""))
    await world.passes()
    world.clock.now += LEASE - 10
    await world.passes()
    world.jump(3 * HOUR)
    for _ in range(LEASE - 10):
        await world.passes()
        assert (await world.see(lasting)).state is State.ACTIVE
        world.clock.now += 1
    assert [each for each in warnings(caplog) if "The clock has jumped ahead by 10800 s" in each]
    world.served.servers["ann", ""] = found_again
    world.clock.now += 20
    await world.passes(2)
    assert (await world.see(lasting)).state is State.ACTIVE
    # What was over at waking is over, once.
    assert (await world.see(short)).state is State.COMPLETED
    assert world.served.stops() == ["/users/bob/server"]


@pytest.mark.asyncio
async def test_a_lease_goes_on_once_the_machine_is_awake(world: World) -> None:
    made = await world.serving(hours=6)
    world.served.servers.clear()
    world.jump(3 * HOUR)
    await world.passes()
    world.clock.now += LEASE
    await world.passes()
    ended = await world.see(made)
    assert ended.state is State.RELEASED
    assert 0 < ended.refunded < made.price


@pytest.mark.asyncio
async def test_a_lease_goes_on_when_the_clock_is_set_back(world: World) -> None:
    made = await world.serving(hours=6)
    world.served.servers.clear()
    world.clock.now += 20
    await world.passes()
    world.jump(-HOUR)
    world.clock.now += LEASE
    await world.passes()
    assert (await world.see(made)).state is State.RELEASED


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [notebook, job])
async def test_what_was_slept_through_costs_nothing(world: World, kind: Any) -> None:
    world.served.servers["ann", ""] = {"ready": True, "pending": None, "user_options": {}}
    made = await world.reserve(kind(), starts_in=HOUR)
    await world.passes()
    world.jump(5 * HOUR)
    await world.passes(2)
    ended = await world.see(made)
    assert (ended.state, ended.refunded) == (State.FAILED, made.price)
    assert "the service was not running" in ended.message
    assert (world.served.starts(), world.homes.exists()) == ([], False)


@pytest.mark.asyncio
async def test_what_begins_during_a_sleep_starts_once_at_waking(world: World) -> None:
    server = await world.reserve(notebook(hours=2), starts_in=HOUR)
    work = await world.reserve(job(hours=2), "bob", starts_in=HOUR)
    await world.passes()
    world.jump(HOUR + 600)
    for _ in range(20):
        await world.passes()
        world.clock.now += 1
    assert len(world.served.starts()) == 1
    for each in (server, work):
        assert (await world.see(each)).state in (State.ACTIVE, State.COMPLETED)


@pytest.mark.asyncio
@pytest.mark.parametrize("jumps", [[5 * HOUR], [-HOUR], [-HOUR, HOUR], [5 * HOUR, -5 * HOUR]])
async def test_whatever_the_clock_does_all_is_settled_once(
    world: World, jumps: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    server, work = await world.serving(), await world.running(user="bob")
    world.clock.now += 600
    for seconds in jumps:
        world.jump(seconds)
        await world.passes(3)
        world.clock.now += 60
        await world.passes()
    assert len([each for each in warnings(caplog) if "jumped" in each]) == len(jumps)
    for each in (server, work):
        await world.call("give_back", each.id)
    for _ in range(3):
        world.clock.now += 61
        await world.passes(2)
    await world.process_gone(work)
    world.clock.now += 61
    await world.passes(2)
    assert await world.busy() == set()
    assert len(world.served.starts()) == len(world.served.stops()) == 1
    assert (
        await world.wrote(work, "started") == "0\n" or await world.wrote(work, "started") == "1\n"
    )
    accounts = await world.market.database.run(balances, world.market.database)
    assert sum(accounts.values()) == 0
    assert accounts["escrow"] == 0
    before = world.stored()
    await world.passes(3)
    assert world.stored() == before


@pytest.mark.asyncio
async def test_a_clock_that_is_set_back_stops_no_patience(world: World) -> None:
    """What is to be tried again in a second is, though the clock shows it in an hour."""
    world.served.failure = 500
    made = await world.reserve(notebook(hours=4))
    await world.passes()
    assert len(world.served.starts()) == 1
    world.clock.now += 2 * HOUR
    await world.passes()
    world.served.failure = 0
    world.jump(-HOUR)
    world.clock.now += 60
    await world.passes()
    assert (await world.see(made)).state is State.ACTIVE


@pytest.mark.asyncio
async def test_what_happened_before_it_began_is_no_jump(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Another service of the pool may have done the work until now."""
    world.served.servers["ann", ""] = {"ready": True, "pending": None, "user_options": {}}
    made = await world.reserve(notebook())
    world.jump(5 * HOUR)
    loop = asyncio.create_task(world.reconciler.run())

    async def settled() -> bool:
        return (await world.see(made)).state.final

    await until(settled)
    assert "the service was not running" in (await world.see(made)).message
    assert [each for each in warnings(caplog) if "jumped" in each] == []
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


@pytest.mark.asyncio
async def test_a_clock_that_drifts_does_not_jump(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        world.jump(3)
        world.clock.now += 60
        await world.passes()
    assert warnings(caplog) == []


# -- a hub that is ill --------------------------------------------------------


@pytest.mark.asyncio
async def test_an_ill_hub_is_asked_ever_less_often_however_many_wait(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    made = [await world.serving(f"user{n}", gpus=0, hours=4) for n in range(20)]
    world.served.failure = 503
    world.served.asked.clear()
    begin, asked = world.clock.now, []
    for _ in range(120):
        before = len(world.served.asked)
        await world.passes()
        asked += [world.clock.now - begin] * (len(world.served.asked) - before)
        world.clock.now += 1
    assert world.reconciler.postponed == len(made)
    first = asked.count(asked[0])
    assert first <= len(made)
    # After what was under way when it fell ill, one question at a time.
    later = [each - asked[0] for each in asked[first:]]
    assert later == [1, 3, 7, 15, 31, 61, 91]
    assert len([each for each in warnings(caplog) if "The hub is asked again in" in each]) == 8

    world.served.failure = 0
    world.clock.now += 30
    await world.passes(2)
    assert world.reconciler.postponed == 0
    for each in made:
        assert (await world.see(each)).state is State.ACTIVE


@pytest.mark.asyncio
async def test_one_user_is_asked_for_once_in_a_pass(world: World) -> None:
    for name in ("", "a", "b", "c"):
        await world.serving(name=name, gpus=0)
    world.clock.now += 20
    world.served.asked.clear()
    await world.passes()
    assert [(method, path) for method, path, _ in world.served.asked] == [("GET", "/users/ann")]


@pytest.mark.asyncio
async def test_the_same_trouble_is_told_once(world: World) -> None:
    world.served.failure = 500
    made = await world.reserve(notebook())
    with world.market.changes.subscribe() as listener:
        for _ in range(10):
            await world.passes()
            world.clock.now += 60
        assert len(world.served.starts()) > 5
        told = [each.change for each in await listener.next() if each.change is not None]
    assert [each.id for each in told if each.kind == "reservation"] == [made.id]


# -- what runs without a reservation ------------------------------------------


async def sweeps(world: World, count: int = 2) -> None:
    for _ in range(count):
        await world.reconciler.sweep()


@pytest.mark.asyncio
async def test_a_job_without_its_reservation_is_ended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the database is that of an hour ago, or somebody has said that it has ended."""
    made = await world.running(STUBBORN)
    other = await world.running(user="bob")
    await world.call("job_ended", made.id, JobState.SUCCEEDED, 0, "")
    await world.passes(3)
    assert not (world.directory(made) / "asked to stop").exists()
    await sweeps(world, 1)
    assert not (world.directory(made) / "asked to stop").exists()
    await sweeps(world, 1)
    await world.wrote(made, "asked to stop")
    await sweeps(world)
    world.let_go(made)
    await world.process_gone(made)
    await sweeps(world, 3)
    told = [each for each in warnings(caplog) if made.id in each]
    assert len(told) == 1 and "is over: ended" in told[0]
    assert (await world.see_job(other)).state is JobState.RUNNING
    assert not [each for each in warnings(caplog) if other.id in each]


@pytest.mark.asyncio
async def test_a_job_of_another_market_is_left_alone_and_reported_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = str(uuid4())
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env=os.environ | {"ERA_JOB_ID": job_id},
    )
    try:

        async def seen() -> bool:
            return job_id in {each.id for each in await world.cloud.workloads()}

        await until(seen)
        await sweeps(world, 4)
        told = [each for each in warnings(caplog) if job_id in each]
        assert len(told) == 1 and "does not know: left alone" in told[0]
        assert f"Process {stranger.pid}" in told[0]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def server(**options: Any) -> dict[str, Any]:
    return {"ready": True, "pending": None, "user_options": options}


@pytest.mark.asyncio
async def test_a_server_without_a_reservation_is_stopped_if_it_is_ours(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    kept = await world.serving("dora", name="lab")
    given_back = await world.serving("ann")
    await world.call("give_back", given_back.id, stopped=True)
    await world.reserve(notebook(), "carl", starts_in=HOUR)
    world.served.servers |= {
        ("bob", ""): server(configuration="gpu-1", duration="1h", max_price="1"),
        ("carl", ""): server(reservation="what-is-over"),
        ("eve", "own"): server(image="minimal"),
        ("fred", ""): server(configuration="gpu-1") | {"ready": False, "pending": "spawn"},
    }
    await sweeps(world, 1)
    assert world.served.stops() == []
    await sweeps(world, 1)
    assert set(world.served.stops()) == {f"/users/{name}/server" for name in ("ann", "bob", "carl")}
    await sweeps(world, 3)
    assert set(world.served.servers) == {("dora", "lab"), ("eve", "own"), ("fred", "")}
    assert len(world.served.stops()) == 3
    assert (await world.see(kept)).state is State.ACTIVE
    told = [each for each in warnings(caplog) if "without a reservation" in each]
    assert len(told) == 4
    assert [each for each in told if "'own' of eve" in each and "left alone" in each]


@pytest.mark.asyncio
async def test_a_server_whose_start_is_under_way_is_no_orphan(world: World) -> None:
    """It is there at one look, and has its reservation at the next one."""
    world.served.servers["ann", ""] = server(configuration="gpu-1")
    await sweeps(world, 1)
    made = await world.reserve(notebook())
    await world.call("claim", made.id)
    await sweeps(world, 1)
    assert world.served.stops() == []


@pytest.mark.asyncio
async def test_an_ill_hub_keeps_no_job_from_being_found(world: World) -> None:
    made = await world.running(STUBBORN)
    await world.call("job_ended", made.id, JobState.SUCCEEDED, 0, "")
    world.served.failure = 503
    await sweeps(world)
    await world.wrote(made, "asked to stop")
    world.let_go(made)
    await world.process_gone(made)


@pytest.mark.asyncio
async def test_it_looks_on_a_schedule(world: World) -> None:
    world.served.servers["ann", ""] = server(configuration="gpu-1")
    world.reconciler.interval = 0.01
    loop = asyncio.create_task(world.reconciler.run())

    async def looked() -> bool:
        world.clock.now += 10
        return bool(world.served.stops())

    begin = world.clock.now
    await until(looked)
    assert world.clock.now - begin >= 120
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


# -- a reservation whose workload has vanished ---------------------------------


@pytest.mark.asyncio
async def test_a_job_whose_processes_are_gone_is_settled_by_the_refund_rule(world: World) -> None:
    made = await world.running()
    for each in await world.cloud.workloads():
        if each.id == made.id:
            os.kill(int(each.what.removeprefix("process ")), 9)
    world.clock.now += 20 * 60
    await world.process_gone(made)
    await world.passes()
    ended: Reservation = await world.see(made)
    assert ended.state is State.COMPLETED
    assert 0 < ended.refunded < made.price
    assert (await world.see_job(made)).state is JobState.FAILED
    with pytest.raises(Conflict, match="has ended"):
        await world.call("extend", made.id, MORE)
