"""Requests laid out over slots: rows of different lengths, one per kind of window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.relaxation.levels import Shape
from era_pricing.workload import Workload

BLOCK = 1 << 15
"""Cells computed at a time: few enough to stay in the processor's cache."""

STORED = 1 << 27
"""Up to so many cells, their slots are kept rather than computed each time (1 GB)."""


@dataclass(frozen=True, eq=False)
class Block:
    """Windows of similar length as a table: cell (i, r) is the i-th slot of row r.

    Shorter rows are filled up with slot n, which stands for no slot at all. One
    row after the other lies along the second axis, so that sums over a window add
    whole lines of the table.

    Parameters
    ----------
    requests
        Which requests have these windows.
    rows
        Which rows they are, among all.
    row_of : IntArray
        Row of each request, counted within the block.
    shape
        The windows of the rows.
    tight : bool array, shape (r,)
        Whether the window holds no more than the slots needed.
    first : IntArray, shape (r,)
        First slot of each row.
    none
        The slot that stands for none.
    stored : IntArray or None
        The table of slots, unless it is too large to keep.
    """

    requests: slice
    rows: slice
    row_of: IntArray
    shape: Shape
    tight: npt.NDArray[np.bool_]
    first: IntArray
    none: int
    stored: IntArray | None

    def index(self) -> IntArray:
        """Slot of every cell; n where there is none."""
        if self.stored is None:
            return _cells(self.first, self.shape.counts, self.none)
        return self.stored


class Windows:
    """The windows of requests over n slots; requests with equal ones share a row.

    Attributes
    ----------
    requests : IntArray, shape (k,)
        Which requests these are, sorted by window; everything per request is in
        this order.
    needed : FloatArray, shape (k,)
        Slots each of them needs.
    rows
        Number of different windows.
    blocks : list of Block
        All rows, in order.
    """

    def __init__(self, requests: IntArray, columns: IntArray, slot: int, none: int) -> None:
        """Lay out requests sorted by window; see `of` for the columns."""
        self.requests = requests
        self._none = none
        new = np.ones(len(requests), dtype=bool)
        new[1:] = (columns[:, 1:] != columns[:, :-1]).any(axis=0)
        self.needed: FloatArray = columns[2].astype(np.float64)
        begin, end, slots, room = columns[:, new]
        self.rows = len(begin)
        first, stop = begin // slot, -(-end // slot)
        self._first, self._counts = first, stop - first
        self._head = (np.minimum(end, (first + 1) * slot) - begin) / slot
        self._tail = np.where(stop - first > 1, (end - (stop - 1) * slot) / slot, 1.0)
        self._slots, self._tight = slots.astype(np.float64), room == slots * slot
        self.blocks = list(self._cut(np.cumsum(new) - 1))

    @classmethod
    def of(
        cls,
        workload: Workload,
        first_slot: int,
        slot: int,
        closed: npt.NDArray[np.bool_],
        wanted: npt.NDArray[np.bool_],
    ) -> Windows:
        """Windows of the requests that have room for their slots.

        Parameters
        ----------
        workload
            The requests.
        first_slot, slot
            Index of the first slot, counted from 1970, and its length in seconds.
        closed : bool array, shape (n,)
            Slots in which nothing can run.
        wanted : bool array, shape (m,)
            Requests to look at.
        """
        begin = np.maximum(workload.arrival - first_slot * slot, 0)
        end = np.minimum(workload.deadline - first_slot * slot, len(closed) * slot)
        slots = -(-workload.duration // slot)
        (fits,) = np.nonzero((end > begin) & wanted)
        begin, end, slots = begin[fits], end[fits], slots[fits]
        room = _open_seconds(begin, end, slot, closed)
        roomy = room >= slots * slot
        fits, columns = fits[roomy], np.stack([begin, end, slots, room])[:, roomy]
        begin, end, slots, _ = columns
        order = np.lexsort((slots, begin, end - begin, -(-end // slot) - begin // slot))
        return cls(fits[order], columns[:, order], slot, len(closed))

    def _cut(self, row_of: IntArray) -> Iterator[Block]:
        """Blocks of about `BLOCK` cells each."""
        begins = np.searchsorted(row_of, np.arange(self.rows + 1))
        stored = int(self._counts.sum()) <= STORED
        row = 0
        while row < self.rows:
            stop = _block_end(self._counts, row)
            rows, own = slice(row, stop), slice(int(begins[row]), int(begins[stop]))
            first, counts = self._first[rows], self._counts[rows]
            yield Block(
                requests=own,
                rows=rows,
                row_of=row_of[own] - row,
                shape=Shape(counts, self._head[rows], self._tail[rows], self._slots[rows]),
                tight=self._tight[rows],
                first=first,
                none=self._none,
                stored=_cells(first, counts, self._none) if stored else None,
            )
            row = stop


def _block_end(counts: IntArray, row: int) -> int:
    """Where the block that begins at `row` ends; rows are sorted by length.

    It is full at `BLOCK` cells, or earlier where the rows get much longer, so that
    little is computed for nothing; but not so early that calls cost more than work.
    """
    most = max(BLOCK // int(counts[row]), 1)
    lengths = counts[row : row + most]
    cells = lengths * np.arange(1, len(lengths) + 1)
    longer = (lengths > 1.25 * lengths[0] + 1) & (cells > BLOCK // 8)
    full = (cells > BLOCK) | longer
    return row + (max(int(full.argmax()), 1) if full.any() else len(lengths))


def _cells(first: IntArray, counts: IntArray, none: int) -> IntArray:
    """Slots first, first + 1, ... of each row down the first axis."""
    steps = np.arange(int(counts.max()))[:, None]
    return np.where(steps < counts, first + steps, none)


def _open_seconds(
    begin: IntArray, end: IntArray, slot: int, closed: npt.NDArray[np.bool_]
) -> IntArray:
    """Seconds in open slots of each [begin, end)."""
    opened = np.append(~closed, False)
    before = np.zeros(len(opened) + 1, dtype=np.int64)
    np.cumsum(opened * slot, out=before[1:])

    def until(time: IntArray) -> IntArray:
        index, rest = np.divmod(time, slot)
        seconds: IntArray = before[index] + opened[index] * rest
        return seconds

    return until(end) - until(begin)
