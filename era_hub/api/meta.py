"""The service about itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, func, select

from .. import __version__, metrics, models
from ..metrics import Snapshot
from ..store.database import Database
from ..store.tables import Account
from .base import ApiHandler, Principal, Problem, Scope, endpoint

STALE = 30.0
"""Seconds that a replica may lag before it says that it is not well."""


class OpenHandler(ApiHandler):
    """An endpoint that does not ask who is calling."""

    async def prepare(self) -> None:
        """Take everybody's requests."""


class HealthHandler(OpenHandler):
    """GET health"""

    @endpoint("Whether the service can do its work", models.Health, scopes=())
    async def get(self) -> models.Health:
        replica = self.services.replica
        # To the database and back, but not by way of the writer's thread: a busy service
        # is not an ill one.
        await self.read(self.services.market.reservations, limit=1)
        lag = round(replica.lag, 3)
        if lag > STALE:
            raise Problem(503, f"this replica has not followed the writer for {lag:.0f} s")
        other = None if replica.leading or replica.leader is None else replica.leader.address
        return models.Health(status="ok", leads=replica.leading, follows=other, lag=lag)


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
        services.metrics.leading.set(services.replica.leading)
        services.metrics.lag.set(services.replica.lag)
        reconciler = services.reconciler
        return services.metrics.text(
            snapshot,
            reconciler.last_pass if services.replica.leading else None,
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
