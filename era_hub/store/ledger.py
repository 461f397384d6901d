"""The double-entry ledger: append-only, integer micro-credits, every sum zero."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .tables import Account, Entry, Transaction

BANK = "bank"  # grants come from here
ESCROW = "escrow"  # set aside for reservations that have not ended
REVENUE = "revenue"  # paid for time used


@dataclass(frozen=True)
class Movement:
    """One line of an account's statement."""

    id: int
    at: int
    kind: str
    amount: int
    balance: int
    reservation_id: str | None
    memo: str


class Ledger:
    """Reads and writes the books within the caller's transaction."""

    def __init__(self, session: Session, now: int) -> None:
        self.session = session
        self.now = now

    # -- accounts -------------------------------------------------------------

    def user(self, name: str, grant: int) -> Account:
        """The user's account, opened with a starting grant on first sight."""
        account = self._find("user", name)
        if account is None:
            account = self._open("user", name)
            if grant:
                self._move("grant", BANK, account, grant, None, "starting grant")
        return account

    def balance(self, account: Account) -> int:
        """Micro-credits on an account."""
        total = select(func.coalesce(func.sum(Entry.amount), 0)).where(
            Entry.account_id == account.id
        )
        return int(self.session.scalar(total) or 0)

    def statement(self, account: Account, limit: int) -> list[Movement]:
        """The newest `limit` movements, newest first, each with the balance after it."""
        rows = self.session.execute(
            select(Entry, Transaction)
            .join(Transaction)
            .where(Entry.account_id == account.id)
            .order_by(Entry.id.desc())
            .limit(limit)
        ).all()
        balance, lines = self.balance(account), []
        for entry, cause in rows:
            lines.append(
                Movement(
                    entry.id,
                    cause.at,
                    cause.kind,
                    entry.amount,
                    balance,
                    cause.reservation_id,
                    cause.memo,
                )
            )
            balance -= entry.amount
        return lines

    # -- movements ------------------------------------------------------------

    def hold(self, account: Account, amount: int, reservation_id: str, memo: str) -> None:
        """Set the price of a reservation aside."""
        if amount:
            self._move("hold", account, ESCROW, amount, reservation_id, memo)

    def settle(
        self, account: Account, held: int, refund: int, reservation_id: str, memo: str
    ) -> None:
        """End a reservation: give `refund` of what was held back, book the rest as paid.

        A charge is booked even if it is 0: a second settlement then can't be stored.
        """
        if not 0 <= refund <= held:
            raise ValueError(f"a refund of {refund} from {held} held")
        self._move("charge", ESCROW, REVENUE, held - refund, reservation_id, memo)
        if refund:
            self._move("refund", ESCROW, account, refund, reservation_id, memo)

    # -- inside ---------------------------------------------------------------

    def _move(
        self,
        kind: str,
        source: Account | str,
        target: Account | str,
        amount: int,
        reservation_id: str | None,
        memo: str,
    ) -> None:
        if amount < 0:
            raise ValueError(f"a {kind} of {amount} micro-credits")
        transaction = Transaction(at=self.now, kind=kind, reservation_id=reservation_id, memo=memo)
        transaction.entries = [
            Entry(account_id=self._account(source).id, amount=-amount),
            Entry(account_id=self._account(target).id, amount=amount),
        ]
        self.session.add(transaction)
        self.session.flush()

    def _account(self, account: Account | str) -> Account:
        if isinstance(account, Account):
            return account
        return self._find("system", account) or self._open("system", account)

    def _find(self, kind: str, name: str) -> Account | None:
        return self.session.scalar(select(Account).filter_by(kind=kind, name=name))

    def _open(self, kind: str, name: str) -> Account:
        account = Account(kind=kind, name=name, created=self.now)
        self.session.add(account)
        self.session.flush()
        return account
