"""How much of the omniscient bound whole, contiguous jobs can have at best."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
import scipy
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.simulator.commands.terminal import show
from era_pricing.simulator.metrics import omniscient
from era_pricing.workload import Workload

# The shapes are those of the benchmark beside this one, wherever both are called from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import CAPACITY, SHAPES, SLOT, TOLERANCE

MICRO = 1e6


@dataclass(frozen=True)
class Row:
    """What was found for one shape and seed; the last four are shares of the fluid bound.

    Attributes
    ----------
    requests, starts
        How many there are, and how many pairs of a request and a start.
    bound
        The omniscient bound, credits: jobs may be served in part, in pieces, and at
        any speed up to their units.
    seconds
        That the solver took.
    rounded
        The better of the schedules that the LP's prices suggest.
    found
        The best schedule that was found.
    most
        What no schedule of whole jobs exceeds, as far as the solver has shown.
    """

    shape: str
    seed: int
    requests: int
    starts: int
    bound: float
    seconds: float
    rounded: float
    found: float
    most: float


@dataclass(frozen=True, eq=False)
class Starts:
    """Every start of every request, slots counted from the first one.

    Attributes
    ----------
    request, slot : IntArray, shape (k,)
        Whose start it is, and in which slot.
    length, units : IntArray, shape (m,)
        Slots and units of each request.
    value : FloatArray, shape (m,)
        Credits.
    count : int
        Slots in all.
    """

    request: IntArray
    slot: IntArray
    length: IntArray
    units: IntArray
    value: FloatArray
    count: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--shapes",
    "names",
    default="mixed,large",
    show_default=True,
    help="Shapes of welfare.py, with commas between.",
)
@click.option("--days", default=7, show_default=True, type=click.IntRange(min=1))
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="The first of them.")
@click.option(
    "--limit",
    default=300,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds that the solver has for each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(names: str, days: int, seeds: int, seed: int, limit: float, as_json: bool) -> None:
    """Compare the omniscient bound with schedules of whole, contiguous jobs.

    Both know all requests beforehand: the requests of welfare.py, on its 64 GPUs. The
    bound of welfare.py may serve a job in part, in pieces and at less than its speed.
    Here a job is served as a whole, from one of its starts on, or not at all: an
    integer program with a variable for each start, given to HiGHS (scipy's milp).

    \b
    rounded  jobs placed one after the other where they gain most over the LP's prices
    found    the best schedule that HiGHS has found within its time, or rounded
    most     what it has shown that no schedule exceeds

    All three are shares of the bound; the optimum lies between found and most. With
    the defaults this takes up to ten minutes; the requests last --days days.
    """
    known = {shape.name: shape for shape in SHAPES}
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="shapes")
    rows = []
    for name in chosen:
        for each in range(seed, seed + seeds):
            requests, _ = replace(known[name], days=days).draw(each)
            rows.append(whole(name, each, requests.columns, CAPACITY, limit))
    report(rows, limit, as_json)


def whole(shape: str, seed: int, workload: Workload, capacity: int, limit: float) -> Row:
    """The bound, and the best that was found within a time limit."""
    bound = omniscient(workload, capacity, SLOT, TOLERANCE)
    starts = all_starts(workload, bound.first_slot, len(bound.prices))
    rounded = max(
        schedule(starts, capacity, order, bound.prices)[0]
        for order in orders(starts, bound.prices, bound.fractions)
    )
    begun = time.perf_counter()
    found, most = best_schedule(starts, capacity, limit)
    return Row(
        shape,
        seed,
        len(workload),
        len(starts.request),
        bound.value,
        time.perf_counter() - begun,
        rounded / bound.value,
        max(found, rounded) / bound.value,
        min(most / bound.value, 1.0),
    )


def all_starts(workload: Workload, first: int, count: int) -> Starts:
    """The slots in which requests can start; windows are cut to whole slots."""
    earliest = -(-workload.arrival // SLOT) - first
    length = -(-workload.duration // SLOT)
    number = np.maximum(workload.deadline // SLOT - first - length - earliest + 1, 0)
    request = np.repeat(np.arange(len(workload)), number)
    ends = np.cumsum(number)
    slot = np.arange(len(request)) - np.repeat(ends - number - earliest, number)
    return Starts(request, slot, length, workload.units, workload.value / MICRO, count)


def orders(starts: Starts, prices: FloatArray, fractions: FloatArray) -> list[IntArray]:
    """Orders in which to place requests: by gain over the prices, and what the LP serves first."""
    gain = np.full(len(starts.value), -np.inf)
    np.maximum.at(gain, starts.request, gains(starts, prices))
    relative = gain / np.maximum(starts.units * starts.length, 1)
    per_unit = starts.value / np.maximum(starts.units * starts.length, 1)
    return [
        np.argsort(-relative, kind="stable"),
        np.argsort(-gain, kind="stable"),
        np.lexsort((-per_unit, -np.round(fractions, 2))),
    ]


def gains(starts: Starts, prices: FloatArray) -> FloatArray:
    """Value less price at each start, credits; prices are for a unit and slot."""
    paid = np.concatenate(([0.0], np.cumsum(prices)))
    cost = paid[starts.slot + starts.length[starts.request]] - paid[starts.slot]
    result: FloatArray = starts.value[starts.request] - starts.units[starts.request] * cost
    return result


def schedule(
    starts: Starts, capacity: int, order: IntArray, prices: FloatArray
) -> tuple[float, IntArray]:
    """Place requests in this order, each at the cheapest start that has room.

    Returns
    -------
    float, IntArray
        Credits, and the chosen starts as indices.
    """
    free = np.full(starts.count, capacity)
    paid = np.concatenate(([0.0], np.cumsum(prices)))
    ends = np.searchsorted(starts.request, np.arange(len(starts.value) + 1))
    total, chosen = 0.0, []
    for request in order.tolist():
        low, high = ends[request], ends[request + 1]
        if low == high:
            continue
        length, units = int(starts.length[request]), int(starts.units[request])
        slots = starts.slot[low:high]
        full = np.concatenate(([0], np.cumsum(free < units)))
        room = np.flatnonzero(full[slots + length] == full[slots])
        if not len(room):
            continue
        at = int(room[np.argmin((paid[slots + length] - paid[slots])[room])])
        free[slots[at] : slots[at] + length] -= units
        total += float(starts.value[request])
        chosen.append(int(low) + at)
    return total, np.array(chosen, dtype=np.int64)


def best_schedule(starts: Starts, capacity: int, limit: float) -> tuple[float, float]:
    """What HiGHS finds within a time limit, and what it shows that nothing exceeds; credits."""
    k, n, m = len(starts.request), starts.count, len(starts.value)
    length, at = starts.length[starts.request], np.arange(k)
    ends = np.cumsum(length)
    slots = np.arange(ends[-1]) - np.repeat(ends - length - starts.slot, length)
    units = np.repeat(starts.units[starts.request].astype(float), length)
    load = sp.csr_matrix((units, (slots, np.repeat(at, length))), shape=(n, k))
    once = sp.csr_matrix((np.ones(k), (starts.request, at)), shape=(m, k))
    found = milp(
        -starts.value[starts.request],
        integrality=np.ones(k),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(load, -np.inf, capacity), LinearConstraint(once, -np.inf, 1)],
        options={"time_limit": limit, "mip_rel_gap": 1e-4},
    )
    least = 0.0 if found.x is None else float(starts.value[starts.request] @ np.rint(found.x))
    bound = found.mip_dual_bound
    return least, np.inf if bound is None else -float(bound)


def report(rows: Sequence[Row], limit: float, as_json: bool) -> None:
    """A table, or the same as JSON."""
    where = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "scipy": scipy.__version__,
        "limit": limit,
    }
    if as_json:
        click.echo(json.dumps({**where, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in where.items()))
    head = ("shape", "seed", "requests", "starts", "bound", "seconds", "rounded", "found", "most")
    show(
        head,
        [
            (
                row.shape,
                str(row.seed),
                f"{row.requests:,}",
                f"{row.starts:,}",
                f"{row.bound:,.0f}",
                f"{row.seconds:.0f}",
                *(f"{share:.4f}" for share in (row.rounded, row.found, row.most)),
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
