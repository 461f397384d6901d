"""Reservations of which a part has not begun, in columns, so that all are looked at together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from era_pricing.arrays import IntArray
from era_pricing.plan import Plan, Span
from era_pricing.reservations import Reservation

_UNTIL, _OPENS, _START, _LENGTH, _FIRST, _END, _DEADLINE, _UNITS = range(8)
"""Lines of the table: when the last placement begins, when the first window opens, when the first
placement begins; and, if it is the only one, its seconds, the slots [first, end) that it takes,
when it must have ended, and, from there on, what it takes of each resource. Times are UTC
seconds."""

_GONE = -1
_NONE: IntArray = np.empty(0, dtype=np.int64)


class Waiting:
    """Keys of reservations that may be moved until their last placement has begun.

    Parameters
    ----------
    resources
        How many the inventory has.

    Notes
    -----
    There is a column for each, in the order in which they were added. What is removed leaves its
    column empty until there is no more room for new ones.
    """

    def __init__(self, resources: int) -> None:
        self._table: IntArray = np.zeros((_UNITS + resources, 64), dtype=np.int64)
        self._keys: list[str] = []
        self._columns: dict[str, int] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._columns

    def add(self, reservation: Reservation, spans: tuple[Span, ...]) -> None:
        """Add a reservation, or its new state in the place of the old one.

        Parameters
        ----------
        spans
            What it takes from the plan.
        """
        key, placements, windows = reservation.job_id, reservation.placements, reservation.windows
        column = self._columns.get(key)
        if column is None:
            self._make_room()
            column = self._columns[key] = len(self._keys)
            self._keys.append(key)
        until = max([placement.start for placement in placements])
        opens = min([window.arrival for window in windows])
        self._table[:, column] = 0
        if len(placements) > 1 or not spans:
            self._table[:_LENGTH, column] = until, opens, reservation.start
            return
        length, span = placements[0].end - placements[0].start, spans[0]
        ends = windows[0].deadline
        entry = (until, opens, until, length, span.first, span.end, ends, *span.units)
        self._table[:, column] = entry

    def discard(self, key: str) -> None:
        """Forget a reservation, if it is there."""
        column = self._columns.pop(key, None)
        if column is not None:
            self._table[_UNTIL, column] = _GONE

    def keys(self, now: int) -> list[str]:
        """All that are waiting at `now`, in the order in which they were added."""
        return [self._keys[column] for column in self._waiting(now).tolist()]

    def overlapping(self, span: Span, now: int) -> list[str]:
        """Those with a single placement in a slot of `span`, on whatever node.

        What has the latest deadline comes first.
        """
        table = self._table[:, : len(self._keys)]
        there = (table[_FIRST] < span.end) & (table[_END] > span.first)
        found = np.flatnonzero(there & (table[_UNTIL] > now))
        found = found[(-table[_DEADLINE, found]).argsort(kind="stable")]
        return [self._keys[column] for column in found.tolist()]

    def with_room(self, plan: Plan, now: int, slot: int) -> Iterator[str]:
        """Those that may have room to begin at `now`, what is planned for the earliest first.

        A window of theirs is open. A single placement is told by what is free until it begins
        itself; those of several are to be looked at closely. What comes next is found in the
        plan as it is by then.

        Parameters
        ----------
        plan
            What is promised.
        now
            UTC seconds.
        slot
            Length of a slot, seconds.
        """
        left, table = self._waiting(now), self._table
        if not len(left):
            return
        left = left[table[_OPENS, left] <= now]
        left = left[table[_START, left].argsort(kind="stable")]
        while len(left):
            for at in _with_room(table[:, left], plan, now, slot).tolist():
                yield self._keys[left[at]]
                if table[_START, left[at]] <= now:
                    # It has been started, and so the plan is another one.
                    left = left[at + 1 :]
                    break
            else:
                return

    def _waiting(self, now: int) -> IntArray:
        """Columns of all that are waiting; what has begun is forgotten."""
        if not self._columns:
            return _NONE
        until = self._table[_UNTIL, : len(self._keys)]
        for column in np.flatnonzero((until <= now) & (until != _GONE)).tolist():
            self.discard(self._keys[column])
        return np.flatnonzero(until > now)

    def _make_room(self) -> None:
        """Room for another column: drop the empty ones if they are many, else widen the table."""
        count = len(self._keys)
        if count < self._table.shape[1]:
            return
        if 2 * len(self._columns) > count:
            self._table = np.concatenate((self._table, np.zeros_like(self._table)), axis=1)
            return
        kept = sorted(self._columns.values())
        self._table[:, : len(kept)] = self._table[:, kept]
        self._keys = [self._keys[column] for column in kept]
        self._columns = {key: column for column, key in enumerate(self._keys)}


def _with_room(table: IntArray, plan: Plan, now: int, slot: int) -> IntArray:
    """Places of the columns that may have room; see `Waiting.with_room`."""
    first = now // slot
    idle = plan.free(first, 1)[:, :, 0].clip(0).sum(axis=0)
    found = np.flatnonzero((table[_UNITS:] <= idle[:, None]).all(axis=0))
    if not len(found):
        return found
    table = table[:, found]
    ends = -(-(now + table[_LENGTH]) // slot)
    slots = np.minimum(ends, table[_FIRST]) - first
    # One of several is not told, nor what begins in this slot anyway.
    slots[table[_LENGTH] == 0] = 0
    # The least that is free on each node from now until the end of each slot. No more fits than
    # what all have together.
    least = np.minimum.accumulate(plan.free(first, max(int(slots.max()), 1)), axis=2)
    there = least.clip(0).sum(axis=0)[:, slots - 1]
    room: IntArray = found[(table[_UNITS:] <= there).all(axis=0) | (slots <= 0)]
    return room
