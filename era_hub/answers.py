"""What the market answers: verdicts, accounts, refusals, and their words."""

from __future__ import annotations

from dataclasses import dataclass

from era_pricing import Decision
from era_pricing import Quote as EngineQuote

from . import models, views
from .store.ledger import Movement
from .store.tables import Reservation


class MarketError(Exception):
    """A request the market can't follow; the text says why and what would work."""


class NotFound(MarketError):
    """No such reservation or job."""


class Conflict(MarketError):
    """Not possible in the reservation's present state."""


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
class Statement:
    """An account as its owner sees it."""

    balance: int
    held: int
    movements: list[Movement]


@dataclass(frozen=True)
class Work:
    """What a job is to run: a command, files for its directory, and environment."""

    command: tuple[str, ...]
    files: dict[str, str]
    environment: dict[str, str]


def accepted(row: Reservation, quote: EngineQuote | None) -> Verdict:
    """The verdict on a bid that has a reservation."""
    return Verdict(
        True,
        row.price,
        None,
        quote,
        views.reservation(row),
        None if row.job is None else views.job(row.job),
    )


def declined(decision: Decision) -> str:
    """Why the engine did not take a bid."""
    if decision.price is None:
        return decision.reason or "nothing is free in the window"
    price = models.format_credits(decision.price)
    return f"the price is {price} credits, more than the most you would pay"


def too_poor(price: int, balance: int) -> str:
    """Why an account could not pay."""
    return (
        f"the price is {models.format_credits(price)} credits, but only "
        f"{models.format_credits(balance)} are free on your account"
    )


def hours(seconds: int) -> str:
    """A duration for people."""
    parts = ((seconds // 3600, "h"), (seconds % 3600 // 60, "min"), (seconds % 60, "s"))
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount)
