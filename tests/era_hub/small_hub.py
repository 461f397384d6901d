"""A stand-in for the Hub's API as far as servers go, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

TOKEN = "the-services-token"
Spawn = Callable[[str, str, dict[str, Any]], Awaitable[None]]


class SmallHub:
    """Starts and stops servers at once, or with `slow` only by and by, as JupyterHub does.

    Parameters
    ----------
    spawn : callable
        What the hub's spawner does when a server of (user, name, options) starts.
    """

    def __init__(self, spawn: Spawn) -> None:
        self.spawn = spawn
        self.slow = False
        self.failure = 0
        """A status with which everything is answered, or 0."""
        self.servers: dict[tuple[str, str], dict[str, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        """Method, path and body of the requests, in their order."""
        self._sockets = bind_sockets(0, "127.0.0.1")
        self.port = self._sockets[0].getsockname()[1]
        self._server = HTTPServer(Application([("/hub/api/.*", _Handler, {"hub": self})]))
        self._server.add_sockets(self._sockets)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hub/api"

    def starts(self) -> list[tuple[str, Any]]:
        """Path and body of all requests for a start."""
        return [(path, body) for method, path, body in self.asked if method == "POST"]

    def stops(self) -> list[str]:
        """Path of all requests for a stop."""
        return [path for method, path, _ in self.asked if method == "DELETE"]

    async def finish(self) -> None:
        """What is pending has been done."""
        for key, server in list(self.servers.items()):
            if server["pending"] == "stop":
                del self.servers[key]
            elif server["pending"] == "spawn":
                try:
                    await self.spawn(*key, server["user_options"])
                except Exception:
                    del self.servers[key]
                else:
                    server.update(ready=True, pending=None)

    async def close(self) -> None:
        """Nobody answers any more."""
        self._server.stop()
        await self._server.close_all_connections()

    # -- the API --------------------------------------------------------------

    def list(self, offset: int) -> tuple[int, Any]:
        """The users with servers, in pages of two."""
        users = sorted({owner for owner, _ in self.servers})
        more = {"offset": offset + 2} if offset + 2 < len(users) else None
        items = [self.get(user)[1] for user in users[offset : offset + 2]]
        return 200, {"items": items, "_pagination": {"offset": offset, "next": more}}

    def get(self, user: str) -> tuple[int, Any]:
        found = {name: each for (owner, name), each in self.servers.items() if owner == user}
        return 200, {"name": user, "kind": "user", "servers": found}

    async def post(self, user: str, name: str, options: dict[str, Any]) -> tuple[int, Any]:
        server = self.servers.get((user, name))
        if server is not None:
            if server["pending"] == "spawn":
                return 202, None
            wrong = f"pending {server['pending']}" if server["pending"] else "already running"
            return 400, {"status": 400, "message": f"{user} is {wrong}"}
        if not self.slow:
            try:
                await self.spawn(user, name, options)
            except Exception as error:
                return 500, {"status": 500, "message": str(error)}
        self.servers[user, name] = {
            "ready": not self.slow,
            "pending": "spawn" if self.slow else None,
            "user_options": options,
        }
        return (202 if self.slow else 201), None

    def delete(self, user: str, name: str) -> tuple[int, Any]:
        server = self.servers.get((user, name))
        if server is not None and self.slow:
            server.update(ready=False, pending="stop")
            return 202, None
        self.servers.pop((user, name), None)
        return 204, None


class _Handler(RequestHandler):
    def initialize(self, hub: SmallHub) -> None:
        self.hub = hub

    async def prepare(self) -> None:
        assert self.request.headers["Authorization"] == f"token {TOKEN}"
        body: Any = json.loads(self.request.body) if self.request.body else None
        path = self.request.path.removeprefix("/hub/api")
        self.hub.asked.append((str(self.request.method), path, body))
        if self.hub.failure:
            self.set_status(self.hub.failure)
            self.finish(json.dumps({"status": self.hub.failure, "message": "the hub is ill"}))
            return
        if path == "/users":
            assert self.request.headers["Accept"] == "application/jupyterhub-pagination+json"
            assert self.get_query_argument("state") == "active"
            status, answer = self.hub.list(int(self.get_query_argument("offset")))
            self.finish(json.dumps(answer))
            return
        user, *rest = map(unquote, path.removeprefix("/users/").split("/"))
        name = rest[1] if rest and rest[0] == "servers" else ""
        if self.request.method == "GET":
            status, answer = self.hub.get(user)
        elif self.request.method == "POST":
            status, answer = await self.hub.post(user, name, body)
        else:
            status, answer = self.hub.delete(user, name)
        self.set_status(status)
        self.finish(None if answer is None else json.dumps(answer))
