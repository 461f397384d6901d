"""Reservations: bids, extensions, and giving back."""

from __future__ import annotations

from pydantic import Field

from .. import models
from ..answers import Verdict
from ..market import Coming
from .base import ApiHandler, Scope, endpoint
from .groups import groups_of
from .lists import ListQuery, page
from .market import find_alternative
from .once import once
from .versions import VersionedHandler


class ReservationQuery(ListQuery):
    """Which reservations to list."""

    kind: models.Kind | None = Field(None, description="notebooks or jobs only")


class BidHandler(ApiHandler):
    """What bids for notebooks, jobs and extensions have in common."""

    def outcome(
        self, verdict: Verdict, request: models.RequestBase | None = None
    ) -> models.JobOutcome:
        """The answer to a bid, on the market's thread."""
        alternative = None
        if not verdict.accepted and verdict.quote is not None and request is not None:
            alternative = find_alternative(self.services.market, request, verdict.quote)
        seen = verdict.reservation and self.may_see(verdict.reservation)
        job = verdict.job and seen and verdict.job.model_copy(update={"reservation": seen})
        return models.JobOutcome(
            accepted=verdict.accepted,
            price=verdict.price,
            reason=verdict.reason,
            reservation=seen or None,
            job=job or None,
            alternative=alternative,
        )

    def decided(self, outcome: models.Outcome) -> None:
        """Have what the market took begin, if its time has come."""
        taken = outcome.reservation
        if taken is not None and taken.start.timestamp() <= self.services.market.clock():
            self.services.reconciler.wake()


class ReservationsHandler(BidHandler):
    """GET and POST reservations"""

    @endpoint("Reservations, newest first", list[models.Reservation], query=ReservationQuery)
    async def get(self, query: ReservationQuery) -> list[models.Reservation]:
        user = self.looking_at(query.user, query.everybody)
        narrowed = {**query.narrowed(), "user": user, "kind": query.kind}
        found = await self.read(lambda: self.services.market.reservations(**narrowed))
        return [self.may_see(each) for each in page(self, query, found)]

    @endpoint(
        "Bid for a notebook server",
        models.Outcome,
        body=models.ReservationRequest,
        scopes=(Scope.BID, Scope.SPAWN),
    )
    async def post(self, body: models.ReservationRequest) -> models.Outcome:
        user = self.acting_for(body.user)
        groups = await groups_of(self, user)
        coming = Coming(user, body.server_name)
        outcome = await once(
            self, models.Outcome, body, self._reserve, user, body, groups, coming=coming
        )
        self.decided(outcome)
        return outcome

    def _reserve(
        self, user: str, body: models.ReservationRequest, groups: tuple[str, ...]
    ) -> models.Outcome:
        found = self.outcome(self.services.market.reserve(user, body, groups), body)
        return models.Outcome(
            **{name: getattr(found, name) for name in models.Outcome.model_fields}
        )


class ReservationHandler(VersionedHandler):
    """GET and DELETE reservations/{id}"""

    @endpoint("One reservation", models.Reservation)
    async def get(self, reservation_id: str) -> models.Reservation:
        found = await self.own(reservation_id)
        self.tag(found)
        return found

    @endpoint("Cancel a reservation, or release the rest of it", models.Reservation)
    async def delete(self, reservation_id: str) -> models.Reservation:
        await self.own(reservation_id)
        ended = await once(self, models.Reservation, None, self._give_back, reservation_id)
        self.services.reconciler.wake()
        return ended

    def _give_back(self, reservation_id: str) -> models.Reservation:
        # The spawner gives back when the server has stopped, users while it runs.
        stopped = self.require(Scope.BID, Scope.ADMIN, Scope.SPAWN).may(Scope.SPAWN)
        market = self.services.market
        return self.may_see(market.give_back(reservation_id, stopped, self.versions()))


class ExtendHandler(BidHandler, VersionedHandler):
    """POST reservations/{id}/extend"""

    @endpoint(
        "Bid for more time after the end of a reservation",
        models.JobOutcome,
        body=models.ExtensionRequest,
        scopes=(Scope.BID, Scope.SPAWN),
    )
    async def post(self, reservation_id: str, body: models.ExtensionRequest) -> models.JobOutcome:
        owner = self.acting_for((await self.own(reservation_id)).user)
        groups = await groups_of(self, owner)
        outcome = await once(
            self, models.JobOutcome, body, self._extend, reservation_id, body, groups
        )
        self.decided(outcome)
        return outcome

    def _extend(
        self, reservation_id: str, body: models.ExtensionRequest, groups: tuple[str, ...]
    ) -> models.JobOutcome:
        market = self.services.market
        return self.outcome(market.extend(reservation_id, body, groups, self.versions()))


class ExtensionQuoteHandler(ApiHandler):
    """POST reservations/{id}/extend/quote"""

    @endpoint(
        "What more time after the end of a reservation costs",
        models.ExtensionQuote,
        body=models.ExtensionQuoteRequest,
        writes=False,
    )
    async def post(
        self, reservation_id: str, body: models.ExtensionQuoteRequest
    ) -> models.ExtensionQuote:
        await self.own(reservation_id)
        return await self.run(self.services.market.quote_extension, reservation_id, body)


class ClaimHandler(ApiHandler):
    """POST reservations/{id}/claim"""

    @endpoint("Start a reservation and get its GPUs", models.Reservation, scopes=(Scope.SPAWN,))
    async def post(self, reservation_id: str) -> models.Reservation:
        return await once(self, models.Reservation, None, self._claim, reservation_id)

    def _claim(self, reservation_id: str) -> models.Reservation:
        return self.may_see(self.services.market.claim(reservation_id))
