"""How long a decision takes, and whether that depends on the pool or on the units asked for."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import click
import numpy as np

from era_pricing.algorithms import Algorithm, find_algorithm
from era_pricing.bids import Bid, Commitment, ResourceRequest
from era_pricing.configurations import Configuration
from era_pricing.engine import Era
from era_pricing.inventory import Inventory
from era_pricing.predictors import Predictor, Prior, find_predictor
from era_pricing.reservations import Feedback, Reservation
from era_pricing.simulator.generate import poisson
from era_pricing.simulator.scenario import MONDAY, Scenario
from era_pricing.tariff import PricedResource
from era_pricing.timegrid import DAY, TimeGrid
from era_pricing.workload import Workload

T = TypeVar("T")

GRID = TimeGrid(slot=300, horizon=14 * DAY)
WINDOW = 7 * DAY
GPU, UNIT = "nvidia.com/gpu", "unit"
FLOOR = 50_000
"""Micro-credits per GPU-hour."""

NOW = MONDAY + 14 * DAY
"""The moment of the first decision; two weeks of history come before it."""

PACE = 60
"""Seconds of simulated time from one decision to the next."""

LARGER = {2: 0.4, 4: 0.25, 8: 0.2, 16: 0.15}
"""Shares of the units of what is promised: about 60 % of the pool for 10,000."""

ALGORITHMS = ("basic-econ", "bid-price", "exponential", "first-fit")
POOLS = (1024, 4096, 16_384, 65_536, 150_000)
UNITS = (1, 4, 16, 64, 256)
NODES = (1, 8, 64)
MOST_VALUE = 10**15


@dataclass(frozen=True)
class Case:
    """What is measured."""

    table: str
    algorithm: str
    promises: str
    pool: int = 1024
    nodes: int = 1
    units: int = 64


@dataclass(frozen=True)
class Row:
    """Microseconds: medians and 99 % quantiles; CPU time but for those named wall."""

    case: Case
    quote_p50: float
    quote_p99: float
    reserve_p50: float
    reserve_p99: float
    wall_p50: float
    wall_p99: float
    slot_p50: float
    slot_most: float
    accepted: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--decisions",
    default=500,
    show_default=True,
    type=click.IntRange(min=10),
    help="Decisions measured in each row.",
)
@click.option(
    "--promised",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Reservations that are in the books already.",
)
@click.option(
    "--predictor",
    default="lp",
    show_default=True,
    type=click.Choice(["lp", "spread"]),
    help="What learns from the history in the first table; the others use spread.",
)
@click.option(
    "--table",
    "tables",
    multiple=True,
    type=click.Choice(["decisions", "pool", "units", "nodes"]),
    help="Only this table; may be repeated.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of history and promises.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def main(
    decisions: int, promised: int, predictor: str, tables: tuple[str, ...], seed: int, as_json: bool
) -> None:
    """Time decisions on a horizon of 14 days in slots of 5 minutes.

    A pool of 1,024 GPUs, a request of 64 of them for 1 to 12 hours within a window of
    7 days, and 10,000 reservations already promised, either all fixed or all movable
    within their windows. The predictor has learned from two weeks of requests. Four
    tables:

    \b
    decisions  four algorithms
    pool       basic-econ, pools from 1,024 to 150,000 GPUs; the promises grow with them
    units      basic-econ, 4,096 GPUs, requests of 1 to 256 of them
    nodes      1,024 GPUs that are on 1, 8 and 64 nodes, promises fixed

    Each decision is quoted first (`Era.quote`), then reserved (`Era.make_reservation`,
    which quotes again) at a value that accepts any price, and then taken back, so that
    all meet the same books. `slot` is the work when a slot begins, which a service does
    in its next `Era.update` and not while somebody waits for a decision: bid-price
    solves its LP again there every 30 minutes. Times are those of the process on one
    core; wall times of reservations stand beside them, and on a machine with other
    work they are longer. About 5 minutes.
    """
    wanted = tables or ("decisions", "pool", "units", "nodes")
    bench = Bench(decisions, promised, predictor, seed)
    rows = []
    for case in cases(wanted):
        rows.append(bench.measure(case))
        if not as_json:
            click.echo(f"  {case.table}: {case.algorithm}, {case.promises}", err=True)
    report(rows, wanted, seed, as_json)


def cases(tables: Sequence[str]) -> Iterator[Case]:
    """All cases of the tables."""
    for table in tables:
        for algorithm in ALGORITHMS if table == "decisions" else ("basic-econ",):
            for promises in ("fixed", "movable") if table != "nodes" else ("fixed",):
                base = Case(table, algorithm, promises)
                if table == "decisions":
                    yield base
                elif table == "pool":
                    yield from (replace(base, pool=pool) for pool in POOLS)
                elif table == "units":
                    yield from (replace(base, pool=4096, units=units) for units in UNITS)
                else:
                    yield from (replace(base, nodes=nodes) for nodes in NODES)


class Bench:
    """Makes engines for cases and measures them; keeps what several of them need."""

    def __init__(self, decisions: int, promised: int, predictor: str, seed: int) -> None:
        self._decisions = decisions
        self._predictor = predictor
        self._seed = seed
        scenario = Scenario(start=MONDAY, span=14 * DAY, capacity=1024, load=1.0, longest=2 * DAY)
        self._history = poisson(seed, scenario)
        later = replace(scenario, start=NOW, span=13 * DAY, load=2.0)
        some = poisson(seed + 1, later, units=LARGER)
        order = np.random.default_rng(seed).permutation(len(some))[:promised]
        self._promises = some.select(np.sort(order))
        self._promised: dict[tuple[str, int, int], tuple[Reservation, ...]] = {}
        self._learned: dict[tuple[str, int], Predictor] = {}

    def measure(self, case: Case) -> Row:
        """Times of the decisions of a case."""
        era, clock = self._engine(case)
        times = Times()
        begun = GRID.index(NOW)
        for number, bid in enumerate(self._bids(case)):
            clock.now = now = NOW + number * PACE
            if GRID.index(now) > begun:
                begun = GRID.index(now)
                times.slot.measure(partial(era.update, Feedback(), now))
            times.quote.measure(partial(era.quote, bid, now))
            job = f"asked-{number}"
            decision = times.reserve.measure(partial(era.make_reservation, job, bid, now))
            times.accepted += decision.accepted
            if decision.accepted:
                era.forget(job)
        return times.row(case, self._decisions)

    def _bids(self, case: Case) -> Iterator[Bid]:
        random = np.random.default_rng(self._seed + 2)
        for number in range(self._decisions):
            arrival = NOW + number * PACE + int(random.integers(0, 4 * DAY))
            duration = int(random.integers(1, 145)) * 300
            request = ResourceRequest({UNIT: case.units}, duration, arrival, arrival + WINDOW)
            yield Bid.of(request, MOST_VALUE, commitment_of(case))

    def _engine(self, case: Case) -> tuple[Era, Clock]:
        """An engine with everything promised."""
        clock = Clock(NOW)
        name = self._predictor if case.table == "decisions" else "spread"
        predictor = self._learn(name, case.pool)
        algorithm = find_algorithm(case.algorithm)()
        era = engine(case, algorithm, predictor, clock)
        era.restore(self._books(case), NOW)
        # What follows a restore is an update, in a service too.
        era.update(Feedback(), NOW)
        return era, clock

    def _learn(self, name: str, pool: int) -> Predictor:
        if (name, pool) not in self._learned:
            history = grown(self._history, pool)
            kind: Any = find_predictor(name)
            self._learned[name, pool] = kind(history, pool, GRID.slot)
        return self._learned[name, pool]

    def _books(self, case: Case) -> tuple[Reservation, ...]:
        """The promises as reservations, each as early as there is room."""
        key = (case.promises, case.pool, case.nodes)
        if key not in self._promised:
            first_fit = find_algorithm("first-fit")()
            still = engine(case, first_fit, Prior(1, 0.0), Clock(NOW), False)
            promises = grown(self._promises, case.pool)
            columns = (promises.units, promises.duration, promises.arrival, promises.deadline)
            for number, (units, duration, arrival, deadline) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True)
            ):
                request = ResourceRequest({UNIT: units}, duration, arrival, deadline)
                bid = Bid.of(request, MOST_VALUE, commitment_of(case))
                still.make_reservation(f"promised-{number}", bid, NOW)
            self._promised[key] = still.reservations(NOW)
        return self._promised[key]


class Clock:
    """Simulated time."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Samples:
    """Nanoseconds that calls took."""

    def __init__(self) -> None:
        self.cpu: list[int] = []
        self.wall: list[int] = []

    def measure(self, call: Callable[[], T]) -> T:
        """Call, and note down how long it took."""
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        result = call()
        self.cpu.append(time.process_time_ns() - cpu)
        self.wall.append(time.perf_counter_ns() - wall)
        return result


class Times:
    """The times of one case."""

    def __init__(self) -> None:
        self.quote, self.reserve, self.slot = Samples(), Samples(), Samples()
        self.accepted = 0

    def row(self, case: Case, decisions: int) -> Row:
        """Their quantiles."""
        figures = [
            *quantiles(self.quote.cpu, 0.5, 0.99),
            *quantiles(self.reserve.cpu, 0.5, 0.99),
            *quantiles(self.reserve.wall, 0.5, 0.99),
            *quantiles(self.slot.cpu or [0], 0.5, 1.0),
            self.accepted / decisions,
        ]
        return Row(case, *figures)


def quantiles(nanoseconds: Sequence[int], *shares: float) -> tuple[float, ...]:
    """Quantiles in microseconds."""
    return tuple(round(float(q) / 1000, 1) for q in np.quantile(nanoseconds, shares))


def commitment_of(case: Case) -> Commitment:
    return Commitment.FIXED if case.promises == "fixed" else Commitment.FLEXIBLE


def grown(requests: Workload, pool: int) -> Workload:
    """The same requests for a larger pool, each of as many times the units."""
    return replace(requests, units=requests.units * pool // 1024)


def engine(
    case: Case, algorithm: Algorithm, predictor: Predictor, clock: Clock, replan: bool = True
) -> Era:
    """An engine with nothing promised."""
    nodes = {f"node-{n}": {GPU: case.pool // case.nodes} for n in range(case.nodes)}
    return Era(
        GRID,
        Inventory.of_nodes(nodes),
        [Configuration(UNIT, {GPU: 1})],
        algorithm,
        [PricedResource(GPU, FLOOR, predictor)],
        clock,
        replan=replan,
        early_start="idle" if replan else "never",
    )


def report(rows: list[Row], tables: Sequence[str], seed: int, as_json: bool) -> None:
    """Tables, or the same as JSON."""
    where = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seed": seed,
    }
    if as_json:
        click.echo(json.dumps({**where, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in where.items()))
    click.echo("microseconds; CPU time but for the columns named wall")
    for table in tables:
        click.echo(
            f"\n{table:10} {'promises':8} {'GPUs':>7} {'nodes':>5} {'asked':>5} "
            f"{'quote p50':>9} {'p99':>7} {'reserve p50':>11} {'p99':>7} {'wall p50':>8} "
            f"{'p99':>7} {'slot p50':>8} {'most':>8}"
        )
        for row in rows:
            if row.case.table == table:
                click.echo(line(row))


def line(row: Row) -> str:
    case = row.case
    return (
        f"{case.algorithm:10} {case.promises:8} {case.pool:7} {case.nodes:5} {case.units:5} "
        f"{row.quote_p50:9.0f} {row.quote_p99:7.0f} {row.reserve_p50:11.0f} "
        f"{row.reserve_p99:7.0f} {row.wall_p50:8.0f} {row.wall_p99:7.0f} "
        f"{row.slot_p50:8.0f} {row.slot_most:8.0f}"
    )


if __name__ == "__main__":
    main()
