"""Where a placement, or what is left of it, can be put instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from era_pricing.placement import Assignment, BoolArray, Bundle, Need, assign, open_starts
from era_pricing.plan import Plan
from era_pricing.reservations import Placement, Window
from era_pricing.tariff import recut
from era_pricing.timegrid import TimeGrid

if TYPE_CHECKING:
    from era_pricing.books import Books

_BLOCK = 64
"""Boundaries that are looked at first."""


def need_of(books: Books, placement: Placement) -> Need:
    """What a placement takes, bundle by bundle."""
    resources = books.inventory.resources
    if len(placement.shares) == 1:
        share = placement.shares[0]
        each = tuple(share.units.get(resource, 0) // share.count for resource in resources)
        total = tuple(share.count * units for units in each)
        return Need((Bundle(share.configuration, share.count, each),), total, {})
    units = {
        share.configuration: tuple(
            share.units.get(resource, 0) // share.count for resource in resources
        )
        for share in placement.shares
    }
    bundles = [Bundle(name, count, units[name]) for name, count in placement.configurations.items()]
    return Need.of(sorted(bundles, key=lambda bundle: bundle.units, reverse=True))


def moved(
    books: Books, placement: Placement, start: int, assignment: Assignment | None
) -> Placement:
    """The same placement at another start, on other nodes, for the same price.

    Parameters
    ----------
    assignment
        Which node has which bundle; None: those that have them now.
    """
    grid, end = books.grid, start + placement.end - placement.start
    prices = placement.slot_prices
    if (start - placement.start) % grid.slot:
        old = grid.segments(placement.start, placement.end)
        prices = recut(prices, old, grid.segments(start, end))
    shares = placement.shares
    if assignment is not None and len(books.inventory.nodes) > 1:
        shares = books.shares(assignment)
    return Placement(start, end, prices, shares, placement.request)


def cut(grid: TimeGrid, placement: Placement, at: int) -> tuple[Placement, Placement]:
    """The placement before and from a moment inside it, with the price of each part."""
    before, after = grid.segments(placement.start, at), grid.segments(at, placement.end)
    old = grid.segments(placement.start, placement.end)
    prices = recut(placement.slot_prices, old, np.concatenate((before, after[1:])))
    count = len(before) - 1
    return (
        replace(placement, end=at, slot_prices=prices[:count]),
        replace(placement, start=at, slot_prices=prices[count:]),
    )


def at_start(books: Books, plan: Plan, placement: Placement, start: int) -> Placement | None:
    """The placement at one start, on whatever nodes have room; None if none has."""
    grid, end = books.grid, start + placement.end - placement.start
    first = grid.index(start)
    free = plan.free(first, grid.index_up(end) - first)
    assignment = assign(free, need_of(books, placement))
    return None if assignment is None else moved(books, placement, start, assignment)


class Openings:
    """The slot boundaries of its window from which a placement would fit.

    They are looked for in blocks that grow, from where they are wanted: windows may be long, and
    there is often one near.

    Parameters
    ----------
    plan
        The plan to fit into, which must not hold the placement, nor change until all
        has been asked.
    taken
        Slots [first, end) that it must not touch.
    """

    def __init__(
        self,
        books: Books,
        plan: Plan,
        placement: Placement,
        window: Window,
        now: int,
        taken: Sequence[tuple[int, int]] = (),
    ) -> None:
        grid = books.grid
        self._books, self._placement = books, placement
        self._grid, self._plan, self._taken = grid, plan, taken
        self._slots = grid.slots_for(placement.end - placement.start)
        self._need = need_of(books, placement)
        self._first = grid.index_up(max(window.arrival, now))
        sold = max(grid.horizon_end(now), placement.end)
        self._end = grid.index(min(window.deadline, sold)) - self._slots + 1
        self._block = max(_BLOCK, self._slots)

    def __iter__(self) -> Iterator[int]:
        """All of them, ascending, UTC seconds."""
        low, size = self._first, self._block
        while low < self._end:
            high = min(low + size, self._end)
            for at in np.flatnonzero(self._fits(low, high)).tolist():
                yield (low + at) * self._grid.slot
            low, size = high, 4 * size

    def last(self) -> int | None:
        """The latest one, UTC seconds; None if there is none."""
        high, size = self._end, self._block
        while high > self._first:
            low = max(high - size, self._first)
            fits = self._fits(low, high)[::-1]
            at = int(fits.argmax())
            if fits[at]:
                return (high - 1 - at) * self._grid.slot
            high, size = low, 4 * size
        return None

    def nearest(self, start: int) -> int | None:
        """The one nearest to `start`, the earlier of two that are equally near; UTC seconds."""
        slot, middle, size = self._grid.slot, self._grid.index_up(start), self._block
        low, high = self._end, self._first
        while low > self._first or high < self._end:
            # One more before, for `middle` may lie after `start`.
            low, high = max(middle - size - 1, self._first), min(middle + size, self._end)
            size *= 4
            if low < high:
                found = (low + np.flatnonzero(self._fits(low, high))) * slot
                if len(found):
                    return int(found[np.abs(found - start).argmin()])
        return None

    def place(self, start: int) -> Placement:
        """The placement at one of them, on nodes that have room."""
        books, placement, assignment = self._books, self._placement, None
        if len(books.inventory.nodes) > 1:
            first = self._grid.index(start)
            end = self._grid.index_up(start + placement.end - placement.start)
            assignment = assign(self._plan.free(first, end - first), self._need)
            assert assignment is not None
        return moved(books, placement, start, assignment)

    def _fits(self, low: int, high: int) -> BoolArray:
        """Which of the boundaries low, ..., high - 1 are open."""
        slots = self._slots
        fits = open_starts(self._plan.free(low, high - low + slots - 1), self._need, slots)
        for first, end in self._taken:
            fits[max(first - slots + 1 - low, 0) : max(end - low, 0)] = False
        return fits


def in_chunks(
    books: Books,
    plan: Plan,
    placement: Placement,
    window: Window,
    now: int,
    taken: Sequence[tuple[int, int]],
    chunk: int,
) -> tuple[Placement, ...]:
    """A placement in chunks of at least `chunk` slots, as early as they go; empty if they don't.

    What is left over for the last chunk may be shorter. Other parameters as in
    `Openings`.
    """
    grid, seconds = books.grid, placement.end - placement.start
    length = min(chunk, grid.slots_for(seconds)) * grid.slot
    probe = replace(placement, end=placement.start + length)
    found: list[Placement] = []
    rest, left = placement, True
    for start in Openings(books, plan, probe, window, now, taken):
        if found and start < found[-1].end:
            continue
        piece, left = rest, rest.end - rest.start > length
        if left:
            piece, rest = cut(grid, rest, rest.start + length)
        there = at_start(books, plan, piece, start)
        assert there is not None
        found.append(there)
        if not left:
            break
    return () if left else joined(found)


def joined(placements: Iterable[Placement]) -> tuple[Placement, ...]:
    """Placements of one request in the order of time, neighbours on the same nodes as one."""
    found: list[Placement] = []
    for each in sorted(placements, key=lambda placement: placement.start):
        last = found[-1] if found else None
        if last is not None and last.end == each.start and last.shares == each.shares:
            prices = (*last.slot_prices, *each.slot_prices)
            found[-1] = replace(last, end=each.end, slot_prices=prices)
        else:
            found.append(each)
    return tuple(found)
