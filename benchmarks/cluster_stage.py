"""What the benchmarks on a cluster share: a hub and the market on the cluster of KUBECONFIG.

All of it is real but the GPUs: the control plane, JupyterHub with its pods, the service as
a process of its own, and a namespace that is made for the run and deleted after it. The
cluster must be one made for tests, and should do nothing else meanwhile: pods of others
count as other tenants, whose GPUs are not for sale.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tests.helm.cluster import Cluster
from tests.running_service import RunningService
from tests.spawner.kube_hub import GPU, KubeHub

GRANT = "100000000"
"""Credits of each user: nobody is turned away for lack of them."""

SETTINGS: dict[str, Any] = {
    "EraHub.cloud_class": "era_hub.clouds.kubernetes.cloud.KubernetesCloud",
    "EraHub.rate": 0,
    "EraHub.starting_grant": GRANT,
    "Pool.slot": 10,
    "Pool.horizon": 86_400,
}

HUB = """
c.Authenticator.allowed_users = {{*c.Authenticator.allowed_users, *{users!r}}}
c.JupyterHub.log_level = "WARN"
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.active_server_limit = 0
{extra}
"""


@dataclass
class ClusterStage:
    """A running hub and service, and the users that the hub knows."""

    cluster: Cluster
    namespace: str
    folder: Path
    hub: KubeHub
    service: RunningService
    users: list[str]

    @property
    def pods_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    @property
    def jobs_path(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"


@contextmanager
def open_cluster() -> Iterator[Cluster]:
    """The cluster that KUBECONFIG names."""
    path = os.environ.get("KUBECONFIG")
    if not path:
        raise click.ClickException(
            "no cluster: set KUBECONFIG to that of one made for tests, such as one of kind"
        )
    cluster = Cluster(path)
    try:
        cluster.request("GET", "/version")
        yield cluster
    finally:
        cluster.close()


def gpus_of(cluster: Cluster) -> dict[str, int]:
    """The GPUs of each node on which pods may start."""
    found = {}
    for node in cluster.request("GET", "/api/v1/nodes")["items"]:
        ready = any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in node["status"].get("conditions", ())
        )
        if ready and not node["spec"].get("unschedulable"):
            found[node["metadata"]["name"]] = int(node["status"]["allocatable"].get(GPU, 0))
    return found


def require_gpus(cluster: Cluster, nodes: int, gpus: int) -> None:
    """See to it that there are so many nodes with so many GPUs each."""
    found = gpus_of(cluster)
    if sum(has >= gpus for has in found.values()) < nodes:
        there = ", ".join(f"{name} with {has}" for name, has in found.items()) or "none"
        raise click.ClickException(
            f"this needs {nodes} nodes with {gpus} GPUs each, and the cluster of KUBECONFIG has "
            f"{there}. Start a test control plane with NODES={nodes} GPUS={gpus}, or ask for less"
        )


@contextmanager
def open_stage(
    cluster: Cluster,
    *,
    users: int = 8,
    settings: Mapping[str, Any] | None = None,
    hub: str = "",
    spawner: str = "era-kube",
) -> Iterator[ClusterStage]:
    """A hub with the market in a namespace of its own; both end with it.

    Parameters
    ----------
    cluster : Cluster
    users : int
        Called ``user-00`` and so on; each has credits for whatever is bid for.
    settings : mapping of str to value, optional
        Settings of the service, besides `SETTINGS` and those of the cluster.
    hub : str, optional
        More of the hub's configuration file.
    spawner : str, optional
        Entry point or class of the hub's spawner.
    """
    folder = Path(tempfile.mkdtemp(prefix="era-bench-"))
    namespace = cluster.new_namespace()
    names = [f"user-{number:02d}" for number in range(users)]
    extra = HUB.format(users=set(names), extra=hub)
    place = {
        "KubernetesCloud.kubeconfig": cluster.path,
        "KubernetesCloud.namespace": namespace,
        "KubernetesCloud.pool": namespace,
        "KubernetesCloud.log_directory": str(folder / "logs"),
        "Pool.name": namespace,
    }
    options = {**SETTINGS, **place, **(settings or {})}
    try:
        with (
            KubeHub(folder / "hub", cluster, namespace, extra=extra, spawner=spawner) as running,
            RunningService(running, options=options) as service,
        ):
            yield ClusterStage(cluster, namespace, folder, running, service, names)
    finally:
        cluster.delete_namespace(namespace)
        shutil.rmtree(folder, ignore_errors=True)
