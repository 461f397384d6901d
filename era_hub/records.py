"""Between the engine's promises and the database's rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import islice

from era_pricing import Commitment as EngineCommitment
from era_pricing import Configuration, Decision, ResourceRequest, Share, Window
from era_pricing import Placement as EnginePlacement
from era_pricing import Reservation as Promise
from era_pricing.inventory import POOL
from era_pricing.predictors import SeenRequest

from . import models
from .models import JobState, Kind, State
from .store.tables import Job, Placement, Reservation


def new_reservation(
    promise: Promise,
    wanted: ResourceRequest,
    configuration: Configuration,
    user: str,
    groups: Collection[str],
    request: models.ReservationRequest | models.JobRequest,
    *,
    pool: str,
    units: int,
    account_id: int,
) -> Reservation:
    """The row of a bid the engine has just accepted, with its job's if it is one."""
    row = Reservation(
        id=promise.job_id,
        pool=pool,
        kind=Kind.JOB if isinstance(request, models.JobRequest) else Kind.NOTEBOOK,
        user=user,
        server_name=getattr(request, "server_name", ""),
        configuration=request.configuration,
        count=request.count,
        units=units,
        state=State.ACCEPTED,
        arrival=wanted.arrival,
        deadline=wanted.deadline,
        value=request.value,
        price=promise.price,
        refunded=0,
        gpus=None,
        has_workload=False,
        message="",
        created=promise.made,
        ended=None,
        idempotency_key=None,
        account_id=account_id,
        groups=sorted(groups),
        version=1,
        commitment=promise.commitment,
        resources={name: str(each) for name, each in configuration.resources.items()},
        taken=dict(configuration.taken),
        run_nodes=None,
        run_end=None,
        runs=0,
        job=None,
    )
    move(row, promise, promise.made)
    if isinstance(request, models.JobRequest):
        row.job = Job(
            id=row.id,
            name=request.name,
            script=request.script,
            filename=request.filename,
            command=[*(request.command or ["python3", request.filename]), *request.args],
            environment=request.environment,
            state=JobState.QUEUED,
            directory=None,
            exit_code=None,
            message="",
        )
    return row


def extend(row: Reservation, longer: Promise, value: int) -> None:
    """Let a row be what its reservation has become by an extension worth so much."""
    row.price = longer.price
    row.value = min(row.value + value, models.MAX_CREDITS * models.MICRO)
    if row.run_end == row.end:
        row.run_end = longer.end
    _place(row, longer)


def move(row: Reservation, promise: Promise, now: int) -> None:
    """Let a row be where and when the engine has moved its reservation."""
    _place(row, promise)
    row.nodes = nodes_from(row, now)


def nodes_from(row: Reservation, now: int) -> list[str]:
    """Where a reservation is now, or will be next."""
    parts = _parts(row)
    return next((part for part in parts if part.end > now), parts[-1]).nodes


def part_at(row: Reservation, now: int) -> Part | None:
    """The part of a reservation whose time it is, neighbours on the same nodes as one."""
    parts = _parts(row)
    at = next((n for n, part in enumerate(parts) if part.start <= now < part.end), None)
    if at is None:
        return None
    part = parts[at]
    for each in parts[at + 1 :]:
        if each.start != part.end or each.shares != part.shares:
            break
        part = replace(part, end=each.end)
    return part


def displaced(row: Reservation, now: int) -> bool:
    """Whether a workload runs where, or when, its reservation, not yet over, is no longer."""
    if row.run_nodes is None or row.run_end is None or now >= row.end:
        return False
    return not any(
        part.start < row.run_end <= part.end and now < part.end and part.nodes == row.run_nodes
        for part in _parts(row)
    )


def promise(row: Reservation, resource: str) -> Promise:
    """The engine's view of a stored reservation; `resource` is the one that is priced."""
    taken = row.taken or {resource: row.units // row.count}
    placements, prices = [], iter(row.slot_prices)
    for part in _parts(row):
        shares = tuple(
            Share(node, row.configuration, count, {k: v * count for k, v in taken.items() if v})
            for node, count in part.shares
        )
        slot_prices = tuple(islice(prices, part.slots))
        placements.append(EnginePlacement(part.start, part.end, slot_prices, shares))
    commitment = EngineCommitment(row.commitment)
    fixed = commitment is EngineCommitment.FIXED
    windows = () if fixed else (Window(row.arrival, row.deadline),)
    return Promise(row.id, tuple(placements), row.created, commitment, windows)


@dataclass(frozen=True)
class Part:
    """A time [start, end) in which a reservation has its bundles, and where.

    `slots` is how many of its prices are for that part; `shares` are node and count.
    """

    start: int
    end: int
    slots: int
    shares: tuple[tuple[str, int], ...]

    @property
    def nodes(self) -> list[str]:
        """The node of each bundle; none on the only machine of a pool."""
        return [node for node, count in self.shares for _ in range(count) if node != POOL]


def _parts(row: Reservation) -> list[Part]:
    if not row.placements:
        return [Part(row.start, row.end, len(row.slot_prices), ((POOL, row.count),))]
    return [
        Part(p.start, p.end, p.slots, tuple((node, count) for node, count in p.shares))
        for p in row.placements
    ]


def _place(row: Reservation, promise: Promise) -> None:
    """Times, prices and places of a promise."""
    row.start, row.end = promise.start, promise.end
    row.duration = sum(each.end - each.start for each in promise.placements)
    row.slot_prices = list(promise.slot_prices)
    parts = [
        [each.start, each.end, len(each.slot_prices), [[s.node, s.count] for s in each.shares]]
        for each in promise.placements
    ]
    plain = len(parts) == 1 and parts[0][3] == [[POOL, row.count]]
    row.placements = [
        Placement(
            reservation_id=row.id, number=number, start=start, end=end, slots=slots, shares=shares
        )
        for number, (start, end, slots, shares) in enumerate([] if plain else parts)
    ]


def seen(
    wanted: ResourceRequest, units: int, value: int, decision: Decision, now: int
) -> SeenRequest:
    """A decided bid for so many units, as the engine tells the predictors of it."""
    return SeenRequest(
        submitted=now,
        arrival=max(wanted.arrival, now),
        deadline=wanted.deadline,
        units=units,
        duration=wanted.duration,
        value=value,
        accepted=decision.accepted,
        price=decision.price,
    )


def end_job(job: Job, state: JobState, exit_code: int | None = None, message: str = "") -> None:
    """What has become of a job; what was said first stays."""
    if not JobState(job.state).final:
        job.state, job.exit_code, job.message = state, exit_code, message
