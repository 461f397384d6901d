"""What the chart installs, running: two replicas on PostgreSQL beside a real hub.

Needs a cluster whose pods are processes of this machine, for there is no image. The command
and the place of the configuration, both of which come with image and volume, are replaced;
everything else is as the chart has it: variables, secrets, addresses, probes.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from era_hub.client import EraClient
from era_hub.models import ReservationRequest, micro_credits
from tests.cluster import Cluster
from tests.end_to_end.people import log_in
from tests.postgres import PostgresServer
from tests.running_hub import until
from tests.running_service import HubBeside

from .charts import CHART, POSTGRES, RELEASE, Manifest, Values, manifests, merged, only

pytestmark = [pytest.mark.kubernetes, pytest.mark.postgres, pytest.mark.slow]

HOST = "10.244.0.1"
"""Where pods reach this machine."""

KNOWN = """
for each in c.JupyterHub.services:
    if each["name"] == "era":
        each["url"] = "{url}"
c.EraSpawnerMixin.era_url = "{url}/services/era"
"""
SELECTOR = f"app.kubernetes.io/instance={RELEASE}"
NOWHERE = {"era.jupyter.org/no-such-node": "true"}


class HubOnTheHost(HubBeside):
    """A hub that pods reach, with the service where they are."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, host=HOST)

    def know(self, url: str) -> None:
        with (self.folder / "jupyterhub_config.py").open("a") as file:
            file.write(KNOWN.format(url=url))


@dataclass
class Installed:
    """A release whose pods run."""

    cluster: Cluster
    namespace: str
    hub: HubOnTheHost

    def pods(self) -> list[Manifest]:
        """Those that are not about to go."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        found = self.cluster.request("GET", path, params={"labelSelector": SELECTOR})["items"]
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def probe(self, pod: Manifest, name: str) -> httpx.Response | None:
        """What a kubelet would ask."""
        (container,) = pod["spec"]["containers"]
        port = container["ports"][0]["containerPort"]
        path = container[name]["httpGet"]["path"]
        try:
            return httpx.get(f"http://{pod['status']['podIP']}:{port}{path}", timeout=5)
        except httpx.HTTPError:
            return None

    def healthy(self) -> dict[str, dict[str, Any]] | None:
        """What two replicas of which one leads say of themselves, by pod."""
        pods = [each for each in self.pods() if each["status"]["phase"] == "Running"]
        found = {}
        for pod in pods:
            answer = self.probe(pod, "readinessProbe")
            if answer is not None and answer.status_code == 200:
                found[pod["metadata"]["name"]] = answer.json()
        leads = [each["leads"] for each in found.values()]
        return found if len(pods) == len(found) == 2 and leads.count(True) == 1 else None


@pytest.fixture
def installed(
    place: dict[str, str],
    cluster: Cluster,
    releases: Any,
    namespace: str,
    postgres: PostgresServer,
    tmp_path: Path,
) -> Iterator[Installed]:
    hub = HubOnTheHost(tmp_path / "hub")
    database = postgres.url(postgres.create()).render_as_string(hide_password=False)
    secret(cluster, namespace, "hub", {"hub.services.era.apiToken": hub.service_token})
    secret(cluster, namespace, "era-database", {"url": database})
    simulated = {"simulated_gpus": 8, "system_users": False, "home_root": str(tmp_path / "homes")}
    values: Values = {
        "hub": {"url": f"http://{HOST}:{hub.hub_port}"},
        "config": {
            "EraHub": {"cloud_class": "era_hub.clouds.local.LocalCloud"},
            "LocalCloud": simulated,
        },
        "nodeSelector": NOWHERE,
    }
    release = releases.install(str(CHART), RELEASE, merged(POSTGRES, values))
    run_here(cluster, list(manifests(release["manifest"])), tmp_path / "config", place)
    found = Installed(cluster, namespace, hub)
    until(found.healthy, 60, "two replicas of which one leads")
    with hub_that_knows(found):
        yield found


def secret(cluster: Cluster, namespace: str, name: str, texts: dict[str, str]) -> None:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
    cluster.request("POST", f"/api/v1/namespaces/{namespace}/secrets", json=body)


def run_here(
    cluster: Cluster, objects: list[Manifest], folder: Path, place: dict[str, str]
) -> None:
    """What image and volume do elsewhere."""
    live = cluster.live(only(objects, "ConfigMap"))
    assert live is not None
    folder.mkdir()
    for name, text in live["data"].items():
        (folder / name).write_text(text)
    deployment = only(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    args = [each.replace("/etc/era-hub", str(folder)) for each in container["args"]]
    assert args != container["args"]
    command = [sys.executable, "-m", "era_hub"]
    pod = {
        "nodeSelector": {**dict.fromkeys(NOWHERE), **place},
        "containers": [{"name": container["name"], "command": command, "args": args}],
    }
    cluster.request(
        "PATCH",
        f"{cluster.collection(deployment)}/{deployment['metadata']['name']}",
        headers={"Content-Type": "application/strategic-merge-patch+json"},
        json={"spec": {"template": {"spec": pod}}},
    )


def hub_that_knows(found: Installed) -> HubOnTheHost:
    # There is no Service without a network of the cluster's: the hub knows one of the pods.
    pod = found.pods()[0]
    found.hub.know(f"http://{pod['status']['podIP']}:8080")
    return found.hub


def bid() -> ReservationRequest:
    later = datetime.now(UTC) + timedelta(hours=1)
    return ReservationRequest(
        configuration="gpu-1",
        duration="10m",
        value=micro_credits("9"),
        server_name="",
        arrival=later,
        deadline=later + timedelta(hours=20),
    )


def test_the_market_is_open_whatever_happens_to_the_hub_and_to_a_replica(
    installed: Installed,
) -> None:
    hub, pods = installed.hub, installed.pods()
    for pod in pods:
        for probe in ("startupProbe", "livenessProbe"):
            answer = installed.probe(pod, probe)
            assert answer is not None and answer.status_code == 200
    health = installed.healthy()
    assert health is not None
    (leader,) = [each for each in pods if health[each["metadata"]["name"]]["leads"]]
    (follower,) = [each for each in pods if each is not leader]
    followed = health[follower["metadata"]["name"]]["follows"]
    assert followed == f"http://{leader['status']['podIP']}:8080"

    # People come through the hub's proxy, and log in with the hub.
    with log_in(hub, "ann") as browser:
        page = browser.get("services/era/")
        assert page.status_code == 200 and str(page.url).endswith("/services/era/"), page.text
    ann = hub.client("ann")
    assert ann.market().capacity[0] == 8

    # What only the one can do, the other passes on.
    url = f"http://{follower['status']['podIP']}:8080/services/era"
    with EraClient(url, hub.user_token("ann")) as through_follower:
        assert through_follower.reserve(bid()).accepted
    assert len(ann.reservations()) == 1

    # The hub comes and goes; the service stays.
    hub.stop()
    assert installed.healthy() == health
    hub.start()
    assert len(ann.reservations()) == 1
    assert {each["metadata"]["uid"] for each in installed.pods()} == {
        each["metadata"]["uid"] for each in pods
    }

    # A node is drained: the other one writes, and there will be two again.
    name = leader["metadata"]["name"]
    path = f"/api/v1/namespaces/{installed.namespace}/pods/{name}"
    installed.cluster.request("DELETE", path)

    def replaced() -> bool:
        now = installed.healthy()
        return now is not None and name not in now and now[follower["metadata"]["name"]]["leads"]

    until(replaced, 60, "the follower to lead, and another to follow")
    with EraClient(url, hub.user_token("ann")) as through_leader:
        assert len(through_leader.reservations()) == 1
