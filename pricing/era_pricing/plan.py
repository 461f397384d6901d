"""The plan: who is promised what, in which slots, and on which nodes."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Mapping
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from era_pricing.arrays import IntArray
from era_pricing.inventory import Inventory
from era_pricing.nearby import Nearby, overlap
from era_pricing.timegrid import TimeGrid

Load = tuple[int, tuple[int, ...]]
"""A node, by its place in the inventory, and base units of each resource."""


class Span(NamedTuple):
    """What is promised on some nodes in the slots first, ..., end - 1."""

    first: int
    end: int
    loads: tuple[Load, ...]

    @property
    def units(self) -> tuple[int, ...]:
        """Base units of each resource, on all nodes together."""
        if len(self.loads) == 1:
            return self.loads[0][1]
        return tuple(map(sum, zip(*(units for _, units in self.loads), strict=True)))


class Supply(NamedTuple):
    """What each node has, in stretches of slots that are alike: there are few of them.

    Attributes
    ----------
    edges : IntArray, shape (stretches,)
        Where each stretch begins, absolute slots, ascending; it ends where the next begins.
    units : IntArray, shape (nodes, resources, stretches)
    """

    edges: IntArray
    units: IntArray

    def at(self, slots: IntArray) -> IntArray:
        """Units in some slots, shape (nodes, resources, n)."""
        if len(self.edges) == 1:
            return np.broadcast_to(self.units, (*self.units.shape[:2], len(slots)))
        stretch = np.maximum(np.searchsorted(self.edges, slots, side="right") - 1, 0)
        found: IntArray = self.units[:, :, stretch]
        return found


class Plan:
    """Units promised per node, resource and slot, in a window that moves with time.

    Parameters
    ----------
    inventory
        Capacity over time; `refresh` takes changes of it in.
    grid
        The time grid.

    Notes
    -----
    The arrays are derived from the spans: adding the same spans to an empty plan
    that was advanced as far gives an equal plan.
    """

    def __init__(self, inventory: Inventory, grid: TimeGrid) -> None:
        self._inventory = inventory
        self._grid = grid
        self._base = 0
        self._offset = 0  # column of `_base`
        self._spans: dict[str, tuple[Span, ...]] = {}
        self._ends: list[tuple[int, str]] = []
        self._near = Nearby()
        # Laid out when they are needed: most plans begin by advancing to the present.
        none = np.zeros((len(inventory.nodes), len(inventory.resources), 0), dtype=np.int64)
        self._free: IntArray = none  # (nodes, resources, columns)
        self._promised: IntArray = none[0]  # (resources, columns), on all nodes together
        self._capacity: IntArray = none[0]
        self._columns = 0
        self._supply = self._survey()

    def __contains__(self, key: str) -> bool:
        return key in self._spans

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        if self._base != other._base or self._spans != other._spans:
            return False
        count = min(self.length, other.length)
        return np.array_equal(
            self.free(self._base, count), other.free(self._base, count)
        ) and np.array_equal(
            self._promised[:, self._offset :][:, :count],
            other._promised[:, other._offset :][:, :count],
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def base(self) -> int:
        """The running slot: the first one that is kept."""
        return self._base

    @property
    def length(self) -> int:
        """Number of slots that are kept."""
        return self._columns - self._offset

    @property
    def spans(self) -> Mapping[str, tuple[Span, ...]]:
        """The spans by key, oldest first."""
        return self._spans

    def copy(self) -> Plan:
        """A plan with the same promises that can be changed by itself."""
        other = object.__new__(Plan)
        other.__dict__.update(self.__dict__)
        other._free, other._promised = self._free.copy(), self._promised.copy()
        other._spans, other._ends = dict(self._spans), list(self._ends)
        other._near = self._near.copy()
        return other

    def advance(self, slot: int) -> list[str]:
        """Drop the slots before `slot`, and the promises that end by then.

        Returns
        -------
        list of str
            The keys that were dropped.
        """
        if slot <= self._base:
            return []
        dropped = []
        while self._ends and self._ends[0][0] <= slot:
            key = heapq.heappop(self._ends)[1]
            if key in self._spans and _end(self._spans[key]) <= slot:
                for span in self._spans.pop(key):
                    self._near.remove(key, span)
                dropped.append(key)
        self._offset += slot - self._base
        self._base = slot
        if self.length < self._grid.slots + 1:
            reach = max((s.end for spans in self._spans.values() for s in spans), default=0)
            self._allocate(max(2 * self._grid.slots, reach - slot))
        return dropped

    def refresh(self) -> bool:
        """Take in what has changed in the inventory; whether anything has."""
        changed = self._version != self._inventory.version
        if changed and len(self._inventory.nodes) == len(self._free):
            self._adapt()
        elif changed:
            self._allocate(self.length)
        return changed

    def free(self, first: int, count: int) -> IntArray:
        """Units not promised, in `count` slots from `first` on, which must be kept.

        Returns
        -------
        IntArray, shape (nodes, resources, count)
            A view: not to be written to.
        """
        low = self._column(first, count)
        return self._free[:, :, low : low + count]

    def there(self, first: int, count: int) -> IntArray:
        """Units that each node has, promised or not, in `count` slots from `first` on.

        Returns
        -------
        IntArray, shape (nodes, resources, stretches)
            One column for each stretch of slots that are alike.
        """
        edges, units = self._supply
        low = max(int(np.searchsorted(edges, first, side="right")) - 1, 0)
        return units[:, :, low : int(np.searchsorted(edges, first + count))]

    def promised(self, resource: int, first: int, count: int) -> IntArray:
        """Units promised on all nodes together, shape (count,); 0 for the past."""
        if first >= self._base:
            low = self._column(first, count)
            return self._promised[resource, low : low + count].copy()
        past = min(self._base - first, count)
        later = self.promised(resource, self._base, count - past)
        return np.concatenate((np.zeros(past, dtype=np.int64), later))

    def capacity(self, resource: int, first: int, count: int) -> IntArray:
        """Units there are on all nodes together, in slots that are kept; shape (count,)."""
        low = self._column(first, count)
        return self._capacity[resource, low : low + count].copy()

    def add(self, key: str, spans: tuple[Span, ...]) -> None:
        """Promise spans; `key` must be new."""
        if key in self._spans:
            raise KeyError(key)
        end = _end(spans)
        self._column(self._base, max(end - self._base, 0))
        self._spans[key] = spans
        heapq.heappush(self._ends, (end, key))
        for span in spans:
            self._count(span, 1)
            self._near.add(key, span)

    def remove(self, key: str) -> tuple[Span, ...]:
        """Take a promise back as if it had never been made; its spans."""
        spans = self._spans.pop(key)
        for span in spans:
            self._count(span, -1)
            self._near.remove(key, span)
        if len(self._ends) > 64 + 4 * len(self._spans):
            self._ends = [(_end(held), k) for k, held in self._spans.items()]
            heapq.heapify(self._ends)
        return spans

    def fits(self, span: Span, whole: bool = False) -> bool:
        """Whether a span has room where it lies, from the running slot on.

        With `whole`, resources of which it takes nothing must not be overdrawn either.
        """
        self._column(self._base, max(span.end - self._base, 0))
        low = max(span.first - self._base, 0) + self._offset
        high = max(span.end - self._base, 0) + self._offset
        for node, units in span.loads:
            for resource, amount in enumerate(units):
                if amount or whole:
                    free = self._free[node, resource, low:high]
                    if len(free) and free.min() < amount:
                        return False
        return True

    def overdrawn(self, span: Span) -> Span | None:
        """The part of a span with all slots in which its nodes have less than is promised."""
        first = max(span.first, self._base)
        free = self.free(first, max(span.end - first, 0))
        lacking = np.zeros(free.shape[2], dtype=np.bool_)
        for node, _ in span.loads:
            lacking |= free[node].min(axis=0) < 0
        slots = np.flatnonzero(lacking)
        if not len(slots):
            return None
        return span._replace(first=first + int(slots[0]), end=first + int(slots[-1]) + 1)

    def overlapping(self, spans: Iterable[Span], among: Container[str]) -> list[str]:
        """Keys `among` others whose promises share a slot of a node with one of these spans."""
        found: dict[str, None] = {}
        held = self._spans
        for span in spans:
            for keys in self._near.cells(span):
                for key in keys:
                    if key in among and key not in found:
                        for own in held[key]:
                            if overlap(own, span):
                                found[key] = None
                                break
        return list(found)

    def begin_before(self, slot: int, among: Container[str]) -> list[str]:
        """Keys `among` others with a span that is kept and begins before `slot`."""
        near = self._near.cells(Span(self._base, max(slot, self._base + 1), ()))
        return [
            key
            for key in dict.fromkeys(chain.from_iterable(near))
            if key in among and any(span.first < slot for span in self._spans[key])
        ]

    def trial(self) -> Trial:
        """A way to add spans that are gone again at the end: ``with plan.trial() as trial``."""
        return Trial(self)

    def _count(self, span: Span, sign: int) -> None:
        low = max(span.first - self._base, 0) + self._offset
        high = max(span.end - self._base, 0) + self._offset
        for node, units in span.loads:
            for resource, amount in enumerate(units):
                if amount:
                    free = self._free[node, resource, low:high]
                    free -= sign * amount
                    promised = self._promised[resource, low:high]
                    promised += sign * amount

    def _column(self, first: int, count: int) -> int:
        """Column of slot `first`, once the window reaches over all `count` of them."""
        if first + count - self._base > self._columns - self._offset:
            self._allocate(first + count - self._base + self._grid.slots)
        return first - self._base + self._offset

    def _survey(self) -> Supply:
        """What there is from the running slot on."""
        later = {slot for slot in self._inventory.changes(self._grid.slot) if slot > self._base}
        edges = np.array([self._base, *sorted(later)], dtype=np.int64)
        self._version = self._inventory.version
        return Supply(edges, self._inventory.capacity(edges * self._grid.slot, self._grid.slot))

    def _adapt(self) -> None:
        """Take in what has changed on the nodes that are known."""
        old, self._supply = self._supply, self._survey()
        end = self._base + self.length
        edges = np.union1d(old.edges, self._supply.edges)
        edges = edges[(edges >= self._base) & (edges < end)]
        more = self._supply.at(edges) - old.at(edges)
        nodes = np.flatnonzero(more.any(axis=(1, 2)))
        columns = [*(edges - self._base + self._offset), self._columns]
        for number, (low, high) in enumerate(pairwise(columns)):
            self._free[nodes, :, low:high] += more[nodes, :, number, None]
        self._sum_up()

    def _sum_up(self) -> None:
        slots = np.arange(self._base - self._offset, self._base + self.length)
        total = Supply(self._supply.edges, self._supply.units.sum(axis=0, keepdims=True))
        self._capacity = total.at(slots)[0]

    def _allocate(self, length: int) -> None:
        """Lay the arrays out anew, for `length` slots from the running one on."""
        slots = np.arange(self._base, self._base + length)
        promised, free = self._promised[:, self._offset :], self._free[:, :, self._offset :]
        before, self._supply = self._supply, self._survey()
        self._free = self._supply.at(slots).copy()
        if promised.any():
            kept = min(length, free.shape[2])
            part = self._free[: len(free), :, :kept]
            part += free[:, :, :kept] - before.at(slots[:kept])
        self._promised = np.zeros((len(promised), length), dtype=np.int64)
        self._promised[:, : promised.shape[1]] = promised[:, :length]
        self._offset, self._columns = 0, length
        self._sum_up()


class Trial:
    """Spans in a plan for a moment; see `Plan.trial`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._added: list[Span] = []

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *error: object) -> None:
        for span in self._added:
            self._plan._count(span, -1)
        self._added.clear()

    def add(self, spans: tuple[Span, ...]) -> None:
        """Promise spans for as long as the trial lasts."""
        for span in spans:
            self._plan._column(self._plan.base, max(span.end - self._plan.base, 0))
            self._plan._count(span, 1)
            self._added.append(span)


def _end(spans: tuple[Span, ...]) -> int:
    """The slot after the last one that is touched."""
    return spans[0].end if len(spans) == 1 else max(span.end for span in spans)
