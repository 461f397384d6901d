"""The REST API under ``/services/era/api/v1/``: thin handlers over the market."""

from __future__ import annotations

import re

from .account import AccountHandler, NoticesHandler, UserHandler
from .base import ApiHandler
from .jobs import JobHandler, JobsHandler, LogHandler
from .market import MarketHandler, QuotesHandler
from .meta import HealthHandler, OpenApiHandler, VersionHandler
from .reservations import (
    AllocationHandler,
    ClaimHandler,
    ReservationHandler,
    ReservationsHandler,
)

ROUTES: list[tuple[str, type[ApiHandler]]] = [
    ("market", MarketHandler),
    ("quotes", QuotesHandler),
    ("reservations", ReservationsHandler),
    ("reservations/{id}", ReservationHandler),
    ("reservations/{id}/claim", ClaimHandler),
    ("jobs", JobsHandler),
    ("jobs/{id}", JobHandler),
    ("jobs/{id}/log", LogHandler),
    ("account", AccountHandler),
    ("notices", NoticesHandler),
    ("allocation", AllocationHandler),
    ("user", UserHandler),
    ("health", HealthHandler),
    ("version", VersionHandler),
    ("openapi.json", OpenApiHandler),
]


def pattern(path: str) -> str:
    """The regular expression of a route."""
    return "".join(
        r"([^/]+)" if part.startswith("{") else re.escape(part)
        for part in re.split(r"({\w+})", path)
    )
