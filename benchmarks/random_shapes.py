"""How much is served on shapes of demand that nobody has chosen."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Final, TypeVar

import click
import numpy as np

from era_pricing.simulator.commands.terminal import progress_bar, show
from era_pricing.simulator.generate import poisson, split
from era_pricing.simulator.mechanism import Mechanism, Pool
from era_pricing.simulator.metrics import omniscient
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.run import simulate
from era_pricing.simulator.scenario import Cycle, Drift, Scenario, Values, Windows
from era_pricing.simulator.workers import available_cores, gather, open_workers
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

# What is shared lies beside this, wherever it is called from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import TOLERANCE, UNITS
from benchmarks.welfare import MECHANISMS, PUBLISHED, SLOW

T = TypeVar("T")

FEWEST: Final = 100
MOST: Final = 8_000
"""Requests that are played: a shape with fewer says little, one with more takes long."""

PLAYED: Final = {name: each for name, each in MECHANISMS.items() if name != SLOW}
"""The mechanisms that are compared."""


@dataclass(frozen=True)
class Draw:
    """A shape of demand, and what of it is played.

    Attributes
    ----------
    number
        Which draw it is; it is also the seed of its requests.
    slot
        Seconds.
    units
        Relative frequency of each number of units.
    past
        Days of history, which `scenario.span` includes.
    """

    number: int
    scenario: Scenario
    units: Mapping[int, float]
    slot: int
    past: int

    @classmethod
    def of(cls, number: int) -> Draw:
        """The shape with this number: everything is drawn by itself, all choices alike."""
        random = np.random.default_rng([2017, number])

        def one_of(*choices: T) -> T:
            return choices[int(random.integers(len(choices)))]

        capacity, slot = one_of(8, 16, 64, 256, 1024), one_of(900, 1800, 3600)
        past, days = one_of(2, 7, 14, 28), one_of(2, 4, 7)
        within_hours = one_of(2, 8, 24) * HOUR
        tight = one_of(0.0, 0.1, 1 / 3, 0.7, 1.0)
        scenario = Scenario(
            span=(past + days) * DAY,
            capacity=capacity,
            load=one_of(0.6, 1.0, 1.5, 2.0, 3.0, 5.0),
            cycle=Cycle(daily=one_of(0.0, 0.5, 0.8, 1.0), weekly=one_of(0.0, 0.5, 0.9)),
            drift=one_of(
                *[Drift()] * 3,
                Drift(load_trend=0.3),
                Drift(value_trend=0.3),
                Drift(0, 0, past * DAY, one_of(0.5, 2.0), one_of(0.5, 2.0)),
            ),
            windows=Windows(
                tight=tight,
                hours=one_of(0.0, 0.5, 1.0) * (1 - tight),
                within_hours=within_hours,
                within_days=max(within_hours, one_of(1, 2, 4) * DAY),
                ahead=one_of(0.0, 0.3, 1.0),
                lead=one_of(6 * HOUR, DAY, 3 * DAY),
            ),
            values=Values(
                sigma=one_of(0.0, 0.3, 0.8, 1.5, 2.0),
                size_exponent=one_of(-0.3, 0.0, 0.3),
                urgency=one_of(1.0, 3.0, 10.0),
            ),
            burst=one_of(1.0, 5.0, 20.0),
            align=slot,
            longest=one_of(4 * HOUR, 12 * HOUR, DAY, 3 * DAY),
        )
        units = one_of(
            {max(1, capacity // 64): 1.0},
            {max(1, capacity // 64) * count: share for count, share in UNITS.items()},
            {capacity // 8: 0.5, capacity // 4: 0.5},
            {1: 0.4, capacity // 8: 0.3, capacity // 2: 0.3},
            {max(1, capacity // 64): 0.8, capacity: 0.2},
        )
        return cls(number, scenario, units, slot, past)

    def workloads(self) -> tuple[Workload, Workload]:
        """The history, and what is played."""
        drawn = poisson(self.number, self.scenario, units=self.units)
        return split(drawn, self.scenario.start + self.past * DAY)

    @property
    def words(self) -> str:
        """What is special about it, briefly."""
        scenario, windows, values = self.scenario, self.scenario.windows, self.scenario.values
        sizes = "/".join(map(str, self.units))
        parts = [
            f"{sizes} of {scenario.capacity}",
            f"load {scenario.load:g}",
            f"{windows.tight:.0%} can't wait",
            f"sigma {values.sigma:g}",
            f"urgency {values.urgency:g}",
            f"bursts of {scenario.burst:g}",
        ]
        if scenario.drift != Drift():
            parts.append("drift")
        return ", ".join(parts)


@dataclass(frozen=True)
class Played:
    """One shape with all mechanisms.

    Attributes
    ----------
    requests
        How many were played.
    ratios
        Welfare over the omniscient bound, by mechanism.
    """

    draw: Draw
    requests: int
    ratios: Mapping[str, float]

    def over(self, other: str) -> float:
        """What bid-price serves over what another serves."""
        return self.ratios["bid-price"] / self.ratios[other] if self.ratios[other] else np.inf


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--shapes", default=60, show_default=True, type=click.IntRange(min=1), help="How many."
)
@click.option("--first", default=0, show_default=True, help="Number of the first one.")
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    help="Processes on this machine; without it as many as there are cores.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def main(shapes: int, first: int, jobs: int | None, as_json: bool) -> None:
    """Compare mechanisms on shapes of demand that are drawn at random.

    Whoever chooses shapes chooses those he has thought of. Here everything is drawn: 8 to
    1,024 GPUs, slots of 15 to 60 minutes, 2 to 28 days of history and 2 to 7 that are played,
    load 0.6 to 5, requests for single GPUs up to the whole pool, from 4 hours to 3 days long,
    none to all of which can wait, some of them in advance, cycles, bursts, values all alike
    or apart by orders of magnitude, urgent ones worth up to ten times as much, demand that
    grows, doubles or halves when the history ends. Shapes with fewer than 100 requests
    or more than 8,000 are passed over.

    The mechanisms are those of welfare.py. With the defaults this takes about 20 minutes
    on two cores; set OMP_NUM_THREADS=1 to keep it on the cores chosen.
    """
    chosen: list[Draw] = []
    number = first
    while len(chosen) < shapes:
        draw = Draw.of(number)
        if FEWEST <= len(draw.workloads()[1]) <= MOST:
            chosen.append(draw)
        number += 1
    with (
        open_workers(jobs or available_cores()) as workers,
        progress_bar(len(chosen), "shapes", quiet=False) as progress,
    ):
        found = gather([workers.submit(play, draw) for draw in chosen], progress)
    report(found, as_json)


def play(draw: Draw) -> Played:
    """All mechanisms on one shape, for a worker."""
    past, requests = draw.workloads()
    capacity = draw.scenario.capacity
    bound = omniscient(requests, capacity, draw.slot, TOLERANCE).value
    ratios = {}
    for name, mechanism in PLAYED.items():
        own: Mechanism = replace(mechanism, slot=draw.slot)
        run = simulate(Requests(requests), own, Pool.of(capacity), history=past, seed=draw.number)
        ratios[name] = float(run.worth.sum()) / 1e6 / bound if bound else 1.0
    return Played(draw, len(requests), ratios)


def quartiles(values: Sequence[float]) -> tuple[str, ...]:
    """Least, quartiles and greatest, and the mean after them."""
    points = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
    return (*(f"{point:.3f}" for point in points), f"{fmean(values):.3f}")


def report(found: Sequence[Played], as_json: bool) -> None:
    """Tables, or the same as JSON."""
    where: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "platform": platform.platform(),
    }
    if as_json:
        rows = [
            {
                "number": one.draw.number,
                "shape": one.draw.words,
                "requests": one.requests,
                "ratios": dict(one.ratios),
            }
            for one in found
        ]
        click.echo(json.dumps({**where, "shapes": rows}, indent=2))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in where.items()))
    by_gain = sorted(found, key=lambda one: one.over(PUBLISHED))
    show(
        ("", "shape", "requests", *PLAYED, f"bid-price over {PUBLISHED}"),
        [
            (
                str(one.draw.number),
                one.draw.words,
                str(one.requests),
                *(f"{ratio:.3f}" for ratio in one.ratios.values()),
                f"{one.over(PUBLISHED):.3f}",
            )
            for one in by_gain
        ],
    )
    head = ("least", "a quarter below", "half", "three quarters", "greatest", "mean")
    show(
        ("welfare / bound", *head),
        [(name, *quartiles([one.ratios[name] for one in found])) for name in PLAYED],
    )
    others = [name for name in PLAYED if name != "bid-price"]
    gains = {name: [one.over(name) for one in found] for name in others}
    show(
        ("bid-price over", *head, "1.1 or more", "below 0.98"),
        [
            (
                name,
                *quartiles(gains[name]),
                str(sum(gain >= 1.1 for gain in gains[name])),
                str(sum(gain < 0.98 for gain in gains[name])),
            )
            for name in others
        ],
    )


if __name__ == "__main__":
    main()
