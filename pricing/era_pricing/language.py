"""The bidding language: bids as documents, in JSON or YAML.

A bid for one request is one flat mapping::

    {"configurations": {"gpu-8": 1}, "duration": "2h", "deadline": "+1d", "value": "12.50"}

Requests that are only of use together are listed under `and`, and what would
do instead of each other under `xor`. Values are in credits and may fall in
steps. `schema` describes all of it.

**Bundles without a name.** A request may give `resources` in place of
`configurations`. Such a bundle is a configuration as well; its name is its
contents, such as ``cpu=500m,nvidia.com/gpu=4`` (see `era_pricing.bundles`).
`parse_bid` returns the bundles that a bid brings along, for whoever loads the
bid to make known to the engine. Where only reservations are left, as after a
restart, `bundle_of` gets the same bundle back from its name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from era_pricing.bid_schema import BID, REQUEST, WORDS, schema
from era_pricing.bids import (
    MOST_BUNDLES,
    Alternative,
    Bid,
    BidError,
    Commitment,
    ResourceRequest,
    ValueStep,
)
from era_pricing.bundles import bundle, bundle_of
from era_pricing.configurations import Configuration
from era_pricing.notation import (
    exact,
    read_credits,
    read_duration,
    read_quantity,
    read_time,
    shown,
    write_credits,
    write_duration,
    write_time,
)

__all__ = ["LanguageError", "ParsedBid", "dump_bid", "parse_bid", "schema"]

_PLACES = {
    **dict.fromkeys(REQUEST, "in a request"),
    **dict.fromkeys(BID, "at the top of the bid"),
    "and": "at the top or in an alternative of xor, in place of a request",
    "xor": "at the top of the bid, in place of a request",
    "value": "at the top or in each alternative of xor, once for all its requests",
    "by": "in a step of a value",
}


class LanguageError(BidError):
    """A document that is no bid.

    Parameters
    ----------
    path
        Where in the document, such as ``xor[1].and[0].duration``; empty for all of it.
    problem
        What is wrong there and what would work. The text of the error is the
        path and the problem.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path} {self.problem}" if self.path else f"the bid {self.problem}"

    def within(self, path: str) -> LanguageError:
        """The same error, seen from the document that has this one at `path`."""
        return LanguageError(f"{path}.{self.path}" if self.path else path, self.problem)


@dataclass(frozen=True)
class ParsedBid:
    """A bid, and the configurations that came with it.

    Parameters
    ----------
    bid
        What was asked for.
    configurations
        The bundles without a name of their own, by which `bid` calls them.
    """

    bid: Bid
    configurations: tuple[Configuration, ...]


def parse_bid(
    document: Mapping[str, Any] | str, now: int, known: Collection[str] | None = None
) -> ParsedBid:
    """Read a bid.

    Parameters
    ----------
    document
        A JSON text, or what a JSON or YAML file held. Floats count as their
        shortest decimal text; a time may be an aware `datetime`.
    now
        When the bid was submitted, in UTC seconds.
    known
        Names of the configurations for sale; others are refused. None: any name
        will do here, and the engine has its say later.

    Returns
    -------
    ParsedBid
        The bid, and the configurations of its bundles without a name.

    Raises
    ------
    LanguageError
        If the document is no bid. The text names the place by its path.

    Examples
    --------
    >>> parsed = parse_bid('{"configurations": {"gpu-8": 1}, "duration": "2h", '
    ...                    '"deadline": "+1d", "value": "12.50"}', now=0)
    >>> parsed.bid.alternatives[0].values
    (ValueStep(deadline=None, value=12500000),)
    """
    if isinstance(document, str):
        document = _from_json(document)
    reader = _Reader(now, known)
    bid = reader.bid(document)
    return ParsedBid(bid, tuple(reader.bundles.values()))


def _from_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise ValueError(f"a mapping has {shown(twice)} twice")
        return found

    try:
        return json.loads(
            text, parse_float=Decimal, parse_constant=refuse, object_pairs_hook=unique
        )
    except ValueError as error:
        raise LanguageError("", f"must be JSON: {error}") from None
    except ArithmeticError:
        raise LanguageError("", "must be JSON with numbers of a size to reckon with") from None
    except RecursionError:
        raise LanguageError("", "must be JSON with fewer brackets inside each other") from None


@dataclass
class _Reader:
    """Reads one document and gathers its bundles."""

    now: int
    known: Collection[str] | None
    bundles: dict[str, Configuration] = field(default_factory=dict)

    def bid(self, raw: object) -> Bid:
        document = _mapping("", raw)
        commitment = document.get("commitment", Commitment.FIXED)
        if commitment not in tuple(Commitment):
            names = ", ".join(Commitment)
            raise LanguageError("commitment", f"must be one of {names}; got {shown(commitment)}")
        if "xor" in document:
            _check_keys("", document, ("xor", *BID), ("xor",))
            alternatives = [
                self.alternative(path, _mapping(path, each))
                for path, each in _items("xor", document["xor"], "alternative")
            ]
        else:
            alternatives = [self.alternative("", document, BID)]
        with _at("overrun"):
            overrun = read_duration(document.get("overrun", 0), least=0)
        return Bid(tuple(alternatives), Commitment(commitment), overrun)

    def alternative(
        self, path: str, document: Mapping[str, Any], more: tuple[str, ...] = ()
    ) -> Alternative:
        if "and" in document:
            _check_keys(path, document, ("and", "value", *more), ("value",))
            listed = _items(_join(path, "and"), document["and"], "request")
            requests = [self.request(where, _mapping(where, each)) for where, each in listed]
        else:
            requests = [self.request(path, document, ("value", *more))]
        return Alternative(tuple(requests), self.values(_join(path, "value"), document["value"]))

    def request(
        self, path: str, document: Mapping[str, Any], more: tuple[str, ...] = ()
    ) -> ResourceRequest:
        must = ("duration", "deadline", *[word for word in more if word == "value"])
        _check_keys(path, document, (*REQUEST, *more), must)
        counts = self.counts(path, document)
        with _at(_join(path, "duration")):
            duration = read_duration(document["duration"])
        with _at(_join(path, "arrival")):
            arrival = read_time(document.get("arrival", self.now), self.now)
        with _at(_join(path, "deadline")):
            deadline = read_time(document["deadline"], self.now)
        if deadline <= arrival:
            raise LanguageError(
                _join(path, "deadline"),
                f"must be after the arrival, {write_time(arrival)}; got {write_time(deadline)}",
            )
        if duration > deadline - arrival:
            raise LanguageError(
                _join(path, "duration"),
                f"must be at most {write_duration(deadline - arrival)}, the time from arrival "
                f"to deadline; got {write_duration(duration)}",
            )
        return ResourceRequest(counts, duration, arrival, deadline)

    def counts(self, path: str, document: Mapping[str, Any]) -> dict[str, int]:
        if ("configurations" in document) is ("resources" in document):
            raise LanguageError(path, "must have either `configurations` or `resources`")
        if "resources" in document:
            found = _bundle(_join(path, "resources"), document["resources"])
            self.bundles[found.name] = found
            return {found.name: _count(_join(path, "count"), document.get("count", 1))}
        where = _join(path, "configurations")
        if "count" in document:
            raise LanguageError(
                _join(path, "count"), f"goes with `resources`; write the number in {where}"
            )
        counts = _mapping(where, document["configurations"])
        if not counts:
            raise LanguageError(where, "must name at least one configuration, such as {'gpu-1': 1}")
        return {
            self.name(_join(where, name), name): _count(_join(where, name), count)
            for name, count in counts.items()
        }

    def name(self, path: str, name: str) -> str:
        if "=" in name:
            self.bundles[name] = _called(path, name)
        elif not name:
            raise LanguageError(path, "must have a name")
        elif self.known is not None and name not in self.known:
            raise LanguageError(path, f"is not for sale{_suggest(name, sorted(self.known))}")
        return name

    def values(self, path: str, raw: object) -> tuple[ValueStep, ...]:
        if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
            with _at(path):
                return (ValueStep(None, read_credits(raw)),)
        steps: list[ValueStep] = []
        listed = _items(path, raw, "step")
        for number, (where, each) in enumerate(listed, start=1):
            step = _mapping(where, each)
            must = ("value",) if number == len(listed) else ("by", "value")
            _check_keys(where, step, ("by", "value"), must)
            with _at(_join(where, "by")):
                by = read_time(step["by"], self.now) if "by" in step else None
            with _at(_join(where, "value")):
                value = read_credits(step["value"])
            if steps:
                _check_fall(where, steps[-1], by, value)
            steps.append(ValueStep(by, value))
        return tuple(steps)


def _check_fall(path: str, last: ValueStep, by: int | None, value: int) -> None:
    if by is not None and last.deadline is not None and by <= last.deadline:
        raise LanguageError(
            _join(path, "by"),
            f"must be after that of the step before, {write_time(last.deadline)}; "
            f"got {write_time(by)}",
        )
    if value >= last.value:
        raise LanguageError(
            _join(path, "value"),
            f"must be less than that of the step before, {write_credits(last.value)}; "
            f"got {write_credits(value)}",
        )


def _bundle(path: str, raw: object) -> Configuration:
    resources = _mapping(path, raw)
    for name, quantity in resources.items():
        with _at(_join(path, name)):
            read_quantity(name, quantity)
    if not resources:
        raise LanguageError(path, "must have at least one resource, such as {'nvidia.com/gpu': 1}")
    return bundle(resources)


def _called(path: str, name: str) -> Configuration:
    """The bundle with a name, which must be written in the one notation."""
    found = bundle_of(name)
    if found is None:
        raise LanguageError(
            path,
            "has a '=', so it must be the contents of a bundle with resources in alphabetical "
            "order and shortest quantities, such as 'cpu=500m,nvidia.com/gpu=4'",
        )
    return found


def _count(path: str, raw: object) -> int:
    number = exact(raw)
    if number is None or number.denominator != 1 or not 1 <= number <= MOST_BUNDLES:
        raise LanguageError(
            path, f"must be a whole number of bundles from 1 to {MOST_BUNDLES}, got {shown(raw)}"
        )
    return int(number)


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Gives the errors of a value's reader the place of the value."""
    try:
        yield
    except ValueError as error:
        raise LanguageError(path, str(error)) from None


def _join(path: str, key: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_-]{0,59}", key):
        return f"{path}[{shown(key)}]"
    return f"{path}.{key}" if path else key


def _mapping(path: str, raw: object) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise LanguageError(path, f"must be a mapping, got {shown(raw)}")
    for key in raw:
        if not isinstance(key, str):
            raise LanguageError(path, f"must have texts as keys, got {shown(key)}")
    return raw


def _items(path: str, raw: object, what: str) -> list[tuple[str, object]]:
    """The items of a list, each with its place."""
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes) or not raw:
        raise LanguageError(path, f"must be a list of at least one {what}, got {shown(raw)}")
    return [(f"{path}[{number}]", item) for number, item in enumerate(raw)]


def _check_keys(
    path: str, document: Mapping[str, Any], may: tuple[str, ...], must: tuple[str, ...]
) -> None:
    for key in document:
        if key in may:
            continue
        place = _join(path, key)
        if key in _PLACES:
            raise LanguageError(
                place, f"has no place here: it goes {_PLACES[key]}; here go {', '.join(may)}"
            )
        raise LanguageError(place, f"is unknown{_suggest(key, may)}")
    for key in must:
        if key not in document:
            raise LanguageError(_join(path, key), f"is missing: {WORDS[key]}")


def _suggest(name: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; known here are {', '.join(known)}" if known else ""


def dump_bid(bid: Bid) -> dict[str, Any]:
    """The document of a bid, in the simplest form there is for it.

    Parameters
    ----------
    bid
        Any bid.

    Returns
    -------
    dict
        Fit for `json.dumps`, with absolute times; `parse_bid` makes the same
        bid of it.

    Raises
    ------
    LanguageError
        If the name of a configuration has a ``=`` but is no bundle's.
    """
    alternatives = [_dump_alternative(each) for each in bid.alternatives]
    document: dict[str, Any] = {"xor": alternatives}
    if len(alternatives) == 1:
        document = alternatives[0]
    if bid.commitment is not Commitment.FIXED:
        document["commitment"] = bid.commitment.value
    if bid.overrun:
        document["overrun"] = write_duration(bid.overrun)
    return document


def _dump_alternative(alternative: Alternative) -> dict[str, Any]:
    requests = [_dump_request(each) for each in alternative.requests]
    document = requests[0] if len(requests) == 1 else {"and": requests}
    return {**document, "value": _dump_values(alternative.values)}


def _dump_values(values: tuple[ValueStep, ...]) -> str | list[dict[str, str]]:
    if len(values) == 1 and values[0].deadline is None:
        return write_credits(values[0].value)
    return [
        ({} if step.deadline is None else {"by": write_time(step.deadline)})
        | {"value": write_credits(step.value)}
        for step in values
    ]


def _dump_request(request: ResourceRequest) -> dict[str, Any]:
    document: dict[str, Any] = {"configurations": dict(request.configurations)}
    called = [
        _called(_join("configurations", name), name)
        for name in request.configurations
        if "=" in name
    ]
    if called and len(request.configurations) == 1:
        count = request.configurations[called[0].name]
        document = {"resources": dict(called[0].resources)}
        if count > 1:
            document["count"] = count
    return document | {
        "duration": write_duration(request.duration),
        "arrival": write_time(request.arrival),
        "deadline": write_time(request.deadline),
    }
