"""Bid-price: what the units of a slot are worth to those who are still to come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from era_pricing.algorithms.base import Algorithm, Market, Outlook
from era_pricing.arrays import FloatArray, IntArray
from era_pricing.relaxation import clearing_prices
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

_MERGED = 3
"""Futures that are drawn together into one sample, each counting a third."""

_FIRST = 4
"""How many times as many samples are drawn for the first solution, which has no past."""

_LARGEST = float(2**60)


class BidPrice(Algorithm):
    """Posted marginal prices from the dual of the optimal allocation, solved again and again.

    Every `interval` the algorithm draws samples of the requests that may still come,
    adds what is promised but may be moved, and solves the relaxation of the optimal
    allocation in the capacity that is left. Its dual prices say what one more unit
    of a slot would be worth. They are averaged over the samples and, with
    exponentially falling weights, over the solutions before.

    From one solution to the next a unit costs ``dual * exp(curvature * x)``, where x
    is the share of the capacity promised since then; but never less than the price
    floor nor more than the ceiling. W units cost the integral of that. So bookings
    that run ahead raise prices at once, large requests pay for the room they take
    from many small ones, and splitting a request in units changes nothing. The
    integral is rounded at both ends, so parts add up to the whole to the
    micro-credit.

    Beyond `lookahead` its last day is repeated.

    Parameters
    ----------
    curvature
        How steeply prices rise with what is promised; 0 or more.
    smoothing
        Weight of the prices before when new ones are solved; 0 or more, below 1.
    interval
        Seconds between two solutions, and the length of the slots they are for;
        rounded up to whole slots of the pool.
    lookahead
        How far ahead requests are foreseen, seconds; at least a day.
    samples
        Samples drawn for each solution.
    steady
        Whether the price of a slot never falls but by units given back, so that
        waiting for lower prices never pays.
    seed
        Of the samples.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    References
    ----------
    K. T. Talluri, G. J. van Ryzin, "An Analysis of Bid-Price Controls for Network
    Revenue Management", Management Science 44(11), 1998, for prices from a dual;
    the same, "A Randomized Linear Programming Method for Computing Network Bid
    Prices", Transportation Science 33(2), 1999, for averaging over sampled futures.
    The correction between solutions is ours.
    """

    name: ClassVar[str] = "bid-price"

    def __init__(
        self,
        curvature: float = 2.5,
        smoothing: float = 0.7,
        interval: int = 1800,
        lookahead: int = 3 * DAY,
        samples: int = 1,
        steady: bool = False,
        seed: int = 0,
    ) -> None:
        if not (math.isfinite(curvature) and curvature >= 0):
            raise ValueError(f"curvature must be a number of 0 or more, got {curvature!r}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be 0 or more and below 1, got {smoothing!r}")
        if not lookahead >= DAY:
            raise ValueError(f"lookahead must be {DAY} seconds or more, got {lookahead!r}")
        for name, number in (("interval", interval), ("samples", samples)):
            if isinstance(number, bool) or int(number) != number or number < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more, got {number!r}")
        self._curvature = float(curvature)
        self._smoothing = float(smoothing)
        self._interval = int(interval)
        self._lookahead = int(lookahead)
        self._samples = int(samples)
        self._steady = bool(steady)
        self._random = np.random.default_rng(seed)
        self._boards: dict[str, _Board] = {}

    def due(self, resource: str, now: int) -> bool:
        """Whether an interval has passed since the last solution."""
        board = self._boards.get(resource)
        return board is None or now // board.step != board.first

    def prepare(self, outlook: Outlook) -> None:
        """Solve again."""
        step = outlook.grid.slots_for(self._interval) * outlook.grid.slot
        before = self._boards.get(outlook.resource)
        room = _Room.of(outlook, step, -(-self._lookahead // step))
        start = None if before is None else before.duals(room.first + np.arange(len(room.free)))
        draws = self._samples if before is not None else _FIRST * self._samples
        duals: FloatArray = np.mean([self._solve(outlook, room, start) for _ in range(draws)], 0)
        if start is not None:
            duals = self._smoothing * start + (1 - self._smoothing) * duals
        foreseen = outlook.promised[: room.end // outlook.grid.slot - outlook.first]
        board = _Board(step, room.first, duals, outlook.first, foreseen)
        if self._steady and before is not None:
            board = self._kept_up(board, before, outlook)
        self._boards[outlook.resource] = board

    def rates(self, units: int, market: Market) -> IntArray:
        """See `Algorithm.rates`."""
        board = self._boards[market.resource]
        duals = board.duals(market.times // board.step)
        capacity = np.maximum(market.capacity, 1).astype(np.float64)
        since = market.promised - board.promised(market.times // market.slot)
        before = self._integral(since / capacity, duals, market)
        after = self._integral((since + units) / capacity, duals, market)
        whole = np.rint(np.clip(capacity * after, -_LARGEST, _LARGEST)).astype(np.int64)
        return whole - np.rint(np.clip(capacity * before, -_LARGEST, _LARGEST)).astype(np.int64)

    def _integral(self, share: FloatArray, duals: FloatArray, market: Market) -> FloatArray:
        """Integral of a unit's price from 0 to a share of the capacity.

        The price is ``dual * exp(curvature * share)`` between floor and ceiling; the
        shares at which it meets them cut the integral into three parts.
        """
        low, high = float(market.price_floor), float(market.price_ceiling or _LARGEST)
        if not self._curvature:
            return share * np.clip(duals, low, high)
        safe = np.maximum(duals, 1e-9)
        rises = np.log(low / safe) / self._curvature
        tops = np.log(high / safe) / self._curvature

        def primitive(x: FloatArray) -> FloatArray:
            inner = np.clip(x, rises, tops)
            curve = safe * np.exp(self._curvature * inner) / self._curvature
            total: FloatArray = curve + low * np.minimum(x - rises, 0)
            return total + high * np.maximum(x - tops, 0)

        return primitive(share) - primitive(np.zeros_like(share))

    def _solve(self, outlook: Outlook, room: _Room, start: FloatArray | None) -> FloatArray:
        """Dual prices of a unit, micro-credits per hour, for a sample of the future."""
        foreseen, weights = outlook.predictor.expected(outlook.now, room.end)
        drawn = self._random.poisson(_MERGED * weights) / _MERGED
        foreseen, drawn = foreseen.select(drawn > 0), drawn[drawn > 0]
        requests = Workload.concatenate([foreseen, outlook.flexible])
        weights = np.concatenate((drawn, np.ones(len(outlook.flexible))))
        # One shorter than the slots solved for would take too much of them: as a part
        # of a longer one it takes the right amount.
        stretched = -(-requests.duration // room.step) * room.step
        hours = room.step / HOUR
        prices = clearing_prices(
            _stretch(requests, stretched),
            room.free,
            room.first,
            room.step,
            weights=weights * (requests.duration / stretched),
            must=np.arange(len(requests)) >= len(foreseen),
            prices=None if start is None else start * hours,
        )
        return prices / hours

    def _kept_up(self, board: _Board, before: _Board, outlook: Outlook) -> _Board:
        """The board up to the horizon, with no unit cheaper than it is now."""
        slots = outlook.first + np.arange(len(outlook.capacity))
        buckets = slots * outlook.grid.slot // board.step
        capacity = np.maximum(outlook.capacity, 1)

        def unit_prices(each: _Board) -> FloatArray:
            since = (outlook.promised - each.promised(slots)) / capacity
            prices: FloatArray = each.duals(buckets) * np.exp(self._curvature * since)
            return prices

        duals = np.zeros(buckets[-1] - board.first + 1)
        highest = np.maximum(unit_prices(board), unit_prices(before))
        np.maximum.at(duals, buckets - board.first, highest)
        return _Board(board.step, board.first, duals, board.slot, outlook.promised)


def _stretch(requests: Workload, durations: IntArray) -> Workload:
    """The requests with longer durations, and values and windows to match."""
    value = np.rint(requests.value * (durations / requests.duration)).astype(np.int64)
    return Workload(
        requests.submitted,
        requests.arrival,
        np.maximum(requests.deadline, requests.arrival + durations),
        requests.units,
        durations,
        value,
    )


@dataclass(frozen=True, eq=False)
class _Room:
    """Mean units, in slots of `step` seconds from `first` on, that are not promised for good."""

    step: int
    first: int
    free: FloatArray

    @classmethod
    def of(cls, outlook: Outlook, step: int, most: int) -> _Room:
        """At most `most` slots; of the running one only what is left of it."""
        per = step // outlook.grid.slot
        first = outlook.now // step
        gone = outlook.first - first * per
        count = min(most, -(-(len(outlook.capacity) + gone) // per))
        left = np.maximum(outlook.capacity - outlook.firm, 0)[: count * per - gone]
        free = np.zeros(count * per)
        free[gone : gone + len(left)] = left
        return cls(step, first, free.reshape(count, per).mean(axis=1))

    @property
    def end(self) -> int:
        """UTC seconds."""
        return (self.first + len(self.free)) * self.step


@dataclass(frozen=True, eq=False)
class _Board:
    """The prices posted: duals by slot of `step` seconds, and what was promised then."""

    step: int
    first: int
    duals_now: FloatArray
    slot: int
    promised_then: IntArray

    def duals(self, index: IntArray) -> FloatArray:
        """Duals of slots by absolute index; beyond the last ones those of the last day again."""
        n = len(self.duals_now)
        day = max(min(DAY // self.step, n), 1)
        at = np.maximum(index - self.first, 0)
        return self.duals_now[np.where(at < n, at, n - day + (at - n) % day)]

    def promised(self, slots: IntArray) -> IntArray:
        """Units promised in slots of the pool that the duals take into account."""
        at, n = slots - self.slot, len(self.promised_then)
        known = (at >= 0) & (at < n)
        return np.where(known, self.promised_then[np.clip(at, 0, n - 1)], 0)
