"""The ERA paper's Azure setting: a fifth of a datacentre, whose other tenants go first."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import click
import numpy as np

from era_pricing.simulator.cloud import CloudModel
from era_pricing.simulator.commands.terminal import progress_bar, show
from era_pricing.simulator.compare import Trial, compare
from era_pricing.simulator.generate import poisson, split
from era_pricing.simulator.mechanism import Mechanism, Pool
from era_pricing.simulator.page import COLORS, LEGEND, Figure, numbers, render, table
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.scenario import Scenario, Values, Windows
from era_pricing.simulator.source import Given
from era_pricing.simulator.workers import Workers, available_cores, open_workers
from era_pricing.timegrid import DAY

CAPACITY: Final = 64
ON_DEMAND: Final = 1_000_000
"""Price of a unit-hour on demand, micro-credits."""
FLOOR: Final = 650_000
"""At most 35 % below that."""


@dataclass(frozen=True)
class Seller:
    """A way to sell, with the late penalty and without."""

    name: str
    algorithm: str
    predictor: str
    price: int | None = None
    era: bool = False

    def mechanism(self, penalty: float) -> Mechanism:
        """For the simulator."""
        return Mechanism(
            self.algorithm,
            self.predictor,
            price_floor=FLOOR,
            price_ceiling=ON_DEMAND,
            late_penalty=penalty,
            options={} if self.price is None else {"algorithm.price": str(self.price)},
        )


SELLERS: Final = (
    Seller("on-demand", "on-demand", "prior", ON_DEMAND),
    Seller("first-fit at 65 %", "first-fit", "prior", FLOOR),
    Seller("basic-econ / prior", "basic-econ", "prior", era=True),
    Seller("basic-econ / lp", "basic-econ", "lp", era=True),
)


@dataclass(frozen=True)
class Setting:
    """What the paper leaves open: how much is asked for, and how much others leave."""

    name: str
    load: float
    median: float
    tenant_load: float

    def scenario(self, days: int) -> Scenario:
        """Demand whose windows begin at submission, to the half-hour; no job exceeds 2 days."""
        return Scenario(
            span=days * DAY,
            capacity=CAPACITY,
            load=self.load,
            windows=Windows(ahead=0),
            values=Values(median=self.median, sigma=0.5),
            longest=2 * DAY,
        )

    @property
    def cloud(self) -> CloudModel:
        """Other tenants with four fifths of the datacentre, and its other settings as they are."""
        return CloudModel(tenant_share=0.2, tenant_load=self.tenant_load)


SETTINGS: Final = (
    Setting("middle demand", 1.5, 1.0, 0.9),
    Setting("light demand", 0.7, 1.0, 0.9),
    Setting("heavy demand", 3.0, 2.0, 0.9),
    Setting("middle demand, calm tenants", 1.5, 1.0, 0.8),
    Setting("light demand, calm tenants", 0.7, 1.0, 0.8),
    Setting("heavy demand, calm tenants", 3.0, 2.0, 0.8),
)


@dataclass(frozen=True)
class Point:
    """One seller in one setting; lists have a value for each seed.

    Attributes
    ----------
    accepted
        Prices charged on acceptance, over what all that was asked for costs on demand.
    kept
        The same less refunds.
    late
        Late jobs over accepted ones.
    """

    seller: str
    era: bool
    penalty: float
    accepted: list[float]
    kept: list[float]
    late: list[float]
    jobs: list[int]
    utilization: list[float]

    @property
    def name(self) -> str:
        """With a mark where there is a penalty."""
        return f"{self.seller}, late penalty" if self.penalty else self.seller

    def dominates(self, other: Point) -> bool:
        """Whether it earns at least as much with at most as many late jobs, on average."""
        return fmean(self.accepted) >= fmean(other.accepted) and fmean(self.late) <= fmean(
            other.late
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--seeds", default=5, show_default=True, type=click.IntRange(min=1), help="Draws of everything."
)
@click.option("--seed", default=1, show_default=True, help="The first of them.")
@click.option(
    "--late-penalty",
    default=0.02,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="What the runs with a penalty have: the exponent per hour.",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    help="Processes on this machine; without it as many as there are cores.",
)
@click.option("--quick", is_flag=True, help="A minute: two seeds, two settings.")
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a page with plots.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def main(
    seeds: int,
    seed: int,
    late_penalty: float,
    jobs: int | None,
    quick: bool,
    page: Path | None,
    as_json: bool,
) -> None:
    """Late jobs against revenue on a fifth of a datacentre, as in Figure 3 of the ERA paper.

    64 units are a fifth of a datacentre. The other tenants go first: what they use
    wanders around a mean share of their part, and where it exceeds that, units are
    missing from the fifth. Jobs that run on them end, are late, and get their money
    back; those that wait are moved, if their windows allow it.

    \b
    on-demand     at the on-demand price of 1 credit, at once or never
    first-fit     at 65 % of it, at the earliest moment that is free
    basic-econ    between the two; with a linear prior, and with what 7 days taught

    each with and without the penalty on late slots, which makes long jobs and late
    starts dearer, up to the on-demand price.

    The paper's data is not public. Assumed are a week of requests of 1 to 8 units for
    some hours, whose windows begin at the first half-hour after the submission (30 %
    can't wait, 40 % wait up to 6 hours, 30 % up to 2 days). Light demand asks for 70 %
    of the units, middle demand for 150 %, and half of it would pay the on-demand price;
    heavy demand asks for 300 %, and half of it would pay twice that price. The others
    use 90 % of their part on average, calm ones 80 %, with a standard deviation of 10 %.

    Accepted revenue is what was charged on acceptance; kept is without refunds. Both
    are shares of what all units and hours asked for would cost on demand. A point is
    dominated where another one has at least its revenue and at most its late share.
    With the defaults this takes five to ten minutes on two cores.
    """
    settings = (SETTINGS[0], SETTINGS[-1]) if quick else SETTINGS
    drawn = range(seed, seed + (min(seeds, 2) if quick else seeds))
    tasks = len(settings) * len(drawn) * 2 * len(SELLERS)
    with (
        open_workers(jobs or available_cores()) as workers,
        progress_bar(tasks, "runs", quiet=False) as progress,
    ):
        found = {
            setting.name: points(setting, drawn, late_penalty, workers, progress)
            for setting in settings
        }
    if page is not None:
        page.write_text(scatter_page(found, len(drawn)), "utf-8")
    report(found, drawn, late_penalty, as_json)


def points(
    setting: Setting,
    seeds: range,
    penalty: float,
    workers: Workers,
    progress: Callable[[int], None],
) -> list[Point]:
    """All sellers in one setting."""
    kinds = [(seller, rate) for rate in (0.0, penalty) for seller in SELLERS]
    trials: list[list[tuple[Trial, float]]] = [[] for _ in kinds]
    for seed in seeds:
        source = draw(setting, seed)
        hours = float(source.requests.columns.unit_hours.sum())
        entries = compare(
            source,
            [seller.mechanism(rate) for seller, rate in kinds],
            [seed],
            Pool.of(CAPACITY),
            workers,
            cloud=setting.cloud,
            with_bound=False,
            progress=progress,
        )
        for column, entry in zip(trials, entries, strict=True):
            column.append((entry.trials[0], hours * ON_DEMAND / 1e6))
    return [point(*kind, column) for kind, column in zip(kinds, trials, strict=True)]


def draw(setting: Setting, seed: int) -> Given:
    """A week of requests, and the week before it."""
    scenario = setting.scenario(14)
    past, played = split(poisson(seed, scenario), scenario.start + 7 * DAY)
    return Given(Requests(played), past)


def point(seller: Seller, penalty: float, trials: Sequence[tuple[Trial, float]]) -> Point:
    """One seller over all seeds; beside each trial what all requests would cost on demand."""
    sums = [(trial.summary, whole) for trial, whole in trials]
    return Point(
        seller.name,
        seller.era,
        penalty,
        accepted=[(s.revenue + s.refunds) / whole for s, whole in sums],
        kept=[s.revenue / whole for s, whole in sums],
        late=[s.late_jobs / max(s.accepted, 1) for s, _ in sums],
        jobs=[s.accepted for s, _ in sums],
        utilization=[s.utilization for s, _ in sums],
    )


def beaten_by(one: Point, others: Sequence[Point]) -> list[str]:
    """Which points of the other camp, ERA's or not, dominate it."""
    return [other.name for other in others if other.era != one.era and other.dominates(one)]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of shares."""
    deviation = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{deviation} %"


HEAD: Final = (
    *("", "accepted revenue", "kept", "late jobs"),
    *("accepted jobs", "utilization", "dominated by"),
)


def cells(one: Point, others: Sequence[Point]) -> tuple[str, ...]:
    """A row of the table."""
    camp = "others" if one.era else "of ERA's"
    return (
        one.name,
        spread(one.accepted),
        spread(one.kept),
        spread(one.late),
        f"{fmean(one.jobs):,.0f}",
        spread(one.utilization),
        f"{len(beaten_by(one, others))} {camp}",
    )


def report(found: dict[str, list[Point]], seeds: range, late_penalty: float, as_json: bool) -> None:
    """Tables, or the same as JSON."""
    where: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "seeds": list(seeds),
        "late_penalty": late_penalty,
    }
    if as_json:
        results = {
            name: [{**vars(one), "dominated_by": beaten_by(one, these)} for one in these]
            for name, these in found.items()
        }
        click.echo(json.dumps({**where, "settings": results}, indent=2))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in where.items()))
    for name, these in found.items():
        rows = [cells(one, these) for one in these]
        show(HEAD, rows, f"{name}: mean ± standard deviation")


def scatter_page(found: dict[str, list[Point]], seeds: int) -> str:
    """Late jobs against revenue, one plot for each setting."""
    over = f"means over {seeds} seeds, with one standard deviation" if seeds > 1 else "one seed"
    body = [
        "<h1>A fifth of a datacentre</h1>",
        f"<p>Share of late jobs against accepted revenue: large marks are {over}; small ones are "
        "the single seeds. Open marks are with the late penalty. To the right and down is better.",
        "A point is dominated where another one has at least its revenue and at most its late "
        "share.</p>",
    ]
    figures = []
    for number, (name, these) in enumerate(found.items()):
        body += [f"<h2>{escape(name.capitalize())}</h2>"]
        body += [f'<div id="plot{number}" class="plot"></div>']
        rows = [[escape(cell) for cell in cells(one, these)] for one in these]
        body += [table(HEAD, rows)]
        figures.append(scatter(f"plot{number}", these))
    return render("A fifth of a datacentre · era-sim", "\n".join(body), figures)


def scatter(name: str, these: Sequence[Point]) -> Figure:
    """One plot."""
    colors = {seller.name: COLORS[number] for number, seller in enumerate(SELLERS)}
    data: list[Figure] = []
    for one in these:
        x, y = 100 * np.array(one.accepted), 100 * np.array(one.late)
        symbol = ("diamond" if one.era else "circle") + ("-open" if one.penalty else "")
        mark = {"color": colors[one.seller], "symbol": symbol}
        single = {"type": "scatter", "mode": "markers", "x": numbers(x), "y": numbers(y)}
        data.append(
            {
                **single,
                "marker": {**mark, "size": 6, "opacity": 0.4},
                "showlegend": False,
                "hoverinfo": "skip",
            }
        )
        data.append(
            {
                **single,
                "x": numbers(x.mean(keepdims=True)),
                "y": numbers(y.mean(keepdims=True)),
                "name": one.name,
                "marker": {**mark, "size": 14, "line": {"width": 2}},
                **{
                    f"error_{axis}": {
                        "type": "data",
                        "array": [float(v.std(ddof=1)) if len(v) > 1 else 0.0],
                        "thickness": 1,
                    }
                    for axis, v in (("x", x), ("y", y))
                },
                "hovertemplate": "%{x:.1f} % of the revenue, %{y:.1f} % late",
            }
        )
    layout: Figure = {
        "height": 460,
        "margin": {"l": 70, "r": 20, "t": 10, "b": 50},
        "showlegend": True,
        "legend": LEGEND,
        "xaxis": {"title": {"text": "accepted revenue, % of all that was asked for"}},
        "yaxis": {"title": {"text": "late jobs, % of the accepted"}, "rangemode": "tozero"},
    }
    return {"id": name, "data": data, "layout": layout}


if __name__ == "__main__":
    main()
