"""A real hub whose notebooks are pods of a real cluster, and the cluster as its API shows it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from tests.cluster import Cluster
from tests.running_hub import until
from tests.running_service import HubBeside

HOST = "10.244.0.1"
"""Where pods reach this machine."""
GPU = "nvidia.com/gpu"
NODES = {"nvidia.com/gpu.product": "FAKE-GPU"}
"""Labels of the nodes whose pods are processes of this machine."""
Pod = dict[str, Any]

# The user `anna` gets a pod that does not fit; a file called `wait-NAME` holds a start there.
CONFIG = """
import asyncio

async def wait_at(name):
    if Path("wait-" + name).exists():
        Path("at-" + name).touch()
        await asyncio.Event().wait()

async def before_pod(spawner, pod):
    await wait_at("claimed")
    if spawner.user.name == "anna":
        pod.spec.containers[0].resources.limits["nvidia.com/gpu"] = "8"
    return pod

async def after_pod(spawner, pod):
    await wait_at("created")

c.KubeSpawner.namespace = "{namespace}"
c.KubeSpawner.cmd = [str(Path(sys.executable).parent / "jupyterhub-singleuser")]
c.KubeSpawner.args = ["--allow-root"]
c.KubeSpawner.image = "none"
c.KubeSpawner.modify_pod_hook = before_pod
c.KubeSpawner.after_pod_created_hook = after_pod
c.EraKubeSpawner.pool = "{namespace}"
c.EraKubeSpawner.pool_selector = {nodes}
c.EraKubeSpawner.deadline_slack = 600
# A start that is not refused soon is answered before the server is ready.
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 2}}
# A server that begins while the hub does waits for it.
c.JupyterHub.init_spawners_timeout = 1
c.Spawner.poll_interval = 2
c.Spawner.environment = {{"JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp"}}
c.Spawner.default_url = "/tree"
c.Spawner.http_timeout = 60
"""


class KubeHub(HubBeside):
    """Start with ``with KubeHub(folder, cluster, namespace) as hub``.

    `extra` is more of its configuration file.
    """

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        namespace: str,
        extra: str = "",
        spawner: str = "era-kube",
    ) -> None:
        self.cluster, self.namespace = cluster, namespace
        extra = CONFIG.format(namespace=namespace, nodes=NODES) + extra
        super().__init__(folder, host=HOST, spawner=spawner, extra=extra)

    @property
    def pods_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def pods(self) -> list[Pod]:
        """All pods of the hub's servers, those that are about to go included."""
        found: list[Pod] = self.cluster.request("GET", self.pods_path)["items"]
        return found

    def pod(self, user: str) -> Pod:
        (found,) = [
            each
            for each in self.pods()
            if each["metadata"]["annotations"]["hub.jupyter.org/username"] == user
        ]
        return found

    def gpus_by_node(self) -> Counter[str]:
        """How many GPUs of each node the scheduler has given to the hub's servers."""
        count: Counter[str] = Counter()
        for pod in self.pods():
            for container in pod["spec"]["containers"]:
                limits = container["resources"].get("limits", {})
                count[pod["spec"]["nodeName"]] += int(limits.get(GPU, 0))
        return count

    def server_process(self, user: str) -> psutil.Process:
        """The user's server, in its pod."""
        for process in psutil.process_iter(["cmdline"]):
            if not any("jupyterhub-singleuser" in part for part in process.info["cmdline"] or ()):
                continue
            found = process.environ()
            if found.get("JUPYTERHUB_USER") == user and self.namespace in found.get("HOME", ""):
                return process
        raise AssertionError(f"no server of {user} runs")

    def environment(self, user: str) -> dict[str, str]:
        """Environment variables of the user's server, in its pod."""
        return self.server_process(user).environ()

    # -- a start that stands still --------------------------------------------------

    def hold(self, at: str) -> None:
        """Let the next start stand still: once it has `claimed`, or its pod is `created`."""
        (self.folder / f"wait-{at}").touch()

    def until_held(self, at: str) -> None:
        until((self.folder / f"at-{at}").exists, 60, f"a start to be {at}; see {self.log()[-999:]}")

    def let_go(self, at: str) -> None:
        """Let all starts go on, except for those that stand still: they never will."""
        for name in (f"wait-{at}", f"at-{at}"):
            (self.folder / name).unlink(missing_ok=True)
