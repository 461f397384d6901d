"""``era``: the market from a shell."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import httpx
from pydantic import BaseModel

from era_hub.models import format_credits

from . import views
from .jobs import JobHandle
from .options import CREDITS, DURATION, FAILURES, job_options, sentence, window_options
from .outcome import Printer, ending, follow_log
from .session import Era
from .terminal import show_table
from .times import format_when

INTERRUPTED = 130


class Commands(click.Group):
    """Commands whose failures are one sentence, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # a reader such as head has seen enough; click ends quietly
        except (*FAILURES, httpx.InvalidURL) as error:
            raise click.ClickException(sentence(error)) from error
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted; jobs go on.", err=True)
            ctx.exit(INTERRUPTED)


def _version() -> str:
    with suppress(PackageNotFoundError):
        return version("era-hub")
    return "unknown"


def as_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option that every command has."""
    return click.option(
        "--json",
        "raw",
        is_flag=True,
        help="Print the service's answer; amounts there are integers of micro-credits.",
    )(function)


def _dump(answer: BaseModel | list[BaseModel]) -> None:
    if isinstance(answer, list):
        click.echo(json.dumps([item.model_dump(mode="json") for item in answer], indent=2))
    else:
        click.echo(answer.model_dump_json(indent=2))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="era")
def main() -> None:
    """Buy GPU time on your hub's market and send jobs to the background.

    In a terminal of the hub it works as it is. Elsewhere set ERA_URL to
    https://<your hub>/services/era and ERA_TOKEN to a token from your hub's token
    page.

    \b
    A first job:
      era market
      era quote --gpus 1 --duration 30m --deadline 18:00
      era submit train.py --gpus 1 --duration 30m --deadline 18:00 --value 5
      era logs -f <the job's id>
    """


@main.command()
@as_json
@click.option(
    "--hours", type=click.FloatRange(min=0, min_open=True), default=24, help="How far to look."
)
def market(raw: bool, hours: float) -> None:
    """Prices now and for the coming 24 hours.

    A price is for a reservation made now. The chart has a block for a stretch of
    time, from now on; the higher, the dearer, and a dot where nothing is left.

    \b
    Examples:
      era market
      era market --hours 6
      era market --json | jq '.configurations[].price_per_hour'
    """
    with Era() as era:
        view = era.market(hours)
    if raw:
        return _dump(view.model)
    click.echo(view.headline())
    show_table(view.table())
    click.echo(view.note())
    return None


@main.command()
@as_json
@window_options
def quote(raw: bool, configuration: str | None, **options: Any) -> None:
    """What a job would cost now, without buying it.

    \b
    Examples:
      era quote --gpus 1 --duration 30m
      era quote --gpus 2 --duration 1h30m --deadline "tomorrow 9:00"
    """
    with Era() as era:
        view = era.quote(configuration, **options)
    if raw:
        return _dump(view.model)
    click.echo(view.headline())
    if len(view.starts) > 1:
        chart = views.blocks([start.price for start in view.starts])
        first, last = view.starts[0].start, view.starts[-1].start
        click.echo(f"By start, {format_when(first)} to {format_when(last)}: {chart}")
    return None


@main.command()
@as_json
@job_options
@click.option("--command", is_flag=True, help="The words are a command, not a script.")
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def submit(
    raw: bool,
    script: str,
    args: tuple[str, ...],
    command: bool,
    value: Decimal,
    env: tuple[tuple[str, str], ...],
    wait: bool,
    **options: Any,
) -> None:
    """Bid for a background job that runs SCRIPT.

    The script is sent as it is now. It runs in a directory of its own, where its
    output stays; print a tqdm bar and the market shows the job's progress. With
    --wait, its log is followed and its outcome is the exit code.

    \b
    Examples:
      era submit train.py --gpus 1 --duration 30m --deadline 18:00 --value 5
      era submit train.py --value 2.5 --env SEED=1 --wait -- --epochs 10
      era submit --command --value 1 -- nvidia-smi -L
    """
    what: Any = [script, *args] if command else Path(script)
    rest = () if command else args
    with Era() as era:
        job = era.submit(what, args=rest, value=value, environment=dict(env), **options)
        if wait:
            if not raw:
                click.echo(_accepted(job), err=True)
            sys.exit(follow_log(job, raw))
        elif raw:
            _dump(job.model)
        else:
            click.echo(_accepted(job))
            click.echo(f"Follow it with: era logs -f {job.id}")


def _accepted(job: JobHandle) -> str:
    place = job.model.reservation
    times = f"{format_when(place.start)} to {format_when(place.end)}"
    return f"Accepted: job {job.id} for {job.price} credits, {times}."


@main.command()
@as_json
@click.option("--current", is_flag=True, help="Only jobs that haven't ended.")
def jobs(raw: bool, current: bool) -> None:
    """Your jobs, newest first.

    \b
    Examples:
      era jobs
      era jobs --current
    """
    with Era() as era:
        found = era.jobs(current)
    models = [handle.model for handle in found]
    if raw:
        _dump(models)
    elif models:
        show_table(views.jobs_table(models))
    else:
        click.echo("No jobs.")


@main.command()
@as_json
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.argument("job_id", metavar="JOB")
def logs(raw: bool, follow: bool, job_id: str) -> None:
    """What a job has printed.

    JOB is a job's id or the beginning of one. With -f the exit code is that of the
    job; interrupting it leaves the job alone.

    \b
    Examples:
      era logs 3f9c
      era logs -f 3f9c
    """
    with Era() as era:
        job = era.job(job_id)
        if follow:
            sys.exit(follow_log(job, raw))
        elif raw:
            click.echo(json.dumps({"job": job.id, "text": job.log()}))
        else:
            Printer().end(job.log())


@main.command()
@as_json
@click.argument("job_id", metavar="JOB")
def cancel(raw: bool, job_id: str) -> None:
    """Stop a job, or take it out of the queue; what is unused is refunded.

    JOB is a job's id or the beginning of one.

    \b
    Example:
      era cancel 3f9c
    """
    with Era() as era:
        job = era.job(job_id).cancel()
    if raw:
        return _dump(job.model)
    refund = format_credits(job.model.reservation.refunded)
    click.echo(f"{ending(job.model)} {refund} credits were refunded.")
    return None


@main.command()
@as_json
@click.option(
    "--duration", type=DURATION, default="30m", show_default=True, help="How much longer."
)
@click.option(
    "--value",
    type=CREDITS,
    required=True,
    help="The most you will pay for it, in credits. You pay the market's price, which does not "
    "depend on it.",
)
@click.argument("job_id", metavar="JOB")
def extend(raw: bool, job_id: str, duration: int, value: Decimal) -> None:
    """Buy more time for a job, right after its end.

    JOB is a job's id or the beginning of one. The job may wait or run: one that runs
    goes on, and is stopped at its new end.

    \b
    Example:
      era extend 3f9c --duration 1h --value 2
    """
    with Era() as era:
        job = era.job(job_id)
        before = job.model.reservation.price
        job.extend(duration, value)
    if raw:
        return _dump(job.model)
    place = job.model.reservation
    cost = format_credits(place.price - before)
    click.echo(f"Job {job.id} has time until {format_when(place.end)}, for {cost} credits more.")
    return None


@main.command()
@as_json
@click.option("--account", help="That of a group of yours: group:NAME. [default: own]")
def account(raw: bool, account: str | None) -> None:
    """Your credits and where they went.

    \b
    Examples:
      era account
      era account --account group:lab
      era account --json | jq .balance
    """
    with Era() as era:
        view = era.account(account)
    if raw:
        return _dump(view.model)
    click.echo(view.headline())
    if table := view.table():
        show_table(table)
    return None


@main.command()
@as_json
def accounts(raw: bool) -> None:
    """The accounts that you may pay with.

    \b
    Example:
      era accounts
    """
    with Era() as era:
        found = era.accounts()
    if raw:
        return _dump(list(found))
    show_table(views.accounts_table(found))
    return None


if __name__ == "__main__":
    main()
