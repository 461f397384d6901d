"""From configuration to an engine: what is for sale, and how it is priced."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from traitlets import Dict, Float, Integer, List, Unicode
from traitlets.config import LoggingConfigurable

from era_pricing import Configuration, Era, PricedResource, TimeGrid
from era_pricing.predictors import SeenRequest

from .clouds.base import Node
from .market.capacity import inventory, units_of
from .models import format_credits, micro_credits
from .plugins import ConfigurationError, Plugins

# How busy each hour of the day is by local time, relative to the busiest one.
OFFICE_HOURS = [
    *(0.35, 0.3, 0.25, 0.2, 0.2, 0.2, 0.25, 0.35, 0.55, 0.8, 0.95, 1.0),
    *(0.9, 0.95, 1.0, 1.0, 1.0, 0.95, 0.85, 0.7, 0.6, 0.55, 0.5, 0.4),
]


def amount(setting: str, credits: str) -> int:
    """Micro-credits of a setting in credits.

    Raises
    ------
    ConfigurationError
        If it is no amount.
    """
    try:
        return micro_credits(credits)
    except ValueError as error:
        raise ConfigurationError(f"{setting}: {error}") from None


class Pool(LoggingConfigurable):
    """One set of interchangeable GPUs, and how their time is sold."""

    name = Unicode("local", help="Name of the pool, e.g. `local` or `a100`.").tag(config=True)

    resource = Unicode(
        "nvidia.com/gpu", help="The resource that is priced, in Kubernetes notation."
    ).tag(config=True)

    slot = Integer(
        300,
        help="""Length of a time slot in seconds; time is sold in whole slots.

        Shorter slots waste less time at the end of a reservation, longer ones keep
        the plan small.
        """,
    ).tag(config=True)

    horizon = Integer(14 * 86_400, help="How far ahead time is sold, in seconds.").tag(config=True)

    configurations = List(
        Dict(),
        help="""What is for sale; empty for a CPU-only notebook and 1, 2, ... GPUs.

        Example::

            c.Pool.configurations = [
                {"name": "cpu", "title": "CPU only", "resources": {}},
                {"name": "a100-2", "title": "Two A100", "resources": {"nvidia.com/gpu": "2"}},
            ]
        """,
    ).tag(config=True)

    price_floor = Unicode(
        "0.20", help="Lowest price of a GPU, in credits per hour; an idle GPU costs this."
    ).tag(config=True)

    price_ceiling = Unicode(
        "",
        help="""Highest price of a GPU, in credits per hour; empty for none.

        A promise to the users: an hour never costs more. At the ceiling GPUs go to
        whoever asks first, no longer to those who need them most.

        Example: ``c.Pool.price_ceiling = "8.00"``
        """,
    ).tag(config=True)

    late_penalty = Float(
        0.0,
        help="""How much dearer a start becomes per hour that it lies ahead; 0 for not at all.

        The price of a slot h hours ahead is multiplied by ``exp(late_penalty * h)``, but
        never rises above the ceiling: with 0.01, a start in a day costs 27 % more. It keeps
        people from reserving far ahead what they may not need.
        """,
    ).tag(config=True)

    algorithm = Unicode(
        "bid-price",
        help="Prices and schedules bids: `bid-price`, `basic-econ`, `exponential`, `first-fit`, "
        "`on-demand`, or another plug-in of the entry-point group `era.algorithms`.",
    ).tag(config=True)

    algorithm_options = Dict(
        help="""Options of the algorithm by name; see its page in the reference.

        Example::

            c.Pool.algorithm_options = {"steady": True}
        """,
    ).tag(config=True)

    predictor = Unicode(
        "blend",
        help="""Forecasts the demand from which prices follow.

        `blend` begins with what `max_price`, `peak_load`, `profile` and `lead_time` say,
        and moves to what it learns from the bids of this site, hour by hour of the day,
        over the first two days. `prior` stays with these settings. `lp` and `spread` know
        only what was learned, so they need bids of the past. Another plug-in of the
        entry-point group `era.predictors` works too.
        """,
    ).tag(config=True)

    predictor_options = Dict(
        help="""Options of the predictor by name; see its page in the reference.

        `blend` also takes those of `lp`, with which it learns.

        Example: a prior that counts for two weeks in all, and half of the users look at the
        price and go away without a bid if it is too high::

            c.Pool.predictor_options = {"half_life": 7, "unsent": 0.5}
        """,
    ).tag(config=True)

    max_price = Unicode(
        "5.00",
        help="What a GPU-hour is worth at most to anybody, in credits: the price at which the "
        "expected demand vanishes.",
    ).tag(config=True)

    peak_load = Float(
        1.5,
        help="GPUs wanted in the busiest hour if they were free, as a multiple of those there are.",
    ).tag(config=True)

    profile = List(
        Float(),
        OFFICE_HOURS,
        minlen=24,
        maxlen=24,
        help="How busy each hour of the day is in the server's time zone, 24 relative weights. "
        "As `peak_load` and `lead_time`, it counts until the predictor has learned better.",
    ).tag(config=True)

    lead_time = Integer(
        4 * 3600,
        help="Seconds by which people reserve ahead on average. GPUs that stand idle now are "
        "cheap, since hardly anybody else can still ask for them.",
    ).tag(config=True)

    def for_sale(self, nodes: Sequence[Node]) -> list[Configuration]:
        """The configurations: those configured, or a ladder of what a node has of GPUs."""
        if self.configurations:
            return [_configuration(each) for each in self.configurations]
        gpus = max((units_of([each], self.resource) for each in nodes), default=0)
        counts = range(1, gpus + 1) if gpus <= 8 else _ladder(gpus)
        ladder = [Configuration("cpu", {self.resource: "0"}, "CPU only", "no GPU; free of charge")]
        for count in counts:
            title = f"{count} GPU" + ("s" if count > 1 else "")
            ladder.append(Configuration(f"gpu-{count}", {self.resource: str(count)}, title))
        return ladder

    def build(
        self,
        nodes: Sequence[Node],
        configurations: Sequence[Configuration],
        clock: Callable[[], int],
        past: Sequence[SeenRequest] = (),
    ) -> Era:
        """The engine for a pool of these nodes.

        Parameters
        ----------
        nodes : sequence of Node
            What there is now; the forecast is made for a pool of that size.
        past : sequence of SeenRequest
            What was asked for until now, in order, for predictors that learn.

        Raises
        ------
        ConfigurationError
            If a setting can't be used.
        """
        floor = amount("Pool.price_floor", self.price_floor)
        ceiling = self._ceiling(floor)
        if not (math.isfinite(self.late_penalty) and self.late_penalty >= 0):
            raise ConfigurationError(
                f"Pool.late_penalty must be 0 or more per hour, got {self.late_penalty}; "
                "0 leaves late starts as they are"
            )
        gpus = max(units_of(nodes, self.resource), 1)
        try:
            grid = TimeGrid(self.slot, self.horizon)
            plugins = Plugins(grid, gpus, floor, ceiling, self._prior(gpus, floor), past)
            predictor = plugins.predictor(self.predictor, self.predictor_options)
            return Era(
                grid=grid,
                inventory=inventory(nodes, self.resource, configurations),
                configurations=configurations,
                algorithm=plugins.algorithm(self.algorithm, self.algorithm_options),
                priced=[PricedResource(self.resource, floor, predictor, ceiling)],
                clock=clock,
                late_penalty=self.late_penalty,
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"Pool: {error}") from None

    def _ceiling(self, floor: int) -> int | None:
        if not self.price_ceiling.strip():
            return None
        ceiling = amount("Pool.price_ceiling", self.price_ceiling)
        if ceiling < floor:
            raise ConfigurationError(
                f"Pool.price_ceiling must be at least Pool.price_floor, which is "
                f"{format_credits(floor)}; got {format_credits(ceiling)}. Leave it empty for none"
            )
        return ceiling

    def _prior(self, gpus: int, floor: int) -> dict[str, Any]:
        """Parameters of the predictor `prior`."""
        return {
            "max_price": max(floor, amount("Pool.max_price", self.max_price)),
            "peak_demand": self.peak_load * gpus,
            "profile": _to_utc(self.profile),
            "lead_time": self.lead_time,
        }


def _configuration(given: dict[str, Any]) -> Configuration:
    resources = {name: str(quantity) for name, quantity in given.get("resources", {}).items()}
    return Configuration(
        given.get("name", ""), resources, given.get("title", ""), given.get("description", "")
    )


def _ladder(gpus: int) -> list[int]:
    """1, 2, 4, ... and all."""
    powers = [1 << power for power in range(gpus.bit_length()) if 1 << power < gpus]
    return [*powers, gpus]


def _to_utc(local: Sequence[float]) -> list[float]:
    offset = datetime.now(UTC).astimezone().utcoffset()
    hours = round(offset.total_seconds() / 3600) if offset else 0
    return [local[(hour + hours) % 24] for hour in range(24)]
