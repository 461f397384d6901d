"""Demand curves as tables of their integrals, so that a sum over units is two look-ups."""

from __future__ import annotations

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors.level import Level
from era_pricing.predictors.record import LEADS
from era_pricing.predictors.season import Season, Trend

_STEPS = 64
"""Points per curve, the closer the nearer to quantity 0, where prices are steepest."""

_NOTHING = 1e-9
"""Less demand than this, in units, counts as none."""

_TABLES = 4
"""Tables kept, one for each pair of price floor and ceiling that was asked for."""


class Curves:
    """For each slot of the season and each lead time: what the q-th unit is worth.

    Parameters
    ----------
    season
        Expected demand.
    resolution
        Length of a slot of the season, seconds.
    centre
        Seconds after the beginning of a slot at which its lead time is taken.
    level
        What demand and prices are multiplied by; it may change.

    Notes
    -----
    Let D(p) be the demand still to come at price p, and P(q) its inverse. The unit
    that leaves q behind costs the integral of P from q to q + 1, which is that of
    ``min(1, max(0, D(p) - q))`` over all p: where less than a unit is expected, a
    unit costs that share of what it would be sold for. So the cost of several
    units is a difference of two values of one concave function of the quantity,
    and splitting them changes nothing.

    The curve is that of the next longer class of lead time, with all quantities
    scaled to the share of the submissions that is still to come.
    """

    def __init__(self, season: Season, resolution: int, centre: int, level: Level) -> None:
        self._resolution = resolution
        self._centre = centre
        self._level = level
        self._slots = len(season.demand)
        self._trend: Trend = season.trend
        by_lead = season.demand.cumsum(axis=1)  # lead time up to that of the class
        falling = by_lead[:, :, ::-1]  # dearest first
        shape = (self._slots * len(LEADS), falling.shape[2] + 1)
        units = np.zeros(shape)
        np.cumsum(falling.reshape(len(units), -1), axis=1, out=units[:, 1:])
        self._knots: FloatArray = units
        self._prices = season.prices[::-1]
        self._totals: FloatArray = units[:, -1].copy()
        totals = self._totals.reshape(self._slots, -1)
        self._arrived: FloatArray = np.zeros((self._slots, len(LEADS) + 1))
        self._arrived[:, 1:] = totals
        self._edges: FloatArray = np.concatenate(([0.0], LEADS))
        self._tables: dict[tuple[float, float | None], FloatArray] = {}

    def demand(self, t: IntArray, now: int) -> FloatArray:
        """Units still to come at any price above 0, of the shape of `t`."""
        demand: FloatArray = self._rows(t, now)[1]
        return demand

    def share(self, t: IntArray, now: int) -> FloatArray:
        """Of all that is ever wanted in a slot, the share still to come."""
        whole = self._arrived[t // self._resolution % self._slots, -1] * self._level.units
        if not self._trend.flat:
            whole = whole * self._trend.at(t)
        share = np.zeros(np.shape(t))
        np.divide(self.demand(t, now), whole, out=share, where=whole > _NOTHING)
        return share

    def price(
        self,
        t: IntArray,
        now: int,
        quantity: FloatArray | IntArray,
        factor: FloatArray | float = 1.0,
    ) -> FloatArray:
        """See `Predictor.price` and `Predictor.price_if`."""
        row, demand = self._rows(t, now)
        row, demand, quantity = np.broadcast_arrays(row, demand * factor, quantity)
        left = np.maximum(quantity, 0)
        below, above = self._worth(row, demand, np.stack((left, left + 1.0)), 0)
        price = self._level.prices * np.maximum(above - below, 0)
        found: FloatArray = np.where(quantity < 0, np.inf, price)
        return found

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
        row, demand = self._rows(t, now)
        left = np.stack((remaining - units, remaining)).astype(np.float64)
        level = self._level.prices
        below, above = self._worth(
            row, demand, left, floor / level, None if ceiling is None else ceiling / level
        )
        cost: FloatArray = np.clip(
            level * (above - below), units * floor, None if ceiling is None else units * ceiling
        )
        return cost

    def _rows(self, t: IntArray, now: int) -> tuple[IntArray, FloatArray]:
        """Row of the curve and units still to come, for each time."""
        slot = t // self._resolution % self._slots
        lead = np.clip(t + (self._centre - now), 0.0, self._edges[-1])
        longer = np.maximum(np.searchsorted(self._edges, lead), 1)
        edge = self._edges[longer - 1]
        part = (lead - edge) / (self._edges[longer] - edge)
        flat = self._arrived.ravel()
        at = slot * self._arrived.shape[1] + longer
        less = flat[at - 1]
        demand = (less + part * (flat[at] - less)) * self._level.units
        if not self._trend.flat:
            demand = demand * self._trend.at(t)
        return slot * len(LEADS) + (longer - 1), demand

    def _worth(
        self,
        row: IntArray,
        demand: FloatArray,
        quantity: FloatArray,
        floor: float,
        ceiling: float | None = None,
    ) -> FloatArray:
        """Integral of P, within floor and ceiling, up to each quantity; of its shape."""
        table = self._table(floor, ceiling)
        total = self._totals[row]
        some = (demand > _NOTHING) & (total > _NOTHING)
        demand = np.where(some, demand, 1.0)
        scale = np.where(some, demand / np.where(some, total, 1.0), 0.0)
        inside = np.minimum(quantity / demand, 1.0)
        step = np.minimum((_STEPS * np.sqrt(inside)).astype(np.int64), _STEPS - 1)
        part = (inside * (_STEPS * _STEPS) - step * step) / (2 * step + 1)
        at = row * (_STEPS + 1) + step
        low = table[at]
        worth: FloatArray = (low + part * (table[at + 1] - low)) * scale
        if floor:
            worth += floor * np.where(some, np.maximum(quantity - demand, 0.0), quantity)
        return worth

    def _table(self, floor: float, ceiling: float | None) -> FloatArray:
        """Integrals at the points of every row; kept, since the limits hardly change."""
        if (floor, ceiling) not in self._tables:
            while len(self._tables) >= _TABLES:
                del self._tables[next(iter(self._tables))]
            rows = len(self._knots)
            paid = np.zeros(self._knots.shape)
            prices = np.clip(self._prices, floor, ceiling)
            steps = np.diff(self._knots, axis=1) * prices
            np.cumsum(steps, axis=1, out=paid[:, 1:])
            # One interpolation for all rows: row r lies between 2 r and 2 r + 1.
            offset = 2.0 * np.arange(rows)[:, None]
            size = np.where(self._totals > _NOTHING, self._totals, 1.0)[:, None]
            points = offset + (np.arange(_STEPS + 1) / _STEPS) ** 2
            knots = offset + np.minimum(self._knots / size, 1.0)
            table = np.interp(points.ravel(), knots.ravel(), paid.ravel())
            self._tables[floor, ceiling] = table
        return self._tables[floor, ceiling]
