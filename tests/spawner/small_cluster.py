"""What a spawner of pods sees of a cluster: a little of the API, and a kubelet at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.testing import bind_unused_port

Pod = dict[str, Any]
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: small, cluster: {{server: "{url}"}}}}]
contexts: [{{name: small, context: {{cluster: small, user: small}}}}]
users: [{{name: small, user: {{token: none}}}}]
current-context: small
"""


class SmallCluster:
    """Keeps pods by name; all that is asked of it is in `requests`."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.requests: list[str] = []
        self.refuses = 0
        """Status with which new pods are refused; 0 for not at all."""
        self.slow = False
        """Whether new pods stay pending."""
        self.away = False
        """Whether nothing is answered but with an error."""
        self.lost = False
        """Whether the only node is: pods that are deleted politely stay."""
        self.url = ""
        self.events: list[dict[str, Any]] = []
        """All that has happened; a resource's version is how much had happened until then."""
        self.changed = asyncio.Event()
        self.watches = 0
        """Grows when the watches of until now have to end."""

    def listen(self, folder: Path) -> tuple[HTTPServer, Path]:
        """Start to answer; the second result is the path of a kubeconfig."""
        names = r"/api/v1/namespaces/[^/]+/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?"
        server = HTTPServer(web.Application([(names, _Handler, {"cluster": self})]))
        sock, port = bind_unused_port()
        server.add_socket(sock)
        self.url = f"http://127.0.0.1:{port}"
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG.format(url=self.url))
        return server, kubeconfig

    def create(self, pod: Pod) -> Pod:
        pod["metadata"].update(namespace="default", uid=f"uid-{len(self.events)}")
        self.pods[pod["metadata"]["name"]] = pod
        if self.slow:
            pod["status"] = {"phase": "Pending"}
        else:
            self.run(pod)
        self.tell("ADDED", pod)
        return pod

    def run(self, pod: Pod) -> None:
        running = {"ready": True, "restartCount": 0, "image": "", "imageID": "", "state": {}}
        pod["status"] = {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {**running, "name": each["name"]} for each in pod["spec"]["containers"]
            ],
        }

    def delete(self, name: str, grace: int | None) -> Pod:
        pod = self.pods[name]
        if self.lost and grace != 0:
            pod["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
            self.tell("MODIFIED", pod)
        else:
            del self.pods[name]
            self.tell("DELETED", pod)
        return pod

    def lose_node(self) -> None:
        """As the control plane does it: what the kubelet said last of its containers stays."""
        self.lost = True
        for pod in self.pods.values():
            pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
            self.tell("MODIFIED", pod)

    def hang_up(self) -> None:
        """End all watches."""
        self.watches += 1
        self._wake()

    def tell(self, what: str, pod: Pod) -> None:
        pod["metadata"]["resourceVersion"] = str(len(self.events) + 1)
        self.events.append({"type": what, "object": json.loads(json.dumps(pod))})
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class _Handler(web.RequestHandler):
    def initialize(self, cluster: SmallCluster) -> None:
        self.cluster = cluster

    def prepare(self) -> None:
        self.cluster.requests.append(f"{self.request.method} {self.path_kwargs['kind']}")
        if self.cluster.away:
            self.refuse(503)

    def refuse(self, status: int) -> None:
        self.set_status(status)
        self.finish({"kind": "Status", "code": status, "message": "no", "reason": "No"})

    async def get(self, kind: str, name: str | None) -> None:
        cluster = self.cluster
        if not self.get_argument("watch", ""):
            items = list(cluster.pods.values()) if kind == "pods" else []
            version = {"resourceVersion": str(len(cluster.events))}
            self.write({"kind": "List", "metadata": version, "items": items})
            return
        seen, mine = int(self.get_argument("resourceVersion")), cluster.watches
        try:
            await self.flush()
            while mine == cluster.watches:
                for event in cluster.events[seen:] if kind == "pods" else ():
                    self.write(json.dumps(event) + "\n")
                seen = len(cluster.events)
                await self.flush()
                await cluster.changed.wait()
        except StreamClosedError:
            return

    def post(self, kind: str, name: str | None) -> None:
        pod = json.loads(self.request.body)
        if self.cluster.refuses:
            self.refuse(self.cluster.refuses)
        elif pod["metadata"]["name"] in self.cluster.pods:
            self.refuse(409)
        else:
            self.set_status(201)
            self.write(self.cluster.create(pod))

    def delete(self, kind: str, name: str) -> None:
        if name not in self.cluster.pods:
            self.refuse(404)
            return
        grace = self.get_argument("gracePeriodSeconds", None)
        self.write(self.cluster.delete(name, None if grace is None else int(grace)))
