"""What algorithms and predictors are told: new slots, offers, decided requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from era_pricing.algorithms.base import Algorithm, Offer, Outlook, Piece
from era_pricing.bids import Bid
from era_pricing.books import Books
from era_pricing.predictors.base import Predictor, SeenRequest
from era_pricing.reservations import Quote
from era_pricing.tariff import PricedResource
from era_pricing.workload import Workload


class News:
    """Tells the algorithm and the predictors what has happened.

    Parameters
    ----------
    books, algorithm, priced
        As in `Era`.
    """

    def __init__(
        self, books: Books, algorithm: Algorithm, priced: Sequence[PricedResource]
    ) -> None:
        self._books = books
        self._algorithm = algorithm
        self._priced = tuple(priced)
        self._prepares = type(algorithm).prepare is not Algorithm.prepare
        self._prepared = False
        self._settles = type(algorithm).settle is not Algorithm.settle
        self._observers = [
            each for each in priced if type(each.predictor).observe is not Predictor.observe
        ]

    def limit_prices(self, new: PricedResource) -> None:
        """A priced resource has another floor or ceiling."""
        self._priced = tuple(new if each.name == new.name else each for each in self._priced)
        self._observers = [new if each.name == new.name else each for each in self._observers]

    def slot_begins(self, now: int) -> None:
        """Let predictors and algorithm prepare for the slot that has begun."""
        for priced in self._observers:
            priced.predictor.begin(now)
        if self._prepares:
            for priced in self._priced:
                if not self._algorithm.due(priced.name, now):
                    continue
                self._algorithm.prepare(self._outlook(priced, now))
                self._prepared = True

    def take_state(self) -> bytes | None:
        """See `Era.take_state`."""
        prepared, self._prepared = self._prepared, False
        return self._algorithm.state() if prepared else None

    def resume(self, state: bytes | None) -> None:
        """Let the algorithm go on from a state, or begin anew."""
        self._prepared = False
        self._algorithm.resume(state)

    def decided(self, bid: Bid, quote: Quote, taken: bool, now: int) -> None:
        """Report an offer to the algorithm, and the request to the predictors."""
        if self._settles and quote.feasible:
            self._algorithm.settle(self._offer(quote), taken)
        if self._observers:
            self._observe(bid, quote, taken, now)

    def learn(self, resource: str, seen: SeenRequest) -> None:
        """Tell the predictor of a resource of a request that was decided elsewhere."""
        for priced in self._observers:
            if priced.name == resource:
                priced.predictor.observe(seen)

    def _outlook(self, priced: PricedResource, now: int) -> Outlook:
        books, name = self._books, priced.name
        plan, grid, slots = books.plan, books.grid, books.grid.slots
        axis = books.inventory.resources.index(name)
        promised = plan.promised(axis, plan.base, slots)
        firm = promised.copy()
        rows = []
        for reservation in books.to_begin(now):
            for placement, window in reservation.movable(now):
                units = placement.units.get(name, 0)
                if units:
                    first, end = grid.index(placement.start), grid.index_up(placement.end)
                    firm[first - plan.base : end - plan.base] -= units
                    arrival = max(window.arrival, now)
                    length = placement.end - placement.start
                    rows.append((arrival, window.deadline, units, length, placement.price))
        columns = np.array(rows, dtype=np.int64).reshape(-1, 5).T
        flexible = Workload(np.full(len(rows), now, dtype=np.int64), *columns)
        return Outlook(
            now,
            grid,
            name,
            plan.base,
            plan.capacity(axis, plan.base, slots),
            promised,
            firm,
            flexible,
            priced.predictor,
            priced.price_floor,
            priced.price_ceiling,
        )

    def _offer(self, quote: Quote) -> Offer:
        names = [priced.name for priced in self._priced]
        total = dict.fromkeys(names, 0)
        for menu in quote.menus[quote.alternative or 0]:
            for name, amount in menu.units.items():
                total[name] += amount
        pieces = []
        for placement in quote.placements:
            units = placement.units
            sold = {name: units[name] for name in names if units.get(name)}
            pieces.append(Piece(placement.start, placement.end, sold))
        start, end, price = quote.start, quote.end, quote.price
        assert start is not None and end is not None and price is not None
        return Offer(
            {name: units for name, units in total.items() if units},
            start,
            end,
            price,
            tuple(pieces),
        )

    def _observe(self, bid: Bid, quote: Quote, taken: bool, now: int) -> None:
        """Value and price are divided among requests and resources by their price at the floor."""
        chosen = quote.alternative or 0
        alternative, menus = bid.alternatives[chosen], quote.menus[chosen]
        end = quote.end
        value = alternative.values[0].value if end is None else alternative.value_at(end)
        floors = {priced.name: priced.price_floor for priced in self._priced}
        weights = [
            sum(units * floors[name] for name, units in menu.units.items()) * menu.request.duration
            for menu in menus
        ]
        whole = sum(weights)
        for menu in menus:
            request = menu.request
            for priced in self._observers:
                units = menu.units.get(priced.name, 0)
                if not units:
                    continue
                weight = units * priced.price_floor * request.duration
                priced.predictor.observe(
                    SeenRequest(
                        now,
                        max(request.arrival, now),
                        request.deadline,
                        units,
                        request.duration,
                        value * weight // whole,
                        taken,
                        None if quote.price is None else quote.price * weight // whole,
                    )
                )
