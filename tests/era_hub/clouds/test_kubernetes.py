"""Jobs on a real control plane: other tenants, lost nodes, deleted pods, an API that is away."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from era_hub.clouds.base import (
    CloudError,
    CloudUnavailable,
    JobSpec,
    JobStatus,
    Phase,
)
from era_hub.clouds.kubernetes import objects
from era_hub.clouds.kubernetes.cloud import KubernetesCloud

from .worlds import KubernetesWorld, Proxy

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio]

GPU = "nvidia.com/gpu"
SLEEP = "import time; print('started'); time.sleep(60)"
STATUS_PATCH = {"Content-Type": "application/strategic-merge-patch+json"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


class Machine:
    """A node that nothing runs on: it is what its object says. Others are kept off it."""

    def __init__(self, world: KubernetesWorld, name: str) -> None:
        self.world, self.name = world, f"{name}-{world.pool}"
        self.path = f"/api/v1/nodes/{self.name}"

    async def join(self, resources: dict[str, str]) -> None:
        meta = {"name": self.name, "labels": {"test": self.world.pool}}
        taint = {"key": "test", "value": self.world.pool, "effect": "NoSchedule"}
        body = {"metadata": meta, "spec": {"taints": [taint]}}
        await self.world.ask("POST", "/api/v1/nodes", json=body)
        there = resources | {"pods": "110"}
        await self.report("True", {"allocatable": there, "capacity": there})

    async def report(self, ready: str, more: dict[str, Any] | None = None) -> None:
        status = {"conditions": [{"type": "Ready", "status": ready}], **(more or {})}
        await self.patch("/status", {"status": status}, STATUS_PATCH)

    async def patch(self, sub: str, body: Any, headers: dict[str, str] = MERGE_PATCH) -> None:
        await self.world.ask("PATCH", self.path + sub, json=body, headers=headers)

    async def leave(self) -> None:
        await self.world.ask("DELETE", self.path)

    async def tenant(self, requests: dict[str, str]) -> str:
        """A pod of somebody else on this machine."""
        name = f"tenant-{uuid.uuid4().hex[:8]}"
        container = {"name": "c", "image": "none", "resources": {"limits": requests}}
        spec = {"containers": [container], "nodeName": self.name}
        body = {"metadata": {"name": name}, "spec": spec}
        await self.world.ask("POST", self.world.pods_path, json=body)
        return f"{self.world.pods_path}/{name}"


@pytest_asyncio.fixture
async def machine(kube: KubernetesWorld) -> AsyncIterator[Machine]:
    """A node of a pool of its own, and the cloud that sells it."""
    await kube.cloud.close()
    kube.cloud = await kube.restarted(
        node_selector={"test": kube.pool},
        tolerations=[{"key": "test", "operator": "Exists"}],
    )
    kube.cloud.changed = kube._changed.set
    made = Machine(kube, "machine")
    await made.join({"cpu": "8", "memory": "32Gi", GPU: "8"})
    yield made
    await made.leave()


def on(machine: Machine, **options: Any) -> JobSpec:
    """A job that is planned on a machine, with two of its GPUs."""
    return machine.world.script(
        SLEEP, nodes=(machine.name,), resources={"cpu": "1", "memory": "1Gi", GPU: "2"}, **options
    )


async def sells(world: KubernetesWorld, expected: dict[str, str], *, open: bool = True) -> None:
    """Wait until the cloud sells just this of its only node."""

    async def sold() -> bool:
        return [(dict(each.resources), each.open) for each in world.cloud.nodes] == [
            (expected, open)
        ]

    await world.until(sold)


async def pod_of(world: KubernetesWorld, spec: JobSpec, *, on_node: bool = True) -> dict[str, Any]:
    """The job's pod, once it has a node."""

    async def there() -> dict[str, Any] | None:
        pods = await world.pods(spec)
        return next((p for p in pods if p["spec"].get("nodeName") or not on_node), None)

    return await world.until(there)


async def said_of(world: KubernetesWorld, spec: JobSpec, text: str) -> JobStatus:
    """The status, once its message holds a text."""

    async def told() -> JobStatus | None:
        status = await world.status(spec)
        return status if text in status.message else None

    return await world.until(told)


# What there is


async def test_other_tenants_and_cordons_change_what_is_sold(machine: Machine) -> None:
    world = machine.world
    await sells(world, {"cpu": "8", "memory": str(32 << 30), GPU: "8"})
    tenant = await machine.tenant({"cpu": "500m", "memory": "1Gi", GPU: "3"})
    await sells(world, {"cpu": "7500m", "memory": str(31 << 30), GPU: "5"})
    await machine.patch("", {"spec": {"unschedulable": True}})
    await sells(world, {"cpu": "7500m", "memory": str(31 << 30), GPU: "5"}, open=False)
    await world.ask("DELETE", tenant, json={"gracePeriodSeconds": 0})
    await machine.patch("", {"spec": {"unschedulable": None}})
    await sells(world, {"cpu": "8", "memory": str(32 << 30), GPU: "8"})


async def test_own_pods_take_nothing_from_what_is_sold(machine: Machine) -> None:
    world = machine.world
    await sells(world, {"cpu": "8", "memory": str(32 << 30), GPU: "8"})
    spec = on(machine)
    await world.cloud.start(spec)
    await pod_of(world, spec)
    await machine.tenant({GPU: "1"})
    await sells(world, {"cpu": "8", "memory": str(32 << 30), GPU: "7"})
    share = await world.restarted(node_selector={"test": world.pool}, share=0.5)
    assert [each.resources[GPU] for each in share.nodes] == ["4"]
    guest = await world.restarted(node_selector={"test": world.pool}, share=0.5, preemptible=True)
    assert [each.resources[GPU] for each in guest.nodes] == ["3"]


async def test_a_node_that_is_unwell_for_long_is_lost_and_so_are_its_jobs(
    machine: Machine,
) -> None:
    world = machine.world
    spec = on(machine)
    await world.cloud.start(spec)
    pod = await pod_of(world, spec)
    await machine.report("Unknown")

    async def closed() -> bool:
        return [each.open for each in world.cloud.nodes] in ([False], [])

    await world.until(closed)
    status = await world.ended(spec)
    assert world.cloud.nodes == ()
    message = f"its node {machine.name} was lost"
    assert status == JobStatus(Phase.ENDED, message=message, lost=True)

    async def given_up() -> bool:
        uid = pod["metadata"]["uid"]
        return uid not in {each["metadata"]["uid"] for each in await world.pods(spec)}

    await world.until(given_up)
    await machine.report("True")
    await sells(world, {"cpu": "8", "memory": str(32 << 30), GPU: "8"})
    await world.cloud.start(replace(spec, run=1))
    assert (await pod_of(world, spec))["spec"]["nodeName"] == machine.name
    assert (await world.status(spec)).run == 1


async def test_a_node_that_is_deleted_is_lost(machine: Machine) -> None:
    world = machine.world
    spec = on(machine)
    other = Machine(world, "other")
    await other.join({"cpu": "8", "memory": "32Gi", GPU: "8"})
    spec = replace(spec, nodes=(other.name,))
    await world.cloud.start(spec)
    await pod_of(world, spec)
    await other.leave()
    assert (await world.ended(spec)).lost
    assert [each.name for each in world.cloud.nodes] == [machine.name]


# What a pod meets


async def test_what_a_pod_waits_for_is_told(machine: Machine) -> None:
    world = machine.world
    spec = on(machine)
    await world.cloud.start(spec)
    pod = await pod_of(world, spec)
    path = f"{world.pods_path}/{pod['metadata']['name']}/status"
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "none"'}
    container = {"name": "job", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    body = {"status": {"containerStatuses": [container | {"state": {"waiting": waiting}}]}}
    await world.ask("PATCH", path, json=body, headers=STATUS_PATCH)
    status = await said_of(world, spec, "its image can't be fetched")
    assert (status.phase, status.end) == (Phase.RUNNING, spec.end)
    nowhere = replace(on(machine), nodes=("no-such-node",))
    await world.cloud.start(nowhere)
    await said_of(world, nowhere, "waits for a node: 0/")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            {"reason": "Evicted", "message": "The node was low on resource: memory."},
            JobStatus(
                Phase.ENDED,
                message="evicted from its node: The node was low on resource: memory.",
                lost=True,
            ),
        ),
        (
            {"exit": {"exitCode": 137, "reason": "OOMKilled"}},
            JobStatus(
                Phase.ENDED,
                -9,
                message="killed as it used more memory than it was promised, 1Gi",
            ),
        ),
    ],
)
async def test_what_the_node_did_to_a_pod_is_told(
    machine: Machine, status: dict[str, Any], expected: JobStatus
) -> None:
    world = machine.world
    spec = on(machine)
    await world.cloud.start(spec)
    pod = await pod_of(world, spec)
    container = {"name": "job", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    if ended := status.pop("exit", None):
        status["containerStatuses"] = [container | {"state": {"terminated": ended}}]
    path = f"{world.pods_path}/{pod['metadata']['name']}/status"
    body = {"status": {"phase": "Failed", **status}}
    await world.ask("PATCH", path, json=body, headers=STATUS_PATCH)
    assert await world.ended(spec) == expected


# What others do


async def test_a_pod_that_somebody_deletes_is_lost_and_not_run_again(
    kube: KubernetesWorld,
) -> None:
    spec = kube.script(
        "import time; print('started'); open('runs', 'a').write('x'); time.sleep(60)"
    )
    await kube.cloud.start(spec)
    await kube.said(spec, "started")

    async def order_is_gone() -> bool:
        return not await kube.objects(f"/api/v1/namespaces/{kube.namespace}/secrets", spec)

    await kube.until(order_is_gone)
    pod = await pod_of(kube, spec)
    await kube.ask("DELETE", f"{kube.pods_path}/{pod['metadata']['name']}")
    status = await kube.ended(spec)
    assert (status.message, status.lost) == ("somebody deleted its pod", True)
    (job,) = await kube.objects(kube.jobs_path, spec)
    assert job["spec"]["parallelism"] == 0
    assert (kube.directory(spec) / "runs").read_text() == "x"
    again = await kube.restarted()
    assert await again.status(spec.id, spec.user) == status


async def test_a_job_that_somebody_deletes_is_lost(kube: KubernetesWorld) -> None:
    spec = kube.script(SLEEP)
    await kube.cloud.start(spec)
    await kube.said(spec, "started")
    (job,) = await kube.objects(kube.jobs_path, spec)
    background = {"propagationPolicy": "Background"}
    await kube.ask("DELETE", f"{kube.jobs_path}/{job['metadata']['name']}", params=background)
    status = await kube.ended(spec)
    assert (status.message, status.lost) == ("somebody deleted its Job", True)


async def test_what_is_settled_is_deleted_and_its_log_stays(kube: KubernetesWorld) -> None:
    spec = kube.script("print('done')")
    await kube.run(spec)
    assert await kube.log(spec) == "done\n"
    await kube.cloud.forget(spec.id, spec.user)
    impatient = await kube.restarted(keep_jobs=0)

    async def deleted() -> bool:
        return not await kube.objects(kube.jobs_path, spec)

    await kube.until(deleted)

    async def unknown() -> bool:
        return (await impatient.status(spec.id, spec.user)).phase is Phase.UNKNOWN

    await kube.until(unknown)
    assert await impatient.read_log(spec.id, spec.user, 0, 100) == b"done\n"


async def test_a_start_that_broke_off_is_made_anew_where_the_plan_has_changed(
    kube: KubernetesWorld,
) -> None:
    first, second = await pair(kube)
    spec = kube.script("import os; print(os.environ['NODE_NAME'])", nodes=(first,))
    image = objects.Template(image="none")
    before = replace(spec, nodes=(second,))
    half_done, _ = objects.main_job(
        before, image, kube.namespace, kube.pool, time.time(), indexed=False
    )
    await kube.ask("POST", kube.jobs_path, json=half_done)
    assert await kube.status(spec) == JobStatus(Phase.UNKNOWN)
    await kube.cloud.start(spec)
    assert await kube.ended(spec) == JobStatus(Phase.ENDED, 0)
    assert await kube.log(spec) == f"{first}\n"


# Several pods

MEET = """
    import os, socket
    rank, size = int(os.environ["NODE_RANK"]), int(os.environ["NNODES"])
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank == 0:
        server = socket.create_server(("", address[1]))
        met = sorted(server.accept()[0].recv(100).decode() for _ in range(size - 1))
        print("met", *met)
    else:
        while True:
            try:
                with socket.create_connection(address, 1) as connection:
                    connection.sendall(f"{rank}@{os.environ['NODE_NAME']}".encode())
                break
            except OSError:
                pass
        print("was there")
"""


async def pair(kube: KubernetesWorld) -> tuple[str, str]:
    """Two nodes that run pods."""
    first, second = [each.name for each in kube.cloud.nodes if each.open][:2]
    return first, second


async def test_the_pods_of_a_job_find_each_other_on_their_planned_nodes(
    kube: KubernetesWorld,
) -> None:
    first, second = await pair(kube)
    spec = kube.script(MEET, nodes=(first, second, second), resources={"cpu": "1", GPU: "0"})
    status = await kube.run(spec)
    assert status == JobStatus(Phase.ENDED, 0)
    lines = sorted((await kube.log(spec)).splitlines())
    assert lines == [f"[0] met 1@{second} 2@{second}", "[1] was there", "[2] was there"]


async def test_a_rank_that_fails_ends_the_others(kube: KubernetesWorld) -> None:
    spec = kube.script(
        """
        import os, sys, time
        print("started", flush=True)
        if os.environ["RANK"] == "1":
            sys.exit(5)
        time.sleep(60)
        """,
        nodes=await pair(kube),
    )
    status = await kube.run(spec)
    assert status == JobStatus(Phase.ENDED, 5, message="rank 1: ended with exit code 5")


# Templates


async def test_a_job_is_made_as_the_admin_says(kube: KubernetesWorld) -> None:
    seen: list[JobSpec] = []

    async def modify(spec: JobSpec, job: dict[str, Any]) -> None:
        seen.append(spec)
        job["spec"]["template"]["spec"]["hostname"] = "of-the-hook"
        job["metadata"]["labels"].clear()

    cloud = await kube.restarted(
        image="jobs:1",
        labels={"owner": "{username}"},
        environment={"CLAIM": "{escaped_username} {unknown} ${HOME}", "EPOCHS": "1"},
        job_template={"spec": {"template": {"spec": {"schedulerName": "default-scheduler"}}}},
        modify_job=modify,
    )
    spec = kube.script(SLEEP, user="Änn/../x", environment={"EPOCHS": "7"})
    await cloud.start(spec)
    (job,) = await kube.objects(kube.jobs_path, spec)
    pod = job["spec"]["template"]["spec"]
    assert (seen, pod["hostname"]) == ([spec], "of-the-hook")
    assert job["metadata"]["annotations"]["era.jupyter.org/user"] == "Änn/../x"
    assert job["spec"]["template"]["metadata"]["labels"]["owner"].startswith("nn-x---")
    (container,) = pod["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert env["CLAIM"] == "-c3-84nn-2f-2e-2e-2fx {unknown} ${HOME}"
    assert container["resources"]["limits"] == {GPU: "0"}
    assert "7" not in env.values()


async def test_a_hook_gets_no_more_gpus_than_are_reserved(kube: KubernetesWorld) -> None:
    def greedy(spec: JobSpec, job: dict[str, Any]) -> None:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        container["resources"]["limits"][GPU] = container["resources"]["requests"][GPU] = "8"

    cloud = await kube.restarted(modify_job=greedy)
    spec = kube.script(SLEEP, resources={GPU: "1"})
    with pytest.raises(CloudError, match="8 nvidia.com/gpu instead of the 1"):
        await cloud.start(spec)
    assert not await kube.objects(kube.jobs_path, spec)


# The API server is away


async def test_while_the_api_is_away_nothing_is_said_to_have_ended(
    kube: KubernetesWorld, tmp_path: Path
) -> None:
    proxy = Proxy(kube.cluster, tmp_path)
    await proxy.up()
    cloud: KubernetesCloud = await kube.restarted(kubeconfig=str(proxy.path))
    spec = kube.script(
        """
        import pathlib, time
        print("started")
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
        """
    )
    await cloud.start(spec)
    await kube.said(spec, "started")
    nodes = cloud.nodes
    await proxy.down()
    (kube.directory(spec) / "go").touch()
    assert (await kube.ended(spec)).exit_code == 0  # so says a cloud that can ask
    assert await cloud.status(spec.id, spec.user) == JobStatus(Phase.RUNNING, end=spec.end)
    assert {each.name for each in cloud.nodes} == {each.name for each in nodes}
    late = kube.script(SLEEP)
    for call in (cloud.start(late), cloud.stop(spec.id, spec.user)):
        with pytest.raises(CloudUnavailable):
            await call
    await proxy.up()

    async def caught_up() -> bool:
        return (await cloud.status(spec.id, spec.user)).phase is Phase.ENDED

    await kube.until(caught_up)
    assert await cloud.status(spec.id, spec.user) == JobStatus(Phase.ENDED, 0)
    await cloud.start(late)
    await kube.said(late, "started")
    await cloud.close()
    await proxy.down()


async def test_a_cluster_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(CloudError, match="no cluster is configured"):
        await KubernetesCloud(kubeconfig=str(tmp_path / "none")).open()
    path = tmp_path / "config"
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    cluster = {"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}
    config = {"current-context": "x", "contexts": [context], "clusters": [cluster]}
    path.write_text(yaml.safe_dump(config | {"users": [{"name": "x", "user": {}}]}))
    with pytest.raises(CloudError, match="does not answer"):
        await KubernetesCloud(kubeconfig=str(path)).open()
