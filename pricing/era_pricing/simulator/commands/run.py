"""`era-sim run`: one mechanism over a workload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from era_pricing.simulator.commands.options import (
    capacity_option,
    cloud_of,
    cloud_option,
    history_option,
    json_option,
    market_options,
    mechanisms_of,
    note_prior,
    page_option,
    plain_errors,
    pool_of,
    pool_option,
    quiet_option,
    read_history,
    read_requests,
    seed_option,
    workload_option,
)
from era_pricing.simulator.commands.terminal import progress_bar, show_summary
from era_pricing.simulator.mechanism import DEFAULT_ALGORITHM, default_predictor
from era_pricing.simulator.metrics import bound_of, classes, series, summarise
from era_pricing.simulator.run import simulate


@click.command()
@workload_option()
@history_option
@capacity_option
@pool_option
@click.option(
    "--algorithm",
    default=DEFAULT_ALGORITHM,
    show_default=True,
    metavar="NAME",
    help="Who sets prices: basic-econ, first-fit, on-demand, exponential, bid-price, or a plug-in.",
)
@click.option(
    "--predictor",
    metavar="NAME",
    help="Who foresees demand: prior, spread, lp, blend, or a plug-in. Without it, "
    "lp where there is a history and blend where there is none.",
)
@market_options
@cloud_option
@seed_option
@click.option(
    "--bound/--no-bound",
    "with_bound",
    default=True,
    help="Whether to compute what nobody could exceed; it takes a while for large workloads.",
)
@page_option
@json_option
@quiet_option
def run(
    workload: str,
    history: str | None,
    capacity: int | None,
    pool: str | None,
    algorithm: str,
    predictor: str | None,
    seed: int,
    with_bound: bool,
    page: Path | None,
    as_json: bool,
    quiet: bool,
    cloud_settings: tuple[tuple[str, str], ...],
    **market: Any,
) -> None:
    """Play a workload against a mechanism and say what came of it.

    The engine is the one that sells in a service. Everything is seeded: the same
    command gives the same numbers, but for the decision times.

    \b
    Examples:
      era-sim run --workload week.csv --capacity 64
      era-sim run --workload week.csv --history past.csv --capacity 64 --slot 30min \\
          --algorithm bid-price --predictor lp --json
      era-sim run --workload week.csv --capacity 64 --cloud job_mtbf=50 --page run.html
    """
    with plain_errors():
        there = pool_of(capacity, pool)
        there, requests = read_requests(workload, there)
        requests, past = read_history(history, requests, quiet)
        predictors = [predictor or default_predictor(past)]
        mechanism = mechanisms_of([algorithm], predictors, **market)[0]
        note_prior([mechanism], past, quiet)
        with progress_bar(len(requests), "requests", quiet) as progress:
            result = simulate(
                requests,
                mechanism,
                there,
                history=past,
                cloud=cloud_of(cloud_settings),
                seed=seed,
                progress=progress,
            )
        bound = bound_of(result) if with_bound else None
        summary = summarise(result, bound)
        if page is not None:
            from era_pricing.simulator.page import run_page

            page.write_text(
                run_page(result, summary, series(result, bound), classes(result)), "utf-8"
            )
    if as_json:
        click.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        show_summary(summary, mechanism, classes(result))
