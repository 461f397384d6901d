"""The two clients: synchronous for notebooks and shells, asynchronous for servers."""

from __future__ import annotations

import os
from typing import Any

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from .calls import Calls, EraError

TIMEOUT = 30.0

PAGE = 1000
"""Most items on a page of a list."""

Memory = dict[str, tuple[str, bytes]]
"""The last answers by path, each with its ETag."""


def discover(url: str | None = None, token: str | None = None) -> tuple[str, str]:
    """The service's URL and a token, from the arguments or the environment.

    Inside a notebook of the hub both are found without help: the spawner sets
    ``ERA_URL``, and the token is the notebook's own. Elsewhere set ``ERA_URL``
    to ``https://<hub>/services/era`` and ``ERA_TOKEN`` to a token from the hub's
    token page.

    Raises
    ------
    EraError
        If the URL or the token is missing, saying which and how to set it, or if the
        token can't be one.
    """
    url = url or os.environ.get("ERA_URL") or ""
    token = token or os.environ.get("ERA_TOKEN") or os.environ.get("JUPYTERHUB_API_TOKEN") or ""
    url, token = url.strip(), token.strip()  # a file they come from may end with a line break
    if not url:
        raise EraError(
            "Where is the market? Set ERA_URL to https://<your hub>/services/era "
            "(it is set by itself in notebooks started through ERA Hub)."
        )
    if not token:
        raise EraError(
            "No token: set ERA_TOKEN to a token from your hub's token page (/hub/token)."
        )
    if not (token.isascii() and token.isprintable()):
        # The HTTP library would refuse it too, and show it in its error.
        raise EraError("The token holds characters that no token has; copy it once more.")
    return url.rstrip("/"), token


class EraClient(Calls):
    """Synchronous client; every method returns its answer.

    Parameters
    ----------
    url, token : str, optional
        See `discover`.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        base, token = discover(url, token)
        self._http = httpx.Client(**_settings(base, token))
        self._memory: Memory = {}

    def _call(self, method: str, path: str, answer: Any, **options: Any) -> Any:
        exchange = _Exchange(self._memory, path, answer, **options)
        while not exchange.done:
            try:
                response = self._http.request(method, path, **exchange.request)
            except httpx.HTTPError as error:
                raise _unreachable(error, self._http.base_url) from error
            exchange.take(response)
        return exchange.result

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> EraClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEraClient(Calls):
    """Asynchronous client; every method returns an awaitable of its answer."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        base, token = discover(url, token)
        self._http = httpx.AsyncClient(**_settings(base, token))
        self._memory: Memory = {}

    async def _call(self, method: str, path: str, answer: Any, **options: Any) -> Any:
        exchange = _Exchange(self._memory, path, answer, **options)
        while not exchange.done:
            try:
                response = await self._http.request(method, path, **exchange.request)
            except httpx.HTTPError as error:
                raise _unreachable(error, self._http.base_url) from error
            exchange.take(response)
        return exchange.result

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncEraClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Exchange:
    """One call: the request to send next, until there is a result.

    Parameters
    ----------
    memory : dict
        Answers that are remembered.
    """

    def __init__(
        self,
        memory: Memory,
        path: str,
        answer: Any,
        *,
        limit: int | None = None,
        paged: bool = False,
        remembered: bool = False,
        **options: Any,
    ) -> None:
        self.request = _request(**options)
        self.done = False
        self.result: Any = None
        self._memory, self._path, self._answer = memory, path, answer
        self._limit, self._paged, self._remembered = limit, paged, remembered
        self._found: list[Any] = []
        if limit is not None:
            self.request["params"]["limit"] = min(limit, PAGE)
        if remembered and path in memory:
            self.request["headers"] = {"If-None-Match": memory[path][0]}

    def take(self, response: httpx.Response) -> None:
        """Take an answer: the result, or a page of it."""
        if response.status_code == 304 and self._remembered and self._path in self._memory:
            self.result = _read(self._memory[self._path][1], self._answer, 304)
        else:
            self.result = _parse(response, self._answer)
            if self._remembered and "ETag" in response.headers:
                self._memory[self._path] = response.headers["ETag"], response.content
        self.done = not (self._paged and self._turn(response))

    def _turn(self, response: httpx.Response) -> bool:
        """Whether there is a page to be read after this one."""
        page = self.result
        self._found += page
        self.result = self._found[: self._limit]
        following = response.links.get("next", {}).get("url")
        if not page or following is None or len(self.result) == self._limit:
            return False
        # Of the link its query only: the token goes to no other address.
        before, params = self.request["params"], dict(httpx.URL(following).params)
        self.request["params"] = params
        return before != params


def _settings(url: str, token: str) -> dict[str, Any]:
    return {
        "base_url": f"{url}/api/v1/",
        "headers": {"Authorization": f"token {token}"},
        "timeout": TIMEOUT,
    }


def _request(
    *,
    body: BaseModel | None = None,
    params: dict[str, Any] | None = None,
    idempotency_key: str | None = None,
    version: int | None = None,
) -> dict[str, Any]:
    request: dict[str, Any] = {
        "params": {key: value for key, value in (params or {}).items() if value is not None}
    }
    if body is not None:
        request["content"] = body.model_dump_json(exclude_none=True)
        request["headers"] = {"Content-Type": "application/json"}
    if idempotency_key:
        request.setdefault("headers", {})["Idempotency-Key"] = idempotency_key
    if version is not None:
        request.setdefault("headers", {})["If-Match"] = f'"{version}"'
    return request


def _unreachable(error: httpx.HTTPError, url: httpx.URL) -> EraError:
    return EraError(f"the market at {url} can't be reached ({type(error).__name__})")


def _parse(response: httpx.Response, answer: Any) -> Any:
    if response.is_success:
        return _read(response.content, answer, response.status_code)
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"the market answered {response.status_code} {response.reason_phrase}"
    raise EraError(detail, response.status_code)


def _read(content: bytes, answer: Any, status: int) -> Any:
    try:
        return TypeAdapter(answer).validate_json(content)
    except ValidationError as error:
        detail = "the market's answer makes no sense; is ERA_URL the address of an ERA service?"
        raise EraError(detail, status) from error
