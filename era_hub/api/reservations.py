"""Reservations of notebook servers, and what runs right now."""

from __future__ import annotations

from pydantic import BaseModel, Field

from .. import models
from ..answers import Verdict
from .base import ApiHandler, Scope, endpoint
from .market import find_alternative


class ListQuery(BaseModel):
    """Which reservations or jobs to list."""

    user: str | None = Field(None, description="for admins and the spawner: whose")
    everybody: bool = Field(False, description="for admins and the spawner: all users'")
    current: bool = Field(False, description="only those that have not ended")
    limit: int = Field(200, ge=1, le=1000)


class ReservationQuery(ListQuery):
    """Which reservations to list."""

    kind: models.Kind | None = None


class ReservationsHandler(ApiHandler):
    """GET and POST reservations"""

    @endpoint("Reservations, newest first", list[models.Reservation], query=ReservationQuery)
    async def get(self, query: ReservationQuery) -> list[models.Reservation]:
        user = self.looking_at(query.user, query.everybody)
        found = await self.run(
            self.services.market.reservations,
            user=user,
            current=query.current,
            kind=query.kind,
            limit=query.limit,
        )
        return [self.may_see(each) for each in found]

    @endpoint(
        "Bid for a notebook server",
        models.Outcome,
        body=models.ReservationRequest,
        scopes=(Scope.BID, Scope.SPAWN),
    )
    async def post(self, body: models.ReservationRequest) -> models.Outcome:
        user = self.acting_for(body.user)
        verdict = await self.bid(user, body)
        return models.Outcome(**await self.outcome(body, verdict))

    async def bid(self, user: str, body: models.ReservationRequest | models.JobRequest) -> Verdict:
        """Let the market decide, and have what it took begin."""
        key = self.request.headers.get("Idempotency-Key")
        verdict = await self.run(self.services.market.reserve, user, body, key)
        if verdict.accepted:
            self.services.reconciler.wake()
        return verdict

    async def outcome(self, body: models.RequestBase, verdict: Verdict) -> dict[str, object]:
        """The parts of an answer that notebooks' and jobs' bids have in common."""
        alternative = None
        if not verdict.accepted and verdict.quote is not None:
            market = self.services.market
            alternative = await self.run(find_alternative, market, body, verdict.quote)
        return {
            "accepted": verdict.accepted,
            "price": verdict.price,
            "reason": verdict.reason,
            "reservation": verdict.reservation and self.may_see(verdict.reservation),
            "alternative": alternative,
        }


class ReservationHandler(ApiHandler):
    """GET and DELETE reservations/{id}"""

    @endpoint("One reservation", models.Reservation)
    async def get(self, reservation_id: str) -> models.Reservation:
        return await self.own(reservation_id)

    @endpoint("Cancel a reservation, or release the rest of it", models.Reservation)
    async def delete(self, reservation_id: str) -> models.Reservation:
        await self.own(reservation_id)
        # The spawner gives back when the server has stopped, users while it runs.
        caller = self.require(Scope.BID, Scope.ADMIN, Scope.SPAWN)
        stopped = caller.may(Scope.SPAWN)
        ended = await self.run(self.services.market.give_back, reservation_id, stopped=stopped)
        self.services.reconciler.wake()
        return self.may_see(ended)


class ClaimHandler(ApiHandler):
    """POST reservations/{id}/claim"""

    @endpoint("Start a reservation and get its GPUs", models.Reservation, scopes=(Scope.SPAWN,))
    async def post(self, reservation_id: str) -> models.Reservation:
        return self.may_see(await self.run(self.services.market.claim, reservation_id))


class AllocationHandler(ApiHandler):
    """GET allocation"""

    @endpoint(
        "What runs right now, and on which GPUs",
        list[models.Reservation],
        scopes=(Scope.ADMIN, Scope.SPAWN),
    )
    async def get(self) -> list[models.Reservation]:
        market = self.services.market
        running = await self.run(market.era.get_current_allocation, market.clock())
        found = await self.run(market.reservations, current=True, limit=100_000)
        return [self.may_see(each) for each in found if each.id in running]
