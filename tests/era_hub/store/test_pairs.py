"""What is looked up by two columns at once: servers of users, and answers to calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from era_hub.models import State
from era_hub.store.answers import Answer, Answers
from era_hub.store.database import Database
from era_hub.store.servers import Servers

from .rows import NOW, a_reservation, store

LATER = {"start": NOW + 900, "end": NOW + 1500}


def test_times_of_many_servers(database: Database) -> None:
    store(
        database,
        a_reservation("r1"),
        a_reservation("r2", **LATER),
        a_reservation("r3", server_name="two"),
        a_reservation("r4", user="bob", **LATER),
        a_reservation("r5", state=State.CANCELLED, start=NOW + 3000, end=NOW + 3600),
    )
    with database.session.begin() as session:
        servers = Servers(session)
        servers.read_ahead([("ann", ""), ("bob", ""), ("ann", ""), ("ann", "none")])
        assert servers.reserved("ann", "", NOW, NOW + 60) == (NOW, NOW + 600)
        assert servers.reserved("ann", "", NOW + 600, NOW + 1000) == (NOW + 900, NOW + 1500)
        assert servers.reserved("ann", "", NOW + 1500, NOW + 9999) is None
        assert servers.reserved("bob", "", NOW, NOW + 60) is None
        assert servers.reserved("ann", "none", NOW, NOW + 9999) is None
        assert servers.reserved("ann", "two", NOW, NOW + 9999) == (NOW, NOW + 600)


def test_first_answers_to_many_calls(database: Database) -> None:
    with database.session.begin() as session:
        for caller, key in (("ann", "k1"), ("ann", "k2"), ("bob", "k1"), ("bob", "k3")):
            Answers(session).keep(caller, key, "request", 200, caller + key, NOW)
    with database.session.begin() as session:
        answers = Answers(session)
        answers.read_ahead([("ann", "k1"), ("bob", "k3"), ("ann", "k1"), ("ann", "k3")])
        assert answers.find("ann", "k1", "request") == Answer(200, "annk1")
        assert answers.find("bob", "k3", "request") == Answer(200, "bobk3")
        assert answers.find("ann", "k3", "request") is None
        assert answers.prune(NOW + 1, limit=3) == 3
        assert answers.prune(NOW + 1) == 1
    with database.session.begin() as session:
        assert Answers(session).find("ann", "k1", "request") is None


@pytest.mark.parametrize("count", [1, 16])
def test_sqlite_reads_no_whole_table(tmp_path: Path, count: int) -> None:
    database = Database(f"sqlite:///{tmp_path / 'era.sqlite'}")
    database.migrate()
    plans: list[str] = []

    def explain(
        connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        if statement.startswith(("WITH", "SELECT")):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[-1] for row in cursor.fetchall())

    with database.session.begin() as session:
        session.execute(text("SELECT 1"))
        event.listen(session.connection(), "before_cursor_execute", explain)
        Servers(session).read_ahead([(f"user-{each}", "") for each in range(count)])
        Answers(session).read_ahead([("ann", f"k{each}") for each in range(count)])
    database.close()
    assert [plan for plan in plans if "INDEX" in plan]
    assert not [plan for plan in plans if "SCAN reservations" in plan or "SCAN answers" in plan]
    assert not [plan for plan in plans if "ix_reservations_state" in plan]
