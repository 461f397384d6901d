"""Workloads: many requests for one resource, as columns of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.bids import LATEST, MOST_VALUE
from era_pricing.timegrid import HOUR

MOST_UNITS: Final = 2**53
"""Greatest number of units, enough for bytes; up to it floats are exact."""

COLUMNS: Final = ("submitted", "arrival", "deadline", "units", "duration", "value")
"""The columns of numbers, in the order in which they are written."""

# Per column: least, greatest, what it counts.
_RANGES: Final = {
    "submitted": (0, LATEST, "UTC seconds"),
    "arrival": (0, LATEST, "UTC seconds"),
    "deadline": (0, LATEST, "UTC seconds"),
    "units": (1, MOST_UNITS, "units"),
    "duration": (1, LATEST, "seconds"),
    "value": (0, MOST_VALUE, "micro-credits"),
}


class WorkloadError(ValueError):
    """A workload that makes no sense; the text says where, and what would work.

    Parameters
    ----------
    problem
        What is wrong, beginning with "must ...", or a whole sentence if there is
        no column.
    column, row
        Where, if it can be said; rows count from 0.
    """

    def __init__(self, problem: str, column: str | None = None, row: int | None = None) -> None:
        self.problem = problem
        self.column = column
        self.row = row
        place = "" if column is None else f"{column} "
        if row is not None:
            place += f"in row {row} "
        super().__init__(place + problem)


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests for one resource; row i of every column belongs to request i.

    Parameters
    ----------
    submitted, arrival, deadline : IntArray, shape (m,)
        UTC seconds; submitted <= arrival and arrival + duration <= deadline.
    units : IntArray, shape (m,)
        Units asked for, all at the same time; 1 or more.
    duration : IntArray, shape (m,)
        Seconds, 1 or more.
    value : IntArray, shape (m,)
        The most each will pay, micro-credits.
    names : tuple of str
        An id for each request, no two alike; empty: "0", "1", ...
    classes : tuple of str
        A label for each request, to count them by; empty: none.

    Notes
    -----
    Columns may be any sequence of whole numbers; they are copied into read-only
    arrays of 64-bit integers. A workload may be empty.

    Raises
    ------
    WorkloadError
        If a column has another length than `submitted`, holds something other
        than whole numbers in range (NaN and infinities too), a window is before
        its submission or shorter than its duration, or an id comes twice.
    """

    submitted: IntArray
    arrival: IntArray
    deadline: IntArray
    units: IntArray
    duration: IntArray
    value: IntArray
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for column in COLUMNS:
            object.__setattr__(self, column, _whole_numbers(column, getattr(self, column)))
        rows = len(self.submitted)
        for column in COLUMNS[1:]:
            _check_length(column, len(getattr(self, column)), rows)
        for column in ("names", "classes"):
            labels = tuple(getattr(self, column))
            object.__setattr__(self, column, labels)
            if labels:
                _check_length(column, len(labels), rows)
                _check_texts(column, labels)
        _check_distinct(self.names)
        self._check_windows()

    def _check_windows(self) -> None:
        row = _first(self.arrival < self.submitted)
        if row is not None:
            raise WorkloadError(
                f"must not be before the submission ({self.submitted[row]} UTC seconds), "
                f"got {self.arrival[row]}",
                "arrival",
                row,
            )
        row = _first(self.deadline - self.arrival < self.duration)
        if row is not None:
            raise WorkloadError(
                f"must be at least {self.arrival[row] + self.duration[row]} UTC seconds, "
                f"arrival plus duration, got {self.deadline[row]}",
                "deadline",
                row,
            )

    @classmethod
    def empty(cls) -> Workload:
        """A workload without requests."""
        none = np.zeros(0, dtype=np.int64)
        return cls(none, none, none, none, none, none)

    @classmethod
    def concatenate(cls, parts: Iterable[Workload]) -> Workload:
        """One workload with the rows of all `parts`, in this order.

        Where only some parts have ids, the rows of the others are named by their
        place in the result; where only some have classes, the others get "".

        Raises
        ------
        WorkloadError
            If an id comes twice.
        """
        filled = [part for part in parts if len(part)]
        if not filled:
            return cls.empty()
        columns = {c: np.concatenate([getattr(part, c) for part in filled]) for c in COLUMNS}
        names: list[str] = []
        if any(part.names for part in filled):
            for part in filled:
                first = len(names)
                names += part.names or [str(first + i) for i in range(len(part))]
        classes: list[str] = []
        if any(part.classes for part in filled):
            for part in filled:
                classes += part.classes or [""] * len(part)
        return cls(**columns, names=tuple(names), classes=tuple(classes))

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.submitted)

    @property
    def ids(self) -> tuple[str, ...]:
        """`names`, or "0", "1", ... where there are none."""
        return self.names or tuple(str(row) for row in range(len(self)))

    @property
    def unit_hours(self) -> FloatArray:
        """Units times hours of each request, shape (m,)."""
        return self.units * (self.duration / HOUR)

    def select(self, rows: npt.NDArray[np.bool_] | IntArray | Sequence[int] | slice) -> Workload:
        """The requests picked by a mask, by row numbers (in that order) or by a slice.

        A workload without ids stays without, so its rows are numbered anew.

        Raises
        ------
        WorkloadError
            If a row with an id is picked twice.
        """
        picked = np.arange(len(self))[_indices(rows)]
        return Workload(
            **{column: getattr(self, column)[picked] for column in COLUMNS},
            names=_pick(self.names, picked),
            classes=_pick(self.classes, picked),
        )

    def sorted(self) -> Workload:
        """The same requests by time of submission; ties stay in order."""
        return self.select(np.argsort(self.submitted, kind="stable"))

    def shifted(self, seconds: int) -> Workload:
        """The same requests with all times later by `seconds`, which may be negative."""
        return Workload(
            self.submitted + seconds,
            self.arrival + seconds,
            self.deadline + seconds,
            self.units,
            self.duration,
            self.value,
            self.names,
            self.classes,
        )


def every_nth(requests: Workload, weights: FloatArray, most: int) -> tuple[Workload, FloatArray]:
    """At most `most` kinds of request, evenly chosen; their weights stand for the others too."""
    if len(requests) <= most:
        return requests, weights
    chosen = np.arange(0, len(requests), -(-len(requests) // most))
    return requests.select(chosen), weights[chosen] * (len(requests) / len(chosen))


def _indices(
    rows: npt.NDArray[np.bool_] | IntArray | Sequence[int] | slice,
) -> npt.NDArray[np.bool_] | IntArray | slice:
    """`rows` as an index; an empty list picks nothing instead of failing as floats."""
    if isinstance(rows, slice):
        return rows
    array = np.asarray(rows)
    return array if array.size or array.dtype == bool else array.astype(np.int64)


def _pick(labels: tuple[str, ...], rows: IntArray) -> tuple[str, ...]:
    return tuple(map(labels.__getitem__, rows.tolist())) if labels else ()


def _first(bad: npt.NDArray[np.bool_]) -> int | None:
    """Row of the first true element, None if there is none."""
    return int(bad.argmax()) if bad.any() else None


def _check_length(column: str, length: int, rows: int) -> None:
    if length != rows:
        raise WorkloadError(f"must have {rows} rows as `submitted` has, got {length}", column)


def _check_texts(column: str, labels: tuple[str, ...]) -> None:
    for row, label in enumerate(labels):
        if not isinstance(label, str):
            raise WorkloadError(f"must be a text, got {label!r}", column, row)


def _check_distinct(names: tuple[str, ...]) -> None:
    if len(set(names)) == len(names):
        return
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in seen:
            raise WorkloadError(
                f"must not be used twice: {name!r} is the name of row {seen[name]}", "names", row
            )
        seen[name] = row


def _whole_numbers(column: str, given: npt.ArrayLike) -> IntArray:
    """`given` as a read-only array of integers in the column's range."""
    least, greatest, unit = _RANGES[column]
    needed = f"must be whole {unit} between {least} and {greatest}"
    try:
        array = np.asarray(given)
    except ValueError:
        raise WorkloadError(f"{needed}, one for each row", column) from None
    if array.ndim != 1:
        raise WorkloadError(f"{needed}, one for each row, got {array.ndim} dimensions", column)
    if array.dtype.kind not in "iuf" and array.size:
        _refuse_others(column, needed, array)
    # NaN compares false, so "not inside" also finds it.
    bad = ~((array >= least) & (array <= greatest)) if array.size else np.zeros(0, dtype=bool)
    if array.dtype.kind == "f":
        bad |= array != np.floor(array)
    row = _first(bad)
    if row is not None:
        raise WorkloadError(f"{needed}, got {array[row]}", column, row)
    result = array.astype(np.int64)
    result.flags.writeable = False
    return result


def _refuse_others(column: str, needed: str, array: npt.NDArray[np.generic]) -> None:
    """Raise for the first element that is no number; huge integers come as objects."""
    for row, item in enumerate(array.tolist()):
        if isinstance(item, bool) or not isinstance(item, int):
            raise WorkloadError(f"{needed}, got {item!r}", column, row)
