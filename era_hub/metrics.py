"""What the service counts and measures, for Prometheus.

Labels are routes, configurations and words of the code: never users, ids or anything
that a caller chooses. Values of bids are sealed: only sums over several bids are
shown, and only to those who may see the metrics by login.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from . import __version__
from .models import MICRO

T = TypeVar("T")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

SEALED = 5
"""Bids whose values are added up before the sum is shown."""


@dataclass(frozen=True)
class Snapshot:
    """What the market says of itself at one moment."""

    pool: str
    resource: str
    capacity: int
    promised: int
    prices: dict[str, int | None] = field(default_factory=dict)
    """Micro-credits for an hour from now, by configuration; None where none is free."""
    ledger: dict[tuple[str, str], int] = field(default_factory=dict)
    """Micro-credits by kind of account and, for the market's own accounts, name."""


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        build = Gauge("era_build_info", "Version", ["version", "python"], registry=registry)
        build.labels(__version__, platform.python_version()).set(1)

        self._prices = Gauge(
            "era_price_credits_per_hour",
            "Price of an hour from now; NaN where none is free",
            ["pool", "configuration"],
            registry=registry,
        )
        units = ["pool", "resource"]
        self._capacity = Gauge(
            "era_capacity_units", "Units there are now", units, registry=registry
        )
        self._promised = Gauge("era_promised_units", "Units promised now", units, registry=registry)
        self._ledger = Gauge(
            "era_ledger_credits",
            "Credits on all accounts of a kind; their sum is zero",
            ["kind", "account"],
            registry=registry,
        )
        self._bids = Counter(
            "era_bids", "Bids that were decided", ["kind", "outcome"], registry=registry
        )
        # Made when the first sum is shown, so that open metrics have no line of it.
        self._values: dict[str, list[int]] = {"accepted": [], "declined": []}
        self._value_registry = CollectorRegistry()
        self._value = Counter(
            "era_bid_value_credits",
            f"Value of decided bids, added {SEALED} bids at a time; declined: turned away",
            ["outcome"],
            registry=self._value_registry,
        )

        self._requests = Counter(
            "era_requests", "Answers", ["method", "route", "status"], registry=registry
        )
        self._latency = Histogram(
            "era_request_seconds",
            "From a request's headers to its answer",
            ["method", "route"],
            buckets=LATENCY,
            registry=registry,
        )
        self.limited = Counter("era_rate_limited", "Requests that came too fast", registry=registry)
        self._wait = Histogram(
            "era_writer_wait_seconds",
            "Wait for the market's thread",
            buckets=LATENCY,
            registry=registry,
        )
        self._calls = Histogram(
            "era_market_call_seconds",
            "Work on the market's thread: reserve and quote are decisions",
            ["call"],
            buckets=LATENCY,
            registry=registry,
        )
        self.streams = Gauge("era_event_streams", "Open streams of events", registry=registry)
        self.leading = Gauge("era_leading", "1 if this replica writes, else 0", registry=registry)
        self.lag = Gauge(
            "era_following_lag_seconds",
            "For which something may have changed that this replica does not know",
            registry=registry,
        )
        self._lag = Gauge(
            "era_reconciler_lag_seconds",
            "Since the reconciler's last whole pass ended",
            registry=registry,
        )
        self._postponed = Gauge(
            "era_reconciler_postponed", "Reservations whose step failed last", registry=registry
        )

    # -- while it works ---------------------------------------------------------------

    def bid(self, kind: str, accepted: bool, value: int) -> None:
        """A bid was decided; value in micro-credits."""
        outcome = "accepted" if accepted else "declined"
        self._bids.labels(kind, outcome).inc()
        waiting = self._values[outcome]
        waiting.append(value)
        if len(waiting) >= SEALED:
            self._value.labels(outcome).inc(sum(waiting) / MICRO)
            waiting.clear()

    def request(self, method: str | None, route: str, status: int, seconds: float) -> None:
        """A request was answered; the route is a pattern, not a path."""
        name = method if method in METHODS else "other"
        self._requests.labels(name, route, str(status)).inc()
        self._latency.labels(name, route).observe(seconds)

    def timed(self, function: Callable[..., T]) -> Callable[..., T]:
        """The function, measuring how long it waits for its thread and how long it works.

        It runs in the present context, so that its log lines name the request.
        """
        asked, context = perf_counter(), copy_context()

        def measured(*args: Any, **kwargs: Any) -> T:
            begin, name = perf_counter(), _name(function, args)
            self._wait.observe(begin - asked)
            try:
                return context.run(function, *args, **kwargs)
            finally:
                self._calls.labels(name).observe(perf_counter() - begin)

        return measured

    # -- when it is asked -------------------------------------------------------------

    def text(
        self,
        snapshot: Snapshot,
        last_pass: float | None,
        postponed: int,
        values: bool = True,
    ) -> bytes:
        """All metrics in Prometheus' text format.

        Parameters
        ----------
        snapshot : Snapshot
        last_pass : float or None
            When the reconciler's last pass ended (`time.monotonic`).
        postponed : int
            Reservations whose last step failed.
        values : bool
            Whether sums of bids' values are among them.
        """
        self._prices.clear()
        for name, price in snapshot.prices.items():
            credits = float("nan") if price is None else price / MICRO
            self._prices.labels(snapshot.pool, name).set(credits)
        self._capacity.labels(snapshot.pool, snapshot.resource).set(snapshot.capacity)
        self._promised.labels(snapshot.pool, snapshot.resource).set(snapshot.promised)
        for (kind, account), total in snapshot.ledger.items():
            self._ledger.labels(kind, account).set(total / MICRO)
        self._lag.set(float("nan") if last_pass is None else monotonic() - last_pass)
        self._postponed.set(postponed)
        found: bytes = generate_latest(self.registry)
        return found + generate_latest(self._value_registry) if values else found


def _name(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """What is called, also where it is handed to a function that calls it once only."""
    inner = [each for each in (*args, function) if hasattr(each, "__name__")]
    name: str = getattr(inner[0] if inner else function, "__name__", "other")
    return name.strip("_")
