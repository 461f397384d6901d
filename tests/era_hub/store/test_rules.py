"""Copies of policies and quotas: never older than what the transaction could see itself."""

from __future__ import annotations

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from era_hub.store.database import Database
from era_hub.store.policies import Payer, Policies
from era_hub.store.quotas import Quotas
from tests.era_hub.store.rows import NOW

LAB = Payer("group", "lab")
OWN = Payer("user", "ann")


def payer(database: Database) -> Payer:
    with database.session.begin() as session:
        return Policies(session).payer("ann", ["lab"])


def most(database: Database) -> int | None:
    with database.reader.begin() as session:
        return Quotas(session).limits("ann", []).gpus


def test_a_change_by_another_service_counts_at_once(database: Database) -> None:
    other = Database(database.url)
    assert payer(database) == OWN
    with other.session.begin() as session:
        Policies(session).set("user", "ann", "group:lab")
    assert payer(database) == LAB
    with other.session.begin() as session:
        Policies(session).remove("user", "ann", version=1)
    assert payer(database) == OWN
    other.close()


def test_readers_see_a_quota_as_soon_as_it_is_set_changed_or_lifted(database: Database) -> None:
    assert most(database) is None
    for version, gpus in ((None, 4), (1, 2)):
        with database.session.begin() as session:
            Quotas(session).set("everyone", "", gpus=gpus, version=version)
        assert most(database) == gpus
    with database.session.begin() as session:
        Quotas(session).remove("everyone", "", version=2)
    assert most(database) is None


def test_what_was_rolled_back_is_nobodys_rule(database: Database) -> None:
    class Undone(Exception):
        pass

    def try_to_let_the_lab_pay(session: Session) -> None:
        Policies(session).set("user", "ann", "group:lab")
        assert Policies(session).payer("ann", ["lab"]) == LAB
        raise Undone

    assert payer(database) == OWN
    with pytest.raises(Undone), database.session.begin() as session:
        try_to_let_the_lab_pay(session)
    assert payer(database) == OWN
    # Another change gets the same number that the one before would have had.
    with database.session.begin() as session:
        Policies(session).set("group", "bio", "group:bio", rank=1)
    assert payer(database) == OWN


def test_rules_that_have_not_changed_are_read_once(database: Database) -> None:
    with database.session.begin() as session:
        Quotas(session).set("user", "ann", horizon=NOW, gpus=4)
    asked: list[str] = []
    most(database)
    event.listen(
        database._reading,
        "before_cursor_execute",
        lambda c, cursor, statement, *_: asked.append(statement),
    )
    for _ in range(3):
        assert most(database) == 4
    assert not any("quotas" in statement for statement in asked)
