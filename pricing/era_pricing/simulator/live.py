"""Reservations that have not ended: what the cloud does with them, and what is kept of them."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import IntArray
from era_pricing.bids import Alternative
from era_pricing.reservations import Placement, Reservation
from era_pricing.simulator.cloud import FAILED, KEPT, LATE, NEVER, UNKNOWN, Cloud, Ending

_OVER, _END, _START = 0, 1, 2
"""Kinds of event; at the same moment they come in this order."""


@dataclass(slots=True)
class _Played:
    """A stretch of reserved time that has begun, and how it will end or has ended."""

    placement: Placement
    ending: Ending
    over: bool = False


@dataclass(slots=True)
class _Job:
    """A reservation and the work that is left of each of its requests, in seconds."""

    row: int
    reservation: Reservation
    work: list[int] = field(default_factory=list)
    deadlines: list[int] = field(default_factory=list)
    begun: dict[tuple[int, int], _Played] = field(default_factory=dict)
    left: int = 0  # requests that are not done
    running: int = 0  # stretches of reserved time that have begun and not ended
    late: bool = False
    over: bool = False


class LiveJobs:
    """Follows accepted bids until they end.

    Parameters
    ----------
    world
        What the cloud does with them. In an ideal one, everything that is not
        taken away is kept, and nothing is followed but the ends.
    resource
        The resource whose units are noted down.
    rows
        Number of requests.

    Attributes
    ----------
    fate : int8 array, shape (rows,)
        See `cloud`; `UNKNOWN` until it is clear.
    start : IntArray, shape (rows,)
        When jobs began, UTC seconds; -1 where they have not.
    """

    def __init__(self, world: Cloud, resource: str, rows: int) -> None:
        self._world = world
        self._resource = resource
        self._ideal = world.ideal
        self._jobs: dict[str, _Job] = {}
        self._events: list[tuple[int, int, int, str, Placement | None, Ending | None]] = []
        self._order = count()
        self._stints = (array("q"), array("q"), array("q"), array("q"))
        self.fate: npt.NDArray[np.int8] = np.full(rows, UNKNOWN, dtype=np.int8)
        self.start: IntArray = np.full(rows, -1, dtype=np.int64)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._jobs)

    @property
    def next_time(self) -> int:
        """When something happens next, UTC seconds."""
        return self._events[0][0] if self._events else NEVER

    def add(self, row: int, reservation: Reservation, alternative: Alternative) -> None:
        """Follow an accepted bid, of which `alternative` was taken."""
        job = _Job(row, reservation)
        self._jobs[reservation.job_id] = job
        if not self._ideal:
            requests = alternative.requests
            job.work = [self._world.work(row, request.duration) for request in requests]
            job.deadlines = [request.deadline for request in requests]
            job.left = len(requests)
        self._expect(job)

    def replace(self, reservation: Reservation, now: int) -> None:
        """Take in that a reservation was moved at `now`."""
        job = self._jobs.get(reservation.job_id)
        if job is not None:
            job.reservation = reservation
            self._stop(job, now)
            self._expect(job)

    def strike(self, job_id: str, now: int, fate: int | None = None) -> None:
        """Forget a reservation that was taken away or given back at `now`."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        if fate is not None:
            self.fate[job.row] = fate
        self._forget(job_id, job, now)

    def play(self, now: int) -> list[str]:
        """Let happen what is due by `now`.

        Returns
        -------
        list of str
            Jobs that have left before their reserved time is over.
        """
        left = []
        while self._events and self._events[0][0] <= now:
            time, kind, _, job_id, placement, ending = heapq.heappop(self._events)
            job = self._jobs.get(job_id)
            if job is None:
                continue
            if kind == _OVER:
                self._over(job_id, job, time)
                continue
            done = False
            if ending is not None:
                done = self._end(job, placement, ending)
            elif (placed := _placed(job.reservation, placement)) is not None:
                self._begin(job_id, job, placed)
            if job.over and not job.running:
                self._forget(job_id, job, time)
            elif done:
                left.append(job_id)
        return left

    def stints(self) -> IntArray:
        """Reserved times that came to pass so far: row, start, end, units; shape (k, 4)."""
        return np.array(self._stints, dtype=np.int64).T.reshape(-1, 4)

    # Events.

    def _expect(self, job: _Job) -> None:
        reservation = job.reservation
        self._push(reservation.end, _OVER, reservation.job_id)
        if self._ideal:
            return
        for placement in reservation.placements:
            if (placement.request, placement.start) not in job.begun:
                self._push(placement.start, _START, reservation.job_id, placement)

    def _push(
        self,
        time: int,
        kind: int,
        job_id: str,
        placement: Placement | None = None,
        ending: Ending | None = None,
    ) -> None:
        heapq.heappush(self._events, (time, kind, next(self._order), job_id, placement, ending))

    def _over(self, job_id: str, job: _Job, time: int) -> None:
        """The reserved time is over, unless the job was moved to a later one."""
        if job.reservation.end > time:
            return
        job.over = True
        if self._ideal:
            self.fate[job.row] = KEPT
        if not job.running:
            self._forget(job_id, job, time)

    def _begin(self, job_id: str, job: _Job, placement: Placement) -> None:
        request, key = placement.request, (placement.request, placement.start)
        # A request that needed less time than it reserved may be done already.
        if key in job.begun or not job.work[request]:
            return
        job.begun[key] = _Played(placement, self._run(job, placement))
        job.running += 1
        self._push(job.begun[key].ending.time, _END, job_id, placement, job.begun[key].ending)

    def _run(self, job: _Job, placement: Placement) -> Ending:
        """How a stretch of reserved time will end."""
        request = placement.request
        more = any(
            other.request == request and other.start > placement.start
            for other in job.reservation.placements
        )
        return self._world.run(
            (job.row, request, placement.start),
            placement.start,
            placement.end,
            job.work[request],
            job.deadlines[request],
            more,
        )

    def _stop(self, job: _Job, now: int) -> None:
        """Stop what is running and has lost its capacity.

        What was cut short goes on later with the work that is left; what is there no more begins
        again with all of it.
        """
        for key, played in list(job.begun.items()):
            placed = _placed(job.reservation, played.placement)
            if placed is None:
                job.running -= not played.over
                del job.begun[key]
                self._note(job.row, played.placement, now)
            elif placed.end < played.placement.end and not played.over:
                played.placement, played.ending = placed, self._run(job, placed)
                job_id = job.reservation.job_id
                self._push(played.ending.time, _END, job_id, placed, played.ending)

    def _end(self, job: _Job, placement: Placement | None, ending: Ending) -> bool:
        """A request, or a chunk of it, has left; whether the whole job has."""
        played = placement and job.begun.get((placement.request, placement.start))
        if not played or played.ending is not ending:
            return False  # it was stopped before
        played.over = True
        job.running -= 1
        job.work[played.placement.request] = ending.work
        if ending.fate is None or not job.left:
            return False
        job.late |= ending.fate == LATE
        job.left = 0 if ending.fate == FAILED else job.left - 1
        if job.left:
            return False
        self.fate[job.row] = FAILED if ending.fate == FAILED else LATE if job.late else KEPT
        return True

    def _forget(self, job_id: str, job: _Job, now: int) -> None:
        """Note down what came to pass; what is not done by now never will be."""
        del self._jobs[job_id]
        if job.left and self.fate[job.row] == UNKNOWN:
            self.fate[job.row] = FAILED
        placements: Sequence[Placement] = job.reservation.placements
        if job.reservation.start <= now:
            self.start[job.row] = job.reservation.start
        for placement in placements:
            if placement.start < now:
                self._note(job.row, placement, now)

    def _note(self, row: int, placement: Placement, now: int) -> None:
        """Note down a reserved time, up to `now`."""
        rows, starts, ends, units = self._stints
        rows.append(row)
        starts.append(placement.start)
        ends.append(min(placement.end, now))
        units.append(placement.units.get(self._resource, 0))


def _placed(reservation: Reservation, placement: Placement | None) -> Placement | None:
    """The placement with the same request and start, as it is now."""
    if placement is None:
        return None
    key = placement.request, placement.start
    found = (each for each in reservation.placements if (each.request, each.start) == key)
    return next(found, None)
