"""From a bid and the plan to a quote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from era_pricing.algorithms.base import Algorithm, Market
from era_pricing.arrays import FloatArray, IntArray
from era_pricing.bids import Alternative, Bid, BidError, Commitment, Counts, ResourceRequest
from era_pricing.books import Books
from era_pricing.chunks import Chunks
from era_pricing.configurations import Configuration
from era_pricing.moving import need_of
from era_pricing.needs import Needs
from era_pricing.options import Option, Pick, Priced
from era_pricing.placement import (
    Assignment,
    BoolArray,
    Need,
    assign,
    open_slots,
    open_starts,
    sliding_minimum,
)
from era_pricing.plan import Plan
from era_pricing.predictors.base import Forecast
from era_pricing.reservations import EMPTY, Menu, Placement, Quote, last_of
from era_pricing.tariff import PricedResource, Tariff, candidate_starts, dearest
from era_pricing.timegrid import HOUR, TimeGrid

_FEW = 512
"""Starts that are looked at before all others where only the earliest is on the menu."""

_PRICED = 64
"""Most units of a bundle that are forecast one by one."""


class Quoter:
    """Prices bids against the books. Parameters as in `Era`."""

    def __init__(
        self,
        books: Books,
        configurations: Iterable[Configuration],
        algorithm: Algorithm,
        priced: Sequence[PricedResource],
        late_penalty: float,
        chunk: int,
    ) -> None:
        self._books = books
        self._grid: TimeGrid = books.grid
        self._algorithm = algorithm
        self._priced = {each.name: each for each in priced}
        self._late_penalty = late_penalty
        self._chunk = chunk
        self._dearest = dearest(books.grid)
        # An algorithm that keeps a menu of its own sells no chunks, which are not on it.
        self._splits = type(algorithm).offers is Algorithm.offers
        self.needs = Needs(books, configurations, tuple(self._priced))
        self._axis = {name: books.inventory.resources.index(name) for name in self._priced}

    def quote(self, bid: Bid, now: int) -> Quote:
        """See `Era.quote`."""
        menus: list[tuple[Menu, ...]] = []
        best: Option | None = None
        alone = len(bid.alternatives) == 1
        for number, alternative in enumerate(bid.alternatives):
            try:
                listed, options = self._options(number, alternative, bid.commitment, now)
            except BidError as error:
                raise (error if alone else error.within(f"alternatives[{number}]")) from None
            menus.append(listed)
            for option in options:
                if best is None or option.rank < best.rank:
                    best = option
        if best is None:
            reasons = [menu.reason for listed in menus for menu in listed if menu.reason]
            return Quote(tuple(menus), reason=(*reasons, "no value step can be met")[0])
        placements = best.placements
        if best.pick is not None:
            placements = self._place(*best.pick, 0)
        overrun = self.overrun_price(placements, bid.overrun) if bid.overrun else 0
        return Quote(tuple(menus), best.alternative, placements, overrun)

    def price_limits(self, name: str) -> tuple[int, int | None]:
        """See `Era.price_limits`."""
        return self._priced[name].price_floor, self._priced[name].price_ceiling

    def limit_prices(self, name: str, floor: int, ceiling: int | None) -> PricedResource:
        """See `Era.limit_prices`."""
        new = replace(self._priced[name], price_floor=floor, price_ceiling=ceiling)
        self._priced[name] = new
        return new

    def overrun_price(self, placements: Sequence[Placement], seconds: int) -> int:
        """Price of going on for so long with what ends last, at the price floor."""
        last = last_of(placements)
        rate = sum(
            units * self._priced[name].price_floor
            for name, units in last.units.items()
            if name in self._priced
        )
        return -(-rate * seconds // HOUR)

    def slot_prices(self, configuration: str, first: int, count: int, now: int) -> IntArray:
        """See `Era.prices`."""
        need = self.needs.of(Counts({configuration: 1}))
        out = np.full(count, -1, dtype=np.int64)
        low, high = self._sold(first, count, now)
        if low < high:
            tariff = self._slots(need, low, high - low, now)
            out[low - first : high - first] = tariff.slot_prices
        return out

    def forecast(self, configuration: str, first: int, count: int, now: int) -> Forecast:
        """See `Era.forecast`."""
        need = self.needs.of(Counts({configuration: 1}))
        found = np.full((3, count), np.nan)
        low, high = self._sold(first, count, now)
        if low < high:
            found[:, low - first : high - first] = 0
        for name, units in need.priced.items() if low < high else ():
            market = self.market(name, low, high - low, now)
            # As in `Predictor.cost`: each unit at the price it leaves behind; of very many
            # units, such as bytes, only some stand for all.
            parts = min(units, _PRICED)
            gone = (np.arange(parts) + 0.5) * units / parts + 0.5
            left = np.maximum(market.free[:, None] - gone, 0)
            limits = (market.price_floor, market.price_ceiling)
            each = market.predictor.forecast(market.times[:, None], now, left, *limits)
            band = np.stack((each.expected, each.low, each.high)).mean(axis=2)
            found[:, low - first : high - first] += units * band
        return Forecast(*found)

    def _sold(self, first: int, count: int, now: int) -> tuple[int, int]:
        """Which of `count` slots are for sale at all: from the one to before the other."""
        low = max(first, self._grid.index(now), self._books.plan.base)
        return low, min(first + count, self._grid.index(self._grid.horizon_end(now)))

    def hourly_price(self, configuration: str, now: int) -> int | None:
        """See `Era.hourly_price`."""
        need = self.needs.of(Counts({configuration: 1}))
        rate = int(self._slots(need, self._grid.index(now), 1, now).hourly[0])
        return None if rate < 0 else rate

    def price(
        self,
        request: ResourceRequest,
        commitment: Commitment,
        now: int,
        deadline: int | None = None,
        alone: bool = True,
    ) -> Priced:
        """Price every start of a request.

        Parameters
        ----------
        deadline
            By when to have ended, if that is before the request's own deadline.
        alone
            Whether others may be moved for it, which is not done for one of several
            requests.

        Raises
        ------
        BidError
            If the pool can never serve the request.
        """
        grid, need = self._grid, self.needs.check(request, now)
        slots = grid.slots_for(request.duration)
        earliest = max(request.arrival, now)
        latest = min(request.deadline, grid.horizon_end(now))
        if deadline is not None:
            latest = min(latest, deadline)
        if earliest + slots * grid.slot > latest:
            return self._none(request, need, self._too_short(request, earliest, latest, slots))
        for starts, fits, first, end in self._looks(need, earliest, latest, slots, alone):
            rates, sold = self._rates(need, first, end - first, now)
            tariff = Tariff(grid, first, rates, sold, commitment is not Commitment.FIXED)
            for_sale, prices = tariff.totals(starts, slots)
            fits &= for_sale
            if fits.any():
                break
        if not fits.all():
            starts, prices = starts[fits], prices[fits]
        chunks = None
        if commitment is Commitment.PREEMPTIBLE and self._splits:
            chunks = self._chunks(need, slots, rates, sold, grid.index_up(earliest), latest)
        reason = None
        if not len(starts):
            wanted = f"{self.needs.words(need)} for {slots * grid.slot} seconds"
            reason = f"the window has no room for {wanted}"
        else:
            kept = self._algorithm.offers(starts, prices, earliest)
            starts, prices = starts[kept], prices[kept]
            if not len(starts):
                reason = f"{self._algorithm.name} offers no start in the window"
        starts.flags.writeable = prices.flags.writeable = False
        menu = Menu(request, need.priced, starts, prices, reason)
        return Priced(menu, need, slots * grid.slot, tariff, chunks)

    def _looks(
        self, need: Need, earliest: int, latest: int, slots: int, alone: bool
    ) -> Iterator[tuple[IntArray, BoolArray, int, int]]:
        """Starts to price, where there is room, and the slots [first, end) to look at for them.

        If only the earliest will be on the menu, that one and the next before all of them.
        """
        grid = self._grid
        if self._algorithm.takes_earliest:
            near = min((grid.index(earliest) + _FEW + slots) * grid.slot, latest)
            starts = candidate_starts(grid, earliest, near, slots)
            fits = self._room(need, starts, slots, alone)
            at = int(fits.argmax())
            if near < latest and not fits[at]:
                starts = candidate_starts(grid, earliest, latest, slots)
                fits = self._room(need, starts, slots, alone)
                at = int(fits.argmax())
            # The one after it too: to begin inside a slot costs what may be moved a slot more.
            looked = slice(at, at + 2)
            end = grid.index_up(int(starts[looked][-1])) + slots
            yield starts[looked], fits[looked], grid.index(int(starts[at])), end
        starts = candidate_starts(grid, earliest, latest, slots)
        fits = self._room(need, starts, slots, alone)
        yield starts, fits, grid.index(earliest), grid.index_up(latest)

    def _chunks(
        self,
        need: Need,
        slots: int,
        rates: IntArray,
        sold: BoolArray,
        first: int,
        latest: int,
    ) -> Chunks | None:
        """Where chunks may lie: in the whole slots of the window."""
        end, length = self._grid.index(latest), self._chunk
        if end - first < slots:
            return None
        free = self._books.plan.free(first, end - first)
        # The rates begin with the slot in which the window does.
        skip = len(rates) - (self._grid.index_up(latest) - first)
        rates, sold = rates[skip:][: end - first], sold[skip:][: end - first]
        number = -(-slots // length)
        if length > end - first:
            return None
        fits = open_starts(free, need, length)
        if not sold.all():
            fits &= sliding_minimum(sold.astype(np.int64), length) > 0
        return Chunks(first, rates, fits, length, number)

    # One alternative.

    def _options(
        self, number: int, alternative: Alternative, commitment: Commitment, now: int
    ) -> tuple[tuple[Menu, ...], list[Option]]:
        """The menus of an alternative, and the best option for each step of its value."""
        if len(alternative.requests) == 1:
            priced = self.price(alternative.requests[0], commitment, now)
            return (priced.menu,), self._single(number, alternative, priced)
        menus: tuple[Menu, ...] = ()
        options = []
        for step in reversed(alternative.values):
            found, placements = self._together(alternative, commitment, step.deadline, now)
            menus = menus or found
            if placements:
                end = max(placement.end for placement in placements)
                price = sum(placement.price for placement in placements)
                value = alternative.value_at(end)
                options.append(Option(number, value, price, end, placements))
        return menus, options[::-1]

    def _single(self, number: int, alternative: Alternative, priced: Priced) -> list[Option]:
        options = []
        for step in alternative.values:
            pick = priced.best(step.deadline)
            if pick is not None:
                value = alternative.value_at(pick.end)
                options.append(Option(number, value, pick.price, pick.end, pick=(priced, pick)))
        return options

    def _together(
        self,
        alternative: Alternative,
        commitment: Commitment,
        deadline: int | None,
        now: int,
    ) -> tuple[tuple[Menu, ...], tuple[Placement, ...]]:
        """Place requests one after the other, each where it is cheapest; all or none."""
        menus: list[Menu] = []
        placements: list[Placement] = []
        with self._books.plan.trial() as trial:
            for at, request in enumerate(alternative.requests):
                try:
                    priced = self.price(request, commitment, now, deadline, False)
                except BidError as error:
                    raise error.within(f"requests[{at}]") from None
                menus.append(priced.menu)
                pick = priced.best(None)
                if pick is None:
                    return tuple(menus), ()
                found = self._place(priced, pick, at)
                placements.extend(found)
                trial.add(self._books.spans(found))
        return tuple(menus), tuple(placements)

    def _place(self, priced: Priced, pick: Pick, request: int) -> tuple[Placement, ...]:
        """Reserve what was found: nodes, and the price cut at the slot boundaries."""
        assert priced.tariff is not None
        if pick.chunks:
            assert priced.chunks is not None
            return self._place_chunks(priced, pick.chunks, priced.chunks.length, request)
        grid, latest = self._grid, self._books.latest
        first, end = grid.index(pick.start), grid.index_up(pick.end)
        assignment = assign(self._books.plan.free(first, end - first), priced.need)
        if assignment is None and latest is not None and latest.plan is not None:
            assignment = assign(latest.plan.free(first, end - first), priced.need)
        assert assignment is not None
        parts = priced.tariff.parts(pick.start, pick.end)
        shares = self._books.shares(assignment)
        return (Placement(pick.start, pick.end, parts, shares, request),)

    def _place_chunks(
        self, priced: Priced, firsts: tuple[int, ...], length: int, request: int
    ) -> tuple[Placement, ...]:
        """Reserve chunks; neighbours that the same nodes have room for become one."""
        assert priced.tariff is not None
        plan, slot = self._books.plan, self._grid.slot
        runs: list[tuple[int, int, Assignment]] = []
        for first in firsts:
            if runs and runs[-1][1] == first:
                begin = runs[-1][0]
                longer = assign(plan.free(begin, first + length - begin), priced.need)
                if longer is not None:
                    runs[-1] = (begin, first + length, longer)
                    continue
            alone = assign(plan.free(first, length), priced.need)
            assert alone is not None
            runs.append((first, first + length, alone))
        slots = np.concatenate([np.arange(first, end) for first, end, _ in runs])
        prices = iter(priced.tariff.whole_slots(slots))
        return tuple(
            Placement(
                first * slot,
                end * slot,
                tuple(islice(prices, end - first)),
                self._books.shares(assignment),
                request,
            )
            for first, end, assignment in runs
        )

    # Slots.

    def _rates(self, need: Need, first: int, count: int, now: int) -> tuple[IntArray, BoolArray]:
        """What all units cost in each slot, per hour, and whether they are for sale."""
        total: IntArray | None = None
        sold: BoolArray | None = None
        for name, units in need.priced.items():
            priced, market = self._priced[name], self.market(name, first, count, now)
            rates = np.asarray(self._algorithm.rates(units, market))
            if rates.shape != (count,) or rates.dtype != np.int64:
                raise TypeError(f"rates of {self._algorithm.name} must be {count} 64-bit integers")
            here = rates >= 0
            sold = here if sold is None else sold & here
            rates = np.minimum(priced.limited(rates, units, self._late(market)), self._dearest)
            total = rates if total is None else np.minimum(total + rates, self._dearest)
        if total is None or sold is None:
            return np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.bool_)
        return total, sold

    def _late(self, market: Market) -> FloatArray | None:
        """By what factor each slot is dearer for its lateness; None without a penalty."""
        if not self._late_penalty:
            return None
        hours = np.maximum(market.times - market.now, 0) / HOUR
        late: FloatArray = np.exp(np.minimum(self._late_penalty * hours, 40.0))
        return late

    def _slots(self, need: Need, first: int, count: int, now: int) -> Tariff:
        """The tariff of slots that are each looked at by itself."""
        rates, sold = self._rates(need, first, count, now)
        fits = open_slots(self._books.plan.free(first, count), need)
        return Tariff(self._grid, first, rates, sold & fits)

    def _room(self, need: Need, starts: IntArray, slots: int, alone: bool) -> BoolArray:
        """Starts at which there is room, in the plan or once others have been moved."""
        fits = self._fits(self._books.plan, need, starts, slots)
        latest = self._books.latest
        if alone and latest is not None and latest.plan is not None and not fits.all():
            fits |= self._fits(latest.plan, need, starts, slots)
        return fits

    def _fits(self, plan: Plan, need: Need, starts: IntArray, slots: int) -> BoolArray:
        """Starts at which there is room for all slots that are touched."""
        slot, count = self._grid.slot, len(starts)
        first = int(starts[0]) // slot
        free = plan.free(first, -(-int(starts[-1]) // slot) + slots - first)
        # Only the first and the last may lie inside a slot.
        head = int(int(starts[0]) % slot > 0)
        tail = int(count > 1 and int(starts[-1]) % slot > 0)
        middle = count - head - tail
        fits = np.empty(count, dtype=np.bool_)
        if middle:
            part = free[:, :, head : head + middle + slots - 1]
            fits[head : head + middle] = open_starts(part, need, slots)
        for at in (0,) * head + (count - 1,) * tail:
            begin = int(starts[at]) // slot - first
            part = free[:, :, begin : begin + slots + 1]
            fits[at] = open_starts(part, need, slots + 1)[0]
        return fits

    def market(self, name: str, first: int, count: int, now: int) -> Market:
        """What the algorithm sees of a priced resource."""
        priced, axis, plan = self._priced[name], self._axis[name], self._books.plan
        return Market(
            now,
            self._grid.slot,
            self._grid.times(first, count),
            plan.capacity(axis, first, count),
            plan.promised(axis, first, count),
            priced.predictor,
            priced.price_floor,
            name,
            priced.price_ceiling,
        )

    # Extensions.

    def priced_units(self, placement: Placement) -> dict[str, int]:
        """Units of each priced resource that a placement takes."""
        return {name: n for name, n in placement.units.items() if n and name in self._priced}

    def parts(
        self, placement: Placement, start: int, end: int, now: int, whole_slots: bool
    ) -> tuple[int, ...] | None:
        """Price of the units of a placement in [start, end), cut at the slot boundaries.

        With `whole_slots`, a slot that `start` lies in has been paid for already. None if some
        of the time is not for sale.
        """
        grid = self._grid
        first, last = grid.index(start), grid.index_up(end)
        need = need_of(self._books, placement)._replace(priced=self.priced_units(placement))
        rates, sold = self._rates(need, first, last - first, now)
        if not sold.all():
            return None
        tariff = Tariff(grid, first, rates, sold)
        if not whole_slots:
            return tariff.parts(start, end)
        parts = tariff.whole_slots(np.arange(grid.index_up(start), last))
        return (0, *parts) if start % grid.slot else parts

    def cost(self, placement: Placement, now: int) -> int | None:
        """What the units of a placement would cost at `now`; None if they are not for sale."""
        parts = self.parts(placement, placement.start, placement.end, now, False)
        return None if parts is None else sum(parts)

    # Words.

    def _none(self, request: ResourceRequest, need: Need, reason: str) -> Priced:
        return Priced(Menu(request, need.priced, EMPTY, EMPTY, reason), need, 0)

    def _too_short(self, request: ResourceRequest, earliest: int, latest: int, slots: int) -> str:
        needed = slots * self._grid.slot
        if latest < request.deadline and latest % self._grid.slot == 0:
            return (
                f"the pool sells until {latest} UTC seconds, "
                f"and {needed} seconds from {earliest} on end after that"
            )
        return (
            f"{request.duration} seconds take {needed} in whole slots of {self._grid.slot}, "
            f"and the window has {latest - earliest} left"
        )
