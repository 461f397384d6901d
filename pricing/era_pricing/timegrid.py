"""The time grid: where slots begin and how far ahead the pool sells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from era_pricing.arrays import IntArray

HOUR = 3600
DAY = 24 * HOUR


@dataclass(frozen=True)
class TimeGrid:
    """Equal time slots, counted from 1970-01-01 00:00 UTC.

    Parameters
    ----------
    slot
        Length of a slot in seconds.
    horizon
        How far ahead of the running slot's beginning resources are sold, in
        seconds; a whole multiple of `slot`.

    Raises
    ------
    ValueError
        If `slot` is not positive or `horizon` is not a positive multiple of it.
    """

    slot: int = 300
    horizon: int = 14 * DAY

    def __post_init__(self) -> None:
        if self.slot <= 0:
            raise ValueError(f"slot must be a positive number of seconds, got {self.slot}")
        if self.horizon <= 0 or self.horizon % self.slot:
            raise ValueError(
                f"horizon must be a positive multiple of the slot ({self.slot} seconds), "
                f"got {self.horizon}"
            )

    @property
    def slots(self) -> int:
        """Number of slots in the horizon."""
        return self.horizon // self.slot

    def index(self, time: int) -> int:
        """Absolute index of the slot that contains `time` (UTC seconds)."""
        return time // self.slot

    def index_up(self, time: int) -> int:
        """Index of the first slot that begins at or after `time`."""
        return -(-time // self.slot)

    def slots_for(self, duration: int) -> int:
        """Whole slots needed for `duration` seconds, rounded up."""
        return -(-duration // self.slot)

    def horizon_end(self, now: int) -> int:
        """First second that is not for sale at `now`; always a slot boundary."""
        return self.index(now) * self.slot + self.horizon

    def times(self, first: int, count: int) -> IntArray:
        """Beginnings, in UTC seconds, of `count` slots from slot `first` on."""
        return np.arange(first, first + count, dtype=np.int64) * self.slot

    def segments(self, start: int, end: int) -> IntArray:
        """Cut [start, end) at the slot boundaries.

        Returns
        -------
        IntArray, shape (n + 1,)
            The edges of the n parts: `start`, the boundaries between, `end`.
        """
        inner = np.arange(self.index(start) + 1, self.index_up(end), dtype=np.int64) * self.slot
        return np.concatenate(([start], inner, [end])).astype(np.int64)
