"""Workloads from traces of real clusters: Philly's CSV and the Standard Workload Format."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.simulator.formats import open_text
from era_pricing.simulator.generate import SHARES, JobClass, Quantiles, mean_load
from era_pricing.simulator.scenario import MONDAY, Cycle, Scenario, complete
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload, WorkloadError

_PHILLY: Final = ("timestamp", "duration", "num_gpus", "cluster")


@dataclass(frozen=True, eq=False)
class Jobs:
    """What a trace tells of its jobs: neither windows nor values.

    Parameters
    ----------
    submitted : IntArray, shape (m,)
        UTC seconds, sorted.
    units : IntArray, shape (m,)
        GPUs or processors, 1 or more.
    duration : IntArray, shape (m,)
        Seconds, 1 or more.
    classes : tuple of str
        Virtual cluster or queue of each.
    skipped
        Jobs of the trace without a known size or duration, left out here.
    """

    submitted: IntArray
    units: IntArray
    duration: IntArray
    classes: tuple[str, ...]
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.submitted)

    def select(self, rows: IntArray) -> Jobs:
        """The jobs with these row numbers, in this order."""
        return Jobs(
            self.submitted[rows],
            self.units[rows],
            self.duration[rows],
            tuple(map(self.classes.__getitem__, rows.tolist())),
            self.skipped,
        )


_Row = tuple[int, int, int, str]


def _jobs(rows: Sequence[_Row], skipped: int) -> Jobs:
    numbers = np.array([row[:3] for row in rows], dtype=np.int64).reshape(len(rows), 3)
    submitted, units, duration = numbers.T
    jobs = Jobs(submitted, units, duration, tuple(row[3] for row in rows), skipped)
    return jobs.select(np.argsort(jobs.submitted, kind="stable"))


def read_trace(path: Path | str) -> Jobs:
    """Read a trace, which must be SWF if its name ends in .swf (.gz), else Philly's CSV.

    Raises
    ------
    WorkloadError
        As `read_philly` and `read_swf`.
    """
    swf = str(path).lower().removesuffix(".gz").endswith(".swf")
    return read_swf(path) if swf else read_philly(path)


def read_philly(path: Path | str) -> Jobs:
    """Read jobs from a CSV file with the columns of the processed Philly trace.

    Parameters
    ----------
    path
        CSV with `timestamp` ("2017-10-03 12:00:00", taken as UTC), `duration`
        (seconds), `num_gpus` and `cluster`; other columns are ignored. Perhaps
        compressed by gzip.

    Returns
    -------
    Jobs
        Jobs without GPUs or without a positive duration are skipped.

    Raises
    ------
    WorkloadError
        If the file cannot be read; the text names the line and the field.
    """
    with open_text(path) as stream:
        table = csv.DictReader(stream)
        missing = [name for name in _PHILLY if name not in (table.fieldnames or ())]
        if missing:
            raise WorkloadError(
                f"{path}, line 1: column `{missing[0]}` is missing; the header must have "
                f"{','.join(_PHILLY)} (a trace in Standard Workload Format must be named .swf)"
            )
        rows, skipped = [], 0
        for record in table:
            place = f"{path}, line {table.line_num}, column"
            submitted = _field(place, record, "timestamp", _moment, "2017-10-03 12:00:00")
            units = _field(place, record, "num_gpus", _whole, "8")
            duration = _field(place, record, "duration", _whole, "3600")
            if units > 0 and duration > 0:
                rows.append((submitted, units, duration, record["cluster"] or ""))
            else:
                skipped += 1
    return _jobs(rows, skipped)


def _field(
    place: str, record: dict[str, str], name: str, read: Callable[[str], int], example: str
) -> int:
    try:
        return read(record[name])
    except (ValueError, OverflowError, TypeError):
        raise WorkloadError(
            f"{place} {name}: must be like {example}, got {record[name]!r}"
        ) from None


def _whole(text: str) -> int:
    """A number rounded up, because traces write whole seconds as floats."""
    return math.ceil(float(text))


def _moment(text: str) -> int:
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp())


def read_swf(path: Path | str) -> Jobs:
    """Read jobs from a trace in the Standard Workload Format, version 2.

    Fields are separated by blanks, -1 means unknown, and lines that begin with a
    semicolon are comments; ``; UnixStartTime:`` says when second 0 was (without
    it: the beginning of 2024). Of each job the submission (field 2), the run time
    (4), the processors (5 allocated, else 8 requested) and the queue (15) are
    used; where the run time is unknown, the requested time (9) stands for it. See
    D. Feitelson's Parallel Workloads Archive for the format.

    Parameters
    ----------
    path
        The trace, perhaps compressed by gzip.

    Returns
    -------
    Jobs
        Jobs of unknown size or duration, and those that never ran, are skipped.

    Raises
    ------
    WorkloadError
        If the file cannot be read or a line is no job; the text names the line.
    """
    with open_text(path) as stream:
        return _jobs(*_swf_rows(stream, path))


def _swf_rows(stream: TextIO, path: Path | str) -> tuple[list[_Row], int]:
    origin, skipped = MONDAY, 0
    rows: list[_Row] = []
    queues: dict[str, str] = {}
    for line, text in enumerate(stream, start=1):
        if text.lstrip().startswith(";"):
            origin = _start_time(text, origin)
            continue
        fields = text.split()
        if not fields:
            continue
        try:
            submitted = int(float(fields[1]))
            run, allocated = _whole(fields[3]), _whole(fields[4])
            requested, asked = _whole(fields[7]), _whole(fields[8])
            queue = fields[14] if len(fields) > 14 else "-1"
        except (ValueError, OverflowError, IndexError):
            raise WorkloadError(
                f"{path}, line {line}: must be the 18 numbers of a job in Standard Workload "
                f"Format, or a comment after ';', got {text.strip()[:60]!r}"
            ) from None
        units = allocated if allocated > 0 else requested
        duration = run if run >= 0 else asked
        if units > 0 and duration > 0 and submitted >= 0:
            label = "" if queue == "-1" else f"queue {queue}"
            rows.append((submitted, units, duration, queues.setdefault(queue, label)))
        else:
            skipped += 1
    return [(origin + row[0], *row[1:]) for row in rows], skipped


def _start_time(comment: str, default: int) -> int:
    name, _, value = comment.lstrip("; \t").partition(":")
    if name.strip().lower() == "unixstarttime" and value.split()[:1]:
        try:
            return max(int(value.split()[0]), 0) or default
        except ValueError:
            return default
    return default


def from_trace(jobs: Jobs, seed: int, scenario: Scenario, *, load: float | None = None) -> Workload:
    """Requests like the jobs of a trace, with drawn windows and values.

    Parameters
    ----------
    jobs
        The trace.
    seed
        Of what is drawn: windows, values, and which jobs are left out.
    scenario
        `start` and `span` cut the part that is used; `most_units`, `longest` and
        `align` act on the jobs; windows, values and the values' drift are drawn as
        for the generators. `cycle`, `burst`, `scenario.load` and the load's drift
        are the trace's own and not used.
    load
        Target relative to `scenario.capacity`. If the trace asks for more, jobs
        are left out at random; if for less, jobs are repeated, each copy moved by
        whole days within the span. None: the jobs as they are.

    Returns
    -------
    Workload
        Classes are those of the trace.

    Raises
    ------
    WorkloadError
        If no job is submitted in the part that is used, or the load makes no sense.
    """
    end = scenario.start + scenario.span
    used = jobs.select(np.flatnonzero((jobs.submitted >= scenario.start) & (jobs.submitted < end)))
    if not len(used):
        whole = f"from {_day(jobs.submitted[0])} to {_day(jobs.submitted[-1])}" if len(jobs) else ""
        raise WorkloadError(
            f"the trace has no job between {_day(scenario.start)} and {_day(end)}; "
            f"it has {len(jobs)} {whole}".rstrip()
        )
    picking, rest = np.random.default_rng(seed).spawn(2)
    units, duration = scenario.fit(used.units, used.duration)
    submitted, rows = used.submitted, np.arange(len(used))
    if load is not None:
        if not 0 < load < math.inf:
            raise WorkloadError(f"the load must be above 0, got {load}")
        target = load * scenario.capacity * scenario.span
        rows, days = _pick(picking, (units * duration).astype(np.float64), target, scenario)
        submitted = scenario.start + (submitted[rows] - scenario.start + days) % scenario.span
    labels = [used.classes[row] for row in rows.tolist()]
    return complete(rest, scenario, submitted, units[rows], duration[rows], classes=labels)


def _day(time: int) -> str:
    return datetime.fromtimestamp(int(time), UTC).strftime("%Y-%m-%d")


def _pick(
    rng: np.random.Generator, work: FloatArray, target: float, scenario: Scenario
) -> tuple[IntArray, IntArray]:
    """Rows whose work adds up to about `target`, and seconds to move each by.

    Whole rounds of all jobs come first, then jobs in random order up to the one
    that reaches the target. Jobs of the first round stay where they are.
    """
    rounds = int(target // work.sum())
    order = rng.permutation(len(work))
    enough = int(np.searchsorted(np.cumsum(work[order]), target - rounds * work.sum())) + 1
    part = order[:enough] if target > rounds * work.sum() else order[:0]
    rows = np.concatenate([np.tile(np.arange(len(work)), rounds), part])
    first = np.arange(len(rows)) < len(work)
    days = max(scenario.span // DAY, 1)
    return rows, np.where(first, 0, rng.integers(0, days, len(rows)) * DAY)


@dataclass(frozen=True)
class Shape:
    """What `measure` finds.

    Parameters
    ----------
    classes
        Jobs and quantiles of the duration by number of units; the last class
        stands for all with more than 16.
    cycle
        First harmonic of the day and how far the weekend lies below the mean.
    load
        Units that the trace keeps busy on average from its first submission to
        its last, if every job starts at once.
    """

    classes: tuple[JobClass, ...]
    cycle: Cycle
    load: float


def measure(jobs: Jobs) -> Shape:
    """The shape of a trace, in the form that `generate.from_classes` draws from.

    Raises
    ------
    WorkloadError
        If there is no job.
    """
    if not len(jobs):
        raise WorkloadError("there is no job to measure")
    group = np.where(jobs.units > 16, 32, jobs.units)
    classes = []
    for units in np.unique(group).tolist():
        seconds = np.quantile(jobs.duration[group == units], SHARES)
        durations = Quantiles(SHARES, tuple(float(round(s)) for s in seconds))
        classes.append(JobClass(f"{units}-gpu", int((group == units).sum()), units, durations))
    span = max(int(jobs.submitted[-1] - jobs.submitted[0]), 1)
    workload = complete(
        np.random.default_rng(0), Scenario(align=None), jobs.submitted, jobs.units, jobs.duration
    )
    return Shape(tuple(classes), _cycle(jobs.submitted), mean_load(workload, 1, span))


def _cycle(submitted: IntArray) -> Cycle:
    angle = submitted % DAY * (2 * math.pi / DAY)
    swing = 2 * np.exp(1j * angle).mean()
    weekend = (submitted // DAY + 3) % 7 >= 5
    return Cycle(
        daily=round(min(float(abs(swing)), 1), 2),
        peak_hour=round(float(np.angle(swing)) * DAY / HOUR / (2 * math.pi) % 24, 1),
        weekly=round(min(max(1 - float(weekend.mean()) * 3.5, 0), 1), 2),
    )
