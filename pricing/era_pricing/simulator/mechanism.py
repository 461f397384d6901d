"""What is simulated: a mechanism over a pool, and how both become an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from era_pricing.arrays import FloatArray
from era_pricing.bids import Commitment
from era_pricing.configurations import Configuration, Quantity, base_units
from era_pricing.inventory import POOL
from era_pricing.timegrid import DAY, TimeGrid
from era_pricing.workload import Workload

GPU: Final = "nvidia.com/gpu"
UNIT: Final = "unit"
"""The configuration that a request of a workload in columns asks for."""


DEFAULT_ALGORITHM: Final = "bid-price"


def default_predictor(history: Workload | None) -> str:
    """The predictor where none is named."""
    return "lp" if history is not None and len(history) else "blend"


_ROUNDING: Final = 1e-9
"""So that a whole number that came out slightly too small is not rounded down."""


class SetupError(ValueError):
    """A mechanism or a pool that cannot be built; one sentence."""


@dataclass(frozen=True)
class Mechanism:
    """How a pool sells: an algorithm, a predictor and limits to the price.

    Parameters
    ----------
    algorithm, predictor
        Names of plug-ins.
    slot, horizon
        Length of a slot and how far ahead is sold, seconds. With `horizon` None:
        as far as the longest request looks ahead, at least a day.
    price_floor, price_ceiling
        Micro-credits per unit and hour; without a ceiling None.
    late_penalty
        By how much later slots are dearer, as the exponent per hour; 0: not.
    commitment
        What an acceptance fixes, for workloads in columns.
    options
        Further options of the plug-ins and of the engine, as texts:
        ``{"price": "2000000", "replan": "false"}``, or with ``algorithm.``,
        ``predictor.`` or ``engine.`` in front where several have it.
    """

    algorithm: str = "basic-econ"
    predictor: str = "prior"
    slot: int = 1800
    horizon: int | None = None
    price_floor: int = 10_000
    price_ceiling: int | None = None
    late_penalty: float = 0.0
    commitment: Commitment = Commitment.FLEXIBLE
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name for tables and plots; options that are nobody's by name come last."""
        parts = {"algorithm": self.algorithm, "predictor": self.predictor, "engine": ""}
        for name, text in self.options.items():
            part, dot, key = name.rpartition(".")
            parts[part if dot and part in parts else "engine"] += f" {key}={text}"
        engine = parts.pop("engine")
        return " / ".join(parts.values()) + (f" /{engine}" if engine else "")

    def grid(self, *workloads: Workload | None) -> TimeGrid:
        """The time grid, with a horizon for these workloads if none is set."""
        horizon = self.horizon
        if horizon is None:
            ahead = [
                int((w.deadline - w.submitted).max()) for w in workloads if w is not None and len(w)
            ]
            horizon = max([DAY, *ahead]) + self.slot
        slots = -(-horizon // self.slot)
        return TimeGrid(self.slot, slots * self.slot)


@dataclass(frozen=True)
class Pool:
    """What there is to sell.

    Parameters
    ----------
    nodes
        Quantities in Kubernetes notation by resource, by node.
    configurations
        The bundles for sale.
    priced
        Resources with a price; the others are only counted.
    floors
        Price floors of some of them, micro-credits per base unit and hour; the
        others have that of the mechanism.

    Raises
    ------
    SetupError
        If a quantity cannot be read, a priced resource is on no node, or there is
        nothing for sale.
    """

    nodes: Mapping[str, Mapping[str, Quantity]]
    configurations: tuple[Configuration, ...]
    priced: tuple[str, ...] = (GPU,)
    floors: Mapping[str, int] = field(default_factory=dict)
    _units: Mapping[str, Mapping[str, int]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        units: dict[str, dict[str, int]] = {}
        for name, resources in self.nodes.items():
            units[name] = {}
            for resource, quantity in resources.items():
                try:
                    units[name][resource] = base_units(resource, quantity)
                except ValueError as error:
                    raise SetupError(f"node {name}, {resource}: {error}") from None
        object.__setattr__(self, "_units", units)
        if not self.priced:
            raise SetupError("a pool must have a priced resource")
        for resource in self.priced:
            if not self.capacity(resource):
                raise SetupError(f"no node has any {resource}, which is priced")

    @classmethod
    def of(cls, capacity: int) -> Pool:
        """A pool of `capacity` alike units on a single node."""
        return cls({POOL: {GPU: capacity}}, (Configuration(UNIT, {GPU: "1"}),))

    @property
    def simple(self) -> bool:
        """Whether it can sell to requests in columns."""
        return any(each.name == UNIT for each in self.configurations)

    @property
    def shown(self) -> str | None:
        """The configuration whose price is followed: the first that has a price."""
        for each in self.configurations:
            if each.units(self.priced[0]):
                return each.name
        return None

    @property
    def unit(self) -> str:
        """What the units of the first priced resource are called."""
        resource = self.priced[0]
        if resource.endswith("gpu"):
            return "GPUs"
        return "thousandths of a core" if resource == "cpu" else f"units of {resource}"

    def capacity(self, resource: str) -> int:
        """Base units of a resource on all nodes together."""
        return sum(node.get(resource, 0) for node in self._units.values())

    def left(self, resource: str, shares: FloatArray) -> FloatArray:
        """Base units of a resource where only a share of each node is there.

        Parameters
        ----------
        resource
            Its name.
        shares : FloatArray, shape (..., nodes)
            Between 0 and 1.

        Returns
        -------
        FloatArray, shape (...)
            On all nodes together; those of each node are rounded down.
        """
        units = np.array([node.get(resource, 0) for node in self._units.values()])
        left: FloatArray = np.floor(units * shares + _ROUNDING).sum(axis=-1)
        return left

    def part(self, node: str, share: float) -> dict[str, str]:
        """A share of what a node has, rounded down as in `left`, in Kubernetes notation."""
        return {
            resource: f"{int(units * share + _ROUNDING)}{'m' if resource == 'cpu' else ''}"
            for resource, units in self._units[node].items()
        }
