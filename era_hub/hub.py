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


ILL = frozenset((502, 503, 504))
"""Answers of a hub, or a proxy before it, that can't answer anything just now."""


class HubError(Exception):
    """The Hub refused a request or can't be reached.

    Parameters
    ----------
    ill : bool
        Nothing else that is asked now would be answered either.
    """

    def __init__(self, text: str, ill: bool = False) -> None:
        super().__init__(text)
        self.ill = ill


@dataclass(frozen=True)
class Server:
    """A notebook server as the Hub knows it."""

    ready: bool
    pending: str | None
    options: dict[str, Any]


Servers = dict[str, Server]
"""A user's servers by name; the default one has none."""


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

    async def servers(self, user: str) -> Servers:
        """The user's servers; none if there is no such user.

        A failed or stopped server the Hub still lists counts as not there.
        """
        answer = await self._request("GET", f"/users/{path_part(user)}", missing_ok=True)
        return {} if answer is None else _servers(answer.json())

    async def all_servers(self) -> dict[tuple[str, str], Server]:
        """The servers of all users, by user and name."""
        found: dict[tuple[str, str], Server] = {}
        offset: int | None = 0
        while offset is not None:
            answer = await self._request(
                "GET",
                "/users",
                params={"state": "active", "offset": offset},
                headers={"Accept": "application/jupyterhub-pagination+json"},
            )
            assert answer is not None
            page = answer.json()
            for user in page["items"]:
                for name, server in _servers(user).items():
                    found[user["name"], name] = server
            offset = (page["_pagination"]["next"] or {}).get("offset")
        return found

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
            raise HubError(f"the hub can't be reached ({type(error).__name__})", True) from error
        if missing_ok and response.status_code == 404:
            return None
        if not response.is_success:
            # A start may fail with 500 for reasons of that server alone.
            status = response.status_code
            raise HubError(_message(response), status in ILL or (method == "GET" and status >= 500))
        return response


def _servers(user: dict[str, Any]) -> Servers:
    return {
        name: Server(bool(each["ready"]), each["pending"], each.get("user_options") or {})
        for name, each in user.get("servers", {}).items()
        if each.get("ready") or each.get("pending")
    }


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
