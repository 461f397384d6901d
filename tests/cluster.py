"""The cluster that KUBECONFIG names: plain requests to its API server."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx
from kubernetes_asyncio import client, config

Manifest = dict[str, Any]
PATIENCE = 120.0
"""Seconds to wait for what the cluster does by itself."""


class Cluster:
    """A connection with the rights of the kubeconfig's user, or of another in its name."""

    def __init__(self, path: str) -> None:
        self.path = path
        found = client.Configuration()
        asyncio.run(config.load_kube_config(path, client_configuration=found))
        context = ssl.create_default_context(cafile=found.ssl_ca_cert)
        if not found.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if found.cert_file:
            context.load_cert_chain(found.cert_file, found.key_file)
        token = found.api_key.get("BearerToken")
        headers = {"Authorization": token} if token else {}
        self._http = httpx.Client(base_url=found.host, verify=context, headers=headers, timeout=60)

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """What the API server answers; an error if it refuses."""
        answer = self._http.request(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def get(self, path: str) -> dict[str, Any] | None:
        """An object; None if it is not there."""
        answer = self._http.get(path)
        if answer.status_code == 404:
            return None
        assert answer.is_success, f"{path}: {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def collection(self, manifest: Manifest) -> str:
        """The path below which objects like this one are."""
        version = manifest["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        (kind,) = [
            each
            for each in self.request("GET", root)["resources"]
            if each["kind"] == manifest["kind"] and "/" not in each["name"]
        ]
        if not kind["namespaced"]:
            return f"{root}/{kind['name']}"
        return f"{root}/namespaces/{manifest['metadata']['namespace']}/{kind['name']}"

    def live(self, manifest: Manifest) -> dict[str, Any] | None:
        """The object that a manifest made; None if it is not there."""
        return self.get(f"{self.collection(manifest)}/{manifest['metadata']['name']}")

    def try_out(self, manifest: Manifest) -> dict[str, Any]:
        """What the API server would make of a manifest, if it is applied as Helm does."""
        return self.request(
            "PATCH",
            f"{self.collection(manifest)}/{manifest['metadata']['name']}",
            params={"dryRun": "All", "fieldManager": "helm"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            json=manifest,
        )

    def may(self, user: str, verb: str, namespace: str, kind: str) -> bool:
        """Whether a user may do something; `kind` is a resource, or ``group/resource``."""
        group, _, resource = kind.rpartition("/") if "/log" not in kind else ("", "", kind)
        resource, _, sub = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": resource, "subresource": sub}
        review = self.request(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            headers={"Impersonate-User": user},
            json={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {**attributes, "namespace": namespace}},
            },
        )
        return bool(review["status"]["allowed"])

    def process_nodes(self) -> list[dict[str, Any]]:
        """The ready nodes whose pods are processes of this machine, and so need no images."""
        ready = {"type": "Ready", "status": "True"}
        return [
            node
            for node in self.request("GET", "/api/v1/nodes")["items"]
            if any(ready.items() <= each.items() for each in node["status"]["conditions"])
            and node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("process://")
        ]

    def new_namespace(self) -> str:
        """A namespace for one run of tests."""
        name = f"era-test-{secrets.token_hex(4)}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self.request("POST", "/api/v1/namespaces", json=body)
        return name

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace with all that is in it; it goes on in the background."""
        self.request("DELETE", f"/api/v1/namespaces/{name}")

    def events(self, path: str, version: str, seconds: int = 300) -> Iterator[dict[str, Any]]:
        """What the API server tells of a collection from a version on, for so long."""
        params = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        with self._http.stream("GET", path, params=params, timeout=seconds + 10) as stream:
            for line in stream.iter_lines():
                yield json.loads(line)

    def wait_for(self, path: str, condition: Any, selector: str = "") -> list[dict[str, Any]]:
        """Watch a collection until all that is in it meets a condition; return what is in it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            page = self.request("GET", path, params={"labelSelector": selector})
            items: list[dict[str, Any]] = page["items"]
            if condition(items):
                return items
            left = deadline - time.monotonic()
            assert left > 0, f"{path} still is {items}"
            params = {
                "labelSelector": selector,
                "watch": "1",
                "resourceVersion": page["metadata"]["resourceVersion"],
                "timeoutSeconds": str(max(1, round(left))),
            }
            with self._http.stream("GET", path, params=params, timeout=left + 10) as stream:
                next(stream.iter_lines(), None)
