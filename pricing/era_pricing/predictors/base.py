"""What a predictor must be able to answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.workload import Workload


@dataclass(frozen=True)
class SeenRequest:
    """A request for one resource that has been decided.

    Attributes
    ----------
    submitted, arrival, deadline : int
        UTC seconds.
    units : int
        Units asked for, all at the same time.
    duration : int
        Seconds.
    value : int
        The most the bidder would have paid for this resource, micro-credits.
    accepted : bool
        Whether it got a reservation.
    price : int or None
        What the offer cost, micro-credits; None if there was none or it is not known.
    """

    submitted: int
    arrival: int
    deadline: int
    units: int
    duration: int
    value: int
    accepted: bool
    price: int | None = None


@dataclass(frozen=True, eq=False)
class Forecast:
    """Prices of a unit, micro-credits per hour: ``low <= expected <= high`` everywhere."""

    expected: FloatArray
    low: FloatArray
    high: FloatArray


class Predictor(ABC):
    """A forecast of demand as a function of time and price.

    Prices are micro-credits per unit per hour, times UTC seconds, so that a
    predictor need not know the time grid.
    """

    name: ClassVar[str]

    @abstractmethod
    def price(self, t: IntArray, now: int, quantity: FloatArray | IntArray) -> FloatArray:
        """Highest price at which the demand still to come equals `quantity`.

        Parameters
        ----------
        t : IntArray
            Beginnings of slots, UTC seconds.
        now
            The demand counted is what arrives from now until `t`.
        quantity : array
            Units; broadcast against `t`. Infinite prices answer negative ones.

        Returns
        -------
        FloatArray
            Of the broadcast shape; must not rise with `quantity`. Values below
            the price floor, also negative ones, stand for the floor.
        """

    def cost(
        self,
        t: IntArray,
        now: int,
        remaining: IntArray,
        units: int,
        floor: int,
        ceiling: int | None = None,
    ) -> FloatArray:
        """Sum of the prices of `units` units, each at the price it leaves behind.

        The i-th unit costs ``price(t, now, remaining - i)``, but at least `floor` and
        at most `ceiling`. Override this if the sum has a closed form.

        Parameters
        ----------
        t : IntArray, shape (n,)
            Beginnings of slots, UTC seconds.
        now
            UTC seconds.
        remaining : IntArray, shape (n,)
            Units not promised yet, at least `units`.
        units
            Units asked for.
        floor, ceiling
            Least and greatest price of a unit, micro-credits per hour; `ceiling` is
            only passed where there is one.

        Returns
        -------
        FloatArray, shape (n,)
            Micro-credits per hour for all the units together.
        """
        left = remaining[:, None] - np.arange(1, units + 1, dtype=np.int64)
        total: FloatArray = np.clip(self.price(t[:, None], now, left), floor, ceiling).sum(axis=1)
        return total

    def price_if(
        self, t: IntArray, now: int, quantity: FloatArray | IntArray, factor: FloatArray | float
    ) -> FloatArray:
        """`price`, if the demand were `factor` times what is expected.

        Parameters
        ----------
        t, now, quantity
            As in `price`.
        factor : array or float
            Above 0; broadcast against `t`.
        """
        return self.price(t, now, np.asarray(quantity, dtype=np.float64) / factor)

    def uncertainty(self, t: IntArray, now: int, quantity: FloatArray | IntArray) -> FloatArray:
        """Standard deviation of the demand still to come, as a share of what is expected.

        Of the demand at that price at which `quantity` is expected. Zero unless
        overridden: a predictor that claims to be certain.

        Parameters
        ----------
        t, now, quantity
            As in `price`.
        """
        return np.zeros(np.broadcast_shapes(np.shape(t), np.shape(quantity)))

    def forecast(
        self,
        t: IntArray,
        now: int,
        quantity: FloatArray | IntArray,
        floor: int = 0,
        ceiling: int | None = None,
        low: float = 0.1,
        high: float = 0.9,
    ) -> Forecast:
        """Price of a unit per slot, with a band in which it lies most of the time.

        The logarithm of the demand is taken to be normal with the standard
        deviation that `uncertainty` tells; the band is what `price_if` answers at
        its quantiles.

        Parameters
        ----------
        t, now, quantity
            As in `price`. For what the next unit will cost, `quantity` is the
            units not promised yet, less one.
        floor, ceiling
            Least and greatest price, micro-credits per unit per hour.
        low, high
            Ends of the band as shares of probability: 0 < low <= 0.5 <= high < 1.

        Returns
        -------
        Forecast
            Arrays of the shape to which `t` and `quantity` broadcast.

        Raises
        ------
        ValueError
            If `low` or `high` is out of range.
        """
        if not (0 < low <= 0.5 <= high < 1):
            raise ValueError(
                "low and high must be shares with 0 < low <= 0.5 <= high < 1, "
                f"got {low!r} and {high!r}"
            )
        deviation = self.uncertainty(t, now, quantity)
        normal = NormalDist()
        ends = [
            self.price_if(t, now, quantity, np.exp(normal.inv_cdf(share) * deviation))
            for share in (low, high)
        ]
        prices = (self.price(t, now, quantity), *ends)
        expected, least, most = (np.clip(each, floor, ceiling) for each in prices)
        # Rounding could put an end on the wrong side by a hair.
        return Forecast(expected, np.minimum(least, expected), np.maximum(most, expected))

    def begin(self, now: int) -> None:  # noqa: B027 - optional to override
        """A slot begins: what was observed may change prices now; does nothing by default.

        Whoever learns should do so here, not in `observe`: otherwise a purchase could
        lower the price of the next one in the same slot, and splitting a request pay.

        Parameters
        ----------
        now
            UTC seconds; not before that of any earlier call.
        """

    def observe(self, seen: SeenRequest) -> None:  # noqa: B027 - optional to override
        """Hear of a request that was decided; does nothing by default.

        Calls come in order of submission. What is learned from a request may only
        change the prices of later ones.
        """

    def expected(self, now: int, until: int) -> tuple[Workload, FloatArray]:
        """Requests that are still to come.

        Parameters
        ----------
        now, until
            UTC seconds; those submitted in [now, until) are asked for.

        Returns
        -------
        requests : Workload
            Kinds of request, m of them; none by default.
        weights : FloatArray, shape (m,)
            How many of each kind to expect; above 0, not necessarily whole.
        """
        return Workload.empty(), np.zeros(0)
