"""From a mechanism and a pool to an engine; all that knows how engines are made is here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from era_pricing.algorithms import Algorithm, find_algorithm
from era_pricing.arrays import FloatArray, IntArray
from era_pricing.bids import Bid, ResourceRequest
from era_pricing.configurations import base_units
from era_pricing.construction import (
    GIVEN,
    HISTORY,
    Facts,
    MissingParameter,
    construct,
    options_of,
    parameters,
)
from era_pricing.engine import Era
from era_pricing.inventory import Inventory
from era_pricing.predictors import LP, Predictor, Prior, find_predictor
from era_pricing.reservations import CapacityChange
from era_pricing.simulator.mechanism import UNIT, Mechanism, Pool, SetupError
from era_pricing.simulator.requests import Requests
from era_pricing.tariff import PricedResource
from era_pricing.timegrid import HOUR, TimeGrid
from era_pricing.workload import Workload

if TYPE_CHECKING:
    from era_pricing.simulator.bidfiles import BidList

SIDES: Final = ("algorithm", "predictor", "engine")
"""Who may have an option."""

_T = TypeVar("_T")


def build(
    mechanism: Mechanism,
    pool: Pool,
    grid: TimeGrid,
    requests: Requests,
    history: Workload | None = None,
    seed: int = 0,
) -> Era:
    """An engine, ready for the first bid.

    Parameters
    ----------
    mechanism, pool, grid
        What is simulated.
    requests
        What will be asked for; without a history, a prior is told its distribution.
    history
        Requests of the past for the first priced resource, for plug-ins that learn.
    seed
        For plug-ins that have a parameter of that name.

    Raises
    ------
    SetupError
        If a plug-in or an option is unknown, or a history is needed.
    """
    kind, theirs = _plugins(mechanism)
    options = _options(mechanism, kind, theirs)
    priced = []
    for resource in pool.priced:
        past = history if resource == pool.priced[0] else requests.asking(resource)
        facts = _facts(mechanism, pool, resource, grid, past, requests.asking(resource), seed)
        predictor = _create(mechanism.predictor, theirs, facts, options["predictor"])
        floor = pool.floors.get(resource, _per_base_unit(resource, mechanism.price_floor))
        ceiling = None
        if mechanism.price_ceiling is not None and resource == pool.priced[0]:
            ceiling = max(floor, _per_base_unit(resource, mechanism.price_ceiling))
        priced.append((resource, floor, predictor, ceiling))
    facts = _facts(mechanism, pool, pool.priced[0], grid, history, requests.columns, seed)
    algorithm = _create(mechanism.algorithm, kind, facts, options["algorithm"])
    try:
        return Era(
            grid,
            Inventory.of_nodes(pool.nodes),
            pool.configurations,
            algorithm,
            [PricedResource(*each) for each in priced],
            lambda: 0,
            mechanism.late_penalty,
            **options["engine"],
        )
    except (TypeError, ValueError) as error:
        raise SetupError(str(error)) from None


def _per_base_unit(resource: str, price: int) -> int:
    """A price of a whole unit, such as a core, as that of one in which the engine counts."""
    return max(1, price // base_units(resource, 1))


def unit_bid(
    units: int, duration: int, arrival: int, deadline: int, value: int, mechanism: Mechanism
) -> Bid:
    """The bid of one row of a workload."""
    request = ResourceRequest(_units(units), duration, arrival, deadline)
    return Bid.of(request, value, mechanism.commitment)


@lru_cache(maxsize=4096)
def _units(units: int) -> Mapping[str, int]:
    """So many bundles of one unit, checked."""
    return ResourceRequest({UNIT: units}, 1, 0, 1).configurations


def capacity_changes(pool: Pool, share: FloatArray, start: int, end: int) -> list[CapacityChange]:
    """What the cloud says when only `share` of each node is there in [start, end)."""
    return [
        CapacityChange(start, end, pool.part(name, float(part)), name)
        for name, part in zip(pool.nodes, share, strict=True)
    ]


def requests_of(bids: BidList, pool: Pool) -> tuple[Pool, Requests]:
    """Bids as requests, sorted by submission, and the pool with the bundles they bring along."""
    known = {each.name for each in pool.configurations}
    new = [each for each in bids.configurations if each.name not in known]
    there = replace(pool, configurations=(*pool.configurations, *new))
    by_resource = {
        resource: bids.columns({c.name: c.units(resource) for c in there.configurations})
        for resource in there.priced
    }
    return there, Requests(by_resource[there.priced[0]], bids.bids, by_resource).sorted()


# Plug-ins and their options.


def _facts(
    mechanism: Mechanism,
    pool: Pool,
    resource: str,
    grid: TimeGrid,
    history: Workload | None,
    asked: Workload,
    seed: int,
) -> Facts:
    past = history if history is not None and len(history) else None
    capacity = pool.capacity(resource)
    facts: dict[str, Callable[[], Any]] = {
        "capacity": lambda: capacity,
        "grid": lambda: grid,
        "slot": lambda: grid.slot,
        "price_floor": lambda: mechanism.price_floor,
        "seed": lambda: seed,
    }
    told = asked if past is None else past
    prior = prior_of(told, grid.slot)
    facts |= {name: partial(prior.get, name) for name in prior}
    facts["prior"] = lambda: Prior(**prior)
    if past is None:
        facts["learned"] = lambda: LP.from_nothing(capacity, grid.slot, seed=seed)
    else:
        facts[HISTORY] = lambda: past
        facts["learned"] = lambda: LP(past, capacity, grid.slot, seed=seed)
    return facts


def _create(name: str, plugin: type[_T], facts: Facts, options: dict[str, Any]) -> _T:
    try:
        return construct(plugin, facts, options)
    except MissingParameter as missing:
        if missing.name == HISTORY:
            raise SetupError(f"{name} learns from a history; give one with --history") from None
        raise SetupError(
            f"{name} needs {missing.name}; give it with --set {missing.name}=..."
        ) from None
    except (TypeError, ValueError) as error:
        raise SetupError(f"{name}: {error}") from None


def _options(
    mechanism: Mechanism, algorithm: type[Any], predictor: type[Any]
) -> dict[str, dict[str, Any]]:
    """The options of the algorithm, the predictor and the engine."""
    found: dict[str, dict[str, Any]] = {side: {} for side in SIDES}
    for name, text in mechanism.options.items():
        owners = _owners(name, algorithm, predictor)
        key = name.rpartition(".")[2]
        if not owners:
            known = {*options_of(algorithm), *options_of(predictor), *_engine_options()} - GIVEN
            raise SetupError(
                f"neither {mechanism.algorithm} nor {mechanism.predictor} nor the engine has an "
                f"option {name!r}; they have: {', '.join(sorted(known))}"
            )
        if len(owners) > 1:
            raise SetupError(
                f"more than one has an option {key!r}; write "
                + " or ".join(f"{side}.{key}" for side in owners)
            )
        found[owners[0]][key] = _value(text)
    return found


def _owners(name: str, algorithm: type[Any], predictor: type[Any]) -> list[str]:
    """Which of the sides has an option."""
    takes = {
        "algorithm": parameters(algorithm),
        "predictor": parameters(predictor),
        "engine": _engine_options(),
    }
    part, dot, key = name.rpartition(".")
    if key in GIVEN:
        return []
    return [side for side in SIDES if key in takes[side] and (not dot or part == side)]


def _engine_options() -> list[str]:
    """Parameters of the engine that a mechanism doesn't have under a name of its own."""
    return [
        name
        for name, parameter in parameters(Era).items()
        if parameter.default is not Parameter.empty and name != "late_penalty"
    ]


def takes(mechanism: Mechanism, name: str) -> bool:
    """Whether a mechanism has an option; `name` as in its options."""
    return bool(_owners(name, *_plugins(mechanism)))


def _plugins(mechanism: Mechanism) -> tuple[type[Algorithm], type[Predictor]]:
    try:
        return find_algorithm(mechanism.algorithm), find_predictor(mechanism.predictor)
    except (ValueError, TypeError) as error:
        raise SetupError(str(error)) from None


def _value(text: str) -> Any:
    """A number, truth, list or null as JSON has them; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


# What a prior is told.


def prior_of(workload: Workload, slot: int) -> dict[str, Any]:
    """Options of the predictor `prior` that fit a workload's distribution.

    The demand for an hour of the day is the units that would run in it if each job
    were spread evenly over its window. Linear demand has its mean value at half of
    the price at which nobody buys, so that price is twice the mean value of a
    unit-hour. The lead time runs from the submission to the middle of the window.
    """
    if not len(workload):
        return {"max_price": 1, "peak_demand": 0.0, "lead_time": 0.0}
    hours = workload.unit_hours
    mean_value = float(workload.value.sum()) / float(hours.sum())
    profile = _profile(workload)
    lead = (workload.arrival + workload.deadline - workload.duration) / 2 - workload.submitted
    return {
        "max_price": max(1, round(2 * mean_value)),
        "peak_demand": float(profile.max()),
        "profile": [float(weight) for weight in profile],
        "lead_time": max(float(slot), float(np.average(lead, weights=hours))),
    }


def _profile(workload: Workload) -> FloatArray:
    """Mean units wanted in each UTC hour of the day, shape (24,)."""
    first = int(workload.arrival.min()) // HOUR
    count = -(-int(workload.deadline.max()) // HOUR) - first
    density = workload.units * workload.duration / (workload.deadline - workload.arrival)
    change = np.zeros(count + 2)
    np.add.at(change, workload.arrival // HOUR - first, density)
    np.add.at(change, -(-workload.deadline // HOUR) - first, -density)
    units = np.maximum(np.cumsum(change)[:count], 0)  # rounding may leave less
    of_day: IntArray = (np.arange(count) + first) % 24
    # A short workload leaves out hours; they count as the mean.
    seen = np.bincount(of_day, minlength=24)
    sums = np.bincount(of_day, weights=units, minlength=24)
    mean = float(units.mean())
    result: FloatArray = np.where(seen > 0, sums / np.maximum(seen, 1), mean)
    return result
