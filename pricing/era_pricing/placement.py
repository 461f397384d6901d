"""Which node takes which bundle, and where a request fits for its whole duration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import IntArray

BoolArray = npt.NDArray[np.bool_]
Number = TypeVar("Number", bound=np.bool_ | np.integer)


class Bundle(NamedTuple):
    """`copies` bundles of a configuration, and base units of each resource per bundle."""

    configuration: str
    copies: int
    units: tuple[int, ...]


class Need(NamedTuple):
    """What a request takes in every slot that it touches.

    Attributes
    ----------
    bundles
        The largest first, so that the small ones fill what is left.
    total
        Base units of each resource in the inventory, all bundles together.
    priced
        Units by priced resource; those of which it takes none are left out.
    """

    bundles: tuple[Bundle, ...]
    total: tuple[int, ...]
    priced: Mapping[str, int]

    @classmethod
    def of(cls, bundles: Iterable[Bundle]) -> Need:
        """What these bundles take, in the order given; without prices."""
        kept = tuple(bundles)
        total = tuple(
            sum(column)
            for column in zip(*([b.copies * u for u in b.units] for b in kept), strict=True)
        )
        return cls(kept, total, {})


Assignment = tuple[tuple[int, Bundle], ...]
"""Nodes, by their place in the inventory, and the bundles that each takes."""


def open_slots(free: IntArray, need: Need) -> BoolArray:
    """Slots in which a request fits, each looked at by itself; shape (n,).

    Parameters
    ----------
    free : IntArray, shape (nodes, resources, n)
        Units not promised.
    need
        What is asked for.
    """
    if len(free) == 1:
        fits: BoolArray | None = None
        for resource, units in enumerate(need.total):
            if units:
                here: BoolArray = free[0, resource] >= units
                fits = here if fits is None else fits & here
        return np.ones(free.shape[2], dtype=np.bool_) if fits is None else fits
    return _room(free, need.bundles)


def open_starts(free: IntArray, need: Need, length: int) -> BoolArray:
    """Slots from which a request fits on the same nodes for `length` slots.

    Parameters
    ----------
    free : IntArray, shape (nodes, resources, n)
        Units not promised.
    need
        What is asked for.
    length
        Slots, at most n.

    Returns
    -------
    bool array, shape (n - length + 1,)
    """
    if len(free) == 1:
        return sliding_minimum(open_slots(free, need), length)
    some = [bundle for bundle in need.bundles if any(bundle.units)]
    if not some:
        return np.ones(free.shape[2] - length + 1, dtype=np.bool_)
    if len(some) == 1:
        # The least of whole quotients is the quotient of the least.
        held: npt.NDArray[np.integer] = _per_node(free, some[0])
        # Small numbers, so that there is little memory to go through.
        held = held.astype(np.min_scalar_type(some[0].copies))
        enough: BoolArray = _count(sliding_minimum(held, length)) >= some[0].copies
        return enough
    return _room(sliding_minimum(free, length), tuple(some))


def sliding_minimum(values: npt.NDArray[Number], length: int) -> npt.NDArray[Number]:
    """Least of every `length` neighbours along the last axis; shape (..., n - length + 1).

    Doubles the width of the windows until two overlapping ones make up the length.
    """
    width = 1
    while 2 * width <= length:
        values = np.minimum(values[..., :-width], values[..., width:])
        width *= 2
    if width < length:
        values = np.minimum(values[..., : width - length], values[..., length - width :])
    return values


def assign(free: IntArray, need: Need) -> Assignment | None:
    """Nodes for every bundle, for all slots given; None if there are none.

    Fills the nodes up that have least left, so that large bundles find a node
    later.

    Parameters
    ----------
    free : IntArray, shape (nodes, resources, n)
        Units not promised; n at least 1.
    need
        What is asked for.
    """
    if len(free) == 1:
        fits = all(
            units <= left
            for units, left in zip(need.total, free[0].min(axis=1).tolist(), strict=True)
            if units
        )
        return tuple((0, bundle) for bundle in need.bundles) if fits else None
    least = free.min(axis=2)
    return _assign(least.copy(), need.bundles, True) or _assign(least, need.bundles, False)


def most_bundles(there: IntArray, bundle: Bundle) -> int:
    """How many such bundles fit at most in one column of `there`; see `open_slots`."""
    return int(_count(_quotients(there, bundle)).max(initial=0))


def _assign(least: IntArray, bundles: tuple[Bundle, ...], tight: bool) -> Assignment | None:
    """Place the bundles one configuration after the other; changes `least`.

    Without `tight` the nodes are taken in their order, as `_room` does.
    """
    found: list[tuple[int, Bundle]] = []
    for bundle in bundles:
        if not any(bundle.units):
            found.append((0, bundle))
            continue
        held = _per_node(least, bundle)
        order = np.flatnonzero(held > 0)
        if tight:
            enough = order[held[order] >= bundle.copies]
            order = enough if len(enough) else order
            order = order[np.argsort(_slack(least[order], bundle), kind="stable")]
        left = bundle.copies
        for node in order.tolist():
            taken = min(left, int(held[node]))
            least[node] -= np.array(bundle.units) * taken
            found.append((node, bundle._replace(copies=taken)))
            left -= taken
            if not left:
                break
        if left:
            return None
    return tuple(found)


def _slack(least: IntArray, bundle: Bundle) -> IntArray:
    """What is left on each node of the resource that limits the bundle most; shape (k,)."""
    units = np.array(bundle.units)
    used = units > 0
    slack: IntArray = (least[:, used] // units[used]).min(axis=1)
    return slack


def _room(free: IntArray, bundles: tuple[Bundle, ...]) -> BoolArray:
    """Columns in which all bundles find a node; shape (n,)."""
    fits = np.ones(free.shape[2], dtype=np.bool_)
    some = [bundle for bundle in bundles if any(bundle.units)]
    if len(some) > 1:
        free = free.copy()
    for number, bundle in enumerate(some):
        held = _per_node(free, bundle)
        fits &= _count(held) >= bundle.copies
        if number + 1 < len(some):
            before = np.cumsum(held, axis=0) - held
            taken = np.clip(bundle.copies - before, 0, held)
            for resource, units in enumerate(bundle.units):
                if units:
                    free[:, resource] -= units * taken
    return fits


def _per_node(free: IntArray, bundle: Bundle) -> IntArray:
    """Bundles that each node holds, no more than are asked for; shape (nodes, ...)."""
    return np.clip(_quotients(free, bundle), 0, bundle.copies)


def _quotients(free: IntArray, bundle: Bundle) -> IntArray:
    """Bundles that each node holds; below 0 where it is overdrawn."""
    held: IntArray | None = None
    for resource, units in enumerate(bundle.units):
        if units:
            here = free[:, resource] if units == 1 else free[:, resource] // units
            held = here if held is None else np.minimum(held, here)
    assert held is not None
    return held


def _count(held: npt.NDArray[np.integer]) -> IntArray:
    total: IntArray = held.sum(axis=0, dtype=np.int64)
    return total
