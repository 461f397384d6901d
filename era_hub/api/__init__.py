"""The REST API under ``/services/era/api/v1/``: thin handlers over the market."""

from __future__ import annotations

import re

from .account import AccountHandler, AccountsHandler, NoticesHandler, UserHandler
from .admin import ADMIN_ROUTES
from .allocation import AllocationHandler, UpdateHandler
from .base import ApiHandler
from .events import EventsHandler
from .jobs import JobHandler, JobsHandler, LogHandler
from .market import MarketHandler, QuotesHandler
from .meta import HealthHandler, MetricsHandler, OpenApiHandler, VersionHandler
from .reservations import (
    ClaimHandler,
    ExtendHandler,
    ExtensionQuoteHandler,
    ReservationHandler,
    ReservationsHandler,
)

ROUTES: list[tuple[str, type[ApiHandler]]] = [
    ("market", MarketHandler),
    ("quotes", QuotesHandler),
    ("reservations", ReservationsHandler),
    ("reservations/{id}", ReservationHandler),
    ("reservations/{id}/claim", ClaimHandler),
    ("reservations/{id}/extend", ExtendHandler),
    ("reservations/{id}/extend/quote", ExtensionQuoteHandler),
    ("jobs", JobsHandler),
    ("jobs/{id}", JobHandler),
    ("jobs/{id}/log", LogHandler),
    ("account", AccountHandler),
    ("accounts", AccountsHandler),
    ("notices", NoticesHandler),
    ("allocation", AllocationHandler),
    ("allocation/update", UpdateHandler),
    ("user", UserHandler),
    *ADMIN_ROUTES,
    ("events", EventsHandler),
    ("metrics", MetricsHandler),
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
