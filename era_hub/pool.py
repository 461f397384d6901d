"""From configuration to an engine: what is for sale, and how it is priced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from traitlets import Dict, Float, Integer, List, Unicode
from traitlets.config import LoggingConfigurable

from era_pricing import (
    Configuration,
    Era,
    Inventory,
    PricedResource,
    Prior,
    TimeGrid,
    find_algorithm,
)

from .models import micro_credits

# How busy each hour of the day is by local time, relative to the busiest one.
OFFICE_HOURS = [
    *(0.35, 0.3, 0.25, 0.2, 0.2, 0.2, 0.25, 0.35, 0.55, 0.8, 0.95, 1.0),
    *(0.9, 0.95, 1.0, 1.0, 1.0, 0.95, 0.85, 0.7, 0.6, 0.55, 0.5, 0.4),
]


class ConfigurationError(Exception):
    """A setting that can't be used; the text names it and says what would work."""


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

    algorithm = Unicode(
        "basic-econ",
        help="Prices and schedules bids: `basic-econ`, `first-fit`, or another plug-in of the "
        "entry-point group `era.algorithms`.",
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
        help="How busy each hour of the day is in the server's time zone, 24 relative weights.",
    ).tag(config=True)

    lead_time = Integer(
        4 * 3600,
        help="Seconds by which people reserve ahead on average. GPUs that stand idle now are "
        "cheap, since hardly anybody else can still ask for them.",
    ).tag(config=True)

    def for_sale(self, gpus: int) -> list[Configuration]:
        """The configurations: those configured, or a ladder of GPU counts."""
        if self.configurations:
            return [_configuration(each) for each in self.configurations]
        counts = range(1, gpus + 1) if gpus <= 8 else _ladder(gpus)
        ladder = [Configuration("cpu", {self.resource: "0"}, "CPU only", "no GPU; free of charge")]
        for count in counts:
            title = f"{count} GPU" + ("s" if count > 1 else "")
            ladder.append(Configuration(f"gpu-{count}", {self.resource: str(count)}, title))
        return ladder

    def build(
        self, gpus: int, configurations: Sequence[Configuration], clock: Callable[[], int]
    ) -> Era:
        """The engine for a pool of so many GPUs.

        Raises
        ------
        ConfigurationError
            If a setting can't be used.
        """
        floor = amount("Pool.price_floor", self.price_floor)
        top = amount("Pool.max_price", self.max_price)
        try:
            predictor = Prior(
                max_price=max(floor, top),
                peak_demand=self.peak_load * gpus,
                profile=_to_utc(self.profile),
                lead_time=self.lead_time,
            )
            return Era(
                grid=TimeGrid(self.slot, self.horizon),
                inventory=Inventory.single({self.resource: gpus}),
                configurations=configurations,
                algorithm=find_algorithm(self.algorithm)(),
                priced=[PricedResource(self.resource, floor, predictor)],
                clock=clock,
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"Pool: {error}") from None


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
