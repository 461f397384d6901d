"""The ledger: accounts, movements, lots that lapse, and statements."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from era_hub.store.audit_log import AuditLog
from era_hub.store.database import Database
from era_hub.store.ledger import Ledger, Movement, NotEnough
from era_hub.store.tables import Account, Entry, Transaction
from tests.era_hub.small_market import balances, count, unbalanced
from tests.era_hub.store.rows import NOW, a_reservation, hold, open_account, proof, settle, store


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


def test_totals_are_those_of_the_accounts(database: Database) -> None:
    store(database, a_reservation(account_id=open_account(database)))
    hold(database, 70)
    settle(database, 70, 50)
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ledger.grant(ledger.group("lab"), 300, "for the term", "admin:root")
        assert ledger.totals() == {
            "users": 980,
            "groups": 300,
            "bank": -1300,
            "escrow": 0,
            "revenue": 20,
        }


def test_a_starting_grant_is_due_though_an_admin_was_faster(database: Database) -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ledger.grant(ledger.open("user", "ann"), 5, "welcome", "admin:root")
    open_account(database)
    open_account(database)
    assert balances(database) == {"bank": -1005, "ann": 1005}


def test_a_user_and_a_group_may_have_the_same_name(database: Database) -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        user, group = ledger.user("ann", 10), ledger.group("ann")
        ledger.grant(group, 7, "for the term")
        assert (user.balance, group.balance) == (10, 7)
        assert ledger.find("group", "bob") is None
        assert ledger.get(group.id) is group


# -- what an account can pay --------------------------------------------------


def test_nobody_spends_more_than_there_is(database: Database) -> None:
    store(database, a_reservation(account_id=open_account(database, 100)))
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        account = ledger.user("ann")
        with pytest.raises(NotEnough) as caught:
            ledger.hold(account, 101, "r1", "reserved")
        assert (caught.value.balance, caught.value.wanted) == (100, 101)
        # Nothing was changed, and the transaction goes on.
        ledger.hold(account, 100, "r1", "reserved")
    assert balances(database) == {"bank": -100, "ann": 0, "escrow": 100}


def test_an_overdraft_is_what_is_allowed(database: Database) -> None:
    store(database, a_reservation(price=150, account_id=open_account(database, 100)))
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        account = ledger.user("ann")
        ledger.set_overdraft(account, 50)
        assert ledger.available(account) == 150
        with pytest.raises(NotEnough) as caught:
            ledger.hold(account, 151, "r1", "reserved")
        assert caught.value.balance == 150
        ledger.hold(account, 150, "r1", "reserved")
        assert (account.balance, ledger.available(account)) == (-50, 0)
        with pytest.raises(NotEnough):
            ledger.set_overdraft(account, 49)
        with pytest.raises(ValueError, match="overdraft of -1"):
            ledger.set_overdraft(account, -1)
    assert proof(database) == []


def test_what_is_withdrawn_must_be_there(database: Database) -> None:
    open_account(database, 100)
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        account = ledger.user("ann")
        with pytest.raises(NotEnough):
            ledger.withdraw(account, 101, "too much", "admin:root")
        ledger.withdraw(account, 40, "moved to another project", "admin:root")
        AuditLog(session).write(
            NOW, "admin:root", "credits.withdraw", "user:ann", None, {"amount": 40}
        )
        (line, _) = ledger.statement(account, 9)
        assert (line.kind, line.amount, line.balance) == ("withdrawal", -40, 60)
        assert (line.memo, line.actor) == ("moved to another project", "admin:root")
    assert proof(database) == []


@pytest.mark.parametrize("amount", [0, -1])
def test_movements_are_of_something(database: Database, amount: int) -> None:
    open_account(database)
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        account = ledger.user("ann")
        with pytest.raises(ValueError, match="micro-credits"):
            ledger.grant(account, amount, "nothing")
        with pytest.raises(ValueError, match="micro-credits"):
            ledger.withdraw(account, amount, "nothing", "admin:root")
    assert balances(database) == {"bank": -1000, "ann": 1000}


def test_only_what_is_held_is_settled(database: Database) -> None:
    store(database, a_reservation())
    hold(database, 70)
    with pytest.raises(ValueError, match="does not hold 80"):
        settle(database, 80, 0)
    assert balances(database) == {"bank": -1000, "ann": 930, "escrow": 70}


def test_an_extension_is_a_part_of_its_own_and_settled_with_the_rest(database: Database) -> None:
    store(database, a_reservation(price=100, account_id=open_account(database)))
    hold(database, 70)
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        account = ledger.user("ann")
        assert ledger.next_part("r1") == 1
        ledger.hold(account, 30, "r1", "extended", part=1)
        assert ledger.next_part("r1") == 2
        assert [each.part for each in ledger.statement(account, 9)] == [1, 0, 0]
    assert proof(database) == []
    with pytest.raises(IntegrityError), database.session.begin() as session:
        ledger = Ledger(session, NOW)
        ledger.hold(ledger.user("ann"), 30, "r1", "extended twice", part=1)
    settle(database, 100, 45)
    assert balances(database) == {"bank": -1000, "ann": 945, "escrow": 0, "revenue": 55}


# -- credits that lapse -------------------------------------------------------


def lots(ledger: Ledger, account: Account) -> list[tuple[int, int]]:
    return [(each.expires - NOW, each.remaining) for each in ledger.lots(account)]


def with_lots(session: Session, *, plain: int = 100) -> tuple[Ledger, Account]:
    """An account of some credits for good, 20 that lapse in 50 s, and 30 in 10 s."""
    ledger = Ledger(session, NOW)
    account = ledger.user("ann", plain)
    ledger.grant(account, 20, "for a while", expires=NOW + 50)
    ledger.grant(account, 30, "for a moment", expires=NOW + 10)
    return ledger, account


def test_what_lapses_first_is_spent_first(database: Database) -> None:
    store(database, a_reservation(), a_reservation("r2"), a_reservation("r3"))
    with database.session.begin() as session:
        ledger, account = with_lots(session)
        assert lots(ledger, account) == [(10, 30), (50, 20)]
        ledger.hold(account, 10, "r1", "reserved")
        assert lots(ledger, account) == [(10, 20), (50, 20)]
        ledger.hold(account, 25, "r2", "reserved")
        assert lots(ledger, account) == [(50, 15)]
        ledger.hold(account, 45, "r3", "reserved")
        assert lots(ledger, account) == []
        assert account.balance == 70
        newest = ledger.statement(account, 2)
        assert {(each.amount, each.expires) for each in newest} == {(-15, NOW + 50), (-30, None)}
        assert newest[0].balance == 70


@pytest.mark.parametrize(
    ("refund", "left"),
    [
        (0, []),
        (35, []),  # what never lapses comes back first
        (36, [(50, 1)]),
        (60, [(10, 5), (50, 20)]),
        (85, [(10, 30), (50, 20)]),
    ],
)
def test_a_refund_goes_back_where_it_came_from(
    database: Database, refund: int, left: list[tuple[int, int]]
) -> None:
    store(database, a_reservation())
    with database.session.begin() as session:
        ledger, account = with_lots(session)
        ledger.hold(account, 85, "r1", "reserved")
        ledger.settle(account, 85, refund, "r1", "ended")
        assert lots(ledger, account) == left
        assert account.balance == 65 + refund
        plain = account.balance - sum(each.remaining for each in ledger.lots(account))
        assert plain == 65 + min(refund, 35)


def test_what_lapsed_is_nobodys_at_once_and_is_booked_later(database: Database) -> None:
    open_account(database, 100)
    with database.session.begin() as session:
        with_lots(session)
    with database.session.begin() as session:
        ledger = Ledger(session, NOW + 10)
        account = ledger.user("ann")
        assert (account.balance, ledger.balance(account)) == (150, 120)
        assert ledger.next_expiry() == NOW + 10
        assert ledger.expire() == 1
        assert ledger.expire() == 0
        assert (account.balance, ledger.balance(account)) == (120, 120)
        assert ledger.next_expiry() == NOW + 50
        line = ledger.statement(account, 1)[0]
        assert (line.kind, line.amount, line.expires) == ("expiry", -30, NOW + 10)
    assert balances(database) == {"bank": -120, "ann": 120}
    assert proof(database) == []


def test_what_lapsed_cannot_be_spent(database: Database) -> None:
    store(database, a_reservation())
    with database.session.begin() as session:
        with_lots(session)
    with database.session.begin() as session:
        ledger = Ledger(session, NOW + 10)
        account = ledger.user("ann")
        with pytest.raises(NotEnough) as caught:
            ledger.hold(account, 121, "r1", "reserved")
        assert caught.value.balance == 120
        ledger.hold(account, 120, "r1", "reserved")
    assert balances(database) == {"bank": -120, "ann": 0, "escrow": 120}


def test_a_refund_into_what_has_lapsed_lapses_too(database: Database) -> None:
    store(database, a_reservation())
    with database.session.begin() as session:
        ledger, account = with_lots(session)
        ledger.hold(account, 50, "r1", "reserved")
    with database.session.begin() as session:
        ledger = Ledger(session, NOW + 30)
        account = ledger.user("ann")
        ledger.settle(account, 50, 50, "r1", "cancelled")
        assert lots(ledger, account) == [(50, 20)]
        assert account.balance == 120
        kinds = [(each.kind, each.amount) for each in ledger.statement(account, 3)]
        assert kinds == [("expiry", -30), ("refund", 30), ("refund", 20)]
    assert balances(database)["ann"] == 120


def test_what_a_broken_promise_gives_back_never_lapses(database: Database) -> None:
    store(database, a_reservation())
    with database.session.begin() as session:
        ledger, account = with_lots(session)
        ledger.hold(account, 50, "r1", "reserved")
    with database.session.begin() as session:
        ledger = Ledger(session, NOW + 30)
        account = ledger.user("ann")
        ledger.settle(account, 50, 50, "r1", "failed", broken=True)
        assert lots(ledger, account) == [(50, 20)]
        assert ledger.balance(account) == 150
    with database.session.begin() as session:
        assert Ledger(session, NOW + 60).balance(account) == 130


def test_lots_expire_in_portions_the_oldest_first(database: Database) -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        for number in range(5):
            account = ledger.user(f"user{number}")
            ledger.grant(account, 10 + number, "for a while", expires=NOW + 10 - number)
    taken = []
    for _ in range(4):
        with database.session.begin() as session:
            ledger = Ledger(session, NOW + 20)
            taken.append(ledger.expire(limit=2))
    assert taken == [2, 2, 1, 0]
    assert set(balances(database).values()) == {0}
    assert proof(database) == []


def test_a_statement_is_read_page_by_page(database: Database) -> None:
    with database.session.begin() as session:
        ledger = Ledger(session, NOW)
        account = ledger.user("ann", 10)
        for number in range(7):
            ledger.grant(account, number + 1, "more")
        whole = ledger.statement(account, 100)
        pages: list[Movement] = []
        while page := ledger.statement(account, 3, before=pages[-1].id if pages else None):
            pages += page
        assert pages == whole
        assert len(whole) == 8
