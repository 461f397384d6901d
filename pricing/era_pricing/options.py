"""What a bid could have: the starts of a request with their prices, and the best of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from era_pricing.chunks import Chunks
from era_pricing.placement import Need
from era_pricing.reservations import Menu, Placement
from era_pricing.tariff import Tariff, money


@dataclass(frozen=True, eq=False)
class Pick:
    """A start that was found for a request, and its price in micro-credits."""

    start: int
    end: int
    price: int
    chunks: tuple[int, ...] = ()  # the first slot of each, if it is split


@dataclass(frozen=True, eq=False)
class Priced:
    """A request with the price of every start; what `Menu` tells, and how to get there."""

    menu: Menu
    need: Need
    seconds: int
    tariff: Tariff | None = None
    chunks: Chunks | None = None

    def best(self, deadline: int | None) -> Pick | None:
        """What costs least by the deadline: one start, or chunks if they cost less.

        Parameters
        ----------
        deadline
            UTC seconds; None for the end of the window.
        """
        whole = self._whole(deadline)
        if self.chunks is None or self.tariff is None:
            return whole
        slot = self.tariff.grid.slot
        last = self.chunks.first + len(self.chunks.rates)
        found = self.chunks.cheapest(last if deadline is None else min(deadline // slot, last))
        if found is None:
            return whole
        rate, firsts = found
        price = money(rate * slot)
        if whole is not None and whole.price <= price:
            return whole
        end = (firsts[-1] + self.chunks.length) * slot
        return Pick(firsts[0] * slot, end, price, firsts)

    def _whole(self, deadline: int | None) -> Pick | None:
        """Cheapest start that ends by the deadline, the earliest of equals."""
        starts, prices = self.menu.starts, self.menu.prices
        if deadline is not None:
            prices = prices[: np.searchsorted(starts, deadline - self.seconds, side="right")]
        if not len(prices):
            return None
        at = int(prices.argmin())
        start = int(starts[at])
        return Pick(start, start + self.seconds, int(prices[at]))


@dataclass(frozen=True, eq=False)
class Option:
    """One way to serve an alternative: what it is worth, what it costs, when it ends."""

    alternative: int
    value: int
    price: int
    end: int
    placements: tuple[Placement, ...] = ()
    pick: tuple[Priced, Pick] | None = None  # stands for the only placement

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sorts the options for the bidder, the best first."""
        return self.price - self.value, self.price, self.end
