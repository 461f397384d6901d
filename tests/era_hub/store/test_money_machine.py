"""Ledger, lots and grants in any order, against a model that is too simple to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from era_hub.store.database import Database
from era_hub.store.grants import Grants
from era_hub.store.ledger import Ledger, NotEnough
from era_hub.store.tables import Account, Reservation
from tests.era_hub.store.rows import NOW, a_reservation, proof

NAMES = ("ann", "bob")
NEVER = 10**12
WHO = st.sampled_from(NAMES)
AMOUNT = st.integers(1, 60)


@dataclass
class Purse:
    """Every single credit by itself: a heap of what is there, by when it lapses."""

    coins: list[int] = field(default_factory=list)
    debt: int = 0
    overdraft: int = 0

    @property
    def balance(self) -> int:
        return len(self.coins) - self.debt

    def pay(self, amount: int) -> list[int]:
        """Coins for an amount, the next to lapse first; what is overdrawn is for good."""
        lapsing = sorted(coin for coin in self.coins if coin != NEVER)
        plain = [NEVER] * (len(self.coins) - len(lapsing))
        given = (lapsing + plain)[:amount]
        self.coins = (lapsing + plain)[amount:]
        self.debt += amount - len(given)
        return given + [NEVER] * (amount - len(given))

    def get(self, coins: list[int]) -> None:
        for coin in coins:
            if coin == NEVER and self.debt:
                self.debt -= 1
            else:
                self.coins.append(coin)

    def lapse(self, now: int) -> None:
        self.coins = [coin for coin in self.coins if coin > now]


@dataclass
class Periodic:
    """A grant to everybody."""

    amount: int
    cap: int
    next_at: int
    period: int
    expires_after: int | None


class Money(RuleBasedStateMachine):
    open_database: Callable[[], Database]

    def __init__(self) -> None:
        super().__init__()
        self.database = type(self).open_database()
        self.now = NOW
        self.purses = {name: Purse() for name in NAMES}
        self.held: dict[str, tuple[str, list[int]]] = {}
        self.grants: list[Periodic] = []
        self.count = 0
        with self.database.session.begin() as session:
            for name in NAMES:
                Ledger(session, NOW).user(name)

    def teardown(self) -> None:
        self.database.close()

    @rule(seconds=st.integers(1, 100))
    def time_goes_on(self, seconds: int) -> None:
        self.now += seconds

    @rule(who=WHO, amount=AMOUNT, lasts=st.none() | st.integers(1, 150))
    def give(self, who: str, amount: int, lasts: int | None) -> None:
        expires = None if lasts is None else self.now + lasts
        with self.database.session.begin() as session:
            ledger = Ledger(session, self.now)
            ledger.grant(ledger.user(who), amount, "given", expires=expires)
        self.purses[who].get([expires or NEVER] * amount)

    @rule(who=WHO, amount=AMOUNT)
    def withdraw(self, who: str, amount: int) -> None:
        purse = self.purses[who]
        purse.lapse(self.now)
        enough = purse.balance + purse.overdraft >= amount
        with self.database.session.begin() as session:
            ledger = Ledger(session, self.now)
            account = ledger.user(who)
            if not enough:
                with pytest.raises(NotEnough):
                    ledger.withdraw(account, amount, "taken", "a test")
                return
            ledger.withdraw(account, amount, "taken", "a test")
        purse.pay(amount)

    @rule(who=WHO, amount=AMOUNT)
    def reserve(self, who: str, amount: int) -> None:
        purse = self.purses[who]
        purse.lapse(self.now)
        enough = purse.balance + purse.overdraft >= amount
        self.count += 1
        name = f"r{self.count}"
        with self.database.session.begin() as session:
            ledger = Ledger(session, self.now)
            account = ledger.user(who)
            assert (ledger.available(account) >= amount) == enough
            if not enough:
                return
            session.add(a_reservation(name, user=who, price=amount, account_id=account.id))
            session.flush()
            ledger.hold(account, amount, name, "reserved")
        self.held[name] = (who, purse.pay(amount))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), amount=AMOUNT)
    def extend(self, data: st.DataObject, amount: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        who, coins = self.held[name]
        purse = self.purses[who]
        purse.lapse(self.now)
        if purse.balance + purse.overdraft < amount:
            return
        with self.database.session.begin() as session:
            ledger = Ledger(session, self.now)
            ledger.hold(ledger.user(who), amount, name, "extended", ledger.next_part(name))
            session.get_one(Reservation, name).price += amount
        self.held[name] = (who, coins + purse.pay(amount))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), share=st.floats(0, 1))
    def settle(self, data: st.DataObject, share: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        who, coins = self.held.pop(name)
        refund = int(len(coins) * share)
        with self.database.session.begin() as session:
            ledger = Ledger(session, self.now)
            ledger.settle(ledger.user(who), len(coins), refund, name, "ended")
            row = session.get_one(Reservation, name)
            row.state, row.refunded, row.ended = "released", refund, self.now
        self.purses[who].get(sorted(coins, reverse=True)[:refund])

    @rule(who=WHO, amount=st.integers(0, 50))
    def overdraw(self, who: str, amount: int) -> None:
        purse = self.purses[who]
        with self.database.session.begin() as session:
            ledger = Ledger(session, self.now)
            account = ledger.user(who)
            if purse.debt > amount:
                with pytest.raises(NotEnough):
                    ledger.set_overdraft(account, amount)
                return
            ledger.set_overdraft(account, amount)
        purse.overdraft = amount

    @precondition(lambda self: len(self.grants) < 2)
    @rule(
        amount=st.integers(1, 30),
        cap=st.integers(0, 80),
        period=st.integers(20, 90),
        lasts=st.none() | st.integers(10, 120),
    )
    def promise(self, amount: int, cap: int, period: int, lasts: int | None) -> None:
        with self.database.session.begin() as session:
            Grants(session, self.now).create(
                "everyone",
                "",
                amount,
                actor="admin:root",
                period=period,
                cap=cap,
                expires_after=lasts,
            )
        self.grants.append(Periodic(amount, cap, self.now, period, lasts))

    @rule(limit=st.integers(1, 5))
    def tick(self, limit: int) -> None:
        while True:
            with self.database.session.begin() as session:
                if not Grants(session, self.now).run(limit):
                    break
        while due := [each for each in self.grants if each.next_at <= self.now]:
            grant = min(due, key=lambda each: each.next_at)
            at = grant.next_at
            for purse in self.purses.values():
                purse.lapse(at)
                given = max(0, min(grant.amount, grant.cap - purse.balance))
                expires = NEVER if grant.expires_after is None else at + grant.expires_after
                purse.get([expires] * given)
            grant.next_at += grant.period

    @rule()
    def expire(self) -> None:
        with self.database.session.begin() as session:
            while Ledger(session, self.now).expire(limit=2):
                pass
        for purse in self.purses.values():
            purse.lapse(self.now)

    @invariant()
    def balances_are_those_of_the_model(self) -> None:
        with self.database.reader.begin() as session:
            ledger = Ledger(session, self.now)
            for name, purse in self.purses.items():
                account = ledger.find("user", name)
                assert isinstance(account, Account)
                there = [coin for coin in purse.coins if coin > self.now]
                assert ledger.balance(account) == len(there) - purse.debt
                lots = sum(each.remaining for each in ledger.lots(account))
                assert lots == sum(coin != NEVER for coin in there)

    @invariant()
    def the_books_are_right(self) -> None:
        assert proof(self.database) == []


@pytest.mark.slow
def test_money_is_where_a_simple_model_says(make_database: Callable[..., Database]) -> None:
    class OnThisStore(Money):
        open_database = staticmethod(make_database)

    run_state_machine_as_test(
        OnThisStore,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
