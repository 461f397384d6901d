"""Past demand, cut into pieces and filed by day, time of day, lead time and price."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

LEADS: Final[FloatArray] = HOUR * np.array(
    [0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 36, 48, 72, 120, 168, 336, 1344]
)
"""Upper ends of the classes of lead time, seconds; demand from further ahead is not kept."""

PER_OCTAVE: Final = 8
"""Classes of price between a price and its double."""

BINS: Final = 512
"""Classes of price; the last one begins at about 2**64."""

_PARTS = 96
"""Most parts into which the window of one request is cut."""

_PIECES = 400_000
"""Most pieces held at a time."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Demand, cut up by slot.

    Attributes
    ----------
    time : IntArray, shape (m,)
        A moment within the slot, UTC seconds.
    lead : IntArray, shape (m,)
        Seconds from the submission to that moment, 0 or more.
    units : FloatArray, shape (m,)
        Units throughout the slot.
    price : FloatArray, shape (m,)
        What they are worth, micro-credits per unit per hour.
    """

    time: IntArray
    lead: IntArray
    units: FloatArray
    price: FloatArray


def rounded_work(workload: Workload, slot: int) -> FloatArray:
    """Unit-seconds that each request pays for: its duration in whole slots."""
    work: IntArray = workload.units * (-(-workload.duration // slot) * slot)
    return work.astype(np.float64)


def spread_evenly(
    workload: Workload, weights: FloatArray, slot: int, resolution: int
) -> Iterator[Pieces]:
    """Each request in equal parts over the whole of its window.

    Windows of more than 96 slots are cut more coarsely, so that a request gives at
    most 96 pieces whatever its window.

    Parameters
    ----------
    workload
        Requests.
    weights : FloatArray, shape (m,)
        For how many each of them stands.
    slot
        Slot in which durations are rounded up, seconds.
    resolution
        Length of the slots of the pieces, seconds.
    """
    work = rounded_work(workload, slot)
    density = np.minimum(work / (workload.deadline - workload.arrival), workload.units) * weights
    price = workload.value * HOUR / work
    first = workload.arrival // resolution
    count = (workload.deadline - 1) // resolution - first + 1
    stride = -(-count // _PARTS)
    parts = -(-count // stride)
    chunk = np.cumsum(parts) // _PIECES
    for number in np.unique(chunk):
        chosen = np.flatnonzero(chunk == number)
        row = np.repeat(chosen, parts[chosen])
        inside = np.arange(len(row)) - np.repeat(
            np.cumsum(parts[chosen]) - parts[chosen], parts[chosen]
        )
        begin = (first[row] + inside * stride[row]) * resolution
        end = np.minimum(begin + stride[row] * resolution, workload.deadline[row])
        begin = np.maximum(begin, workload.arrival[row])
        middle = (begin + end) // 2
        units = density[row] * ((end - begin) / resolution)
        yield Pieces(middle, middle - workload.submitted[row], units, price[row])


@dataclass(eq=False)
class _Day:
    """The pieces of one day: sums by (time of day, lead, price) class, sparse."""

    keys: IntArray
    units: FloatArray
    paid: FloatArray  # units times price, by price class
    squares: FloatArray  # squares of the units of a piece, by time of day


class Record:
    """What is remembered of past demand, and which time it covers.

    Parameters
    ----------
    resolution
        Length of a slot of the day in seconds; divides a day.
    days
        How many days to remember before the last moment covered.

    Notes
    -----
    Bounded in size: a day takes at most one number for each combination of time of
    day, class of lead time and class of price that was seen.
    """

    def __init__(self, resolution: int, days: int) -> None:
        self.resolution = resolution
        self.slots = DAY // resolution
        self._keep = days
        self._days: dict[int, _Day] = {}
        self._covered: list[tuple[int, int]] = []

    @property
    def end(self) -> int | None:
        """The last moment covered; None if nothing is."""
        return self._covered[-1][1] if self._covered else None

    @property
    def covered(self) -> tuple[tuple[int, int], ...]:
        """The time in which every submission was seen, as spans [start, end), ascending."""
        return tuple(self._covered)

    def cover(self, start: int, end: int) -> None:
        """All that was submitted in [start, end) is on record.

        Calls come in order of `start`. A span that begins less than a day after the
        one before continues it: a quiet night is no gap.
        """
        if self._covered and start - self._covered[-1][1] < DAY:
            start, before = self._covered.pop()
            end = max(end, before)
        self._covered.append((start, max(end, start + 1)))
        oldest = self._covered[-1][1] - self._keep * DAY
        self._covered = [(max(a, oldest), b) for a, b in self._covered if b > oldest]
        for day in [day for day in self._days if (day + 1) * DAY <= oldest]:
            del self._days[day]

    def add(self, pieces: Pieces) -> None:
        """Put pieces on record; those that are worth nothing are left out."""
        worth = (pieces.price > 0) & (pieces.units > 0) & (pieces.lead <= LEADS[-1])
        if not worth.any():
            return
        time, units, price = pieces.time[worth], pieces.units[worth], pieces.price[worth]
        lead = np.searchsorted(LEADS[:-1], pieces.lead[worth], side="left")
        level = np.rint(PER_OCTAVE * np.log2(np.maximum(price, 1))).astype(np.int64)
        level = np.minimum(level, BINS - 1)
        of_day = time % DAY // self.resolution
        keys = (of_day * len(LEADS) + lead) * BINS + level
        day = time // DAY
        order = np.argsort(day, kind="stable")
        edges = np.flatnonzero(np.diff(day[order])) + 1
        for rows in np.split(order, edges):
            found, place = np.unique(keys[rows], return_inverse=True)
            new = _Day(
                found,
                _sums(place, units[rows], len(found)),
                _sums(level[rows], units[rows] * price[rows], BINS),
                _sums(of_day[rows], units[rows] ** 2, self.slots),
            )
            number = int(day[rows[0]])
            old = self._days.get(number)
            self._days[number] = new if old is None else _merge(old, new)

    def days(self) -> IntArray:
        """Numbers of the days of which something could have been seen, ascending.

        Day 0 is 1970-01-01. The two weeks after the last moment covered count too:
        part of what is wanted then has been asked for.
        """
        if not self._covered:
            return np.zeros(0, dtype=np.int64)
        first = min(start for start, _ in self._covered) // DAY
        end = self._covered[-1][1] // DAY
        last = min(max(end, max(self._days, default=0)), end + 14)
        return np.arange(first, last + 1, dtype=np.int64)

    def exposure(self, days: IntArray) -> FloatArray:
        """Share of the submissions that would be on record, shape (days, slots, leads).

        For a slot and a class of lead time: the share of the time in which such
        requests are submitted that is covered.
        """
        middle = (np.arange(self.slots) + 0.5) * self.resolution
        at = (days[:, None] * DAY + middle)[:, :, None]
        lower = np.concatenate(([0.0], LEADS[:-1]))
        seconds = np.zeros((len(days), self.slots, len(LEADS)))
        for start, end in self._covered:
            seconds += np.clip(at - lower, start, end) - np.clip(at - LEADS, start, end)
        share: FloatArray = seconds / (LEADS - lower)
        return share

    def levels(self) -> tuple[int, FloatArray]:
        """The first class of price in use, and the mean price in each from there on."""
        units, paid = np.zeros(BINS), np.zeros(BINS)
        for day in self._days.values():
            units += _sums(day.keys % BINS, day.units, BINS)
            paid += day.paid
        used = np.flatnonzero(units)
        if not len(used):
            return 0, np.zeros(1)
        first, end = int(used[0]), int(used[-1]) + 1
        nominal = 2.0 ** (np.arange(first, end) / PER_OCTAVE)
        prices = np.divide(
            paid[first:end], units[first:end], out=nominal, where=units[first:end] > 0
        )
        return first, prices

    def demand(self, day: int, first: int, count: int) -> FloatArray:
        """Units of one day by slot, lead time and price, shape (slots, leads, count)."""
        shape = (self.slots, len(LEADS), count)
        if day not in self._days:
            return np.zeros(shape)
        keys = self._days[day].keys
        place = keys // BINS * count + (keys % BINS - first)
        return _sums(place, self._days[day].units, int(np.prod(shape))).reshape(shape)

    def squares(self, day: int) -> FloatArray:
        """Sum of the squared units of all pieces of a day, shape (slots,)."""
        return self._days[day].squares if day in self._days else np.zeros(self.slots)


def _sums(place: IntArray, values: FloatArray, size: int) -> FloatArray:
    """Sum of the values at each place."""
    return np.bincount(place, values, size).astype(np.float64, copy=False)


def _merge(a: _Day, b: _Day) -> _Day:
    keys, place = np.unique(np.concatenate((a.keys, b.keys)), return_inverse=True)
    units = _sums(place, np.concatenate((a.units, b.units)), len(keys))
    return _Day(keys, units, a.paid + b.paid, a.squares + b.squares)
