"""The engine of ERA: pure pricing and planning, without input or output.

Times are integer UTC seconds, money integer micro-credits (10**6 to the credit).
"""

from era_pricing.algorithms import Algorithm, BasicEcon, FirstFit, Market, Offer, find_algorithm
from era_pricing.bids import Bid, BidError, ResourceRequest
from era_pricing.configurations import Configuration, parse_quantity
from era_pricing.engine import Era
from era_pricing.inventory import Inventory
from era_pricing.predictors import Predictor, Prior, find_predictor
from era_pricing.reservations import (
    Allocation,
    Decision,
    DuplicateReservation,
    Feedback,
    Quote,
    Reservation,
    UnknownReservation,
    UpdateResult,
)
from era_pricing.timegrid import TimeGrid

__all__ = [
    "Algorithm",
    "Allocation",
    "BasicEcon",
    "Bid",
    "BidError",
    "Configuration",
    "Decision",
    "DuplicateReservation",
    "Era",
    "Feedback",
    "FirstFit",
    "Inventory",
    "Market",
    "Offer",
    "Predictor",
    "Prior",
    "Quote",
    "Reservation",
    "ResourceRequest",
    "TimeGrid",
    "UnknownReservation",
    "UpdateResult",
    "find_algorithm",
    "find_predictor",
    "parse_quantity",
]
