"""`era-sim plan`: what more GPUs would have been worth."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from era_pricing.simulator.commands.options import (
    Problem,
    capacity_option,
    history_option,
    json_option,
    market_options,
    mechanisms_of,
    note_prior,
    page_option,
    parallel_options,
    plain_errors,
    pool_of,
    quiet_option,
    read_history,
    read_requests,
    seed_option,
    workload_option,
)
from era_pricing.simulator.commands.terminal import amount, progress_bar, share, show
from era_pricing.simulator.mechanism import default_predictor
from era_pricing.simulator.planning import Plan, plan
from era_pricing.simulator.workers import available_cores, open_workers
from era_pricing.timegrid import DAY, HOUR

_STEPS = 8


@click.command("plan")
@workload_option()
@history_option
@capacity_option
@click.option(
    "--add",
    "added",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="The most GPUs to add.",
)
@click.option(
    "--step",
    type=click.IntRange(1),
    help="GPUs from one size to the next; without it, about eight sizes.",
)
@click.option(
    "--algorithm",
    metavar="NAME",
    help="Also run this algorithm at each size; without it only the bounds are compared.",
)
@click.option("--predictor", metavar="NAME", help="The predictor for that.")
@market_options
@seed_option
@parallel_options
@page_option
@json_option
@quiet_option
def plan_command(
    workload: str,
    history: str | None,
    capacity: int | None,
    added: int,
    step: int | None,
    algorithm: str | None,
    predictor: str | None,
    seed: int,
    jobs: int | None,
    dask: bool,
    scheduler: str | None,
    page: Path | None,
    as_json: bool,
    quiet: bool,
    **market: Any,
) -> None:
    """Say what more GPUs would have been worth, and when.

    The value that even the best allocation turns away for want of GPUs is compared
    between pools of different sizes: per GPU added, and at which times it is lost.

    \b
    Examples:
      era-sim plan --workload week.csv --capacity 64 --add 16
      era-sim plan --workload week.csv --history past.csv --capacity 64 --add 8 \\
          --algorithm bid-price --page plan.html
    """
    if capacity is None:
        raise Problem("give --capacity, the GPUs that there are now")
    with plain_errors():
        there, requests = read_requests(workload, pool_of(capacity, None))
        requests, past = read_history(history, requests, quiet)
        mechanism = None
        if algorithm is not None:
            predictors = [predictor or default_predictor(past)]
            mechanism = mechanisms_of([algorithm], predictors, **market)[0]
            note_prior([mechanism], past, quiet)
        step = step or max(1, round(added / _STEPS))
        more = [*range(step, added, step), added]
        total = (len(more) + 1) * (1 if mechanism is None else 2)
        with (
            progress_bar(total, "sizes", quiet) as progress,
            open_workers(min(jobs or available_cores(), total), scheduler, dask) as workers,
        ):
            found = plan(
                requests,
                capacity,
                more,
                market["slot"],
                workers,
                pool=there,
                mechanism=mechanism,
                history=past,
                seed=seed,
                progress=progress,
            )
        if page is not None:
            from era_pricing.simulator.page_plan import plan_page

            label = None if mechanism is None else mechanism.label
            page.write_text(plan_page(found, Path(workload).name, label), "utf-8")
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        _show(found, mechanism is not None)


def _show(found: Plan, with_runs: bool) -> None:
    head = ["GPUs", "bound", "of the value", "worth per GPU added", "per GPU-hour"]
    hours = found.days * DAY / HOUR
    rows = []
    for number, (size, gain) in enumerate(zip(found.sizes, found.gains(), strict=True)):
        part = size.bound / found.requested_value if found.requested_value else 1.0
        row = [amount(size.capacity), amount(size.bound), share(part)]
        row += [amount(gain, 1), amount(gain / hours, 3)] if number else ["", ""]
        if size.summary is not None:
            row += [amount(size.summary.welfare), amount(size.summary.revenue)]
        rows.append(row)
    show(head + (["welfare", "revenue"] if with_runs else []), rows)
    peaks = found.peaks()
    if peaks:
        title = "When one GPU more would have been worth most"
        show(
            ("from", "to", "credits"),
            [(moment(start), moment(end), amount(worth, 2)) for start, end, worth in peaks],
            title,
        )


def moment(time: int) -> str:
    """A time for people, UTC; days since the beginning of time where it is near."""
    if time < 365 * DAY:
        return f"day {time // DAY}, {time % DAY // HOUR:02}:{time % HOUR // 60:02}"
    return datetime.fromtimestamp(time, UTC).strftime("%a %Y-%m-%d %H:%M")
