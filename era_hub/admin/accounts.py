"""Credits given to and taken from accounts, and how far these may be overdrawn."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ..admin_models import AdminChange, CreditsGrant, CreditsWithdrawal, OverdraftChange
from ..answers import Conflict, MarketError, NotFound
from ..changes import Change
from ..store.ledger import Ledger
from ..store.tables import Account
from ..views import text
from . import words
from .desk import Call, Desk, Done


class Accounts:
    """What admins do to single accounts."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def grant(self, call: Call, wanted: CreditsGrant) -> AdminChange:
        """Give credits; opens an account that is not there yet."""

        def work(session: Session, now: int) -> Done:
            ledger = Ledger(session, now)
            account, effects = self._opened(ledger, wanted.kind, wanted.name)
            before = ledger.balance(account)
            expires = None if wanted.expires_after is None else now + wanted.expires_after
            ledger.grant(account, wanted.amount, wanted.memo, call.actor, expires)
            done = self._moved(ledger, account, "credits.grant", before)
            lapse = None if expires is None else text(expires)
            if lapse is not None:
                unused = f"what is unused of {words.credits(wanted.amount)} lapses at {lapse}"
                done.effects.append(words.info(unused))
            done.effects = effects + done.effects
            return _with(done, amount=wanted.amount, memo=wanted.memo, expires=lapse)

        return self.desk.change(call, work)

    def withdraw(self, call: Call, wanted: CreditsWithdrawal) -> AdminChange:
        """Take credits back: not more than are there, and none that reservations hold."""

        def work(session: Session, now: int) -> Done:
            ledger = Ledger(session, now)
            account = _existing(ledger, wanted.kind, wanted.name)
            before = ledger.balance(account)
            amount = max(0, before) if wanted.amount is None else wanted.amount
            if amount == 0 or amount > before:
                there = words.credits(max(0, before))
                who = words.owner(wanted.kind, wanted.name)
                raise MarketError(f"amount: {who} has {there} to take back")
            ledger.withdraw(account, amount, wanted.memo, call.actor)
            done = self._moved(ledger, account, "credits.withdraw", before)
            return _with(done, amount=amount, memo=wanted.memo)

        return self.desk.change(call, work)

    def set_overdraft(self, call: Call, wanted: OverdraftChange) -> AdminChange:
        """Say how far a balance may fall below zero."""

        def work(session: Session, now: int) -> Done:
            ledger = Ledger(session, now)
            account, effects = self._opened(ledger, wanted.kind, wanted.name)
            before = account.overdraft
            if wanted.expected not in (None, before):
                raise Conflict(f"the overdraft is {words.credits(before)} now; look again")
            owed = -ledger.balance(account)
            if owed > wanted.overdraft:
                who = words.owner(wanted.kind, wanted.name)
                raise MarketError(f"overdraft: {who} owes {words.credits(owed)} already")
            could = max(0, ledger.available(account))
            ledger.set_overdraft(account, wanted.overdraft)
            can = max(0, ledger.available(account))
            who = words.owner(wanted.kind, wanted.name)
            effects.append(
                words.info(f"{who} can spend {words.from_to(could, can)}", _user(account))
            )
            self._changed(account)
            return Done(
                "overdraft.set",
                words.subject(account),
                {"overdraft": before},
                {"overdraft": wanted.overdraft},
                effects,
            )

        return self.desk.change(call, work)

    def _opened(self, ledger: Ledger, kind: str, name: str) -> tuple[Account, list[words.Effect]]:
        account = ledger.find(kind, name)
        if account is not None:
            return account, []
        account = ledger.open(kind, name)
        note = f"{words.owner(kind, name)} has no account yet; it is opened"
        if kind == "user":
            note += ". Check the name: nothing says that there is such a user"
        return account, [words.warning(note, _user(account))]

    def _moved(self, ledger: Ledger, account: Account, action: str, before: int) -> Done:
        after = ledger.balance(account)
        who = words.owner(account.kind, account.name)
        effect = words.info(f"{who}'s balance {words.from_to(before, after)}", _user(account))
        self._changed(account)
        return Done(
            action, words.subject(account), {"balance": before}, {"balance": after}, [effect]
        )

    def _changed(self, account: Account) -> None:
        if account.kind == "user":
            self.desk.market.note_change(Change("account", account.name))


def _existing(ledger: Ledger, kind: str, name: str) -> Account:
    account = ledger.find(kind, name)
    if account is None:
        raise NotFound(f"there is no account of {words.owner(kind, name)}")
    return account


def _user(account: Account) -> str | None:
    return account.name if account.kind == "user" else None


def _with(done: Done, **more: object) -> Done:
    """What was asked for, beside what it changed."""
    done.after = {**(done.after or {}), **{k: v for k, v in more.items() if v not in (None, "")}}
    return done
