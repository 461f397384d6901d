"""EraKubeSpawner on a real control plane: hub, service and pods are real."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from era_hub.client import EraClient
from era_hub.models import Kind, Reservation, State
from tests.cluster import Cluster
from tests.running_hub import FAST, until
from tests.running_service import RunningService

from .kube_hub import GPU, NODES, KubeHub

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

CONFIGURATIONS = [
    {"name": "cpu", "resources": {GPU: "0", "cpu": "500m", "memory": "1Gi"}},
    {"name": "gpu-2", "resources": {GPU: "2", "cpu": "2", "memory": "4Gi"}},
]


@pytest.fixture(scope="module")
def hub(process_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeHub]:
    namespace = process_cluster.new_namespace()
    try:
        with KubeHub(tmp_path_factory.mktemp("kube"), process_cluster, namespace) as running:
            yield running
    finally:
        process_cluster.delete_namespace(namespace)


@pytest.fixture(scope="module")
def market(hub: KubeHub) -> Iterator[EraClient]:
    """The service that hub and pods use, to which the tests go as the spawner does."""
    options = {
        **FAST,
        "EraHub.lease": 15,
        "EraHub.cloud_class": "era_hub.clouds.kubernetes.cloud.KubernetesCloud",
        "KubernetesCloud.kubeconfig": hub.cluster.path,
        "KubernetesCloud.namespace": hub.namespace,
        "KubernetesCloud.pool": hub.namespace,
        "KubernetesCloud.node_selector": NODES,
        "KubernetesCloud.log_directory": str(hub.folder / "logs"),
        "Pool.configurations": CONFIGURATIONS,
    }
    with RunningService(hub, options=options) as service:
        yield service.client_with(hub.spawner_token)


@pytest.fixture(autouse=True)
def _nothing_runs_before(hub: KubeHub, market: EraClient) -> Iterator[None]:
    yield
    for user in ("ann", "bob", "anna"):
        hub.stop_server(user)
    until(lambda: not hub.pods(), 60, "all pods to be gone")


def bid(configuration: str = "gpu-2", duration: str = "30m", **others: Any) -> dict[str, Any]:
    return {"configuration": configuration, "duration": duration, "max_price": "90", **others}


def mine(market: EraClient, user: str) -> list[Reservation]:
    """The user's reservations that are not over."""
    found: list[Reservation] = market.reservations(user=user, current=True, kind=Kind.NOTEBOOK)
    return found


def test_two_users_have_what_they_reserved_and_as_long(hub: KubeHub, market: EraClient) -> None:
    assert hub.start_server("ann", bid()).status_code in (201, 202)
    assert hub.start_server("bob", bid("cpu", "30s")).status_code in (201, 202)
    hub.until_ready("ann")
    hub.until_ready("bob")
    (reserved,) = mine(market, "ann")
    assert reserved.state is State.ACTIVE
    pod = hub.pod("ann")
    marks = {"reservation": reserved.id, "pool": hub.namespace, "kind": "notebook"}
    labels = {name.partition("/")[2]: text for name, text in pod["metadata"]["labels"].items()}
    assert marks.items() <= labels.items()
    assert [pod["spec"]["nodeName"]] == reserved.nodes
    left = (reserved.end - datetime.now(UTC)).total_seconds()
    assert left < pod["spec"]["activeDeadlineSeconds"] < left + 700
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"] == resources["requests"]
    assert resources["limits"] == {GPU: "2", "cpu": "2", "memory": str(4 * 2**30)}
    assert hub.gpus_by_node()[reserved.nodes[0]] == 2

    shown = hub.environment("ann")
    assert len(set(shown["NVIDIA_VISIBLE_DEVICES"].split(","))) == 2
    assert shown["ERA_RESERVATION"] == reserved.id
    assert shown["ERA_URL"].startswith("http://10.244.0.1:")
    without = hub.environment("bob")
    assert (without["NVIDIA_VISIBLE_DEVICES"], without["CUDA_VISIBLE_DEVICES"]) == ("none", "")
    assert hub.pod("bob")["spec"]["containers"][0]["resources"]["limits"][GPU] == "0"

    hub.stop_server("ann")
    hub.until_gone("ann")
    until(lambda: sum(hub.gpus_by_node().values()) == 0, 30, "the GPUs to be free")
    assert market.reservation(reserved.id).state is State.RELEASED

    hub.until_gone("bob")
    until(lambda: not hub.pods(), 30, "the end of the pod")
    ended = until(lambda: _ended(market, without["ERA_RESERVATION"]), 30, "the end")
    assert ended.state is State.COMPLETED and ended.end <= datetime.now(UTC)


def _ended(market: EraClient, reservation_id: str) -> Reservation | None:
    found: Reservation = market.reservation(reservation_id)
    return found if found.state.final else None


def test_a_pod_that_does_not_fit_is_never_created(hub: KubeHub, market: EraClient) -> None:
    answer = hub.start_server("anna", bid())
    assert answer.status_code == 409, answer.text
    assert "takes 8 of nvidia.com/gpu, and its reservation has 2" in answer.json()["message"]
    assert hub.pods() == [] and mine(market, "anna") == []
    (given_back,) = market.reservations(user="anna")
    assert given_back.refunded > 0


def test_a_hub_that_dies_before_there_is_a_pod(hub: KubeHub, market: EraClient) -> None:
    hub.hold("claimed")
    hub.start_server("ann", bid())
    hub.until_held("claimed")
    (first,) = mine(market, "ann")
    assert first.state is State.ACTIVE
    hub.kill()
    hub.let_go("claimed")
    hub.start()
    # Whoever comes back at once need not wait for the lease, nor pay twice.
    assert hub.server("ann") is None and hub.pods() == []
    hub.start_server("ann", bid())
    hub.until_ready("ann")
    assert market.reservation(first.id).state is State.RELEASED
    (second,) = mine(market, "ann")
    assert hub.pod("ann")["metadata"]["labels"]["era.jupyter.org/reservation"] == second.id


def test_a_hub_that_dies_while_the_pod_begins(hub: KubeHub, market: EraClient) -> None:
    hub.hold("created")
    hub.start_server("ann", bid())
    hub.until_held("created")
    (reserved,) = mine(market, "ann")
    hub.kill()
    hub.let_go("created")
    hub.start()
    hub.until_ready("ann")
    assert mine(market, "ann") == [market.reservation(reserved.id)]
    assert hub.pod("ann")["metadata"]["labels"]["era.jupyter.org/reservation"] == reserved.id
    # It knows whose reservation it is: stopped, it is given back.
    hub.stop_server("ann")
    hub.until_gone("ann")
    assert market.reservation(reserved.id).state is State.RELEASED
    assert hub.pods() == []


def test_a_hub_that_dies_while_the_server_runs(hub: KubeHub, market: EraClient) -> None:
    hub.start_server("ann", bid())
    hub.until_ready("ann")
    (reserved,) = mine(market, "ann")
    uid = hub.pod("ann")["metadata"]["uid"]
    hub.kill()
    hub.start()
    hub.until_ready("ann")
    pod = hub.pod("ann")["metadata"]
    assert pod["uid"] == uid
    # And it goes on looking after it: somebody deletes the pod.
    path = f"{hub.pods_path}/{pod['name']}"
    hub.cluster.request("DELETE", path, json={"gracePeriodSeconds": 0})
    hub.until_gone("ann")
    ended = until(lambda: _ended(market, reserved.id), 30, "the reservation to be given back")
    assert ended.state is State.RELEASED
