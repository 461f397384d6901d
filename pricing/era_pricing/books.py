"""The books: every reservation, and the plan that they add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from era_pricing.inventory import Inventory
from era_pricing.latest import LatestPlan
from era_pricing.placement import Assignment
from era_pricing.plan import Load, Plan, Span
from era_pricing.reservations import (
    DuplicateReservation,
    Placement,
    Reservation,
    Share,
    UnknownReservation,
    check_parts,
)
from era_pricing.timegrid import TimeGrid
from era_pricing.waiting import Waiting

_REMEMBERED = 4096


class Books:
    """Reservations that have not ended, and their plan.

    Parameters
    ----------
    grid
        The time grid.
    inventory
        Capacity over time.
    replan
        Whether to keep the plan in which everything is as late as it can be.

    Attributes
    ----------
    plan : Plan
        What the reservations add up to.
    reservations : dict
        By job id, in the order in which they were made.
    waiting : Waiting
        Those of which a part may still be moved.
    latest : LatestPlan or None
        The second plan, if there is to be one.
    watch : callable
        Called with every reservation that is entered, and with its new state whenever
        it has been moved or extended.
    """

    def __init__(self, grid: TimeGrid, inventory: Inventory, replan: bool = False) -> None:
        self.grid = grid
        self.inventory = inventory
        self.plan = Plan(inventory, grid)
        self.reservations: dict[str, Reservation] = {}
        self.waiting = Waiting(len(inventory.resources))
        self.latest = LatestPlan(self) if replan else None
        self.watch: Callable[[Reservation], None] = lambda reservation: None
        self._moved: dict[str, None] = {}
        self._shares: dict[Assignment, tuple[Share, ...]] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self.reservations or job_id in self.plan

    def find(self, job_id: str, now: int) -> Reservation:
        """The reservation; UnknownReservation if there is none or it has ended."""
        reservation = self.reservations.get(job_id)
        if reservation is None or reservation.end <= now:
            raise UnknownReservation(job_id)
        return reservation

    def advance(self, slot: int, now: int) -> None:
        """Drop what has ended before `slot`, the running one."""
        for key in self.plan.advance(slot):
            self.reservations.pop(key, None)
            self._moved.pop(key, None)
            self.waiting.discard(key)
        if self.latest is not None:
            self.latest.slot_begins(slot, now)

    def to_begin(self, now: int) -> list[Reservation]:
        """Reservations of which a part may still be moved, in the order they were made."""
        return [self.reservations[key] for key in self.waiting.keys(now)]

    def insert(self, reservation: Reservation, now: int) -> None:
        """Enter a new reservation."""
        left = [p for p in reservation.placements if p.end > now]
        spans = self.spans(left)
        self.plan.add(reservation.job_id, spans)
        self.reservations[reservation.job_id] = reservation
        if reservation.windows:
            self.waiting.add(reservation, spans)
        if self.latest is not None:
            self.latest.insert(reservation, now)
        self.watch(reservation)

    def remove(self, job_id: str) -> Reservation:
        """Strike a reservation out."""
        self.plan.remove(job_id)
        return self.strike(job_id)

    def strike(self, job_id: str) -> Reservation:
        """Strike out a reservation that the plan has lost already."""
        self._moved.pop(job_id, None)
        self.waiting.discard(job_id)
        if self.latest is not None:
            self.latest.remove(job_id)
        return self.reservations.pop(job_id)

    def enter(self, reservation: Reservation, now: int) -> None:
        """Put a reservation that the plan has lost back, perhaps in another state."""
        key = reservation.job_id
        spans = self.spans([p for p in reservation.placements if p.end > now])
        self.plan.add(key, spans)
        if reservation != self.reservations[key]:
            self.reservations[key] = reservation
            self._moved[key] = None
            # What had begun may have to begin again.
            if key in self.waiting or reservation.movable(now):
                self.waiting.add(reservation, spans)
            self.watch(reservation)

    def replace(self, reservation: Reservation, now: int) -> None:
        """Enter another state of a reservation, which has been moved or extended."""
        self.plan.remove(reservation.job_id)
        self.enter(reservation, now)
        if self.latest is not None:
            self.latest.change(reservation, now)

    def note_moved(self, job_id: str) -> None:
        """Report a reservation as moved."""
        self._moved[job_id] = None

    def take_moved(self) -> tuple[Reservation, ...]:
        """Reservations replaced since this was last asked, as they are now."""
        moved, self._moved = self._moved, {}
        return tuple(self.reservations[key] for key in moved)

    def rebuild(self, reservations: Iterable[Reservation], now: int) -> None:
        """Replace everything by `reservations`, without those that have ended.

        Raises
        ------
        DuplicateReservation
            If two have the same job id.
        ValueError
            If one was made on a grid with another slot length, or is on a node that
            is not in the inventory.
        """
        books = Books(self.grid, self.inventory)
        books.plan.advance(self.grid.index(now))
        for reservation in sorted(reservations, key=lambda r: r.made):
            key = reservation.job_id
            if key in books.reservations:
                raise DuplicateReservation(key)
            check_parts(reservation, self.grid.slot)
            if reservation.end > now:
                left = [p for p in reservation.placements if p.end > now]
                spans = self.spans(left)
                books.plan.add(key, spans)
                books.reservations[key] = reservation
                if reservation.windows:
                    books.waiting.add(reservation, spans)
        self.plan, self.reservations = books.plan, books.reservations
        self._moved, self.waiting = {}, books.waiting
        if self.latest is not None:
            self.latest.renew(now)

    def spans(self, placements: Sequence[Placement]) -> tuple[Span, ...]:
        """What placements take from the plan."""
        return tuple(self.span(placement) for placement in placements)

    def span(self, placement: Placement) -> Span:
        """What a placement takes from the plan."""
        resources = self.inventory.resources
        first, end = self.grid.index(placement.start), self.grid.index_up(placement.end)
        if len(placement.shares) == 1:
            share = placement.shares[0]
            units = tuple([share.units.get(resource, 0) for resource in resources])
            return Span(first, end, ((self.inventory.index(share.node), units),))
        by_node: dict[int, tuple[int, ...]] = {}
        for share in placement.shares:
            node = self.inventory.index(share.node)
            units = tuple(share.units.get(resource, 0) for resource in resources)
            if node in by_node:
                units = tuple(a + b for a, b in zip(by_node[node], units, strict=True))
            by_node[node] = units
        loads: tuple[Load, ...] = tuple(by_node.items())
        return Span(first, end, loads)

    def shares(self, assignment: Assignment) -> tuple[Share, ...]:
        """Bundles on nodes, for a placement, from which node has which bundles."""
        if len(assignment) > 1:
            return self._new_shares(assignment)
        found = self._shares.get(assignment)
        if found is None:
            if len(self._shares) >= _REMEMBERED:
                self._shares.clear()
            found = self._shares[assignment] = self._new_shares(assignment)
        return found

    def _new_shares(self, assignment: Assignment) -> tuple[Share, ...]:
        nodes, resources = self.inventory.nodes, self.inventory.resources
        return tuple(
            Share(
                nodes[node],
                bundle.configuration,
                bundle.copies,
                {
                    name: each * bundle.copies
                    for name, each in zip(resources, bundle.units, strict=True)
                    if each
                },
            )
            for node, bundle in assignment
        )
