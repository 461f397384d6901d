"""Files of bids: one document of the bidding language for each, with its submission."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from era_pricing.bids import Bid, BidError, Commitment, ResourceRequest
from era_pricing.bundles import bundle
from era_pricing.configurations import Configuration
from era_pricing.language import dump_bid, parse_bid
from era_pricing.notation import read_time, shown, write_time
from era_pricing.simulator.formats import create_text, kind_of, open_text
from era_pricing.workload import COLUMNS, Workload, WorkloadError

_BESIDE: Final = ("submitted", "id", "class")


@dataclass(frozen=True)
class BidList:
    """Bids and when they were submitted.

    Parameters
    ----------
    submitted
        UTC seconds of each.
    bids
        As many bids; none may begin before it is submitted.
    names, classes
        As in `Workload`.
    configurations
        Bundles without a name that the bids brought along, to be added to those
        the engine knows; no two have the same name.

    Raises
    ------
    WorkloadError
        If a window begins before its submission or an id comes twice.
    """

    submitted: tuple[int, ...]
    bids: tuple[Bid, ...]
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    configurations: tuple[Configuration, ...] = ()

    def __post_init__(self) -> None:
        self.columns({})

    def __len__(self) -> int:
        return len(self.bids)

    def columns(self, units: Mapping[str, int]) -> Workload:
        """For each bid the simplest request that contains it.

        Whatever a bid can get, the request can get as well, at no less value, so
        that a bound on the worth of these requests holds for the bids.

        Parameters
        ----------
        units
            Units of the resource in one bundle of each configuration; 0 where it
            isn't named.

        Returns
        -------
        Workload
            In the order of the bids. The window goes from the earliest arrival to
            the latest deadline of a bid's requests. The units are the most that an
            alternative can hold at once (at least 1), and the duration is the
            least work of an alternative spread over all of them (at least 1 second).
        """
        rows = [
            (submitted, *_box(bid, units))
            for submitted, bid in zip(self.submitted, self.bids, strict=True)
        ]
        table = np.array(rows, dtype=object).reshape(len(rows), 6)
        columns = dict(zip(COLUMNS, table.T, strict=True))
        return Workload(**columns, names=self.names, classes=self.classes)


def _box(bid: Bid, units: Mapping[str, int]) -> tuple[int, int, int, int, int]:
    """Arrival, deadline, units, duration and value of the request around a bid."""
    requests = [request for one in bid.alternatives for request in one.requests]
    sizes = [
        [(_size(request, units), request.duration) for request in one.requests]
        for one in bid.alternatives
    ]
    most = max(sum(size for size, _ in alternative) for alternative in sizes)
    work = min(sum(size * seconds for size, seconds in alternative) for alternative in sizes)
    return (
        min(request.arrival for request in requests),
        max(request.deadline for request in requests),
        max(most, 1),
        max(work // max(most, 1), 1),
        max(one.values[0].value for one in bid.alternatives),
    )


def _size(request: ResourceRequest, units: Mapping[str, int]) -> int:
    return sum(count * units.get(name, 0) for name, count in request.configurations.items())


def bids_of(
    workload: Workload,
    resource: str = "nvidia.com/gpu",
    commitment: Commitment = Commitment.FLEXIBLE,
) -> BidList:
    """The requests of a workload as bids for bundles of one unit, each on any node.

    Parameters
    ----------
    workload
        Requests in columns.
    resource
        Name of the resource whose units they ask for.
    commitment
        Of all bids.

    Returns
    -------
    BidList
        In the same order, with the same ids and classes.

    Raises
    ------
    BidError
        If `resource` is no name of a resource.
    """
    one = bundle({resource: 1})
    bids = tuple(
        Bid.of(ResourceRequest({one.name: units}, duration, arrival, deadline), value, commitment)
        for arrival, deadline, units, duration, value in zip(
            workload.arrival.tolist(),
            workload.deadline.tolist(),
            workload.units.tolist(),
            workload.duration.tolist(),
            workload.value.tolist(),
            strict=True,
        )
    )
    submitted = tuple(workload.submitted.tolist())
    return BidList(submitted, bids, workload.names, workload.classes, (one,) if bids else ())


def read_bids(path: Path | str) -> BidList:
    """Read bids from a JSONL or YAML file.

    Parameters
    ----------
    path
        One record a line (.jsonl), or a list of records (.yaml); perhaps
        compressed by gzip. A record is a bid's document with `submitted`, and
        perhaps `id` and `class`; if one has an id, all must.

    Returns
    -------
    BidList
        In the order of the file. An empty file has no bids.

    Raises
    ------
    WorkloadError
        If the file cannot be read or a record is no bid; the text names the file,
        the line of the record, and the place in it.
    """
    kind = kind_of(path)
    if kind == "csv":
        raise WorkloadError(f"{path}: bids must be in a file whose name ends in .jsonl or .yaml")
    with open_text(path) as stream:
        records = list(_json_lines(stream, path) if kind == "jsonl" else _yaml(stream, path))
    return _gather(records, str(path))


def _json_lines(stream: TextIO, path: Path | str) -> Iterator[tuple[int, Any]]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    for line, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            yield line, json.loads(text, parse_float=Decimal, parse_constant=refuse)
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise WorkloadError(f"{path}, line {line}: must be one JSON object: {error}") from None


def _yaml(stream: TextIO, path: Path | str) -> Iterator[tuple[int, Any]]:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise WorkloadError(
            f"{path}: needs PyYAML to be read; install era-hub[sim], or write JSONL"
        ) from None
    try:
        loader = yaml.SafeLoader(stream)
        node = loader.get_single_node()
        if node is not None and not isinstance(node, yaml.SequenceNode):
            raise WorkloadError(f"{path}: must be a list of records, each beginning with a dash")
        for item in node.value if node is not None else ():
            yield item.start_mark.line + 1, loader.construct_document(item)
    except yaml.YAMLError as error:
        raise WorkloadError(f"{path}: must be YAML: {' '.join(str(error).split())}") from None


def _gather(records: list[tuple[int, Any]], source: str) -> BidList:
    submitted: list[int] = []
    bids: list[Bid] = []
    labels: dict[str, list[str]] = {"id": [], "class": []}
    configurations: dict[str, Configuration] = {}
    for line, record in records:
        try:
            beside, document = _parts(record)
            now = _submission(beside)
            parsed = parse_bid(document, now)
            for word, found in labels.items():
                found.append(_label(beside, word))
        except (BidError, WorkloadError) as error:
            raise WorkloadError(f"{source}, line {line}: {error}") from None
        submitted.append(now)
        bids.append(parsed.bid)
        configurations.update((one.name, one) for one in parsed.configurations)
    names, classes = (tuple(found) if any(found) else () for found in labels.values())
    try:
        return BidList(
            tuple(submitted), tuple(bids), names, classes, tuple(configurations.values())
        )
    except WorkloadError as error:
        row = error.row or 0
        problem = f"{error.column} {error.problem}"
        if error.column == "names":
            first = records[names.index(names[row])][0]
            problem = f"id {names[row]!r} is already in line {first}; no two may be alike"
        raise WorkloadError(f"{source}, line {records[row][0]}: {problem}") from None


def _parts(record: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands beside the bid, and the bid's document."""
    if not isinstance(record, Mapping):
        raise WorkloadError(f"must be a record with `submitted` and a bid, got {shown(record)}")
    beside = {key: value for key, value in record.items() if key in _BESIDE}
    return beside, {key: value for key, value in record.items() if key not in _BESIDE}


def _submission(beside: Mapping[str, Any]) -> int:
    if "submitted" not in beside:
        raise WorkloadError(
            "submitted is missing: UTC seconds, or a text such as '2026-01-05T08:00:00Z'"
        )
    try:
        return read_time(beside["submitted"], 0)
    except ValueError as error:
        raise WorkloadError(f"submitted {error}") from None


def _label(beside: Mapping[str, Any], word: str) -> str:
    found = beside.get(word, "")
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise WorkloadError(f"{word} must be a text, got {shown(found)}")
    return str(found)


def write_bids(bids: BidList, path: Path | str) -> None:
    """Write bids as JSONL, compressed if the name ends in .gz; times are absolute.

    Raises
    ------
    WorkloadError
        If the name ends in something other than .jsonl (.gz), or it cannot be written.
    """
    if kind_of(path) != "jsonl":
        raise WorkloadError(f"{path}: bids are written to a file whose name ends in .jsonl")
    with create_text(path) as stream:
        for row, (submitted, bid) in enumerate(zip(bids.submitted, bids.bids, strict=True)):
            record: dict[str, Any] = {"submitted": write_time(submitted)}
            if bids.names:
                record["id"] = bids.names[row]
            if bids.classes:
                record["class"] = bids.classes[row]
            stream.write(json.dumps(record | dump_bid(bid)) + "\n")
