"""Shapes of demand that several benchmarks play, and plug-ins played on them that have no name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

import click
import numpy as np

from era_pricing.algorithms import Algorithm, Market
from era_pricing.arrays import FloatArray, IntArray
from era_pricing.engine import Era
from era_pricing.inventory import Inventory
from era_pricing.predictors import Predictor
from era_pricing.reservations import Feedback
from era_pricing.simulator.building import unit_bid
from era_pricing.simulator.generate import poisson, split
from era_pricing.simulator.mechanism import GPU, Mechanism, Pool
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.scenario import Cycle, Drift, Scenario, Values, Windows, round_up
from era_pricing.simulator.traces import Jobs, from_trace, read_trace
from era_pricing.tariff import PricedResource
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

CAPACITY: Final = 64
SLOT: Final = 1800
PAST: Final = 14 * DAY
TOLERANCE: Final = 1e-3
"""Of the bound."""

TRACE: Final = Path(__file__).resolve().parents[2] / "shared/traces/philly.csv.gz"
TRACE_START: Final = 1_506_902_400
"""2017-10-02 00:00 UTC, the first Monday at which the trace is at its full height."""

MIXED: Final = Scenario(
    capacity=CAPACITY,
    load=2,
    cycle=Cycle(daily=0.8, weekly=0),
    windows=Windows(1 / 3, 1 / 3, within_hours=8 * HOUR, within_days=2 * DAY, ahead=0),
    values=Values(sigma=1),
    longest=DAY,
)
UNITS: Final[Mapping[int, float]] = {1: 0.5, 2: 0.2, 4: 0.2, 8: 0.1}


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape of demand: the requests of some days and the two weeks before them.

    Attributes
    ----------
    jobs
        A trace that tells when jobs come and how large they are; without one they
        are drawn as well.
    """

    name: str
    scenario: Scenario = MIXED
    units: Mapping[int, float] | None = None
    jobs: Jobs | None = None
    days: int = 7

    def draw(self, seed: int) -> tuple[Requests, Workload]:
        """The requests of a seed, and their history."""
        scenario = replace(self.scenario, span=PAST + self.days * DAY)
        if self.jobs is None:
            drawn = poisson(seed, scenario, units=self.units or UNITS)
        else:
            drawn = from_trace(self.jobs, seed, scenario, load=scenario.load)
        past, played = split(drawn, scenario.start + PAST)
        return Requests(played), past


SHAPES: Final = (
    Shape("mixed"),
    Shape("tight", replace(MIXED, windows=Windows(tight=1, hours=0, ahead=0))),
    Shape(
        "patient",
        replace(MIXED, windows=Windows(tight=0, hours=1, within_hours=2 * DAY, ahead=0)),
    ),
    Shape("advance", replace(MIXED, windows=replace(MIXED.windows, ahead=1, lead=2 * DAY))),
    Shape("large", units={1: 0.4, 8: 0.3, 32: 0.3}),
    Shape(
        "bulk and urgent",
        replace(
            MIXED,
            windows=Windows(tight=0.3, hours=0, within_hours=DAY, within_days=3 * DAY, ahead=0),
            values=Values(sigma=1, urgency=5),
        ),
    ),
    Shape("weekends", replace(MIXED, cycle=Cycle(daily=0.8, weekly=0.7))),
    Shape("alike", replace(MIXED, values=Values(sigma=0))),
    Shape("bursts", replace(MIXED, burst=10)),
    Shape(
        "long waits",
        replace(
            MIXED,
            windows=Windows(tight=0, hours=0, within_hours=DAY, within_days=7 * DAY, ahead=0),
        ),
    ),
    Shape(
        "booked early",
        replace(
            MIXED,
            windows=Windows(0.4, 0.3, 8 * HOUR, DAY, ahead=0.5, lead=7 * DAY),
        ),
    ),
    Shape("drift", replace(MIXED, drift=Drift(shift_at=PAST, load_factor=1.6, value_factor=1.5))),
)


PHILLY: Final = "philly"

DELAYS: Final = (0, 1, 3, 6)
"""Hours; the first is what the others are compared with."""

WAITERS: Final = "waiters"
WAITER_SHARE: Final = 0.05


def names_of_shapes(
    context: click.Context, parameter: click.Parameter, texts: Sequence[str]
) -> list[str]:
    """Names of shapes, of which one text may have several with commas between."""
    known = [shape.name for shape in SHAPES] + [PHILLY]
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
    return names


def chosen_shapes(names: Sequence[str], trace: Path, days: int) -> list[Shape]:
    """The shapes with these names, or all; philly only if its trace is there."""
    shapes = [shape for shape in SHAPES if not names or shape.name in names]
    if not names or PHILLY in names:
        if trace.exists():
            scenario = replace(MIXED, start=TRACE_START)
            shapes.append(Shape(PHILLY, scenario, jobs=read_trace(trace)))
        else:
            click.echo(f"{PHILLY} is left out: there is no {trace}", err=True)
    if not shapes:
        raise click.UsageError("no shape is left")
    return [replace(shape, days=days) for shape in shapes]


def delayed(requests: Workload, seconds: int, seed: int) -> Workload:
    """The requests, of which some that can wait come later; these are a class of their own.

    Which they are depends on the seed alone. Their windows begin no earlier than the
    slot that comes after the submission.
    """
    slack = requests.deadline - requests.arrival - requests.duration
    able = np.flatnonzero(slack >= max(DELAYS) * HOUR)
    count = math.ceil(WAITER_SHARE * len(able))
    rows = np.random.default_rng(seed).choice(able, count, replace=False)
    waits = np.zeros(len(requests), dtype=bool)
    waits[rows] = True
    submitted = np.where(waits, requests.submitted + seconds, requests.submitted)
    arrival = np.maximum(requests.arrival, round_up(submitted, SLOT))
    labels = tuple(np.where(waits, WAITERS, "others").tolist())
    return replace(requests, submitted=submitted, arrival=arrival, classes=labels).sorted()


class OraclePrices(Algorithm):
    """A constant price for each slot, here the dual of the optimum of all requests.

    Parameters
    ----------
    first
        Absolute index of the first slot that has a price; others cost nothing.
    prices
        Micro-credits per unit and hour.
    """

    name: ClassVar[str] = "oracle-prices"

    def __init__(self, first: int, prices: FloatArray) -> None:
        self._first = first
        self._prices = np.append(np.rint(prices).astype(np.int64), 0)

    def rates(self, units: int, market: Market) -> IntArray:
        """See `Algorithm.rates`."""
        at = market.times // market.slot - self._first
        last = len(self._prices) - 1
        rates: IntArray = self._prices[np.where((at >= 0) & (at < last), at, last)] * units
        return rates


def served_by(
    algorithm: Algorithm, predictor: Predictor, requests: Requests, past: Workload | None
) -> float:
    """Welfare of plug-ins that have no name, credits; as `simulate` in an ideal cloud."""
    mechanism, pool = Mechanism(slot=SLOT), Pool.of(CAPACITY)
    era = Era(
        mechanism.grid(requests.columns, past),
        Inventory.of_nodes(pool.nodes),
        pool.configurations,
        algorithm,
        [PricedResource(GPU, mechanism.price_floor, predictor)],
        lambda: 0,
    )
    columns = requests.sorted().columns
    names = ("submitted", "units", "duration", "arrival", "deadline", "value")
    rows = zip(*(getattr(columns, name).tolist() for name in names), strict=True)
    look = int(columns.submitted.min()) // SLOT * SLOT
    welfare = 0
    for row, (now, units, duration, arrival, deadline, value) in enumerate(rows):
        while look <= now:
            era.update(Feedback(), look)
            look += SLOT
        bid = unit_bid(units, duration, arrival, deadline, value, mechanism)
        if era.make_reservation(str(row), bid, now).reservation is not None:
            welfare += value
    return welfare / 1e6
