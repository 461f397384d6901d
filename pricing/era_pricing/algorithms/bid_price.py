"""Bid-price: what the units of a slot are worth to those who are still to come."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean
from typing import ClassVar

import numpy as np

from era_pricing.algorithms.base import Algorithm, EarlyStart, Market, Outlook
from era_pricing.algorithms.basic_econ import displaced
from era_pricing.algorithms.board import Board, Room, pack, unpack
from era_pricing.algorithms.worth import Worth, importance
from era_pricing.arrays import FloatArray, IntArray, rounded_up
from era_pricing.relaxation import Clearing, clear
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

_MERGED = 3
"""Futures that are drawn together into one sample, each counting a third."""

_FIRST = 4
"""How many times as many samples are drawn for the first solution, which has no past."""

_SPREAD = 0.1
"""How much of the capacity widely spread values give up when prices rise by a tenth."""

_STEEPEST = 2.0
"""Most that the curvature is multiplied by where demand gives way less than that."""

_USUAL = 0.6
"""Share of a slot promised at which it costs its dual where prices are steady."""

_OWN = 1.0
"""Curvature for a request's own units, of which nobody can be wrong."""

_JUST_BELOW = 0.999
"""Share of the highest value foreseen that a unit costs at most: rounding turns nobody away."""

_NEAREST, _FARTHEST = 3 * DAY, 14 * DAY
"""Least and most that is looked ahead by itself."""

_WHOLE = 0.9
"""Share of the work foreseen whose windows are then looked at to their end."""

_LARGEST = float(2**60)

Expected = tuple[Workload, FloatArray]
"""Kinds of request still to come, and how many of each."""


class BidPrice(Algorithm):
    """Posted marginal prices from the dual of the optimal allocation, solved again and again.

    Every `interval` the algorithm draws samples of the requests that may still come,
    adds what is promised but may be moved, and solves the relaxation of the optimal
    allocation in the capacity that is left. Its dual prices say what one more unit
    of a slot would be worth. They are averaged over the samples and, with
    exponentially falling weights, over the solutions before. From them on:

    - From one solution to the next a unit costs ``dual * exp(c * x)``, where x is the
      share of the capacity promised since then. c is `curvature` where demand gives way
      to dearer prices as that of widely spread values does; where it gives way more
      easily, as where all values are alike, c is less in proportion.
    - W units cost the integral of a price that rises in the same way, but only as demand
      itself gives way to them (c = 1), for what is asked now is no sign that the forecast
      was too low. So large requests pay for the room they take from many small ones, and
      splitting a request never pays.
    - No unit costs more than the highest value foreseen: nobody would be left to buy it.
    - Where bookings have run ahead of the solution's, or fallen behind them, the dual is
      raised or lowered (`tracking`). So a forecast that is wrong is corrected by the
      day's own bookings.
    - That price knows which requests could run at another time, but the future it sees
      is a mean one. What Basic-Econ would charge knows, slot by slot, how dear the last
      units are. The price posted is a mean of the two (`local`), which errs less than
      either.
    - Neither of them knows that a unit less may be one too few for a large request. Where
      those who are foreseen ask for much of the pool at once, the price is therefore that
      of `Worth`, which does: the more, the larger they are.

    No unit costs less than the price floor nor more than the ceiling. Beyond
    `lookahead` its last day is repeated. It has to reach as far as bookings do: who can
    wait for a week seems to be in a hurry to those who look three days ahead.

    Parameters
    ----------
    curvature
        How steeply prices rise with what is promised, where demand gives up a tenth of
        the capacity when prices rise by a tenth; 0 or more.
    local
        Weight of the price that the predicted demand for a slot gives by itself, 0 to
        1; the rest is that of the duals.
    tracking
        How much bookings ahead of those foreseen raise prices; 0: not.
    smoothing
        Weight of the prices before when new ones are solved; 0 or more, below 1.
    interval
        Seconds between two solutions, and the length of the slots they are for;
        rounded up to whole slots of the pool.
    lookahead
        How far ahead requests are foreseen, seconds; at least a day. None: so far that
        nine tenths of the work foreseen lie in windows that end within it, to the
        nearest day, from three to fourteen.
    samples
        Samples drawn for each solution.
    steady
        Whether the price of a slot never falls but by units given back, so that
        waiting for lower prices never pays. Each slot then keeps the dual with which it
        comes into view, as its price when three fifths of it are promised.
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
    early_start: ClassVar[EarlyStart] = EarlyStart.CHEAPER

    def __init__(
        self,
        curvature: float = 4.0,
        local: float = 0.5,
        tracking: float = 1.5,
        smoothing: float = 0.7,
        interval: int = 1800,
        lookahead: int | None = None,
        samples: int = 1,
        steady: bool = False,
        seed: int = 0,
    ) -> None:
        for name, number in (("curvature", curvature), ("tracking", tracking)):
            if not (math.isfinite(number) and number >= 0):
                raise ValueError(f"{name} must be a number of 0 or more, got {number!r}")
        if not 0 <= local <= 1:
            raise ValueError(f"local must be from 0 to 1, got {local!r}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be 0 or more and below 1, got {smoothing!r}")
        if lookahead is not None and not lookahead >= DAY:
            raise ValueError(f"lookahead must be {DAY} seconds or more, or None; got {lookahead!r}")
        for name, number in (("interval", interval), ("samples", samples)):
            if isinstance(number, bool) or int(number) != number or number < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more, got {number!r}")
        self._curvature = float(curvature)
        self._local = 0.0 if steady else float(local)
        self._tracking = float(tracking)
        self._smoothing = float(smoothing)
        self._interval = int(interval)
        self._lookahead = None if lookahead is None else int(lookahead)
        self._samples = int(samples)
        self._steady = bool(steady)
        self._seed = int(seed)
        np.random.default_rng(self._seed)  # which says what is wrong with it
        self._boards: dict[str, Board] = {}

    def due(self, resource: str, now: int) -> bool:
        """Whether an interval has passed since the last solution."""
        board = self._boards.get(resource)
        return board is None or now // board.step != board.first

    def prepare(self, outlook: Outlook) -> None:
        """Solve again."""
        step = outlook.grid.slots_for(self._interval) * outlook.grid.slot
        before = self._boards.get(outlook.resource)
        if before is not None and before.step != step:
            before = None  # worked out for other slots
        lookahead = self._lookahead or _reach(outlook)
        room = Room.of(outlook, step, -(-lookahead // step))
        index = room.first + np.arange(len(room.free))
        start = None if before is None else before.of_slots(before.duals, index)
        draws = self._samples if before is not None else _FIRST * self._samples
        expected = outlook.predictor.expected(outlook.now, room.end)
        # From slot and seed alone: after a restart the same futures are drawn.
        random = np.random.default_rng([self._seed, room.first])
        found = [self._solve(outlook, expected, room, start, random) for _ in range(draws)]
        hours = step / HOUR
        duals: FloatArray = np.mean([each.prices for each in found], axis=0) / hours
        soon: FloatArray = np.mean([each.load for each in found], axis=0)
        stiffness = min(_SPREAD / max(fmean(each.yielding for each in found), 1e-9), _STEEPEST)
        ahead = np.zeros(len(index))
        if before is not None and start is not None:
            old = self._smoothing
            duals = old * start + (1 - old) * duals
            stiffness = old * before.stiffness + (1 - old) * stiffness
            ahead = before.ahead_by(index, outlook)
        posted = duals * np.exp(self._tracking * ahead)
        foreseen = outlook.promised[: room.end // outlook.grid.slot - outlook.first]
        board = Board(
            step=step,
            first=room.first,
            duals=duals,
            posted=posted,
            highest=_highest(expected[0]),
            stiffness=stiffness,
            ahead=ahead,
            soon=soon,
            since=outlook.first * outlook.grid.slot,
            slot=outlook.grid.slot,
            promised_then=foreseen,
        )
        if self._steady:
            board = _kept(board, before, outlook, self._curvature)
        else:
            board = _with_sizes(board, expected, int(outlook.capacity.max(initial=0)))
        self._boards[outlook.resource] = board

    def state(self) -> bytes | None:
        """The prices posted, and what they were worked out for."""
        return pack(self._boards, self._kind) if self._boards else None

    def resume(self, state: bytes | None) -> None:
        """Go on from prices posted before."""
        self._boards = {} if state is None else unpack(state, self._kind)

    @property
    def _kind(self) -> str:
        return f"{'steady' if self._steady else 'free'} {self._interval}"

    def rates(self, units: int, market: Market) -> IntArray:
        """See `Algorithm.rates`; rounded up, so that splitting never pays."""
        board = self._boards[market.resource]
        sizes = board.sizes
        cost = self._smooth(board, units, market) if sizes < 1 else np.zeros(len(market.times))
        if board.worth is not None:
            rows = board.rows(market.times // board.step, len(board.posted))
            high = math.inf if market.price_ceiling is None else float(market.price_ceiling)
            low = float(market.price_floor)
            whole = board.worth.cost(rows, market.free, units, board.posted[rows], low, high)
            cost += sizes * (whole - cost)
        return rounded_up(np.minimum(cost, _LARGEST))

    def _smooth(self, board: Board, units: int, market: Market) -> FloatArray:
        """Price of the units where sizes do not matter."""
        capacity = np.maximum(market.capacity, 1).astype(np.float64)
        since = market.staying(units) - board.promised(market.times)
        posted = board.of_slots(board.posted, market.times // board.step)
        posted = posted * np.exp(self._curvature * board.stiffness * since / capacity)
        low = float(market.price_floor)
        high = max(min(float(market.price_ceiling or _LARGEST), board.highest), low)
        curvature = min(self._curvature, _OWN) * board.stiffness
        cost = capacity * _integral(units / capacity, posted, curvature, low, high)
        if self._local:
            cost += self._local * (displaced(units, market) - cost)
        return cost

    def _solve(
        self,
        outlook: Outlook,
        expected: Expected,
        room: Room,
        start: FloatArray | None,
        random: np.random.Generator,
    ) -> Clearing:
        """Prices of a unit and slot for a sample of the future, and the load soon asked for."""
        foreseen, weights = expected
        drawn = random.poisson(_MERGED * weights) / _MERGED
        foreseen, drawn = foreseen.select(drawn > 0), drawn[drawn > 0]
        requests = Workload.concatenate([foreseen, outlook.flexible])
        weights = np.concatenate((drawn, np.ones(len(outlook.flexible))))
        # One shorter than the slots solved for would take too much of them: as a part
        # of a longer one it takes the right amount.
        stretched = -(-requests.duration // room.step) * room.step
        new = np.arange(len(requests)) < len(foreseen)
        return clear(
            _stretch(requests, stretched),
            room.free,
            room.first,
            room.step,
            weights=weights * (requests.duration / stretched),
            must=~new,
            counted=new & (requests.submitted < outlook.now + room.step),
            prices=None if start is None else start * (room.step / HOUR),
        )


def _reach(outlook: Outlook) -> int:
    """How far ahead to look, seconds: as far as most bookings of the coming day go."""
    foreseen, weights = outlook.predictor.expected(outlook.now, outlook.now + DAY)
    ahead = foreseen.deadline - foreseen.submitted
    order = np.argsort(ahead)
    work = np.cumsum((weights * foreseen.units * foreseen.duration)[order])
    if not len(work):
        return _NEAREST
    most = int(ahead[order][np.searchsorted(work, _WHOLE * work[-1])])
    return min(max(round(most / DAY) * DAY, _NEAREST), _FARTHEST)


def _integral(
    share: FloatArray, posted: FloatArray, curvature: float, low: float, high: float
) -> FloatArray:
    """Integral of a unit's price from 0 to a share of the capacity.

    The price is ``posted * exp(curvature * share)`` between `low` and `high`; the
    shares at which it meets them cut the integral into three parts.
    """
    if not curvature:
        return share * np.clip(posted, low, high)
    safe = np.maximum(posted, 1e-9)
    rises = np.clip(np.log(low / safe) / curvature, 0, share)
    tops = np.clip(np.log(high / safe) / curvature, rises, share)
    curve = safe * (np.exp(curvature * tops) - np.exp(curvature * rises)) / curvature
    total: FloatArray = low * rises + curve + high * (share - tops)
    return total


def _highest(foreseen: Workload) -> float:
    """Most that a unit and hour are worth to anybody foreseen, or nearly."""
    if not len(foreseen):
        return _LARGEST
    rates = foreseen.value / (foreseen.units * foreseen.duration)
    return float(rates.max()) * HOUR * _JUST_BELOW


def _kept(board: Board, before: Board | None, outlook: Outlook, curvature: float) -> Board:
    """The board up to the horizon, where slots keep the prices they came into view with."""
    slots = outlook.first + np.arange(len(outlook.capacity))
    index = np.arange(board.first, slots[-1] * outlook.grid.slot // board.step + 1)
    stiffness = board.stiffness if before is None else before.stiffness
    posted = board.of_slots(board.duals, index) * np.exp(-curvature * stiffness * _USUAL)
    if before is not None:
        row = index - before.first
        known = (row >= 0) & (row < len(before.posted))
        posted[known] = before.posted[row[known]]
    nothing = np.zeros(0, dtype=np.int64)
    # What is foreseen changes, and the highest price with it: here it must not fall.
    return replace(
        board, posted=posted, highest=_LARGEST, stiffness=stiffness, promised_then=nothing
    )


def _with_sizes(board: Board, expected: Expected, capacity: int) -> Board:
    """The board, which also knows what units are worth by how many are free, if that matters."""
    sizes = importance(*expected, capacity)
    if not sizes:
        return board
    worth = Worth.of(*expected, board.duals, board.first, board.step, capacity)
    return replace(board, worth=worth, sizes=sizes)


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
