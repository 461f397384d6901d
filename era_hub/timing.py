"""Time that passes, whatever the wall clock says, and patience that grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

JUMP = 5.0
"""Seconds between the clocks from one look to the next that are no drift any more."""


@dataclass
class Backoff:
    """When a thing that has failed is tried again: after growing pauses.

    Times are those of a clock that is never set. Whatever counts as a failure, one during
    a pause does not make it longer.
    """

    first: float
    longest: float
    length: float = 0.0
    until: float = float("-inf")

    def waits(self, now: float) -> bool:
        """Whether it is too early for another try."""
        return now < self.until

    def fail(self, now: float) -> None:
        """A try has failed."""
        if not self.waits(now):
            self.length = min(self.longest, max(self.first, 2 * self.length))
            self.until = now + self.length

    def clear(self) -> None:
        """A try has succeeded, or what went before counts no more."""
        self.length, self.until = 0.0, float("-inf")


class Jumps:
    """Notices when the wall clock is set, or stood still while the machine slept.

    Parameters
    ----------
    clock, monotonic : callable
        Seconds, by the wall clock and by one that is never set and stands still while
        the machine sleeps.
    """

    def __init__(self, clock: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._apart = clock() - monotonic()

    def look(self) -> float:
        """Seconds by which the wall clock has jumped since the last look, mostly 0."""
        apart = self._clock() - self._monotonic()
        jump, self._apart = apart - self._apart, apart
        return jump if abs(jump) >= JUMP else 0.0
