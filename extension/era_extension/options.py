"""Options of jobs, shared by the command line and the cell magic."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import click

from era_hub.client import EraError
from era_hub.models import Commitment, micro_credits, parse_duration

from . import times
from .bids import Declined

Command = Callable[..., Any]


class _Parsed(click.ParamType):
    """A value that a function parses; what it refuses is an error of usage."""

    def __init__(self, name: str, parse: Callable[[Any], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _credits(value: Any) -> Decimal:
    micro_credits(value)  # for its checks
    return Decimal(str(value))


def _deadline(value: Any) -> datetime | None:
    return times.parse_deadline(value)


def _variable(value: str) -> tuple[str, str]:
    key, equals, text = value.partition("=")
    if not equals or not key:
        raise ValueError(f"{value!r} is not of the form NAME=VALUE")
    return key, text


DURATION = _Parsed("time", lambda value: parse_duration(value))
DEADLINE = _Parsed("when", _deadline)
CREDITS = _Parsed("credits", _credits)
VARIABLE = _Parsed("name=value", lambda v: v if isinstance(v, tuple) else _variable(v))


def window_options(function: Command) -> Command:
    """What is wanted and by when."""
    for option in (
        click.option(
            "--commitment",
            type=click.Choice([str(each) for each in Commitment]),
            default=str(Commitment.FLEXIBLE),
            show_default=True,
            help="flexible: may be moved in its window until it starts, and starts early where "
            "GPUs are idle. preemptible: may be stopped besides and go on later, for less; it "
            "must write checkpoints. fixed: keeps the start that it is told.",
        ),
        click.option(
            "--deadline",
            type=DEADLINE,
            help=f"When it must have ended: {times.HELP}. The later, the cheaper. "
            "[default: it starts now or not at all]",
        ),
        click.option(
            "--duration",
            type=DURATION,
            default="30m",
            show_default=True,
            help="How long it may run: 30m, 1h30m, or seconds.",
        ),
        click.option("--configuration", help="A configuration by name; `era market` lists them."),
        click.option(
            "--gpus",
            type=click.IntRange(min=0),
            default=1,
            show_default=True,
            help="GPUs, where no configuration is named.",
        ),
    ):
        function = option(function)
    return function


def job_options(function: Command) -> Command:
    """A bid for a job."""
    for option in (
        click.option("--wait", is_flag=True, help="Wait until the job has ended."),
        click.option(
            "--env",
            type=VARIABLE,
            multiple=True,
            metavar="NAME=VALUE",
            help="An environment variable of the job; may be repeated.",
        ),
        click.option("--name", help="A name for the job."),
        click.option(
            "--account",
            metavar="ACCOUNT",
            help="Who pays: own, or group:NAME; `era accounts` lists those you may use. "
            "[default: as your hub's admins have set it]",
        ),
        click.option(
            "--value",
            type=CREDITS,
            required=True,
            help="The most you will pay, in credits. You pay the market's price, which "
            "does not depend on it.",
        ),
    ):
        function = option(function)
    return window_options(function)


FAILURES = (EraError, Declined, ValueError, OSError, TimeoutError)
"""What goes wrong without being a fault of this program."""


def sentence(error: BaseException) -> str:
    """An error in a line."""
    text = " ".join(str(error).split())
    return text[:1].upper() + text[1:] if text else type(error).__name__
