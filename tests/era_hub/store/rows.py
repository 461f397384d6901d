"""Rows and short ways to store them, for the tests of the store."""

from __future__ import annotations

from typing import Any

from era_hub.models import Kind, State
from era_hub.store.books import Finding, prove
from era_hub.store.database import Database
from era_hub.store.ledger import Ledger
from era_hub.store.tables import Base, Reservation

NOW = 1_800_000_000
"""2027-01-15 08:00 UTC, a Friday."""

HOUR = 3600
DAY = 24 * HOUR


def a_reservation(reservation_id: str = "r1", **fields: Any) -> Reservation:
    defaults: dict[str, Any] = {
        "id": reservation_id,
        "pool": "local",
        "kind": Kind.NOTEBOOK,
        "user": "ann",
        "server_name": "",
        "configuration": "gpu-1",
        "count": 1,
        "units": 1,
        "state": State.ACCEPTED,
        "arrival": NOW,
        "deadline": NOW + 600,
        "duration": 600,
        "value": 100,
        "price": 70,
        "refunded": 0,
        "slot_prices": [30, 40],
        "start": NOW,
        "end": NOW + 600,
        "gpus": None,
        "has_workload": False,
        "message": "",
        "created": NOW,
        "ended": None,
        "idempotency_key": None,
    }
    return Reservation(**defaults | fields)


def store(database: Database, *rows: Base) -> None:
    with database.session.begin() as session:
        session.add_all(rows)


def open_account(database: Database, grant: int = 1000, name: str = "ann") -> int:
    with database.session.begin() as session:
        return Ledger(session, NOW).user(name, grant).id


def hold(database: Database, amount: int, reservation_id: str = "r1") -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ledger.hold(ledger.user("ann", 1000), amount, reservation_id, "reserved")


def settle(database: Database, held: int, refund: int, reservation_id: str = "r1") -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ledger.settle(ledger.user("ann", 1000), held, refund, reservation_id, "ended")


def proof(database: Database, **settings: Any) -> list[Finding]:
    with database.reader.begin() as session:
        return prove(session, **settings)
