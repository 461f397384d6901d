"""Predictors: forecasts of demand, found through the group ``era.predictors``."""

from __future__ import annotations

from era_pricing.plugins import find
from era_pricing.predictors.base import Predictor
from era_pricing.predictors.prior import Prior

__all__ = ["Predictor", "Prior", "find_predictor"]

_BUILTIN: dict[str, type[Predictor]] = {Prior.name: Prior}


def find_predictor(name: str) -> type[Predictor]:
    """Class of the predictor called `name`; ValueError if there is none."""
    return find("era.predictors", name, Predictor, _BUILTIN)  # type: ignore[type-abstract]
