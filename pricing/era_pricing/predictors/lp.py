"""Demand from history, as the best allocation of it would have placed it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import numpy as np

from era_pricing.arrays import FloatArray
from era_pricing.predictors.history import History
from era_pricing.predictors.memory import unnamed
from era_pricing.predictors.record import Pieces, rounded_work
from era_pricing.relaxation import Relaxation, allocate, solve
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload, every_nth

_AHEAD = 2 * DAY
"""How much of what is expected after the last request competes with it."""

_RIVALS = 5_000
"""Most of these that are taken into account."""

_LONGEST = 28 * DAY
"""Longest part of a window that is looked at."""

_TOLERANCE = 0.005

_WIDTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""How far slots may differ in price and still share a request, relative to the mean price."""

_ELEMENTS = 1_000_000
"""Most pairs of request and slot held at a time."""


class LP(History):
    """Demand where the LP relaxation of the optimal allocation puts it.

    All requests are placed together, each in parts, so that their value is greatest
    (`era_pricing.relaxation.solve`). Flexible requests then lie where they are not
    in the way. The part that the optimum turns away counts too, in the slots of its
    window where it would come nearest to being served: it is there that it would
    have bought at a lower price.

    What is observed later is placed beside the requests before it that still
    compete and those expected in the two days after it.

    Parameters as in `History`. The idea is from M. Babaioff et al., "ERA: A
    Framework for Economic Resource Allocation for the Cloud", WWW'17 Companion,
    pp. 635-642.
    """

    name: ClassVar[str] = "lp"

    _earlier: Workload = Workload.empty()
    _earlier_weights: FloatArray = np.zeros(0)

    def _cut(self, requests: Workload, weights: FloatArray) -> Iterator[Pieces]:
        now = int(requests.submitted[-1]) + 1
        later, later_weights = every_nth(*self.expected(now, now + _AHEAD), _RIVALS)
        everyone = Workload.concatenate([self._earlier, requests, later])
        own = slice(len(self._earlier), len(self._earlier) + len(requests))
        stands_for = np.concatenate((self._earlier_weights, weights, later_weights))
        yield from self._place(everyone, stands_for, own)
        past = np.arange(len(self._earlier) + len(requests))
        rivals = past[everyone.deadline[past] > now]
        self._earlier = unnamed(everyone.select(rivals))
        self._earlier_weights = stands_for[rivals]

    def _place(self, everyone: Workload, weights: FloatArray, own: slice) -> Iterator[Pieces]:
        """Pieces of the requests in `own`, beside all the others."""
        resolution = self.resolution
        coarse = _coarsen(everyone, resolution)
        first = int(coarse.arrival.min()) // resolution
        count = -(-int(coarse.deadline.max()) // resolution) - first
        found = solve(
            coarse,
            np.full(count, self._capacity, dtype=np.int64),
            first,
            resolution,
            weights=weights,
            tolerance=_TOLERANCE,
        )
        work = rounded_work(everyone, self._slot)[own]
        scale = work / rounded_work(coarse, resolution)[own] * weights[own]
        rate = everyone.value[own] * HOUR / work
        width = _width(coarse, found, first, resolution)
        windows = coarse.select(own)
        for rows in _chunks(windows, resolution):
            chosen = windows.select(rows)
            row, slot, part = allocate(chosen, found.prices, width, first, resolution)
            begin = np.maximum(slot * resolution, chosen.arrival[row])
            end = np.minimum((slot + 1) * resolution, chosen.deadline[row])
            middle = (begin + end) // 2
            units = part * (chosen.units * scale[rows])[row]
            yield Pieces(middle, middle - chosen.submitted[row], units, rate[rows][row])


def _coarsen(requests: Workload, resolution: int) -> Workload:
    """Durations in whole slots, to the nearest; windows no longer than they matter."""
    slots = np.maximum((requests.duration + resolution // 2) // resolution, 1)
    duration = slots * resolution
    arrival = np.minimum(requests.arrival, requests.submitted + _LONGEST)
    duration = np.minimum(duration, _LONGEST)
    latest = np.minimum(requests.deadline, arrival + _LONGEST)
    deadline = np.maximum(latest, arrival + duration)
    return Workload(requests.submitted, arrival, deadline, requests.units, duration, requests.value)


def _chunks(windows: Workload, resolution: int) -> Iterator[slice]:
    """Consecutive rows with not too many slots between them."""
    slots = (windows.deadline - 1) // resolution - windows.arrival // resolution + 1
    number = np.cumsum(slots) // _ELEMENTS
    edges = np.concatenate(([0], np.flatnonzero(np.diff(number)) + 1, [len(windows)]))
    for begin, end in pairwise(edges):
        yield slice(int(begin), int(end))


def _width(requests: Workload, found: Relaxation, first: int, resolution: int) -> float:
    """The width for `allocate` at which the load comes closest to that of the solution.

    At the dual prices many slots cost a request the same, and the prices alone do
    not tell how it is shared among them.
    """
    mean = max(float(found.prices.mean()), 1e-9)
    misfits = []
    for width in _WIDTHS:
        load = np.zeros(len(found.load))
        for rows in _chunks(requests, resolution):
            some = requests.select(rows)
            row, slot, part = allocate(some, found.prices, width * mean, first, resolution)
            units = part * (some.units * found.fractions[rows])[row]
            load += np.bincount(slot - first, units, len(load))
        misfits.append(float(np.abs(load - found.load).sum()))
    return _WIDTHS[int(np.argmin(misfits))] * mean
