"""The proof of the books: nothing to find in right ones, and every kind of wrong is found."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import text

from era_hub.store.audit_log import AuditLog
from era_hub.store.database import Database
from era_hub.store.grants import Grants
from era_hub.store.ledger import Ledger
from era_hub.store.tables import Placement, Reservation
from tests.era_hub.store.rows import DAY, NOW, a_reservation, proof


def a_history(database: Database) -> None:
    """Two reservations of ann's, an open one and one that has ended, and some of what lapses."""
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ann = ledger.user("ann", 1000)
        Grants(session, NOW).create("user", "ann", 50, actor="admin:root", expires_after=DAY)
        Grants(session, NOW).run()
        for name in ("r1", "r2"):
            session.add(a_reservation(name, account_id=ann.id))
            session.flush()
            ledger.hold(ann, 70, name, "reserved")
    with database.session.begin() as session:
        ledger = Ledger(session, NOW + 300)
        ledger.settle(ledger.user("ann"), 70, 30, "r1", "released")
        row = session.get_one(Reservation, "r1")
        row.state, row.refunded, row.ended = "released", 30, NOW + 300


def tamper(database: Database, *statements: str) -> None:
    """Change the books behind their back."""
    with database.engine.begin() as connection:
        for table in ("transactions", "entries"):
            if database.dialect == "sqlite":
                for change in ("update", "delete"):
                    connection.execute(text(f"DROP TRIGGER {table}_no_{change}"))
            else:
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        for statement in statements:
            assert connection.execute(text(statement)).rowcount > 0


def test_new_books_are_right(database: Database) -> None:
    assert proof(database, capacities={"local": 0}) == []


def test_right_books_are_right(database: Database) -> None:
    a_history(database)
    assert proof(database, capacities={"local": 2, "another": 0}) == []


MONEY = "(SELECT id FROM accounts WHERE name = 'ann')"
LAST = "(SELECT max(id) FROM entries)"


@pytest.mark.parametrize(
    ("statement", "checks"),
    [
        (f"UPDATE entries SET amount = amount + 1 WHERE id = {LAST}", {"transaction", "balance"}),
        (f"DELETE FROM entries WHERE id = {LAST}", {"transaction", "balance"}),
        ("UPDATE accounts SET balance = balance + 1 WHERE name = 'ann'", {"balance"}),
        ("UPDATE accounts SET balance = balance + 1 WHERE name = 'escrow'", {"balance", "escrow"}),
        (f"UPDATE entries SET balance = 7 WHERE id = {LAST}", {"statement"}),
        ("UPDATE lots SET remaining = remaining + 1", {"lot"}),
        ("UPDATE lots SET remaining = 51", {"lot"}),
        ("UPDATE entries SET lot_id = NULL WHERE lot_id IS NOT NULL AND amount < 0", {"lot"}),
        ("UPDATE lots SET remaining = 99999", {"lot", "overdraft"}),
        ("UPDATE reservations SET price = price + 1", {"reservation", "escrow"}),
        ("UPDATE reservations SET refunded = 31 WHERE id = 'r1'", {"reservation", "revenue"}),
        ("UPDATE reservations SET state = 'completed' WHERE id = 'r2'", {"reservation", "escrow"}),
        (
            "UPDATE reservations SET state = 'active', ended = NULL WHERE id = 'r1'",
            {"reservation", "escrow"},
        ),
        ("UPDATE reservations SET ended = NULL WHERE id = 'r1'", {"reservation"}),
        ("UPDATE reservations SET account_id = NULL", {"payer"}),
        (
            "UPDATE reservations SET account_id = (SELECT id FROM accounts WHERE name = 'bank')",
            {"payer"},
        ),
        ("UPDATE transactions SET kind = 'gift' WHERE kind = 'refund'", {"cause", "reservation"}),
        ("UPDATE transactions SET reservation_id = NULL WHERE kind = 'charge'", {"cause"}),
        ("UPDATE transactions SET reservation_id = 'r1' WHERE kind = 'grant'", {"cause"}),
        ("DELETE FROM grant_ticks", {"grant"}),
        ("UPDATE grant_ticks SET amount = 49", {"grant"}),
        ("UPDATE transactions SET actor = 'grant:99' WHERE actor LIKE 'grant:%'", {"grant"}),
    ],
)
def test_what_is_wrong_is_found(database: Database, statement: str, checks: set[str]) -> None:
    if "SET reservation_id = 'r1'" in statement:
        # Two grants of one reservation can't be stored even so.
        statement += " AND id = (SELECT min(id) FROM transactions)"
    a_history(database)
    tamper(database, statement)
    findings = proof(database)
    assert checks <= {each.check for each in findings}
    assert all(each.subject and "{" not in each.subject + each.text for each in findings)


def test_below_the_overdraft(database: Database) -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ann = ledger.user("ann", 10)
        ledger.set_overdraft(ann, 20)
        ledger.withdraw(ann, 25, "lent", "a test")
    assert proof(database) == []
    tamper(database, "UPDATE accounts SET overdraft = 14 WHERE name = 'ann'")
    (finding,) = proof(database)
    assert (finding.check, finding.subject) == ("overdraft", "user ann")


def test_what_admins_gave_and_took_is_in_their_log(database: Database) -> None:
    with database.session.begin() as session:
        ledger, log = Ledger(session, NOW), AuditLog(session)
        ledger.grant(ledger.user("ann"), 50, "", "admin:root")
        log.write(NOW, "admin:root", "credits.grant", "user:ann", None, {"amount": 50})
        ledger.withdraw(ledger.user("ann"), 20, "", "admin:root")
        log.write(NOW, "admin:root", "credits.withdraw", "user:ann", None, {"amount": 20})
    assert proof(database) == []
    # Taken out of the books without a trace: entries, balances and all.
    last = "(SELECT max(id) FROM transactions)"
    tamper(
        database,
        "UPDATE accounts SET balance = balance + 20 WHERE name = 'ann'",
        "UPDATE accounts SET balance = balance - 20 WHERE name = 'bank'",
        f"DELETE FROM entries WHERE transaction_id = {last}",
        f"DELETE FROM transactions WHERE id = {last}",
    )
    (finding,) = proof(database)
    assert (finding.check, finding.subject) == ("log", "user:ann")
    assert finding.text.endswith("1 in the log, 0 in the books")
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE accounts SET name = 'eve' WHERE name = 'ann'"))
    assert {each.subject for each in proof(database)} == {"user:ann", "user:eve"}


def test_what_is_sold_twice_is_found(database: Database) -> None:
    spans = [(0, 10, 2), (10, 20, 3), (5, 15, 2), (15, 30, 1)]
    with database.session.begin() as session:
        for number, (start, end, units) in enumerate(spans):
            row = a_reservation(
                f"r{number}", start=NOW + start, end=NOW + end, units=units, price=0
            )
            session.add(row)
    assert proof(database, capacities={"local": 5}) == []
    (finding,) = proof(database, capacities={"local": 4})
    assert (finding.check, finding.subject) == ("capacity", "pool local")
    assert finding.text == f"5 units are sold of 4 at {NOW + 10}"
    assert proof(database, capacities={"local": 4}, since=NOW + 20) == []
    with database.session.begin() as session:  # what was given back may be sold again
        row = session.get_one(Reservation, "r2")
        row.ended, row.state = NOW + 8, "released"
    found = {each.check for each in proof(database, capacities={"local": 4})}
    assert "capacity" not in found


def test_what_runs_in_parts_leaves_the_rest_to_others(database: Database) -> None:
    parts = [(0, 10), (20, 30)]
    with database.session.begin() as session:
        row = a_reservation("r1", start=NOW, end=NOW + 30, units=4, price=0)
        row.placements = [
            Placement(number=number, start=NOW + start, end=NOW + end, slots=1, shares=[["a", 1]])
            for number, (start, end) in enumerate(parts)
        ]
        between = a_reservation("r2", start=NOW + 10, end=NOW + 20, units=4, price=0)
        session.add_all((row, between))
    assert proof(database, capacities={"local": 4}) == []
    with database.session.begin() as session:
        session.get_one(Reservation, "r2").end = NOW + 21
    (finding,) = proof(database, capacities={"local": 4})
    assert finding.text == f"8 units are sold of 4 at {NOW + 20}"


def test_a_pool_may_have_been_larger_or_smaller(database: Database) -> None:
    with database.session.begin() as session:
        row = a_reservation("r1", start=NOW + 10, end=NOW + 20, units=4, price=0)
        session.add(row)
    for steps, found in (
        ([(NOW, 4)], []),
        ([(NOW + 12, 4)], []),  # the first also before that
        ([(NOW, 4), (NOW + 20, 1)], []),
        ([(NOW, 1), (NOW + 10, 4), (NOW + 20, 0)], []),
        ([(NOW, 4), (NOW + 15, 3), (NOW + 16, 2)], [f"4 units are sold of 3 at {NOW + 15}"]),
        ([(NOW, 2), (NOW + 11, 4)], [f"4 units are sold of 2 at {NOW + 10}"]),
    ):
        assert [each.text for each in proof(database, capacities={"local": steps})] == found


def test_only_so_many_findings_of_a_kind_are_told(database: Database) -> None:
    with database.session.begin() as session:
        session.add_all(a_reservation(f"r{number}") for number in range(300))
    assert len([each for each in proof(database) if each.check == "reservation"]) == 100


MANY = 20_000

RESERVATIONS = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})
    INSERT INTO reservations (id, pool, kind, "user", server_name, configuration, count, units,
        state, arrival, deadline, duration, value, price, refunded, slot_prices, start, "end",
        has_workload, message, created, ended, account_id)
    SELECT 'r' || i, 'local', 'notebook', 'ann', '', 'gpu-1', 1, 1, 'completed', i, i + 9, 9, 5, 5,
        0, '[5]', i, i + 9, {no}, '', i, i + 9, {account} FROM n
"""
TRANSACTIONS = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})
    INSERT INTO transactions (at, kind, reservation_id, memo)
    SELECT i, kind, 'r' || i, '' FROM n, (SELECT 'hold' AS kind UNION SELECT 'charge') kinds
"""
ENTRIES = """
    INSERT INTO entries (transaction_id, account_id, amount, balance)
    SELECT id, account, amount, sum(amount) OVER (PARTITION BY account ORDER BY id)
    FROM (
        SELECT id, CASE kind WHEN 'hold' THEN {account} ELSE {escrow} END AS account, -5 AS amount
        FROM transactions WHERE reservation_id IS NOT NULL
        UNION ALL
        SELECT id, CASE kind WHEN 'hold' THEN {escrow} ELSE {revenue} END, 5
        FROM transactions WHERE reservation_id IS NOT NULL
    ) moves ORDER BY id
"""


def many_reservations(database: Database, many: int) -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ids = {each: ledger.open("system", each).id for each in ("escrow", "revenue")}
        account = ledger.user("ann")
        ledger.set_overdraft(account, 5 * many)
        no = "0" if database.dialect == "sqlite" else "false"
        values = {"many": many, "no": no, "account": account.id, **ids}
        for statement in (RESERVATIONS, TRANSACTIONS, ENTRIES):
            session.execute(text(statement.format(**values)))
        session.execute(
            text(
                "UPDATE accounts SET balance = (SELECT sum(amount) FROM entries"
                " WHERE account_id = accounts.id)"
            )
        )


def test_the_proof_of_many_reservations_takes_no_longer_than_it_should(
    database: Database,
) -> None:
    many_reservations(database, MANY)
    begin = time.perf_counter()
    assert proof(database, capacities={"local": 9}) == []
    assert [each.check for each in proof(database, capacities={"local": 8})] == ["capacity"] * 100
    assert time.perf_counter() - begin < 20  # a second or so; quadratic would be many minutes
