"""Rows that are gathered: there for whoever asks, and gone with their transaction."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from era_hub.store.answers import Answer, Answers
from era_hub.store.bulk import add
from era_hub.store.database import Database
from era_hub.store.ledger import Ledger
from era_hub.store.tables import Answer as Row
from era_hub.store.tables import Job, Reservation
from tests.era_hub.store.rows import NOW, a_reservation, open_account, proof

REST = {
    "account_id": None,
    "commitment": "fixed",
    "groups": [],
    "resources": {"nvidia.com/gpu": "1"},
    "taken": {},
    "nodes": [],
    "run_nodes": None,
    "run_end": None,
    "runs": 0,
    "version": 1,
    "job": None,
    "placements": [],
}


def keep(session: Session, key: str) -> None:
    Answers(session).keep("ann", key, "what", 200, "{}", NOW)


def kept(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Row)) or 0


def test_they_are_stored_by_a_commit_though_nothing_else_has_changed(database: Database) -> None:
    with database.session.begin() as session:
        keep(session, "first")
        keep(session, "second")
    with database.session.begin() as session:
        assert Answers(session).find("ann", "second", "what") == Answer(200, "{}")


def test_a_question_of_the_same_transaction_finds_them(database: Database) -> None:
    with database.session.begin() as session:
        keep(session, "first")
        assert kept(session) == 1
        keep(session, "second")
        assert kept(session) == 2


def test_a_savepoint_takes_with_it_what_was_gathered_since(database: Database) -> None:
    with database.session.begin() as session:
        keep(session, "before")
        with pytest.raises(OSError, match="a bug"), session.begin_nested():
            keep(session, "since")
            raise OSError("a bug")
        keep(session, "after")
    with database.session.begin() as session:
        assert set(session.scalars(select(Row.key))) == {"before", "after"}


def test_a_new_object_can_be_changed_before_it_is_written(database: Database) -> None:
    with database.session.begin() as session:
        made = [a_reservation(name, **REST) for name in ("one", "two")]
        for each in made:
            add(session, each)
        found = session.get(Reservation, "two")
        assert found is made[1]
        found.start, found.nodes = NOW + 60, ["node-a"]
    with database.session.begin() as session:
        one, two = session.get_one(Reservation, "one"), session.get_one(Reservation, "two")
        assert (one.start, one.version, one.nodes) == (NOW, 1, [])
        assert (two.start, two.version, two.nodes) == (NOW + 60, 2, ["node-a"])
        assert (one.slot_prices, one.resources, one.gpus) == (
            [30, 40],
            {"nvidia.com/gpu": "1"},
            None,
        )


def test_texts_come_back_as_they_were(database: Database) -> None:
    text = 'quotes " and \\ and \n and ü and 🙂 and \\u0041 and %s and :rows'
    row = a_reservation(**REST)
    job = Job(
        id=row.id,
        name=text,
        script=text,
        filename="a.py",
        command=[text],
        environment={"A": text},
        state="queued",
        directory=None,
        exit_code=None,
        message=text,
    )
    with database.session.begin() as session:
        row.job = job
        add(session, row, job)
    with database.session.begin() as session:
        found = session.get_one(Job, row.id)
        assert (found.name, found.script, found.message) == (text, text, text)
        assert (found.command, found.environment) == ([text], {"A": text})


def test_each_entry_belongs_to_its_own_movement(database: Database) -> None:
    account = open_account(database, 1000)
    names = [f"r{number}" for number in range(40)]
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        for number, name in enumerate(names):
            add(session, a_reservation(name, **REST | {"account_id": account, "price": number}))
            ledger.hold(ledger.user("ann"), number, name, "held")
        lines = ledger.statement(ledger.user("ann"), 100)
        held = {line.reservation_id: -line.amount for line in lines if line.reservation_id}
        assert held == {f"r{number}": number for number in range(1, 40)}
    assert not proof(database)
