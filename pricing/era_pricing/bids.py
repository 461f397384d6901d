"""Bids: what is asked for, within which windows, and the most it may cost."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

LATEST = 253_402_300_799
"""The last second of the year 9999, in UTC seconds: the latest time a bid may name."""
MOST_VALUE = 10**15
"""The greatest value of a bid, in micro-credits: a billion credits; sums stay within 64 bits."""
MOST_BUNDLES = 10**9
"""The most bundles of one configuration in a request."""

_T = TypeVar("_T")


class BidError(ValueError):
    """A bid that cannot be considered.

    The text is one sentence for the bidder. It begins with the field at
    fault, as a path (``alternatives[1].requests[0].duration``), and says what
    would work.
    """

    def within(self, path: str) -> BidError:
        """The same error, seen from the object that has this one at `path`."""
        return type(self)(f"{path}.{self}")


class Commitment(StrEnum):
    """What the promise of an accepted bid fixes."""

    FIXED = "fixed"
    """Keeps the start it was told: a notebook."""
    FLEXIBLE = "flexible"
    """May be moved inside its window until it starts: a job."""
    PREEMPTIBLE = "preemptible"
    """May be split into chunks: a job that writes checkpoints."""


def whole(field: str, value: object, least: int, most: int, unit: str) -> int:
    """`value` as an int between `least` and `most`.

    Parameters
    ----------
    field
        Path of the value in the bid, for the error.
    value
        Any object; only integers (numpy's too) that are no bools pass.
    least, most
        The range, both ends included.
    unit
        What is counted, in the plural.

    Raises
    ------
    BidError
        If it is not such a number.
    """
    if type(value) is int and least <= value <= most:
        return value
    needed = f"{field} must be a whole number of {unit}"
    if isinstance(value, bool):
        raise BidError(f"{needed}, {least} or more; got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise BidError(f"{needed}, {least} or more; got {value!r}") from None
    if number < least:
        raise BidError(f"{needed}, {least} or more; got {number}")
    if number > most:
        raise BidError(f"{needed}, {most} or less; got {number}")
    return number


class Counts(Mapping[str, int]):
    """How many of each name: a mapping that never changes and can be hashed."""

    __slots__ = ("_counts", "_hash")

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = dict(counts)
        self._hash = hash(frozenset(self._counts.items()))

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Counts):
            return self._counts == other._counts
        return self._counts == other if isinstance(other, dict) else NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return repr(self._counts)


@dataclass(frozen=True)
class ResourceRequest:
    """Bundles of resources for `duration`, somewhere in a window.

    All bundles are had at the same time. One bundle is always on one node; two
    bundles may be on two.

    Parameters
    ----------
    configurations
        How many bundles of each configuration, by its name; kept as a copy.
    duration
        Seconds needed without a break; rounded up to whole slots.
    arrival, deadline
        The window [arrival, deadline) in UTC seconds: not to start before the
        one, to have ended by the other.

    Raises
    ------
    BidError
        If a field has the wrong type or range, nothing is asked for, the
        window is empty, or the duration is longer than the window.

    Examples
    --------
    >>> ResourceRequest({"gpu-8": 2}, duration=7200, arrival=0, deadline=86400).configurations
    {'gpu-8': 2}
    """

    configurations: Mapping[str, int]
    duration: int
    arrival: int
    deadline: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "configurations", _counts(self.configurations))
        for field, least, unit in (
            ("duration", 1, "seconds"),
            ("arrival", 0, "UTC seconds"),
            ("deadline", 0, "UTC seconds"),
        ):
            object.__setattr__(self, field, whole(field, getattr(self, field), least, LATEST, unit))
        if self.deadline <= self.arrival:
            raise BidError(
                f"deadline must be after arrival ({self.arrival} UTC seconds), got {self.deadline}"
            )
        if self.duration > self.deadline - self.arrival:
            raise BidError(
                f"duration must fit between arrival and deadline: {self.duration} seconds asked, "
                f"the window has {self.deadline - self.arrival}"
            )


def _counts(configurations: object) -> Counts:
    if isinstance(configurations, Counts) and configurations:
        return configurations
    if not isinstance(configurations, Mapping) or not configurations:
        raise BidError(
            "configurations must map at least one name to a number of bundles, "
            f"for example {{'gpu-1': 1}}; got {configurations!r}"
        )
    counts = {}
    for name, count in configurations.items():
        if not isinstance(name, str) or not name:
            raise BidError(f"configurations must have names as keys, got {name!r}")
        counts[name] = whole(f"configurations[{name!r}]", count, 1, MOST_BUNDLES, "bundles")
    return Counts(counts)


@dataclass(frozen=True)
class ValueStep:
    """What it is worth to have everything done by a moment.

    Parameters
    ----------
    deadline
        The value holds if all has ended by this time, in UTC seconds; None: by
        the end of the windows.
    value
        The most the bidder will pay then, in micro-credits.

    Raises
    ------
    BidError
        If a field has the wrong type or range.
    """

    deadline: int | None
    value: int

    def __post_init__(self) -> None:
        if self.deadline is not None:
            deadline = whole("deadline", self.deadline, 0, LATEST, "UTC seconds")
            object.__setattr__(self, "deadline", deadline)
        value = whole("value", self.value, 0, MOST_VALUE, "micro-credits")
        object.__setattr__(self, "value", value)


@dataclass(frozen=True)
class Alternative:
    """Requests that are only of use together, and what they are worth.

    Parameters
    ----------
    requests
        Joined by AND: all of them are had, or none.
    values
        The value by the time the last request has ended. Later deadlines have
        lower values; only the last step may be without a deadline.

    Raises
    ------
    BidError
        If there is no request or no step, or the steps do not fall.
    """

    requests: tuple[ResourceRequest, ...]
    values: tuple[ValueStep, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "requests", _all("requests", self.requests, ResourceRequest))
        object.__setattr__(self, "values", _all("values", self.values, ValueStep))
        for number, (step, later) in enumerate(
            zip(self.values, self.values[1:], strict=False), start=1
        ):
            if step.deadline is None:
                raise BidError(
                    f"values[{number - 1}].deadline must be a time: only the last step may "
                    "be without"
                )
            if later.deadline is not None and later.deadline <= step.deadline:
                raise BidError(
                    f"values[{number}].deadline must be after that of the step before "
                    f"({step.deadline} UTC seconds), got {later.deadline}"
                )
            if later.value >= step.value:
                raise BidError(
                    f"values[{number}].value must be less than that of the step before "
                    f"({step.value} micro-credits), got {later.value}"
                )

    def value_at(self, end: int) -> int:
        """Micro-credits it is worth if the last request ends at `end`, in UTC seconds.

        It is 0 after the deadline of the last step. Whether a request still
        ends inside its own window is not looked at here.
        """
        for step in self.values:
            if step.deadline is None or end <= step.deadline:
                return step.value
        return 0


@dataclass(frozen=True)
class Bid:
    """What somebody would buy, and the most they would pay for it.

    Parameters
    ----------
    alternatives
        Joined by XOR: at most one of them is had.
    commitment
        What an acceptance fixes; its text (``"flexible"``) will do too.
    overrun
        Seconds after the reserved end for which to go on at lower priority
        while capacity is idle.

    Raises
    ------
    BidError
        If a field has the wrong type or range, or there is no alternative.
    """

    alternatives: tuple[Alternative, ...]
    commitment: Commitment = Commitment.FIXED
    overrun: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "alternatives", _all("alternatives", self.alternatives, Alternative)
        )
        try:
            object.__setattr__(self, "commitment", Commitment(self.commitment))
        except ValueError:
            known = ", ".join(Commitment)
            raise BidError(f"commitment must be one of {known}; got {self.commitment!r}") from None
        object.__setattr__(self, "overrun", whole("overrun", self.overrun, 0, LATEST, "seconds"))

    @classmethod
    def of(
        cls,
        request: ResourceRequest,
        value: int,
        commitment: Commitment = Commitment.FIXED,
        overrun: int = 0,
    ) -> Bid:
        """A bid for one request, with one value for its whole window.

        Parameters
        ----------
        request
            What is asked for.
        value
            The most the bidder will pay, in micro-credits. No algorithm sees it.
        commitment, overrun
            As in `Bid`.

        Raises
        ------
        BidError
            If a field has the wrong type or range.
        """
        return cls((Alternative((request,), (ValueStep(None, value),)),), commitment, overrun)


def _all(field: str, items: object, kind: type[_T]) -> tuple[_T, ...]:
    """`items` as a tuple of at least one object of a kind."""
    found: tuple[object, ...] = tuple(items) if isinstance(items, Iterable) else ()
    if not found or isinstance(items, str | Mapping):
        raise BidError(f"{field} must list at least one {kind.__name__}, got {items!r}")
    kept = []
    for number, item in enumerate(found):
        if not isinstance(item, kind):
            raise BidError(f"{field}[{number}] must be of type {kind.__name__}, got {item!r}")
        kept.append(item)
    return tuple(kept)
