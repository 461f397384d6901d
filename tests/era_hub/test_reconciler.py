"""The reconciler with real processes, a real database, and a hub at the other end of a wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from era_hub.market import Conflict
from era_hub.models import JobState, State
from tests.era_hub.small_market import HOUR, balances, job, notebook
from tests.era_hub.small_world import GRANT, LEASE, STARTED, STUBBORN, World, until


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


# -- jobs ---------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_job_is_started_at_its_start_and_not_before(world: World) -> None:
    made = await world.reserve(job(gpus=2, script=STARTED), starts_in=HOUR)
    await world.passes(2)
    world.clock.now += HOUR - 1
    await world.passes(2)
    assert (await world.see_job(made)).state is JobState.QUEUED
    assert not world.homes.exists()

    world.clock.now += 1
    await world.passes()
    running = await world.see_job(made)
    assert running.state is JobState.RUNNING
    assert running.directory == str(world.directory(made))
    assert await world.wrote(made, "started") == "0,1\n"
    assert running.reservation.gpus == [0, 1]
    assert running.reservation.state is State.ACTIVE


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("code", "state"), [(0, JobState.SUCCEEDED), (3, JobState.FAILED)], ids=["succeeds", "fails"]
)
async def test_a_job_that_has_ended_is_settled(world: World, code: int, state: JobState) -> None:
    made = await world.running(f"{STARTED}\nraise SystemExit({code})")
    world.clock.now += 20 * 60
    world.let_go(made)
    await world.process_gone(made)
    await world.passes()
    ended = await world.see_job(made)
    assert (ended.state, ended.exit_code) == (state, code)
    assert ended.reservation.state is State.COMPLETED
    assert 0 < ended.reservation.refunded < made.price
    assert await world.balance() == GRANT - made.price + ended.reservation.refunded
    assert await world.busy() == set()


@pytest.mark.asyncio
async def test_a_cancelled_job_keeps_its_gpus_until_its_process_is_gone(world: World) -> None:
    first = await world.running(STUBBORN, gpus=8)
    world.clock.now += 400
    await world.call("give_back", first.id)
    second = await world.reserve(job(gpus=8, script=STARTED), "bob")
    await world.passes(2)
    await world.wrote(first, "asked to stop")
    world.clock.now += 2
    await world.passes(2)
    assert await world.busy() == {first.id, second.id}
    with pytest.raises(Conflict, match="still being freed"):
        await world.call("claim", second.id)
    assert not world.directory(second).exists()

    world.let_go(first)
    await world.process_gone(first)
    world.clock.now += 60
    await world.passes()
    ended = await world.see_job(first)
    assert (ended.state, ended.reservation.state) == (JobState.CANCELLED, State.RELEASED)
    assert 0 < ended.reservation.refunded < first.price
    assert await world.wrote(second, "started") == "0,1,2,3,4,5,6,7\n"
    assert await world.busy() == {second.id}


@pytest.mark.asyncio
async def test_a_job_that_is_cancelled_before_its_start_never_starts(world: World) -> None:
    made = await world.reserve(job(), starts_in=HOUR)
    await world.passes()
    await world.call("give_back", made.id)
    world.clock.now += HOUR
    await world.passes(2)
    assert not world.homes.exists()
    assert (await world.see_job(made)).state is JobState.CANCELLED
    assert await world.balance() == GRANT


@pytest.mark.asyncio
async def test_a_job_that_outlasts_its_reservation_is_stopped(world: World) -> None:
    made = await world.running()
    world.clock.now += HOUR
    await world.passes()
    await world.process_gone(made)
    await world.passes()
    ended = await world.see_job(made)
    assert ended.state.final
    assert (ended.reservation.state, ended.reservation.refunded) == (State.COMPLETED, 0)
    assert await world.busy() == set()


@pytest.mark.asyncio
async def test_a_job_that_cannot_be_started_costs_nothing(world: World) -> None:
    world.homes.mkdir()
    (world.homes / "ann").write_text("in the way of a home")
    made = await world.reserve(job())
    await world.passes()
    ended = await world.see_job(made)
    assert (ended.state, ended.reservation.state) == (JobState.FAILED, State.FAILED)
    assert "directory" in ended.message
    assert await world.balance() == GRANT
    assert await world.busy() == set()


@pytest.mark.asyncio
async def test_a_job_that_was_claimed_but_not_started_is_started(world: World) -> None:
    """As when the service died in between."""
    made = await world.reserve(job(script=STARTED))
    await world.call("claim", made.id)
    await world.passes()
    assert await world.wrote(made, "started") == "0\n"
    assert (await world.see_job(made)).state is JobState.RUNNING


@pytest.mark.asyncio
async def test_a_job_of_which_nothing_is_left_is_settled(world: World) -> None:
    made = await world.reserve(job())
    await world.call("claim", made.id)
    world.clock.now += HOUR
    await world.passes()
    ended = await world.see_job(made)
    assert (ended.state, ended.reservation.state) == (JobState.FAILED, State.COMPLETED)
    assert "no trace" in ended.message
    assert await world.busy() == set()


@pytest.mark.asyncio
async def test_a_job_that_hides_is_gone_before_its_gpus_are_free(world: World) -> None:
    """Whoever removes the job's directory must not run on for nothing."""
    made = await world.running(
        """
import os, time
path = os.path.abspath("..")
open("started", "w").close()
while os.path.exists("started"): time.sleep(0.01)
while True:
    with open(os.path.join(path, "alive"), "w") as file: file.write(str(os.getpid()))
    time.sleep(0.01)
"""
    )
    home = world.directory(made).parent
    world.directory(made).rename(home / "hidden")
    (home / "hidden" / "started").unlink()
    alive = home / "alive"

    async def written() -> str:
        return alive.read_text() if alive.exists() else ""

    pid = int(await until(written))
    await world.passes()
    assert await world.busy() == set()

    async def dead() -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    assert await dead()


@pytest.mark.asyncio
async def test_a_restart_finds_the_jobs_again_and_starts_none_twice(world: World) -> None:
    made = await world.running()
    world.restart()
    await world.passes(3)
    assert (await world.see_job(made)).state is JobState.RUNNING
    world.let_go(made)
    await world.process_gone(made)
    world.restart()
    await world.passes(3)
    assert (await world.see_job(made)).state is JobState.SUCCEEDED
    assert await world.wrote(made, "started") == "0\n"


@pytest.mark.asyncio
async def test_jobs_that_end_with_the_service_are_settled(world: World) -> None:
    stopped = await world.running()
    waiting = await world.reserve(job(), "bob", starts_in=HOUR)
    await world.cloud.close()
    await world.reconciler.settle_jobs()
    assert (await world.see_job(stopped)).reservation.state is State.COMPLETED
    assert (await world.see_job(stopped)).state.final
    assert (await world.see(waiting)).state is State.ACCEPTED
    assert await world.busy() == set()


@pytest.mark.asyncio
async def test_a_job_that_was_missed_costs_nothing(world: World) -> None:
    made = await world.reserve(job())
    world.clock.now += HOUR
    await world.passes()
    ended = await world.see_job(made)
    assert (ended.state, ended.reservation.state) == (JobState.FAILED, State.FAILED)
    assert "the service was not running" in ended.message
    assert await world.balance() == GRANT
    assert not world.homes.exists()


# -- starting notebooks -------------------------------------------------------


@pytest.mark.asyncio
async def test_a_reserved_notebook_is_started_through_the_hub(world: World) -> None:
    made = await world.reserve(notebook(gpus=3, server_name="my lab"), "ann/b", starts_in=HOUR)
    await world.passes(2)
    world.clock.now += HOUR - 1
    await world.passes(2)
    assert world.served.asked == []

    world.clock.now += 1
    await world.passes(3)
    path = "/users/ann%2Fb/servers/my%20lab"
    assert world.served.starts() == [(path, {"reservation": made.id})]
    running = await world.see(made)
    assert (running.state, running.gpus) == (State.ACTIVE, [0, 1, 2])


@pytest.mark.asyncio
async def test_a_server_that_starts_slowly_is_not_started_twice(world: World) -> None:
    world.served.slow = True
    made = await world.reserve(notebook())
    for _ in range(10):
        await world.passes(2)
        world.clock.now += 1
    assert world.served.starts() == [("/users/ann/server", {"reservation": made.id})]
    await world.passes()  # the Hub may have lost it: asked again, it says that it is at it
    await world.served.finish()
    for _ in range(30):
        world.clock.now += 1
        await world.passes()
    assert len(world.served.starts()) == 2
    assert list(world.served.servers) == [("ann", "")]
    assert (await world.see(made)).state is State.ACTIVE


@pytest.mark.asyncio
async def test_a_hub_in_trouble_is_asked_ever_less_often(world: World) -> None:
    world.served.failure = 500
    made = await world.reserve(notebook())
    begin, asked = world.clock.now, []
    for _ in range(200):
        before = len(world.served.starts())
        await world.passes()
        if len(world.served.starts()) > before:
            asked.append(world.clock.now - begin)
        world.clock.now += 1
    assert asked == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    waiting = await world.see(made)
    assert waiting.state is State.ACCEPTED
    assert waiting.message == "the server has not started yet: the hub is ill"

    world.served.failure = 0
    world.clock.now += 60
    await world.passes()
    started = await world.see(made)
    assert (started.state, started.message) == (State.ACTIVE, "")


@pytest.mark.asyncio
async def test_trouble_with_one_reservation_holds_up_no_other(world: World) -> None:
    (world.homes / "ann").parent.mkdir()
    (world.homes / "ann").write_text("in the way of a home")
    blocked = await world.reserve(notebook())
    world.served.servers["ann", ""] = {"ready": True, "pending": None, "user_options": {}}
    broken = await world.reserve(job())
    fine = await world.reserve(notebook(), "bob")
    await world.passes()
    assert (await world.see(blocked)).message.endswith("ann is already running")
    assert (await world.see(broken)).state is State.FAILED
    assert (await world.see(fine)).state is State.ACTIVE


@pytest.mark.asyncio
async def test_a_notebook_that_was_missed_costs_nothing(world: World) -> None:
    silent = await world.reserve(notebook())
    told = await world.reserve(notebook(), "bob")
    await world.call("note", told.id, "the server has not started yet: no disk")
    world.clock.now += HOUR
    await world.passes()
    for made, user, message in (
        (silent, "ann", "the server could not be started in time"),
        (told, "bob", "the server has not started yet: no disk"),
    ):
        ended = await world.see(made)
        assert (ended.state, ended.message) == (State.FAILED, message)
        assert ended.refunded == ended.price
        assert await world.balance(user) == GRANT
    assert world.served.starts() == []


@pytest.mark.asyncio
async def test_who_blocks_the_start_of_their_own_server_pays(world: World) -> None:
    await world.serving(hours=3)
    blocked = await world.reserve(notebook())
    await world.passes()
    world.clock.now += HOUR
    await world.passes()
    ended = await world.see(blocked)
    assert (ended.state, ended.refunded) == (State.COMPLETED, 0)
    assert "another reservation" in ended.message
    assert len(world.served.servers) == 1


# -- running notebooks --------------------------------------------------------


@pytest.mark.asyncio
async def test_a_notebook_whose_time_is_over_is_stopped_and_then_gone(world: World) -> None:
    made = await world.serving(gpus=8)
    world.served.slow = True
    world.clock.now += HOUR - 1
    await world.passes()
    assert world.served.stops() == []

    world.clock.now += 1
    await world.passes()
    ended = await world.see(made)
    assert (ended.state, ended.refunded) == (State.COMPLETED, 0)
    assert world.served.stops() == ["/users/ann/server"]

    # Not gone yet, so neither are its GPUs free; and one request is enough.
    follower = await world.reserve(notebook(gpus=8), "bob")
    await world.passes(2)
    assert await world.busy() == {made.id, follower.id}
    with pytest.raises(Conflict):
        await world.call("claim", follower.id)
    assert world.served.stops() == ["/users/ann/server"]

    await world.served.finish()
    world.served.slow = False
    world.clock.now += 60
    await world.passes(2)
    assert await world.busy() == {follower.id}
    assert (await world.see(follower)).gpus == list(range(8))


@pytest.mark.asyncio
async def test_a_notebook_that_is_given_back_is_stopped(world: World) -> None:
    made = await world.serving()
    world.clock.now += 600
    await world.call("give_back", made.id)
    await world.passes(2)
    assert world.served.servers == {}
    assert await world.busy() == set()
    assert (await world.see(made)).state is State.RELEASED


@pytest.mark.asyncio
@pytest.mark.parametrize("gpus", [1, 5], ids=["at once", "once the GPUs are free"])
async def test_the_next_reservation_of_the_same_server_takes_over(world: World, gpus: int) -> None:
    first = await world.serving(gpus=gpus)
    second = await world.reserve(notebook(gpus=gpus), starts_in=HOUR)
    world.clock.now += HOUR
    for _ in range(5):
        await world.passes()
        world.clock.now += 1
    assert (await world.see(first)).state is State.COMPLETED
    assert (await world.see(second)).state is State.ACTIVE
    assert world.served.servers["ann", ""]["user_options"] == {"reservation": second.id}
    assert world.served.stops() == ["/users/ann/server"]
    assert await world.busy() == {second.id}


@pytest.mark.asyncio
async def test_each_server_ends_with_its_own_reservation(world: World) -> None:
    await world.serving()
    longer = await world.serving(name="lab", hours=2)
    world.clock.now += HOUR
    await world.passes(2)
    assert world.served.stops() == ["/users/ann/server"]
    assert list(world.served.servers) == [("ann", "lab")]
    assert await world.busy() == {longer.id}


@pytest.mark.asyncio
async def test_a_notebook_without_its_server_is_released_after_the_lease(world: World) -> None:
    made = await world.serving()
    # Other servers are not taken for it: another one of hers, and one of a similar name.
    other: dict[str, Any] = {"ready": True, "pending": None, "user_options": {}}
    world.served.servers = {("ann", "lab"): other, ("anna", ""): other}
    lost = world.clock.now
    while world.clock.now < lost + LEASE:
        await world.passes()
        assert (await world.see(made)).state is State.ACTIVE
        world.clock.now += 1
    await world.passes()
    ended = await world.see(made)
    assert ended.state is State.RELEASED
    assert 0 < ended.refunded < ended.price
    assert await world.busy() == set()
    assert world.served.stops() == []


@pytest.mark.asyncio
async def test_a_server_that_comes_back_within_the_lease_is_kept(world: World) -> None:
    made = await world.serving()
    server = world.served.servers["ann", ""]
    for _ in range(3):
        for present in (False, True):
            world.served.servers = {("ann", ""): server} if present else {}
            for _ in range(LEASE - 30):
                await world.passes()
                world.clock.now += 1
    assert (await world.see(made)).state is State.ACTIVE


# -- whatever happens ---------------------------------------------------------


@pytest.mark.asyncio
async def test_a_hub_that_cannot_be_reached_changes_nothing(world: World) -> None:
    running = await world.serving()
    before = world.stored()
    await world.served.close()
    for _ in range(2 * LEASE // 10):
        world.clock.now += 10
        await world.passes()
    assert (await world.see(running)).state is State.ACTIVE
    assert world.stored() == before


@pytest.mark.asyncio
async def test_a_lost_hub_keeps_the_workload_of_what_is_over(world: World) -> None:
    made = await world.serving()
    await world.served.close()
    world.clock.now += HOUR
    await world.passes()
    assert (await world.see(made)).state is State.COMPLETED
    world.clock.now += 100
    await world.passes()
    assert await world.busy() == {made.id}


@pytest.mark.asyncio
async def test_a_pass_that_is_repeated_changes_nothing(world: World) -> None:
    await world.running()
    await world.serving("bob")
    await world.reserve(notebook(), "carl", starts_in=HOUR)
    await world.reserve(job(), "carl", starts_in=HOUR)
    given_back = await world.serving("dora")
    await world.call("give_back", given_back.id)
    await world.passes(2)
    before = world.stored(), len(world.served.starts()), len(world.served.stops())
    await world.passes(5)
    world.restart()
    await world.passes(5)
    assert (world.stored(), len(world.served.starts()), len(world.served.stops())) == before
    accounts = await world.market.database.run(balances, world.market.database)
    assert sum(accounts.values()) == 0


@pytest.mark.asyncio
async def test_it_passes_again_when_something_has_changed(world: World) -> None:
    loop = asyncio.create_task(world.reconciler.run())
    first = await world.reserve(notebook())

    async def both_run() -> bool:
        found = [await world.see(each) for each in (first, second)]
        return all(each.state is State.ACTIVE for each in found)

    second = await world.reserve(notebook(), "bob")
    world.reconciler.wake()
    # The next pass by itself would come in an hour.
    await until(both_run)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


@pytest.mark.asyncio
async def test_a_pass_that_fails_is_not_the_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reconciler.interval = 0.01
    made = await world.reserve(notebook())
    failures = []

    def fail(**_: object) -> None:
        failures.append(1)
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(world.market, "due", fail)
        loop = asyncio.create_task(world.reconciler.run())

        async def failed_twice() -> bool:
            return len(failures) >= 2

        await until(failed_twice)

    async def runs() -> bool:
        return (await world.see(made)).state is State.ACTIVE

    await until(runs)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


# -- jobs that run in parts, and starts that nobody comes to --------------------


@pytest.mark.asyncio
async def test_a_preemptible_job_goes_on_after_those_who_paid_more(world: World) -> None:
    between = await world.reserve(notebook(gpus=8), "bob", starts_in=HOUR)
    deadline = world.clock.now + 3 * HOUR
    request = job(gpus=8, hours=2, script=STARTED, deadline=deadline, commitment="preemptible")
    made = await world.reserve(request)
    assert made.end.timestamp() == deadline
    await world.passes()
    await world.wrote(made, "started")

    world.clock.now += HOUR
    await world.passes()  # the first part is over: it is asked to stop,
    await world.process_gone(made)
    world.clock.now += 2
    await world.passes(2)  # and makes room
    paused = await world.see_job(made)
    assert (paused.state, paused.reservation.state) == (JobState.QUEUED, State.ACCEPTED)
    assert (await world.see(between)).state is State.ACTIVE

    world.clock.now += HOUR

    async def twice() -> bool:
        world.clock.now += 1
        await world.passes()
        return (await world.wrote(made, "started")).count("\n") == 2

    await until(twice)
    world.let_go(made)
    await world.process_gone(made)
    await world.passes(2)
    ended = await world.see_job(made)
    assert (ended.state, ended.reservation.state) == (JobState.SUCCEEDED, State.COMPLETED)
    assert await world.balance() == GRANT - made.price + ended.reservation.refunded


@pytest.mark.asyncio
async def test_a_flexible_job_starts_when_gpus_become_idle(world: World) -> None:
    first = await world.serving("bob", gpus=8, hours=2)
    deadline = world.clock.now + 6 * HOUR
    made = await world.reserve(job(gpus=8, script=STARTED, deadline=deadline))
    assert made.start == first.end
    await world.passes()
    assert not world.homes.exists()
    world.served.servers.clear()
    await world.call("give_back", first.id, stopped=True)
    await world.passes(2)
    await world.wrote(made, "started")
    started = await world.see(made)
    assert (started.state, started.price) == (State.ACTIVE, made.price)
    assert started.start < made.start


@pytest.mark.asyncio
async def test_a_reservation_that_nobody_comes_to_is_released(world: World) -> None:
    world.no_show = 900
    world.restart()
    world.served.failure = 500
    made = await world.reserve(notebook())
    await world.passes()
    world.clock.now += 899
    await world.passes()
    assert (await world.see(made)).state is State.ACCEPTED
    world.served.failure = 0
    world.served.slow = True
    world.clock.now += 2
    await world.passes()
    ended = await world.see(made)
    assert ended.state is State.RELEASED
    assert "released" in ended.message
    # What has begun is paid, by the rule for every release.
    assert 0 < ended.refunded < made.price
    assert await world.balance() == GRANT - made.price + ended.refunded
