"""The double-entry ledger: append-only, integer micro-credits, every sum zero.

Each movement is a transaction of entries that sum to zero. An entry names the lot that it
touches, if any, and holds the account's balance after it. Account, lots and entries change
together; `store.books` proves that they agree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select, text
from sqlalchemy.orm import Session, SessionTransaction

from .bulk import Row, Writer, gather, write, write_numbered
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
        account = self._known().get((kind, name))
        if account is None:
            query = select(Account).filter_by(kind=kind, name=name)
            # Nothing that waits to be written opens an account.
            with self.session.no_autoflush:
                account = self.session.scalar(query, execution_options=FRESH if self.locked else {})
            if account is not None:
                self._known()[kind, name] = account
        return account

    def read_ahead(self, users: Collection[str]) -> None:
        """Read several users' accounts, and the market's own, at once; the ledger is locked."""
        named = {"users": list(users)}
        for account in self.session.scalars(_AHEAD, named, execution_options=FRESH):
            self._known()[account.kind, account.name] = account

    def open(self, kind: str, name: str) -> Account:
        """A new account, without a starting grant."""
        self.lock()
        account = self.find(kind, name)  # another pool's writer may have been faster
        if account is None:
            account = Account(kind=kind, name=name, created=self.now)
            self.session.add(account)
            self.session.flush()
            self._keep(account)
        return account

    def get(self, account_id: int) -> Account:
        """The account with this number."""
        return self.session.get_one(Account, account_id)

    def balance(self, account: Account) -> int:
        """Micro-credits on an account, without those that have lapsed by now."""
        if not account.lapsing:
            return account.balance
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
        self._keep(account)
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
        self._keep(account)  # now: read anew later, it would not be `lapsing` any more
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
            account.lapsing = True
        return self._numbered(
            self._book("grant", BANK, account, [Part(lot_id, amount)], memo, actor=actor)
        )

    def withdraw(self, account: Account, amount: int, memo: str, actor: str) -> int:
        """Take credits back, as far as they are there; the transaction's number."""
        _positive("withdrawal", amount)
        parts = self._spend(account, amount)
        return self._numbered(self._book("withdrawal", BANK, account, parts, memo, actor=actor))

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
        parts = self._spend(account, amount)
        self._book("hold", ESCROW, account, parts, memo, reservation_id, part)

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
        if not account.lapsing:
            return
        until = self.now if until is None else until
        query = select(Lot).where(Lot.account_id == account.id, Lot.expires <= until, live())
        ordered = query.order_by(Lot.expires, Lot.id)
        self._take_back(list(self.session.scalars(ordered, execution_options=FRESH)))

    def next_expiry(self) -> int | None:
        """When the next credits lapse."""
        return self.session.scalar(select(func.min(Lot.expires)).where(live()))

    @property
    def locked(self) -> bool:
        """Whether nobody else moves credits until the transaction ends."""
        held: _Locked | None = self.session.info.get("ledger")
        return held is not None and held.transaction is self.session.get_transaction()

    def lock(self) -> None:
        """Wait until no other service moves credits; what is read from now on holds."""
        if self.locked:
            return
        if self.session.get_bind().dialect.name == "postgresql":
            self.session.execute(_LOCK, {"key": LEDGER_LOCK})
        self.session.connection()  # begins the transaction, if nothing has yet
        self.session.info["ledger"] = _Locked(self.session.get_transaction(), {})

    # -- inside ---------------------------------------------------------------

    def _known(self) -> dict[tuple[str, str], Account]:
        """The accounts that were read since the ledger was locked: nobody changes them."""
        return self.session.info["ledger"].accounts if self.locked else {}

    def _keep(self, account: Account) -> None:
        """Read an account anew, unless that was done since the ledger was locked."""
        known, key = self._known(), (account.kind, account.name)
        if known.get(key) is not account:
            self.session.refresh(account, ["balance", "overdraft", "lapsing"])
            known[key] = account

    def _spend(self, account: Account, amount: int) -> Parts:
        """What to take first what lapses first, then what never does.

        Raises
        ------
        NotEnough
            If the account has less; nothing has changed then.
        """
        self.lock()
        self._keep(account)
        self.lapse(account)
        if account.balance - amount < -account.overdraft:
            raise NotEnough(self.available(account), amount)
        lots = self._lots(account, self.now) if account.lapsing else []
        return [Part(each.lot_id, -each.amount) for each in take(lots, amount)]

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
    ) -> _Moved:
        """Add `parts` to an account, and take as much from the other.

        Both are written when the session is flushed, together with those of other
        movements. The ledger is locked, so nobody else changes a balance until then.
        """
        other = self._system(other) if isinstance(other, str) else other
        balanced = Part(None, -sum(each.amount for each in parts))
        transaction: Row = {
            "at": self.now,
            "kind": kind,
            "reservation_id": reservation_id,
            "part": part,
            "memo": memo,
            "actor": actor,
        }
        entries = [*self._entries(account, parts), *self._entries(other, [balanced])]
        moved = _Moved(transaction, entries)
        gather(self.session, _MOVED, moved)
        return moved

    def _entries(self, account: Account, parts: Parts) -> list[Row]:
        """Change a balance part by part."""
        self._keep(account)
        entries = []
        for each in parts:
            account.balance += each.amount
            entries.append(
                {
                    "account_id": account.id,
                    "lot_id": each.lot_id,
                    "amount": each.amount,
                    "balance": account.balance,
                }
            )
        return entries

    def _numbered(self, moved: _Moved) -> int:
        self.session.flush()
        return moved.number

    def _system(self, name: str) -> Account:
        return self.find("system", name) or self.open("system", name)


@dataclass(frozen=True)
class _Locked:
    """A transaction that holds the ledger, and the accounts that it has read since."""

    transaction: SessionTransaction | None
    accounts: dict[tuple[str, str], Account]


@dataclass
class _Moved:
    """A movement to be written: its transaction, and the entries of that."""

    transaction: Row
    entries: list[Row]
    number: int = 0


def _write(connection: Connection, movements: list[_Moved]) -> None:
    rows = [each.transaction for each in movements]
    for each, number in zip(movements, write_numbered(Transaction, connection, rows), strict=True):
        each.number = number
    write(
        Entry,
        connection,
        [{**entry, "transaction_id": each.number} for each in movements for entry in each.entries],
    )


_MOVED = Writer(Transaction, _write)

# Made but once: to build a statement takes as long as to execute it.
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_AHEAD = select(Account).where(
    (Account.kind == "system")
    | (Account.kind == "user") & Account.name.in_(bindparam("users", expanding=True))
)

# Rows that were read before the ledger was locked may have changed since.
FRESH = {"populate_existing": True}


def _positive(kind: str, amount: int) -> None:
    if amount <= 0:
        raise ValueError(f"a {kind} of {amount} micro-credits")
