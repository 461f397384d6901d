"""What there is to sell on each node: what the cloud has, less what admins hold back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from era_pricing import CapacityChange, Configuration, Inventory, base_units
from era_pricing.configurations import Quantity
from era_pricing.inventory import POOL

from ..clouds.base import Node
from .terms import Terms

Running = Sequence[tuple[int, Mapping[str, int]]]
"""When something that runs on a node ends, UTC seconds, and what it takes until then."""


def machine(resource: str, units: int) -> tuple[Node, ...]:
    """The only node of a pool of one machine."""
    return (Node(POOL, {resource: str(units)}),)


def units_of(nodes: Iterable[Node], resource: str) -> int:
    """How much of a resource there is on all nodes together, in base units."""
    return sum(base_units(resource, each.resources.get(resource, 0)) for each in nodes)


def inventory(
    nodes: Sequence[Node], resource: str, configurations: Iterable[Configuration]
) -> Inventory:
    """The engine's inventory of these nodes.

    Only what is priced, or taken by something for sale, is counted: nobody can run short
    of the rest. A cluster without nodes has one that is empty, until the first one joins.
    """
    counted = {resource}
    for each in configurations:
        counted |= each.taken.keys()
    there = {name for each in nodes for name in each.resources}
    # On one machine nobody knows how many cores there are: those are not counted.
    kept = sorted(counted & (there or counted) | {resource}, key=lambda name: name != resource)
    found = {each.name: {name: each.resources.get(name, 0) for name in kept} for each in nodes} or {
        POOL: dict.fromkeys(kept, 0)
    }
    return Inventory(found)


def changes(
    inventory: Inventory,
    nodes: Sequence[Node],
    terms: Terms,
    resource: str,
    running: Mapping[str, Running],
) -> Iterator[CapacityChange]:
    """What each node has for the market over time.

    Parameters
    ----------
    inventory : Inventory
        Whose nodes are set; those that are not among `nodes` are gone, and have nothing.
    nodes : sequence of Node
    terms : Terms
        What is not for sale is taken from the last nodes, so that it leaves others whole.
    resource : str
        The priced one, of which the terms speak.
    running : mapping
        What runs on the nodes that are closed: they have nothing else.
    """
    there = {each.name: each for each in nodes}
    for name in inventory.nodes:
        if name not in there:
            yield CapacityChange(0, None, dict.fromkeys(inventory.resources, 0), name)
    for each in nodes:
        if each.open:
            given = {name: each.resources.get(name, 0) for name in inventory.resources}
            yield CapacityChange(0, None, given, each.name)
        else:
            yield from _closed(each, inventory, running.get(each.name, ()))
    yield from _withheld([each for each in nodes if each.open], terms, resource)


def _closed(node: Node, inventory: Inventory, running: Running) -> Iterator[CapacityChange]:
    """What runs goes on; what becomes free stays so."""
    edges = [0, *sorted({end for end, _ in running})]
    for start, end in pairwise([*edges, None]):
        assert start is not None
        left: dict[str, Quantity] = {
            name: _text(name, sum(taken.get(name, 0) for until, taken in running if until > start))
            for name in inventory.resources
        }
        yield CapacityChange(start, end, left, node.name)


def _withheld(nodes: Sequence[Node], terms: Terms, resource: str) -> Iterator[CapacityChange]:
    sizes = [(each.name, base_units(resource, each.resources.get(resource, 0))) for each in nodes]
    total = sum(units for _, units in sizes)
    for start, end, left in terms.for_sale(total):
        missing = total - left
        for name, units in reversed(sizes):
            if missing <= 0:
                break
            taken = min(units, missing)
            missing -= taken
            yield CapacityChange(start, end, {resource: units - taken}, name)


def _text(resource: str, units: int) -> Quantity:
    return f"{units}m" if resource == "cpu" else units
