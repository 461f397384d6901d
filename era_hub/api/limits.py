"""How often one caller may ask: a token bucket for each, in memory."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

MANY = 10_000
"""Buckets that are kept; when there are more, those that are full again are forgotten."""


class RateLimit:
    """Lets `rate` requests a second through, and up to `burst` at once.

    Parameters
    ----------
    rate : float
        Requests a second in the long run; 0 for no limit.
    burst : int
        Requests that may come at once after a pause.
    clock : callable
        Seconds, of any beginning.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self.rate = rate
        self.burst = max(1, burst)
        self._clock = clock
        # A bucket is the time at which it will be full: one number that needs no refills.
        self._full: dict[str, float] = {}

    def take(self, caller: str) -> float:
        """Take one request from the caller's bucket.

        Returns
        -------
        float
            0 if there was one, else the seconds until there is.
        """
        if self.rate <= 0:
            return 0.0
        now = self._clock()
        full = max(self._full.get(caller, now), now) + 1 / self.rate
        wait = full - now - self.burst / self.rate
        if wait > 1e-9:
            return wait
        if len(self._full) >= MANY and caller not in self._full:
            self._full = {name: when for name, when in self._full.items() if when > now}
        self._full[caller] = full
        return 0.0
