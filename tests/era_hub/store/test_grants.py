"""Grants: once and periodic, capped, lapsing, and never twice."""

from __future__ import annotations

from typing import Any

import pytest

from era_hub.store.database import Database
from era_hub.store.grants import Grants
from era_hub.store.ledger import Ledger
from era_hub.store.tables import GrantTick
from era_hub.store.versions import Missing, Stale
from tests.era_hub.small_market import balances, count
from tests.era_hub.store.rows import DAY, NOW, open_account, proof


def create(database: Database, kind: str, name: str, amount: int, **settings: Any) -> int:
    with database.session.begin() as session:
        return Grants(session, NOW).create(kind, name, amount, actor="admin:root", **settings).id


def run(database: Database, now: int, limit: int = 500) -> int:
    """Everything that is due; in how many portions."""
    portions = 0
    while True:
        with database.session.begin() as session:
            if not Grants(session, now).run(limit):
                return portions
        portions += 1


def next_at(database: Database) -> int | None:
    with database.reader.begin() as session:
        return Grants(session, NOW).next_at()


def balance(database: Database, name: str = "ann") -> int:
    return balances(database)[name]


@pytest.mark.parametrize("kind", ["user", "group"])
def test_a_grant_is_given_once(database: Database, kind: str) -> None:
    create(database, kind, "ann", 100)
    assert next_at(database) == NOW
    run(database, NOW)
    run(database, NOW + DAY)
    assert balances(database) == {"bank": -100, "ann": 100}
    assert next_at(database) is None
    with database.session.begin() as session:
        assert Grants(session, NOW).all() == []
        (grant,) = Grants(session, NOW).all(ended=True)
        account = Ledger(session, NOW).find(kind, "ann")
        assert account is not None
        (line,) = Ledger(session, NOW).statement(account, 9)
        assert line.actor == f"grant:{grant.id}"
    assert proof(database) == []


def test_a_later_grant_waits(database: Database) -> None:
    create(database, "user", "ann", 100, anchor=NOW + 50)
    assert run(database, NOW + 49) == 0
    run(database, NOW + 50)
    assert balance(database) == 100


def test_a_periodic_grant_comes_at_anchor_and_every_period(database: Database) -> None:
    create(database, "user", "ann", 10, period=DAY, anchor=NOW - 3 * DAY + 60)
    seen = []
    for now in (NOW, NOW + 59, NOW + 60, NOW + 61, NOW + DAY + 59, NOW + DAY + 60):
        run(database, now)
        seen.append(balances(database).get("ann", 0))
    assert seen == [0, 0, 10, 10, 10, 20]
    assert next_at(database) == NOW + 2 * DAY + 60


def test_missed_ticks_are_made_up_but_not_above_the_cap(database: Database) -> None:
    create(database, "user", "ann", 10, period=DAY, cap=35)
    run(database, NOW + 2 * DAY + 5)
    assert balance(database) == 30
    run(database, NOW + 9 * DAY)
    assert balance(database) == 35
    assert count(database, GrantTick) == 10
    assert proof(database) == []


def test_a_cap_takes_nothing_away(database: Database) -> None:
    open_account(database, 50)
    create(database, "user", "ann", 10, period=DAY, cap=35)
    run(database, NOW + DAY)
    assert balance(database) == 50


def test_what_a_tick_gave_lapses_before_the_next_makes_it_up(database: Database) -> None:
    """A weekly budget that can't be saved: use it or lose it."""
    create(database, "user", "ann", 10, period=DAY, cap=10, expires_after=DAY)
    for day in range(3):
        run(database, NOW + day * DAY)
        assert balance(database) == 10
    # After an absence it is as if the service had been there.
    run(database, NOW + 9 * DAY)
    assert balance(database) == 10
    with database.session.begin() as session:
        ledger = Ledger(session, NOW + 9 * DAY)
        account = ledger.user("ann")
        assert [each.expires for each in ledger.lots(account)] == [NOW + 10 * DAY]
        kinds = [each.kind for each in ledger.statement(account, 99)]
        assert (kinds.count("grant"), kinds.count("expiry")) == (10, 9)
    assert proof(database) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
def test_everyone_is_who_has_an_account_by_then(database: Database, limit: int) -> None:
    for number in range(5):
        with database.session.begin() as session:
            Ledger(session, NOW + number * DAY).user(f"user{number}")
    with database.session.begin() as session:
        Ledger(session, NOW).group("lab")
    create(database, "everyone", "", 10, period=DAY)
    run(database, NOW + 2 * DAY, limit)
    after = balances(database)
    assert [after[f"user{number}"] for number in range(5)] == [30, 20, 10, 0, 0]
    assert after["lab"] == 0
    assert proof(database) == []


def test_a_grant_that_came_half_way_goes_on_without_doubles(database: Database) -> None:
    for number in range(5):
        with database.session.begin() as session:
            Ledger(session, NOW).user(f"user{number}")
    create(database, "everyone", "", 10)
    with database.session.begin() as session:
        assert Grants(session, NOW).run(limit=3) == 3
    with pytest.raises(RuntimeError), database.session.begin() as session:
        Grants(session, NOW).run(limit=1)
        raise RuntimeError("killed")
    run(database, NOW)
    run(database, NOW)
    assert {balance for name, balance in balances(database).items() if name != "bank"} == {10}


def test_grants_come_in_the_order_of_their_ticks(database: Database) -> None:
    create(database, "user", "ann", 7, period=2 * DAY, anchor=NOW + DAY)
    create(database, "user", "ann", 5, period=2 * DAY)
    run(database, NOW + 3 * DAY)
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        amounts = [each.amount for each in ledger.statement(ledger.user("ann"), 9)]
    assert amounts == [7, 5, 7, 5]


def test_a_change_is_for_the_ticks_to_come(database: Database) -> None:
    number = create(database, "user", "ann", 10, period=DAY, cap=100)
    run(database, NOW)
    with database.session.begin() as session:
        grant = Grants(session, NOW).change(number, 1, amount=30, cap=None)
        assert (grant.version, grant.cap, grant.expires_after) == (2, None, None)
    run(database, NOW + DAY)
    assert balance(database) == 40
    # A tick is no change that an admin could have overlooked.
    with database.session.begin() as session:
        assert Grants(session, NOW + DAY).end(number, 2).version == 3
    run(database, NOW + 9 * DAY)
    assert balance(database) == 40


def test_who_was_slower_is_told(database: Database) -> None:
    number = create(database, "user", "ann", 10, period=DAY)
    with database.session.begin() as session:
        Grants(session, NOW).change(number, 1, amount=30)
    with pytest.raises(Stale) as caught, database.session.begin() as session:
        Grants(session, NOW).end(number, 1)
    assert (caught.value.expected, caught.value.found) == (1, 2)
    with pytest.raises(Missing), database.session.begin() as session:
        Grants(session, NOW).end(99, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "everybody"},
        {"kind": "everyone"},
        {"name": ""},
        {"amount": 0},
        {"amount": -5},
        {"period": 0},
        {"cap": -1},
        {"expires_after": 0},
    ],
    ids=str,
)
def test_grants_that_make_no_sense_are_refused(database: Database, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="grant"):
        create(database, **{"kind": "user", "name": "ann", "amount": 5} | wrong)
