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
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import click
import httpx

from tests.cluster import Cluster
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
# Pods of any other pool count as those of other tenants.
c.EraKubeSpawner.pool = {pool!r}
{extra}
"""


@dataclass
class ClusterStage:
    """A running hub and service, and the users that the hub knows."""

    cluster: Cluster
    namespace: str
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
def open_hub(
    cluster: Cluster, users: int, config: str = "", spawner: str = "era-kube"
) -> Iterator[KubeHub]:
    """A hub without its market, in a namespace of its own; both end with it.

    Parameters
    ----------
    cluster : Cluster
    users : int
        See `names`.
    config : str, optional
        More of the hub's configuration file.
    spawner : str, optional
        Entry point or class of the hub's spawner.
    """
    folder = Path(tempfile.mkdtemp(prefix="era-bench-"))
    namespace = cluster.new_namespace()
    extra = HUB.format(users=set(names(users)), pool=namespace, extra=config)
    try:
        with KubeHub(folder / "hub", cluster, namespace, extra=extra, spawner=spawner) as hub:
            yield hub
    finally:
        cluster.delete_namespace(namespace)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_stage(
    cluster: Cluster,
    *,
    users: int = 8,
    settings: Mapping[str, Any] | None = None,
    hub: str = "",
) -> Iterator[ClusterStage]:
    """A hub with the market in a namespace of its own; both end with it.

    Parameters
    ----------
    cluster : Cluster
    users : int
        See `names`; each has credits for whatever is bid for.
    settings : mapping of str to value, optional
        Settings of the service, besides `SETTINGS` and those of the cluster.
    hub : str, optional
        More of the hub's configuration file.
    """
    with open_hub(cluster, users, hub) as running:
        place = {
            "KubernetesCloud.kubeconfig": cluster.path,
            "KubernetesCloud.namespace": running.namespace,
            "KubernetesCloud.pool": running.namespace,
            "KubernetesCloud.log_directory": str(running.folder / "logs"),
            "Pool.name": running.namespace,
        }
        options = {**SETTINGS, **place, **(settings or {})}
        with RunningService(running, options=options) as service:
            yield ClusterStage(cluster, running.namespace, running, service, names(users))


def names(users: int) -> list[str]:
    """So many users: ``user-00``, ``user-01`` and so on."""
    return [f"user-{number:02d}" for number in range(users)]


@dataclass
class PodTimes:
    """When a pod ran: as its node reports it, in whole seconds, and when that was told here."""

    reservation: str
    gpus: int
    node: str = ""
    started: float | None = None
    finished: float | None = None
    told_started: float | None = None
    told_finished: float | None = None


class PodWatch(Thread):
    """Remembers when the pods of a namespace ran. Use it as ``with PodWatch(stage) as pods``."""

    def __init__(self, stage: ClusterStage) -> None:
        super().__init__(daemon=True)
        self.cluster, self.path = stage.cluster, stage.pods_path
        self.pods: dict[str, PodTimes] = {}
        self._over = Event()
        self._version = ""
        self._list()

    def __enter__(self) -> PodWatch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    @property
    def finished(self) -> int:
        """How many have ended."""
        return sum(each.finished is not None for each in list(self.pods.values()))

    def run(self) -> None:
        while not self._over.is_set():
            try:
                for event in self.cluster.events(self.path, self._version, seconds=5):
                    if event["type"] == "ERROR":  # the version is too old to go on from
                        self._list()
                        break
                    self._see(event["object"])
            except httpx.HTTPError:
                time.sleep(0.5)

    def _list(self) -> None:
        page = self.cluster.request("GET", self.path)
        for pod in page["items"]:
            self._see(pod)
        self._version = page["metadata"]["resourceVersion"]

    def _see(self, pod: dict[str, Any]) -> None:
        meta, now = pod["metadata"], time.time()
        self._version = meta["resourceVersion"]
        known = self.pods.setdefault(
            meta["uid"],
            PodTimes(meta.get("labels", {}).get("era.jupyter.org/reservation", ""), _gpus(pod)),
        )
        known.node = pod["spec"].get("nodeName", "")
        for container in pod["status"].get("containerStatuses", ()):
            running, ended = (container["state"].get(each) for each in ("running", "terminated"))
            if (running or ended) and known.started is None:
                known.started, known.told_started = _seconds((running or ended)["startedAt"]), now
            if ended and known.finished is None:
                known.finished, known.told_finished = _seconds(ended["finishedAt"]), now


def _gpus(pod: dict[str, Any]) -> int:
    limits = [each.get("resources", {}).get("limits", {}) for each in pod["spec"]["containers"]]
    return sum(int(each.get(GPU, 0)) for each in limits)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
