"""Files of requests: columns as CSV, bids of the bidding language as JSONL or YAML.

The columns are `submitted`, `arrival`, `deadline` and `duration` in seconds,
`units`, and `value` in credits, in any order; `id` and `class` may be added.
Times are UTC seconds. Fractions of a second are rounded to the nearest second,
where that would make a window too short for its duration at the duration's
expense; values are rounded to the nearest micro-credit.

A record of bids is the document of a bid (see `era_pricing.language`) with
`submitted` beside it, and perhaps `id` and `class`::

    {"submitted": 0, "configurations": {"gpu-8": 1}, "duration": "2h", "deadline": "+1d",
     "value": "12.50"}

All files may be compressed by gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Context, Decimal, InvalidOperation
from difflib import get_close_matches
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TextIO, TypeVar, cast

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.bids import MOST_VALUE
from era_pricing.notation import MICRO
from era_pricing.workload import COLUMNS, Workload, WorkloadError

if TYPE_CHECKING:
    import _csv

OPTIONAL: Final = ("id", "class")
"""Columns that may be there besides those of `workload.COLUMNS`."""

_HEADER: Final = ",".join(COLUMNS)
_CHUNK: Final = 1 << 15  # rows converted at a time
_FIELDS: Final = {"names": "id", "classes": "class"}
_T = TypeVar("_T", int, float)
_EXACT: Final = Context(prec=60)
_KINDS: Final = {
    ".csv": "csv",
    "": "csv",  # a pipe such as /dev/stdin has no suffix
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".yaml": "yaml",
    ".yml": "yaml",
}


def kind_of(path: Path | str) -> str:
    """What a file holds, by its name: "csv", "jsonl" or "yaml".

    Raises
    ------
    WorkloadError
        If its name ends in something else.
    """
    name = Path(path)
    suffix = Path(name.stem).suffix if name.suffix.lower() == ".gz" else name.suffix
    if suffix.lower() not in _KINDS:
        raise WorkloadError(
            f"{path}: the name must end in .csv for columns, or in .jsonl or .yaml for bids "
            "(and then perhaps .gz)"
        )
    return _KINDS[suffix.lower()]


def read_workload(path: Path | str) -> Workload:
    """Read requests in columns from a CSV file.

    Parameters
    ----------
    path
        A CSV file with a header, perhaps compressed by gzip.

    Returns
    -------
    Workload
        In the order of the file. A header alone is an empty workload.

    Raises
    ------
    WorkloadError
        If the file cannot be read or a row makes no sense; the text names the
        file, the line and the column.
    """
    with open_text(path) as stream:
        return read_csv(stream, str(path))


@contextmanager
def open_text(path: Path | str) -> Iterator[TextIO]:
    """Open a text file for reading, compressed or not; its errors name the file.

    Raises
    ------
    WorkloadError
        If it cannot be read to its end: no such file, damaged, no UTF-8.
    """
    try:
        with Path(path).open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            plain = cast(IO[bytes], gzip.GzipFile(fileobj=raw) if packed else raw)
            with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as stream:
                yield stream
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path}: must be text in UTF-8: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise WorkloadError(f"{path}: the compressed file is damaged: {error}") from None
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read: {error.strerror or error}") from None


@contextmanager
def create_text(path: Path | str) -> Iterator[TextIO]:
    """Open a text file for writing; compressed if its name ends in .gz.

    Raises
    ------
    WorkloadError
        If it cannot be written.
    """
    try:
        with Path(path).open("wb") as raw:
            plain = cast(IO[bytes], raw)
            if str(path).lower().endswith(".gz"):
                # Without a time and a name in it, the same rows give the same bytes.
                plain = cast(IO[bytes], gzip.GzipFile("", "wb", 6, raw, mtime=0))
            with io.TextIOWrapper(plain, encoding="utf-8", newline="") as stream:
                yield stream
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_csv(lines: Iterable[str], source: str = "the workload") -> Workload:
    """Read requests in columns from lines of CSV.

    Parameters
    ----------
    lines
        Header first.
    source
        What errors call it.

    Raises
    ------
    WorkloadError
        As `read_workload`.
    """
    table = _Table(csv.reader(lines), source)
    try:
        table.read()
    except csv.Error as error:
        raise WorkloadError(f"{source}, line {table.rows.line_num}: no CSV: {error}") from None
    return table.workload()


def _places(header: Sequence[str], source: str) -> dict[str, int]:
    """Position of each column."""
    found = [name.strip().lower() for name in header]
    place = f"{source}, line 1"
    unknown = [name for name in found if name not in (*COLUMNS, *OPTIONAL)]
    for wanted in (*COLUMNS, *OPTIONAL):
        near = [] if wanted in found else get_close_matches(wanted, unknown, 1, 0.75)
        if near:
            raise WorkloadError(f"{place}: column `{near[0]}` is unknown; did you mean `{wanted}`?")
        if wanted in COLUMNS and wanted not in found:
            raise WorkloadError(
                f"{place}: column `{wanted}` is missing; the header must be {_HEADER} in any "
                f"order, got {','.join(header)[:200]!r}"
            )
    for number, name in enumerate(found):
        if name in found[:number]:
            raise WorkloadError(f"{place}: column `{name}` is there twice")
    return {name: found.index(name) for name in (*COLUMNS, *OPTIONAL) if name in found}


class _Table:
    """Rows of a CSV file, gathered in columns."""

    def __init__(self, rows: _csv.Reader, source: str) -> None:
        self.rows = rows
        self.source = source
        self.lines = array("q")
        self.columns: dict[str, list[FloatArray | IntArray]] = {name: [] for name in COLUMNS}
        self.labels: dict[str, list[str]] = {}
        self.known: dict[str, str] = {}

    def read(self) -> None:
        header = next(self.rows, None)
        if header is None:
            raise WorkloadError(f"{self.source}: is empty; it must begin with the header {_HEADER}")
        places = _places(header, self.source)
        chunk: list[list[str]] = []
        for row in self.rows:
            if not row:
                continue  # a blank line
            if len(row) != len(header):
                raise WorkloadError(
                    f"{self.source}, line {self.rows.line_num}: must have {len(header)} fields "
                    f"as the header has, got {len(row)}"
                )
            chunk.append(row)
            self.lines.append(self.rows.line_num)
            if len(chunk) == _CHUNK:
                self.add(chunk, places)
                chunk = []
        if chunk:
            self.add(chunk, places)

    def add(self, chunk: list[list[str]], places: dict[str, int]) -> None:
        first = len(self.lines) - len(chunk)
        fields = list(zip(*chunk, strict=True))
        for name, place in places.items():
            texts = fields[place]
            if name == "class":
                texts = tuple(self.known.setdefault(text, text) for text in texts)
            if name in OPTIONAL:
                self.labels.setdefault(name, []).extend(texts)
                continue
            convert = _micro_credits if name == "value" else _numbers
            try:
                self.columns[name].append(convert(texts))
            except _BadCell as bad:
                line = self.lines[first + bad.row]
                raise WorkloadError(f"{self._at(line, name)} {bad}, got {bad.text!r}") from None

    def _at(self, line: int, column: str) -> str:
        return f"{self.source}, line {line}, column {column}:"

    def workload(self) -> Workload:
        columns = {name: _joined(parts) for name, parts in self.columns.items()}
        _round_times(columns)
        labels = {field: tuple(self.labels.get(name, ())) for field, name in _FIELDS.items()}
        try:
            return Workload(**columns, **labels)  # type: ignore[arg-type]
        except WorkloadError as error:
            if error.column is None or error.row is None:
                raise
            problem = error.problem
            if error.column == "names":
                name = labels["names"][error.row]
                line = self.lines[labels["names"].index(name)]
                problem = f"must not be used twice: {name!r} is already in line {line}"
            column = _FIELDS.get(error.column, error.column)
            place = self._at(self.lines[error.row], column)
            raise WorkloadError(f"{place} {problem}") from None


def _joined(parts: list[FloatArray | IntArray]) -> FloatArray | IntArray:
    if any(part.dtype != np.int64 for part in parts):
        return np.concatenate(parts).astype(np.float64)
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64)


class _BadCell(Exception):
    """A field that cannot be converted; the text says what would work."""

    def __init__(self, needed: str, row: int, text: str) -> None:
        super().__init__(needed)
        self.row = row
        self.text = text


def _numbers(texts: Sequence[str]) -> FloatArray | IntArray:
    """Integers, or floats where there is a fraction or an exponent among them."""
    try:
        if "_" not in "".join(texts):  # which `int` would pass over
            return np.fromiter(map(int, texts), dtype=np.int64, count=len(texts))
    except (ValueError, OverflowError):
        pass
    return np.array(_each(texts, float, "must be a number"), dtype=np.float64)


def _micro_credits(texts: Sequence[str]) -> IntArray:
    """Micro-credits of amounts in credits, rounded to the nearest, ties to even.

    Up to `MOST_VALUE` a float is less than a quarter of a micro-credit off, so where
    it lies within a quarter of a whole number, that is the nearest one. The other
    fields are computed as decimals.
    """
    needed = f"must be credits from 0 to {MOST_VALUE // MICRO}"
    try:
        floats = np.fromiter(map(float, texts), dtype=np.float64, count=len(texts)) * MICRO
    except ValueError:
        floats = np.full(len(texts), np.nan)
    if "_" in "".join(texts):  # which `float` would pass over
        floats[:] = np.nan
    with np.errstate(invalid="ignore"):
        near = np.abs(floats - np.rint(floats)) <= 0.25
    near &= (floats >= 0) & (floats < MOST_VALUE)
    micro = np.where(near, np.rint(floats), 0).astype(np.int64)
    hard = np.flatnonzero(~near)
    try:
        micro[hard] = _each([texts[row] for row in hard.tolist()], _to_micro, needed)
    except _BadCell as bad:
        raise _BadCell(needed, int(hard[bad.row]), bad.text) from None
    return micro


def _to_micro(credit: Decimal) -> int:
    micro = int(_EXACT.multiply(credit, Decimal(MICRO)).to_integral_value())
    if not 0 <= micro <= MOST_VALUE or (micro == 0 and credit < 0):
        raise ValueError
    return micro


def _each(texts: Sequence[str], convert: Callable[[Decimal], _T], needed: str) -> list[_T]:
    """Every field as a finite decimal number, converted."""
    result = []
    for row, text in enumerate(texts):
        try:
            number = Decimal(text)
            if "_" in text or not number.is_finite():
                raise ValueError
            result.append(convert(number))
        except (ValueError, OverflowError, InvalidOperation):
            raise _BadCell(needed, row, text[:60]) from None
    return result


def _round_times(columns: dict[str, FloatArray | IntArray]) -> None:
    """Make the times whole seconds, if they aren't, without breaking what was in order."""
    names = ("submitted", "arrival", "deadline", "duration")
    if all(columns[name].dtype == np.int64 for name in names):
        return
    fitted = columns["deadline"] - columns["arrival"] >= columns["duration"] - 1e-6
    fitted &= columns["duration"] > 0
    submitted, arrival, deadline, duration = (np.rint(columns[name]) for name in names)
    deadline = np.where(fitted, np.maximum(deadline, arrival + 1), deadline)
    duration = np.where(fitted, np.minimum(np.maximum(duration, 1), deadline - arrival), duration)
    columns.update(submitted=submitted, arrival=arrival, deadline=deadline, duration=duration)


def write_workload(
    workload: Workload, path: Path | str, progress: Callable[[int], object] | None = None
) -> None:
    """Write requests in columns to a CSV file, compressed if its name ends in .gz.

    Parameters
    ----------
    workload, path
        What and where.
    progress
        Called with the number of rows written since the last call.

    Raises
    ------
    WorkloadError
        If it cannot be written.
    """
    with create_text(path) as stream:
        write_csv(workload, stream, progress)


def write_csv(
    workload: Workload, stream: TextIO, progress: Callable[[int], object] | None = None
) -> None:
    """Write requests in columns as CSV; ids and classes only if there are some."""
    extra = [field for field in _FIELDS if getattr(workload, field)]
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow([*COLUMNS, *(_FIELDS[field] for field in extra)])
    for first in range(0, len(workload), _CHUNK):
        part = slice(first, first + _CHUNK)
        columns = [getattr(workload, name)[part].tolist() for name in COLUMNS[:-1]]
        credit = map(_credits, workload.value[part].tolist())
        labels = [getattr(workload, field)[part] for field in extra]
        rows.writerows(zip(*columns, credit, *labels, strict=True))
        if progress is not None:
            progress(len(columns[0]))


def _credits(micro: int) -> str:
    whole, rest = divmod(micro, MICRO)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)
