"""All of it on a real control plane: two users, pods with their GPUs, a Job, and right books."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from era_hub.client import EraClient
from era_hub.client.admin import AdminClient
from era_hub.models import JobState, Kind, State
from tests.cluster import Cluster
from tests.running_hub import FAST, until
from tests.running_service import RunningService
from tests.spawner.kube_hub import GPU, KubeHub

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

SOLD = [
    {"name": "cpu", "resources": {GPU: "0", "cpu": "500m", "memory": "1Gi"}},
    {"name": "gpu-1", "resources": {GPU: "1", "cpu": "1", "memory": "2Gi"}},
    {"name": "gpu-2", "resources": {GPU: "2", "cpu": "2", "memory": "4Gi"}},
]
SCRIPT = """
import os, time
print("GPUs", os.environ["NVIDIA_VISIBLE_DEVICES"], flush=True)
for step in range(3):
    time.sleep(0.5)
    print(f"{(step + 1) * 100 // 3}%|###| {step + 1}/3", flush=True)
"""


@pytest.fixture(scope="module")
def hub(process_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeHub]:
    namespace = process_cluster.new_namespace()
    try:
        with KubeHub(tmp_path_factory.mktemp("cluster"), process_cluster, namespace) as running:
            yield running
    finally:
        process_cluster.delete_namespace(namespace)


@pytest.fixture(scope="module")
def service(hub: KubeHub) -> Iterator[RunningService]:
    options = {
        **FAST,
        "EraHub.cloud_class": "era_hub.clouds.kubernetes.cloud.KubernetesCloud",
        "EraHub.lease": 15,
        "EraHub.grace": 2,
        "KubernetesCloud.kubeconfig": hub.cluster.path,
        "KubernetesCloud.namespace": hub.namespace,
        "KubernetesCloud.pool": hub.namespace,
        "KubernetesCloud.node_patience": 2.0,
        "Pool.configurations": SOLD,
        "Pool.name": hub.namespace,
    }
    with RunningService(hub, options=options) as running:
        yield running


@pytest.fixture(scope="module")
def market(hub: KubeHub, service: RunningService) -> EraClient:
    return service.client_with(hub.spawner_token)


def bid(configuration: str, duration: str = "30m") -> dict[str, Any]:
    return {"configuration": configuration, "duration": duration, "max_price": "90"}


def inside(hub: KubeHub, user: str, *command: str) -> Any:
    """What a command of the notebook side prints, run in the pod of a user's server."""
    server = hub.server_process(user)
    environment = server.environ()
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{server.pid}/ns/net", *command],
        env=environment,
        cwd=environment["HOME"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pods_of(cluster: Cluster, namespace: str, label: str) -> list[dict[str, Any]]:
    path = f"/api/v1/namespaces/{namespace}/pods"
    found: list[dict[str, Any]] = cluster.request("GET", path, params={"labelSelector": label})[
        "items"
    ]
    return found


def test_a_day_on_the_cluster(
    hub: KubeHub, service: RunningService, market: EraClient, cluster: Cluster
) -> None:
    # Two users have notebooks, each with its own GPUs on its own node.
    hub.start_server("ann", bid("gpu-2"))
    hub.start_server("bob", bid("gpu-1", "60s"))
    for user in ("ann", "bob"):
        hub.until_ready(user)
    held = {
        user: market.reservations(user=user, current=True, kind=Kind.NOTEBOOK)[0]
        for user in ("ann", "bob")
    }
    for user, reserved in held.items():
        pod = hub.pod(user)
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert limits[GPU] == str(reserved.units)
        assert [pod["spec"]["nodeName"]] == reserved.nodes

    # From inside a notebook ann sends a job to the background.
    home = Path(hub.environment("ann")["HOME"])
    (home / "train.py").write_text(SCRIPT)
    said = inside(
        hub, "ann", str(Path(sys.executable).parent / "era"), "submit", "--json", "train.py",
        *("--gpus", "2", "--duration", "60s", "--deadline", "+1h", "--value", "50"),
    )  # fmt: skip
    ann = service.client("ann")

    def over() -> bool:
        return bool(ann.job(said["id"]).state.final)

    def started() -> list[dict[str, Any]]:
        return pods_of(cluster, hub.namespace, f"era.jupyter.org/reservation={said['id']}")

    (pod,) = until(started, 30, "the job's pod")
    assert pod["spec"]["containers"][0]["resources"]["limits"][GPU] == "2"
    until(over, 60, f"the end of the job; {ann.job(said['id'])}; see {service.log()[-3000:]}")
    job = ann.job(said["id"])
    assert (job.state, job.exit_code) == (JobState.SUCCEEDED, 0), job.message
    log = ann.log(job.id).text
    assert len(log.split("GPUs ")[1].split("\n")[0].split(",")) == 2

    # Ann gives the rest of her time back, bob's runs out.
    hub.stop_server("ann")
    hub.until_gone("ann")
    released = until(lambda: _ended(market, held["ann"].id), 30, "ann's release")
    assert (released.state, released.refunded > 0) == (State.RELEASED, True)
    hub.until_gone("bob", timeout=90)
    expired = until(lambda: _ended(market, held["bob"].id), 30, "bob's end")
    assert expired.state is State.COMPLETED
    assert datetime.now(UTC) >= expired.end
    left = pods_of(cluster, hub.namespace, "era.jupyter.org/kind=notebook")
    assert [each for each in left if "deletionTimestamp" not in each["metadata"]] == []

    admin = AdminClient(f"{service.url}", hub.user_token("admin"))
    assert admin.books().findings == []
    for user in ("ann", "bob"):
        paid = sum(each.price - each.refunded for each in market.reservations(user=user, limit=100))
        assert service.client(user).account().balance == 100_000_000 - paid


def _ended(market: EraClient, reservation_id: str) -> Any:
    found = market.reservation(reservation_id)
    return found if found.state.final else None
