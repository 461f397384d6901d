"""What the calls below ``admin/`` share: their queries, and how they ask and change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from sqlalchemy.orm import Session

from .. import admin_models as models
from ..admin import Admin, Call
from ..admin_models import AdminChange
from ..logs import request_id
from ..market.once import Call as Repeat
from ..store.answers import digest
from .base import ApiHandler, Problem, Scope

T = TypeVar("T")
ADMINS = (Scope.ADMIN,)
CHANGE = TypeAdapter(AdminChange)


class Query(BaseModel):
    """A misspelt `preview` must not become a change."""

    model_config = ConfigDict(extra="forbid")


class ChangeQuery(Query):
    """Whether to change anything."""

    preview: bool = Field(False, description="only say what the change would do")


class VersionQuery(ChangeQuery):
    """Which version is to go."""

    version: models.Version = Field(description="as you read it; 409 if it has changed")


class PolicyQuery(VersionQuery):
    """Which policy is to go."""

    kind: models.Owner
    name: models.GivenName


class QuotaQuery(VersionQuery):
    """Which limits are to go."""

    kind: models.QuotaKind
    name: models.Name = Field("", description="empty for everyone")


class AccountsQuery(Query):
    """Which accounts."""

    kind: Literal["user", "group", "system"] | None = Field(
        None, description="default: users and groups"
    )
    search: str = Field("", max_length=200, description="a part of the name")
    below: int | None = Field(
        None, ge=-(1 << 62), lt=1 << 62, description="a balance below this, in micro-credits"
    )
    after: str | None = Field(None, max_length=400, description="`next` of the part before")
    limit: int = Field(100, ge=1, le=1000)


class OlderQuery(Query):
    """How far back."""

    before: int | None = Field(
        None, ge=0, lt=1 << 62, description="`next` of the part before, for older ones"
    )
    limit: int = Field(100, ge=1, le=1000)


class AccountQuery(OlderQuery):
    """Which account, and which entries."""

    kind: Literal["user", "group", "system"]
    name: models.GivenName


class UserQuery(Query):
    """Which user."""

    name: models.GivenName


class AuditQuery(OlderQuery):
    """Which changes."""

    actor: str | None = Field(None, max_length=400, description="such as admin:ann")
    subject: str | None = Field(None, max_length=400, description="such as user:bob")
    action: str | None = Field(None, max_length=100, description="such as quota.set")


class GrantsQuery(Query):
    """Which standing grants."""

    kind: Literal["user", "group", "everyone"] | None = None
    name: str | None = Field(None, max_length=200)
    ended: bool = Field(False, description="also those that are over")


class WindowsQuery(Query):
    """Which maintenance windows."""

    past: bool = Field(False, description="also those that are over")


class HoldersQuery(Query):
    """Whose reservations."""

    user: str | None = Field(None, max_length=200)
    after: str | None = Field(None, max_length=200, description="`next` of the part before")
    limit: int = Field(100, ge=1, le=1000)


class DemandQuery(Query):
    """How far to look back."""

    days: int = Field(14, ge=1, le=366)


class AdminHandler(ApiHandler):
    """Asks and changes in the name of an admin."""

    @property
    def admin(self) -> Admin:
        """The changes that there are."""
        return Admin(self.services.market)

    async def ask(self, question: Callable[[Session, int], T]) -> T:
        """Answer a question from what is stored."""
        market = self.services.market

        def answer() -> T:
            with market.reading() as session:
                return question(session, market.clock())

        return await self.read(answer)

    async def change(
        self, query: ChangeQuery, change: Callable[..., AdminChange], *args: Any
    ) -> AdminChange:
        """Make a change, or say what it would do. With an Idempotency-Key only once."""
        caller = self.require(*ADMINS)
        actor = caller.name if caller.kind == "user" else f"{caller.kind}:{caller.name}"
        call = Call(f"admin:{actor}", query.preview, request_id() or "")
        key = self.request.headers.get("Idempotency-Key")
        if key is None or query.preview:
            answer = await self.run(change, call, *args)
        else:
            asked = digest(str(self.request.method), self.request.uri or "", bytes(self._body))
            repeat = Repeat(call.actor, key, asked)
            once = self.services.market.once
            answer = await self.run(once, repeat, CHANGE, change, call, *args)
        if answer.applied:
            self.services.reconciler.wake()  # a grant may be due, or a workload to be stopped
        return answer


def number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Problem(404, f"there is no {what} {text[:40]!r}")
    return int(text)
