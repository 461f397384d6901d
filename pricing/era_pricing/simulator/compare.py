"""Several mechanisms on the same demand, seed by seed, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from era_pricing.arrays import FloatArray
from era_pricing.simulator.cloud import CloudModel
from era_pricing.simulator.mechanism import Mechanism, Pool
from era_pricing.simulator.metrics import (
    TIGHT,
    ClassCount,
    Series,
    Summary,
    classes,
    series,
    summarise,
    total_bound,
)
from era_pricing.simulator.run import simulate
from era_pricing.simulator.source import Source
from era_pricing.simulator.workers import Workers, gather

CURVE_POINTS = 400
"""Points that are kept of each curve, on average over the slots between."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One mechanism with one seed."""

    seed: int
    summary: Summary
    classes: tuple[ClassCount, ...]
    series: Series


@dataclass(frozen=True, eq=False)
class Entry:
    """One mechanism with all its trials, in the order of the seeds."""

    mechanism: Mechanism
    trials: tuple[Trial, ...]

    def values(self, name: str) -> list[float]:
        """A number of the summary from each trial; those that have none are left out."""
        found = [getattr(trial.summary, name) for trial in self.trials]
        return [float(value) for value in found if value is not None]

    def mean(self, name: str) -> float | None:
        """Mean of a number of the summary over the seeds; None if there is none."""
        values = self.values(name)
        return fmean(values) if values else None

    def spread(self, name: str) -> float | None:
        """Standard deviation over the seeds; 0 for a single one."""
        values = self.values(name)
        return None if not values else stdev(values) if len(values) > 1 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Everything but the curves, as JSON has it."""
        names = list(Summary.__dataclass_fields__)
        return {
            "algorithm": self.mechanism.algorithm,
            "predictor": self.mechanism.predictor,
            "options": dict(self.mechanism.options),
            "mean": {name: self.mean(name) for name in names},
            "spread": {name: self.spread(name) for name in names},
            "runs": [{"seed": t.seed, **t.summary.as_dict()} for t in self.trials],
        }


def compare(
    source: Source,
    mechanisms: Sequence[Mechanism],
    seeds: Sequence[int],
    pool: Pool,
    workers: Workers,
    *,
    cloud: CloudModel | None = None,
    with_bound: bool = True,
    tolerance: float = TIGHT,
    progress: Callable[[int], None] | None = None,
) -> list[Entry]:
    """Run every mechanism with every seed.

    Parameters
    ----------
    source
        Where the requests of a seed come from.
    mechanisms, seeds
        What to run.
    pool, cloud
        As in `simulate`.
    workers
        Who runs it; the results don't depend on that, but for decision times.
    with_bound
        Whether to compute the bound of each seed.
    tolerance
        Of the bounds.
    progress
        Called with 1 for each run and bound that has ended.

    Raises
    ------
    SetupError, WorkloadError
        As the first run that fails.
    """
    model = cloud or CloudModel()
    sent = workers.share(source)
    slots = sorted({mechanism.slot for mechanism in mechanisms})
    bounds = [(seed, slot) for seed in seeds for slot in slots] if with_bound else []
    pairs = [(mechanism, seed) for mechanism in mechanisms for seed in seeds]
    futures: list[Any] = [
        workers.submit(bound_task, sent, seed, slot, pool, model, tolerance)
        for seed, slot in bounds
    ]
    futures += [
        workers.submit(trial_task, sent, mechanism, seed, pool, model) for mechanism, seed in pairs
    ]
    results = gather(futures, progress or (lambda ended: None))
    known = dict(zip(bounds, results, strict=False))
    trials = [
        _bounded(trial, known.get((seed, mechanism.slot)))
        for (mechanism, seed), trial in zip(pairs, results[len(bounds) :], strict=True)
    ]
    return [
        Entry(mechanism, tuple(trials[number * len(seeds) : (number + 1) * len(seeds)]))
        for number, mechanism in enumerate(mechanisms)
    ]


def planned_tasks(mechanisms: int, seeds: int, slots: int, with_bound: bool) -> int:
    """Number of calls of `progress` that `compare` will make."""
    return mechanisms * seeds + (slots * seeds if with_bound else 0)


def trial_task(
    source: Source, mechanism: Mechanism, seed: int, pool: Pool, cloud: CloudModel
) -> Trial:
    """One run, for a worker."""
    requests, history = source.draw(seed)
    run = simulate(requests, mechanism, pool, history=history, cloud=cloud, seed=seed)
    return Trial(seed, summarise(run), classes(run), thinned(series(run)))


def bound_task(
    source: Source, seed: int, slot: int, pool: Pool, cloud: CloudModel, tolerance: float
) -> float:
    """The bound of one seed, for a worker; credits."""
    requests, _ = source.draw(seed)
    return total_bound(requests, pool, cloud, seed, slot, tolerance).value


def _bounded(trial: Trial, bound: float | None) -> Trial:
    return Trial(trial.seed, trial.summary.bounded(bound), trial.classes, trial.series)


def thinned(curves: Series, points: int = CURVE_POINTS) -> Series:
    """The curves with at most `points` points; prices, load and capacity are averaged.

    Sums are those at the end of what a point stands for.
    """
    count = len(curves.times)
    step = -(-count // points) if count else 1
    if step == 1:
        return curves
    starts = np.arange(0, count, step)
    last = np.minimum(starts + step, count) - 1
    sums = {
        name: getattr(curves, name)[last] for name in ("requested", "welfare", "revenue", "bound")
    }
    means = {
        name: _block_means(getattr(curves, name), starts, count)
        for name in ("load", "capacity", "price_low", "price", "price_high")
    }
    return Series(times=curves.times[starts], **means, **sums)


def _block_means(values: FloatArray, starts: Any, count: int) -> FloatArray:
    """Means of blocks, without the NaN; NaN where there is nothing else."""
    there = np.isfinite(values)
    sums = np.add.reduceat(np.where(there, values, 0.0), starts)
    counts = np.add.reduceat(there.astype(np.int64), starts)
    means = np.full(len(starts), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means
