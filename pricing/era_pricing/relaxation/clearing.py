"""Prices alone, quickly: for those who solve again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.relaxation.problem import Mask, Minimum, Problem
from era_pricing.workload import Workload

PRECISION = 1e-5
"""Relative change of the dual at which a minimum is good enough."""

RISE = 0.1
"""By how much prices rise to see how demand gives way."""


@dataclass(frozen=True, eq=False)
class Clearing:
    """Prices at which demand about meets capacity, and what it does there.

    Attributes
    ----------
    prices : FloatArray, shape (n,)
        Micro-credits per unit and slot; 0 everywhere if nothing is asked for.
    load : FloatArray, shape (n,)
        Units that the requests counted take.
    yielding : float
        Share of the capacity, slots counted by their prices, that is given up when all
        prices rise by a tenth. About 0.1 for widely spread values, 1 for equal ones.
    """

    prices: FloatArray
    load: FloatArray
    yielding: float


def clear(
    workload: Workload,
    capacity: FloatArray | IntArray,
    first_slot: int,
    slot: int,
    weights: FloatArray,
    must: Mask,
    counted: Mask,
    prices: FloatArray | None = None,
    width: float = 0.1,
) -> Clearing:
    """Prices at which demand about meets capacity, without a certificate.

    One minimum of the smoothed dual: a tenth of the work of `solve`, and no
    statement of how good it is.

    Parameters
    ----------
    workload, capacity, first_slot, slot, weights, must, prices
        As in `solve`.
    counted : bool array, shape (m,)
        Requests whose load is wanted.
    width
        Smoothing, relative to the mean value of a unit and slot in demand: prices
        that differ by less are hardly told apart.
    """
    problem = Problem.of(workload, capacity, first_slot, slot, weights, must)
    if problem is None:
        return Clearing(np.zeros(len(capacity)), np.zeros(len(capacity)), 0.0)
    dual = problem.dual
    found = Minimum.near(dual, problem.start(prices), width, PRECISION)
    taken = np.where(counted[dual.windows.requests], found.response.taken, 0.0)
    load = dual.loads(found.prices, width, taken)
    dearer = dual.respond((1 + RISE) * found.prices, width)
    lost = float(found.prices @ (found.response.load - dearer.load))
    whole = float(found.prices @ dual.capacity)
    return Clearing(problem.in_credits(found.prices), load, max(lost, 0.0) / max(whole, 1e-9))
