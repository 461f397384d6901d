"""The inventory: which nodes there are, what each of them has, and when."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from era_pricing.arrays import IntArray
from era_pricing.configurations import Quantity, base_units

POOL = "pool"
"""Name of the only node of a pool without node shapes."""

Steps = list[tuple[int, int]]


class Inventory:
    """Nodes with several resources, each a step function of UTC seconds.

    Parameters
    ----------
    nodes
        What each node has from the start and for good: quantities in Kubernetes
        notation by resource, by name of the node. A pool whose nodes do not matter
        is one node; see `single`.

    Attributes
    ----------
    nodes : tuple of str
        Names of the nodes, in the order in which they joined; a node that has left
        stays in the list, without resources.
    resources : tuple of str
        All that any of the nodes has. Only these are counted and limited.

    Raises
    ------
    ValueError
        If there is no node, or a name or quantity is not valid.
    """

    def __init__(self, nodes: Mapping[str, Mapping[str, Quantity]]) -> None:
        if not nodes:
            raise ValueError("an inventory must have at least one node")
        found = {name: _read(name, resources) for name, resources in nodes.items()}
        self.resources = tuple(dict.fromkeys(r for units in found.values() for r in units))
        self.nodes: tuple[str, ...] = ()
        self._places: dict[str, int] = {}
        self.version = 0
        self._series: list[list[Steps]] = []  # by node, by resource
        self._stepped: set[tuple[int, int]] = set()  # those that change with time
        for name, units in found.items():
            self._join(name, 0, units)

    @classmethod
    def single(cls, resources: Mapping[str, Quantity]) -> Inventory:
        """A pool without node shapes: one node that holds everything."""
        return cls({POOL: resources})

    @classmethod
    def of_nodes(cls, nodes: Mapping[str, Mapping[str, Quantity]]) -> Inventory:
        """A pool of the nodes named, with what each of them has."""
        return cls(nodes)

    def index(self, node: str) -> int:
        """Place of a node in `nodes`; ValueError if there is none of that name."""
        try:
            return self._places[node]
        except KeyError:
            known = ", ".join(self.nodes[:10])
            raise ValueError(f"node must be one of {known}; got {node!r}") from None

    def check(
        self, node: str | None, start: int, end: int | None, resources: Mapping[str, Quantity]
    ) -> dict[str, int]:
        """Raise ValueError if these are no arguments for `set_capacity`; else base units."""
        if node is None and len(self.nodes) > 1:
            raise ValueError(f"node must be named, since there are {len(self.nodes)}; got None")
        if node is not None:
            self.index(node)
        if not _time(start) or not (end is None or _time(end)):
            raise ValueError(f"start and end must be UTC seconds, got {start!r} and {end!r}")
        if end is not None and end <= max(start, 0):
            raise ValueError(f"end must be after start ({max(start, 0)}), got {end}")
        found = _read(node or self.nodes[0], resources)
        for resource in found:
            self._resource(resource)
        return found

    def set_capacity(
        self, node: str | None, start: int, end: int | None, resources: Mapping[str, Quantity]
    ) -> None:
        """Set what a node has in [start, end), for good if `end` is None.

        Parameters
        ----------
        node
            Name of the node; None for the only one.
        start, end
            UTC seconds. A `start` before 1970 counts as 1970.
        resources
            Quantities in that time, whatever was set for it before; resources that
            are not named stay as they are.

        Raises
        ------
        ValueError
            If `end` is not after `start`, or the node, a resource or a quantity is
            not valid; then nothing has changed.
        """
        units = self.check(node, start, end, resources)
        at = 0 if node is None else self.index(node)
        for resource, value in units.items():
            self._set(at, self.resources.index(resource), max(start, 0), end, value)

    def add_node(self, name: str, resources: Mapping[str, Quantity], start: int = 0) -> None:
        """Let a node join at `start`, for good; one that had left may join again.

        Raises
        ------
        ValueError
            If the node is there already at `start`, or an argument is not valid.
        """
        units = _read(name, resources)
        for resource in units:
            self._resource(resource)
        if not _time(start):
            raise ValueError(f"start must be UTC seconds, got {start!r}")
        if name not in self.nodes:
            self._join(name, max(start, 0), units)
            return
        at = self.index(name)
        if any(_value(steps, start) for steps in self._series[at]):
            raise ValueError(f"node {name!r} is in the pool already; use set_capacity")
        for r, resource in enumerate(self.resources):
            self._set(at, r, max(start, 0), None, units.get(resource, 0))

    def remove_node(self, name: str, start: int) -> None:
        """Let a node leave at `start`; ValueError if there is none of that name."""
        self.set_capacity(name, start, None, dict.fromkeys(self.resources, 0))

    def drop_before(self, time: int) -> None:
        """Forget the steps that ended before `time`; later capacity stays the same."""
        for node, resource in tuple(self._stepped):
            steps = self._series[node][resource]
            old = [step for step in steps if step[0] <= time]
            if len(old) > 1:
                self._store(node, resource, [(0, old[-1][1]), *steps[len(old) :]])

    def capacity(self, times: IntArray, length: int) -> IntArray:
        """Least units in each of the intervals [time, time + length).

        Parameters
        ----------
        times : IntArray, shape (n,)
            Beginnings in UTC seconds, ascending and at least `length` apart.
        length
            Seconds in each interval.

        Returns
        -------
        IntArray, shape (nodes, resources, n)
            Base units that are there throughout each interval.
        """
        first = [[steps[0][1] for steps in node] for node in self._series]
        out = np.empty((len(self.nodes), len(self.resources), len(times)), dtype=np.int64)
        out[:] = np.array(first, dtype=np.int64).reshape(*out.shape[:2], 1)
        for node, resource in self._stepped:
            out[node, resource] = _lowest(self._series[node][resource], times, length)
        return out

    def changes(self, slot: int) -> set[int]:
        """Slots of that many seconds in which capacity may differ from the one before."""
        steps = (self._series[node][resource] for node, resource in self._stepped)
        times = [time for each in steps for time, _ in each[1:]]
        return {time // slot for time in times} | {-(-time // slot) for time in times}

    def _resource(self, resource: str) -> None:
        if resource not in self.resources:
            known = ", ".join(self.resources)
            raise ValueError(f"resource must be one of {known}; got {resource!r}")

    def _join(self, name: str, start: int, units: Mapping[str, int]) -> None:
        self._places[name] = len(self.nodes)
        self.nodes = (*self.nodes, name)
        self._series.append([[(0, 0)] for _ in self.resources])
        self.version += 1
        for r, resource in enumerate(self.resources):
            self._set(len(self.nodes) - 1, r, start, None, units.get(resource, 0))

    def _set(self, node: int, resource: int, start: int, end: int | None, value: int) -> None:
        old = self._series[node][resource]
        steps = [step for step in old if step[0] < start]
        steps.append((start, value))
        if end is not None:
            steps.append((end, _value(old, end)))
            steps += [step for step in old if step[0] > end]
        self._store(node, resource, steps)
        self.version += 1

    def _store(self, node: int, resource: int, steps: Steps) -> None:
        """Keep the steps, which must be sorted by time, without the idle ones."""
        kept = steps[:1]
        kept += [new for old, new in pairwise(steps) if new[1] != old[1]]
        self._series[node][resource] = kept
        if len(kept) > 1:
            self._stepped.add((node, resource))
        else:
            self._stepped.discard((node, resource))


def _time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read(node: str, resources: Mapping[str, Quantity]) -> dict[str, int]:
    """Quantities in base units."""
    if not isinstance(node, str) or not node:
        raise ValueError(f"node must have a name, got {node!r}")
    found = {}
    for resource, quantity in resources.items():
        try:
            found[resource] = base_units(resource, quantity)
        except ValueError as error:
            raise ValueError(f"node {node!r}, capacity of {resource}: {error}") from None
    return found


def _value(steps: Steps, time: int) -> int:
    return [step for step in steps if step[0] <= max(time, 0)][-1][1]


def _lowest(steps: Steps, times: IntArray, length: int) -> IntArray:
    """See `Inventory.capacity`, for one resource of one node."""
    begins = np.array([time for time, _ in steps], dtype=np.int64)
    values = np.array([value for _, value in steps], dtype=np.int64)
    lowest = values[np.searchsorted(begins, times, side="right") - 1]
    if len(times):
        # A step inside an interval lowers it if it goes down.
        at = np.searchsorted(times, begins, side="right") - 1
        inside = (at >= 0) & (begins < times[at] + length)
        np.minimum.at(lowest, at[inside], values[inside])
    return lowest
