"""Sentences for admins: amounts, limits, and whom a rule is for."""

from __future__ import annotations

from typing import Any

from ..admin_models import Effect
from ..answers import hours
from ..models import format_credits
from ..store.tables import Account

SHOWN = 20
"""How many users an effect names one by one."""


def info(words: str, user: str | None = None) -> Effect:
    return Effect(level="info", text=words, user=user)


def warning(words: str, user: str | None = None) -> Effect:
    return Effect(level="warning", text=words, user=user)


def shortened(effects: list[Effect], rest: str) -> list[Effect]:
    """The first effects, and how many more there are."""
    more = len(effects) - SHOWN
    if more <= 0:
        return effects
    level = effects[SHOWN].level
    return [*effects[:SHOWN], Effect(level=level, text=f"and {more:,} more {rest}")]


def owner(kind: str, name: str) -> str:
    """Whom an account or a rule is for."""
    if kind == "everyone":
        return "everyone"
    if kind == "member":
        return f"each member of the group {name}"
    return f"the group {name}" if kind == "group" else name


def subject(account: Account) -> str:
    return f"{account.kind}:{account.name}"


def credits(amount: int) -> str:
    return f"{format_credits(amount)} credits"


def from_to(before: int, after: int) -> str:
    """Such as ``12.00 -> 62.00 credits``."""
    return f"{format_credits(before)} -> {credits(after)}"


def hour_or_more(seconds: int) -> str:
    """A duration for people, in days where it is whole days."""
    days, rest = divmod(seconds, 86_400)
    if not rest and days:
        return f"{days} day{'s' if days > 1 else ''}"
    return hours(seconds)


def limits(row: Any) -> list[str]:
    """What a row of quotas says, one phrase for each limit.

    Parameters
    ----------
    row : object
        With the fields of `admin_models.Limits`.
    """
    found = []
    if row.gpus is not None:
        found.append(f"at most {row.gpus} GPUs at once")
    if row.gpu_seconds is not None:
        period = hour_or_more(row.period) if row.period else "period"
        found.append(f"at most {row.gpu_seconds / 3600:g} GPU-hours in each {period}")
    if row.longest is not None:
        found.append(f"reservations of at most {hour_or_more(row.longest)}")
    if row.horizon is not None:
        found.append(f"reservations that end within {hour_or_more(row.horizon)}")
    if row.configurations is not None:
        found.append("only " + (", ".join(row.configurations) or "nothing at all"))
    return found


def limit(name: str, value: Any, used: int | None) -> str:
    """One limit of a user, and what is used of it."""
    if name == "gpus":
        return f"{used or 0} of {value} GPUs in use now"
    if name == "gpu_seconds":
        return f"{(used or 0) / 3600:g} of {value / 3600:g} GPU-hours reserved in this period"
    if name == "longest":
        return f"reservations of at most {hour_or_more(value)}"
    if name == "horizon":
        return f"reservations that end within {hour_or_more(value)}"
    return "only " + (", ".join(value) or "nothing at all")
