"""The requests themselves, to tell which ones are still to come."""

from __future__ import annotations

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors.season import WEEK, Trend
from era_pricing.timegrid import DAY
from era_pricing.workload import Workload

_THINNED = 0.75
"""Share of the room that is left filled when the memory is full."""


class Memory:
    """Past requests, at most `room` of them, each with a weight.

    Parameters
    ----------
    room
        How many to keep. When there are more, a random choice of them stays and
        stands for the others.
    days
        How many days to remember.
    half_life
        Age in days at which a request counts half.
    seed
        Of the random choices.
    """

    def __init__(self, room: int, days: int, half_life: float, seed: int) -> None:
        self._room = room
        self._days = days
        self._half_life = half_life
        self._random = np.random.default_rng(seed)
        self._requests = Workload.empty()
        self._weights: FloatArray = np.zeros(0)

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, requests: Workload, weights: FloatArray, now: int) -> None:
        """Remember `requests`, and forget those submitted too long before `now`."""
        requests, weights = _thin(unnamed(requests), weights, self._room, self._random)
        young = self._requests.submitted >= now - self._days * DAY
        kept, kept_weights = self._requests.select(young), self._weights[young]
        room = self._room - len(requests)
        if len(kept) > room:
            kept, kept_weights = _thin(
                kept, kept_weights, int(_THINNED * max(room, 0)), self._random
            )
        self._requests = Workload.concatenate([kept, requests])
        self._weights = np.concatenate((kept_weights, weights))

    def expected(
        self, now: int, until: int, covered: tuple[tuple[int, int], ...], trend: Trend
    ) -> tuple[Workload, FloatArray]:
        """Past requests, moved by whole weeks (or days) into [now, until).

        Each counts as the share of the past weeks that it stands for, the young
        ones more: with a covered history of three weeks, about a third. A history
        of less than a week repeats every day.

        Parameters
        ----------
        now, until
            UTC seconds.
        covered
            Spans of time in which all submissions were seen.
        trend
            Growth.
        """
        if not len(self) or until <= now or not covered:
            return Workload.empty(), np.zeros(0)
        period = WEEK if covered[-1][1] - covered[0][0] >= WEEK else DAY
        share = self._shares(covered, period)
        submitted = self._requests.submitted
        first = -(-(now - submitted) // period)
        times = np.maximum(-(-(until - submitted) // period) - first, 0)
        rows = np.repeat(np.arange(len(self)), times)
        number = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
        shift = (first[rows] + number) * period
        weights = share[rows] * trend.at(submitted[rows] + shift)
        if len(rows) > self._room:
            # Always the same choice for the same question.
            chosen = np.sort(
                np.random.default_rng(now).choice(len(rows), self._room, replace=False)
            )
            weights = weights[chosen] * (len(rows) / self._room)
            rows, shift = rows[chosen], shift[chosen]
        some = self._requests
        requests = Workload(
            submitted[rows] + shift,
            some.arrival[rows] + shift,
            some.deadline[rows] + shift,
            some.units[rows],
            some.duration[rows],
            some.value[rows],
        )
        return requests, weights

    def _shares(self, covered: tuple[tuple[int, int], ...], period: int) -> FloatArray:
        """Weight of each request among those of the same moment of all periods."""
        submitted = self._requests.submitted
        end = covered[-1][1]
        most = -(-(end - covered[0][0]) // period)
        stands_for = np.zeros(len(self))
        for number in range(-most, most + 1):
            moment = submitted + number * period
            seen = np.zeros(len(self), dtype=np.bool_)
            for start, stop in covered:
                seen |= (moment >= start) & (moment < stop)
            stands_for += np.where(seen, self._fade(moment, end), 0.0)
        own = self._weights * self._fade(submitted, end)
        share: FloatArray = own / np.where(stands_for > 0, stands_for, 1.0)
        return share

    def _fade(self, moment: IntArray, end: int) -> FloatArray:
        faded: FloatArray = 0.5 ** (np.maximum(end - moment, 0) / (self._half_life * DAY))
        return faded


def unnamed(requests: Workload) -> Workload:
    """The same requests without names and classes."""
    return Workload(
        requests.submitted,
        requests.arrival,
        requests.deadline,
        requests.units,
        requests.duration,
        requests.value,
    )


def _thin(
    requests: Workload, weights: FloatArray, room: int, random: np.random.Generator
) -> tuple[Workload, FloatArray]:
    """At most `room` of the requests, which stand for all."""
    if len(requests) <= room:
        return requests, weights
    chosen = np.sort(random.choice(len(requests), room, replace=False))
    return requests.select(chosen), weights[chosen] * (len(requests) / max(room, 1))
