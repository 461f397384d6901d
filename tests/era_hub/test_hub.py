"""What the service asks of a real hub, with the scopes that it is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from era_extension.cli import main as era
from era_hub import models
from era_hub.hub import Hub, HubError
from era_hub.models import JobState
from tests.running_hub import FAST, RunningHub, until

# The hub gives the service its token at each start; these have one that tests know.
SERVICES = """
scopes = {"like-era": ["servers", "read:users", "list:users"], "blind": ["read:users"]}
for name, held in scopes.items():
    c.JupyterHub.services.append({"name": name, "api_token": f"token-of-{name}"})
    c.JupyterHub.load_roles.append({"name": name, "services": [name], "scopes": held})
# More users than a page of the hub's holds.
c.JupyterHub.api_page_default_limit = 1
c.JupyterHub.allow_named_servers = True
"""
SCRIPT = "import time; print('on', flush=True); time.sleep(600)"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with RunningHub(tmp_path_factory.mktemp("hub"), options=FAST, extra=SERVICES) as running:
        yield running


@pytest.mark.asyncio
async def test_servers_are_listed_with_what_they_were_started_by(hub: RunningHub) -> None:
    options = {"configuration": "cpu", "duration": "10m", "max_price": "1"}
    started = [("ann", ""), ("ann", "lab"), ("bob", "")]
    for user, name in started:
        assert hub.start_server(user, options, name).is_success
    for user, name in started:
        hub.until_ready(user, name)
    asking = Hub(f"{hub.url}hub/api", "token-of-like-era")
    found = await asking.all_servers()
    assert set(found) == set(started)
    for each in found.values():
        assert (each.ready, each.pending, each.options) == (True, None, options)
    assert set(await asking.servers("ann")) == {"", "lab"}
    assert await asking.servers("nobody") == {}
    await asking.close()
    for user, name in started:
        hub.stop_server(user, name)
    for user, name in started:
        hub.until_gone(user, name)


@pytest.mark.asyncio
async def test_a_hub_that_refuses_is_not_ill(hub: RunningHub) -> None:
    asking = Hub(f"{hub.url}hub/api", "token-of-blind")
    with pytest.raises(HubError) as refused:
        await asking.all_servers()
    assert not refused.value.ill
    await asking.close()
    nowhere = Hub("http://127.0.0.1:1/hub/api", "token")
    with pytest.raises(HubError, match="can't be reached") as lost:
        await nowhere.servers("ann")
    assert lost.value.ill
    await nowhere.close()


@pytest.mark.parametrize("by", ["api", "era"])
def test_a_running_job_is_extended(
    hub: RunningHub, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = hub.client("ann")
    request = models.JobRequest(configuration="gpu-1", duration=60, value=50_000_000, script=SCRIPT)
    made = ann.submit(request).job
    assert made is not None
    until(lambda: "on" in ann.log(made.id).text, 30, "the job")
    if by == "api":
        outcome = ann.extend(made.id, models.ExtensionRequest(duration=60, value=50_000_000))
        assert outcome.accepted
    else:
        monkeypatch.setenv("ERA_URL", f"{hub.url}services/era")
        monkeypatch.setenv("ERA_TOKEN", hub.user_token("ann"))
        run: Callable[..., None] = era.main
        run(["extend", made.id[:8], "--duration", "1m", "--value", "50"], standalone_mode=False)
    longer = ann.job(made.id)
    assert longer.state is JobState.RUNNING
    assert (longer.reservation.end - made.reservation.end).total_seconds() == 60
    assert longer.reservation.price > made.reservation.price
    record = Path(longer.directory or "") / ".era" / "status.json"
    end = int(longer.reservation.end.timestamp())
    until(lambda: json.loads(record.read_text())["end"] == end, 30, "the job to know")
    assert [each.id for each in ann.jobs(current=True)] == [made.id]
    ann.cancel_job(made.id)
    until(lambda: ann.job(made.id).state.final, 30, "the end")
