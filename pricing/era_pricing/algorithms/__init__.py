"""Pricing algorithms, found through the entry-point group ``era.algorithms``."""

from __future__ import annotations

from era_pricing.algorithms.base import (
    NOT_FOR_SALE,
    Algorithm,
    EarlyStart,
    Market,
    Offer,
    Outlook,
    Piece,
)
from era_pricing.algorithms.basic_econ import BasicEcon
from era_pricing.algorithms.bid_price import BidPrice
from era_pricing.algorithms.exponential import Exponential
from era_pricing.algorithms.first_fit import FirstFit
from era_pricing.algorithms.on_demand import OnDemand
from era_pricing.plugins import find

__all__ = [
    "NOT_FOR_SALE",
    "Algorithm",
    "BasicEcon",
    "BidPrice",
    "EarlyStart",
    "Exponential",
    "FirstFit",
    "Market",
    "Offer",
    "OnDemand",
    "Outlook",
    "Piece",
    "find_algorithm",
]

_BUILTIN: dict[str, type[Algorithm]] = {
    kind.name: kind for kind in (BasicEcon, BidPrice, FirstFit, OnDemand, Exponential)
}


def find_algorithm(name: str) -> type[Algorithm]:
    """Class of the algorithm called `name`; ValueError if there is none."""
    return find("era.algorithms", name, Algorithm, _BUILTIN)  # type: ignore[type-abstract]
