"""The engine: quotes, reservations, and the plan behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from era_pricing.algorithms.base import Algorithm, Offer
from era_pricing.arrays import IntArray
from era_pricing.bids import Bid, ResourceRequest
from era_pricing.configurations import Configuration
from era_pricing.inventory import Inventory
from era_pricing.plan import Plan, Span
from era_pricing.predictors.base import Predictor
from era_pricing.quoting import Quoter
from era_pricing.reservations import (
    Allocation,
    Decision,
    DuplicateReservation,
    Feedback,
    Quote,
    Reservation,
    UnknownReservation,
    UpdateResult,
)
from era_pricing.timegrid import TimeGrid


class Era:
    """The market for one resource of one pool.

    Parameters
    ----------
    grid
        Slot length and horizon.
    inventory
        Capacity over time; the engine changes it when feedback says so.
    configurations
        The bundles for sale.
    algorithm
        Prices the slots and picks a start.
    predictor
        Forecast of demand that the algorithm may ask.
    price_floor
        Least price of a unit, micro-credits per hour; above zero.
    clock
        Returns UTC seconds; asked when a method is called without `now`.
    resource
        The resource that is priced; its units are counted.

    Raises
    ------
    ValueError
        If `price_floor` is not a positive integer, a configuration's units are
        not a whole number, or two configurations have the same name.

    Notes
    -----
    Times are UTC seconds and money is micro-credits, all integers. Time never
    runs backwards: a `now` before the latest one of a call that changed something
    counts as that. Not safe for use by several threads at once.
    """

    def __init__(
        self,
        grid: TimeGrid,
        inventory: Inventory,
        configurations: Iterable[Configuration],
        algorithm: Algorithm,
        predictor: Predictor,
        price_floor: int,
        clock: Callable[[], float],
        resource: str = "nvidia.com/gpu",
    ) -> None:
        self.grid = grid
        self.resource = resource
        self._inventory = inventory
        self._algorithm = algorithm
        self._quoter = Quoter(
            grid, inventory, configurations, algorithm, predictor, price_floor, resource
        )
        self._clock = clock
        self._plan = Plan(grid.slots)
        self._reservations: dict[str, Reservation] = {}  # in the order they were made
        self._latest = 0
        self._observation = Feedback()

    # The user side.

    def quote(self, request: ResourceRequest, now: int | None = None) -> Quote:
        """Price a request; changes nothing.

        Raises
        ------
        BidError
            If the configuration is unknown, the deadline has passed, the duration
            exceeds the horizon, or there are never that many units.
        """
        return self._quoter.quote(request, self._plan, self._time(now))

    def make_reservation(self, job_id: str, bid: Bid, now: int | None = None) -> Decision:
        """Reserve the offered start if its price does not exceed the bid's value.

        Raises
        ------
        BidError
            As in `quote`.
        DuplicateReservation
            If `job_id` is in use.
        """
        if not isinstance(job_id, str) or not job_id:
            raise ValueError(f"job_id must be a text that is not empty, got {job_id!r}")
        now = self._advance(now)
        if job_id in self._reservations or job_id in self._plan:
            raise DuplicateReservation(job_id)
        quote = self._quoter.quote(bid.request, self._plan, now)
        if quote.start is None or quote.end is None or quote.price is None:
            return Decision(False, None, None, quote.reason, quote)
        taken = quote.price <= bid.value
        self._algorithm.settle(Offer(quote.units, quote.start, quote.end, quote.price), taken)
        if not taken:
            reason = f"the cheapest start costs {quote.price} micro-credits, more than the value"
            return Decision(False, quote.price, None, reason, quote)
        reservation = Reservation(
            job_id,
            quote.configuration,
            quote.count,
            quote.units,
            quote.start,
            quote.end,
            quote.slot_prices,
            now,
        )
        self._insert(reservation)
        return Decision(True, quote.price, reservation, None, quote)

    def cancel(self, job_id: str, now: int | None = None) -> int:
        """Give a reservation back, and return the refund.

        Before its start all of the price is refunded. From then on this is `release`.

        Raises
        ------
        UnknownReservation
            If there is none with that job id or it has ended.
        """
        return self.release(job_id, now)

    def release(self, job_id: str, now: int | None = None) -> int:
        """End a reservation early, and return the refund.

        The refund is the price of the slots that have not begun. All that is left is
        free again, the rest of the running slot included: whoever takes that starts
        no earlier than now. Before the start of the reservation this is `cancel`.

        Raises
        ------
        UnknownReservation
            If there is none with that job id or it has ended.
        """
        now = self._advance(now)
        reservation = self._find(job_id, now)
        del self._reservations[job_id]
        self._plan.remove(job_id)
        if now < reservation.start:
            return reservation.price
        begins = self.grid.segments(reservation.start, reservation.end)[:-1]
        begun = int(np.searchsorted(begins, now, side="right"))
        return sum(reservation.slot_prices[begun:])

    def forget(self, job_id: str) -> None:
        """Drop a reservation that was just made, without a trace.

        For a caller that could not store it.

        Raises
        ------
        UnknownReservation
            If there is none with that job id.
        """
        if self._reservations.pop(job_id, None) is None:
            raise UnknownReservation(job_id)
        self._plan.remove(job_id)

    # The cloud side.

    def get_current_allocation(self, now: int | None = None) -> dict[str, Allocation]:
        """What should run right now, by job id: start <= now < end."""
        now = self._time(now)
        return {
            r.job_id: Allocation(r.configuration, r.count, r.units, r.start, r.end)
            for r in self._reservations.values()
            if r.start <= now < r.end
        }

    def update(self, feedback: Feedback, now: int | None = None) -> UpdateResult:
        """Take in what the cloud observed.

        Terminated jobs are released, then capacity changes. Where less capacity
        is left than promised, reservations are broken and refunded in full, those
        made latest first; what still fits is kept.

        Raises
        ------
        ValueError
            If a capacity change is not valid; then nothing has changed.
        """
        for start, end, capacity in feedback.capacity:
            Inventory.check(start, end, capacity)
        now = self._advance(now)
        self._observation = feedback
        released: dict[str, int] = {}
        unknown: list[str] = []
        for job_id in feedback.terminated:
            try:
                released[job_id] = self.release(job_id, now)
            except UnknownReservation:
                unknown.append(job_id)
        for start, end, capacity in feedback.capacity:
            self._inventory.set_capacity(start, end, capacity)
        broken = self._break_promises()
        return UpdateResult(released, broken, tuple(unknown))

    @property
    def observation(self) -> Feedback:
        """The feedback that came last."""
        return self._observation

    # The books.

    def reservations(self, now: int | None = None) -> tuple[Reservation, ...]:
        """Reservations that have not ended, in the order they were made."""
        now = self._time(now)
        return tuple(r for r in self._reservations.values() if r.end > now)

    def restore(self, reservations: Iterable[Reservation], now: int | None = None) -> None:
        """Replace the plan by the one that `reservations` make up.

        Those that have ended are left out. The capacity is not checked here: the
        next `update` breaks what does not fit.

        Raises
        ------
        DuplicateReservation
            If two have the same job id.
        ValueError
            If one was made on a grid with another slot length.
        """
        now = self._advance(now)
        plan, found = Plan(self.grid.slots), dict[str, Reservation]()
        plan.advance(self.grid.index(now))
        for reservation in sorted(reservations, key=lambda r: r.made):
            if reservation.job_id in found:
                raise DuplicateReservation(reservation.job_id)
            parts = len(self.grid.segments(reservation.start, reservation.end)) - 1
            if parts != len(reservation.slot_prices):
                raise ValueError(
                    f"reservation {reservation.job_id!r} has {len(reservation.slot_prices)} slot "
                    f"prices, but takes {parts} slots of {self.grid.slot} seconds"
                )
            if reservation.end > now:
                found[reservation.job_id] = reservation
                plan.add(reservation.job_id, self._span(reservation))
        self._plan, self._reservations = plan, found

    def prices(
        self, configuration: str, first: int, count: int, now: int | None = None
    ) -> IntArray:
        """Price of one bundle in each of `count` slots, from the slot of `first` on.

        Returns
        -------
        IntArray, shape (count,)
            Micro-credits for the whole slot; -1 where it is over, beyond the
            horizon or sold out.

        Raises
        ------
        BidError
            If the configuration is unknown.
        """
        slot = self.grid.index(first)
        return self._quoter.slot_prices(configuration, slot, count, self._plan, self._time(now))

    def hourly_price(self, configuration: str, now: int | None = None) -> int | None:
        """Price of one bundle now, micro-credits per hour; None if it is sold out.

        Raises
        ------
        BidError
            If the configuration is unknown.
        """
        return self._quoter.hourly_price(configuration, self._plan, self._time(now))

    def promised(self, first: int, count: int) -> IntArray:
        """Units promised in each of `count` slots, from the slot of `first` on."""
        return self._plan.promised(self.grid.index(first), count)

    def capacity(self, first: int, count: int) -> IntArray:
        """Units that there are throughout each of `count` slots, from that of `first` on."""
        times = self.grid.times(self.grid.index(first), count)
        return self._inventory.capacity(times, self.grid.slot)

    # Inside.

    def _time(self, now: int | None) -> int:
        return max(int(self._clock()) if now is None else int(now), self._latest)

    def _advance(self, now: int | None) -> int:
        """Move time on, and drop what lies behind when a new slot has begun."""
        self._latest = self._time(now)
        slot = self.grid.index(self._latest)
        if slot > self._plan.base:
            self._plan.advance(slot)
            self._inventory.drop_before(slot * self.grid.slot)
            self._reservations = {
                key: r for key, r in self._reservations.items() if r.end > self._latest
            }
        return self._latest

    def _find(self, job_id: str, now: int) -> Reservation:
        reservation = self._reservations.get(job_id)
        if reservation is None or reservation.end <= now:
            raise UnknownReservation(job_id)
        return reservation

    def _span(self, reservation: Reservation) -> Span:
        first, end = self.grid.index(reservation.start), self.grid.index_up(reservation.end)
        return Span(first, end, reservation.units)

    def _insert(self, reservation: Reservation) -> None:
        self._reservations[reservation.job_id] = reservation
        self._plan.add(reservation.job_id, self._span(reservation))

    def _break_promises(self) -> dict[str, int]:
        """Drop what the capacity no longer covers; the refund of each, by job id."""
        times = self.grid.times(self._plan.base, self._plan.length)
        capacity = self._inventory.capacity(times, self.grid.slot)
        order = [r.job_id for r in self.reservations(self._latest)]
        dropped = self._plan.shed(capacity, order)
        return {key: self._reservations.pop(key).price for key in dropped}
