"""Notebook servers through a real hub: from a bid to the last micro-credit."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from era_hub import models
from era_hub.client import EraClient
from era_hub.models import JobState, State
from tests.running_hub import FAST, RunningHub, until

MILLION = 1_000_000


@pytest.fixture
def ann(hub: RunningHub) -> EraClient:
    return hub.client("ann")


def latest(client: EraClient, **wanted: object) -> models.Reservation:
    found: models.Reservation = client.reservations(**wanted)[0]
    return found


def options(configuration: str = "gpu-2", duration: str = "10m", **more: str) -> dict[str, str]:
    return {"configuration": configuration, "duration": duration, "max_price": "20", **more}


def stop(hub: RunningHub, user: str) -> None:
    hub.stop_server(user)
    hub.until_gone(user)


def test_a_notebook_gets_exactly_its_gpus(hub: RunningHub, ann: EraClient) -> None:
    bob = hub.client("bob")
    try:
        assert hub.start_server("ann", options("gpu-2")).is_success
        assert hub.start_server("bob", options("gpu-3")).is_success
        hub.until_ready("ann")
        hub.until_ready("bob")
        seen = {}
        for user, client, count in (("ann", ann, 2), ("bob", bob, 3)):
            environment = hub.environment(user)
            seen[user] = environment["CUDA_VISIBLE_DEVICES"].split(",")
            assert environment["NVIDIA_VISIBLE_DEVICES"] == environment["CUDA_VISIBLE_DEVICES"]
            assert [int(index) for index in seen[user]] == latest(client).gpus
            assert len(seen[user]) == count
            assert "ERA_TOKEN" not in environment
        assert not set(seen["ann"]) & set(seen["bob"])
        running = hub.client("admin").allocation().running
        assert sum(each.units for each in running) == 5
    finally:
        stop(hub, "ann")
        stop(hub, "bob")


def test_a_cpu_notebook_gets_none_and_costs_nothing(hub: RunningHub, ann: EraClient) -> None:
    before = ann.account().balance
    hub.start_server("ann", options("cpu"))
    hub.until_ready("ann")
    environment = hub.environment("ann")
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "none"
    assert ann.account().balance == before
    stop(hub, "ann")


def test_stopping_early_releases_the_rest(hub: RunningHub, ann: EraClient) -> None:
    before = ann.account().balance
    hub.start_server("ann", options())
    hub.until_ready("ann")
    held = latest(ann)
    assert held.state is State.ACTIVE
    assert ann.account().balance == before - held.price
    stop(hub, "ann")
    released = ann.reservation(held.id)
    assert released.state is State.RELEASED
    assert 0 < released.refunded < released.price
    assert ann.account().balance == before - released.price + released.refunded


def test_a_low_bid_names_the_price(hub: RunningHub, ann: EraClient) -> None:
    before = (ann.reservations(), ann.account())
    answer = hub.start_server("ann", options() | {"max_price": "0.000001"})
    assert 400 <= answer.status_code < 500
    assert "credits" in answer.json()["message"]
    assert hub.server("ann") is None
    assert (ann.reservations(), ann.account()) == before


@pytest.mark.parametrize(
    "bad",
    [
        {"configuration": "gpu-9", "duration": "1h", "max_price": "5"},
        {"configuration": "gpu-1", "duration": "-1h", "max_price": "5"},
        {"configuration": "gpu-1", "duration": "1h", "max_price": "NaN"},
        {"configuration": "cpu", "duration": "1h", "max_price": "5", "gpus": [0, 1, 2]},
        {"reservation": "00000000-0000-0000-0000-000000000000"},
    ],
)
def test_what_the_rest_api_sends_is_not_trusted(
    hub: RunningHub, ann: EraClient, bad: dict[str, object]
) -> None:
    before = (ann.reservations(), ann.account())
    answer = hub.start_server("ann", bad)
    assert 400 <= answer.status_code < 500, answer.text
    assert hub.server("ann") is None
    assert (ann.reservations(), ann.account()) == before


def test_somebody_elses_reservation_does_not_start(hub: RunningHub, ann: EraClient) -> None:
    bid = models.ReservationRequest(configuration="gpu-1", duration="5m", value=9 * MILLION)
    foreign = ann.reserve(bid.model_copy(update={"server_name": "x"})).reservation
    answer = hub.start_server("anna", {"reservation": foreign.id})
    assert 400 <= answer.status_code < 500
    assert hub.server("anna") is None
    ann.give_back(foreign.id)


def test_a_full_pool_means_later_and_the_service_starts_it_then(
    hub: RunningHub, ann: EraClient
) -> None:
    """Trap 1: nothing waits inside start(), and the refusal is no failure of the hub."""
    bob = hub.client("bob")
    blocker = bob.submit(
        models.JobRequest(
            configuration="gpu-8",
            duration="20s",
            # What others left in the running slot is free again in the next one.
            deadline=datetime.now(UTC) + timedelta(seconds=40),
            value=50 * MILLION,
            script="import time; time.sleep(60)",
        )
    )
    assert blocker.accepted
    soon = (datetime.now(UTC) + timedelta(minutes=2)).isoformat()
    answer = hub.start_server("ann", options("gpu-1", "1m", latest_start=soon))
    assert 400 <= answer.status_code < 500
    assert "start" in answer.json()["message"]
    waiting = latest(ann, current=True)
    assert waiting.state is State.ACCEPTED
    assert waiting.start >= blocker.reservation.end
    # The refused spawn was cleaned up by the hub, and the reservation is still there.
    hub.until_ready("ann")
    running = ann.reservation(waiting.id)
    assert running.state is State.ACTIVE
    assert datetime.now(UTC) >= running.start
    # Its time is over a minute later: the service stops it and settles in full.
    hub.until_gone("ann", timeout=90)
    ended = until(lambda: _final(ann, waiting.id), 30)
    assert (ended.state, ended.refunded) == (State.COMPLETED, 0)
    assert "consecutive spawns failed" not in hub.log()


def test_a_warning_before_the_end(hub: RunningHub, ann: EraClient) -> None:
    assert ann.notices() == []
    hub.start_server("ann", options("cpu", "4m"))
    hub.until_ready("ann")
    [notice] = ann.notices()
    assert "ends in" in notice.text
    assert notice.id.endswith("-5")
    stop(hub, "ann")
    hub.start_server("ann", options("cpu", "14m"))
    hub.until_ready("ann")
    assert ann.notices()[0].id.endswith("-15")
    stop(hub, "ann")


def test_giving_back_a_running_notebook_stops_it(hub: RunningHub, ann: EraClient) -> None:
    hub.start_server("ann", options())
    hub.until_ready("ann")
    ann.give_back(latest(ann).id)
    hub.until_gone("ann")


def test_a_notebooks_own_token_may_bid_and_no_more(hub: RunningHub, ann: EraClient) -> None:
    """Trap 5: the server's token holds our scopes, as a subset of its user's."""
    hub.start_server("ann", options("cpu"))
    hub.until_ready("ann")
    environment = hub.environment("ann")
    inside = EraClient(environment["ERA_URL"], environment["JUPYTERHUB_API_TOKEN"])
    with inside:
        me = inside.user()
        assert me.name == "ann"
        assert "custom:era:bid" in me.scopes
        assert not [scope for scope in me.scopes if "admin" in scope or "spawn" in scope]
        assert not [scope for scope in me.scopes if scope.startswith("servers")]
    stop(hub, "ann")


def test_state_holds_the_reservations_id_and_end_only(hub: RunningHub, ann: EraClient) -> None:
    """What else there is to know is asked of the service; the end is for when it is away."""
    hub.start_server("ann", options("gpu-1"))
    found = hub.until_ready("ann")
    reservation = latest(ann)
    assert found["state"]["era_reservation"] == reservation.id
    assert datetime.fromisoformat(found["state"]["era_end"]) == reservation.end
    assert set(found["state"]) == {"pid", "era_reservation", "era_end"}
    stop(hub, "ann")


def test_the_service_killed_and_restarted(hub: RunningHub, ann: EraClient) -> None:
    """Kill -9 while a notebook and a job run: both go on, nothing is charged twice."""
    hub.start_server("ann", options("gpu-2"))
    hub.until_ready("ann")
    # Ends when the test says so, however long the hub takes to restart the service.
    script = (
        "import pathlib, time\n"
        "print('on', flush=True)\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.1)\n"
        "print('over')\n"
    )
    job = ann.submit(
        models.JobRequest(configuration="gpu-3", duration="5m", value=9 * MILLION, script=script)
    ).job
    until(lambda: "on" in ann.log(job.id).text, 30, "the job")
    notebook = latest(ann, kind=models.Kind.NOTEBOOK)
    pid = hub.environment("ann")["ERA_RESERVATION"]
    before = (ann.account(), hub.client("admin").allocation(), ann.market().promised[:60])
    killed = hub.service_pid()
    os.kill(killed, signal.SIGKILL)

    def back() -> bool:
        try:
            return hub.service_pid() != killed and ann.health().status == "ok"
        except Exception:
            return False

    until(back, 90, "the service to be restarted by the hub")
    after = (ann.account(), hub.client("admin").allocation(), ann.market().promised[:60])
    assert after[:2] == before[:2]
    # As time goes by slots fall off the front of the list.
    assert any(after[2][: 60 - gone] == before[2][gone:] for gone in range(40))
    assert hub.environment("ann")["ERA_RESERVATION"] == pid == notebook.id
    (Path(ann.job(job.id).directory) / "go").touch()
    done = until(lambda: _job(ann, job.id), 60, "the job")
    assert (done.state, done.exit_code) == (JobState.SUCCEEDED, 0)
    assert ann.log(job.id).text.split() == ["on", "over"]
    stop(hub, "ann")
    kinds = [entry.kind for entry in ann.account().entries if entry.reservation == job.id]
    assert sorted(kinds) == ["hold", "refund"]


def test_a_cancelled_spawn_gives_back(tmp_path: Path) -> None:
    """Trap 2: a spawn cancelled before anything runs never reaches stop()."""
    # A server that never answers keeps the spawn pending.
    slow = 'c.Spawner.cmd = ["sleep", "600"]'
    with RunningHub(tmp_path, options=FAST, extra=slow) as hub:
        ann = hub.client("ann")
        before = ann.account().balance
        hub.http.post("/users/ann")
        with pytest.raises(httpx.ReadTimeout):
            hub.http.post("/users/ann/server", json=options(), timeout=3)
        held = latest(ann)
        assert held.state is State.ACTIVE
        hub.stop_server("ann")
        ended = until(lambda: _final(ann, held.id), 30, "the release")
        assert ended.state is State.RELEASED
        assert ann.account().balance == before - ended.price + ended.refunded


def test_a_hub_restart_keeps_notebook_and_reservation(tmp_path: Path) -> None:
    keep = "c.JupyterHub.cleanup_servers = False\nc.ConfigurableHTTPProxy.should_start = True"
    with RunningHub(tmp_path, options=FAST, extra=keep) as hub:
        ann = hub.client("ann")
        hub.start_server("ann", options("gpu-2"))
        hub.until_ready("ann")
        before = latest(ann)
        server = psutil.Process(hub.until_ready("ann")["state"]["pid"])
        hub.stop()
        hub.start()
        hub.until_ready("ann")
        assert server.is_running()
        assert hub.client("ann").reservation(before.id).state is State.ACTIVE
        # Stopping it now still settles: the reservation's id was in the saved state.
        stop(hub, "ann")
        assert hub.client("ann").reservation(before.id).state is State.RELEASED


def test_under_a_base_path_with_a_space(tmp_path: Path) -> None:
    with RunningHub(tmp_path, options=FAST, base_path="/space%20word/") as hub:
        ann = hub.client("ann")
        hub.start_server("ann", options("gpu-1"))
        hub.until_ready("ann")
        environment = hub.environment("ann")
        with EraClient(environment["ERA_URL"], environment["JUPYTERHUB_API_TOKEN"]) as inside:
            assert inside.account().name == "ann"
        stop(hub, "ann")
        assert latest(ann).state is State.RELEASED


def _final(client: EraClient, reservation_id: str) -> models.Reservation | None:
    found: models.Reservation = client.reservation(reservation_id)
    return found if found.state.final else None


def _job(client: EraClient, job_id: str) -> models.Job | None:
    found: models.Job = client.job(job_id)
    return found if found.state.final else None
