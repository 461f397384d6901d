"""From a request and the plan to a quote."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from era_pricing.algorithms.base import Algorithm, Market
from era_pricing.arrays import IntArray
from era_pricing.bids import BidError, ResourceRequest
from era_pricing.configurations import Configuration
from era_pricing.inventory import Inventory
from era_pricing.plan import Plan
from era_pricing.predictors.base import Predictor
from era_pricing.reservations import Quote
from era_pricing.tariff import Tariff, candidate_starts
from era_pricing.timegrid import TimeGrid


class Quoter:
    """Checks requests and prices them against a plan. Parameters as in `Era`."""

    def __init__(
        self,
        grid: TimeGrid,
        inventory: Inventory,
        configurations: Iterable[Configuration],
        algorithm: Algorithm,
        predictor: Predictor,
        price_floor: int,
        resource: str,
    ) -> None:
        if isinstance(price_floor, bool) or not isinstance(price_floor, int) or price_floor <= 0:
            raise ValueError(
                "price_floor must be a whole number of micro-credits per hour above 0, "
                f"got {price_floor!r}"
            )
        self._grid = grid
        self._inventory = inventory
        self._algorithm = algorithm
        self._predictor = predictor
        self._price_floor = price_floor
        self._resource = resource
        self._units: dict[str, int] = {}
        for configuration in configurations:
            if configuration.name in self._units:
                raise ValueError(f"two configurations are named {configuration.name!r}")
            self._units[configuration.name] = configuration.units(resource)

    def quote(self, request: ResourceRequest, plan: Plan, now: int) -> Quote:
        """See `Era.quote`."""
        grid = self._grid
        units = self._check(request, now)
        slots = grid.slots_for(request.duration)
        earliest = max(request.arrival, now)
        deadline = min(request.deadline, grid.horizon_end(now))
        candidates = candidate_starts(grid, earliest, deadline, slots)
        if not len(candidates):
            return _no_offer(request, units, self._too_short(request, earliest, deadline, slots))
        first = grid.index(earliest)
        market = self._market(first, grid.index_up(deadline) - first, plan, now)
        tariff = self._tariff(units, first, market)
        starts, prices = tariff.totals(candidates, slots)
        starts.flags.writeable = prices.flags.writeable = False
        if not len(starts):
            wanted = f"{self._amount(units)} for {slots * grid.slot} seconds"
            return _no_offer(request, units, f"the window has no room for {wanted}")
        chosen = self._algorithm.choose(starts, prices, market)
        if chosen is None:
            reason = f"{self._algorithm.name} offers no start in the window"
            return _no_offer(request, units, reason, starts, prices)
        start = int(starts[chosen])
        end = start + slots * grid.slot
        return Quote(
            request.configuration,
            request.count,
            units,
            starts,
            prices,
            start,
            end,
            int(prices[chosen]),
            tariff.parts(start, end),
        )

    def slot_prices(
        self, configuration: str, first: int, count: int, plan: Plan, now: int
    ) -> IntArray:
        """See `Era.prices`."""
        units = self._units_of(configuration)
        market = self._market(first, count, plan, now)
        prices = self._tariff(units, first, market).slot_prices
        past = market.times + self._grid.slot <= now
        return np.where(past | (market.times >= self._grid.horizon_end(now)), -1, prices)

    def hourly_price(self, configuration: str, plan: Plan, now: int) -> int | None:
        """See `Era.hourly_price`."""
        slot = self._grid.index(now)
        tariff = self._tariff(self._units_of(configuration), slot, self._market(slot, 1, plan, now))
        rate = int(tariff.hourly[0])
        return None if rate < 0 else rate

    def _units_of(self, configuration: str) -> int:
        if configuration not in self._units:
            known = ", ".join(sorted(self._units))
            raise BidError(f"configuration must be one of {known}; got {configuration!r}")
        return self._units[configuration]

    def _check(self, request: ResourceRequest, now: int) -> int:
        """Units the request takes, or a BidError."""
        each = self._units_of(request.configuration)
        units = each * request.count
        if request.deadline <= now:
            raise BidError(
                f"deadline must be after now ({now} UTC seconds), got {request.deadline}"
            )
        if request.duration > self._grid.horizon:
            raise BidError(
                f"duration must be at most {self._grid.horizon} seconds, as far as the pool "
                f"sells ahead; got {request.duration}"
            )
        times = self._grid.times(self._grid.index(now), self._grid.slots)
        most = int(self._inventory.capacity(times, self._grid.slot).max())
        if units > most:
            works = f"count must be at most {most // each}"
            if each > most:
                works = "configuration must be a smaller one"
            raise BidError(f"{works}: {self._amount(units)} asked, the pool has {most}")
        return units

    def _amount(self, units: int) -> str:
        if not self._resource.endswith("gpu"):
            return f"{units} units of {self._resource}"
        return "1 GPU" if units == 1 else f"{units} GPUs"

    def _market(self, first: int, count: int, plan: Plan, now: int) -> Market:
        times = self._grid.times(first, count)
        return Market(
            now,
            self._grid.slot,
            times,
            self._inventory.capacity(times, self._grid.slot),
            plan.promised(first, count),
            self._predictor,
            self._price_floor,
        )

    def _tariff(self, units: int, first: int, market: Market) -> Tariff:
        """Rates by the algorithm, feasibility by the plan, and never below the floor."""
        n = len(market.times)
        if units == 0:
            return Tariff(self._grid, first, np.zeros(n, np.int64), np.ones(n, np.bool_))
        rates = np.asarray(self._algorithm.rates(units, market))
        if rates.shape != (n,) or rates.dtype != np.int64:
            raise TypeError(f"rates of {self._algorithm.name} must be {n} 64-bit integers")
        for_sale = (market.free >= units) & (rates >= 0)
        return Tariff(self._grid, first, np.maximum(rates, units * self._price_floor), for_sale)

    def _too_short(self, request: ResourceRequest, earliest: int, deadline: int, slots: int) -> str:
        needed = slots * self._grid.slot
        if deadline < request.deadline:
            return (
                f"the pool sells until {deadline} UTC seconds, "
                f"and {needed} seconds from {earliest} on end after that"
            )
        return (
            f"{request.duration} seconds take {needed} in whole slots of {self._grid.slot}, "
            f"and the window has {deadline - earliest} left"
        )


def _no_offer(
    request: ResourceRequest,
    units: int,
    reason: str,
    starts: IntArray | None = None,
    prices: IntArray | None = None,
) -> Quote:
    none = np.empty(0, dtype=np.int64)
    return Quote(
        request.configuration,
        request.count,
        units,
        none if starts is None else starts,
        none if prices is None else prices,
        reason=reason,
    )
