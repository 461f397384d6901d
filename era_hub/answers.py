"""What the market answers: verdicts, accounts, refusals, and their words."""

from __future__ import annotations

from dataclasses import dataclass

from era_pricing import Decision
from era_pricing import Quote as EngineQuote

from . import models, views
from .store.tables import Reservation


class MarketError(Exception):
    """A request the market can't follow; the text says why and what would work.

    `status` is how HTTP says it.
    """

    status = 422


class NotFound(MarketError):
    """No such reservation or job."""

    status = 404


class Conflict(MarketError):
    """Not possible in the reservation's present state."""

    status = 409


class Forbidden(MarketError):
    """Not for this user."""

    status = 403


class Outdated(MarketError):
    """The reservation has changed since the caller looked at it."""

    status = 412


@dataclass(frozen=True)
class Verdict:
    """The market's answer to a bid."""

    accepted: bool
    price: int | None
    reason: str | None
    quote: EngineQuote | None
    reservation: models.Reservation | None = None
    job: models.Job | None = None


@dataclass(frozen=True)
class Loss:
    """A reservation that the pool can no longer honour, and what its payer gets back."""

    reservation: models.Reservation
    refund: int


@dataclass(frozen=True)
class Run:
    """A time [start, end) in which a reservation's workload may run, and the node of each bundle.

    UTC seconds; no nodes in a pool of one machine.
    """

    start: int
    end: int
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Due:
    """A reservation that has begun, or still has a workload, and how far that is.

    Attributes
    ----------
    reservation : models.Reservation
    now : Run or None
        What its time is now; None while a job that runs in parts has to wait.
    started : int
        How often its workload was started.
    nodes : tuple of str or None
        Where it was started the last time; None if nothing runs.
    end : int or None
        When that run ends, UTC seconds.
    displaced : bool
        Whether what runs is not where, or not when, its reservation is by now.
    """

    reservation: models.Reservation
    now: Run | None
    started: int
    nodes: tuple[str, ...] | None
    end: int | None
    displaced: bool


@dataclass(frozen=True)
class Statement:
    """An account as those see it who may pay from it."""

    balance: int
    held: int
    entries: list[models.LedgerEntry]


@dataclass(frozen=True)
class Work:
    """What a job is to run: a command, files for its directory, and environment."""

    command: tuple[str, ...]
    files: dict[str, str]
    environment: dict[str, str]


def accepted(row: Reservation, payer: str, price: int, quote: EngineQuote) -> Verdict:
    """The verdict on a bid that was taken, for a new reservation or to extend one."""
    return Verdict(
        True,
        price,
        None,
        quote,
        views.reservation(row, payer),
        None if row.job is None else views.job(row.job, payer),
    )


def declined(decision: Decision) -> str:
    """Why the engine did not take a bid."""
    if decision.price is None:
        return decision.reason or "nothing is free in the window"
    price = models.format_credits(decision.price)
    return f"the price is {price} credits, more than the most you would pay"


def too_poor(price: int, balance: int, payer: str) -> str:
    """Why an account could not pay."""
    whose = "your account" if payer == models.OWN else f"the account of {payer}"
    return (
        f"the price is {models.format_credits(price)} credits, but only "
        f"{models.format_credits(balance)} are free on {whose}"
    )


def hours(seconds: int) -> str:
    """A duration for people."""
    parts = ((seconds // 3600, "h"), (seconds % 3600 // 60, "min"), (seconds % 60, "s"))
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount)
