"""What more GPUs would have been worth, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.inventory import POOL
from era_pricing.simulator.cloud import CloudModel
from era_pricing.simulator.mechanism import GPU, Mechanism, Pool
from era_pricing.simulator.metrics import (
    TIGHT,
    Bound,
    Summary,
    omniscient,
    span,
    summarise,
    total_bound,
)
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.run import simulate
from era_pricing.simulator.workers import Workers, gather
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload


@dataclass(frozen=True)
class Size:
    """What a pool of some size is worth. Money is credits.

    Attributes
    ----------
    capacity
        GPUs.
    bound
        What nobody could exceed with them.
    summary
        What the mechanism made of them; None if none was run.
    """

    capacity: int
    bound: float
    summary: Summary | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """The worth of a pool by its size.

    Attributes
    ----------
    sizes
        By capacity, ascending; the first is the pool as it is.
    requested_value : float
        Value of all requests, credits.
    slot : int
        Length of a slot, seconds.
    times : IntArray, shape (n,)
        Beginnings of the slots of the span, UTC seconds.
    prices : FloatArray, shape (n,)
        What one more GPU would have been worth in each slot, in a pool of the
        present size, credits.
    turned_away : FloatArray, shape (n,)
        Value that even the best allocation turns away at the present size, by
        the slot in which it was submitted, credits.
    """

    sizes: tuple[Size, ...]
    requested_value: float
    slot: int
    times: IntArray
    prices: FloatArray
    turned_away: FloatArray

    @property
    def days(self) -> float:
        """Length of the span."""
        return len(self.times) * self.slot / DAY

    def gains(self) -> list[float]:
        """What each size adds to the bound per GPU more than the size before; 0 for the first."""
        gains = [0.0]
        for before, after in zip(self.sizes, self.sizes[1:], strict=False):
            gains.append((after.bound - before.bound) / (after.capacity - before.capacity))
        return gains

    def peaks(self, count: int = 5) -> list[tuple[int, int, float]]:
        """The times when one more GPU would have been worth most.

        Returns
        -------
        list of (start, end, worth)
            At most `count` stretches in which its price lies in the top tenth of
            the span, UTC seconds, and what it would have earned in each, credits;
            the best first.
        """
        if not len(self.prices) or self.prices.max() <= 0:
            return []
        dear = self.prices >= max(float(np.quantile(self.prices, 0.9)), 1e-9)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], dear, [False])).astype(np.int8)))
        found = []
        for low, high in edges.reshape(-1, 2):
            start = int(self.times[low])
            found.append(
                (start, start + int(high - low) * self.slot, float(self.prices[low:high].sum()))
            )
        return sorted(found, key=lambda stretch: -stretch[2])[:count]

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON has it."""
        gains = self.gains()
        return {
            "requested_value": self.requested_value,
            "days": self.days,
            "sizes": [
                {
                    "capacity": size.capacity,
                    "omniscient_bound": size.bound,
                    "value_per_added_gpu": gain,
                    "value_per_added_gpu_hour": gain / (self.days * 24) if self.days else 0.0,
                    "run": None if size.summary is None else size.summary.as_dict(),
                }
                for size, gain in zip(self.sizes, gains, strict=True)
            ],
            "peaks": [
                {"start": start, "end": end, "value_of_one_gpu": worth}
                for start, end, worth in self.peaks()
            ],
        }


def plan(
    requests: Requests,
    capacity: int,
    added: Sequence[int],
    slot: int,
    workers: Workers,
    *,
    pool: Pool | None = None,
    mechanism: Mechanism | None = None,
    history: Workload | None = None,
    seed: int = 0,
    tolerance: float = TIGHT,
    progress: Callable[[int], None] | None = None,
) -> Plan:
    """Find what larger pools would have been worth.

    Parameters
    ----------
    requests
        What was asked for.
    capacity
        GPUs of the pool as it is.
    added
        Numbers of GPUs more to look at.
    slot
        Length of a slot, seconds.
    workers
        Who computes it.
    pool
        For bids: what they ask for comes from its configurations; its size doesn't matter.
    mechanism
        Also run this one at each size.
    history, seed
        As in `simulate`.
    tolerance
        Of the bounds.
    progress
        Called with 1 for each bound and run that has ended.
    """
    capacities = sorted({capacity, *(capacity + more for more in added)})
    sent = workers.share(requests)
    past = workers.share(history) if history is not None else None
    tell = progress or (lambda ended: None)
    sold = pool or Pool.of(capacity)
    pools = [replace(sold, nodes={POOL: {GPU: size}}) for size in capacities]
    now = gather([workers.submit(bound_task, sent, pools[0], slot, tolerance)], tell)[0]
    larger = pools[1:]
    start = workers.share(now)
    futures: list[Any] = [
        workers.submit(bound_task, sent, size, slot, tolerance, start) for size in larger
    ]
    if mechanism is not None:
        futures += [workers.submit(run_task, sent, mechanism, size, past, seed) for size in pools]
    results = gather(futures, tell)
    bounds: list[Bound] = [now, *results[: len(larger)]]
    runs: list[Summary | None] = results[len(larger) :] or [None] * len(capacities)
    sizes = tuple(
        Size(size, bound.value, None if run is None else run.bounded(bound.value))
        for size, bound, run in zip(capacities, bounds, runs, strict=True)
    )
    columns = requests.columns
    first, count = span(columns, slot)
    times = (np.arange(count, dtype=np.int64) + first) * slot
    lost = columns.value / 1e6 * (1 - now.fractions)
    when = columns.submitted // slot - first
    turned_away = np.bincount(when, lost, minlength=count).astype(np.float64)
    value = float(columns.value.sum()) / 1e6
    return Plan(sizes, value, slot, times, now.prices, turned_away)


def bound_task(
    requests: Requests, pool: Pool, slot: int, tolerance: float, start: Bound | None = None
) -> Bound:
    """The bound at one size, for a worker; `start` is that of another size."""
    if requests.bids:
        return total_bound(requests, pool, CloudModel(), 0, slot, tolerance)
    return omniscient(requests.columns, pool.capacity(GPU), slot, tolerance, start=start)


def run_task(
    requests: Requests, mechanism: Mechanism, pool: Pool, history: Workload | None, seed: int
) -> Summary:
    """One run at one size, for a worker."""
    return summarise(simulate(requests, mechanism, pool, history=history, seed=seed))


def by_hour(times: IntArray, values: FloatArray) -> FloatArray:
    """Mean of the values of slots by weekday and UTC hour, shape (7, 24); NaN without any.

    Monday is the first day.
    """
    hour = times // HOUR % 24
    day = (times // DAY + 3) % 7  # 1970-01-01 was a Thursday
    cell = day * 24 + hour
    sums = np.bincount(cell, values, minlength=168)
    counts = np.bincount(cell, minlength=168)
    means = np.full(168, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means.reshape(7, 24)
