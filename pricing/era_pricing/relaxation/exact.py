"""The relaxation as a sparse linear program, for a solver: exact, and quick while it is small."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, vstack

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.relaxation.problem import most_of
from era_pricing.relaxation.solver import Relaxation
from era_pricing.workload import Workload

CELLS = 30_000
"""Slots in all windows together up to which this takes no more than a few seconds."""


def solve_exactly(
    workload: Workload, capacity: IntArray, first_slot: int, slot: int
) -> Relaxation | None:
    """Solve the relaxation by HiGHS; None if it is too large for that, or no solution is found.

    Parameters
    ----------
    workload, capacity, first_slot, slot
        As in `solve`.

    Notes
    -----
    The variables are how much of each slot a request runs in, and how much of it is served;
    nothing is gained if its units run at different times, so they need not be told apart.
    """
    n, m, start = len(capacity), len(workload), first_slot * slot
    arrival = np.maximum(workload.arrival - start, 0)
    deadline = np.minimum(workload.deadline - start, n * slot)
    first = arrival // slot
    counts = np.maximum(-(-deadline // slot) - first, 0)
    cells = int(counts.sum())
    if not 0 < cells <= CELLS:
        return None
    cell, served = np.arange(cells), cells + np.arange(m)
    row = np.repeat(np.arange(m), counts)
    at = first[row] + cell - np.repeat(np.cumsum(counts) - counts, counts)
    begin, end = np.maximum(arrival[row], at * slot), np.minimum(deadline[row], (at + 1) * slot)
    inside = (end - begin) / slot
    # The program is about the most of each request that can run, not about all of it.
    most = np.minimum(most_of(workload, capacity, first_slot, slot), 1.0)
    units, values = most * workload.units, most * workload.value
    needed = (-(-workload.duration // slot)).astype(np.float64)
    size = cells + m
    loads = csr_matrix((units[row], (at, cell)), (n, size))
    rates = csr_matrix(
        (np.concatenate((np.ones(cells), -inside)), (np.tile(cell, 2), [*cell, *served[row]])),
        (cells, size),
    )
    whole = csr_matrix(
        (np.concatenate((np.ones(cells), -needed)), ([*row, *range(m)], [*cell, *served])),
        (m, size),
    )
    scale = float(values.max()) or 1.0
    found = linprog(
        np.concatenate((np.zeros(cells), -values / scale)),
        A_ub=vstack((loads, rates)),
        b_ub=np.concatenate((capacity, np.zeros(cells))),
        A_eq=whole,
        b_eq=np.zeros(m),
        bounds=np.column_stack((np.zeros(size), np.repeat((np.inf, 1.0), (cells, m)))),
        method="highs",
    )
    if found.status != 0:
        return None
    value = -float(found.fun) * scale
    prices: FloatArray = -found.ineqlin.marginals[:n] * scale
    return Relaxation(value, value, most * found.x[cells:], prices, loads @ found.x)
