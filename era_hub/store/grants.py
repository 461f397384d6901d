"""Credits that admins give: once or periodically, to one account or to every user.

A grant's tick is due at ``anchor + k * period``. It tops each account up by `amount`, but
not above `cap`. A tick is given to an account once, whoever asks and however often, since
that it was given is stored with the credits. What a stopped service missed is made up, the
oldest tick first, as if it had been there.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from .ledger import FRESH, Ledger
from .tables import Account, Grant, GrantTick
from .versions import Missing, expect, store

KINDS = ("user", "group", "everyone")
KEEP: Any = object()
"""Leave as it is."""


class Grants:
    """Reads, changes and books grants within the caller's transaction."""

    def __init__(self, session: Session, now: int) -> None:
        self.session = session
        self.now = now

    def create(
        self,
        kind: str,
        name: str,
        amount: int,
        *,
        actor: str,
        period: int | None = None,
        cap: int | None = None,
        anchor: int | None = None,
        expires_after: int | None = None,
    ) -> Grant:
        """A new grant, of which `run` books what is due.

        Parameters
        ----------
        kind : str
            ``user``, ``group`` or ``everyone``, which is each user who has an account then.
        name : str
            Of the user or group; empty for everyone.
        amount : int
            Micro-credits of each tick.
        period : int, optional
            Seconds; without it there is one tick.
        cap : int, optional
            A tick does not bring a balance above it.
        anchor : int, optional
            When the first tick is; of a periodic grant, the first after now. Default: now.
        expires_after : int, optional
            Seconds after which the credits of a tick lapse.
        """
        if kind not in KINDS or bool(name) == (kind == "everyone"):
            raise ValueError(f"a grant to {kind} {name!r}")
        _check(amount=amount, period=period, cap=cap, expires_after=expires_after)
        first = self.now if anchor is None else anchor
        behind = max(self.now - first, 0)
        grant = Grant(
            kind=kind,
            name=name,
            amount=amount,
            period=period,
            cap=cap,
            anchor=first,
            expires_after=expires_after,
            next_at=first + -(-behind // period) * period if period else first,
            created=self.now,
            actor=actor,
            ended=None,
        )
        self.session.add(grant)
        self.session.flush()
        return grant

    def change(
        self,
        grant_id: int,
        version: int,
        *,
        amount: int = KEEP,
        cap: int | None = KEEP,
        expires_after: int | None = KEEP,
    ) -> Grant:
        """Change what the ticks to come give; to change when they come, make a new grant."""
        grant = self._expected(grant_id, version)
        changes = {"amount": amount, "cap": cap, "expires_after": expires_after}
        changes = {name: value for name, value in changes.items() if value is not KEEP}
        _check(**changes)
        for name, value in changes.items():
            setattr(grant, name, value)
        store(self.session, f"grant {grant_id}", grant)
        return grant

    def end(self, grant_id: int, version: int) -> Grant:
        """Give nothing more; what was given stays."""
        grant = self._expected(grant_id, version)
        if grant.ended is None:
            grant.ended, grant.next_at = self.now, None
            store(self.session, f"grant {grant_id}", grant)
        return grant

    def get(self, grant_id: int) -> Grant:
        """One grant; raises `Missing`."""
        grant = self.session.get(Grant, grant_id)
        if grant is None:
            raise Missing(f"there is no grant {grant_id}")
        return grant

    def all(self, ended: bool = False) -> list[Grant]:
        """All grants, the newest first; without those that give nothing more unless `ended`."""
        query = select(Grant).order_by(Grant.id.desc())
        if not ended:
            query = query.where(Grant.ended.is_(None))
        return list(self.session.scalars(query))

    def next_at(self) -> int | None:
        """When the next tick is due."""
        query = select(func.min(Grant.next_at)).where(Grant.next_at.is_not(None))
        return self.session.scalar(query)

    def run(self, limit: int = 500) -> int:
        """Book at most `limit` steps of what is due; how many those were.

        Call it, each time in a transaction of its own, until nothing is left.
        """
        ledger = Ledger(self.session, self.now)
        ledger.lock()
        steps = 0
        while steps < limit:
            query = select(Grant).where(Grant.next_at <= self.now)
            ordered = query.order_by(Grant.next_at, Grant.id).limit(1)
            grant = self.session.scalar(ordered, execution_options=FRESH)
            if grant is None or grant.next_at is None:
                break
            accounts = self._waiting(ledger, grant, grant.next_at, limit - steps)
            for account in accounts:
                self._top_up(ledger, grant, account, grant.next_at)
            steps += len(accounts)
            if steps < limit:  # so nobody is waiting any more
                self._advance(grant, grant.next_at)
                steps += 1
        return steps

    def _waiting(self, ledger: Ledger, grant: Grant, tick: int, limit: int) -> list[Account]:
        """Accounts that have not been given a tick."""
        given = select(GrantTick).where(
            GrantTick.grant_id == grant.id,
            GrantTick.account_id == Account.id,
            GrantTick.tick == tick,
        )
        query = select(Account).where(~given.exists())
        if grant.kind == "everyone":
            query = query.where(Account.kind == "user", Account.created <= tick)
        else:
            account = ledger.find(grant.kind, grant.name) or ledger.open(grant.kind, grant.name)
            query = query.where(Account.id == account.id)
        query = query.order_by(Account.id).limit(limit)
        return list(self.session.scalars(query, execution_options=FRESH))

    def _top_up(self, ledger: Ledger, grant: Grant, account: Account, tick: int) -> None:
        ledger.lapse(account, tick)
        amount = grant.amount
        if grant.cap is not None:
            amount = max(0, min(amount, grant.cap - account.balance))
        number = None
        if amount:
            number = ledger.grant(
                account,
                amount,
                "periodic grant" if grant.period else "grant",
                actor=f"grant:{grant.id}",
                expires=None if grant.expires_after is None else tick + grant.expires_after,
                grant_id=grant.id,
            )
        self.session.add(
            GrantTick(
                grant_id=grant.id,
                account_id=account.id,
                tick=tick,
                amount=amount,
                transaction_id=number,
            )
        )
        self.session.flush()

    def _advance(self, grant: Grant, tick: int) -> None:
        values: dict[str, int | None] = {"next_at": None, "ended": self.now}
        if grant.period:
            values = {"next_at": tick + grant.period}
        # Not by way of the session: a tick is no change that an admin could overlook.
        self.session.execute(
            update(Grant).where(Grant.id == grant.id).values(values),
            execution_options={"synchronize_session": False},
        )
        self.session.expire(grant)

    def _expected(self, grant_id: int, version: int) -> Grant:
        grant = self.get(grant_id)
        expect(f"grant {grant_id}", grant, version)
        return grant


def _check(**values: int | None) -> None:
    for name, value in values.items():
        least = 0 if name == "cap" else 1
        if value is not None and value < least:
            raise ValueError(f"{name} of a grant must be at least {least}; got {value}")
    if values.get("amount", 1) is None:
        raise ValueError("a grant needs an amount")
