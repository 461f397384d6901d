"""A small pool to test with: 4 GPUs, hourly slots, two days ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from era_pricing import BasicEcon, Configuration, Era, Inventory, Prior, TimeGrid

HOUR = 3600


def build(**changes: Any) -> Era:
    """An engine; pass `capacity` for another size, or any parameter of `Era`."""
    capacity = changes.pop("capacity", 4)
    parameters: dict[str, Any] = {
        "grid": TimeGrid(slot=HOUR, horizon=48 * HOUR),
        "inventory": Inventory(capacity),
        "configurations": [
            Configuration("gpu", {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}),
            Configuration("two", {"nvidia.com/gpu": "2"}),
            Configuration("cpu", {"cpu": "500m"}),
        ],
        "algorithm": BasicEcon(),
        "predictor": Prior(max_price=840, peak_demand=6),
        "price_floor": 10,
        "clock": lambda: 0,
    }
    return Era(**{**parameters, **changes})


@pytest.fixture(scope="session")
def make_era() -> Callable[..., Era]:
    return build
