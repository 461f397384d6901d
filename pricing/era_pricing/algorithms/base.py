"""What a pricing algorithm sees, and what it must answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from era_pricing.arrays import IntArray
from era_pricing.predictors.base import Predictor

NOT_FOR_SALE = -1
"""Rate of a slot that an algorithm does not want to sell."""


@dataclass(frozen=True, eq=False)
class Market:
    """The state of the pool in a row of n adjacent slots.

    Attributes
    ----------
    now : int
        UTC seconds.
    slot : int
        Length of a slot in seconds.
    times : IntArray, shape (n,)
        Beginnings of the slots, UTC seconds.
    capacity, promised : IntArray, shape (n,)
        Units that there are, and units given away already.
    predictor : Predictor
        Forecast of the demand still to come.
    price_floor : int
        Least price of a unit, micro-credits per hour.
    """

    now: int
    slot: int
    times: IntArray
    capacity: IntArray
    promised: IntArray
    predictor: Predictor
    price_floor: int

    @cached_property
    def free(self) -> IntArray:
        """Units not promised yet, shape (n,)."""
        return self.capacity - self.promised


@dataclass(frozen=True)
class Offer:
    """What an algorithm offered: `units` units in [start, end) for `price`."""

    units: int
    start: int
    end: int
    price: int


class Algorithm(ABC):
    """Prices slots and picks a start. It never learns the value of a bid.

    The engine asks for `rates`, adds them up to the price of every start at
    which the units fit, lets `choose` pick one, compares its price to the bid's
    value and reports the outcome to `settle`. Whether units fit is decided by
    the engine alone, so no algorithm can promise more than there is.
    """

    name: ClassVar[str]

    @abstractmethod
    def rates(self, units: int, market: Market) -> IntArray:
        """Price of `units` units together in each slot.

        Parameters
        ----------
        units
            Units asked for, at least 1.
        market
            The n slots that the request could touch.

        Returns
        -------
        IntArray, shape (n,)
            Micro-credits per hour, or `NOT_FOR_SALE`. Not read where the units do
            not fit. The engine raises it to the price floor where it is below.
        """

    def choose(self, starts: IntArray, prices: IntArray, market: Market) -> int | None:
        """Index of the start to offer; by default the cheapest, the earliest of equals.

        Parameters
        ----------
        starts : IntArray, shape (m,)
            UTC seconds, ascending, at least one.
        prices : IntArray, shape (m,)
            Price of the whole request at each start, micro-credits.
        market
            As in `rates`.

        Returns
        -------
        int or None
            None makes no offer at all.
        """
        return int(np.argmin(prices))

    def settle(self, offer: Offer, taken: bool) -> None:  # noqa: B027 - optional to override
        """Hear whether the bid took the offer; does nothing by default."""
