"""What a pricing algorithm sees, and what it must answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from era_pricing.arrays import IntArray
from era_pricing.predictors.base import Predictor
from era_pricing.timegrid import TimeGrid

if TYPE_CHECKING:
    from era_pricing.workload import Workload

NOT_FOR_SALE = -1
"""Rate of a slot that an algorithm does not want to sell."""


class EarlyStart(StrEnum):
    """When a job that may be moved starts before it is planned to."""

    NEVER = "never"
    """It keeps its start unless it is moved to make room."""
    IDLE = "idle"
    """When its units are idle for its whole duration."""
    CHEAPER = "cheaper"
    """When besides they cost no more at once than at the planned time."""


@dataclass(frozen=True, eq=False)
class Market:
    """The state of one priced resource in a row of n adjacent slots.

    Attributes
    ----------
    now : int
        UTC seconds.
    slot : int
        Length of a slot in seconds.
    times : IntArray, shape (n,)
        Beginnings of the slots, UTC seconds.
    capacity, promised : IntArray, shape (n,)
        Units that there are on all nodes together, and units given away already.
    predictor : Predictor
        Forecast of the demand still to come.
    price_floor : int
        Least price of a unit, micro-credits per hour.
    resource : str
        Name of the resource.
    price_ceiling : int or None
        Greatest price of a unit, micro-credits per hour; None for no limit.
    """

    now: int
    slot: int
    times: IntArray
    capacity: IntArray
    promised: IntArray
    predictor: Predictor
    price_floor: int
    resource: str = "nvidia.com/gpu"
    price_ceiling: int | None = None

    @cached_property
    def free(self) -> IntArray:
        """Units not promised yet, shape (n,)."""
        return self.capacity - self.promised

    def staying(self, units: int) -> IntArray:
        """Units promised that can stay beside so many more, shape (n,); others would move."""
        return np.minimum(self.promised, np.maximum(self.capacity - units, 0))


@dataclass(frozen=True, eq=False)
class Outlook:
    """The state of one priced resource from the slot that has just begun to the horizon.

    Attributes
    ----------
    now : int
        UTC seconds.
    grid : TimeGrid
        Slot length and horizon.
    resource : str
        Name of the resource.
    first : int
        Absolute index of the running slot.
    capacity : IntArray, shape (n,)
        Units that there are in each slot from `first` on.
    promised, firm : IntArray, shape (n,)
        Units promised, and those of them promised to what cannot be moved.
    flexible : Workload
        What is promised but may still be moved inside its window. Its values are
        the prices paid; nobody's bid is shown.
    predictor : Predictor
        Forecast of the demand still to come.
    price_floor : int
        Least price of a unit, micro-credits per hour.
    price_ceiling : int or None
        Greatest price of a unit, micro-credits per hour; None for no limit.
    """

    now: int
    grid: TimeGrid
    resource: str
    first: int
    capacity: IntArray
    promised: IntArray
    firm: IntArray
    flexible: Workload
    predictor: Predictor
    price_floor: int
    price_ceiling: int | None = None


@dataclass(frozen=True)
class Piece:
    """Units in [start, end), by priced resource; one piece of an offer."""

    start: int
    end: int
    units: Mapping[str, int]


@dataclass(frozen=True)
class Offer:
    """What was offered to a bid.

    Attributes
    ----------
    units
        Units by priced resource, summed over the requests of the bid.
    start, end
        From the first beginning to the last end, UTC seconds.
    price
        Micro-credits for everything.
    spans
        The pieces it consists of: one for each request, and more where a
        preemptible job is split.
    """

    units: Mapping[str, int]
    start: int
    end: int
    price: int
    spans: tuple[Piece, ...] = ()


class Algorithm(ABC):
    """Prices slots and says which starts are on the menu. It never learns a bid's value.

    For each priced resource the engine asks for `rates`, adds them up to the price
    of every start at which the request fits, lets `offers` choose which of them are
    on the menu, takes the one that is best for the bidder, and reports the outcome
    to `settle`. Whether a request fits is decided by the engine alone, so no
    algorithm can promise more than there is.

    Attributes
    ----------
    takes_earliest : bool
        Whether `offers` keeps one of the first two starts it is given, and that alone. The
        engine then prices no starts after them, and takes no longer for a long window.
    early_start : EarlyStart
        When jobs that may be moved start before they are planned to, if the engine is
        not told otherwise. By default idle capacity is used, the "empty allocation" of
        the ERA paper; `EarlyStart.CHEAPER` suits prices that foresee who else will come.
    """

    name: ClassVar[str]
    takes_earliest: ClassVar[bool] = False
    early_start: ClassVar[EarlyStart] = EarlyStart.IDLE

    @abstractmethod
    def rates(self, units: int, market: Market) -> IntArray:
        """Price of `units` units together in each slot.

        Parameters
        ----------
        units
            Units of `market.resource` asked for, at least 1.
        market
            The n slots that the request could touch.

        Returns
        -------
        IntArray, shape (n,)
            Micro-credits per hour, or `NOT_FOR_SALE`. Not read where the units do
            not fit, but they may fit where they are not free, once others have been
            moved. The engine raises it to the price floor of all units where it is
            below, and lowers it to the ceiling where it is above. Where units cost
            more one after the other, limit each of them to the ceiling: a limit on
            their sum alone makes it pay to split a request.
        """

    def offers(self, starts: IntArray, prices: IntArray, earliest: int) -> slice | IntArray:
        """Which starts are on the menu; by default all.

        Parameters
        ----------
        starts : IntArray, shape (m,)
            Starts at which the request fits, UTC seconds, ascending; at least one.
        prices : IntArray, shape (m,)
            Price of the whole request at each start, micro-credits.
        earliest
            The first moment at which the request could begin if there were nobody
            else: now or its arrival, UTC seconds.

        Returns
        -------
        slice or IntArray
            Which of the m starts may be offered, in ascending order.
        """
        return slice(None)

    def settle(self, offer: Offer, taken: bool) -> None:  # noqa: B027 - optional to override
        """Hear whether the bid took the offer; does nothing by default."""

    def due(self, resource: str, now: int) -> bool:
        """Whether `prepare` has anything to do in the slot that has begun; by default yes.

        An outlook over all promises is not for nothing: say no where it is not wanted.
        """
        return True

    def prepare(self, outlook: Outlook) -> None:  # noqa: B027 - optional to override
        """Hear that a slot has begun, once for each priced resource; nothing by default."""

    def state(self) -> bytes | None:
        """What it has worked out in `prepare`, for `resume`; None if nothing, as by default."""
        return None

    def resume(self, state: bytes | None) -> None:  # noqa: B027 - optional to override
        """Go on from a `state`, of this process or another; does nothing by default.

        Without one, or with one that it can't use, such as one of another algorithm or
        version, the algorithm begins anew.
        """
