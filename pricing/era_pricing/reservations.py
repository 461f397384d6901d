"""What the engine answers: quotes, decisions, reservations and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from era_pricing.arrays import IntArray
from era_pricing.bids import Commitment, ResourceRequest
from era_pricing.configurations import Quantity
from era_pricing.inventory import POOL, Inventory


class DuplicateReservation(ValueError):
    """A job id that is in use already."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job id {job_id!r} has a reservation already; use a new one")


class UnknownReservation(KeyError):
    """A job id without a reservation, or whose reservation has ended."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"no reservation with job id {self.job_id!r}, or it has ended"


@dataclass(frozen=True)
class Share:
    """Bundles of one configuration on one node.

    Attributes
    ----------
    node
        Name of the node.
    configuration
        Name of the configuration.
    count
        Bundles.
    units
        Base units that they take together, by resource.
    """

    node: str
    configuration: str
    count: int
    units: Mapping[str, int]


@dataclass(frozen=True)
class Placement:
    """What is reserved for one resource request, or for one chunk of it.

    Attributes
    ----------
    start, end
        Reserved time [start, end) in UTC seconds.
    slot_prices
        The price in micro-credits, cut at the slot boundaries.
    shares
        Which bundles are on which node.
    request
        Which of the bid's requests this is for, counted from 0.
    """

    start: int
    end: int
    slot_prices: tuple[int, ...]
    shares: tuple[Share, ...]
    request: int = 0

    @property
    def price(self) -> int:
        """Micro-credits."""
        return sum(self.slot_prices)

    @property
    def configurations(self) -> dict[str, int]:
        """Bundles by configuration."""
        found: dict[str, int] = {}
        for share in self.shares:
            found[share.configuration] = found.get(share.configuration, 0) + share.count
        return found

    @property
    def units(self) -> dict[str, int]:
        """Base units by resource, on all nodes together."""
        found: dict[str, int] = {}
        for share in self.shares:
            for resource, units in share.units.items():
                found[resource] = found.get(resource, 0) + units
        return found

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes it is on."""
        return tuple(dict.fromkeys(share.node for share in self.shares))


@dataclass(frozen=True)
class Window:
    """Where a request may be moved to until it begins, or if its capacity is lost, UTC seconds.

    Attributes
    ----------
    arrival, deadline
        Not to start before the one, to have ended by the other.
    """

    arrival: int
    deadline: int


@dataclass(frozen=True)
class Reservation:
    """An accepted bid; its price is fixed.

    Attributes
    ----------
    job_id
        The caller's name for it.
    placements
        What is reserved: one for each request, and more where a preemptible job is
        split; in the order of the requests, and of time.
    made
        When it was made, UTC seconds.
    commitment
        What may still be changed.
    windows
        One for each request; empty if nothing may be moved.
    overrun
        Seconds after the end that were bought at lower priority.
    overrun_price
        Micro-credits paid for them.
    """

    job_id: str
    placements: tuple[Placement, ...]
    made: int
    commitment: Commitment = Commitment.FIXED
    windows: tuple[Window, ...] = ()
    overrun: int = 0
    overrun_price: int = 0

    @classmethod
    def of(
        cls,
        job_id: str,
        configuration: str,
        count: int,
        units: Mapping[str, int],
        start: int,
        end: int,
        slot_prices: Iterable[int],
        made: int,
        node: str = POOL,
    ) -> Reservation:
        """A fixed reservation of one configuration on one node.

        Parameters
        ----------
        units
            Base units that all bundles take together, by resource.
        """
        taken = {resource: each for resource, each in units.items() if each}
        share = Share(node, configuration, count, taken)
        return cls(job_id, (Placement(start, end, tuple(slot_prices), (share,)),), made)

    @cached_property
    def start(self) -> int:
        """When the first placement begins, UTC seconds."""
        return min(placement.start for placement in self.placements)

    @cached_property
    def end(self) -> int:
        """When the last placement ends, UTC seconds; an overrun comes after that."""
        return max(placement.end for placement in self.placements)

    def at(self, placements: tuple[Placement, ...]) -> Reservation:
        """The same with other placements."""
        return Reservation(
            self.job_id,
            placements,
            self.made,
            self.commitment,
            self.windows,
            self.overrun,
            self.overrun_price,
        )

    def movable(self, now: int) -> list[tuple[Placement, Window]]:
        """The placements that have not begun and may be moved, and where to."""
        if not self.windows:
            return []
        return [(p, self.windows[p.request]) for p in self.placements if p.start > now]

    @property
    def price(self) -> int:
        """What was charged, micro-credits."""
        return self.overrun_price + sum(placement.price for placement in self.placements)

    @property
    def slot_prices(self) -> tuple[int, ...]:
        """The prices of all placements one after the other, cut at the slot boundaries."""
        return tuple(price for placement in self.placements for price in placement.slot_prices)


@dataclass(frozen=True, eq=False)
class Menu:
    """The price of one resource request at every start.

    Attributes
    ----------
    request
        The request.
    units
        Units of each priced resource that it takes in all.
    starts : IntArray, shape (m,)
        Every start that is offered, UTC seconds, ascending.
    prices : IntArray, shape (m,)
        The price of the whole request at each of them, micro-credits.
    reason
        Why there is none, as a sentence; None if there is one.
    """

    request: ResourceRequest
    units: Mapping[str, int]
    starts: IntArray
    prices: IntArray
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Quote:
    """The price of a bid now, without commitment.

    Attributes
    ----------
    menus
        For each alternative, a menu for each of its requests. Those of the later
        requests hold as the earlier ones are placed.
    alternative
        The alternative that is best for the bidder, counted from 0; None if none of
        them fits.
    placements
        What would be reserved.
    overrun_price
        Micro-credits for the overrun that was asked for.
    reason
        Why there is no offer, as a sentence; None if there is one.
    """

    menus: tuple[tuple[Menu, ...], ...]
    alternative: int | None = None
    placements: tuple[Placement, ...] = ()
    overrun_price: int = 0
    reason: str | None = None

    @property
    def feasible(self) -> bool:
        """Whether there is an offer."""
        return self.alternative is not None

    @cached_property
    def price(self) -> int | None:
        """Price of the offer with its overrun, micro-credits; None without one."""
        if self.alternative is None:
            return None
        return self.overrun_price + sum(placement.price for placement in self.placements)

    @property
    def start(self) -> int | None:
        """When the offer begins, UTC seconds; None without one."""
        return min((placement.start for placement in self.placements), default=None)

    @property
    def end(self) -> int | None:
        """When the offer ends, UTC seconds; None without one."""
        return max((placement.end for placement in self.placements), default=None)

    @property
    def slot_prices(self) -> tuple[int, ...]:
        """The prices of all placements one after the other, cut at the slot boundaries."""
        return tuple(price for placement in self.placements for price in placement.slot_prices)

    @property
    def menu(self) -> Menu:
        """The menu of the first request of the alternative offered, or of the first one."""
        return self.menus[self.alternative or 0][0]

    @property
    def units(self) -> Mapping[str, int]:
        """Units of each priced resource in `menu`."""
        return self.menu.units

    @property
    def starts(self) -> IntArray:
        """The starts in `menu`, UTC seconds."""
        return self.menu.starts

    @property
    def prices(self) -> IntArray:
        """The prices in `menu`, micro-credits; an overrun comes on top."""
        return self.menu.prices


@dataclass(frozen=True, eq=False)
class Decision:
    """The answer to a bid.

    Attributes
    ----------
    accepted
        Whether the reservation was made.
    price
        What it costs, or would have cost; None if it fits nowhere.
    reservation
        The reservation if accepted.
    reason
        Why it was not accepted, as a sentence.
    quote
        What the decision was based on.
    """

    accepted: bool
    price: int | None
    reservation: Reservation | None
    reason: str | None
    quote: Quote


@dataclass(frozen=True)
class Allocation:
    """What should run for one reservation right now.

    Attributes
    ----------
    placements
        Those that are running: bundles, nodes and when they end. In an overrun
        the ones that ended last.
    end
        When the last of them ends; of an overrun, when it ends at the latest.
    overrun
        Whether this goes on after its reserved end, at lower priority.
    """

    placements: tuple[Placement, ...]
    end: int
    overrun: bool = False

    @property
    def units(self) -> dict[str, int]:
        """Base units by resource."""
        found: dict[str, int] = {}
        for placement in self.placements:
            for resource, units in placement.units.items():
                found[resource] = found.get(resource, 0) + units
        return found


@dataclass(frozen=True)
class CapacityChange:
    """What a node has in [start, end), for good if `end` is None.

    Attributes
    ----------
    start, end
        UTC seconds.
    resources
        Quantities in Kubernetes notation; those not named stay as they are.
    node
        Name of the node. One that is not known yet joins at `start`. None: the
        only one.
    """

    start: int
    end: int | None
    resources: Mapping[str, Quantity]
    node: str | None = None


@dataclass(frozen=True)
class Feedback:
    """What the cloud reports to the engine.

    Attributes
    ----------
    capacity
        Changes of the inventory, in their order.
    terminated
        Job ids whose workload has ended.
    consumption
        Units in use by job id.
    waiting
        Processes that wait for resources, by job id.
    """

    capacity: Sequence[CapacityChange] = ()
    terminated: Sequence[str] = ()
    consumption: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateResult:
    """What feedback changed.

    Attributes
    ----------
    released
        Refund in micro-credits for each terminated job.
    broken
        Refund for each reservation that lost its capacity: all it was charged.
    unknown
        Terminated job ids that had no reservation any more.
    overruns
        Refund for each overrun that ended since the last update: the part of its
        price for the time it did not get.
    moved
        Reservations that have been moved since the last update, as they are now. One
        that was running may have been stopped: what should run, the allocation says.
    """

    released: Mapping[str, int]
    broken: Mapping[str, int]
    unknown: tuple[str, ...]
    overruns: Mapping[str, int] = field(default_factory=dict)
    moved: tuple[Reservation, ...] = ()


def last_of(placements: Sequence[Placement]) -> Placement:
    """What ends last; the first of equals."""
    return max(placements, key=lambda placement: placement.end)


def refund(placements: Sequence[Placement], slot: int, now: int) -> int:
    """Price of the parts that have not begun at `now`; all of it before the first start.

    Parameters
    ----------
    placements
        What is given back.
    slot
        Length of a slot in seconds.
    now
        UTC seconds.
    """
    if now < min(placement.start for placement in placements):
        return sum(placement.price for placement in placements)
    total = 0
    for placement in placements:
        first = placement.start // slot
        begun = 0 if now < placement.start else now // slot - first + 1
        total += sum(placement.slot_prices[begun:])
    return total


def check_changes(inventory: Inventory, changes: Sequence[CapacityChange]) -> None:
    """Raise ValueError if a change is not valid for the inventory."""
    joining: set[str] = set()
    for change in changes:
        node = change.node
        if node is not None and node not in inventory.nodes:
            joining.add(node)
        if node in joining:
            node = inventory.nodes[0]
        inventory.check(node, change.start, change.end, change.resources)


def apply_changes(inventory: Inventory, changes: Sequence[CapacityChange]) -> None:
    """Change the inventory; nodes that are not known join, without resources so far."""
    for change in changes:
        if change.node is not None and change.node not in inventory.nodes:
            inventory.add_node(change.node, {})
        inventory.set_capacity(change.node, change.start, change.end, change.resources)


def check_parts(reservation: Reservation, slot: int) -> None:
    """Raise ValueError if a placement's prices are not cut at the slot boundaries."""
    if not reservation.placements:
        raise ValueError(f"reservation {reservation.job_id!r} must have a placement")
    for placement in reservation.placements:
        parts = -(-placement.end // slot) - placement.start // slot
        if parts != len(placement.slot_prices):
            raise ValueError(
                f"reservation {reservation.job_id!r} has {len(placement.slot_prices)} slot "
                f"prices, but takes {parts} slots of {slot} seconds"
            )


EMPTY: IntArray = np.empty(0, dtype=np.int64)
EMPTY.flags.writeable = False
