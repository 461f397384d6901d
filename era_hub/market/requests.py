"""From what people ask for to what the engine is asked."""

from __future__ import annotations

from era_pricing import BidError, ResourceRequest

from .. import models, views
from .state import PoolState


def resource_request(state: PoolState, request: models.RequestBase, now: int) -> ResourceRequest:
    """The engine's form of a request.

    Raises
    ------
    BidError
        If the request makes no sense; the text says what to change.
    """
    _check_size(state, request)
    grid = state.era.grid
    arrival = now if request.arrival is None else int(request.arrival.timestamp())
    begin = max(arrival, now)
    sold_until = grid.horizon_end(now)
    if begin + request.duration > sold_until:
        raise BidError(
            f"arrival: time is sold until {views.text(sold_until)} only; "
            "choose an earlier arrival or a shorter duration"
        )
    # The engine sells whole slots; what rounding adds must not cost a start.
    rounded = grid.slots_for(request.duration) * grid.slot
    deadline = begin + request.duration
    if request.deadline is not None:
        deadline = int(request.deadline.timestamp())
    if deadline <= now:
        raise BidError(f"deadline: {request.deadline} has passed; choose a later one")
    if deadline - begin < request.duration:
        raise BidError(
            f"deadline: the window of {deadline - begin} s is shorter than the duration of "
            f"{request.duration} s; choose a later deadline or a shorter duration"
        )
    return ResourceRequest(
        configurations={request.configuration: request.count},
        duration=request.duration,
        arrival=begin,
        deadline=min(deadline + rounded - request.duration, views.LATEST),
    )


def units_of(state: PoolState, request: models.RequestBase) -> int:
    """GPUs of a request whose configuration is for sale."""
    return state.configurations[request.configuration].units(state.era.resource) * request.count


def _check_size(state: PoolState, request: models.RequestBase) -> None:
    """What the engine would say of its own fields, in words of the request's."""
    if state.shaped and request.count > 1 and isinstance(request, models.ReservationRequest):
        raise BidError(
            f"count must be 1: a notebook server runs on one node; got {request.count}. "
            "Choose a larger configuration"
        )
    if request.configuration not in state.configurations:
        known = ", ".join(sorted(state.configurations))
        raise BidError(f"configuration must be one of {known}; got {request.configuration!r}")
    asked, there = units_of(state, request), state.for_sale
    if asked > there:
        most = there // state.configurations[request.configuration].units(state.era.resource)
        works = f"count must be at most {most}" if most else "configuration must be smaller"
        raise BidError(f"{works}: {asked} GPUs asked, the pool sells {there}")
