"""The dual of the relaxation, smoothed, as a function of the slots' prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.relaxation.levels import Spread
from era_pricing.relaxation.windows import Block, Windows

ACCURACY = 1e-6
"""How exactly a request gets the slots it needs while prices are sought."""

EXACT = 1e-10
"""The same where the result must be feasible."""


@dataclass(frozen=True, eq=False)
class Response:
    """What the requests do at given prices.

    Parameters
    ----------
    dual
        Value of the smoothed dual function.
    load : FloatArray, shape (n,)
        Units used in each slot; capacity less load is the gradient.
    taken : FloatArray, shape (k,)
        How much of each request runs, 0 to its weight.
    """

    dual: float
    load: FloatArray
    taken: FloatArray


class SmoothedDual:
    """Prices in, demand out; smooth, so that quasi-Newton steps work.

    At prices p the cheapest way to run one unit of request j costs c_j(p), the sum
    of its cheapest slots, and the dual function is

        sum_t C_t p_t + sum_j weight_j max(0, V_j - W_j c_j(p)).

    It has kinks wherever prices tie, and at the solution they all tie. So each
    request is given a small preference for spreading out: with u_t the share of
    slot t it uses, c_j is lowered by width / 2 * sum_t f_t u_t (1 - u_t). Then u_t
    is (level_j - p_t) / width, clipped to 0 ... 1, with the level at which the
    slots needed come together; and the share taken rises from 0 to 1 as the
    surplus rises from 0 to width * `softness` per unit and slot. This is the smoothing
    of Nesterov (Math. Program. 103, 2005) with a quadratic for each request.

    Parameters
    ----------
    windows
        Where the requests can run.
    units, values, weights : FloatArray, shape (k,)
        Per request, in the order of ``windows.requests``.
    capacity : FloatArray, shape (n,)
        Units in each slot; 0 in the closed ones.
    firm : bool array, shape (k,), optional
        Requests that go before all others where load has to give way.
    """

    softness = 0.25

    def __init__(
        self,
        windows: Windows,
        units: FloatArray,
        values: FloatArray,
        weights: FloatArray,
        capacity: FloatArray,
        firm: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.windows = windows
        self.units = units
        self.values = values
        self.weights = weights
        self.capacity = capacity
        self._tiers = (np.ones(len(units), dtype=bool),) if firm is None else (firm, ~firm)
        self._open = capacity > 0
        self._full = self.softness * units * windows.needed
        # What the best request of each row would pay for a unit.
        self._worth = np.zeros(windows.rows)
        for block in windows.blocks:
            per_unit = values[block.requests] / units[block.requests]
            np.maximum.at(self._worth[block.rows], block.row_of, per_unit)
        # Levels of the last call: the next one starts from them.
        self._levels = np.full(windows.rows, np.nan)

    def respond(self, prices: FloatArray, width: float) -> Response:
        """Demand and smoothed dual at `prices`, shape (n,)."""
        total = float(self.capacity @ prices)
        load = np.zeros(len(prices))
        taken = np.empty(len(self.units))
        scaled, top = self._scaled(prices, width)
        for block in self.windows.blocks:
            index = block.index()
            spread = self._spread(block, scaled[index], width, top)
            own = block.requests
            surplus = self.values[own] - self.units[own] * (width * spread.cost)[block.row_of]
            full = self._full[own] * width
            part = np.clip(surplus / full, 0.0, 1.0)
            gain = np.where(part < 1.0, 0.5 * full * part * part, surplus - 0.5 * full)
            total += float(self.weights[own] @ gain)
            taken[own] = part * self.weights[own]
            load += self._load(block, index, spread.share, taken)
        return Response(total, load, taken)

    def bound(self, prices: FloatArray, width: float) -> float:
        """The dual function itself: no solution is worth more than this.

        Any levels give an upper bound; `width` says how close to the best ones.
        """
        total = float(self.capacity @ prices)
        scaled, top = self._scaled(prices, width)
        before = self._levels.copy()
        for block in self.windows.blocks:
            spread = self._spread(block, scaled[block.index()], width, top)
            cost = width * spread.plain_cost(block.shape)
            own = block.requests
            surplus = self.values[own] - self.units[own] * cost[block.row_of]
            total += float(self.weights[own] @ np.maximum(surplus, 0.0))
        self._levels = before
        return total

    def loads(self, prices: FloatArray, width: float, taken: FloatArray) -> FloatArray:
        """Units used in each slot if so much of each request runs, shape (n,)."""
        scaled, top = self._scaled(prices, width)
        return self._loads(scaled, width, top, taken)

    def feasible(
        self, prices: FloatArray, width: float, taken: FloatArray, rounds: int = 2
    ) -> tuple[FloatArray, FloatArray]:
        """Shares that fit the capacity, near `taken`, and the load they make.

        Each request keeps its spread over the slots; how much of it runs is
        multiplied by the least of capacity / load among the slots it uses. That
        brings every load down to capacity, and fills up where there is room.
        """
        scaled, top = self._scaled(prices, width)
        taken = taken.copy()
        load = np.zeros(len(self.capacity))
        for tier in self._tiers:
            left = np.maximum(self.capacity - load, 0.0)
            for _ in range(rounds):
                demand = self._loads(scaled, width, top, np.where(tier, taken, 0.0))
                least = self._least(scaled, width, top, left / np.maximum(demand, 1e-300))
                grown = np.minimum(taken * np.minimum(least, 1e9), self.weights)
                taken = np.where(tier, grown, taken)
            load += self._loads(scaled, width, top, np.where(tier, taken, 0.0))
        return taken, load

    def _least(self, scaled: FloatArray, width: float, top: float, ratio: FloatArray) -> FloatArray:
        """Least of `ratio` among the slots that each request uses."""
        padded = np.append(ratio, np.inf)
        result = np.empty(len(self.units))
        for block in self.windows.blocks:
            index = block.index()
            share = self._spread(block, scaled[index], width, top, EXACT).share
            least = np.where(share > 0.0, padded[index], np.inf).min(axis=0)
            result[block.requests] = least[block.row_of]
        return result

    def _loads(self, scaled: FloatArray, width: float, top: float, taken: FloatArray) -> FloatArray:
        """Units used in each slot."""
        load = np.zeros(len(self.capacity))
        for block in self.windows.blocks:
            index = block.index()
            share = self._spread(block, scaled[index], width, top, EXACT).share
            load += self._load(block, index, share, taken)
        return load

    def _load(
        self, block: Block, index: IntArray, share: FloatArray, taken: FloatArray
    ) -> FloatArray:
        """Units the block uses in each slot."""
        n, own = len(self.capacity), block.requests
        rate = np.bincount(block.row_of, taken[own] * self.units[own], len(block.first))
        load = np.bincount(index.ravel(), (share * rate).ravel(), n + 1)
        return load[:n].astype(np.float64, copy=False)

    def _scaled(self, prices: FloatArray, width: float) -> tuple[FloatArray, float]:
        """Prices by width, closed slots and none out of reach; the level that takes all others."""
        top = float(prices[self._open].max(initial=0.0)) / width + 1.0
        scaled = np.full(len(prices) + 1, top + 2.0)
        np.divide(prices, width, out=scaled[:-1], where=self._open)
        return scaled, top

    def _spread(
        self,
        block: Block,
        prices: FloatArray,
        width: float,
        top: float,
        accuracy: float = ACCURACY,
    ) -> Spread:
        """How the block's rows spread over their windows, starting from where they were."""
        level = np.clip(self._levels[block.rows] / width + 0.5, 0.0, top)
        level[np.isnan(level)] = 0.5 * top
        level[block.tight] = top
        spread = Spread.at(block.shape, prices, level)
        worth = self._worth[block.rows] / width
        spread.improve(block.shape, prices, worth, block.tight, top, accuracy)
        self._levels[block.rows] = (spread.level - 0.5) * width
        return spread
