"""The engine: quotes, reservations, and the plan behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from era_pricing.algorithms.base import Algorithm, EarlyStart
from era_pricing.arrays import IntArray
from era_pricing.bids import Bid, ResourceRequest
from era_pricing.books import Books
from era_pricing.commitments import Commitments, decide, too_dear
from era_pricing.configurations import Configuration
from era_pricing.extending import Extending, check
from era_pricing.inventory import Inventory
from era_pricing.news import News
from era_pricing.overruns import Overruns
from era_pricing.predictors.base import Forecast
from era_pricing.quoting import Quoter
from era_pricing.repair import Repair
from era_pricing.reservations import (
    Allocation,
    CapacityChange,
    Decision,
    DuplicateReservation,
    Feedback,
    Quote,
    Reservation,
    UnknownReservation,
    UpdateResult,
    apply_changes,
    check_changes,
    refund,
)
from era_pricing.tariff import PricedResource, checked
from era_pricing.timegrid import TimeGrid


class Era:
    """The market of one pool.

    Parameters
    ----------
    grid
        Slot length and horizon.
    inventory
        Nodes and their capacity over time; the engine changes it when feedback says
        so.
    configurations
        The bundles for sale.
    algorithm
        Prices the slots and says which starts are on the menu.
    priced
        The resources that have a price, each with its predictor. Everything else in
        the inventory is counted and limited, but free of charge; resources that are
        not in the inventory are neither.
    clock
        Returns UTC seconds; asked when a method is called without `now`.
    late_penalty
        The rate of a slot that begins h hours from now is multiplied by
        ``exp(late_penalty * h)``; a ceiling limits it, see `PricedResource.limited`.
    replan
        Whether jobs that have not begun are moved in their windows to make room for a bid.
    early_start
        When jobs that have not begun, and whose arrival has come, start at once; None
        for what suits the algorithm.
    chunk
        Least length in slots of the chunks into which preemptible jobs are split.

    Raises
    ------
    ValueError
        If no resource is priced, one is priced twice or is not in the inventory, two
        configurations have the same name, the penalty is negative, or the chunk is not
        a positive integer.

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
        priced: Sequence[PricedResource],
        clock: Callable[[], float],
        late_penalty: float = 0.0,
        replan: bool = True,
        early_start: EarlyStart | str | None = None,
        chunk: int = 1,
    ) -> None:
        priced = checked(priced)
        if not (isinstance(late_penalty, int | float) and 0 <= late_penalty < math.inf):
            raise ValueError(f"late_penalty must be 0 or more per hour, got {late_penalty!r}")
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise ValueError(f"chunk must be a whole number of slots, 1 or more; got {chunk!r}")
        self.grid = grid
        self.resource = priced[0].name
        self.inventory = inventory
        self._books = Books(grid, inventory, replan)
        self._early_start = EarlyStart(early_start or algorithm.early_start)
        self._quoter = Quoter(self._books, configurations, algorithm, priced, late_penalty, chunk)
        cheaper = self._early_start is EarlyStart.CHEAPER
        self._commitments = Commitments(self._books, self._quoter.cost if cheaper else None)
        self._repair = Repair(self._books, self._start_early, chunk)
        self._extending = Extending(self._books, self._quoter, self._commitments)
        self._overruns = Overruns(self._books)
        self._news = News(self._books, algorithm, priced)
        self.learn, self.take_moved = self._news.learn, self._books.take_moved
        self._clock = clock
        self._latest = 0
        self._begun = -1  # the slot that the algorithm was prepared for
        self._unchecked = False  # whether more may be promised than there is
        self._observation = Feedback()

    # The user side.

    def quote(self, bid: Bid | ResourceRequest, now: int | None = None) -> Quote:
        """Price a bid, or a request of which the value does not matter; reserves nothing.

        Raises
        ------
        BidError
            If a configuration is unknown, the deadline has passed, the duration
            exceeds the horizon, or there are never that many units.
        """
        if isinstance(bid, ResourceRequest):
            bid = Bid.of(bid, 0)
        return self._quoter.quote(bid, self._look(now))

    def make_reservation(self, job_id: str, bid: Bid, now: int | None = None) -> Decision:
        """Reserve what is best for the bidder if its price does not exceed its value.

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
        if job_id in self._books or job_id in self._overruns:
            raise DuplicateReservation(job_id)
        quote = self._quoter.quote(bid, now)
        decision = decide(job_id, bid, quote, now)
        self._news.decided(bid, quote, decision.accepted, now)
        if decision.reservation is not None:
            self._enter(decision.reservation, now)
        return decision

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
        refunded = self._release(job_id, now)
        self._start_early(now)
        return refunded

    def extend(self, job_id: str, seconds: int, value: int, now: int | None = None) -> Decision:
        """Buy time right after the end of a reservation, on the same nodes.

        A job that has not begun may be moved for that. The price is today's; what was
        paid before stays.

        Parameters
        ----------
        job_id
            Whose reservation; it has not ended.
        seconds
            Rounded up to whole slots.
        value
            The most this may cost, micro-credits.

        Returns
        -------
        Decision
            Its price is that of the extension, its reservation the extended one.

        Raises
        ------
        BidError
            If `seconds` or `value` make no sense.
        UnknownReservation
            If there is none with that job id or it has ended.
        """
        seconds, value = check(seconds, value)
        now = self._advance(now)
        reservation = self._books.find(job_id, now)
        quote, extended = self._extending.quote(reservation, seconds, now)
        price = quote.price
        if extended is None or price is None:
            return Decision(False, None, None, quote.reason, quote)
        taken = price <= value
        bid = Bid.of(quote.menu.request, value, reservation.commitment)
        self._news.decided(bid, quote, taken, now)
        if not taken:
            return Decision(False, price, None, too_dear(price), quote)
        self._extending.enter(extended, now)
        self._overruns.check(now)
        return Decision(True, price, extended, None, quote)

    def quote_extension(self, job_id: str, seconds: int, now: int | None = None) -> Quote:
        """What `extend` would cost now, without commitment; raises what that raises."""
        seconds, _ = check(seconds, 0)
        now = self._advance(now)
        return self._extending.quote(self._books.find(job_id, now), seconds, now)[0]

    def forget(self, job_id: str) -> None:
        """Drop a reservation that was just made, without a trace.

        For a caller that could not store it.

        Raises
        ------
        UnknownReservation
            If there is none with that job id.
        """
        if job_id not in self._books.reservations:
            raise UnknownReservation(job_id)
        self._books.remove(job_id)

    # The cloud side.

    def get_current_allocation(self, now: int | None = None) -> dict[str, Allocation]:
        """What should run right now, by job id: start <= now < end, and the overruns."""
        now = self._time(now)
        found = {}
        for key, reservation in self._books.reservations.items():
            running = tuple(p for p in reservation.placements if p.start <= now < p.end)
            if running:
                found[key] = Allocation(running, max(p.end for p in running))
        return {**found, **self._overruns.allocations(now)}

    def update(self, feedback: Feedback, now: int | None = None) -> UpdateResult:
        """Take in what the cloud observed.

        Terminated jobs are released, then capacity changes. Where less capacity
        is left than promised, reservations that may be moved are moved. Of a running
        preemptible job what is left is moved, and a running flexible one begins again;
        of one that keeps its start the rest goes to other nodes at once.
        Those for which there is no room are broken and refunded in full; what still
        fits is kept.

        Raises
        ------
        ValueError
            If a capacity change is not valid; then nothing has changed.
        """
        check_changes(self.inventory, feedback.capacity)
        # Nothing starts early before it is known what there is.
        begins = self._move_on(now)
        now = self._latest
        self._observation = feedback
        released: dict[str, int] = {}
        unknown: list[str] = []
        for job_id in feedback.terminated:
            try:
                released[job_id] = self._release(job_id, now)
            except UnknownReservation:
                unknown.append(job_id)
        apply_changes(self.inventory, feedback.capacity)
        broken: dict[str, int] = {}
        if self._books.plan.refresh() or self._unchecked:
            self._unchecked = False
            broken = self._repair.run(now)
        if begins:
            self._begin_slot()
        elif released:
            self._start_early(now)
        self._overruns.check(now)
        return UpdateResult(
            released,
            broken,
            tuple(unknown),
            self._overruns.take_ended(),
            self._books.take_moved(),
        )

    @property
    def price_limits(self) -> tuple[int, int | None]:
        """Floor and ceiling of the first priced resource, micro-credits per hour."""
        return self._quoter.price_limits(self.resource)

    def limit_prices(self, price_floor: int, price_ceiling: int | None) -> None:
        """Change floor and ceiling of the first priced resource, for what is sold from now on.

        Raises
        ------
        ValueError
            If they are no limits; see `PricedResource`.
        """
        priced = self._quoter.limit_prices(self.resource, price_floor, price_ceiling)
        self._news.limit_prices(priced)

    @property
    def observation(self) -> Feedback:
        """The feedback that came last."""
        return self._observation

    # The books.

    def reservations(self, now: int | None = None) -> tuple[Reservation, ...]:
        """Reservations that have not ended, in the order they were made."""
        now = self._time(now)
        return tuple(r for r in self._books.reservations.values() if r.end > now)

    def restore(
        self,
        reservations: Iterable[Reservation],
        now: int | None = None,
        capacity: Sequence[CapacityChange] = (),
        state: bytes | None = None,
    ) -> None:
        """Replace the plan by the one that `reservations` make up.

        Those that have ended are left out, but go on if they have an overrun that has
        not. The capacity is not checked here: the next `update` breaks what does not fit.

        Parameters
        ----------
        capacity
            Changes of the capacity; they break nothing here.
        state
            From `take_state`: the algorithm goes on from there, and begins anew without.

        Raises
        ------
        DuplicateReservation
            If two have the same job id.
        ValueError
            If a capacity change is not valid, one was made on a grid with another slot
            length, or is on a node that is not in the inventory.
        """
        check_changes(self.inventory, capacity)
        given = tuple(reservations)
        self._move_on(now)
        now = self._latest
        apply_changes(self.inventory, capacity)
        self._books.rebuild(given, now)
        self._overruns.rebuild(given, now)
        self._unchecked = True
        self._news.resume(state)
        self._news.slot_begins(now)  # what was learned elsewhere counts from now on

    def take_state(self) -> bytes | None:
        """What the algorithm has worked out since this was last asked; None if nothing.

        With it `restore` lets prices go on as they are in another process.
        """
        return self._news.take_state()

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
        now = self._look(now)
        return self._quoter.slot_prices(configuration, self.grid.index(first), count, now)

    def hourly_price(self, configuration: str, now: int | None = None) -> int | None:
        """Price of one bundle now, micro-credits per hour; None if it is sold out.

        Raises
        ------
        BidError
            If the configuration is unknown.
        """
        return self._quoter.hourly_price(configuration, self._look(now))

    def forecast(
        self, configuration: str, first: int, count: int, now: int | None = None
    ) -> Forecast:
        """What one bundle is expected to cost by the time the slots come; slots as in `prices`.

        Returns
        -------
        Forecast
            Micro-credits per hour, shape (count,), with a band that holds 80 % of the
            cases; NaN where the slot is over or beyond the horizon.
        """
        return self._quoter.forecast(configuration, self.grid.index(first), count, self._look(now))

    def promised(self, first: int, count: int, resource: str | None = None) -> IntArray:
        """Units promised in each of `count` slots, from the slot of `first` on.

        Parameters
        ----------
        resource
            Name of a resource in the inventory; the first priced one if None.
        """
        return self._books.plan.promised(self._axis(resource), self.grid.index(first), count)

    def capacity(self, first: int, count: int, resource: str | None = None) -> IntArray:
        """Units that there are throughout each of `count` slots, as in `promised`."""
        times = self.grid.times(self.grid.index(first), count)
        there = self.inventory.capacity(times, self.grid.slot)
        total: IntArray = there[:, self._axis(resource)].sum(axis=0)
        return total

    # Inside.

    def _axis(self, resource: str | None) -> int:
        name, known = resource or self.resource, self.inventory.resources
        if name not in known:
            raise ValueError(f"resource must be one of {', '.join(known)}; got {name!r}")
        return known.index(name)

    def _time(self, now: int | None) -> int:
        return max(int(self._clock()) if now is None else int(now), self._latest)

    def _look(self, now: int | None) -> int:
        """The time of a question; moves time on only as far as the clock has got."""
        clock = int(self._clock())
        now = max(clock if now is None else int(now), self._latest)
        ahead = now > clock and now != self._latest
        if not ahead or self._begun < 0:  # before the first slot there are no prices to tell
            self._advance(clock if ahead else now)
        return now

    def _advance(self, now: int | None) -> int:
        """Move time on, and do what is due when a new slot has begun."""
        if self._move_on(now):
            self._begin_slot()
        return self._latest

    def _move_on(self, now: int | None) -> bool:
        """Move time on; whether a new slot has begun."""
        self._latest = now = self._time(now)
        self._overruns.check(now)
        if self._books.latest is not None:
            self._books.latest.sync(now)
        slot = self.grid.index(now)
        if slot <= self._begun:
            return False
        self._begun = slot
        self._books.advance(slot, now)
        self.inventory.drop_before(slot * self.grid.slot)
        return True

    def _begin_slot(self) -> None:
        self._start_early(self._latest)
        self._news.slot_begins(self._latest)

    def _release(self, job_id: str, now: int) -> int:
        if job_id in self._overruns:
            return self._overruns.stop(job_id, now)
        reservation = self._books.find(job_id, now)
        self._books.remove(job_id)
        return reservation.overrun_price + refund(reservation.placements, self.grid.slot, now)

    def _start_early(self, now: int) -> None:
        if self._early_start is not EarlyStart.NEVER:
            self._commitments.start_early(now)

    def _enter(self, reservation: Reservation, now: int) -> None:
        latest = self._books.latest
        if latest is not None and latest.plan is not None:
            for span in self._books.spans(reservation.placements):
                self._commitments.make_room(span, now)
        self._books.insert(reservation, now)
        self._overruns.check(now)
