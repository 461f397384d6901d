"""Public models of what admins ask and change: the calls below ``admin/``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints, model_validator

from .models import MAX_CREDITS, MICRO, Duration, MicroCredits, Model, State

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
]
GivenName = Annotated[Name, StringConstraints(min_length=1)]
Memo = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)]
Version = Annotated[int, Field(ge=0, lt=1 << 62)]
Positive = Annotated[int, Field(gt=0, le=MAX_CREDITS * MICRO)]
Owner = Literal["user", "group"]
Amount = Annotated[int, Field(description="signed micro-credits")]


class Request(Model):
    """Base of all bodies: unknown fields are errors, so that typos are found."""

    model_config = ConfigDict(extra="forbid")


# -- what every change answers ---------------------------------------------------------


class Effect(Model):
    """One thing that a change does, for people."""

    level: Literal["info", "warning"] = Field(description="warnings are what hurts somebody")
    text: str
    user: str | None = Field(None, description="whom it concerns, where that is one user")


class AdminChange(Model):
    """What a change did; with ``?preview=true`` what it would do, and nothing was changed."""

    applied: bool
    action: str = Field(description="such as `credits.grant` or `quota.set`")
    subject: str = Field(description="such as `user:ann`, `grant:3` or `pool:local`")
    before: dict[str, Any] | None = Field(description="as it was; null for what is new")
    after: dict[str, Any] | None = Field(description="as it is then; null for what is gone")
    effects: list[Effect]


# -- accounts ----------------------------------------------------------------------------


class AccountLine(Model):
    """One account in the list of all."""

    kind: Literal["user", "group", "system"]
    name: str
    balance: Amount
    held: MicroCredits = Field(description="set aside for reservations that have not ended")
    overdraft: MicroCredits = Field(description="how far the balance may fall below zero")
    lapsing: MicroCredits = Field(description="how much of the balance lapses at some time")
    open_reservations: int
    created: datetime


class AccountPage(Model):
    """A part of the list of accounts, by kind and name."""

    items: list[AccountLine]
    next: str | None = Field(description="pass as ?after= for the next part; null at the end")


class LapsingCredits(Model):
    """Credits that lapse."""

    remaining: MicroCredits
    expires: datetime


class StatementLine(Model):
    """One entry of an account, explained."""

    id: int
    at: datetime
    kind: Literal["grant", "withdrawal", "expiry", "hold", "charge", "refund"]
    amount: Amount
    balance: Amount = Field(description="after this entry")
    reservation: str | None = None
    actor: str = Field(description="`market`, `grant:<id>` or `admin:<name>`")
    memo: str
    text: str = Field(description="what happened, in a sentence")
    expires: datetime | None = Field(None, description="when these credits lapse, if they do")


class AdminStatement(Model):
    """An account with its entries, newest first."""

    account: AccountLine
    lots: list[LapsingCredits] = Field(description="what lapses, first to lapse first")
    items: list[StatementLine]
    next: int | None = Field(description="pass as ?before= for older ones; null at the end")


class OfAccount(Request):
    """Which account. Not in the path: names of groups may hold slashes."""

    kind: Owner
    name: GivenName


class CreditsGrant(OfAccount):
    """Give credits to one account, now and once; it is opened if it is not there."""

    amount: Positive = Field(description="micro-credits")
    memo: Memo = Field("", description="why; the owner reads it")
    expires_after: Duration | None = Field(None, description="they lapse so much later")


class CreditsWithdrawal(OfAccount):
    """Take credits back from one account."""

    amount: Positive | None = Field(None, description="micro-credits; default: all that is there")
    memo: Memo = Field("", description="why; the owner reads it")


class OverdraftChange(OfAccount):
    """How far an account's balance may fall below zero."""

    overdraft: MicroCredits
    expected: MicroCredits | None = Field(
        None, description="what it was when you looked; if it is not, nothing is changed (409)"
    )


# -- standing grants ---------------------------------------------------------------------


class StandingGrant(Model):
    """Credits given at a time, or again and again."""

    id: int
    kind: Literal["user", "group", "everyone"]
    name: str = Field(description="empty for everyone")
    amount: MicroCredits
    period: int | None = Field(description="seconds from one time to the next; null: once")
    cap: MicroCredits | None = Field(description="no account is topped up above this")
    anchor: datetime = Field(description="the first time")
    expires_after: int | None = Field(description="seconds after which they lapse; null: never")
    next_at: datetime | None = Field(description="the next time; null when it is over")
    created: datetime
    actor: str
    ended: datetime | None
    version: int


class GrantRequest(Request):
    """Plan credits for a user, a group's account, or every user."""

    kind: Literal["user", "group", "everyone"]
    name: Name = Field("", description="of the user or group; empty for everyone")
    amount: Positive = Field(description="micro-credits, each time")
    period: Duration | None = Field(None, description="from one time to the next; default: once")
    cap: Positive | None = Field(None, description="top up to this balance at most")
    anchor: AwareDatetime | None = Field(None, description="the first time; default: now")
    expires_after: Duration | None = Field(None, description="each time's credits lapse after this")

    @model_validator(mode="after")
    def _named(self) -> GrantRequest:
        _check_name(self.kind, self.name)
        return self


class GrantChange(Request):
    """Set what a standing grant gives from its next time on."""

    version: Version
    amount: Positive = Field(description="micro-credits, each time")
    cap: Positive | None = Field(None, description="top up to this balance at most")
    expires_after: Duration | None = Field(None, description="each time's credits lapse after this")


# -- who pays ------------------------------------------------------------------------------


class PayerPolicy(Model):
    """Who pays for a user, or for a group's members, where a bid does not say."""

    kind: Owner
    name: str
    pays: str | None = Field(description="`own` or `group:NAME`")
    rank: int | None = Field(
        description="for groups: of several policies the one of lowest rank holds"
    )
    version: int


class PayerPolicyRequest(Request):
    """Set who pays. `version` is 0 for a policy that is new."""

    kind: Owner
    name: GivenName
    pays: Annotated[str, StringConstraints(pattern=r"^(own|group:.{1,200})$")]
    rank: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    version: Version = 0

    @model_validator(mode="after")
    def _ranked(self) -> PayerPolicyRequest:
        if (self.rank is None) == (self.kind == "group"):
            raise ValueError("rank: a group's policy needs one, a user's has none")
        return self


# -- quotas ----------------------------------------------------------------------------------

QuotaKind = Literal["everyone", "member", "user", "group"]


class Limits(Model):
    """Limits of one row; null says nothing of that sort."""

    gpus: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="GPUs at once, at any time ahead"
    )
    gpu_seconds: Annotated[int, Field(ge=0, lt=1 << 50)] | None = Field(
        None, description="GPU-seconds in each period"
    )
    period: Duration | None = Field(None, description="length of a period, for gpu_seconds")
    longest: Duration | None = Field(None, description="the longest reservation")
    horizon: Duration | None = Field(None, description="how far ahead a reservation may end")
    configurations: list[GivenName] | None = Field(
        None, max_length=1000, description="the only ones allowed"
    )


class Quota(Limits):
    """Limits of everyone, of a group's members each, of a user, or of a group in sum."""

    kind: QuotaKind
    name: str = Field(description="empty for everyone")
    version: int


class QuotaRequest(Limits):
    """Set all limits of one row. `version` is 0 for a row that is new."""

    model_config = ConfigDict(extra="forbid")

    kind: QuotaKind
    name: Name = ""
    version: Version = 0

    @model_validator(mode="after")
    def _sensible(self) -> QuotaRequest:
        _check_name(self.kind, self.name)
        if (self.gpu_seconds is None) != (self.period is None):
            raise ValueError("gpu_seconds and period: give both or none")
        return self


class LimitUse(Model):
    """One limit of a user, and what is left of it."""

    limit: Literal["gpus", "gpu_seconds", "longest", "horizon", "configurations"]
    value: Any = Field(description="the limit: a number, or a list of configurations")
    used: int | None = None
    left: int | None = None
    text: str


class UserReport(Model):
    """A user as admins see them: money, limits, and what they hold. No bid's value."""

    name: str
    groups: list[str]
    groups_from: Literal["hub", "last bid"] = Field(
        description="whether the user is in them now, as the hub says, or was at the last bid, "
        "as the hub does not answer"
    )
    account: AccountLine | None = Field(description="null for a user who never came")
    payer: str = Field(description="who pays where a bid does not say: `own` or `group:NAME`")
    payers: list[str] = Field(description="the accounts that the user may choose from")
    limits: list[LimitUse]
    reservations: list[OpenReservation]


# -- who holds and waits for what ------------------------------------------------------------


class OpenReservation(Model):
    """A reservation that has not ended, without its sealed value."""

    id: str
    kind: Literal["notebook", "job"]
    user: str
    payer: str = Field(description="`own` or `group:NAME`")
    configuration: str
    gpus: int
    state: State
    start: datetime
    end: datetime
    price: MicroCredits
    waiting: bool = Field(description="it should run, and does not yet")
    message: str = ""


class Holder(Model):
    """What one user has and waits for."""

    user: str
    gpus_now: int = Field(description="of reservations that run now")
    gpus_waiting: int = Field(description="of reservations that should run, and do not yet")
    gpus_later: int = Field(description="of reservations that begin later, in sum")
    held: MicroCredits = Field(description="credits set aside for them")
    reservations: list[OpenReservation]


class HolderPage(Model):
    """A part of the list of users with open reservations, by name."""

    items: list[Holder]
    next: str | None = Field(description="pass as ?after= for the next part; null at the end")


class DemandDay(Model):
    """What was asked for on one day (UTC), in sums that show no single bid."""

    day: datetime
    bids: int
    accepted: int
    declined: int
    gpu_hours_asked: float
    gpu_hours_accepted: float
    turned_away: MicroCredits | None = Field(
        description="sum of what the declined bids offered; null where they are too few to tell "
        "without giving one of them away"
    )


class Demand(Model):
    """What was asked for, by day, oldest first."""

    pool: str
    at_least: int = Field(description="a sum of offers is shown only over so many bids")
    days: list[DemandDay]


# -- the pool --------------------------------------------------------------------------------


class PoolSettings(Model):
    """What admins have set for the pool, and what that means now."""

    pool: str
    price_floor: MicroCredits | None = Field(description="per GPU-hour; null: as configured")
    price_ceiling: MicroCredits | None = Field(description="per GPU-hour; null: as configured")
    held_back: int = Field(description="GPUs not for sale")
    gpus: int = Field(description="GPUs of the pool")
    floor_now: MicroCredits = Field(description="the floor that holds")
    ceiling_now: MicroCredits | None = Field(description="the ceiling that holds; null: none")
    version: int = Field(description="0 if nothing was ever set")


class PoolSettingsRequest(Request):
    """Set all settings of the pool; null is what the service is configured with."""

    version: Version
    price_floor: MicroCredits | None = None
    price_ceiling: MicroCredits | None = None
    held_back: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class MaintenanceWindow(Model):
    """A time in which some or all GPUs are not for sale."""

    id: int
    pool: str
    start: datetime
    end: datetime
    gpus: int | None = Field(description="how many; null: all")
    reason: str
    version: int


class MaintenanceRequest(Request):
    """Plan a maintenance window."""

    start: AwareDatetime
    end: AwareDatetime
    gpus: Annotated[int, Field(gt=0, le=1_000_000)] | None = Field(
        None, description="how many; default: all"
    )
    reason: Memo = Field("", description="users read it")

    @model_validator(mode="after")
    def _window(self) -> MaintenanceRequest:
        if self.end <= self.start:
            raise ValueError("end: must be later than the start")
        return self


class MaintenanceChange(MaintenanceRequest):
    """Change a maintenance window as a whole."""

    version: Version


class AuditLine(Model):
    """What an admin changed."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str


class AuditPage(Model):
    """A part of the audit log, newest first."""

    items: list[AuditLine]
    next: int | None = Field(description="pass as ?before= for older ones; null at the end")


class BookFinding(Model):
    """Something in the books that does not add up."""

    check: str
    subject: str
    text: str


class Books(Model):
    """Whether the books add up, proved from every entry."""

    at: datetime
    sound: bool
    seconds: float = Field(description="how long the proof took")
    findings: list[BookFinding]


def _check_name(kind: str, name: str) -> None:
    if kind == "everyone" and name:
        raise ValueError("name: leave it empty for everyone")
    if kind != "everyone" and not name:
        raise ValueError(f"name: say which {'user' if kind == 'user' else 'group'}")


UserReport.model_rebuild()
