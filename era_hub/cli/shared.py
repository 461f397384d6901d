"""What the admins' commands share: the connection, previews and confirmations, tables."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import click
import httpx
from pydantic import BaseModel, ValidationError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..admin_models import AdminChange
from ..client import EraError
from ..client.admin import AdminClient
from ..models import format_credits, micro_credits, parse_duration

PIPED_WIDTH = 200
"""Wide enough for any row: in a file or a pipe nothing need fold."""

Command = Callable[..., Any]
Changes = Sequence[Callable[[bool], AdminChange]]


class Commands(click.Group):
    """Commands whose failures are one sentence, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # a reader such as head has seen enough; click ends quietly
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            # What is wrong with several fields together has no place of its own.
            where = ".".join(str(part) for part in first["loc"])
            what = first["msg"].removeprefix("Value error, ")
            raise click.UsageError(f"{where}: {what}" if where else what) from None
        except (EraError, httpx.InvalidURL) as error:
            raise click.ClickException(str(error)) from error


# -- values ------------------------------------------------------------------------------


class _Parsed(click.ParamType):
    """A value that a function parses; what it refuses is an error of usage."""

    def __init__(self, name: str, parse: Callable[[Any], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return value if isinstance(value, (int, datetime)) else self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _moment(text: str) -> datetime:
    if text.startswith("+"):
        return datetime.now(UTC) + timedelta(seconds=parse_duration(text[1:]))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        form = "2030-03-01T18:00, with +02:00 or Z for another zone than this machine's, or +4h"
        raise ValueError(f"{text!r} is not a time; write it as {form}") from None
    return found if found.tzinfo else found.astimezone()


CREDITS = _Parsed("credits", micro_credits)
DURATION = _Parsed("time", parse_duration)
MOMENT = _Parsed("when", _moment)


# -- options -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """Where a command goes, and what it does with the answer."""

    url: str | None
    token_file: Path | None
    raw: bool
    dry_run: bool = False
    yes: bool = False

    def connect(self) -> AdminClient:
        """The service, as an admin."""
        file = self.token_file
        return AdminClient(self.url, None if file is None else file.read_text().strip())


def connected(function: Command) -> Command:
    """Options of all commands that talk to the service; the command gets a `Target`."""

    @wraps(function)
    def command(
        url: str | None,
        token_file: Path | None,
        raw: bool,
        dry_run: bool = False,
        yes: bool = False,
        **others: Any,
    ) -> Any:
        return function(Target(url, token_file, raw, dry_run, yes), **others)

    for option in (
        click.option("--json", "raw", is_flag=True, help="Print the service's answer as JSON."),
        click.option(
            "--token-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A file that holds the token. [default: the environment's ERA_TOKEN, or "
            "JUPYTERHUB_API_TOKEN]",
        ),
        click.option(
            "--url",
            help="https://<your hub>/services/era. [default: the environment's ERA_URL]",
        ),
    ):
        command = option(command)
    return command


def changing(function: Command) -> Command:
    """Options of all commands that change something."""
    command = connected(function)
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
        click.option("--dry-run", is_flag=True, help="Only say what it would do."),
    ):
        command = option(command)
    return command


def paged(most: int) -> Callable[[Command], Command]:
    """Options of lists that come in parts: `limit` of so many, and `onward`."""

    def decorate(function: Command) -> Command:
        onward = click.option(
            "--next", "onward", help="Go on where the part before ended: what it calls `next`."
        )
        limit = click.option(
            "--limit",
            type=click.IntRange(1, 1000),
            default=most,
            show_default=True,
            help="At most so many.",
        )
        command: Command = limit(onward(function))
        return command

    return decorate


# -- changes ---------------------------------------------------------------------------------


def carry_out(to: Target, changes: Changes) -> None:
    """Show what changes would do, ask, and make them.

    Parameters
    ----------
    changes : sequence of callable
        Each makes one change, or with True only says what it would do.
    """
    if to.dry_run or not to.yes:
        previews = [change(True) for change in changes]
        if to.dry_run:
            report(previews, to.raw)
            return
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask on: say --yes, or --dry-run")
        for each in previews:
            show_effects(each, err=True)
        click.confirm("Do it?", abort=True, err=True)
    done: list[AdminChange] = []
    try:
        for change in changes:
            done.append(change(False))
    finally:
        # Also where one of several was refused: what is done is done.
        if done:
            report(done, to.raw)


def report(done: Sequence[AdminChange], raw: bool) -> None:
    """Print what changes did, or would do."""
    if raw:
        dump(done)
        return
    for each in done:
        show_effects(each)
    if not all(each.applied for each in done):
        click.echo("Nothing was changed.")


def show_effects(change: AdminChange, err: bool = False) -> None:
    """What a change does, a line for each effect."""
    for each in change.effects:
        mark = click.style("! ", fg="yellow") if each.level == "warning" else "  "
        click.echo(mark + printable(each.text), err=err)


# -- output ------------------------------------------------------------------------------------


def dump(answer: BaseModel | Sequence[BaseModel]) -> None:
    """Print an answer as JSON."""
    if isinstance(answer, BaseModel):
        click.echo(answer.model_dump_json(indent=2))
    else:
        click.echo(json.dumps([each.model_dump(mode="json") for each in answer], indent=2))


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Print a table; cells fold where the terminal is narrow, and none is cut."""
    if not rows:
        click.echo(empty)
        return
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in head:
        right = name.startswith(">")
        table.add_column(name.lstrip(">"), overflow="fold", justify="right" if right else "left")
    for row in rows:
        # Text, because a name could hold markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def tell_of_more(onward: str | int | None) -> None:
    """Say how to go on after a part of a list."""
    if onward is not None:
        click.echo(f"There is more: --next {shlex.quote(printable(str(onward)))} goes on.")


def printable(text: str) -> str:
    """Without what would make a terminal do things."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def money(amount: int | None) -> str:
    return "" if amount is None else format_credits(amount)


def moment(at: datetime | None) -> str:
    """A time on this machine's clock."""
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M}"


def span(seconds: int | None) -> str:
    """A duration as options take it."""
    if seconds is None:
        return ""
    parts = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
