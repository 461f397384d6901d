"""What the engine answers: quotes, decisions, reservations and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from era_pricing.arrays import IntArray


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


@dataclass(frozen=True, eq=False)
class Quote:
    """The price of a request now, without commitment.

    Attributes
    ----------
    configuration, count
        As in the request.
    units
        Units of the priced resource that it takes in all.
    starts : IntArray, shape (m,)
        Every feasible start among the candidates, UTC seconds, ascending.
    prices : IntArray, shape (m,)
        The price of the whole request at each of them, micro-credits.
    start, end, price
        The offer: reserved time in UTC seconds, and its price; None without one.
    slot_prices
        The price cut at the slot boundaries; sums exactly to `price`.
    reason
        Why there is no offer, as a sentence; None if there is one.
    """

    configuration: str
    count: int
    units: int
    starts: IntArray
    prices: IntArray
    start: int | None = None
    end: int | None = None
    price: int | None = None
    slot_prices: tuple[int, ...] = ()
    reason: str | None = None

    @property
    def feasible(self) -> bool:
        """Whether there is an offer."""
        return self.start is not None


@dataclass(frozen=True)
class Reservation:
    """An accepted bid; its price is fixed.

    Attributes
    ----------
    job_id
        The caller's name for it.
    configuration, count, units
        Bundles reserved, and units of the priced resource they take in all.
    start, end
        Reserved time [start, end) in UTC seconds.
    slot_prices
        The price in micro-credits, cut at the slot boundaries.
    made
        When it was made, UTC seconds.
    """

    job_id: str
    configuration: str
    count: int
    units: int
    start: int
    end: int
    slot_prices: tuple[int, ...]
    made: int

    @property
    def price(self) -> int:
        """What was charged, micro-credits."""
        return sum(self.slot_prices)


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
    """What should run for one reservation right now: `count` bundles until `end`."""

    configuration: str
    count: int
    units: int
    start: int
    end: int


@dataclass(frozen=True)
class Feedback:
    """What the cloud reports to the engine.

    Attributes
    ----------
    capacity
        Changes (start, end or None, units) of the inventory, in their order.
    terminated
        Job ids whose workload has ended.
    consumption
        Units in use by job id.
    waiting
        Processes that wait for resources, by job id.
    """

    capacity: Sequence[tuple[int, int | None, int]] = ()
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
    """

    released: Mapping[str, int]
    broken: Mapping[str, int]
    unknown: tuple[str, ...]
