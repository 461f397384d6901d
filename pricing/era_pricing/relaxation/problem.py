"""The relaxation of one workload, ready to be minimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, minimize

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.relaxation.dual import Response, SmoothedDual
from era_pricing.relaxation.windows import Windows
from era_pricing.workload import Workload

Mask = npt.NDArray[np.bool_]

STEPS = 200
"""Most steps towards a minimum."""

MEMORY = 20
"""Steps that L-BFGS remembers."""


class Problem:
    """Requests that could be served, in units of the mean value of a unit and slot in demand.

    Parameters
    ----------
    windows
        Where the requests can run.
    units, values, weights : FloatArray, shape (k,)
        Per request, in the order of ``windows.requests``; values in micro-credits.
    firm : bool array, shape (k,)
        Requests that have to be served.
    capacity : FloatArray, shape (n,)
        Units in each slot.
    """

    def __init__(
        self,
        windows: Windows,
        units: FloatArray,
        values: FloatArray,
        weights: FloatArray,
        firm: Mask,
        capacity: FloatArray,
    ) -> None:
        work = units * windows.needed
        self.scale = _mean_density(values[~firm], (work * weights)[~firm], weights[~firm], capacity)
        most = float((values / units)[~firm].max(initial=self.scale))
        charged = np.where(firm, values + 2.0 * most * work, values)
        # Bound and value are lower by this than with the firm requests at their penalty.
        self.offset = float(weights @ (charged - values)) / self.scale
        # The gap is relative to the bound, but a firm request counts at the mean value.
        self.floor = float(weights[firm] @ work[firm])
        self.ceiling = float((charged / units).max()) / self.scale
        self.dual = SmoothedDual(
            windows, units, charged / self.scale, weights, capacity, firm if firm.any() else None
        )

    @classmethod
    def of(
        cls,
        workload: Workload,
        capacity: FloatArray | IntArray,
        first_slot: int,
        slot: int,
        weights: FloatArray | None,
        must: Mask | None,
    ) -> Self | None:
        """The problem that `solve` is given; None if no request could be served.

        Raises
        ------
        ValueError
            If an argument has the wrong shape or values out of range.
        """
        room, m = _check_capacity(capacity, slot), len(workload)
        weight = check_floats("weights", np.ones(m) if weights is None else weights, m)
        firm = np.zeros(m, dtype=bool) if must is None else _check_mask(must, m)
        wanted = ((workload.value > 0) | firm) & (weight > 0)
        windows = Windows.of(workload, first_slot, slot, room <= 0, wanted)
        rows = windows.requests
        if not len(rows):
            return None
        units = workload.units[rows].astype(np.float64)
        most = most_of(workload.select(rows), room, first_slot, slot)
        return cls(
            windows,
            units,
            workload.value[rows].astype(np.float64),
            np.where(firm[rows] | (most >= 1), weight[rows], np.minimum(weight[rows], most)),
            firm[rows],
            room,
        )

    def start(self, prices: FloatArray | None) -> FloatArray:
        """Prices in micro-credits to begin with, in units of the problem; a guess for None."""
        n = len(self.dual.capacity)
        if prices is None:
            return np.full(n, 0.5)
        return np.minimum(check_floats("prices", prices, n) / self.scale, self.ceiling)

    def in_credits(self, prices: FloatArray) -> FloatArray:
        """Prices in micro-credits; where there is no capacity one that nobody would pay."""
        priced: FloatArray = np.where(self.dual.capacity > 0, prices, self.ceiling) * self.scale
        return priced

    def worth(self, taken: FloatArray) -> float:
        """Value of what is served."""
        return float(taken @ self.dual.values)


@dataclass(frozen=True, eq=False)
class Minimum:
    """Prices that are best at one width of smoothing, and what requests do at them."""

    width: float
    prices: FloatArray
    response: Response

    @classmethod
    def near(cls, dual: SmoothedDual, start: FloatArray, width: float, precision: float) -> Minimum:
        """The minimum of the smoothed dual over prices of 0 or more."""
        # The curvature grows with capacity; in these variables it is alike everywhere.
        root = np.sqrt(np.maximum(dual.capacity, 1e-3 * dual.capacity.max()))

        best, at = np.inf, start
        answer: Response | None = None

        def objective(x: FloatArray) -> tuple[float, FloatArray]:
            nonlocal best, at, answer
            # Rounding can take the search a hair below its bounds.
            prices = np.maximum(x / root, 0.0)
            response = dual.respond(prices, width)
            if answer is None or response.dual < best:
                best, at, answer = response.dual, prices, response
            return response.dual, (dual.capacity - response.load) / root

        minimize(
            objective,
            start * root,
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(0.0, np.inf),
            options={"maxiter": STEPS, "maxcor": MEMORY, "ftol": precision, "gtol": 1e-9},
        )
        assert answer is not None
        return cls(width, at, answer)

    def beyond(self, wider: Minimum, width: float) -> FloatArray:
        """Prices at a smaller width, on the line through this minimum and a wider one."""
        slope = (self.prices - wider.prices) / (self.width - wider.width)
        return np.maximum(self.prices + slope * (width - self.width), 0.0)


def _mean_density(
    values: FloatArray, work: FloatArray, weights: FloatArray, capacity: FloatArray
) -> float:
    """Mean value of a unit and slot of the best requests that would fill the pool.

    1 if there are none.
    """
    worth = values * weights
    order = np.argsort(-worth / work)
    if not len(order):
        return 1.0
    filled = np.cumsum(work[order])
    last = min(int(np.searchsorted(filled, capacity.sum())), len(order) - 1)
    return float(worth[order][: last + 1].sum() / filled[last])


def most_of(
    workload: Workload, capacity: FloatArray | IntArray, first_slot: int, slot: int
) -> FloatArray:
    """Twice what there is room for of each request in its window if nothing else runs.

    That is far below 1 if a request is far larger than the pool. To say so changes no
    solution, but without it such requests spoil the scaling and hide all others. Twice, so
    that room runs out first and has its price.
    """
    before = np.concatenate(([0.0], np.cumsum(capacity, dtype=np.float64)))
    begin = np.clip(workload.arrival // slot - first_slot, 0, len(capacity))
    end = np.clip(-(-workload.deadline // slot) - first_slot, begin, len(capacity))
    needed = workload.units * -(-workload.duration // slot).astype(np.float64)
    most: FloatArray = 2.0 * (before[end] - before[begin]) / needed
    return most


def _check_capacity(capacity: FloatArray | IntArray, slot: int) -> FloatArray:
    room = np.asarray(capacity, dtype=np.float64)
    if room.ndim != 1:
        raise ValueError(f"capacity must have one number per slot, got shape {room.shape}")
    if not (np.isfinite(room) & (room >= 0)).all():
        raise ValueError("capacity must be finite and 0 or more in every slot")
    if slot <= 0:
        raise ValueError(f"slot must be a positive number of seconds, got {slot}")
    return room


def check_floats(name: str, given: FloatArray, length: int) -> FloatArray:
    array = np.asarray(given, dtype=np.float64)
    if array.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {array.shape}")
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        raise ValueError(
            f"{name} must be finite and 0 or more, got {array[bad][0]} in row {int(bad.argmax())}"
        )
    return array


def _check_mask(given: Mask, length: int) -> Mask:
    mask = np.asarray(given)
    if mask.shape != (length,) or mask.dtype != bool:
        raise ValueError(
            f"must has to be a bool array of shape ({length},), "
            f"got {mask.dtype} of shape {mask.shape}"
        )
    return mask
