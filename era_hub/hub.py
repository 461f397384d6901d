"""The Hub's REST API, as far as the service needs it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from .client.calls import path_part

KNOWN_SECONDS = 5.0
"""How long the hub is not asked again which groups a user is in."""

KNOWN_USERS = 10_000
"""Most users whose groups are kept in memory."""


class HubError(Exception):
    """The Hub refused a request or can't be reached."""


@dataclass(frozen=True)
class Server:
    """A notebook server as the Hub knows it."""

    ready: bool
    pending: str | None
    options: dict[str, Any]


class Hub:
    """A client for the Hub's API with the service's own token.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8081/hub/api``.
    token : str
    """

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"), headers={"Authorization": f"token {token}"}, timeout=30
        )
        self._groups: dict[str, tuple[float, tuple[str, ...]]] = {}

    async def server(self, user: str, name: str) -> Server | None:
        """The user's server, or None if it is not there.

        A failed or stopped server the Hub still lists counts as not there.
        """
        answer = await self._request("GET", f"/users/{path_part(user)}", missing_ok=True)
        if answer is None:
            return None
        found = answer.json().get("servers", {}).get(name)
        if found is None or not (found.get("ready") or found.get("pending")):
            return None
        return Server(bool(found["ready"]), found["pending"], found.get("user_options") or {})

    async def groups(self, user: str) -> tuple[str, ...]:
        """The groups a user is in, as of the last few seconds; none if there is no such user."""
        until, known = self._groups.get(user, (0.0, ()))
        if time.monotonic() < until:
            return known
        answer = await self._request("GET", f"/users/{path_part(user)}", missing_ok=True)
        known = () if answer is None else tuple(sorted(answer.json().get("groups", ())))
        if len(self._groups) >= KNOWN_USERS:
            self._groups.clear()
        self._groups[user] = (time.monotonic() + KNOWN_SECONDS, known)
        return known

    async def start(self, user: str, name: str, options: dict[str, Any]) -> None:
        """Ask for a server; returns when the Hub has taken the request, not when ready."""
        await self._request("POST", _server_path(user, name), json=options)

    async def stop(self, user: str, name: str) -> None:
        """Ask for a stop; a server that is not there is fine."""
        await self._request("DELETE", _server_path(user, name), missing_ok=True)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _request(
        self, method: str, path: str, missing_ok: bool = False, **options: Any
    ) -> httpx.Response | None:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise HubError(f"the hub can't be reached ({type(error).__name__})") from error
        if missing_ok and response.status_code == 404:
            return None
        if not response.is_success:
            raise HubError(_message(response))
        return response


def _server_path(user: str, name: str) -> str:
    return (
        f"/users/{path_part(user)}/servers/{path_part(name)}"
        if name
        else f"/users/{path_part(user)}/server"
    )


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"the hub answered {response.status_code}"
