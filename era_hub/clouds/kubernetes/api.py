"""A thin client of the Kubernetes API: plain dictionaries, streams, errors in words.

`kubernetes_asyncio` finds the cluster and authenticates. Its models are left out:
reading ten thousand pods into them would take longer than everything else here.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from kubernetes_asyncio import client, config

Json = dict[str, Any]

CALL_SECONDS = 20.0  # for a call that is answered at once
SILENCE_SECONDS = 100.0  # a watch speaks at least once a minute, by its bookmarks
TRANSIENT = frozenset((0, 401, 408, 429, 500, 502, 503, 504))
STATUS_BYTES = 1 << 16  # of an error that are read

JSON_TYPE = "application/json"
MERGE_PATCH = "application/merge-patch+json"


class ApiError(Exception):
    """The API said no, or nothing at all.

    Attributes
    ----------
    status : int
        HTTP status; 0 if there was no answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether the same call may well work later."""
        return self.status in TRANSIENT


class Api:
    """Connections to one API server."""

    def __init__(self, configuration: client.Configuration) -> None:
        configuration.connection_pool_maxsize = 500  # logs that are followed hold one each
        self._client = client.ApiClient(configuration)
        self.server = configuration.host

    @classmethod
    async def connect(cls, kubeconfig: str, context: str) -> tuple[Api, str]:
        """Connect as a kubeconfig says, or from inside a pod; with the namespace meant there.

        Raises
        ------
        ApiError
            If there is neither.
        """
        found = client.Configuration()
        kubeconfig = kubeconfig or os.environ.get("KUBECONFIG", "")
        try:
            if not kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=found)
                return cls(found), _own_namespace()
            loader = await config.load_kube_config(
                kubeconfig or None, context=context or None, client_configuration=found
            )
            context_found: Json = loader.current_context or {"context": {}}
            namespace = context_found["context"].get("namespace")
            return cls(found), namespace or "default"
        except (config.ConfigException, OSError, KeyError, TypeError) as error:
            where = kubeconfig or "the default kubeconfig"
            raise ApiError(0, f"no cluster is configured ({where}): {error}") from None

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = JSON_TYPE,
        **query: Any,
    ) -> Json:
        """One request; the object that is answered."""
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        async with self._request(method, path, body, content_type, query, timeout) as response:
            return json.loads(await response.read() or b"{}")

    async def get(self, path: str, **query: Any) -> Json:
        """Read an object or a list."""
        return await self.call("GET", path, **query)

    async def create(self, path: str, body: Json, **query: Any) -> Json:
        """Create an object; the answer is the object as stored."""
        return await self.call("POST", path, body, **query)

    async def patch(self, path: str, body: Json) -> Json:
        """Change the given fields."""
        return await self.call("PATCH", path, body, content_type=MERGE_PATCH)

    async def delete(self, path: str, **options: object) -> None:
        """Delete an object; one that is gone already is fine."""
        try:
            await self.call("DELETE", path, {"propagationPolicy": "Background"} | options)
        except ApiError as error:
            if error.status != 404:
                raise

    async def stream(
        self, path: str, *, silence: float | None = SILENCE_SECONDS, **query: object
    ) -> AsyncGenerator[bytes, None]:
        """Pieces of an answer as they come; none for `silence` seconds is an error."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS, sock_read=silence)
        async with self._request("GET", path, None, JSON_TYPE, query, timeout) as response:
            async for piece in response.content.iter_any():
                yield piece

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.close()

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        body: object,
        content_type: str,
        query: Mapping[str, object],
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        response = None
        try:
            response = await self._client.call_api(
                path,
                method,
                query_params=[(key, value) for key, value in query.items() if value is not None],
                header_params={"Accept": "*/*", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=timeout,
            )
            if response.status >= 300:
                raise _refusal(response.status, await response.content.read(STATUS_BYTES))
            yield response
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            what = str(error) or type(error).__name__
            raise ApiError(0, f"the Kubernetes API does not answer: {what}") from error
        finally:
            if response is not None:
                response.close()  # also what is not read to its end, such as a watch


def _refusal(status: int, body: bytes) -> ApiError:
    text = body.decode(errors="replace")
    try:
        text = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        text = text.strip()[:300]
    return ApiError(status, text or f"the Kubernetes API answered with status {status}")


def _own_namespace() -> str:
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:  # noqa: PTH123
        return file.read().strip()
