"""Seeded generators of workloads: Poisson, the Yahoo classes, and Philly-like jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtri

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.simulator.scenario import FLAT, Cycle, Scenario, Values, complete, submissions
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload, WorkloadError

_GRID: Final = 4096  # points at which a distribution is evaluated to get its mean


@dataclass(frozen=True)
class LogNormal:
    """Durations whose logarithm is normal.

    Parameters
    ----------
    median
        Seconds.
    sigma
        Standard deviation of the logarithm; 0: all alike.
    """

    median: float
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.median < math.inf and 0 <= self.sigma <= 10):
            raise WorkloadError(
                "durations need a median of more than 0 seconds and a sigma from 0 to 10, "
                f"got {self.median} and {self.sigma}"
            )

    def quantile(self, share: FloatArray) -> FloatArray:
        """Seconds that this share of the durations doesn't exceed."""
        return np.asarray(self.median * np.exp(self.sigma * ndtri(share)), dtype=np.float64)


@dataclass(frozen=True)
class Quantiles:
    """Durations given by measured quantiles, log-linear in between.

    Parameters
    ----------
    shares
        Increasing, from 0 to 1.
    seconds
        The duration which that share of the jobs doesn't exceed.
    """

    shares: tuple[float, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.shares, self.shares[1:], strict=False))
        if not (rising and self.shares[:1] == (0,) and self.shares[-1:] == (1,)):
            raise WorkloadError(f"shares must increase from 0 to 1, got {self.shares}")
        if len(self.seconds) != len(self.shares) or min(self.seconds) <= 0:
            raise WorkloadError(
                f"seconds must be {len(self.shares)} numbers above 0, got {self.seconds}"
            )

    def quantile(self, share: FloatArray) -> FloatArray:
        """Seconds that this share of the durations doesn't exceed."""
        logs = np.interp(share, self.shares, np.log(self.seconds))
        return np.asarray(np.exp(logs), dtype=np.float64)


@dataclass(frozen=True)
class JobClass:
    """Jobs of one size.

    Parameters
    ----------
    name
        Label of its requests; "" labels them by how long they can wait.
    weight
        Relative frequency.
    units
        Units of each.
    durations
        Distribution of the durations.
    """

    name: str
    weight: float
    units: int
    durations: LogNormal | Quantiles


MIX: Final[Mapping[int, float]] = {1: 0.4, 2: 0.25, 4: 0.2, 8: 0.15}
"""Shares of the numbers of units in `poisson`: an assumption."""


def poisson(
    seed: int,
    scenario: Scenario | None = None,
    *,
    units: Mapping[int, float] = MIX,
    durations: LogNormal | Quantiles = LogNormal(2 * HOUR, 1.0),
) -> Workload:
    """Requests that come as a Poisson process with daily and weekly cycles.

    Parameters
    ----------
    seed
        Of all that is random: the same seed gives the same workload.
    scenario
        Load, cycles, windows, values; None: the defaults, except that durations
        are cut at two days.
    units
        Relative frequency of each number of units.
    durations
        Distribution of the durations, seconds.

    Returns
    -------
    Workload
        Classes say how long a request can wait: "tight", "hours", "days".

    Raises
    ------
    WorkloadError
        If a frequency or a number of units makes no sense.
    """
    scenario = scenario or Scenario(longest=2 * DAY)
    return from_classes(
        seed, [JobClass("", weight, n, durations) for n, weight in units.items()], scenario
    )


def from_classes(seed: int, classes: Sequence[JobClass], scenario: Scenario) -> Workload:
    """Requests of several classes, mixed by their weights, at the scenario's load.

    Raises
    ------
    WorkloadError
        If there is no class of positive weight, or units are below 1.
    """
    shares = _shares(classes)
    sizes = np.array([c.units for c in classes], dtype=np.int64)
    work = sum(
        share * _mean_work(one, scenario) for share, one in zip(shares, classes, strict=True)
    )
    times, shapes, rest = np.random.default_rng(seed).spawn(3)
    rate = scenario.load * scenario.capacity / work
    submitted = submissions(times, scenario, None, rate)
    kind = shapes.choice(len(classes), len(submitted), p=shares)
    quantile = shapes.random(len(submitted))
    seconds = np.zeros(len(submitted))
    for number, one in enumerate(classes):
        of_it = kind == number
        seconds[of_it] = one.durations.quantile(quantile[of_it])
    units, duration = scenario.fit(sizes[kind], seconds)
    names = [c.name for c in classes]
    labels = [names[k] for k in kind.tolist()] if any(names) else None
    return complete(rest, scenario, submitted, units, duration, classes=labels)


def _shares(classes: Sequence[JobClass]) -> FloatArray:
    weights = np.array([c.weight for c in classes], dtype=np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise WorkloadError(
            "the frequencies of the numbers of units must be 0 or more, and one above 0, "
            f"got {weights.tolist()}"
        )
    for one in classes:
        if one.units < 1:
            raise WorkloadError(f"a request needs 1 unit or more, got {one.units}")
    return np.asarray(weights / weights.sum())


def _mean_work(one: JobClass, scenario: Scenario) -> float:
    """Expected unit-seconds of a request of the class, as cut and aligned."""
    share = (np.arange(_GRID) + 0.5) / _GRID
    units, seconds = scenario.fit(np.full(_GRID, one.units), one.durations.quantile(share))
    return float((units * seconds).mean())


@dataclass(frozen=True)
class MapReduceClass:
    """One cluster of jobs in a MapReduce trace; bytes are kept for the record.

    Parameters
    ----------
    jobs
        Jobs of this shape in the trace.
    input_bytes, shuffle_bytes, output_bytes
        Data of one job.
    duration
        Seconds.
    map_seconds, reduce_seconds
        Task-seconds of its two phases.
    """

    jobs: int
    input_bytes: float
    shuffle_bytes: float
    output_bytes: float
    duration: int
    map_seconds: int
    reduce_seconds: int

    @property
    def units(self) -> int:
        """Tasks that run side by side: all task-seconds over the duration, rounded up."""
        return max(-(-(self.map_seconds + self.reduce_seconds) // self.duration), 1)


YAHOO: Final = (
    MapReduceClass(21981, 174e6, 73e6, 6e6, 60, 412, 740),
    MapReduceClass(838, 568e9, 76e9, 3.9e9, 35 * 60, 270376, 589385),
    MapReduceClass(91, 206e9, 1.5e12, 133e6, 40 * 60, 983998, 1425941),
    MapReduceClass(7, 806e9, 235e9, 10e12, 155 * 60, 257567, 979181),
    MapReduceClass(35, 4.9e12, 78e9, 775e6, 225 * 60, 4481926, 1663358),
    MapReduceClass(5, 31e12, 937e9, 475e6, 515 * 60, 33606055, 31884004),
)
"""Six job clusters of a Yahoo MapReduce trace, after Chen, Ganapathi, Griffith and Katz,
"The case for evaluating MapReduce performance using workload suites", MASCOTS 2011; quoted
from memory. The last has the most task-seconds of all."""

YAHOO_SCENARIO: Final = Scenario(
    capacity=20_000, cycle=FLAT, values=Values(median=10, sigma=0), align=5 * 60
)
"""Assumed for `yahoo`: a week without cycles, Scenario's usual windows, and a cluster a tenth
as large as what is asked for. All six durations but the first are multiples of 5 minutes."""


def yahoo(
    seed: int, scenario: Scenario = YAHOO_SCENARIO, *, jobs: tuple[int, int] = (1400, 1500)
) -> Workload:
    """The six classes of `YAHOO` in about equal numbers, as in the ERA paper.

    The paper (Babaioff et al., WWW 2017) compares algorithms on between 1,400 and
    1,500 jobs of each class, worth $1 per unit in class 5 (the largest jobs) and
    $10 in all others. It doesn't say when jobs come nor how long they can wait:
    here they come at any moment of the span alike, and wait as `scenario.windows`
    says. A job takes `MapReduceClass.units` at once for its duration, and "per
    unit" is taken as per unit and hour of that.

    Parameters
    ----------
    seed
        Of all that is random.
    scenario
        `load` isn't used: the number of jobs sets it. `values.median` is the value
        of classes 0 to 4, in credits per unit and hour; class 5 has a tenth.
    jobs
        Least and greatest number of jobs in a class, drawn for each.

    Returns
    -------
    Workload
        Classes "class-0" to "class-5".

    Raises
    ------
    WorkloadError
        If the range of jobs is empty or negative.
    """
    least, greatest = jobs
    if not 0 <= least <= greatest:
        raise WorkloadError(f"jobs must be a range such as 1400, 1500, got {least}, {greatest}")
    times, shapes, rest = np.random.default_rng(seed).spawn(3)
    counts = shapes.integers(least, greatest, len(YAHOO), endpoint=True)
    kind = shapes.permutation(np.repeat(np.arange(len(YAHOO)), counts))
    submitted = submissions(times, scenario, len(kind))
    units, duration = scenario.fit(
        np.array([c.units for c in YAHOO])[kind], np.array([c.duration for c in YAHOO])[kind]
    )
    base = np.where(kind == len(YAHOO) - 1, 0.1, 1.0) * scenario.values.median
    labels = [f"class-{k}" for k in kind.tolist()]
    return complete(rest, scenario, submitted, units, duration, classes=labels, base=base)


SHARES: Final = (
    *(0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98),
    *(0.99, 0.995, 0.998, 0.999, 1.0),
)
"""Where the quantiles of durations are measured."""


def _philly(units: int, jobs: int, most: str, tail: str) -> JobClass:
    seconds = tuple(float(text) for text in f"{most} {tail}".split())
    return JobClass(f"{units}-gpu", jobs, units, Quantiles(SHARES, seconds))


PHILLY: Final = (
    _philly(1, 68085, "1 51 86 1011 2926 8942 19188 61979", "114380 227892 526456 953688 3256045"),
    _philly(2, 1648, "2 9 15 20 31 558 27751 79691", "188659 257762 292750 302587 307189"),
    _philly(
        4, 1515, "3 70 478 12378 84268 178674 192988 374063", "523373 591187 866087 1922129 2750674"
    ),
    _philly(
        8,
        1556,
        "1 92 1442 23290 172188 337030 498130 783425",
        "1074195 2011653 2237315 2656792 4628226",
    ),
    _philly(
        16, 137, "2 35 325 21137 115792 225103 292441 369149", "489491 648654 794240 842769 891298"
    ),
    _philly(
        32, 74, "1 4 1201 10278 53031 63019 87179 125583", "151706 182504 200983 207142 213302"
    ),
)
"""Shape of the Philly trace (Jeon et al., USENIX ATC 2019; 73,015 jobs of autumn 2017): jobs
and quantiles of the duration by number of GPUs. The last class stands for all larger ones (24
to 128 GPUs). Measured with `traces.measure(traces.read_philly("philly.csv.gz"))`."""

PHILLY_SCENARIO: Final = Scenario(
    cycle=Cycle(daily=0.3, peak_hour=5.3, weekly=0.49), longest=7 * DAY
)
"""Cycles measured in the same way (hours as in the trace); jobs cut at a week: an assumption."""


def philly_like(seed: int, scenario: Scenario = PHILLY_SCENARIO) -> Workload:
    """Requests of the sizes and heavy-tailed durations of the Philly trace.

    Parameters
    ----------
    seed
        Of all that is random.
    scenario
        Load, cycles, windows, values. The trace has neither windows nor values:
        they are drawn as for the other generators.

    Returns
    -------
    Workload
        Classes "1-gpu" to "32-gpu", after the size before it is cut.
    """
    return from_classes(seed, PHILLY, scenario)


def mean_load(workload: Workload, capacity: int, span: float) -> float:
    """Unit-seconds asked for, over those of `capacity` units for `span` seconds."""
    return float(workload.unit_hours.sum()) / (capacity * span / HOUR)


def split(workload: Workload, at: int) -> tuple[Workload, Workload]:
    """What is submitted before `at` (UTC seconds), and the rest."""
    before: IntArray = np.flatnonzero(workload.submitted < at)
    return workload.select(before), workload.select(np.flatnonzero(workload.submitted >= at))
