"""Pools as YAML: nodes, what is for sale, and what has a price.

::

    nodes:
      node-[1-4]: {nvidia.com/gpu: 8, cpu: 64, memory: 512Gi}
      big: {nvidia.com/gpu: 16, cpu: 128, memory: 1Ti}
    configurations:
      gpu-1: {nvidia.com/gpu: 1, cpu: 8, memory: 64Gi}
      gpu-4: {nvidia.com/gpu: 4, cpu: 32, memory: 256Gi}
    priced: {nvidia.com/gpu: "0.05", cpu: "0.01"}

`node-[1-4]` stands for four nodes. `priced` gives a floor for each resource, in
credits per hour of a GPU or core; without it only GPUs have a price, with the
floor of the mechanism.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from era_pricing.configurations import Configuration, base_units
from era_pricing.notation import read_credits, read_quantity
from era_pricing.simulator.formats import open_text
from era_pricing.simulator.mechanism import GPU, Pool, SetupError

_KEYS: Final = ("nodes", "configurations", "priced")
_RANGE: Final = re.compile(r"(.*)\[(\d+)-(\d+)\](.*)")
_MOST_NODES: Final = 100_000


def read_pool(path: Path | str) -> Pool:
    """Read a pool from a YAML file.

    Raises
    ------
    SetupError
        If it makes no sense; the text names the file and the place in it.
    WorkloadError
        If it cannot be read.
    """
    import yaml  # type: ignore[import-untyped]

    with open_text(path) as stream:
        try:
            document = yaml.safe_load(stream)
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())
            raise SetupError(f"{path}: must be YAML: {problem}") from None
    try:
        return parse_pool(document)
    except SetupError as error:
        raise SetupError(f"{path}: {error}") from None


def parse_pool(document: Any) -> Pool:
    """A pool from what a YAML file holds.

    Raises
    ------
    SetupError
        If it makes no sense; the text names the place in it.
    """
    parts = _mapping("the pool", document)
    unknown = [key for key in parts if key not in _KEYS]
    if unknown:
        raise SetupError(f"{unknown[0]!r} is unknown; a pool has {', '.join(_KEYS)}")
    nodes: dict[str, Mapping[str, str]] = {}
    for name, resources in _mapping("nodes", parts.get("nodes")).items():
        quantities = _quantities(f"nodes.{name}", resources)
        for single in _names(str(name)):
            if single in nodes:
                raise SetupError(f"nodes.{name}: there are two nodes named {single!r}")
            nodes[single] = quantities
    configurations = []
    for name, resources in _mapping("configurations", parts.get("configurations", {})).items():
        quantities = _quantities(f"configurations.{name}", resources)
        try:
            configurations.append(Configuration(str(name), quantities))
        except ValueError as error:
            raise SetupError(f"configurations.{name}: {error}") from None
    priced = parts.get("priced", [GPU])
    if isinstance(priced, list):
        return Pool(nodes, tuple(configurations), tuple(str(name) for name in priced))
    floors = {str(name): _floor(str(name), c) for name, c in _mapping("priced", priced).items()}
    return Pool(nodes, tuple(configurations), tuple(floors), floors)


def _mapping(place: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise SetupError(f"{place} must be a mapping, got {value!r}")
    return value


def _names(text: str) -> Iterator[str]:
    """The node names that one name stands for."""
    match = _RANGE.fullmatch(text)
    if match is None:
        yield text
        return
    head, first, last, tail = match.groups()
    if not int(first) <= int(last) < int(first) + _MOST_NODES:
        raise SetupError(f"nodes.{text}: the range must rise, by at most {_MOST_NODES} nodes")
    for number in range(int(first), int(last) + 1):
        yield f"{head}{number:0{len(first)}}{tail}"


def _quantities(place: str, value: Any) -> dict[str, str]:
    found = {}
    for resource, quantity in _mapping(place, value).items():
        try:
            found[str(resource)] = read_quantity(str(resource), quantity)
        except ValueError as error:
            raise SetupError(f"{place}.{resource} {error}") from None
    return found


def _floor(resource: str, value: Any) -> int:
    """Micro-credits per base unit and hour, from credits per unit and hour."""
    try:
        floor = Fraction(read_credits(str(value)), base_units(resource, 1))
    except ValueError as error:
        raise SetupError(f"priced.{resource} {error}") from None
    if floor < 1 or floor.denominator != 1:
        least = base_units(resource, 1) / 1_000_000
        raise SetupError(
            f"priced.{resource} must be a whole multiple of {least:g} credits, got {value!r}"
        )
    return int(floor)
