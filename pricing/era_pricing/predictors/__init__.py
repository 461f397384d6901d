"""Predictors: forecasts of demand, found through the group ``era.predictors``."""

from __future__ import annotations

from era_pricing.plugins import find
from era_pricing.predictors.base import Forecast, Predictor, SeenRequest
from era_pricing.predictors.blend import Blend
from era_pricing.predictors.history import History
from era_pricing.predictors.lp import LP
from era_pricing.predictors.prior import Prior
from era_pricing.predictors.spread import Spread

__all__ = [
    "LP",
    "Blend",
    "Forecast",
    "History",
    "Predictor",
    "Prior",
    "SeenRequest",
    "Spread",
    "find_predictor",
]

_BUILTIN: dict[str, type[Predictor]] = {kind.name: kind for kind in (Prior, Spread, LP, Blend)}


def find_predictor(name: str) -> type[Predictor]:
    """Class of the predictor called `name`; ValueError if there is none."""
    return find("era.predictors", name, Predictor, _BUILTIN)  # type: ignore[type-abstract]
