"""How much of the omniscient bound is served, by mechanism and by shape of demand."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import click
import numpy as np

from era_pricing.algorithms import find_algorithm
from era_pricing.predictors import LP, Blend, Prior
from era_pricing.simulator.building import prior_of
from era_pricing.simulator.commands.terminal import progress_bar, show
from era_pricing.simulator.compare import compare, planned_tasks
from era_pricing.simulator.mechanism import Mechanism, Pool
from era_pricing.simulator.metrics import classes, omniscient
from era_pricing.simulator.page import COLORS, LEGEND, Figure, numbers, render, table
from era_pricing.simulator.run import simulate
from era_pricing.simulator.source import Given
from era_pricing.simulator.workers import Workers, available_cores, gather, open_workers
from era_pricing.timegrid import HOUR

# What is shared lies beside this, wherever it is called from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import (
    CAPACITY,
    DELAYS,
    SLOT,
    TOLERANCE,
    TRACE,
    WAITERS,
    OraclePrices,
    Shape,
    chosen_shapes,
    delayed,
    names_of_shapes,
    served_by,
)

PUBLISHED: Final = "basic-econ as published"
MECHANISMS: Final = {
    "greedy": Mechanism("first-fit", "prior", SLOT),
    PUBLISHED: Mechanism(
        "basic-econ",
        "lp",
        SLOT,
        options={"engine.early_start": "idle", "engine.replan": "false"},
    ),
    "basic-econ": Mechanism("basic-econ", "lp", SLOT),
    "bid-price": Mechanism("bid-price", "lp", SLOT),
    "bid-price steady": Mechanism("bid-price", "lp", SLOT, options={"algorithm.steady": "true"}),
    "exponential": Mechanism(
        "exponential",
        "prior",
        SLOT,
        options={"algorithm.low": "100000", "algorithm.high": "10000000"},
    ),
}
FIXED: Final = "best fixed price"
ORACLE: Final = "oracle prices"
SLOW: Final = "bid-price steady"
"""Left out by --quick."""

PRICES: Final = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Fixed prices that are tried, credits per unit and hour."""

FACTORS: Final = (1, 10)
"""By how much the prior's highest price is wrong where there is no history."""

UNTAUGHT: Final = ("basic-econ", "bid-price")
WAITING: Final = ("basic-econ", "bid-price", SLOW)


@dataclass(frozen=True)
class Outcome:
    """One shape with all mechanisms; lists have a value for each seed.

    Attributes
    ----------
    requests
        How many there were.
    bounds
        The omniscient bounds, credits.
    best_prices
        The fixed prices that did best, credits per unit and hour.
    ratios
        Welfare over the bound, by mechanism.
    """

    requests: list[int]
    bounds: list[float]
    best_prices: list[float]
    ratios: dict[str, list[float]]

    @property
    def gain(self) -> float:
        """Welfare of bid-price over that of basic-econ as published, means over the seeds."""
        return fmean(self.ratios["bid-price"]) / fmean(self.ratios[PUBLISHED])


@dataclass(frozen=True)
class Extras:
    """What is asked on the shape mixed alone; lists have a value for each seed.

    Attributes
    ----------
    untaught
        Welfare over the bound without a history, by mechanism and factor on the
        prior's highest price.
    waiting
        Change of what those gain who wait, as a share of it, by mechanism and hours.
    """

    untaught: dict[str, dict[int, list[float]]]
    waiting: dict[str, dict[int, list[float]]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Draws of the demand."
)
@click.option("--seed", default=1, show_default=True, help="The first of them.")
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    help="Processes on this machine; without it as many as there are cores.",
)
@click.option(
    "--shapes",
    "names",
    multiple=True,
    callback=names_of_shapes,
    metavar="NAMES",
    help="Only these, with commas between; may be repeated.",
)
@click.option(
    "--trace",
    default=TRACE,
    show_default="../shared/traces/philly.csv.gz",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Trace for the shape philly.",
)
@click.option("--no-waiting", is_flag=True, help="Leave out what waiting pays.")
@click.option(
    "--quick",
    is_flag=True,
    help="A minute: one seed, three days, not all mechanisms, prices and delays; mixed only "
    "unless --shapes says otherwise.",
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a page with a plot.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def main(
    seeds: int,
    seed: int,
    jobs: int | None,
    names: list[str],
    trace: Path,
    no_waiting: bool,
    quick: bool,
    page: Path | None,
    as_json: bool,
) -> None:
    """Compare mechanisms with what an allocation serves that knows all requests beforehand.

    64 GPUs in slots of 30 minutes and requests for twice that: two weeks to learn from,
    and a week that is played. Nothing was tuned on it. Shapes of demand:

    \b
    mixed            a daily cycle; a third can't wait, a third up to 8 hours, a
                     third up to 2 days; lognormal values; 1 to 8 GPUs up to a day
    tight            nobody can wait
    patient          all wait for up to 2 days
    advance          everybody books ahead, by up to 2 days
    large            1, 8 or 32 GPUs
    bulk and urgent  30 % can't wait and are worth 5 times as much; the others wait
                     from 1 to 3 days
    weekends         70 % less on Saturdays and Sundays
    alike            all values per GPU and hour are the same
    bursts           ten requests at the same moment on average
    long waits       all wait for one to seven days
    booked early     half are booked ahead, by up to a week; 40 % can't wait, the
                     others up to a day
    drift            in the week that is played 1.6 times the load, 1.5 times the values
    philly           three weeks of a trace (--trace; left out if it isn't there), jobs
                     of up to a day; the seed draws windows and values as for mixed, and
                     which jobs are left out to get the same load

    \b
    greedy                   first-fit at the price floor: first come, first served
    basic-econ as published  with what the past taught, and promises that stay
    basic-econ               the same, with promises that may be moved in their windows
    bid-price (steady)       with the same past (prices that don't fall)
    exponential              no forecast; told that values lie between 0.1 and 10
    best fixed price         of eight, chosen for each seed with the week known
    oracle prices            the dual prices of the week itself, posted for each slot

    On mixed, two more tables. Without a history: a prior and what is learned on the way
    (blend); the highest price it is told is twice the mean value, or ten times that.
    Waiting: 5 % of those who can wait for 6 hours or more, chosen at random, submit some
    hours later, and all others as before; by how much that changes what they gain,
    value less price.

    Numbers are means over the seeds ± standard errors. With the defaults this takes
    half an hour to an hour on two cores, most of it in bid-price; set OMP_NUM_THREADS=1
    to keep it on the cores chosen.
    """
    shapes = chosen_shapes(["mixed"] if quick and not names else names, trace, 3 if quick else 7)
    seeds_run = range(seed, seed + (1 if quick else seeds))
    mechanisms = {n: m for n, m in MECHANISMS.items() if not (quick and n == SLOW)}
    prices = PRICES[1::2] if quick else PRICES
    delays = () if no_waiting else DELAYS[::2] if quick else DELAYS
    mixed = next((shape for shape in shapes if shape.name == "mixed"), None)
    tasks = len(shapes) * (planned_tasks(len(mechanisms) + len(prices), 1, 1, True) + 1)
    if mixed is not None:
        delayed = len(delays) * len(mechanisms.keys() & set(WAITING))
        tasks += len(UNTAUGHT) * len(FACTORS) + delayed
    with (
        open_workers(jobs or available_cores()) as workers,
        progress_bar(tasks * len(seeds_run), "runs", quiet=False) as progress,
    ):
        found = {
            shape.name: outcome(shape, seeds_run, mechanisms, prices, workers, progress)
            for shape in shapes
        }
        more = None
        if mixed is not None:
            bounds = found[mixed.name].bounds
            untaught = untaught_ratios(mixed, seeds_run, bounds, workers, progress)
            waiting = waiting_changes(mixed, seeds_run, mechanisms, delays, workers, progress)
            more = Extras(untaught, waiting)
    if page is not None:
        page.write_text(bars_page(found, len(seeds_run)), "utf-8")
    report(found, more, seeds_run, as_json)


# The mechanisms, and what nobody could know.


def outcome(
    shape: Shape,
    seeds: Sequence[int],
    mechanisms: Mapping[str, Mechanism],
    prices: Sequence[float],
    workers: Workers,
    progress: Callable[[int], None],
) -> Outcome:
    """All mechanisms on one shape."""
    fixed = {price: fixed_price(price) for price in prices}
    # The slowest go first, so that no core waits for one alone.
    order = sorted(
        [*mechanisms.values(), *fixed.values()], key=lambda m: m.algorithm != "bid-price"
    )
    found = Outcome([], [], [], {name: [] for name in (*mechanisms, FIXED, ORACLE)})
    for seed in seeds:
        source = Given(*shape.draw(seed))
        oracle = workers.submit(oracle_ratio, source, seed)
        entries = compare(
            source,
            order,
            [seed],
            Pool.of(CAPACITY),
            workers,
            tolerance=TOLERANCE,
            progress=progress,
        )
        served = {entry.mechanism.label: entry.trials[0].summary for entry in entries}
        ratios = {label: summary.welfare_ratio or 0.0 for label, summary in served.items()}
        best = max(prices, key=lambda price: ratios[fixed[price].label])
        for name, mechanism in mechanisms.items():
            found.ratios[name].append(ratios[mechanism.label])
        found.ratios[FIXED].append(ratios[fixed[best].label])
        found.ratios[ORACLE] += gather([oracle], progress)
        found.best_prices.append(best)
        found.requests.append(len(source.requests))
        found.bounds.append(served[order[0].label].omniscient_bound or 0.0)
    return found


def fixed_price(credits_per_hour: float) -> Mechanism:
    """Every unit at any time at the same price."""
    price = str(round(credits_per_hour * 1e6))
    return Mechanism("first-fit", "prior", SLOT, options={"algorithm.price": price})


def oracle_ratio(source: Given, seed: int) -> float:
    """Welfare over the bound with the bound's own prices, for a worker."""
    requests, past = source.draw(seed)
    bound = omniscient(requests.columns, CAPACITY, SLOT, TOLERANCE)
    algorithm = OraclePrices(bound.first_slot, bound.prices * (1e6 * HOUR / SLOT))
    return served_by(algorithm, Prior(1, 0.0), requests, past) / bound.value


# Without a history.


def untaught_ratios(
    shape: Shape,
    seeds: Sequence[int],
    bounds: Sequence[float],
    workers: Workers,
    progress: Callable[[int], None],
) -> dict[str, dict[int, list[float]]]:
    """Welfare over the bound where only a prior is there at first."""
    cases = [(name, factor) for name in reversed(UNTAUGHT) for factor in FACTORS]
    futures = [
        workers.submit(untaught_welfare, Given(*shape.draw(seed)), seed, name, factor)
        for name, factor in cases
        for seed in seeds
    ]
    served = iter(gather(futures, progress))
    found: dict[str, dict[int, list[float]]] = {name: {} for name in UNTAUGHT}
    for name, factor in cases:
        found[name][factor] = [next(served) / bound for bound in bounds]
    return found


def untaught_welfare(source: Given, seed: int, algorithm: str, factor: int) -> float:
    """Welfare in credits with a prior that is wrong by a factor, for a worker."""
    requests, past = source.draw(seed)
    told = prior_of(past or requests.columns, SLOT)
    told["max_price"] *= factor
    predictor = Blend(Prior(**told), LP.from_nothing(CAPACITY, SLOT, seed=seed))
    options = {"seed": seed} if algorithm == "bid-price" else {}
    plugin = find_algorithm(algorithm)(**options)
    return served_by(plugin, predictor, requests, past)


# Waiting.


def waiting_changes(
    shape: Shape,
    seeds: Sequence[int],
    mechanisms: Mapping[str, Mechanism],
    delays: Sequence[int],
    workers: Workers,
    progress: Callable[[int], None],
) -> dict[str, dict[int, list[float]]]:
    """By how much waiting changes what those gain who wait; the first delay is for comparison."""
    names = [name for name in WAITING if name in mechanisms]
    cases = [(name, hours) for name in reversed(names) for hours in delays]
    futures = [
        workers.submit(delayed_gain, Given(*shape.draw(seed)), seed, mechanisms[name], hours)
        for name, hours in cases
        for seed in seeds
    ]
    gains = iter(gather(futures, progress))
    found = {case: [next(gains) for _ in seeds] for case in cases}
    return {
        name: {
            hours: [
                gain / usual - 1 if usual else math.nan
                for gain, usual in zip(found[name, hours], found[name, delays[0]], strict=True)
            ]
            for hours in delays[1:]
        }
        for name in names
    }


def delayed_gain(source: Given, seed: int, mechanism: Mechanism, hours: int) -> float:
    """Value less price of those who wait for so long, credits; for a worker."""
    requests, past = source.draw(seed)
    waited = delayed(requests.columns, hours * HOUR, seed)
    run = simulate(waited, mechanism, Pool.of(CAPACITY), history=past, seed=seed)
    return sum(each.welfare - each.revenue for each in classes(run) if each.label == WAITERS)


# What is printed.


def spread(values: Sequence[float], percent: bool = False) -> str:
    """Mean and, of several, its standard error."""
    scale, digits = (100, 1) if percent else (1, 3)
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    more = "" if error is None else f" ± {scale * error:.{digits}f}"
    sign = "+" if percent else ""
    return f"{scale * fmean(values):{sign}.{digits}f}{more}" + (" %" if percent else "")


def rows_of(found: Mapping[str, Outcome]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the table of shapes and mechanisms."""
    first = next(iter(found.values()))
    rows = [
        (shape, *(spread(values) for values in one.ratios.values()), f"{one.gain:.3f}")
        for shape, one in found.items()
    ]
    return ("welfare / bound", *first.ratios, f"bid-price over {PUBLISHED}"), rows


def report(found: Mapping[str, Outcome], more: Extras | None, seeds: range, as_json: bool) -> None:
    """Tables, or the same as JSON."""
    where: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "seeds": list(seeds),
    }
    if as_json:
        results = {name: {**asdict(one), "gain": one.gain} for name, one in found.items()}
        extras = {} if more is None else asdict(more)
        click.echo(json.dumps({**where, "shapes": results, **extras}, indent=2))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in where.items()))
    show(*rows_of(found))
    if more is None:
        return
    head = ("mixed without a history, highest price told", *(f"× {each}" for each in FACTORS))
    show(head, [(name, *map(spread, by.values())) for name, by in more.untaught.items()])
    if any(more.waiting.values()):
        hours = next(iter(more.waiting.values()))
        lines = [
            (name, *(spread(values, percent=True) for values in by.values()))
            for name, by in more.waiting.items()
        ]
        show(("mixed, what submitting later adds to the gain", *(f"{h} h" for h in hours)), lines)


def bars_page(found: Mapping[str, Outcome], seeds: int) -> str:
    """A page with a bar for each shape and mechanism."""
    head, rows = rows_of(found)
    over = f"means over {seeds} seeds ± standard errors" if seeds > 1 else "one seed"
    body = [
        "<h1>Welfare by shape of demand</h1>",
        f"<p>Share of the omniscient bound that is served: {over}.</p>",
        '<div id="plot" class="plot"></div>',
        table(head, [[escape(cell) for cell in row] for row in rows]),
    ]
    return render("Welfare by shape of demand · era-sim", "\n".join(body), [bars(found)])


def bars(found: Mapping[str, Outcome]) -> Figure:
    """The plot."""
    data: list[Figure] = []
    for number, name in enumerate(next(iter(found.values())).ratios):
        ratios = np.array([one.ratios[name] for one in found.values()])
        several = ratios.shape[1] > 1
        errors = ratios.std(axis=1, ddof=int(several)) / math.sqrt(ratios.shape[1])
        data.append(
            {
                "type": "bar",
                "name": name,
                "x": list(found),
                "y": numbers(ratios.mean(axis=1)),
                "marker": {"color": COLORS[number % len(COLORS)]},
                "error_y": {"type": "data", "array": numbers(errors), "thickness": 1},
            }
        )
    layout: Figure = {
        "height": 460,
        "margin": {"l": 70, "r": 20, "t": 10, "b": 50},
        "showlegend": True,
        "legend": LEGEND,
        "barmode": "group",
        "yaxis": {"title": {"text": "welfare over the bound"}, "rangemode": "tozero"},
    }
    return {"id": "plot", "data": data, "layout": layout}


if __name__ == "__main__":
    main()
