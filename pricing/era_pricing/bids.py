"""Bids: what is asked for, within which window, and the most it may cost."""

from __future__ import annotations

import operator
from dataclasses import dataclass


class BidError(ValueError):
    """A bid that cannot be considered; the text is one sentence for the bidder."""


def _whole(field: str, value: object, least: int, unit: str) -> int:
    """`value` as an int of at least `least`, or a BidError that names the field."""
    needed = f"{field} must be a whole number of {unit}, {least} or more"
    if isinstance(value, bool):
        raise BidError(f"{needed}, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise BidError(f"{needed}, got {value!r}") from None
    if number < least:
        raise BidError(f"{needed}, got {number}")
    return number


@dataclass(frozen=True)
class ResourceRequest:
    """`count` bundles of a configuration for `duration`, somewhere in a window.

    Parameters
    ----------
    configuration
        Name of the configuration.
    duration
        Seconds needed without a break; rounded up to whole slots.
    arrival, deadline
        The window [arrival, deadline) in UTC seconds: not to start before the
        one, to have ended by the other.
    count
        Bundles, all at the same time.

    Raises
    ------
    BidError
        If a field has the wrong type or range, the window is empty, or the
        duration is longer than the window.
    """

    configuration: str
    duration: int
    arrival: int
    deadline: int
    count: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.configuration, str) or not self.configuration:
            raise BidError(f"configuration must be a name, got {self.configuration!r}")
        for field, least, unit in (
            ("duration", 1, "seconds"),
            ("arrival", 0, "UTC seconds"),
            ("deadline", 0, "UTC seconds"),
            ("count", 1, "bundles"),
        ):
            object.__setattr__(self, field, _whole(field, getattr(self, field), least, unit))
        if self.deadline <= self.arrival:
            raise BidError(
                f"deadline must be after arrival ({self.arrival} UTC seconds), got {self.deadline}"
            )
        if self.duration > self.deadline - self.arrival:
            raise BidError(
                f"duration must fit between arrival and deadline: {self.duration} seconds asked, "
                f"the window has {self.deadline - self.arrival}"
            )


@dataclass(frozen=True)
class Bid:
    """A resource request and its value.

    Parameters
    ----------
    request
        What is asked for.
    value
        The most the bidder will pay, in micro-credits. No algorithm sees it.

    Raises
    ------
    BidError
        If the value is not a whole, non-negative number.
    """

    request: ResourceRequest
    value: int

    def __post_init__(self) -> None:
        if not isinstance(self.request, ResourceRequest):
            raise BidError(f"request must be a resource request, got {self.request!r}")
        object.__setattr__(self, "value", _whole("value", self.value, 0, "micro-credits"))
