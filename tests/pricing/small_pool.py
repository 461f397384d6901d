"""A small pool to test with: 4 GPUs, hourly slots, two days ahead."""

from __future__ import annotations

from typing import Any

from era_pricing import (
    BasicEcon,
    CapacityChange,
    Configuration,
    Era,
    Inventory,
    PricedResource,
    Prior,
    Reservation,
    ResourceRequest,
    TimeGrid,
)

HOUR = 3600
GPU = "nvidia.com/gpu"
RICH = 10**12


def build(**changes: Any) -> Era:
    """An engine.

    Pass `capacity` for another size, `predictor`, `price_floor` or `price_ceiling` of the
    GPUs, `nodes` for a pool with node shapes, or any parameter of `Era`.
    """
    capacity = changes.pop("capacity", 4)
    predictor = changes.pop("predictor", Prior(max_price=840, peak_demand=6))
    floor, ceiling = changes.pop("price_floor", 10), changes.pop("price_ceiling", None)
    nodes = changes.pop("nodes", None)
    parameters: dict[str, Any] = {
        "grid": TimeGrid(slot=HOUR, horizon=48 * HOUR),
        "inventory": Inventory.of_nodes(nodes) if nodes else Inventory.single({GPU: capacity}),
        "configurations": [
            Configuration("gpu", {"cpu": "4", "memory": "16Gi", GPU: "1"}),
            Configuration("two", {GPU: "2"}),
            Configuration("four", {GPU: "4"}),
            Configuration("cpu", {"cpu": "500m"}),
        ],
        "algorithm": BasicEcon(),
        "priced": [PricedResource(GPU, floor, predictor, ceiling)],
        "clock": lambda: 0,
    }
    return Era(**{**parameters, **changes})


def ask(
    configuration: str, duration: int, arrival: int, deadline: int, count: int = 1
) -> ResourceRequest:
    """A request for bundles of one configuration."""
    return ResourceRequest({configuration: count}, duration, arrival, deadline)


def held(
    job_id: str, units: int, start: int, end: int, prices: tuple[int, ...], made: int = 0
) -> Reservation:
    """A reservation of so many GPUs, as a store would give it back."""
    return Reservation.of(job_id, "gpu", units, {GPU: units}, start, end, prices, made)


def change(start: int, end: int | None, gpus: int, node: str | None = None) -> CapacityChange:
    """A change of the number of GPUs."""
    return CapacityChange(start, end, {GPU: gpus}, node)
