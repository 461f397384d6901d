"""The engine of ERA: pure pricing and planning, without input or output.

Times are integer UTC seconds, money integer micro-credits (10**6 to the credit).
"""

from era_pricing.algorithms import (
    Algorithm,
    BasicEcon,
    EarlyStart,
    FirstFit,
    Market,
    Offer,
    Outlook,
    Piece,
    find_algorithm,
)
from era_pricing.bids import Alternative, Bid, BidError, Commitment, ResourceRequest, ValueStep
from era_pricing.configurations import Configuration, base_units, parse_quantity
from era_pricing.engine import Era
from era_pricing.inventory import Inventory
from era_pricing.predictors import Predictor, Prior, find_predictor
from era_pricing.reservations import (
    Allocation,
    CapacityChange,
    Decision,
    DuplicateReservation,
    Feedback,
    Menu,
    Placement,
    Quote,
    Reservation,
    Share,
    UnknownReservation,
    UpdateResult,
    Window,
)
from era_pricing.tariff import PricedResource
from era_pricing.timegrid import TimeGrid

__all__ = [
    "Algorithm",
    "Allocation",
    "Alternative",
    "BasicEcon",
    "Bid",
    "BidError",
    "CapacityChange",
    "Commitment",
    "Configuration",
    "Decision",
    "DuplicateReservation",
    "EarlyStart",
    "Era",
    "Feedback",
    "FirstFit",
    "Inventory",
    "Market",
    "Menu",
    "Offer",
    "Outlook",
    "Piece",
    "Placement",
    "Predictor",
    "PricedResource",
    "Prior",
    "Quote",
    "Reservation",
    "ResourceRequest",
    "Share",
    "TimeGrid",
    "UnknownReservation",
    "UpdateResult",
    "ValueStep",
    "Window",
    "base_units",
    "find_algorithm",
    "find_predictor",
    "parse_quantity",
]
