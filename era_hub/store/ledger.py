"""The double-entry ledger: append-only, integer micro-credits, every sum zero.

Each movement is a transaction of entries that sum to zero. An entry names the lot that it
touches, if any, and holds the account's balance after it. Account, lots and entries change
together; `store.books` proves that they agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from .lots import Part, Parts, live, put_back, take
from .tables import Account, Entry, Lot, Transaction

BANK = "bank"  # grants come from here, and what lapses goes back
ESCROW = "escrow"  # set aside for reservations that have not ended
REVENUE = "revenue"  # paid for time used

MARKET = "market"

LEDGER_LOCK = 0x4552_4100_0002
"""Advisory lock of PostgreSQL, held from the first movement to the end of a transaction.

Writers of several pools share accounts. Whoever waits for this lock holds no other of the
ledger's, so they can't wait for each other, and entries are numbered in the order in which
they are committed. SQLite has one writer anyway.
"""


class NotEnough(Exception):
    """An account can't pay."""

    def __init__(self, balance: int, wanted: int) -> None:
        super().__init__(f"{wanted} micro-credits wanted, {balance} available")
        self.balance = balance
        self.wanted = wanted


@dataclass(frozen=True)
class Movement:
    """One line of an account's statement, and the balance after it.

    `expires` is when the credits that it moved lapse.
    """

    id: int
    at: int
    kind: str
    amount: int
    balance: int
    reservation_id: str | None
    memo: str
    part: int = 0
    actor: str = MARKET
    expires: int | None = None


class Ledger:
    """Reads and writes the books within the caller's transaction."""

    def __init__(self, session: Session, now: int) -> None:
        self.session = session
        self.now = now

    # -- accounts -------------------------------------------------------------

    def user(self, name: str, grant: int = 0) -> Account:
        """The user's account, opened with a starting grant on first sight."""
        account = self.find("user", name)
        if account is None or not account.started:
            # Admins may have given credits before the user came; the starting grant is due still.
            account = account or self.open("user", name)
            account.started = True
            if grant:
                self.grant(account, grant, "starting grant")
        return account

    def group(self, name: str) -> Account:
        """The group's account, opened on first sight."""
        return self.find("group", name) or self.open("group", name)

    def find(self, kind: str, name: str) -> Account | None:
        """An account if there is one; ``user``, ``group`` or ``system``."""
        return self.session.scalar(select(Account).filter_by(kind=kind, name=name))

    def open(self, kind: str, name: str) -> Account:
        """A new account, without a starting grant."""
        self.lock()
        account = self.find(kind, name)  # another pool's writer may have been faster
        if account is None:
            account = Account(kind=kind, name=name, created=self.now)
            self.session.add(account)
            self.session.flush()
        return account

    def get(self, account_id: int) -> Account:
        """The account with this number."""
        return self.session.get_one(Account, account_id)

    def balance(self, account: Account) -> int:
        """Micro-credits on an account, without those that have lapsed by now."""
        lapsed = select(func.coalesce(func.sum(Lot.remaining), 0)).where(
            Lot.account_id == account.id, Lot.expires <= self.now, live()
        )
        return account.balance - int(self.session.scalar(lapsed) or 0)

    def available(self, account: Account) -> int:
        """What can be spent: the balance, and what may be overdrawn."""
        return self.balance(account) + account.overdraft

    def set_overdraft(self, account: Account, overdraft: int) -> None:
        """Let an account go down to minus `overdraft`; not above what it owes already."""
        if overdraft < 0:
            raise ValueError(f"an overdraft of {overdraft} micro-credits")
        self.lock()
        self.session.refresh(account, ["balance", "overdraft"])
        owed = sum(each.remaining for each in self._lots(account, 0)) - account.balance
        if owed > overdraft:
            raise NotEnough(overdraft, owed)
        account.overdraft = overdraft
        self.session.flush()

    def lots(self, account: Account) -> list[Lot]:
        """An account's credits that will lapse, the next to lapse first."""
        return self._lots(account, self.now)

    def totals(self) -> dict[str, int]:
        """Credits of all users, of all groups, and on each of the market's own accounts."""
        found = {"users": 0, "groups": 0, BANK: 0, ESCROW: 0, REVENUE: 0}
        query = select(Account.kind, func.sum(Account.balance)).group_by(Account.kind)
        for kind, total in self.session.execute(query.where(Account.kind != "system")):
            found[f"{kind}s"] = int(total)
        query = select(Account.name, Account.balance).where(Account.kind == "system")
        return found | {row.name: row.balance for row in self.session.execute(query)}

    def statement(self, account: Account, limit: int, before: int | None = None) -> list[Movement]:
        """The newest `limit` movements older than `before`, newest first."""
        query = (
            select(Entry, Transaction, Lot.expires)
            .join(Transaction, Entry.transaction_id == Transaction.id)
            .outerjoin(Lot, Entry.lot_id == Lot.id)
            .where(Entry.account_id == account.id)
            .order_by(Entry.id.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(Entry.id < before)
        return [
            Movement(
                id=entry.id,
                at=cause.at,
                kind=cause.kind,
                amount=entry.amount,
                balance=entry.balance,
                reservation_id=cause.reservation_id,
                memo=cause.memo,
                part=cause.part,
                actor=cause.actor,
                expires=expires,
            )
            for entry, cause, expires in self.session.execute(query)
        ]

    # -- movements ------------------------------------------------------------

    def grant(
        self,
        account: Account,
        amount: int,
        memo: str,
        actor: str = MARKET,
        expires: int | None = None,
        grant_id: int | None = None,
    ) -> int:
        """Give credits, which lapse at `expires` if that is said; the transaction's number."""
        _positive("grant", amount)
        self.lock()
        lot_id = None
        if expires is not None:
            lot = Lot(
                account_id=account.id,
                grant_id=grant_id,
                amount=amount,
                remaining=amount,
                expires=expires,
            )
            self.session.add(lot)
            self.session.flush()
            lot_id = lot.id
        return self._book("grant", BANK, account, [Part(lot_id, amount)], memo, actor=actor)

    def withdraw(self, account: Account, amount: int, memo: str, actor: str) -> int:
        """Take credits back, as far as they are there; the transaction's number."""
        _positive("withdrawal", amount)
        parts, balance = self._spend(account, amount)
        return self._book("withdrawal", BANK, account, parts, memo, actor=actor, balance=balance)

    def hold(
        self, account: Account, amount: int, reservation_id: str, memo: str, part: int = 0
    ) -> None:
        """Set the price of a reservation, or of an extension of it, aside.

        Raises
        ------
        NotEnough
            If the account has less.
        """
        if amount == 0:
            return
        _positive("hold", amount)
        parts, balance = self._spend(account, amount)
        self._book("hold", ESCROW, account, parts, memo, reservation_id, part, balance=balance)

    def next_part(self, reservation_id: str) -> int:
        """The number of a reservation's next extension."""
        query = select(func.max(Transaction.part)).filter_by(
            reservation_id=reservation_id, kind="hold"
        )
        return (self.session.scalar(query) or 0) + 1

    def settle(
        self,
        account: Account,
        held: int,
        refund: int,
        reservation_id: str,
        memo: str,
        broken: bool = False,
    ) -> None:
        """End a reservation: give `refund` of what was held back, book the rest as paid.

        A charge is booked even if it is 0: a second settlement then can't be stored.
        A refund goes back where the credits came from; what has lapsed there meanwhile is
        taken at once. But if the market has `broken` its promise, it comes back for good:
        nobody loses credits by that.
        """
        if not 0 <= refund <= held:
            raise ValueError(f"a refund of {refund} from {held} held")
        self.lock()
        sources = self._held(account, reservation_id)
        if sum(each.amount for each in sources) != held:
            raise ValueError(f"reservation {reservation_id} does not hold {held} micro-credits")
        escrow, revenue = self._system(ESCROW), self._system(REVENUE)
        paid: Parts = [Part(None, held - refund)]
        self._book("charge", escrow, revenue, paid, memo, reservation_id)
        if refund:
            parts = put_back(self.session, sources, refund, self.now if broken else None)
            self._book("refund", escrow, account, parts, memo, reservation_id)
            self.lapse(account)

    def expire(self, until: int | None = None, limit: int = 500) -> int:
        """Take back what has lapsed in at most `limit` lots; how many that were."""
        until = self.now if until is None else until
        query = select(Lot).where(Lot.expires <= until, live()).order_by(Lot.expires, Lot.id)
        self.lock()
        lots = list(self.session.scalars(query.limit(limit), execution_options=FRESH))
        self._take_back(lots)
        return len(lots)

    def lapse(self, account: Account, until: int | None = None) -> None:
        """Take back what has lapsed on one account."""
        until = self.now if until is None else until
        query = select(Lot).where(Lot.account_id == account.id, Lot.expires <= until, live())
        ordered = query.order_by(Lot.expires, Lot.id)
        self._take_back(list(self.session.scalars(ordered, execution_options=FRESH)))

    def next_expiry(self) -> int | None:
        """When the next credits lapse."""
        return self.session.scalar(select(func.min(Lot.expires)).where(live()))

    def lock(self) -> None:
        """Wait until no other service moves credits; what is read from now on holds."""
        if self.session.get_bind().dialect.name != "postgresql":
            return
        transaction = self.session.get_transaction()
        if transaction is None or self.session.info.get("ledger") is not transaction:
            self.session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LEDGER_LOCK})
            self.session.info["ledger"] = self.session.get_transaction()

    # -- inside ---------------------------------------------------------------

    def _spend(self, account: Account, amount: int) -> tuple[Parts, int]:
        """Take from what lapses first, then from what never does; the new balance."""
        self.lock()
        self.lapse(account)
        balance = self._change(account, -amount)  # nothing has changed yet if this fails
        parts = take(self._lots(account, self.now), amount)
        return [Part(each.lot_id, -each.amount) for each in parts], balance

    def _lots(self, account: Account, since: int) -> list[Lot]:
        query = (
            select(Lot)
            .where(Lot.account_id == account.id, Lot.expires > since, live())
            .order_by(Lot.expires, Lot.id)
        )
        return list(self.session.scalars(query, execution_options=FRESH))

    def _held(self, account: Account, reservation_id: str) -> Parts:
        """What a reservation holds of an account, by where it came from."""
        query = (
            select(Entry.lot_id, -func.sum(Entry.amount))
            .join(Transaction, Entry.transaction_id == Transaction.id)
            .where(
                Transaction.reservation_id == reservation_id,
                Transaction.kind == "hold",
                Entry.account_id == account.id,
            )
            .group_by(Entry.lot_id)
        )
        return [Part(lot_id, int(amount)) for lot_id, amount in self.session.execute(query)]

    def _take_back(self, lots: Sequence[Lot]) -> None:
        for lot in lots:
            actor = MARKET if lot.grant_id is None else f"grant:{lot.grant_id}"
            parts: Parts = [Part(lot.id, -lot.remaining)]
            lot.remaining = 0
            self._book(
                "expiry", BANK, self.get(lot.account_id), parts, "credits lapsed", actor=actor
            )

    def _book(
        self,
        kind: str,
        other: Account | str,
        account: Account,
        parts: Parts,
        memo: str,
        reservation_id: str | None = None,
        part: int = 0,
        actor: str = MARKET,
        balance: int | None = None,
    ) -> int:
        """Add `parts` to an account, and take as much from the other.

        With `balance` the account's has been changed already.
        """
        other = self._system(other) if isinstance(other, str) else other
        self.session.flush()
        connection = self.session.connection()
        cause = {
            "at": self.now,
            "kind": kind,
            "reservation_id": reservation_id,
            "part": part,
            "memo": memo,
            "actor": actor,
        }
        number: int = connection.execute(INSERT_TRANSACTION, cause).scalar_one()
        total = sum(each.amount for each in parts)
        if balance is None:
            balance = self._change(account, total)
        entries = _entries(number, account, parts, balance)
        entries += _entries(number, other, [Part(None, -total)], self._change(other, -total))
        connection.execute(insert(Entry.__table__), entries)  # type: ignore[arg-type]
        return number

    def _change(self, account: Account, amount: int) -> int:
        """Change a balance in the database itself; the new one."""
        # What comes in is always welcome, and what lapses is there.
        floor = account.kind != "system" and amount < 0
        statement = TAKE if floor else ADD
        row = self.session.connection().execute(statement, {"number": account.id, "change": amount})
        balance: int | None = row.scalar_one_or_none()
        if balance is None:
            self.session.refresh(account, ["balance", "overdraft"])
            raise NotEnough(self.available(account), -amount)
        set_committed_value(account, "balance", balance)
        return balance

    def _system(self, name: str) -> Account:
        return self.find("system", name) or self.open("system", name)


# Rows that were read before the ledger was locked may have changed since.
FRESH = {"populate_existing": True}

INSERT_TRANSACTION = insert(Transaction.__table__).returning(Transaction.id)  # type: ignore[arg-type]
ADD = (
    update(Account.__table__)  # type: ignore[arg-type]
    .where(Account.id == bindparam("number"))
    .values(balance=Account.balance + bindparam("change"))
    .returning(Account.balance)
)
TAKE = ADD.where(Account.balance + bindparam("change") >= -Account.overdraft)


def _entries(number: int, account: Account, parts: Parts, balance: int) -> list[dict[str, Any]]:
    """Rows that bring an account to its new balance."""
    rows: list[dict[str, Any]] = []
    for each in reversed(parts):
        row = {"lot_id": each.lot_id, "amount": each.amount, "balance": balance}
        rows.insert(0, row | {"transaction_id": number, "account_id": account.id})
        balance -= each.amount
    return rows


def _positive(kind: str, amount: int) -> None:
    if amount <= 0:
        raise ValueError(f"a {kind} of {amount} micro-credits")
