"""Quotes, and bids that become reservations."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from era_pricing import Bid, Commitment, Decision, ResourceRequest
from era_pricing import Quote as EngineQuote

from .. import models, records, views
from ..answers import Conflict, Verdict, accepted, declined, hours, too_poor
from ..store.bulk import add
from ..store.demand import Demand
from ..store.ledger import Ledger
from ..store.quotas import Refusal
from ..store.servers import Servers
from .paying import NO_GROUPS, Paying, Purse, Wish, refused
from .requests import resource_request, units_of
from .state import PoolState

TRIES = 48
"""Starts that are looked at for one that a user's quotas allow."""

WHENEVER = ("longest", "configurations")
"""Limits that no other start would keep."""


class Bids:
    """Decides on bids."""

    def __init__(self, state: PoolState, paying: Paying) -> None:
        self.state = state
        self.paying = paying

    def quote(self, request: models.RequestBase) -> EngineQuote:
        """Prices for a request, without commitment.

        Raises
        ------
        BidError
            If the request makes no sense; the text says what to change.
        """
        now = self.state.clock()
        wanted = resource_request(self.state, request, now)
        return self.state.era.quote(Bid.of(wanted, 0, commitment_of(request)), now)

    def reserve(
        self,
        user: str,
        request: models.ReservationRequest | models.JobRequest,
        groups: Collection[str] = NO_GROUPS,
    ) -> Verdict:
        """Decide on a bid; if the market takes it, hold its price and store it.

        Parameters
        ----------
        groups : collection of str
            Those that the user is in now.

        Raises
        ------
        BidError
            If the request makes no sense; the text says what to change.
        Conflict
            If the user holds a reservation for the same server and time.
        Forbidden
            If the user may not pay from the account that the bid names.
        """
        now, era = self.state.clock(), self.state.era
        with self.state.transaction() as session:
            wanted = resource_request(self.state, request, now)
            Ledger(session, now).lock()
            purse = self.paying.purse(session, user, groups, request.account)
            asked = self._within_limits(session, user, groups, purse, request, wanted, now)
            if isinstance(asked, Verdict):
                return asked
            job_id = str(uuid.uuid4())
            # Nobody can pay more than they have; what they can't pay is no demand either.
            value = max(0, min(request.value, purse.available))
            bid = Bid.of(asked, value, commitment_of(request))
            decision = era.make_reservation(job_id, bid, now)
            units = units_of(self.state, request)
            remember(self.state, session, asked, units, value, decision, now)
            promise = decision.reservation
            if promise is None:
                reason = why_declined(decision, request.value, purse)
                return Verdict(False, decision.price, reason, decision.quote)
            double = None
            if isinstance(request, models.ReservationRequest):
                double = double_booking(
                    session, user, request.server_name, promise.start, promise.end
                )
            if double is None:
                sold = self.state.configurations[request.configuration]
                row = records.new_reservation(
                    promise,
                    wanted,
                    sold,
                    user,
                    groups,
                    request,
                    pool=self.state.pool,
                    units=units,
                    account_id=purse.account.id,
                )
                add(session, row, *row.placements, *([] if row.job is None else [row.job]))
                if isinstance(request, models.ReservationRequest):
                    Servers(session).note(user, row.server_name, row.start, row.end)
                what = f"{request.configuration} for {hours(row.duration)}"
                Ledger(session, now).hold(purse.account, row.price, row.id, f"reserved {what}")
                self.state.note_reservation(row, money=True)
                return accepted(row, purse.name, row.price, decision.quote)
            era.forget(job_id)
        # After the transaction, which keeps what the forecast has learned from the bid.
        raise double

    def _within_limits(
        self,
        session: Session,
        user: str,
        groups: Collection[str],
        purse: Purse,
        request: models.ReservationRequest | models.JobRequest,
        wanted: ResourceRequest,
        now: int,
    ) -> ResourceRequest | Verdict:
        """The request, narrowed to the cheapest start that the quotas allow if need be."""
        if not self.paying.limited(session, user, groups, purse):
            return wanted
        quote = self.state.era.quote(Bid.of(wanted, 0, commitment_of(request)), now)
        if quote.start is None or quote.end is None or quote.price is None:
            return wanted  # the engine says why it does not fit
        wish = Wish(request.configuration, units_of(self.state, request))
        length = quote.end - quote.start

        def refusals(start: int) -> Sequence[Refusal]:
            end = start + length
            return self.paying.refusals(session, user, groups, purse, wish, start, end)

        first = refusals(quote.start)
        if not first:
            return wanted
        if not any(each.limit in WHENEVER for each in first):
            for start in _hourly_cheapest(quote, request.value)[:TRIES]:
                if not refusals(start):
                    return replace(wanted, arrival=start, deadline=start + length)
        return Verdict(False, quote.price, refused(first), None)


def commitment_of(request: models.RequestBase) -> Commitment:
    """A job may be moved if its owner says so; a notebook keeps the start it was told."""
    return Commitment(getattr(request, "commitment", models.Commitment.FIXED))


def remember(
    state: PoolState,
    session: Session,
    wanted: ResourceRequest,
    units: int,
    value: int,
    decision: Decision,
    now: int,
) -> None:
    """Store what the engine has just told its predictor, for the next start."""
    if units:
        seen = records.seen(wanted, units, value, decision, now)
        Demand(session, state.pool, state.era.resource).remember(seen)


def why_declined(decision: Decision, value: int, purse: Purse) -> str:
    """Why a bid of this value was not taken."""
    price = decision.price
    if price is not None and price <= value:
        return too_poor(price, purse.available, purse.name)
    return declined(decision)


def _hourly_cheapest(quote: EngineQuote, value: int) -> list[int]:
    """The cheapest start of each hour that costs no more than `value`, by price."""
    best: dict[int, tuple[int, int]] = {}
    for start, price in zip(quote.starts.tolist(), quote.prices.tolist(), strict=True):
        if price <= value:
            best[start // 3600] = min(best.get(start // 3600, (price, start)), (price, start))
    return [start for _, start in sorted(best.values())]


def double_booking(
    session: Session, user: str, server_name: str, start: int, end: int
) -> Conflict | None:
    """One server can't run on two reservations: the second would be paid for nothing.

    One that runs already does not count, since its user may end it before.
    """
    other = Servers(session).reserved(user, server_name, start, end)
    if other is None:
        return None
    return Conflict(
        f"you hold a reservation for this server already, from {views.text(other[0])} "
        f"to {views.text(other[1])}; use that one, cancel it, or choose another time"
    )
