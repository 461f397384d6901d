"""The cloud's side: what must run now, and what a scheduler says of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from era_hub import models
from era_hub.client import EraClient, EraError
from era_hub.cloud_models import Feedback
from era_hub.market import Market, MarketError
from era_hub.models import JobState, State
from era_hub.store.books import prove
from era_hub.views import when
from era_pricing import Commitment, Window
from tests.era_hub.small_market import DAWN, HOUR, Clock, balances, job, notebook, open_market
from tests.era_hub.test_market_accounts import reserve
from tests.running_hub import FAST, RunningHub, until

GRANT = 100_000_000
GUIDE = Path(__file__).parents[2] / "docs/guides/drive-another-scheduler.md"


def say(market: Market, **said: Any) -> Any:
    return market.update(Feedback.model_validate(said))


def running(market: Market) -> list[str]:
    return [each.id for each in market.allocation().running]


def capacity(market: Market, hours: int = 6) -> list[int]:
    """Units in each hour from dawn."""
    return market.era.capacity(DAWN, hours * 12).tolist()[::12]


def span(units: int, first: float | None = None, last: float | None = None) -> dict[str, Any]:
    start = None if first is None else when(int(DAWN + first * HOUR))
    end = None if last is None else when(int(DAWN + last * HOUR))
    return {"units": units, "start": start, "end": end}


def books_are_right(market: Market) -> None:
    with market.database.reader.begin() as session:
        assert prove(session) == []


# -- what must run ----------------------------------------------------------------------


def test_the_allocation_is_what_must_run_now(market: Market, clock: Clock) -> None:
    later = {"arrival": DAWN + HOUR, "deadline": DAWN + 3 * HOUR}
    first = reserve(market, notebook(gpus=2, server_name="lab"))
    second = reserve(market, job(gpus=1, hours=2, **later), "bob")
    assert market.claim(first.id).gpus == [0, 1]
    (shown,) = market.allocation().running
    assert shown.model_dump() == {
        "id": first.id,
        "kind": "notebook",
        "user": "ann",
        "server_name": "lab",
        "configuration": "gpu-2",
        "count": 1,
        "units": 2,
        "gpus": [0, 1],
        "state": "active",
        "start": first.start,
        "end": first.end,
        "preemptible": False,
    }
    clock.now += HOUR
    (shown,) = market.allocation().running
    assert (shown.id, shown.kind, shown.state, shown.gpus) == (second.id, "job", "accepted", None)
    market.give_back(second.id)
    assert market.allocation().running == []


def test_it_is_the_same_until_something_changes(market: Market, clock: Clock) -> None:
    made = reserve(market, notebook())
    before = market.allocation()
    clock.now += 100
    assert market.allocation() == before
    longer = models.ExtensionRequest(duration=HOUR, value=GRANT)
    assert market.extend(made.id, longer).accepted
    assert market.allocation().running[0].end == when(DAWN + 2 * HOUR)


def test_it_tells_nothing_of_money(market: Market) -> None:
    reserve(market, job(value="77", script="print('secret')"))
    text = market.allocation().model_dump_json()
    assert all(word not in text for word in ("77000000", "price", "value", "secret"))


def test_many_are_found(market: Market) -> None:
    made = {reserve(market, notebook(gpus=0, server_name=str(n))).id for n in range(1100)}
    assert set(running(market)) == made


# -- what has ended -----------------------------------------------------------------------


def test_what_has_ended_is_settled_by_the_refund_rule(market: Market, clock: Clock) -> None:
    server, work = reserve(market, notebook()), reserve(market, job(), "bob")
    market.claim(server.id)
    market.claim(work.id)
    clock.now += 20 * 60
    said = [{"id": server.id}, {"id": work.id, "exit_code": 3, "message": "no such file"}]
    result = say(market, ended=said)
    assert [(each.id, each.state) for each in result.settled] == [
        (server.id, State.RELEASED),
        (work.id, State.COMPLETED),
    ]
    for made, settled in zip((server, work), result.settled, strict=True):
        assert 0 < settled.refunded < settled.price == made.price
        assert market.statement(made.user).balance == GRANT - made.price + settled.refunded
    ended = market.job(work.id)
    assert (ended.state, ended.exit_code, ended.message) == (JobState.FAILED, 3, "no such file")
    assert running(market) == []
    # Their GPUs are free once the reconciler has seen that nothing runs.
    assert {each.reservation.id for each in market.due()} == {server.id, work.id}
    books_are_right(market)


def test_what_failed_is_refunded_in_full(market: Market, clock: Clock) -> None:
    server, work = reserve(market, notebook()), reserve(market, job(), "bob")
    clock.now += 30 * 60
    result = say(market, failed=[{"id": server.id, "reason": "node 7 is down"}, {"id": work.id}])
    assert [(each.state, each.refunded) for each in result.settled] == [
        (State.FAILED, server.price),
        (State.FAILED, work.price),
    ]
    told = market.reservation(server.id).message
    assert told == "the cluster could not run it: node 7 is down"
    assert market.job(work.id).state is JobState.FAILED
    assert balances(market.database)["escrow"] == 0
    books_are_right(market)


def test_what_is_said_twice_changes_nothing(market: Market, clock: Clock) -> None:
    ended, failed = reserve(market, job()), reserve(market, notebook(), "bob")
    clock.now += 600
    said = {"ended": [{"id": ended.id}] * 2, "failed": [{"id": failed.id}], "capacity": [span(4)]}
    first = say(market, **said)
    before = balances(market.database), market.reservation(ended.id), market.reservation(failed.id)
    clock.now += 600
    assert say(market, **said) == first
    # Nor does it help to change one's mind.
    again = say(market, ended=[{"id": failed.id}], failed=[{"id": ended.id}])
    assert {each.id: each for each in again.settled} == {each.id: each for each in first.settled}
    after = balances(market.database), market.reservation(ended.id), market.reservation(failed.id)
    assert after == before
    books_are_right(market)


def test_what_is_of_no_pool_is_said_to_be_unknown(market: Market) -> None:
    made = reserve(market, notebook())
    result = say(market, ended=[{"id": "nobody-s"}], failed=[{"id": "neither"}])
    assert (result.unknown, result.settled) == (["nobody-s", "neither"], [])
    assert running(market) == [made.id]


# -- capacity -----------------------------------------------------------------------------


def test_what_there_is_no_room_for_is_refunded_in_full(market: Market, clock: Clock) -> None:
    older = reserve(market, notebook(gpus=4))
    clock.now += 1
    newer = reserve(market, notebook(gpus=4, server_name="b"), "bob")
    market.claim(older.id)
    result = say(market, capacity=[span(4)])
    (broken,) = result.broken
    assert (broken.id, broken.state, broken.refunded) == (newer.id, State.FAILED, newer.price)
    assert "less to give" in market.reservation(newer.id).message
    assert market.statement("bob").balance == GRANT
    assert running(market) == [older.id]
    assert market.allocation().capacity == 4
    assert say(market, capacity=[span(4)]).broken == []
    books_are_right(market)


def test_what_has_ended_makes_room_before_the_capacity_shrinks(market: Market) -> None:
    older = reserve(market, notebook(gpus=4))
    newer = reserve(market, notebook(gpus=4), "bob")
    result = say(market, capacity=[span(4)], ended=[{"id": older.id}])
    assert ([each.id for each in result.settled], result.broken) == ([older.id], [])
    assert running(market) == [newer.id]


def test_capacity_over_time(market: Market) -> None:
    say(market, capacity=[span(6, last=5), span(2, 1, 3), span(0, 2, 3), span(7, 4)])
    assert capacity(market) == [6, 2, 0, 6, 7, 7]
    say(market, ended=[])
    assert capacity(market) == [6, 2, 0, 6, 7, 7]
    say(market, capacity=[])
    assert capacity(market) == [8] * 6


def test_what_was_reported_holds_after_a_restart_and_beside_what_admins_set(
    market: Market, clock: Clock, tmp_path: Path
) -> None:
    from tests.era_hub.test_market_settings import held_back, maintenance

    say(market, capacity=[span(6, 0, 4)])
    market.apply_settings(maintenance(1, 2, units=1))
    market.apply_settings(maintenance(2, 3, units=5))
    assert capacity(market) == [6, 6, 3, 6, 8, 8]
    market.apply_settings(held_back(2))
    assert capacity(market) == [4, 4, 1, 4, 6, 6]
    again = open_market(tmp_path, clock)
    assert capacity(again) == [4, 4, 1, 4, 6, 6]
    again.database.close()


def test_there_is_no_more_than_the_pool_has(market: Market) -> None:
    made = reserve(market, notebook())
    with pytest.raises(MarketError, match=r"capacity.1.units: pool local has 8 units"):
        say(market, capacity=[span(0), span(9)], ended=[{"id": made.id}])
    assert running(market) == [made.id]
    assert capacity(market) == [8] * 6


def test_what_the_engine_moves_is_told_and_stored(market: Market) -> None:
    made = reserve(market, notebook(gpus=8, arrival=DAWN + HOUR, deadline=DAWN + 2 * HOUR))
    (promise,) = market.era.reservations()
    flexible = replace(
        promise,
        commitment=Commitment.FLEXIBLE,
        windows=(Window(DAWN + HOUR, DAWN + 6 * HOUR),),
    )
    market.era.restore([flexible])
    result = say(market, capacity=[span(0, 1, 3)])
    (moved,) = result.moved
    assert result.broken == []
    assert (moved.id, moved.start) == (made.id, when(DAWN + 3 * HOUR))
    stored = market.reservation(made.id)
    assert (stored.start, stored.end, stored.price) == (moved.start, moved.end, made.price)
    market.rebuild()
    assert market.era.promised(DAWN, 60).tolist() == [0] * 36 + [8] * 12 + [0] * 12


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"capacity": [{"units": -1}]}, "units"),
        ({"capacity": [{"units": 1, "nodes": 2}]}, "nodes"),
        ({"capacity": [span(1, 2, 1)]}, "later than the start"),
        ({"ended": [{"id": "../x"}]}, "id"),
        ({"ended": [{"id": "x"}], "failed": [{"id": "x"}]}, "x can't have ended and failed"),
        ({"terminated": []}, "terminated"),
    ],
)
def test_what_makes_no_sense_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        Feedback.model_validate(said)


# -- over HTTP ------------------------------------------------------------------------------

SERVICES = """
for name, scopes in {{"scheduler": ["custom:era:cloud"], "idle": []}}.items():
    c.JupyterHub.services.append({{"name": name, "api_token": f"{{name}}-{token}"}})
    scopes = ["access:services!service=era", *scopes]
    c.JupyterHub.load_roles.append({{"name": name, "services": [name], "scopes": scopes}})
"""
TOKEN = uuid4().hex


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    folder, extra = tmp_path_factory.mktemp("hub"), SERVICES.format(token=TOKEN)
    with RunningHub(folder, options=FAST | {"Pool.slot": 60}, extra=extra) as running:
        yield running


@pytest.fixture(scope="module")
def scheduler(hub: RunningHub) -> EraClient:
    return hub.client_with(f"scheduler-{TOKEN}")


def send(client: EraClient, method: str, path: str, **more: Any) -> httpx.Response:
    return client._http.request(method, path, **more)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "allocation", None), ("POST", "allocation/update", {"ended": [{"id": "none"}]})],
)
def test_who_may_call(
    hub: RunningHub, scheduler: EraClient, method: str, path: str, body: Any
) -> None:
    callers = {
        "owner": (hub.client("ann"), 403),
        "other": (hub.client("bob"), 403),
        "admin": (hub.client("admin"), 200),
        "spawner": (hub.spawner(), 403),
        "scheduler": (scheduler, 200),
        "service without scope": (hub.client_with(f"idle-{TOKEN}"), 403),
        "nobody": (hub.client_with("0" * 32), 401),
    }
    for name, (client, expected) in callers.items():
        answer = send(client, method, path, json=body)
        assert answer.status_code == expected, name
        if expected != 200:
            assert answer.headers["Content-Type"] == "application/problem+json"
    bare = httpx.request(method, f"{hub.url}services/era/api/v1/{path}", json=body)
    assert bare.status_code == 401


def test_a_scheduler_may_call_nothing_else(scheduler: EraClient) -> None:
    for path in ("market", "reservations", "jobs", "account", "user", "metrics", "admin/books"):
        assert send(scheduler, "GET", path).status_code == 403


def test_polling_is_cheap(hub: RunningHub, scheduler: EraClient) -> None:
    first = send(scheduler, "GET", "allocation")
    tag = {"If-None-Match": first.headers["ETag"]}
    again = send(scheduler, "GET", "allocation", headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    made = submit(hub, "ann")
    changed = send(scheduler, "GET", "allocation", headers=tag)
    assert changed.status_code == 200
    assert made.id in [each["id"] for each in changed.json()["running"]]
    assert scheduler.allocation() == scheduler.allocation()
    hub.client("ann").cancel_job(made.id)


def test_an_update_with_a_key_is_made_once(hub: RunningHub, scheduler: EraClient) -> None:
    made, key = submit(hub, "ann"), {"Idempotency-Key": uuid4().hex}
    body = {"failed": [{"id": made.id, "reason": "no node"}]}
    first = send(scheduler, "POST", "allocation/update", json=body, headers=key)
    assert first.json()["settled"][0]["state"] == "failed"
    again = send(scheduler, "POST", "allocation/update", json=body, headers=key)
    assert again.json() == first.json()
    other = send(scheduler, "POST", "allocation/update", json={}, headers=key)
    assert other.status_code == 422
    with pytest.raises(EraError, match="pool local has 8 units") as caught:
        scheduler.update(Feedback(capacity=[{"units": 9}]))
    assert caught.value.status == 422


def submit(hub: RunningHub, user: str, minutes: int = 10) -> models.Job:
    request = models.JobRequest(
        configuration="gpu-2",
        duration=minutes * 60,
        value=50_000_000,
        script="import time; time.sleep(600)",
    )
    made = hub.client(user).submit(request)
    assert made.job is not None, made.reason
    job: models.Job = made.job
    return job


# What runs is a file, with the command that started it inside. It appears with all it says.
SCHEDULER = """#!{python}
import pathlib, sys
runs = pathlib.Path({folder!r}, "runs")
runs.mkdir(exist_ok=True)
command, *words = sys.argv[1:]
if command == "start":
    if words[1] == "bob":
        sys.exit("bob has no account here")
    (runs.parent / words[0]).write_text(" ".join(words[1:]))
    (runs.parent / words[0]).rename(runs / words[0])
elif command == "stop":
    (runs / words[0]).unlink(missing_ok=True)
elif command == "list":
    print(*(each.name for each in runs.iterdir()), sep="\\n")
elif command == "units":
    print((runs.parent / "units").read_text())
"""


def test_the_loop_of_the_guide_runs(hub: RunningHub, scheduler: EraClient, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text("utf-8"), re.M | re.S)
    (program,) = (each for each in blocks if "def step(" in each)
    drive, tool, runs = tmp_path / "drive.py", tmp_path / "scheduler", tmp_path / "runs"
    drive.write_text(program.replace("PAUSE = 5.0", "PAUSE = 0.2"))
    tool.write_text(SCHEDULER.format(python=sys.executable, folder=str(tmp_path)))
    tool.chmod(0o755)
    (tmp_path / "units").write_text("8")
    environment = {
        **os.environ,
        "ERA_URL": f"{hub.url}services/era",
        "ERA_TOKEN": f"scheduler-{TOKEN}",
    }
    ann = hub.client("ann")

    def state(job: models.Job) -> State:
        found: State = ann.job(job.id).reservation.state
        return found

    started = subprocess.Popen(
        [sys.executable, str(drive), str(tool)], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        first, second = submit(hub, "ann"), submit(hub, "ann")
        until(lambda: (runs / first.id).exists() and (runs / second.id).exists(), 30, "the starts")
        user, units, end = (runs / first.id).read_text().split()
        assert (user, units) == ("ann", "2")
        assert datetime.fromtimestamp(int(end), UTC) == first.reservation.end

        # What has ended there has ended here.
        (runs / first.id).unlink()
        until(lambda: state(first) is State.COMPLETED, 30, "the end")
        # What is given back here is stopped there.
        ann.cancel_job(second.id)
        until(lambda: not (runs / second.id).exists(), 30, "the stop")
        # What the scheduler refuses costs nothing.
        refused = submit(hub, "bob")
        bob = hub.client("bob")
        until(lambda: bob.job(refused.id).reservation.state is State.FAILED, 30, "the refusal")
        assert bob.account().balance == GRANT
        # Where a node is lost, what ran on it is refunded and stopped.
        lost = submit(hub, "ann")
        until(lambda: (runs / lost.id).exists(), 30, "the start")
        (tmp_path / "units").write_text("1")
        until(lambda: state(lost) is State.FAILED, 30, "the loss")
        until(lambda: not (runs / lost.id).exists(), 30, "its stop")
        assert ann.job(lost.id).reservation.refunded == lost.reservation.price
        assert started.poll() is None
    finally:
        started.terminate()
        told = started.communicate()[1]
        scheduler.update(Feedback(capacity=[]))
    assert "bob has no account here" in told
    assert TOKEN not in told
