"""The service about itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, func, select

from .. import __version__, metrics, models
from ..metrics import Snapshot
from ..store.database import Database
from ..store.tables import Account
from .base import ApiHandler, Principal, Scope, endpoint


class OpenHandler(ApiHandler):
    """An endpoint that does not ask who is calling."""

    async def prepare(self) -> None:
        """Take everybody's requests."""


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


ANYONE = Principal("anyone", "service", frozenset({Scope.METRICS}))
"""Who reads the metrics where they are open."""


class MetricsHandler(ApiHandler):
    """GET metrics"""

    async def prepare(self) -> None:
        if self.settings["authenticate_prometheus"]:
            await super().prepare()
        else:
            self.principal = ANYONE

    @endpoint(
        "Measurements for Prometheus",
        str,
        scopes=(Scope.METRICS, Scope.ADMIN, Scope.SPAWN),
        media=metrics.CONTENT_TYPE,
    )
    async def get(self) -> bytes:
        services = self.services
        snapshot = await self.run(self._snapshot)
        snapshot.ledger.update(await self.read(_ledger, services.database))
        services.metrics.streams.set(len(services.streams))
        reconciler = services.reconciler
        return services.metrics.text(
            snapshot,
            reconciler.last_pass,
            reconciler.postponed,
            values=self.principal is not ANYONE,
        )

    def _snapshot(self) -> Snapshot:
        market, era = self.services.market, self.services.market.era
        now, slot = market.clock(), market.era.grid.slot
        first = now - now % slot
        return Snapshot(
            pool=market.pool,
            resource=era.resource,
            capacity=int(era.capacity(first, 1)[0]),
            promised=int(era.promised(first, 1)[0]),
            prices={name: era.hourly_price(name, now) for name in market.configurations},
        )


def _ledger(database: Database) -> dict[tuple[str, str], int]:
    """What all users, all groups and each account of the market's own hold."""
    name = case((Account.kind == "system", Account.name), else_="all")
    query = select(Account.kind, name, func.sum(Account.balance)).group_by(Account.kind, name)
    with database.reader.begin() as session:
        return {(kind, each): int(total) for kind, each, total in session.execute(query)}
