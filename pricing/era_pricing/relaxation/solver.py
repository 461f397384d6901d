"""Solve the relaxation: minimise the smoothed dual, then certify both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.relaxation.problem import Mask, Minimum, Problem, check_floats
from era_pricing.workload import Workload

WIDTH = 30.0
"""Smoothing that usually meets a tolerance, divided by it; relative to the mean value
of a unit and slot in demand."""

WIDEST, NARROWEST = 0.25, 1e-6
"""Bounds on the smoothing width."""

CERTIFY = 1 / 50
"""Smoothing width of the certificate, relative to that of the solution."""

PRECISION = 3e-4
"""Relative change of the dual at which a minimum is good enough, divided by the square
of the tolerance."""

FINEST = 1e-13
"""Precision beyond which rounding errors take over."""

STAGES = 16


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A solution of the relaxation, certified from both sides.

    Parameters
    ----------
    bound
        Value of the dual at `prices`; the optimum is not above it. Micro-credits. Of a
        request twice as large as the room in its window only twice the room counts.
    value
        Value of `fractions`; the optimum is not below it. Micro-credits.
    fractions : FloatArray, shape (m,)
        How much of each request is served, 0 to its weight.
    prices : FloatArray, shape (n,)
        Dual prices, micro-credits per unit and slot. Where there is no capacity:
        a price that no request would pay.
    load : FloatArray, shape (n,)
        Units used in each slot, at most the capacity.
    """

    bound: float
    value: float
    fractions: FloatArray
    prices: FloatArray
    load: FloatArray

    @property
    def gap(self) -> float:
        """How far bound and value are apart, relative to the bound; 0 if they are equal."""
        apart = self.bound - self.value
        if apart == 0.0:
            return 0.0
        return apart / abs(self.bound) if self.bound else np.inf


def solve(
    workload: Workload,
    capacity: IntArray,
    first_slot: int,
    slot: int,
    weights: FloatArray | None = None,
    tolerance: float = 1e-3,
    prices: FloatArray | None = None,
    must: Mask | None = None,
) -> Relaxation:
    """Solve the relaxation to a relative gap of `tolerance`.

    Parameters
    ----------
    workload
        The requests, m of them. Windows are cut to the n slots.
    capacity : IntArray, shape (n,)
        Units in each slot.
    first_slot
        Index of the first of the n slots, counted from 1970-01-01 00:00 UTC.
    slot
        Length of a slot in seconds.
    weights : FloatArray, shape (m,), optional
        How many of each request there are, 0 or more; 1 if left out.
    tolerance
        Largest gap wanted, relative to the bound (to which requests that must be
        served count with the mean value of their unit and slots), above 0 and below
        1. Below about 1e-4 it may not be reached; `Relaxation.gap` says what was.
    prices : FloatArray, shape (n,), optional
        Prices to start from, say those of a similar problem solved before.
    must : bool array, shape (m,), optional
        Requests that have to be served in full, whatever they are worth. They go
        before all others. Where even they don't fit, what is missing of each is
        counted in bound and value at a penalty above anything the others are
        worth; `fractions` below the weights tell which. A window without room for
        the slots needed leaves a request at 0 here too, uncharged.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or values out of range.

    Notes
    -----
    The dual function depends on the slots' prices alone, so its size does not grow
    with the number of requests. It is smoothed (see `SmoothedDual`) and minimised
    by L-BFGS-B, at one width of smoothing and then at half of it. The prices at a
    minimum change about linearly with the width, so the line through the two is
    followed to width 0; that brings the bound several times closer. Requests at the
    minimum fit the capacity, up to the precision of the minimum, and are scaled to fit.
    If the gap is still too large, the width is narrowed again.

    Where several prices are optimal, a request counts as served in full only if it
    keeps a small surplus; that picks prices at the lower end of what clears the slots.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be above 0 and below 1, got {tolerance}")
    problem = Problem.of(workload, capacity, first_slot, slot, weights, must)
    m, n = len(workload), len(capacity)
    if prices is not None:
        prices = check_floats("prices", prices, n)
    if problem is None:
        return Relaxation(0.0, 0.0, np.zeros(m), np.zeros(n), np.zeros(n))
    found = _descend(problem, tolerance, prices)
    fractions = np.zeros(m)
    fractions[problem.dual.windows.requests] = found.fractions
    return Relaxation(
        bound=(found.bound - problem.offset) * problem.scale,
        value=(found.value - problem.offset) * problem.scale,
        fractions=fractions,
        prices=problem.in_credits(found.prices),
        load=found.load,
    )


class _Found(NamedTuple):
    """The best bound and the best fractions, in units of the problem."""

    bound: float
    value: float
    fractions: FloatArray
    prices: FloatArray
    load: FloatArray


def _descend(problem: Problem, tolerance: float, start: FloatArray | None) -> _Found:
    """Narrow the smoothing until bound and value are close enough."""
    prices = problem.start(start)
    width = min(WIDEST, WIDTH * tolerance)
    precision = PRECISION * tolerance**2
    wide = Minimum.near(problem.dual, prices, 2.0 * width, 10.0 * precision)
    prices = wide.prices
    bound, value = np.inf, -np.inf
    for _ in range(STAGES):
        narrow = Minimum.near(problem.dual, prices, width, precision)
        demand = narrow.response.taken
        taken, load = problem.dual.feasible(narrow.prices, width, demand)
        if problem.worth(taken) > value:
            value, served, used = problem.worth(taken), taken, load
        for tried in (narrow.beyond(wide, 0.0), narrow.prices):
            limit = problem.dual.bound(tried, CERTIFY * width)
            if limit < bound:
                bound, best = limit, tried
            allowed = tolerance * (max(bound - problem.offset, 0.0) + problem.floor)
            if bound - value <= allowed:
                return _Found(bound, value, served, best, used)
        short = bound - problem.worth(demand)
        if short < 0.8 * allowed and precision > FINEST:
            # Only the fit to capacity costs too much.
            precision *= 0.1
            prices = narrow.prices
            continue
        if width <= NARROWEST:
            break
        width = max(width * min(max(0.7 * allowed / short, 0.1), 0.5), NARROWEST)
        prices = narrow.beyond(wide, width)
        wide = narrow
    return _Found(bound, value, served, best, used)
