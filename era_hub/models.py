"""Public models: what goes over the wire, and nothing else.

These pydantic models validate every request, shape every answer and generate
the OpenAPI document. They know nothing of storage. Times are aware datetimes
(ISO 8601 in JSON), durations whole seconds, money integer micro-credits.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

MICRO = 1_000_000
"""Micro-credits in one credit."""

MAX_CREDITS = 1_000_000_000
"""The largest amount of credits accepted from outside; keeps sums inside 64 bits."""

OWN = "own"
"""How a bid names its user's own account; a group's is ``group:NAME``."""

_NUMBER = r"\d+(?:\.\d+)?"
# Blanks follow one thing only each, so that a long text that fails does so fast.
_DURATION = re.compile(
    rf"(?:(?P<d>{_NUMBER})\s*d\s*)?(?:(?P<h>{_NUMBER})\s*h\s*)?"
    rf"(?:(?P<m>{_NUMBER})\s*m(?:in)?\s*)?(?:(?P<s>{_NUMBER})\s*s)?|(?P<alone>{_NUMBER})"
)
_UNIT_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1, "alone": 1}


def parse_duration(value: Any) -> int:
    """Whole seconds from ``90``, ``"90"``, ``"30m"``, ``"1h30m"`` or ``"2d"``.

    Raises
    ------
    ValueError
        If the text is no duration, or the duration is not positive and finite.
    """
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or a text such as 30m or 1h30m")
    if isinstance(value, (int, float)):
        seconds: float = value
    else:
        match = _DURATION.fullmatch(str(value).strip())
        if not match or not any(match.groupdict().values()):
            raise ValueError(
                f"{value!r} is not a duration; use seconds or a text such as 30m, 1h30m or 2d"
            )
        seconds = sum(
            float(part) * _UNIT_SECONDS[unit] for unit, part in match.groupdict().items() if part
        )
    if not 0 < seconds < 10**9:
        raise ValueError("a duration must be more than zero seconds")
    return max(1, round(seconds))


def micro_credits(credits: str | float | Decimal) -> int:
    """Integer micro-credits from an amount in credits, e.g. ``"2.5"`` -> 2500000.

    Raises
    ------
    ValueError
        If the amount is not a finite number from 0 to a billion credits.
    """
    try:
        amount = Decimal(str(credits))
    except InvalidOperation:
        raise ValueError(f"{credits!r} is not an amount of credits, such as 2.50") from None
    if not amount.is_finite() or not 0 <= amount <= MAX_CREDITS:
        raise ValueError(f"an amount must be from 0 to {MAX_CREDITS:,} credits")
    return int(amount * MICRO)


def format_credits(micro: int) -> str:
    """An amount for people: at least two decimals, up to six where they matter."""
    sign = "-" if micro < 0 else ""
    whole, rest = divmod(abs(micro), MICRO)
    digits = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}"


MicroCredits = Annotated[
    int,
    Field(ge=0, le=MAX_CREDITS * MICRO, description="integer micro-credits; 1 credit = 1000000"),
]
Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    Field(description="whole seconds; requests may also say 30m, 1h30m or 2d"),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "string"}]},
        mode="validation",
    ),
]

AccountName = Annotated[str, Field(pattern=r"^(own|group:[^\x00-\x1f]{1,200})$")]
Payer = Annotated[
    AccountName | None,
    Field(
        description="who pays: `own`, or `group:NAME` for a group you are in; default: as your "
        "hub's admins have set it"
    ),
]


class Model(BaseModel):
    """Base of all public models; answers may gain fields that older clients ignore."""


class Kind(StrEnum):
    """What a reservation is for."""

    NOTEBOOK = "notebook"
    JOB = "job"


class State(StrEnum):
    """The life of a reservation; all but the first two are final."""

    ACCEPTED = "accepted"
    ACTIVE = "active"
    COMPLETED = "completed"
    RELEASED = "released"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self not in (State.ACCEPTED, State.ACTIVE)


class JobState(StrEnum):
    """The life of a job's process; the last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"

    @property
    def final(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Commitment(StrEnum):
    """What the promise of an accepted bid fixes."""

    FIXED = "fixed"
    FLEXIBLE = "flexible"
    PREEMPTIBLE = "preemptible"


class RequestBase(Model):
    """Resources for a duration somewhere in the window [arrival, deadline)."""

    # In requests unknown fields are errors, so that typos are found.
    model_config = ConfigDict(extra="forbid")

    configuration: str = Field(description="name of a configuration of the market", max_length=200)
    count: int = Field(1, ge=1, le=1_000_000, description="how many of the configuration")
    duration: Duration
    arrival: AwareDatetime | None = Field(None, description="earliest start; default: now")
    deadline: AwareDatetime | None = Field(
        None,
        description="latest end; default: arrival + duration, so start at arrival or not at all",
    )

    @model_validator(mode="after")
    def _window(self) -> RequestBase:
        if self.arrival and self.deadline and self.deadline <= self.arrival:
            raise ValueError("the deadline must be later than the arrival")
        return self


class QuoteRequest(RequestBase):
    """Ask for prices without commitment."""

    commitment: Commitment = Field(
        Commitment.FIXED,
        description="as of the bid that may follow: a notebook is `fixed`, a job what it asks for",
    )


class ReservationRequest(RequestBase):
    """A bid for a notebook server, now or later in the window."""

    value: MicroCredits = Field(description="the most you will pay, in micro-credits; kept sealed")
    server_name: str = Field("", max_length=200, description="named server; empty for the default")
    user: str | None = Field(
        None, max_length=200, description="on whose behalf; for the spawner's service only"
    )
    account: Payer = None


class JobRequest(RequestBase):
    """A bid for a background job: a script or a command run on reserved GPUs."""

    value: MicroCredits = Field(description="the most you will pay, in micro-credits; kept sealed")
    name: str = Field("job", min_length=1, max_length=200)
    script: str | None = Field(
        None, max_length=1_000_000, description="source text, written to the job's directory"
    )
    filename: str = Field(
        "script.py",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$",
        description="name of the script",
    )
    command: list[Annotated[str, Field(max_length=10_000)]] | None = Field(
        None,
        min_length=1,
        max_length=1_000,
        description='what to run; default: ["python3", filename]. Runs in the job\'s directory',
    )
    args: list[Annotated[str, Field(max_length=10_000)]] = Field(
        default_factory=list, max_length=1_000, description="appended to the command"
    )
    environment: dict[str, Annotated[str, Field(max_length=32_768)]] = Field(
        default_factory=dict, max_length=200
    )
    commitment: Commitment = Field(
        Commitment.FLEXIBLE,
        description="`flexible`: may be moved within its window until it starts, and starts early "
        "where GPUs are idle; `preemptible`: may besides be stopped and go on later, for less, so "
        "it must write checkpoints; `fixed`: keeps the start that it is told",
    )
    account: Payer = None

    @model_validator(mode="after")
    def _something_to_run(self) -> JobRequest:
        if self.script is None and self.command is None:
            raise ValueError("give a script or a command to run")
        if self.filename == "log":
            raise ValueError("filename: the job's own log is called so; choose another name")
        texts = [self.name, *(self.command or []), *self.args, *self.environment.values()]
        if any("\0" in text for text in texts):
            raise ValueError("name, command, arguments and environment may not hold NUL characters")
        for key in self.environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
                raise ValueError(f"{key!r} is not a name for an environment variable")
        return self


class ExtensionQuoteRequest(Model):
    """Ask what more time costs, without commitment."""

    model_config = ConfigDict(extra="forbid")

    duration: Duration


class ExtensionRequest(ExtensionQuoteRequest):
    """A bid for more time right after the end of a reservation."""

    value: MicroCredits = Field(
        description="the most you will pay for the extension, in micro-credits; kept sealed"
    )


class Start(Model):
    """One feasible start and its price."""

    start: datetime
    end: datetime
    price: MicroCredits


class Quote(Model):
    """The cheapest start in the window, and the price at every other start."""

    configuration: str
    duration: int = Field(description="seconds, rounded up to whole slots")
    feasible: bool
    best: Start | None = Field(description="the cheapest start; null if nothing fits")
    starts: list[Start] = Field(description="every feasible start in the window, in time order")
    alternative: Start | None = Field(
        None, description="the cheapest start outside the window, where the window has none"
    )


class ExtensionQuote(Model):
    """What more time right after the end of a reservation costs now."""

    feasible: bool
    price: MicroCredits | None = Field(description="of the extension; null if it is not possible")
    end: datetime = Field(description="when the reservation would end, after whole slots")
    reason: str | None = Field(None, description="why it is not possible")


class Reservation(Model):
    """An accepted bid. The price is fixed."""

    id: str
    kind: Kind
    user: str
    server_name: str = ""
    configuration: str
    count: int = 1
    units: int = Field(description="GPUs")
    state: State
    arrival: datetime
    deadline: datetime
    duration: int = Field(description="seconds")
    start: datetime
    end: datetime
    value: MicroCredits | None = Field(None, description="shown to the owner only")
    price: MicroCredits
    refunded: MicroCredits = 0
    account: str = Field(OWN, description="who pays: `own` (the user) or `group:NAME`")
    version: int = Field(1, description="counts the changes; the ETag goes with it")
    gpus: list[int] | None = Field(None, description="indices while active, if they are numbered")
    resources: dict[str, str] = Field({}, description="of each of `count`, in Kubernetes notation")
    nodes: list[str] = Field([], description="of each of `count`; empty in a pool of one machine")
    commitment: Commitment = Field(Commitment.FIXED, description="what may still be changed")
    message: str = ""
    created: datetime
    ended: datetime | None = None


class Outcome(Model):
    """The market's answer to a bid. A declined bid is an answer, not an error."""

    accepted: bool
    price: MicroCredits | None = Field(description="the price; null if nothing fits the window")
    reason: str | None = Field(None, description="why the bid was declined")
    reservation: Reservation | None = None
    alternative: Start | None = Field(
        None, description="the cheapest other start that would fit, where one exists"
    )


class Job(Model):
    """A background job with its reservation."""

    id: str = Field(description="the same as the id of its reservation")
    name: str
    user: str
    state: JobState
    progress: float | None = Field(None, ge=0, le=1, description="read from the log")
    exit_code: int | None = None
    message: str = ""
    directory: str | None = Field(None, description="where it runs; output and log stay there")
    reservation: Reservation


class JobOutcome(Outcome):
    """The market's answer to a job's bid."""

    job: Job | None = None


class Log(Model):
    """A piece of a job's log."""

    text: str
    offset: int = Field(description="pass as ?offset= to read on")
    complete: bool = Field(description="the job has ended and this is the end of its log")


class PriceForecast(Model):
    """What the slots may cost when they are asked for later; lists as of the prices.

    Null where the slot is sold out now.
    """

    expected: list[MicroCredits | None] = Field(description="expected price of each slot")
    low: list[MicroCredits | None] = Field(
        description="in one of ten cases the price is below this one"
    )
    high: list[MicroCredits | None] = Field(
        description="in one of ten cases the price is above this one"
    )


class ConfigurationPrices(Model):
    """A configuration for sale with its price at every slot of the chart."""

    name: str
    title: str
    description: str = ""
    resources: dict[str, str] = Field(description="in Kubernetes notation")
    gpus: int
    price_per_hour: MicroCredits | None = Field(description="now; null if none is free now")
    prices: list[MicroCredits | None] = Field(
        description="price of each slot from `first_slot` on, if it is asked for now; null where "
        "it is sold out"
    )
    forecast: PriceForecast | None = Field(
        None, description="prices to expect later; null for what costs nothing"
    )


class Market(Model):
    """Prices now and for the coming hours."""

    now: datetime
    pool: str
    slot: int = Field(description="length of a slot in seconds")
    first_slot: datetime = Field(description="start of the first slot in the lists")
    horizon: datetime = Field(description="nothing can be reserved beyond this time")
    resource: str
    simulated: bool = Field(description="the GPUs are simulated, not real ones")
    capacity: list[int] = Field(description="GPUs in each slot")
    promised: list[int] = Field(description="GPUs reserved in each slot")
    configurations: list[ConfigurationPrices]


class LedgerEntry(Model):
    """One movement on an account."""

    id: int
    at: datetime
    kind: Literal["grant", "withdrawal", "expiry", "hold", "refund"]
    amount: int = Field(description="signed micro-credits")
    balance: int = Field(description="after this entry")
    reservation: str | None = None
    part: int = Field(0, description="0 for a reservation's first price, then its extensions")
    memo: str
    text: str = Field("", description="what it means, in a sentence")
    start: datetime | None = Field(None, description="of the reservation")
    end: datetime | None = Field(None, description="of the reservation, as it is now")
    expires: datetime | None = Field(None, description="when these credits lapse")


class Account(Model):
    """The credits of a user, or of a group."""

    name: str = Field(description="of the user or the group")
    balance: int = Field(description="free to spend, in micro-credits")
    held: int = Field(description="set aside for reservations that have not ended")
    entries: list[LedgerEntry] = Field(description="newest first")


class AccountSummary(Model):
    """An account that the caller may pay with."""

    account: str = Field(description="as a bid names it: `own` or `group:NAME`")
    balance: int = Field(description="free to spend, in micro-credits")
    held: int = Field(description="set aside for reservations that have not ended")
    default: bool = Field(description="whether it pays where a bid does not say")


class Notice(Model):
    """Something a user should know now, such as a reservation about to end."""

    id: str
    level: Literal["info", "warning"]
    text: str
    reservation: str
    at: datetime


class User(Model):
    """Who is calling."""

    name: str
    kind: Literal["user", "service"]
    scopes: list[str]


class Problem(Model):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = Field("", description="the request's id, as in X-Request-ID and the log")


class Health(Model):
    """Whether the service can do its work, and which of several replicas has answered."""

    status: Literal["ok"]
    leads: bool = Field(True, description="whether this replica writes")
    follows: str | None = Field(None, description="where the one is that writes, if another does")
    lag: float = Field(
        0, description="seconds for which something may have changed that it does not know"
    )


class Version(Model):
    """Versions of the service and its API."""

    version: str
    api: str
