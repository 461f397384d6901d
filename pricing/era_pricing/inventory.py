"""The inventory: how many units of the priced resource there are, and when."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from era_pricing.arrays import IntArray


class Inventory:
    """Capacity over time: a step function of UTC seconds.

    Parameters
    ----------
    capacity
        Units at all times for which nothing else is set.

    Raises
    ------
    ValueError
        If `capacity` is negative or not an integer.
    """

    def __init__(self, capacity: int) -> None:
        self.check(0, None, capacity)
        self._store([(0, capacity)])

    def _store(self, steps: list[tuple[int, int]]) -> None:
        """Keep the steps, which must be sorted by time, without the idle ones."""
        kept = steps[:1]
        kept += [new for old, new in pairwise(steps) if new[1] != old[1]]
        self._steps = kept
        self._times = np.array([time for time, _ in kept], dtype=np.int64)
        self._values = np.array([value for _, value in kept], dtype=np.int64)

    @staticmethod
    def check(start: int, end: int | None, capacity: int) -> None:
        """Raise ValueError if these are no arguments for `set_capacity`."""
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 0:
            raise ValueError(f"capacity must be a whole number, 0 or more, got {capacity!r}")
        if not isinstance(start, int) or not isinstance(end, int | None):
            raise ValueError(f"start and end must be UTC seconds, got {start!r} and {end!r}")
        if end is not None and end <= max(start, 0):
            raise ValueError(f"end must be after start ({max(start, 0)}), got {end}")

    def set_capacity(self, start: int, end: int | None, capacity: int) -> None:
        """Set the capacity in [start, end), for good if `end` is None.

        Parameters
        ----------
        start, end
            UTC seconds. A `start` before 1970 counts as 1970.
        capacity
            Units in that time, whatever was set for it before.

        Raises
        ------
        ValueError
            If `end` is not after `start` or `capacity` is negative.
        """
        self.check(start, end, capacity)
        start = max(start, 0)
        steps = [step for step in self._steps if step[0] < start]
        steps.append((start, capacity))
        if end is not None:
            after = [step for step in self._steps if step[0] <= end][-1][1]
            steps.append((end, after))
            steps += [step for step in self._steps if step[0] > end]
        self._store(steps)

    def drop_before(self, time: int) -> None:
        """Forget the steps that ended before `time`; later capacity stays the same."""
        old = [step for step in self._steps if step[0] <= time]
        if len(old) > 1:
            self._store([(0, old[-1][1]), *self._steps[len(old) :]])

    def capacity(self, times: IntArray, length: int) -> IntArray:
        """Lowest capacity in each of the intervals [time, time + length).

        Parameters
        ----------
        times : IntArray, shape (n,)
            Beginnings in UTC seconds, ascending and at least `length` apart.
        length
            Seconds in each interval.

        Returns
        -------
        IntArray, shape (n,)
            Units that are there throughout each interval.
        """
        lowest = self._values[np.searchsorted(self._times, times, side="right") - 1]
        if len(self._times) > 1 and len(times):
            # A step inside an interval lowers it if it goes down.
            at = np.searchsorted(times, self._times, side="right") - 1
            inside = (at >= 0) & (self._times < times[at] + length)
            np.minimum.at(lowest, at[inside], self._values[inside])
        return lowest
