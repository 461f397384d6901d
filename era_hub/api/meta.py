"""The service about itself; these need no login."""

from __future__ import annotations

from typing import Any

from .. import __version__, models
from .base import ApiHandler, endpoint


class OpenHandler(ApiHandler):
    """An endpoint that does not ask who is calling."""

    async def prepare(self) -> None:
        self.principal = None


class HealthHandler(OpenHandler):
    """GET health"""

    @endpoint("Whether the service can do its work", models.Health, scopes=())
    async def get(self) -> models.Health:
        # Through the writer thread to the database and back.
        await self.run(self.services.market.reservations, limit=1)
        return models.Health(status="ok")


class VersionHandler(OpenHandler):
    """GET version"""

    @endpoint("Versions of the service and its API", models.Version, scopes=())
    async def get(self) -> models.Version:
        return models.Version(version=__version__, api="v1")


class OpenApiHandler(OpenHandler):
    """GET openapi.json"""

    @endpoint("This document", dict[str, Any], scopes=())
    async def get(self) -> dict[str, Any]:
        return self.settings["openapi"]
