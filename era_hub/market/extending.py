"""More time right after the end of a reservation."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.orm import Session

from era_pricing import UnknownReservation

from .. import models, records, views
from ..answers import Conflict, Verdict, accepted, hours
from ..models import JobState, Kind
from ..store.ledger import Ledger
from ..store.tables import Reservation
from .bids import double_booking, remember, why_declined
from .paying import NO_GROUPS, Paying, Wish, refused
from .rows import OPEN, check_version, reservation_row
from .state import PoolState

NOTICE = 5
"""Seconds for a running job to learn of a later end."""


class Extensions:
    """Sells more time, at today's price; what was paid before stays."""

    def __init__(self, state: PoolState, paying: Paying) -> None:
        self.state = state
        self.paying = paying

    def quote_extension(
        self, reservation_id: str, request: models.ExtensionQuoteRequest
    ) -> models.ExtensionQuote:
        """What an extension costs now, without commitment.

        Raises
        ------
        BidError
            If the duration makes no sense.
        Conflict
            If the reservation has ended.
        """
        now = self.state.clock()
        with self.state.reading() as session:
            row = self._open(session, reservation_id, now)
            end = self._new_end(row, request.duration)
        try:
            quote = self.state.era.quote_extension(row.id, request.duration, now)
        except UnknownReservation:
            raise _over(row) from None
        return models.ExtensionQuote(
            feasible=quote.feasible,
            price=quote.price,
            end=views.when(end),
            reason=quote.reason,
        )

    def extend(
        self,
        reservation_id: str,
        request: models.ExtensionRequest,
        groups: Collection[str] = NO_GROUPS,
        versions: Collection[int] | None = None,
    ) -> Verdict:
        """Decide on a bid for more time. The account that has paid so far pays it.

        Parameters
        ----------
        groups : collection of str
            Those that the owner is in now.
        versions : collection of int, optional
            Those that the caller means.

        Raises
        ------
        BidError
            If the request makes no sense; the text says what to change.
        Conflict
            If the reservation has ended, or its server is reserved for the time after it.
        Forbidden
            If its owner may no longer pay from the account of a group.
        Outdated
            If it is at another version.
        """
        now, era = self.state.clock(), self.state.era
        with self.state.transaction() as session:
            row = self._open(session, reservation_id, now)
            check_version(row, versions)
            purse = self.paying.purse_of(session, row, groups)
            end = self._new_end(row, request.duration)
            if row.kind == Kind.NOTEBOOK:
                double = double_booking(session, row.user, row.server_name, row.end, end)
                if double is not None and row.end < end:
                    raise double
            wish = Wish(row.configuration, row.units)
            refusals = self.paying.refusals(
                session, row.user, groups, purse, wish, row.start, end, without=row.id
            )
            if refusals:
                return Verdict(False, None, refused(refusals), None)
            value = max(0, min(request.value, purse.available))
            try:
                decision = era.extend(row.id, request.duration, value, now)
            except UnknownReservation:
                raise _over(row) from None
            if decision.price is not None:
                asked = decision.quote.menu.request
                remember(self.state, session, asked, row.units, value, decision, now)
            if decision.reservation is None or decision.price is None:
                reason = why_declined(decision, request.value, purse)
                return Verdict(False, decision.price, reason, decision.quote)
            records.extend(row, decision.reservation, request.value)
            row.account_id = purse.account.id
            session.flush()
            ledger = Ledger(session, now)
            what = f"extended {row.configuration} by {hours(request.duration)}"
            part = ledger.next_part(row.id)
            ledger.hold(purse.account, decision.price, row.id, what, part=part)
            self.state.note_reservation(row, money=True)
            return accepted(row, purse.name, decision.price, decision.quote)

    def _open(self, session: Session, reservation_id: str, now: int) -> Reservation:
        row = reservation_row(session, reservation_id)
        if row.state not in OPEN or row.end <= now:
            raise _over(row)
        if row.job is not None and row.job.state != JobState.QUEUED:
            # The job is asked to stop before the end, and must have learned of a later one
            # by then.
            latest = row.end - min(self.state.grace, row.duration // 4) - NOTICE
            if now >= latest:
                raise Conflict(
                    f"job {row.id} is about to be stopped; one that runs can be extended "
                    f"until {row.end - latest} seconds before its end"
                )
        return row

    def _new_end(self, row: Reservation, seconds: int) -> int:
        grid = self.state.era.grid
        return row.end + grid.slots_for(seconds) * grid.slot


def _over(row: Reservation) -> Conflict:
    return Conflict(f"reservation {row.id} has ended; make a new one")
