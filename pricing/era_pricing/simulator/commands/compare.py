"""`era-sim compare`: several mechanisms on the same demand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from era_pricing.simulator.commands.options import (
    Problem,
    capacity_option,
    cloud_of,
    cloud_option,
    days_option,
    history_days_option,
    history_option,
    json_option,
    load_option,
    market_options,
    mechanisms_of,
    note_prior,
    page_option,
    parallel_options,
    plain_errors,
    pool_of,
    pool_option,
    quiet_option,
    read_history,
    read_requests,
    seed_option,
    together,
    workload_option,
)
from era_pricing.simulator.commands.terminal import progress_bar, show_comparison
from era_pricing.simulator.compare import Entry, compare, planned_tasks
from era_pricing.simulator.mechanism import default_predictor
from era_pricing.simulator.source import KINDS, Drawn, Given, Source
from era_pricing.simulator.workers import available_cores, open_workers
from era_pricing.timegrid import DAY

draw_options = together(
    workload_option(required=False),
    history_option,
    click.option(
        "--generate",
        "kind",
        type=click.Choice(KINDS),
        help="Instead of --workload: draw requests and their history anew for each seed.",
    ),
    load_option("With --generate: GPU-hours asked for, over those that there are."),
    days_option("With --generate: days of requests."),
    history_days_option("With --generate: days of history before that; 0: none."),
)


@click.command("compare")
@draw_options
@capacity_option
@pool_option
@click.option(
    "--algorithm",
    "-a",
    "algorithms",
    multiple=True,
    required=True,
    metavar="NAME",
    help="An algorithm, perhaps with options and a predictor of its own: "
    "first-fit:price=650000, bid-price/lp. May be repeated.",
)
@click.option(
    "--predictor",
    "-p",
    "predictors",
    multiple=True,
    metavar="NAME",
    help="A predictor for the algorithms that name none; every pair is run. May be repeated.",
)
@market_options
@cloud_option
@click.option(
    "--seeds",
    type=click.IntRange(1),
    help="How many seeds, from --seed on. Without it 10, or 1 where nothing is random.",
)
@seed_option
@click.option("--bound/--no-bound", "with_bound", default=True, help="Whether to compute bounds.")
@parallel_options
@page_option
@json_option
@quiet_option
def compare_command(
    workload: str | None,
    history: str | None,
    kind: str | None,
    load: float,
    days: float,
    history_days: float,
    capacity: int | None,
    pool: str | None,
    algorithms: tuple[str, ...],
    predictors: tuple[str, ...],
    seeds: int | None,
    seed: int,
    with_bound: bool,
    jobs: int | None,
    dask: bool,
    scheduler: str | None,
    page: Path | None,
    as_json: bool,
    quiet: bool,
    cloud_settings: tuple[tuple[str, str], ...],
    **market: Any,
) -> None:
    """Run several mechanisms on the same demand, side by side.

    Every mechanism gets the same requests with the same seed; the table shows the
    mean over the seeds and the standard deviation.

    \b
    Examples:
      era-sim compare --generate poisson --capacity 64 -a bid-price/lp -a basic-econ/lp \\
          -a first-fit --seeds 10 --page compare.html
      era-sim compare --workload week.csv --history past.csv --capacity 64 \\
          -a basic-econ -a exponential -p prior -p lp
    """
    cloud = cloud_of(cloud_settings)
    with plain_errors():
        there = pool_of(capacity, pool)
        source: Source
        if (workload is None) == (kind is None):
            raise Problem("give either --workload or --generate")
        if workload is not None:
            there, requests = read_requests(workload, there)
            requests, past = read_history(history, requests, quiet)
            source, random = Given(requests, past), not cloud.ideal
        else:
            if history is not None:
                raise Problem("--history goes with --workload; --generate draws its own")
            units = there.capacity(there.priced[0])
            spans = round(days * DAY), round(history_days * DAY)
            source, random = Drawn(str(kind), units, load, *spans), True
            past = None if not history_days else source.draw(seed)[1]
        chosen = mechanisms_of(algorithms, predictors or [default_predictor(past)], **market)
        note_prior(chosen, past, quiet)
        count = seeds or (10 if random else 1)
        total = planned_tasks(len(chosen), count, 1, with_bound)
        with (
            progress_bar(total, "runs", quiet) as progress,
            open_workers(min(jobs or available_cores(), total), scheduler, dask) as workers,
        ):
            entries = compare(
                source,
                chosen,
                range(seed, seed + count),
                there,
                workers,
                cloud=cloud,
                with_bound=with_bound,
                progress=progress,
            )
        if page is not None:
            _write_page(page, entries, workload or f"{kind} demand", count)
    if as_json:
        click.echo(json.dumps([entry.as_dict() for entry in entries], indent=2))
    else:
        show_comparison(entries)


def _write_page(page: Path, entries: list[Entry], name: str, seeds: int) -> None:
    from era_pricing.simulator.page_compare import compare_page

    summary = entries[0].trials[0].summary
    remark = (
        f"{len(entries)} mechanisms met the same requests ({name}; about {summary.requests:,} "
        f"worth {summary.requested_value:,.0f} credits)"
        + (f", with {seeds} seeds." if seeds > 1 else ".")
    )
    page.write_text(compare_page(entries, f"{len(entries)} mechanisms on {name}", remark), "utf-8")
