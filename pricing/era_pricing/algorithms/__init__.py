"""Pricing algorithms, found through the entry-point group ``era.algorithms``."""

from __future__ import annotations

from era_pricing.algorithms.base import NOT_FOR_SALE, Algorithm, Market, Offer
from era_pricing.algorithms.basic_econ import BasicEcon
from era_pricing.algorithms.first_fit import FirstFit
from era_pricing.plugins import find

__all__ = [
    "NOT_FOR_SALE",
    "Algorithm",
    "BasicEcon",
    "FirstFit",
    "Market",
    "Offer",
    "find_algorithm",
]

_BUILTIN: dict[str, type[Algorithm]] = {BasicEcon.name: BasicEcon, FirstFit.name: FirstFit}


def find_algorithm(name: str) -> type[Algorithm]:
    """Class of the algorithm called `name`; ValueError if there is none."""
    return find("era.algorithms", name, Algorithm, _BUILTIN)  # type: ignore[type-abstract]
