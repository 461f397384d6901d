"""What prices are made with: the plug-ins that settings name, and what they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from era_pricing import Algorithm, Predictor, Prior, TimeGrid, find_algorithm, find_predictor
from era_pricing.construction import (
    GIVEN,
    HISTORY,
    Facts,
    MissingParameter,
    construct,
    options_of,
    parameters,
)
from era_pricing.predictors import LP, SeenRequest
from era_pricing.timegrid import DAY
from era_pricing.workload import COLUMNS, Workload

T = TypeVar("T", Algorithm, Predictor)

LEARNED = "learned"
"""Parameter by which a predictor asks for another one that learns."""

OF_LEARNED = frozenset(options_of(LP)) - {"capacity", "slot", "cold_start"}
"""Options of that other one."""


class ConfigurationError(Exception):
    """A setting that can't be used; the text names it and says what would work."""


class Plugins:
    """Makes a pool's algorithm and its predictor.

    Parameters
    ----------
    grid : TimeGrid
    capacity : int
        GPUs.
    floor, ceiling : int
        Prices of a GPU, micro-credits per hour.
    prior : mapping
        Parameters of the predictor `prior`.
    past : sequence of SeenRequest
        What was asked for until now, in order.

    Raises
    ------
    ValueError
        If `prior` does not make one.
    """

    def __init__(
        self,
        grid: TimeGrid,
        capacity: int,
        floor: int,
        ceiling: int | None,
        prior: Mapping[str, Any],
        past: Sequence[SeenRequest],
    ) -> None:
        self._past = past
        self._filed = _whole_days(past)
        assumed = Prior(**prior)
        self._facts: dict[str, Callable[[], Any]] = {
            "grid": lambda: grid,
            "slot": lambda: grid.slot,
            "capacity": lambda: capacity,
            "price_floor": lambda: floor,
            "price_ceiling": lambda: ceiling,
            "prior": lambda: assumed,
            **{name: partial(prior.__getitem__, name) for name in prior},
        }
        if self._filed:
            history = _workload(past[: self._filed])
            self._facts[HISTORY] = lambda: history

    def algorithm(self, name: str, options: Mapping[str, Any]) -> Algorithm:
        """The algorithm of that name.

        Raises
        ------
        ConfigurationError
            If there is none, or it does not take these options.
        """
        return _make("algorithm", name, find_algorithm, self._facts, options)

    def predictor(self, name: str, options: Mapping[str, Any]) -> Predictor:
        """The predictor of that name, which has heard of the past.

        One that takes a history is given that of the days before the last; the rest of
        the past it observes. So what it knows is what it knew before a restart, when it
        had renewed its tables at the last midnight.

        Raises
        ------
        ConfigurationError
            If there is none, or it does not take these options.
        """
        of_learned = {key: options[key] for key in options if key in OF_LEARNED}
        facts: Facts = {**self._facts, LEARNED: partial(self._learned, of_learned)}
        made = _make("predictor", name, find_predictor, facts, options)
        told = parameters(type(made)).keys() & {HISTORY, LEARNED}
        for seen in self._past[self._filed if told else 0 :]:
            made.observe(seen)
        return made

    def _learned(self, options: Mapping[str, Any]) -> Predictor:
        capacity, slot = self._facts["capacity"](), self._facts["slot"]()
        if self._filed:
            return LP(self._facts[HISTORY](), capacity, slot, **options)
        return LP.from_nothing(capacity, slot, **options)


def _make(
    setting: str,
    name: str,
    find: Callable[[str], type[T]],
    facts: Facts,
    options: Mapping[str, Any],
) -> T:
    """The plug-in that a setting names, with its options."""
    try:
        kind = find(name)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"Pool.{setting}: {error}") from None
    where = f"Pool.{setting}_options: {name}"
    own = parameters(kind).keys() - GIVEN
    known = own | (OF_LEARNED if LEARNED in parameters(kind) else set())
    for option in options:
        if option not in known:
            others = ", ".join(sorted(known)) or "none at all"
            raise ConfigurationError(f"{where} has no option {option!r}; it has {others}")
    try:
        return construct(kind, facts, {key: options[key] for key in options if key in own})
    except MissingParameter as missing:
        if missing.name == HISTORY:
            raise ConfigurationError(
                f"Pool.{setting}: {name} only knows the bids of past days, and none are stored "
                "yet; use 'blend', which begins with a prior"
            ) from None
        raise ConfigurationError(
            f"{where} needs {missing.name!r}; give it as {{{missing.name!r}: ...}}"
        ) from None
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _whole_days(past: Sequence[SeenRequest]) -> int:
    """How many requests came before the day of the last one."""
    if not past:
        return 0
    midnight = past[-1].submitted // DAY * DAY
    return sum(seen.submitted < midnight for seen in past)


def _workload(past: Sequence[SeenRequest]) -> Workload:
    rows = [[getattr(seen, name) for name in COLUMNS] for seen in past]
    return Workload(*np.array(rows, dtype=np.int64).T)
