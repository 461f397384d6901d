"""What a run was worth: numbers, classes, and curves over time."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.notation import MICRO
from era_pricing.simulator.cloud import (
    BROKEN,
    FAILED,
    KEPT,
    LATE,
    CloudModel,
    actual_durations,
    shares_seen,
)
from era_pricing.simulator.mechanism import Pool
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.run import ACCEPTED, NO_ROOM, REFUSED, TOO_DEAR, Run
from era_pricing.timegrid import HOUR
from era_pricing.workload import Workload

TIGHT = 1e-4
"""Tolerance of bounds."""


@dataclass(frozen=True)
class Summary:
    """The numbers of one run. Money is credits.

    Attributes
    ----------
    requests, accepted, rejected
        Counts; `accepted` + `rejected` = `requests`.
    requested_value
        Value of all requests.
    welfare
        Value of the accepted bids that were kept.
    omniscient_bound
        What no allocation can exceed, even one that knows all requests from the
        start; None if it was not computed.
    welfare_ratio
        `welfare` / `omniscient_bound`; None without one, 1 if both are 0.
    revenue
        Prices charged, less refunds.
    refunds
        What was given back.
    utilization
        Promised share of the capacity over the workload's span, from the first
        submission to the last deadline, both widened to whole slots.
    unit_hours
        Promised units times hours, as they came to pass.
    late_jobs
        Accepted jobs that were not done by their deadline, for whatever reason;
        `broken`, `failed` and `overdue` are those whose capacity was lost, that
        crashed or were cut off, and that were done too late.
    too_dear, no_room, refused
        Why bids were rejected: price above value; no room in the window; could
        never be served.
    early_starts
        Jobs that began before the start they were told.
    decision_us_p50, decision_us_p99
        Quantiles of the engine's time for a decision, in microseconds.
    """

    requests: int
    accepted: int
    rejected: int
    requested_value: float
    welfare: float
    omniscient_bound: float | None
    welfare_ratio: float | None
    revenue: float
    refunds: float
    utilization: float
    unit_hours: float
    late_jobs: int
    broken: int
    failed: int
    overdue: int
    too_dear: int
    no_room: int
    refused: int
    early_starts: int
    decision_us_p50: float | None
    decision_us_p99: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        """The numbers by name."""
        return asdict(self)

    def bounded(self, bound: float | None) -> Summary:
        """The same, beside a bound in credits."""
        ratio = None if bound is None else self.welfare / bound if bound else 1.0
        return replace(self, omniscient_bound=bound, welfare_ratio=ratio)


@dataclass(frozen=True)
class ClassCount:
    """What became of the requests with one label. Money is credits."""

    label: str
    requests: int
    accepted: int
    late: int
    requested_value: float
    welfare: float
    revenue: float


@dataclass(frozen=True, eq=False)
class Series:
    """Curves over time, one value for each slot of the span.

    Attributes
    ----------
    times : IntArray, shape (n,)
        Beginnings of the slots, UTC seconds.
    load, capacity : FloatArray, shape (n,)
        Units promised, on average over the slot, and units that were there.
    price_low, price, price_high : FloatArray, shape (n,)
        10 %, 50 % and 90 % quantile of what a unit-hour of the coming day costs,
        credits; NaN where nothing was for sale.
    requested, welfare, revenue : FloatArray, shape (n,)
        Sums over the requests submitted by the end of the slot, credits.
    bound : FloatArray, shape (n,)
        The same of the omniscient allocation; NaN without one.
    """

    times: IntArray
    load: FloatArray
    capacity: FloatArray
    price_low: FloatArray
    price: FloatArray
    price_high: FloatArray
    requested: FloatArray
    welfare: FloatArray
    revenue: FloatArray
    bound: FloatArray


@dataclass(frozen=True, eq=False)
class Bound:
    """What no mechanism can exceed.

    Attributes
    ----------
    value : float
        Credits.
    fractions : FloatArray, shape (m,)
        Share of each request in the omniscient allocation.
    prices : FloatArray, shape (n,)
        What one more unit would have been worth in each slot, credits.
    first_slot : int
        Slot of the first price.
    """

    value: float
    fractions: FloatArray
    prices: FloatArray
    first_slot: int


def span(workload: Workload, slot: int) -> tuple[int, int]:
    """First slot and number of slots from the first submission to the last deadline."""
    if not len(workload):
        return 0, 0
    first = int(workload.submitted.min()) // slot
    return first, -(-int(workload.deadline.max()) // slot) - first


def omniscient(
    workload: Workload,
    capacity: float | FloatArray,
    slot: int,
    tolerance: float = TIGHT,
    over: tuple[int, int] | None = None,
    start: Bound | None = None,
) -> Bound:
    """The bound of one resource, by the LP relaxation that knows all requests.

    Parameters
    ----------
    workload
        All requests.
    capacity
        Units; or units in each slot of the span.
    slot
        Length of a slot, seconds.
    tolerance
        Relative gap at which to stop; the bound holds at any.
    over
        First slot and number of slots; the workload's span if None.
    start
        A bound of a similar problem with the same span, to begin from.

    Raises
    ------
    WorkloadError
        If the workload makes no sense.
    """
    from era_pricing.relaxation import solve, solve_exactly

    first, count = span(workload, slot) if over is None else over
    if not len(workload):
        return Bound(0.0, np.zeros(0), np.zeros(count), first)
    limit = np.broadcast_to(np.ceil(capacity).astype(np.int64), count).copy()
    prices = None if start is None else start.prices * MICRO
    found = solve_exactly(workload, limit, first, slot)
    if found is None:
        found = solve(workload, limit, first, slot, tolerance=tolerance, prices=prices)
    value = min(found.bound, float(workload.value.sum())) / MICRO
    return Bound(value, found.fractions, found.prices / MICRO, first)


def total_bound(
    requests: Requests,
    pool: Pool,
    cloud: CloudModel,
    seed: int,
    slot: int,
    tolerance: float = TIGHT,
) -> Bound:
    """What nobody could exceed: the least bound over the priced resources.

    In a cloud that is not ideal jobs give back what they do not use, and a bid of
    the bidding language may take fewer units for longer. Such requests count with
    the whole slots that they need at least, and those that need less than one with
    their value and no units, so that the bound holds for them too. Capacity that
    came and went is counted as it was.
    """
    whole = cloud.ideal and not requests.bids and requests.needed is None
    bounds = []
    for resource in pool.priced:
        workload = requests.asking(resource)
        room: float | FloatArray = pool.capacity(resource)
        if cloud.moves_capacity and len(workload):
            first, count = span(workload, slot)
            begin = int(workload.submitted.min())
            slots = range(first, first + count)
            shares = shares_seen(cloud, tuple(pool.nodes), seed, begin, slots, slot)
            room = pool.left(resource, shares)
        if whole:
            bounds.append(omniscient(workload, room, slot, tolerance))
            continue
        needed = requests.needed
        if needed is None:
            needed = actual_durations(cloud, workload, seed)
        needed = needed // slot * slot
        some = needed > 0
        longer = replace(workload.select(some), duration=needed[some])
        found = omniscient(longer, room, slot, tolerance, span(workload, slot))
        fractions = np.ones(len(workload))
        fractions[some] = found.fractions
        free = float(workload.value[~some].sum()) / MICRO
        bounds.append(replace(found, value=found.value + free, fractions=fractions))
    return min(bounds, key=lambda bound: bound.value)


def bound_of(run: Run, tolerance: float = TIGHT) -> Bound:
    """The bound of a run; see `total_bound`."""
    return total_bound(run.requests, run.pool, run.cloud, run.seed, run.grid.slot, tolerance)


def summarise(run: Run, bound: Bound | None = None) -> Summary:
    """The numbers of a run, with the bound if one is given."""
    accepted = run.answer == ACCEPTED
    fates = {fate: int((run.fate[accepted] == fate).sum()) for fate in (BROKEN, FAILED, LATE)}
    reasons = {reason: int((run.answer == reason).sum()) for reason in (TOO_DEAR, NO_ROOM, REFUSED)}
    welfare = int(run.worth.sum()) / MICRO
    curves = series(run)
    room = float(curves.capacity.sum())
    load = float(curves.load.sum())
    taken = int(accepted.sum())
    summary = Summary(
        requests=len(run.requests),
        accepted=taken,
        rejected=len(run.requests) - taken,
        requested_value=int(run.requests.columns.value.sum()) / MICRO,
        welfare=welfare,
        omniscient_bound=None,
        welfare_ratio=None,
        revenue=int((run.price - run.refund).sum()) / MICRO,
        refunds=int(run.refund.sum()) / MICRO,
        utilization=load / room if room else 0.0,
        unit_hours=load * run.grid.slot / HOUR,
        late_jobs=sum(fates.values()),
        broken=fates[BROKEN],
        failed=fates[FAILED],
        overdue=fates[LATE],
        too_dear=reasons[TOO_DEAR],
        no_room=reasons[NO_ROOM],
        refused=reasons[REFUSED],
        early_starts=int((accepted & (run.start >= 0) & (run.start < run.promised_start)).sum()),
        decision_us_p50=_microseconds(run.decision_ns, 50),
        decision_us_p99=_microseconds(run.decision_ns, 99),
    )
    return summary.bounded(None if bound is None else bound.value)


def _microseconds(times: IntArray, quantile: float) -> float | None:
    return float(np.percentile(times, quantile)) / 1000 if len(times) else None


def classes(run: Run) -> tuple[ClassCount, ...]:
    """What became of each class, in the order in which they first came.

    A workload without classes gets four of about equal size, by value per unit-hour.
    """
    columns = run.requests.columns
    if not len(columns):
        return ()
    labels, number = _labels(columns)
    accepted = run.answer == ACCEPTED

    def sums(weights: npt.NDArray[np.generic]) -> list[float]:
        found: list[float] = np.bincount(number, weights, minlength=len(labels)).tolist()
        return found

    rows = zip(
        labels,
        sums(np.ones(len(columns))),
        sums(accepted),
        sums(accepted & (run.fate != KEPT)),
        sums(columns.value / MICRO),
        sums(run.worth / MICRO),
        sums((run.price - run.refund) / MICRO),
        strict=True,
    )
    return tuple(
        ClassCount(label, int(count), int(taken), int(late), value, welfare, revenue)
        for label, count, taken, late, value, welfare, revenue in rows
    )


def _labels(workload: Workload) -> tuple[list[str], IntArray]:
    """The names of the classes, and the number of each request's."""
    if workload.classes:
        known = {label: number for number, label in enumerate(dict.fromkeys(workload.classes))}
        return list(known), np.array([known[label] for label in workload.classes])
    density = workload.value / MICRO / workload.unit_hours
    edges = np.unique(np.quantile(density, (0.25, 0.5, 0.75)))
    number = np.searchsorted(edges, density, side="right")
    names = [f"under {edges[0]:.3g} a unit-hour"]
    names += [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    names.append(f"{edges[-1]:.3g} and more")
    return names, number.astype(np.int64)


def series(run: Run, bound: Bound | None = None) -> Series:
    """The curves of a run over its span."""
    columns, slot = run.requests.columns, run.grid.slot
    first, count = span(columns, slot)
    edges = (np.arange(count + 1) + first) * slot
    when = np.searchsorted(edges, columns.submitted, side="right") - 1

    def sums(amounts: npt.NDArray[np.generic]) -> FloatArray:
        found: FloatArray = np.cumsum(np.bincount(when, amounts, minlength=count)) / MICRO
        return found

    prices = np.full((count, 3), np.nan)
    low, high = run.first_slot - first, run.first_slot - first + len(run.prices)
    prices[max(low, 0) : max(high, 0)] = run.prices[max(-low, 0) : max(count - low, 0)]
    nothing = np.full(count, np.nan)
    return Series(
        times=edges[:-1],
        load=_load(run, first, count),
        capacity=_capacity(run),
        price_low=prices[:, 0] / MICRO,
        price=prices[:, 1] / MICRO,
        price_high=prices[:, 2] / MICRO,
        requested=sums(columns.value),
        welfare=sums(run.worth),
        revenue=sums(run.price - run.refund),
        bound=nothing if bound is None else sums(columns.value * bound.fractions),
    )


def _load(run: Run, first: int, count: int) -> FloatArray:
    """Units promised in each slot, on average; exact also for parts of slots."""
    slot = run.grid.slot
    _, start, end, units = run.stints.T
    # The integral of the load up to a time is piecewise linear: its steps at slot
    # boundaries are those of whole slots, corrected for the parts.
    level = np.zeros(count + 2)
    part = np.zeros(count + 2)
    for times, sign in ((start, 1), (end, -1)):
        index = np.clip(times // slot - first, 0, count)
        inside = np.clip((times - (first + index) * slot) / slot, 0, 1)
        np.add.at(level, index + 1, sign * units)
        np.add.at(part, index, sign * units * (1 - inside))
    load: FloatArray = (np.cumsum(level) + part)[:count]
    return load


def _capacity(run: Run) -> FloatArray:
    """Units that were there in each slot of the span."""
    first, count = span(run.requests.columns, run.grid.slot)
    capacity = np.full(count, float(run.pool.capacity(run.pool.priced[0])))
    offset = run.first_slot - first
    low, high = max(offset, 0), min(offset + len(run.capacity), count)
    if low < high:
        capacity[low:high] = run.capacity[low - offset : high - offset]
    return capacity
