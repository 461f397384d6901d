"""Configurations: the named bundles of resources for sale."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)"
    r"(?:[eE](?P<exponent>[+-]?[0-9]{1,3})|(?P<suffix>[numkMGTPE]|[KMGTPE]i)?)",
    re.ASCII,
)


def parse_quantity(text: str) -> Fraction:
    """Read a Kubernetes quantity.

    Parameters
    ----------
    text
        For example ``"2"``, ``"500m"``, ``"6Gi"`` or ``"1e3"``.

    Returns
    -------
    Fraction
        The exact value: cores, bytes or a plain count.

    Raises
    ------
    ValueError
        If `text` is not a quantity.

    References
    ----------
    Kubernetes API reference, "Quantity".

    Examples
    --------
    >>> parse_quantity("500m")
    Fraction(1, 2)
    """
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a quantity; write for example '2', '500m' or '6Gi'")
    value = Fraction(match["number"])
    suffix = match["suffix"] or ""
    if match["exponent"]:
        value *= Fraction(10) ** int(match["exponent"])
    elif suffix in _BINARY:
        value *= 1024 ** _BINARY[suffix]
    else:
        value *= Fraction(10) ** _DECIMAL[suffix]
    return -value if match["sign"] == "-" else value


Quantity = str | int
"""A Kubernetes quantity; a number means the same as its digits would."""

_UNITS_PER = {"cpu": 1000}


def base_units(resource: str, quantity: Quantity) -> int:
    """A quantity in the unit in which the engine counts a resource.

    Parameters
    ----------
    resource
        Name of the resource. `cpu` is counted in thousandths of a core, everything
        else in whole units: bytes, GPUs.
    quantity
        In Kubernetes notation.

    Raises
    ------
    ValueError
        If it is no quantity, is negative, or is no whole number of base units.

    Examples
    --------
    >>> base_units("cpu", "500m"), base_units("memory", "6Gi"), base_units("nvidia.com/gpu", 2)
    (500, 6442450944, 2)
    """
    if isinstance(quantity, int) and not isinstance(quantity, bool):
        quantity = str(quantity)
    value = parse_quantity(quantity)  # type: ignore[arg-type]  # says what is wrong with others
    if value < 0:
        raise ValueError(f"must not be negative, got {quantity!r}")
    units = value * _UNITS_PER.get(resource, 1)
    if units.denominator != 1:
        least = "a whole number of thousandths" if resource in _UNITS_PER else "a whole number"
        raise ValueError(f"must be {least}, got {quantity!r}")
    if units >= 2**62:
        raise ValueError(f"must be below 2**62, got {quantity!r}")
    return int(units)


@dataclass(frozen=True)
class Configuration:
    """A bundle of resources that is sold under one name.

    Parameters
    ----------
    name
        What a resource request refers to.
    resources
        The formal resources: what the user is told. Quantities by resource name in
        Kubernetes notation, for example
        ``{"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"}``.
    title, description
        Texts for people; the engine does not read them.
    actual
        The actual resources: what one bundle takes from a node and is charged for,
        also of resources that exist in the plan alone, say ``{"example.com/seat": "1"}``.
        None if these are the formal ones.

    Raises
    ------
    ValueError
        If the name is empty or a quantity cannot be read, is negative, or is no
        whole number of base units (see `base_units`).
    """

    name: str
    resources: Mapping[str, Quantity]
    title: str = ""
    description: str = ""
    actual: Mapping[str, Quantity] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError("a configuration must have a name")
        object.__setattr__(self, "resources", dict(self.resources))
        if self.actual is not None:
            object.__setattr__(self, "actual", dict(self.actual))
        self._read(self.resources)
        object.__setattr__(self, "_taken", self._read(self.taken_resources))

    @property
    def taken_resources(self) -> Mapping[str, Quantity]:
        """The actual resources as they were given."""
        return self.resources if self.actual is None else self.actual

    def _read(self, resources: Mapping[str, Quantity]) -> dict[str, int]:
        found = {}
        for resource, quantity in resources.items():
            try:
                found[resource] = base_units(resource, quantity)
            except ValueError as error:
                raise ValueError(f"configuration {self.name!r}, {resource}: {error}") from None
        return found

    def units(self, resource: str) -> int:
        """Base units of `resource` that one bundle takes; 0 if it takes none."""
        return self.taken.get(resource, 0)

    @property
    def taken(self) -> Mapping[str, int]:
        """Base units by resource that one bundle takes."""
        found: dict[str, int] = self._taken  # type: ignore[attr-defined]
        return found
