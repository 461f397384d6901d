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


@dataclass(frozen=True)
class Configuration:
    """A bundle of resources that is sold under one name.

    Parameters
    ----------
    name
        What a resource request refers to.
    resources
        Quantities by resource name in Kubernetes notation, for example
        ``{"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"}``.
    title, description
        Texts for people; the engine does not read them.

    Raises
    ------
    ValueError
        If the name is empty or a quantity cannot be read or is negative.
    """

    name: str
    resources: Mapping[str, str]
    title: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a configuration must have a name")
        object.__setattr__(self, "resources", dict(self.resources))
        for resource in self.resources:
            self._quantity(resource)

    def _quantity(self, resource: str) -> Fraction:
        text = self.resources.get(resource, "0")
        try:
            quantity = parse_quantity(text)
        except ValueError as error:
            raise ValueError(f"configuration {self.name!r}, {resource}: {error}") from None
        if quantity < 0:
            raise ValueError(
                f"configuration {self.name!r}, {resource}: must not be negative, got {text!r}"
            )
        return quantity

    def units(self, resource: str) -> int:
        """Count of `resource` in one of these bundles; 0 if it has none.

        Raises
        ------
        ValueError
            If the quantity is not a whole number.
        """
        quantity = self._quantity(resource)
        if quantity.denominator != 1:
            raise ValueError(
                f"configuration {self.name!r}, {resource}: must be a whole number, "
                f"got {self.resources[resource]!r}"
            )
        return int(quantity)
