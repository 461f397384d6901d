"""Where a placement, or what is left of it, can be put instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from era_pricing.arrays import IntArray
from era_pricing.placement import Assignment, Bundle, Need, assign, open_starts
from era_pricing.plan import Plan
from era_pricing.reservations import Placement, Window
from era_pricing.tariff import recut
from era_pricing.timegrid import TimeGrid

if TYPE_CHECKING:
    from era_pricing.books import Books


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


def moved(books: Books, placement: Placement, start: int, assignment: Assignment) -> Placement:
    """The same placement at another start, on other nodes, for the same price."""
    grid, end = books.grid, start + placement.end - placement.start
    prices = placement.slot_prices
    if (start - placement.start) % grid.slot:
        old = grid.segments(placement.start, placement.end)
        prices = recut(prices, old, grid.segments(start, end))
    single = len(books.inventory.nodes) == 1
    shares = placement.shares if single else books.shares(assignment)
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


def open_boundaries(
    books: Books,
    plan: Plan,
    placement: Placement,
    window: Window,
    now: int,
    taken: Iterable[tuple[int, int]] = (),
) -> tuple[int, IntArray]:
    """Slot boundaries of its window from which a placement would fit.

    Parameters
    ----------
    plan
        The plan to fit into, which must not hold the placement.
    taken
        Slots [first, end) that it must not touch.

    Returns
    -------
    int, IntArray
        The first slot looked at, and the open ones, counted from it, ascending.
    """
    grid = books.grid
    slots = grid.slots_for(placement.end - placement.start)
    first = grid.index_up(max(window.arrival, now))
    sold = max(grid.horizon_end(now), placement.end)
    end = grid.index(min(window.deadline, sold))
    if end - first < slots:
        return first, np.empty(0, dtype=np.int64)
    fits = open_starts(plan.free(first, end - first), need_of(books, placement), slots)
    for low, high in taken:
        fits[max(low - slots + 1 - first, 0) : max(high - first, 0)] = False
    return first, np.flatnonzero(fits)


def in_chunks(
    books: Books,
    plan: Plan,
    placement: Placement,
    window: Window,
    now: int,
    taken: Iterable[tuple[int, int]],
    chunk: int,
) -> tuple[Placement, ...]:
    """A placement in chunks of at least `chunk` slots, as early as they go; empty if they don't.

    What is left over for the last chunk may be shorter. Other parameters as in
    `open_boundaries`.
    """
    grid, seconds = books.grid, placement.end - placement.start
    length = min(chunk, grid.slots_for(seconds)) * grid.slot
    probe = replace(placement, end=placement.start + length)
    first, free = open_boundaries(books, plan, probe, window, now, taken)
    found: list[Placement] = []
    rest, left = placement, True
    for boundary in free.tolist():
        start = (first + boundary) * grid.slot
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


def nearest(grid: TimeGrid, first: int, free: IntArray, start: int) -> int:
    """Of the boundaries that `open_boundaries` found, the one nearest to `start`, UTC seconds."""
    after = int(np.searchsorted(free, grid.index_up(start) - first))
    # The earlier one of two that are equally near.
    around: list[int] = ((first + free[max(after - 1, 0) : after + 1]) * grid.slot).tolist()
    return min(around, key=lambda boundary: abs(boundary - start))
