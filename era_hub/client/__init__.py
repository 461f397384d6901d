"""What callers of the service share: HTTP clients, errors and browser code.

Spawners and the notebook extension import from era_hub only this package and
:mod:`era_hub.models`.
"""

from __future__ import annotations

from importlib.resources import files

from .calls import EraError
from .http import AsyncEraClient, EraClient, discover

__all__ = ["AsyncEraClient", "EraClient", "EraError", "discover", "market_script"]


def market_script() -> str:
    """Source of the ES module ``market.js``, shared by every page and widget.

    It exports ``priceChart`` (an SVG chart of prices over time), ``cheapestStart``
    (the engine's choice of start, from embedded slot prices) and ``formatCredits``.
    """
    return files(__package__).joinpath("market.js").read_text(encoding="utf-8")
