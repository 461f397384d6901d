"""How every change is made: previewed or applied, in one transaction, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from ..admin_models import AdminChange, Effect
from ..answers import Conflict, MarketError, NotFound
from ..market import Market
from ..models import format_credits
from ..store.audit_log import AuditLog
from ..store.ledger import NotEnough
from ..store.versions import Missing, Stale


@dataclass(frozen=True)
class Call:
    """Who changes something, and how.

    Parameters
    ----------
    actor : str
        ``admin:NAME``.
    preview : bool
        Only ask what the change would do.
    request_id : str
        Of the HTTP request, for the audit log.
    """

    actor: str
    preview: bool = False
    request_id: str = ""


@dataclass
class Done:
    """A change that was made in a transaction which is not committed yet."""

    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    effects: list[Effect] = field(default_factory=list)

    def answer(self, applied: bool) -> AdminChange:
        """What whoever asked for the change is told."""
        return AdminChange(
            applied=applied,
            action=self.action,
            subject=self.subject,
            before=self.before,
            after=self.after,
            effects=self.effects,
        )


class _Previewed(MarketError):
    """Takes a preview out of its transaction, which it rolls back."""

    def __init__(self, answer: AdminChange) -> None:
        super().__init__("a preview")
        self.answer = answer


class Desk:
    """Makes changes to one market; on the database's writer thread.

    Parameters
    ----------
    market : Market
    """

    def __init__(self, market: Market) -> None:
        self.market = market

    def change(self, call: Call, work: Callable[[Session, int], Done]) -> AdminChange:
        """Do `work` in a transaction; a preview is rolled back when its effects are known.

        Raises
        ------
        MarketError
            If the change is refused, with the reason: `NotFound`, `Conflict` if somebody
            else was faster, or else because it makes no sense.
        """
        try:
            with self.market.transaction() as session, plainly():
                return self._change(session, call, work)
        except _Previewed as preview:
            return preview.answer

    def _change(
        self, session: Session, call: Call, work: Callable[[Session, int], Done]
    ) -> AdminChange:
        done = work(session, self.market.clock())
        session.flush()
        if call.preview:
            raise _Previewed(done.answer(applied=False))
        return self.record(session, call, done)

    def record(self, session: Session, call: Call, done: Done) -> AdminChange:
        """Write what was done to the audit log, in the transaction that does it."""
        AuditLog(session).write(
            self.market.clock(),
            call.actor,
            done.action,
            done.subject,
            done.before,
            done.after,
            call.request_id,
        )
        return done.answer(applied=True)


class plainly:  # noqa: N801 (a context manager)
    """Turns what the store refuses into what the market answers."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, NotEnough):
            there = format_credits(max(0, error.balance))
            wanted = format_credits(error.wanted)
            raise MarketError(f"amount: only {there} credits are there, not {wanted}") from error
        if isinstance(error, Missing):
            raise NotFound(str(error)) from error
        if isinstance(error, Stale):
            raise Conflict(str(error)) from error
        if isinstance(error, ValueError):
            raise MarketError(str(error)) from error
