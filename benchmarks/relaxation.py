"""How long the LP relaxation takes, beside the same LP given to scipy as it stands."""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TypeVar

import click
import numpy as np
import scipy
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import linprog

from era_pricing.relaxation import Relaxation, solve
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

T = TypeVar("T")

SLOT = HOUR // 2
LOAD = 2.0
"""Units asked for, over units there are."""


@dataclass(frozen=True)
class Row:
    """One line of the table; bound and value are relative to the best bound known."""

    problem: str
    method: str
    requests: int
    slots: int
    seconds: float
    bound: float
    value: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--requests",
    default=5500,
    show_default=True,
    type=click.IntRange(min=1),
    help="Requests that both solve.",
)
@click.option(
    "--many",
    default=100_000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Requests that only era_pricing solves; 0 leaves this out.",
)
@click.option(
    "--tolerance",
    default=1e-3,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Gap between bound and value that era_pricing may leave.",
)
@click.option(
    "--method",
    default="highs",
    show_default=True,
    type=click.Choice(["highs", "highs-ds", "highs-ipm", "none"]),
    help="What scipy's linprog uses; none leaves it out.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the requests.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(requests: int, many: int, tolerance: float, method: str, seed: int, as_json: bool) -> None:
    """Time the LP relaxation of the optimal allocation.

    Two weeks of half-hour slots, requests for twice the units there are, with a
    daily cycle: 1 to 8 units for half an hour to a day, windows from tight to four
    days longer than the duration, lognormal values. Three questions:

    \b
    requests   era_pricing and scipy's linprog solve the same problem. linprog gets
               it as it is written: a row for every request and slot.
    many       era_pricing alone; over two weeks, and over three months.
    again      what an algorithm does that re-solves as requests come in: one week,
               a gap of 1 %, once from scratch and once from prices that are 2 % off.

    bound and value are relative to the optimum where linprog found it, otherwise to
    era_pricing's own bound; the optimum lies between the two. With the defaults this
    takes five to ten minutes, nearly all of it in linprog (its highs-ipm needs about
    half as long); set OMP_NUM_THREADS=1 to keep everything on one core.
    """
    rows = []
    workload, capacity = demand(requests, 14, seed)
    rows += compare(workload, capacity, tolerance, method)
    if many:
        for name, days in (("many", 14), ("many, 90 days", 90)):
            workload, capacity = demand(many, days, seed)
            seconds, found = timed(lambda w=workload, c=capacity: relax(w, c, tolerance))
            rows.append(row(name, workload, capacity, seconds, found, found.bound))
    for count in (3000, 20_000):
        rows += again(*demand(count, 7, seed), seed)
    report(rows, seed, as_json)


def demand(count: int, days: int, seed: int) -> tuple[Workload, NDArray[np.int64]]:
    """Requests with a daily cycle, and half the capacity they ask for."""
    random = np.random.default_rng(seed)
    span = days * DAY
    time_of = random.uniform(0, span, 4 * count)
    busy = 1 + 0.8 * np.sin(2 * np.pi * (time_of / DAY - 0.375))
    arrival = np.sort(time_of[random.uniform(0, 1.8, 4 * count) < busy][:count]).astype(np.int64)
    count = len(arrival)
    units = random.choice([1, 2, 4, 8], count, p=[0.5, 0.25, 0.15, 0.1])
    duration = np.clip(random.lognormal(np.log(2.5 * HOUR), 1.0, count), SLOT, DAY)
    slack = np.choose(
        random.choice(4, count, p=[0.25, 0.35, 0.25, 0.15]),
        [
            random.uniform(0, 0.2, count) * duration,
            random.uniform(0.2, 2, count) * duration,
            random.uniform(2 * HOUR, DAY, count),
            random.uniform(DAY, 4 * DAY, count),
        ],
    )
    # One slot more, for durations are rounded up to slots.
    deadline = np.minimum((arrival + duration + slack).astype(np.int64) + SLOT, span)
    arrival = np.minimum(arrival, deadline - SLOT)
    duration = np.minimum(duration.astype(np.int64), deadline - arrival)
    value = (1e6 * units * duration / HOUR * random.lognormal(0, 1, count)).astype(np.int64)
    capacity = max(1, round(float((units * duration).sum()) / (LOAD * span)))
    workload = Workload(arrival, arrival, deadline, units, duration, value)
    return workload, np.full(span // SLOT, capacity)


def compare(
    workload: Workload, capacity: NDArray[np.int64], tolerance: float, method: str
) -> list[Row]:
    """Both on the same problem."""
    seconds, found = timed(lambda: relax(workload, capacity, tolerance))
    if method == "none":
        return [row("requests", workload, capacity, seconds, found, found.bound)]
    direct, optimum = timed(lambda: linear_program(workload, capacity, method))
    return [
        row("requests", workload, capacity, seconds, found, optimum),
        Row("requests", f"linprog {method}", len(workload), len(capacity), direct, 1.0, 1.0),
    ]


def again(workload: Workload, capacity: NDArray[np.int64], seed: int) -> list[Row]:
    """From scratch, and from prices that are a little off; the best of three."""
    cold, found = best(lambda: relax(workload, capacity, 1e-2))
    noise = np.random.default_rng(seed).normal(1.0, 0.02, len(capacity))
    start = found.prices * np.maximum(noise, 0)
    warm, warmed = best(lambda: solve(workload, capacity, 0, SLOT, tolerance=1e-2, prices=start))
    fine = relax(workload, capacity, 1e-3).bound
    return [
        row("again, cold", workload, capacity, cold, found, fine),
        row("again, warm", workload, capacity, warm, warmed, fine),
    ]


def relax(workload: Workload, capacity: NDArray[np.int64], tolerance: float) -> Relaxation:
    return solve(workload, capacity, 0, SLOT, tolerance=tolerance)


def linear_program(workload: Workload, capacity: NDArray[np.int64], method: str) -> float:
    """Optimum of the LP as it is written, built without loops; x_jt, then y_j."""
    m, n = len(workload), len(capacity)
    first = workload.arrival // SLOT
    counts = -(-workload.deadline // SLOT) - first
    request = np.repeat(np.arange(m), counts)
    ends = np.cumsum(counts)
    slot = np.arange(ends[-1]) + np.repeat(first - ends + counts, counts)
    inside = np.minimum(workload.deadline[request], (slot + 1) * SLOT) - np.maximum(
        workload.arrival[request], slot * SLOT
    )
    needed = -(-workload.duration // SLOT)
    fits = np.bincount(request, inside, m) >= needed * SLOT
    k = len(request)
    load = sp.csr_matrix((np.ones(k), (slot, np.arange(k))), shape=(n, k + m))
    speed = sp.csr_matrix(
        (-workload.units[request] * inside / SLOT, (np.arange(k), request)), shape=(k, m)
    )
    work = sp.csr_matrix((np.ones(k), (request, np.arange(k))), shape=(m, k))
    found = linprog(
        np.concatenate([np.zeros(k), -workload.value.astype(float)]),
        A_ub=sp.vstack([load, sp.hstack([sp.identity(k), speed])]).tocsr(),
        b_ub=np.concatenate([capacity, np.zeros(k)]),
        A_eq=sp.hstack([work, sp.diags(-(workload.units * needed).astype(float))]).tocsr(),
        b_eq=np.zeros(m),
        bounds=np.column_stack([np.zeros(k + m), np.concatenate([np.full(k, np.inf), 1.0 * fits])]),
        method=method,
    )
    if found.status != 0:
        raise SystemExit(f"linprog did not solve the problem: {found.message}")
    return -float(found.fun)


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds a call takes, and its result."""
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def best(call: Callable[[], T]) -> tuple[float, T]:
    """The fastest of three."""
    return min((timed(call) for _ in range(3)), key=lambda pair: pair[0])


def row(
    problem: str,
    workload: Workload,
    capacity: NDArray[np.int64],
    seconds: float,
    found: Relaxation,
    reference: float,
) -> Row:
    bound, value = found.bound / reference, found.value / reference
    return Row(problem, "era_pricing", len(workload), len(capacity), seconds, bound, value)


def report(rows: list[Row], seed: int, as_json: bool) -> None:
    """A table, or the same as JSON."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    where = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "scipy": scipy.__version__,
        "seed": seed,
        "peak_memory_mb": round(memory),
    }
    if as_json:
        click.echo(json.dumps({**where, "rows": [asdict(r) for r in rows]}, indent=2))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in where.items()))
    click.echo(
        f"{'problem':14} {'method':16} {'requests':>8} {'slots':>6} {'seconds':>8} "
        f"{'bound':>9} {'value':>9}"
    )
    for r in rows:
        click.echo(
            f"{r.problem:14} {r.method:16} {r.requests:8} {r.slots:6} {r.seconds:8.2f} "
            f"{r.bound:9.5f} {r.value:9.5f}"
        )
    ours, *rest = rows
    if rest and rest[0].problem == ours.problem:
        click.echo(f"{rest[0].seconds / ours.seconds:.0f} times faster than linprog")


if __name__ == "__main__":
    main()
