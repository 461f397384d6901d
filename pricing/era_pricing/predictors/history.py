"""What the predictors that learn from past requests have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Self

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.bids import LATEST, MOST_VALUE
from era_pricing.predictors.base import Predictor, SeenRequest
from era_pricing.predictors.curves import Curves
from era_pricing.predictors.level import STEP, Level
from era_pricing.predictors.memory import Memory
from era_pricing.predictors.record import Pieces, Record, rounded_work
from era_pricing.predictors.season import WEEK, Season, learn
from era_pricing.predictors.unsent import Unsent
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import MOST_UNITS, Workload

_FINEST = 1800
"""Shortest slot of the season: finer ones would be told apart by chance."""

_PENDING = 20_000
"""Most requests observed that are held back until the tables are renewed."""


class History(Predictor):
    """Demand that repeats: by time of day, lead time, and perhaps day of the week.

    Each past request is cut into pieces: so many units in a slot, at its value per
    unit and hour, asked for so long before. How it is cut is up to the subclass.
    The pieces are filed by time of day, lead time and price; their mean over the
    days, divided by the share of the submissions that could have been seen, is the
    demand expected. Of the demand for a slot, what is asked for with a lead time
    shorter than that from now to the slot is still to come.

    Requests observed join the record. The tables are renewed once per `period`. In
    between, all of it is raised or lowered where a day is not like those before (`Level`).

    Parameters
    ----------
    history
        Past requests, in any order, accepted or not.
    capacity
        Units that there were.
    slot
        Slot in which time is sold, seconds.
    weeks
        How many weeks to remember; the record's size is bounded by that.
    half_life
        Age in days at which a day counts half.
    weekly
        Whether days of the week differ. None decides it by the history: with two
        whole weeks, if an analysis of variance of the daily totals says so.
    trend
        Whether to look for growth. It is kept as far as it exceeds chance, given
        two whole weeks, and is expected to level off.
    unsent
        Share of the users who see the price first and send no bid if it is above
        their value; see `Unsent`. Corrects what is observed, not `history`.
    period
        Seconds between two renewals of the tables.
    room
        Most requests to keep for `expected`.
    seed
        Of the choice of requests to keep where there are more.
    cold_start
        Whether `history` may be empty.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the history is empty.
    """

    def __init__(
        self,
        history: Workload,
        capacity: int,
        slot: int,
        *,
        weeks: int = 8,
        half_life: float = 14,
        weekly: bool | None = None,
        trend: bool = True,
        unsent: float = 0,
        period: int = DAY,
        room: int = 20_000,
        seed: int = 0,
        cold_start: bool = False,
    ) -> None:
        _check_numbers(capacity=capacity, slot=slot, weeks=weeks, period=period, room=room)
        if not (np.isfinite(half_life) and half_life > 0):
            raise ValueError(f"half_life must be a positive number of days, got {half_life!r}")
        if not len(history) and not cold_start:
            raise ValueError(
                f"history must have at least one request for {self.name!r}; "
                "without one use 'blend', which starts from a prior, or 'prior'"
            )
        self._capacity = capacity
        self._slot = slot
        self._weekly = weekly
        self._trends = trend
        self._half_life = half_life
        self._period = period
        self._unsent = Unsent(unsent)
        # Where part of the requests is not seen, their number tells about prices.
        self._follows = unsent == 0
        self.resolution = slot if slot >= _FINEST and DAY % slot == 0 else _FINEST
        self._record = Record(self.resolution, 7 * weeks)
        self._memory = Memory(room, 7 * weeks, half_life, seed)
        self._level = Level()
        self._pending: list[SeenRequest] = []
        self._since: int | None = None  # from when on requests were observed
        self._latest = 0  # last submission of the history
        self._due = 0
        self._renew()
        if len(history):
            oldest = int(history.submitted.max()) - 7 * DAY * weeks
            history = history.select(history.submitted > oldest).sorted()
            start, end = _span(history)
            self._latest = int(history.submitted[-1])
            self._file(history, np.ones(len(history)), start, end)
            self._renew()

    @classmethod
    def from_nothing(cls, capacity: int, slot: int, **options: Any) -> Self:
        """One without a history, which only learns from what it observes; for `Blend`.

        Parameters
        ----------
        capacity, slot, options
            As for the class.
        """
        return cls(Workload.empty(), capacity, slot, cold_start=True, **options)

    @abstractmethod
    def _cut(self, requests: Workload, weights: FloatArray) -> Iterable[Pieces]:
        """Cut requests into pieces.

        Parameters
        ----------
        requests
            By time of submission; each is passed once, in order.
        weights : FloatArray, shape (m,)
            For how many each of them stands.
        """

    @property
    def season(self) -> Season:
        """What has been learned."""
        return self._season

    def days_seen(self, t: IntArray) -> FloatArray:
        """On how many days the slot of the day of `t` has been seen, of the shape of `t`."""
        seen: FloatArray = self._season.seen[t % DAY // self.resolution]
        return seen

    def demand(self, t: IntArray, now: int) -> FloatArray:
        """Units wanted at any price above 0 that are still to be asked for."""
        return self._curves.demand(t, now)

    def share_to_come(self, t: IntArray, now: int) -> FloatArray:
        """Share of the demand for each slot that is still to be asked for, 0 to 1."""
        return self._curves.share(t, now)

    def price(self, t: IntArray, now: int, quantity: FloatArray | IntArray) -> FloatArray:
        """See `Predictor.price`; the mean over the unit that leaves `quantity` behind."""
        return self._curves.price(t, now, quantity)

    def cost(
        self,
        t: IntArray,
        now: int,
        remaining: IntArray,
        units: int,
        floor: int,
        ceiling: int | None = None,
    ) -> FloatArray:
        """See `Predictor.cost`; takes no longer for many units than for one."""
        return self._curves.cost(t, now, remaining, units, floor, ceiling)

    def price_if(
        self, t: IntArray, now: int, quantity: FloatArray | IntArray, factor: FloatArray | float
    ) -> FloatArray:
        """See `Predictor.price_if`."""
        return self._curves.price(t, now, quantity, factor)

    def uncertainty(self, t: IntArray, now: int, quantity: FloatArray | IntArray) -> FloatArray:
        """See `Predictor.uncertainty`; at most 1.5.

        How much the past days differed, and besides the chance of a few requests:
        if they come independently of each other and `quantity` is made up of n of
        them, its squared relative deviation is 1 / n.
        """
        slot = t % DAY // self.resolution
        chance = self._season.size[slot] / np.maximum(quantity, 1)
        return np.sqrt(np.minimum(self._season.between[slot] + chance, 1.5**2))

    def begin(self, now: int) -> None:
        """See `Predictor.begin`; `observe` does the same for callers that know no slots."""
        if self._since is None:
            return
        self._level.advance(now)
        if now >= self._due:
            self._take_in(now)
            self._renew()
            self._due = (now // self._period + 1) * self._period
            # What was counted so far belongs to the whole of the running step.
            self._foresee(now // STEP * STEP)

    def observe(self, seen: SeenRequest) -> None:
        """See `Predictor.observe`; what was submitted before the end of the history is ignored."""
        if self._since is None:
            if seen.submitted < self._latest:
                return
            self._since = seen.submitted
            self._due = (seen.submitted // self._period + 1) * self._period
            self._foresee(seen.submitted)
        self.begin(seen.submitted)
        if _possible(seen):
            self._level.note(seen)
        if len(self._pending) >= _PENDING:
            self._take_in(seen.submitted)
        self._pending.append(seen)

    def expected(self, now: int, until: int) -> tuple[Workload, FloatArray]:
        """See `Predictor.expected`: past requests, each moved on by whole days."""
        requests, weights = self._foreseen(now, until)
        level = self._level.prices
        if level != 1:
            value = np.minimum(np.rint(requests.value * level), MOST_VALUE).astype(np.int64)
            requests = replace(requests, value=value)
        return requests, weights * self._level.units

    def _take_in(self, now: int) -> None:
        """File what is pending: all that was submitted until `now`."""
        possible = [each for each in self._pending if _possible(each)]
        self._pending = []
        columns = np.array(
            [
                (s.submitted, max(s.arrival, s.submitted), s.deadline, s.units, s.duration, s.value)
                for s in possible
            ],
            dtype=np.int64,
        ).reshape(-1, 6)
        requests = Workload(*columns.T)
        weights = self._unsent.weights(possible, rounded_work(requests, self._slot))
        order = np.argsort(requests.submitted, kind="stable")
        assert self._since is not None
        self._file(requests.select(order), weights[order], self._since, now)
        self._since = max(now, self._since)

    def _file(self, requests: Workload, weights: FloatArray, start: int, end: int) -> None:
        self._memory.add(requests, weights, end)
        self._record.cover(start, end)
        for pieces in self._cut(requests, weights) if len(requests) else ():
            self._record.add(pieces)

    def _renew(self) -> None:
        self._season = learn(self._record, self._half_life, self._weekly, self._trends)
        self._curves = Curves(self._season, self.resolution, self._slot // 2, self._level)

    def _foresee(self, start: int) -> None:
        """Note down what is expected until the tables are renewed."""
        if self._follows:
            dispersion = self._memory.dispersion(self._record.covered)
            until = -(-self._due // STEP) * STEP
            self._level.expect(*self._foreseen(start, until), start, dispersion)

    def _foreseen(self, now: int, until: int) -> tuple[Workload, FloatArray]:
        """`expected` as the past alone has it."""
        return self._memory.expected(now, until, self._record.covered, self._season)


def _span(history: Workload) -> tuple[int, int]:
    """The time that a history covers, given by time of submission.

    It reaches beyond the first and the last submission by half a mean gap. If all
    came within an hour, their pace tells nothing, and they count as a day's.
    """
    first, last = int(history.submitted[0]), int(history.submitted[-1])
    if last - first < HOUR:
        return last + 1 - DAY, last + 1
    half = min((last - first) // (2 * (len(history) - 1)), WEEK // 2)
    return first - half, last + half + 1


def _possible(seen: SeenRequest) -> bool:
    """Whether it is a request as a `Workload` may hold it."""
    arrival = max(seen.arrival, seen.submitted)
    return (
        seen.duration >= 1
        and arrival + seen.duration <= seen.deadline <= LATEST
        and 1 <= seen.units <= MOST_UNITS
        and 0 <= seen.value <= MOST_VALUE
    )


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {number!r}")
