"""A market to test with: a database of its own, and a clock that tests set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from era_hub import models
from era_hub.clouds.base import Node
from era_hub.market import Market
from era_hub.market.capacity import machine
from era_hub.models import micro_credits
from era_hub.pool import Pool
from era_hub.store.database import Database
from era_hub.store.demand import Demand
from era_hub.store.election import Writer
from era_hub.store.tables import Account, Entry
from era_hub.views import when

HOUR = 3600
DAWN = 1_800_000_000
"""2027-01-15 08:00 UTC: where a slot begins, and an hour."""


@dataclass
class Clock:
    """UTC seconds, which go on only when told to."""

    now: int = DAWN

    def __call__(self) -> int:
        return self.now


def open_market(
    folder: Path, clock: Clock, *, gpus: int = 8, grant: str = "100", **pool: Any
) -> Market:
    """The market as the service opens it; once more on the same folder is a restart."""
    database = Database(f"sqlite:///{folder / 'era.sqlite'}")
    database.migrate()
    return market_on(database, clock, gpus=gpus, grant=grant, **pool)


def market_on(
    database: Database,
    clock: Clock,
    *,
    gpus: int = 8,
    grant: str = "100",
    writer: Writer | None = None,
    cluster: Sequence[Node] | None = None,
    **pool: Any,
) -> Market:
    """The same on a database whose tables are up to date; `cluster` in place of one machine."""
    settings = Pool(**pool)
    nodes = machine(settings.resource, gpus) if cluster is None else tuple(cluster)
    for_sale = settings.for_sale(nodes)
    with database.session.begin() as session:
        past = Demand(session, settings.name, settings.resource).recall(clock())
    market = Market(
        database=database,
        era=settings.build(nodes, for_sale, clock, past),
        configurations=for_sale,
        pool=settings.name,
        gpus=range(gpus) if cluster is None else None,
        nodes=nodes,
        grant=micro_credits(grant),
        clock=clock,
        begin=writer and writer.begin,
    )
    market.rebuild()
    return market


def notebook(gpus: int = 1, hours: float = 1, value: str = "100", **more: Any) -> Any:
    """A bid for a notebook; `arrival` and `deadline` in UTC seconds."""
    return models.ReservationRequest(**_bid(gpus, hours, value, **more))


def job(gpus: int = 1, hours: float = 1, value: str = "100", **more: Any) -> Any:
    """A bid for a job that prints something."""
    return models.JobRequest(**{"script": "print(1)"} | _bid(gpus, hours, value, **more))


def _bid(
    gpus: int,
    hours: float,
    value: str,
    arrival: int | None = None,
    deadline: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    return {
        "configuration": f"gpu-{gpus}" if gpus else "cpu",
        "duration": hours * HOUR,
        "value": micro_credits(value),
        "arrival": None if arrival is None else when(arrival),
        "deadline": None if deadline is None else when(deadline),
        **more,
    }


def balances(database: Database) -> dict[str, int]:
    """The sum of the entries of every account, by the account's name."""
    query = (
        select(Account.name, func.coalesce(func.sum(Entry.amount), 0))
        .outerjoin(Entry, Entry.account_id == Account.id)
        .group_by(Account.id)
    )
    with database.session.begin() as session:
        return {name: int(total) for name, total in session.execute(query)}


def unbalanced(database: Database) -> list[int]:
    """The transactions whose entries do not sum to zero."""
    query = (
        select(Entry.transaction_id)
        .group_by(Entry.transaction_id)
        .having(func.sum(Entry.amount) != 0)
    )
    with database.session.begin() as session:
        return list(session.scalars(query))


def count(database: Database, table: type[Any]) -> int:
    """How many rows a table has."""
    with database.session.begin() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0
