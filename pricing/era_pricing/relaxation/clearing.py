"""Prices alone, quickly: for those who solve again and again."""

from __future__ import annotations

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.relaxation.problem import Mask, Minimum, Problem
from era_pricing.workload import Workload

PRECISION = 1e-5
"""Relative change of the dual at which a minimum is good enough."""


def clearing_prices(
    workload: Workload,
    capacity: FloatArray | IntArray,
    first_slot: int,
    slot: int,
    weights: FloatArray,
    must: Mask,
    prices: FloatArray | None = None,
    width: float = 0.1,
) -> FloatArray:
    """Prices at which demand about meets capacity, without a certificate.

    One minimum of the smoothed dual: a tenth of the work of `solve`, and no
    statement of how good it is.

    Parameters
    ----------
    workload, capacity, first_slot, slot, weights, must, prices
        As in `solve`.
    width
        Smoothing, relative to the mean value of a unit and slot in demand: prices
        that differ by less are hardly told apart.

    Returns
    -------
    FloatArray, shape (n,)
        Micro-credits per unit and slot; 0 everywhere if nothing is asked for.
    """
    problem = Problem.of(workload, capacity, first_slot, slot, weights, must)
    if problem is None:
        return np.zeros(len(capacity))
    found = Minimum.near(problem.dual, problem.start(prices), width, PRECISION)
    return problem.in_credits(found.prices)
