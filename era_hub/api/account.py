"""The caller: who they are, their credits, what they should know."""

from __future__ import annotations

from pydantic import BaseModel, Field

from .. import models, views
from ..models import Kind, Notice, State
from .base import ApiHandler, Problem, Scope, endpoint
from .groups import groups_of

WARN_MINUTES = (5, 15)


class AccountQuery(BaseModel):
    """Whose account."""

    user: str | None = Field(None, description="for admins and the spawner: whose")
    account: models.AccountName = Field(
        models.OWN, description="`own`, or `group:NAME` for a group that the user is in"
    )
    limit: int = Field(100, ge=1, le=1000, description="at most so many entries")
    before: int | None = Field(
        None, ge=0, lt=1 << 62, description="only entries older than the one of this id"
    )


class AccountsQuery(BaseModel):
    """Whose accounts."""

    user: str | None = Field(None, description="for admins and the spawner: whose")


class UserHandler(ApiHandler):
    """GET user"""

    @endpoint("Who is calling", models.User)
    async def get(self) -> models.User:
        caller = self.require(Scope.BID, Scope.ADMIN, Scope.SPAWN)
        return models.User(name=caller.name, kind=caller.kind, scopes=sorted(caller.scopes))


class AccountHandler(ApiHandler):
    """GET account"""

    @endpoint("Balance and ledger", models.Account, query=AccountQuery)
    async def get(self, query: AccountQuery) -> models.Account:
        user = self.looking_at(query.user)
        if user is None:
            raise Problem(422, "user: say whose account")
        groups = () if query.account == models.OWN else await groups_of(self, user)
        statement = await self.run(
            self.services.market.statement, user, query.limit, query.before, query.account, groups
        )
        return models.Account(
            name=user if query.account == models.OWN else query.account.removeprefix("group:"),
            balance=statement.balance,
            held=statement.held,
            entries=statement.entries,
        )


class AccountsHandler(ApiHandler):
    """GET accounts"""

    @endpoint(
        "The accounts that may pay for bids, and their balances",
        list[models.AccountSummary],
        query=AccountsQuery,
    )
    async def get(self, query: AccountsQuery) -> list[models.AccountSummary]:
        user = self.looking_at(query.user)
        if user is None:
            raise Problem(422, "user: say whose accounts")
        groups = await groups_of(self, user)
        return await self.run(self.services.market.accounts, user, groups)


class NoticesHandler(ApiHandler):
    """GET notices"""

    @endpoint("What the caller should know now", list[models.Notice])
    async def get(self) -> list[Notice]:
        user = self.looking_at(None)
        market = self.services.market
        found = await self.read(
            lambda: market.reservations(user=user, current=True, kind=Kind.NOTEBOOK)
        )
        now = market.clock()
        return [notice for each in found if (notice := _ending(each, now)) is not None]


def _ending(reservation: models.Reservation, now: int) -> Notice | None:
    """The warning 15 and 5 minutes before a running notebook's reservation ends."""
    left = int(reservation.end.timestamp()) - now
    if reservation.state is not State.ACTIVE or left <= 0:
        return None
    for minutes in WARN_MINUTES:
        if left <= minutes * 60:
            return Notice(
                id=f"{reservation.id}-{minutes}",
                level="warning",
                text=f"Your reservation ends in {max(1, round(left / 60))} min, and the server "
                "stops then. Save your work.",
                reservation=reservation.id,
                at=views.when(now),
            )
    return None
