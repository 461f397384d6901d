"""What a predictor must be able to answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from era_pricing.arrays import FloatArray, IntArray


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
        self, t: IntArray, now: int, remaining: IntArray, units: int, floor: int
    ) -> FloatArray:
        """Sum of the prices of `units` units, each at the price it leaves behind.

        The i-th unit costs ``max(floor, price(t, now, remaining - i))``. Override
        this if the sum has a closed form.

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
        floor
            Least price of a unit, micro-credits per hour.

        Returns
        -------
        FloatArray, shape (n,)
            Micro-credits per hour for all the units together.
        """
        left = remaining[:, None] - np.arange(1, units + 1, dtype=np.int64)
        total: FloatArray = np.maximum(self.price(t[:, None], now, left), floor).sum(axis=1)
        return total
