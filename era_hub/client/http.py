"""The two clients: synchronous for notebooks and shells, asynchronous for servers."""

from __future__ import annotations

import os
from typing import Any

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from .calls import Calls, EraError

TIMEOUT = 30.0


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

    def _call(self, method: str, path: str, answer: Any, **options: Any) -> Any:
        try:
            response = self._http.request(method, path, **_request(**options))
        except httpx.HTTPError as error:
            raise _unreachable(error, self._http.base_url) from error
        return _parse(response, answer)

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

    async def _call(self, method: str, path: str, answer: Any, **options: Any) -> Any:
        try:
            response = await self._http.request(method, path, **_request(**options))
        except httpx.HTTPError as error:
            raise _unreachable(error, self._http.base_url) from error
        return _parse(response, answer)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncEraClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


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
        try:
            return TypeAdapter(answer).validate_json(response.content)
        except ValidationError as error:
            detail = "the market's answer makes no sense; is ERA_URL the address of an ERA service?"
            raise EraError(detail, response.status_code) from error
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"the market answered {response.status_code} {response.reason_phrase}"
    raise EraError(detail, response.status_code)
