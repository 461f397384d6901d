"""The database: its tables, its settings, its one writer, and the ledger."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import UniqueConstraint, inspect, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from era_hub.models import Kind, State
from era_hub.store.database import Database
from era_hub.store.ledger import Ledger
from era_hub.store.tables import Account, Base, Entry, Job, Reservation, Transaction
from tests.era_hub.small_market import balances, count, unbalanced

NOW = 1_800_000_000


def open_database(folder: Path) -> Database:
    database = Database(f"sqlite:///{folder / 'state' / 'era.sqlite'}")
    database.migrate()
    return database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path)
    yield opened
    opened.close()


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


def open_account(database: Database, grant: int = 1000, name: str = "ann") -> None:
    with database.session.begin() as session:
        Ledger(session, NOW).user(name, grant)


def hold(database: Database, amount: int, reservation_id: str = "r1") -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ledger.hold(ledger.user("ann", 1000), amount, reservation_id, "reserved")


def settle(database: Database, held: int, refund: int, reservation_id: str = "r1") -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ledger.settle(ledger.user("ann", 1000), held, refund, reservation_id, "ended")


# -- tables -------------------------------------------------------------------


def test_migrations_make_the_tables_that_the_code_expects(database: Database) -> None:
    with database.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        names = set(inspect(connection).get_table_names())
    assert names == {*Base.metadata.tables, "alembic_version"}


def test_migrations_keep_what_must_be_unique(database: Database) -> None:
    """SQLite's constraints have no names, so that the comparison above sees none of them."""
    with database.engine.begin() as connection:
        found = inspect(connection)
        for name, table in Base.metadata.tables.items():
            wanted = {
                tuple(column.name for column in each.columns)
                for each in table.constraints
                if isinstance(each, UniqueConstraint)
            }
            unique = {tuple(each["column_names"]) for each in found.get_unique_constraints(name)}
            assert unique == wanted, name


def test_migrating_again_changes_nothing(database: Database) -> None:
    open_account(database)
    with database.engine.begin() as connection:
        before = list(connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")))
    database.migrate()
    with database.engine.begin() as connection:
        after = list(connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")))
    assert after == before
    assert balances(database) == {"bank": -1000, "ann": 1000}


def test_the_folder_of_a_new_database_is_made(tmp_path: Path, database: Database) -> None:
    assert (tmp_path / "state/era.sqlite").is_file()


def test_nobody_else_can_read_the_database(tmp_path: Path, database: Database) -> None:
    open_account(database)
    files = list((tmp_path / "state").iterdir())
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


# -- the connection -----------------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 10_000)],
)
def test_how_sqlite_is_set_up(database: Database, pragma: str, value: object) -> None:
    with database.engine.begin() as connection:
        assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == value


@pytest.mark.parametrize(
    "row",
    [
        Entry(transaction_id=7, account_id=7, amount=1),
        Transaction(at=NOW, kind="hold", reservation_id="nobody's", memo=""),
        Job(
            id="nobody's",
            name="job",
            script=None,
            filename="x.py",
            command=["true"],
            environment={},
            state="queued",
            directory=None,
            exit_code=None,
            message="",
        ),
    ],
    ids=lambda row: type(row).__name__,
)
def test_foreign_keys_are_enforced(database: Database, row: Base) -> None:
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        store(database, row)
    assert count(database, type(row)) == 0


def test_what_has_entries_cannot_be_deleted(database: Database) -> None:
    open_account(database)
    with pytest.raises(IntegrityError), database.session.begin() as session:
        session.execute(text("DELETE FROM transactions"))
    assert count(database, Transaction) == 1


def test_data_survives_closing_and_opening(tmp_path: Path) -> None:
    first = open_database(tmp_path)
    store(first, a_reservation(gpus=[1, 2], message="ünï"))
    hold(first, 70)
    first.close()
    second = open_database(tmp_path)
    with second.session.begin() as session:
        row = session.get_one(Reservation, "r1")
        assert (row.slot_prices, row.gpus, row.message) == ([30, 40], [1, 2], "ünï")
    assert balances(second) == {"bank": -1000, "ann": 930, "escrow": 70}
    second.close()


def test_a_transaction_locks_from_its_beginning(database: Database) -> None:
    """So what it has read is still true when it writes."""
    other = Database(database.url)
    with database.engine.begin() as first, other.engine.connect() as second:
        first.execute(text("SELECT 1"))
        impatient = second.connection.driver_connection
        assert impatient is not None
        impatient.execute("PRAGMA busy_timeout=0")
        with pytest.raises(OperationalError, match="locked"):
            second.execute(text("SELECT 1"))
    other.close()


@pytest.mark.asyncio
async def test_everything_runs_on_one_thread_one_after_the_other(database: Database) -> None:
    running: list[int] = []

    def step() -> tuple[int, int]:
        running.append(1)
        crowd = len(running)
        open_account(database)
        running.pop()
        return threading.get_ident(), crowd

    answers = await asyncio.gather(*(database.run(step) for _ in range(20)))
    assert len({thread for thread, _ in answers}) == 1
    assert {crowd for _, crowd in answers} == {1}
    assert threading.get_ident() not in {thread for thread, _ in answers}


@pytest.mark.asyncio
async def test_errors_come_back_from_the_thread(database: Database) -> None:
    def fail(*, text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError, match="like this"):
        await database.run(fail, text="like this")


@pytest.mark.asyncio
async def test_what_was_begun_is_finished_though_its_caller_is_gone(database: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert may_end.wait(10)
        open_account(database)

    caller = asyncio.create_task(database.run(slow))
    await asyncio.to_thread(begun.wait, 10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    may_end.set()
    # The thread takes this up only when it is done with the other.
    assert await database.run(count, database, Account) == 2


# -- the ledger ---------------------------------------------------------------


def test_an_account_is_opened_once_with_its_grant(database: Database) -> None:
    open_account(database, 500)
    open_account(database, 500)
    assert balances(database) == {"bank": -500, "ann": 500}


def test_an_account_without_a_grant_is_empty(database: Database) -> None:
    open_account(database, 0)
    assert balances(database) == {"ann": 0}
    assert count(database, Transaction) == 0


@pytest.mark.parametrize("refund", [0, 1, 30, 70])
def test_hold_and_settle_add_up(database: Database, refund: int) -> None:
    store(database, a_reservation())
    hold(database, 70)
    assert balances(database) == {"bank": -1000, "ann": 930, "escrow": 70}
    settle(database, 70, refund)
    after = balances(database)
    assert after.pop("revenue", 0) == 70 - refund
    assert after == {"bank": -1000, "ann": 930 + refund, "escrow": 0}
    assert unbalanced(database) == []


@pytest.mark.parametrize("first", [0, 30, 70])
@pytest.mark.parametrize("second", [0, 30, 70])
def test_settling_twice_cannot_be_stored(database: Database, first: int, second: int) -> None:
    store(database, a_reservation())
    hold(database, 70)
    settle(database, 70, first)
    before = balances(database), count(database, Entry), count(database, Transaction)
    with pytest.raises(IntegrityError):
        settle(database, 70, second)
    assert (balances(database), count(database, Entry), count(database, Transaction)) == before


def test_holding_twice_cannot_be_stored(database: Database) -> None:
    store(database, a_reservation())
    hold(database, 70)
    with pytest.raises(IntegrityError):
        hold(database, 70)
    assert balances(database)["ann"] == 930


@pytest.mark.parametrize(("held", "refund"), [(70, -1), (70, 71), (-1, -1), (0, 1)])
def test_a_refund_is_at_most_what_was_held(database: Database, held: int, refund: int) -> None:
    store(database, a_reservation())
    hold(database, 70)
    before = balances(database)
    with pytest.raises(ValueError, match="refund"):
        settle(database, held, refund)
    assert balances(database) == before


def test_nobody_can_hold_a_negative_amount(database: Database) -> None:
    store(database, a_reservation())
    open_account(database)
    with pytest.raises(ValueError, match="-1 micro-credits"):
        hold(database, -1)
    assert balances(database) == {"bank": -1000, "ann": 1000}


def test_a_negative_grant_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="-5 micro-credits"):
        open_account(database, -5)
    assert count(database, Account) == 0


def test_what_costs_nothing_leaves_no_trace_on_the_statement(database: Database) -> None:
    store(database, a_reservation(price=0, slot_prices=[0, 0]))
    hold(database, 0)
    settle(database, 0, 0)
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        lines = ledger.statement(ledger.user("ann", 1000), 10)
    assert [each.kind for each in lines] == ["grant"]


def test_a_statement_runs_from_the_newest_to_the_oldest(database: Database) -> None:
    store(database, a_reservation("r1"), a_reservation("r2"))
    hold(database, 70, "r1")
    hold(database, 200, "r2")
    settle(database, 70, 50, "r1")
    open_account(database, 5, "bob")
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        account = ledger.user("ann", 1000)
        lines = ledger.statement(account, 10)
        assert ledger.statement(account, 2) == lines[:2]
    assert [(each.kind, each.amount, each.balance) for each in lines] == [
        ("refund", 50, 780),
        ("hold", -200, 730),
        ("hold", -70, 930),
        ("grant", 1000, 1000),
    ]
    assert [each.reservation_id for each in lines] == ["r1", "r2", "r1", None]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 1)), max_size=8))
def test_no_history_loses_or_makes_money(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, float]]
) -> None:
    database = open_database(tmp_path_factory.mktemp("history"))
    paid = 0
    for number, (price, part) in enumerate(history):
        refund = int(price * part)
        paid += price - refund
        store(database, a_reservation(f"r{number}", price=price))
        hold(database, price, f"r{number}")
        settle(database, price, refund, f"r{number}")
    assert unbalanced(database) == []
    after = balances(database)
    assert sum(after.values()) == 0
    assert after.get("revenue", 0) == paid
    assert after.get("escrow", 0) == 0
    with database.session.begin() as session:
        amounts = list(session.scalars(select(Entry.amount)))
    assert all(isinstance(amount, int) for amount in amounts)
    database.close()
