"""The requests themselves, to tell which ones are still to come."""

from __future__ import annotations

import math

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors.season import SHAPE, WEEK, Season
from era_pricing.timegrid import DAY
from era_pricing.workload import Workload

_THINNED = 0.75
"""Share of the room that is left filled when the memory is full."""

_QUARTER = DAY // 4
_PAIRS = 3
"""Pairs of a day and the next that it takes to say how much they differ."""


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
        self._found: dict[int, tuple[tuple[tuple[int, int], ...], FloatArray]] = {}

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
        self._found.clear()

    def expected(
        self, now: int, until: int, covered: tuple[tuple[int, int], ...], season: Season
    ) -> tuple[Workload, FloatArray]:
        """Past requests, moved by whole days into [now, until).

        Each counts as the share of the past days that it stands for, the young ones
        more: with a covered history of three days, about a third. If days of the week
        differ, each counts by how busy the one is that it is moved to, and those of the
        same weekday count more the more weeks were seen.

        Parameters
        ----------
        now, until
            UTC seconds.
        covered
            Spans of time in which all submissions were seen.
        season
            Growth, and how the days of the week differ.
        """
        if not len(self) or until <= now or not covered:
            return Workload.empty(), np.zeros(0)
        submitted = self._requests.submitted
        first = -(-(now - submitted) // DAY)
        times = np.maximum(-(-(until - submitted) // DAY) - first, 0)
        rows = np.repeat(np.arange(len(self)), times)
        number = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
        shift = (first[rows] + number) * DAY
        weights = self._weights_of(rows, shift, covered, season.weekdays)
        weights *= season.trend.at(submitted[rows] + shift)
        there = np.flatnonzero(weights > 0)
        if len(there) > self._room:
            there, weights = _choose(there, weights, self._room, now)
        else:
            weights = weights[there]
        rows, shift = rows[there], shift[there]
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

    def dispersion(self, covered: tuple[tuple[int, int], ...]) -> float:
        """Variance of the number of requests in a quarter of a day, over its mean.

        1 if they come independently of each other, and never less. From the differences
        between one day and the next, so that growth hardly counts; infinite where fewer
        than four days were seen as a whole.
        """
        days = [np.arange(-(-start // DAY), stop // DAY) for start, stop in covered]
        quarter = self._requests.submitted // _QUARTER
        squares, mean, pairs = 0.0, 0.0, 0
        for each in days:
            if len(each) < 2:
                continue
            at = quarter - 4 * each[0]
            inside = (at >= 0) & (at < 4 * len(each))
            seen = np.bincount(at[inside], self._weights[inside], 4 * len(each)).reshape(-1, 4)
            squares += float((np.diff(seen, axis=0) ** 2).sum()) / 2
            mean += float((seen[1:] + seen[:-1]).sum()) / 2
            pairs += len(each) - 1
        return max(squares / mean, 1.0) if pairs >= _PAIRS and mean > 0 else math.inf

    def _weights_of(
        self,
        rows: IntArray,
        shift: IntArray,
        covered: tuple[tuple[int, int], ...],
        weekdays: FloatArray | None,
    ) -> FloatArray:
        """How much each counts where it is moved to, before growth."""
        alike: FloatArray = self._shares(covered, DAY)[rows]
        if weekdays is None:
            return alike
        target = (self._requests.submitted[rows] + shift) // DAY % 7
        weeks = sum(stop - start for start, stop in covered) / WEEK
        own = np.where(shift % WEEK == 0, self._shares(covered, WEEK)[rows], 0.0)
        mixed: FloatArray = (weeks * own + SHAPE * alike * weekdays[target]) / (weeks + SHAPE)
        return mixed

    def _shares(self, covered: tuple[tuple[int, int], ...], period: int) -> FloatArray:
        """Weight of each request among those of the same moment of all periods.

        Kept until requests are added: prices are solved many times between two of these.
        """
        of, shares = self._found.get(period, ((), self._weights))
        if of != covered:
            shares = self._shares_of(covered, period)
            self._found[period] = covered, shares
        return shares

    def _shares_of(self, covered: tuple[tuple[int, int], ...], period: int) -> FloatArray:
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


def _choose(
    rows: IntArray, weights: FloatArray, room: int, seed: int
) -> tuple[IntArray, FloatArray]:
    """`room` of the rows, the heavy ones more likely, all of the same weight.

    One is drawn from each of `room` stretches of the same weight, so their sum is
    kept. Always the same choice for the same question.
    """
    reach = np.cumsum(weights[rows])
    step = float(reach[-1]) / room
    points = (np.arange(room) + np.random.default_rng(seed).random(room)) * step
    at = np.minimum(np.searchsorted(reach, points, side="right"), len(rows) - 1)
    return rows[at], np.full(room, step)
