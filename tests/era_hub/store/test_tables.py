"""The tables: migrations make what the code expects, keep what is there, and guard the books."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, UniqueConstraint, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

import era_hub.store.migrations
from era_hub.store.audit_log import AuditLog
from era_hub.store.database import Database
from era_hub.store.ledger import Ledger
from era_hub.store.tables import Base, Entry, Job, Reservation, Transaction
from tests.era_hub.small_market import balances, count
from tests.era_hub.store.rows import NOW, a_reservation, hold, open_account, proof, settle, store


def schema(connection: Connection) -> str:
    found = inspect(connection)
    tables = {
        name: [found.get_columns(name), found.get_indexes(name), found.get_foreign_keys(name)]
        for name in found.get_table_names()
    }
    return re.sub(r" at 0x\w+", "", repr(tables))


def test_migrations_make_the_tables_that_the_code_expects(
    make_database: Callable[..., Database],
) -> None:
    database = make_database(empty=True)
    database.migrate()
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


def test_migrations_keep_what_is_referred_to(database: Database) -> None:
    with database.engine.begin() as connection:
        found = inspect(connection)
        for name, table in Base.metadata.tables.items():
            wanted = {(key.parent.name, key.column.table.name) for key in table.foreign_keys}
            keys = found.get_foreign_keys(name)
            assert {(k["constrained_columns"][0], k["referred_table"]) for k in keys} == wanted


def test_migrating_again_changes_nothing(database: Database) -> None:
    open_account(database)
    with database.engine.begin() as connection:
        before = schema(connection)
    database.migrate()
    with database.engine.begin() as connection:
        assert schema(connection) == before
    assert balances(database) == {"bank": -1000, "ann": 1000}


OLD = """
INSERT INTO accounts (id, kind, name, created) VALUES
    (1, 'user', 'ann', 5), (2, 'system', 'bank', 5), (3, 'system', 'escrow', 6),
    (4, 'system', 'revenue', 8), (5, 'user', 'bob', 9);
INSERT INTO reservations (id, pool, kind, "user", server_name, configuration, count, units, state,
    arrival, deadline, duration, value, price, refunded, slot_prices, start, "end", has_workload,
    message, created, ended) VALUES
    ('r1', 'local', 'notebook', 'ann', '', 'gpu-1', 1, 1, 'released', 6, 99, 60, 90, 70, 20,
        '[70]', 6, 66, {no}, '', 6, 8),
    ('r2', 'local', 'job', 'ann', '', 'gpu-1', 1, 1, 'active', 6, 99, 60, 90, 40, 0, '[40]', 6, 66,
        {no}, '', 7, NULL);
INSERT INTO jobs (id, name, filename, command, environment, state, message)
    VALUES ('r2', 'train', 'x.py', '["true"]', '{{}}', 'running', '');
INSERT INTO transactions (id, at, kind, reservation_id, memo) VALUES
    (1, 5, 'grant', NULL, 'starting grant'), (2, 6, 'hold', 'r1', 'reserved'),
    (3, 7, 'hold', 'r2', 'reserved'), (4, 8, 'charge', 'r1', 'ended'),
    (5, 8, 'refund', 'r1', 'ended');
INSERT INTO entries (transaction_id, account_id, amount) VALUES
    (1, 2, -1000), (1, 1, 1000), (2, 1, -70), (2, 3, 70), (3, 1, -40), (3, 3, 40),
    (4, 3, -50), (4, 4, 50), (5, 3, -20), (5, 1, 20);
"""


def at_0002(database: Database) -> None:
    """Tables as the release before had them, with what it stored."""
    config = Config()
    config.set_main_option("script_location", str(era_hub.store.migrations.__path__[0]))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        no = "0" if database.dialect == "sqlite" else "false"
        for statement in OLD.format(no=no).split(";")[:-1]:
            connection.exec_driver_sql(statement)
        if database.dialect == "postgresql":
            for table in ("accounts", "transactions"):
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 5)"
                )


def test_an_older_database_keeps_its_data(make_database: Callable[..., Database]) -> None:
    database = make_database(empty=True)
    at_0002(database)
    database.migrate()
    assert proof(database, capacities={"local": 2}) == []
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ann, bob = ledger.user("ann", 1000), ledger.user("bob", 1000)
        assert (ann.balance, bob.balance) == (910, 0)
        lines = [(each.kind, each.amount, each.balance) for each in ledger.statement(ann, 10)]
        assert lines == [
            ("refund", 20, 910),
            ("hold", -40, 890),
            ("hold", -70, 930),
            ("grant", 1000, 1000),
        ]
        assert {each.actor for each in ledger.statement(ann, 10)} == {"market"}
        row = session.get_one(Reservation, "r2")
        assert (row.account_id, row.version, row.groups) == (1, 1, [])
        assert row.job is not None
        assert row.job.name == "train"


def test_an_older_database_goes_on(make_database: Callable[..., Database]) -> None:
    database = make_database(empty=True)
    at_0002(database)
    database.migrate()
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        row = session.get_one(Reservation, "r2")
        ledger.settle(ledger.user("ann"), 40, 10, "r2", "ended")
        row.state, row.refunded, row.ended = "completed", 10, NOW
    assert proof(database) == []
    with pytest.raises(DBAPIError, match="append-only"), database.engine.begin() as connection:
        connection.execute(text("UPDATE entries SET amount = amount + 1"))


def a_history(database: Database) -> None:
    store(database, a_reservation(account_id=open_account(database)))
    hold(database, 70)
    settle(database, 70, 20)
    with database.session.begin() as session:
        AuditLog(session).write(NOW, "admin:root", "grant", "user ann", None, {"amount": 5})


@pytest.mark.parametrize("table", ["transactions", "entries", "audit_log"])
@pytest.mark.parametrize(
    "change",
    ["UPDATE {table} SET id = id + 100", "DELETE FROM {table}", "TRUNCATE {table} CASCADE"],
)
def test_what_is_booked_can_be_neither_changed_nor_deleted(
    database: Database, table: str, change: str
) -> None:
    if "TRUNCATE" in change and database.dialect == "sqlite":
        pytest.skip("SQLite has no TRUNCATE")
    a_history(database)
    everything = text(f"SELECT * FROM {table} ORDER BY id")
    with database.engine.begin() as connection:
        before = connection.execute(everything).all()
    with (
        pytest.raises(DBAPIError, match=f"{table} is append-only"),
        database.engine.begin() as connection,
    ):
        connection.execute(text(change.format(table=table)))
    with database.engine.begin() as connection:
        assert connection.execute(everything).all() == before != []


@pytest.mark.parametrize(
    "row",
    [
        Entry(transaction_id=7, account_id=7, amount=1, balance=1),
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
    values = {c.key: getattr(row, c.key) for c in type(row).__mapper__.column_attrs}
    fresh = type(row)(**{name: value for name, value in values.items() if value is not None})
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        store(database, fresh)
    assert count(database, type(row)) == 0


def test_each_change_of_a_reservation_counts(database: Database) -> None:
    store(database, a_reservation())
    for version in (1, 2, 3):
        with database.session.begin() as session:
            row = session.get_one(Reservation, "r1")
            assert row.version == version
            row.message = f"changed {version} times"
