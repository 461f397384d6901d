"""What a request takes from the nodes, and whether the pool can ever serve it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from era_pricing.bids import BidError, ResourceRequest
from era_pricing.books import Books
from era_pricing.bundles import bundle_of
from era_pricing.configurations import Configuration
from era_pricing.placement import Bundle, Need, most_bundles

_REMEMBERED = 4096


def amount(resource: str, units: int) -> str:
    """So many units of a resource, for people."""
    if not resource.endswith("gpu"):
        return f"{units} units of {resource}"
    return "1 GPU" if units == 1 else f"{units} GPUs"


class Needs:
    """The configurations for sale, in units of the inventory's resources.

    Parameters
    ----------
    books
        Where the capacity is read.
    configurations
        The bundles for sale.
    priced
        Names of the priced resources.

    Raises
    ------
    ValueError
        If two configurations have the same name, one has a name that stands for a
        bundle, or the inventory does not know a priced resource.

    Notes
    -----
    Bundles that are called by their contents need not be announced: see
    `era_pricing.bundles`. They must have a priced resource, so that nothing is sold
    for nothing by accident.
    """

    def __init__(
        self, books: Books, configurations: Iterable[Configuration], priced: tuple[str, ...]
    ) -> None:
        self._books = books
        self._priced = priced
        self._resources = books.inventory.resources
        for name in priced:
            if name not in self._resources:
                known = ", ".join(self._resources) or "nothing"
                raise ValueError(
                    f"a priced resource must be in the inventory, which has {known}; got {name!r}"
                )
        self._units: dict[str, tuple[int, ...]] = {}
        for each in configurations:
            if each.name in self._units:
                raise ValueError(f"two configurations are named {each.name!r}")
            if "=" in each.name and bundle_of(each.name) != each:
                raise ValueError(
                    f"a configuration's name must not have a '=', as bundles have that are called "
                    f"by their contents; got {each.name!r}"
                )
            self._units[each.name] = tuple(each.units(r) for r in self._resources)
        self._needs: dict[Mapping[str, int], Need] = {}
        self._most: dict[str, tuple[tuple[int, int], int]] = {}

    def of(self, configurations: Mapping[str, int]) -> Need:
        """What so many bundles take together; BidError if a configuration is unknown."""
        found = self._needs.get(configurations) if not isinstance(configurations, dict) else None
        if found is None:
            found = self._need(configurations)
            if not isinstance(configurations, dict):
                if len(self._needs) >= _REMEMBERED:
                    self._needs.clear()
                self._needs[configurations] = found
        return found

    def check(self, request: ResourceRequest, now: int) -> Need:
        """What a request takes, or a BidError if it can never be served."""
        need = self.of(request.configurations)
        grid = self._books.grid
        if request.deadline <= now:
            raise BidError(
                f"deadline must be after now ({now} UTC seconds), got {request.deadline}"
            )
        if request.duration > grid.horizon:
            raise BidError(
                f"duration must be at most {grid.horizon} seconds, as far as the pool "
                f"sells ahead; got {request.duration}"
            )
        for bundle in need.bundles:
            most = self._most_of(bundle)
            if bundle.copies > most:
                works = f"be at most {most}: the pool holds no more of them"
                if not most:
                    works = "fit a node, and no node is that large"
                raise BidError(
                    f"configurations[{bundle.configuration!r}] must {works}; "
                    f"{self.words(need)} asked"
                )
        if len(need.bundles) > 1:
            self._check_total(need)
        return need

    def words(self, need: Need) -> str:
        """What is asked for, for people: the priced resources, or else the bundles."""
        if need.priced:
            return " and ".join(amount(name, units) for name, units in need.priced.items())
        return " and ".join(f"{b.copies} x {b.configuration}" for b in need.bundles)

    def _need(self, configurations: Mapping[str, int]) -> Need:
        bundles = []
        for name, count in configurations.items():
            each = self._units[name] if name in self._units else self._unnamed(name)
            bundles.append(Bundle(name, count, each))
        total = tuple(
            sum(b.copies * b.units[r] for b in bundles) for r in range(len(self._resources))
        )
        priced = {}
        for name in self._priced:
            units = total[self._resources.index(name)]
            if units:
                priced[name] = units
        bundles.sort(key=self._size, reverse=True)
        return Need(tuple(bundles), total, priced)

    def _unnamed(self, name: str) -> tuple[int, ...]:
        """What a bundle takes that is called by its contents."""
        found = bundle_of(name)
        if found is None:
            known = ", ".join(sorted(self._units))
            raise BidError(f"configurations must be among {known}; got {name!r}")
        for resource in found.resources:
            if resource not in self._resources:
                known = ", ".join(self._resources)
                raise BidError(f"resources must be among {known}; got {resource!r}")
        if not any(found.units(resource) for resource in self._priced):
            raise BidError(f"resources must have some {' or '.join(self._priced)}; got {name!r}")
        return tuple(found.units(r) for r in self._resources)

    def _size(self, bundle: Bundle) -> tuple[tuple[int, ...], tuple[int, ...]]:
        priced = tuple(bundle.units[self._resources.index(name)] for name in self._priced)
        return priced, bundle.units

    def _most_of(self, bundle: Bundle) -> int:
        """How many such bundles the empty pool holds in the best slot that is for sale."""
        if not any(bundle.units):
            return bundle.copies
        plan = self._books.plan
        state = (self._books.inventory.version, plan.base)
        known = self._most.get(bundle.configuration)
        if known is None or known[0] != state:
            if len(self._most) >= _REMEMBERED:
                self._most.clear()
            there = plan.there(plan.base, self._books.grid.slots)
            known = self._most[bundle.configuration] = (state, most_bundles(there, bundle))
        return known[1]

    def _check_total(self, need: Need) -> None:
        plan, slots = self._books.plan, self._books.grid.slots
        for resource, units in enumerate(need.total):
            most = int(plan.capacity(resource, plan.base, slots).max()) if units else 0
            if units > most:
                name = self._resources[resource]
                raise BidError(
                    f"configurations must take at most {amount(name, most)} together; "
                    f"{amount(name, units)} asked"
                )
