"""The cloud under the market: what goes otherwise than promised.

The engine promises units; a cloud has to find them. `CloudModel` says how it fails
to: it looks at the plan only now and then, jobs crash, jobs end early, nodes break,
and other tenants of the same datacentre take capacity away and give it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.timegrid import HOUR
from era_pricing.workload import Workload

NEVER: Final = 2**62
"""A moment that does not come, UTC seconds."""

UNKNOWN, KEPT, BROKEN, FAILED, LATE = -1, 0, 1, 2, 3
"""What became of an accepted job: not clear yet; done in time; its capacity was lost; it
crashed and had no time left to start again; it was done after its deadline."""


@dataclass(frozen=True)
class CloudModel:
    """How the world differs from the plan. The defaults are an ideal cloud.

    Parameters
    ----------
    poll
        Seconds between two looks at the plan; jobs start, and are ended, at the
        first look after their time. 0: at once.
    early_share
        Share of jobs that need less time than they reserved: of their duration,
        evenly distributed between `early_least` and all.
    early_least
        See above.
    job_mtbf
        Mean hours of running until a job crashes; 0: never. It starts again from
        its beginning (a preemptible one from that of its chunk) if the reserved
        time is enough for that.
    node_mtbf, node_repair
        Mean hours until a node breaks, and until it is repaired; 0: nodes never break.
    nodes
        Into how many nodes of equal size a pool without node shapes is cut for that.
    tenant_share
        The pool's share of a datacentre whose other tenants go first. 0: no others.
    tenant_load
        Mean share of the others' part that they use.
    tenant_swing
        Standard deviation of that share.
    tenant_memory
        Hours after which the others' use has forgotten where it was.
    tenant_cycle
        Amplitude of its daily cycle, with its height at 15:00 UTC.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    poll: int = 0
    early_share: float = 0.0
    early_least: float = 0.1
    job_mtbf: float = 0.0
    node_mtbf: float = 0.0
    node_repair: float = 4.0
    nodes: int = 8
    tenant_share: float = 0.0
    tenant_load: float = 0.9
    tenant_swing: float = 0.1
    tenant_memory: float = 6.0
    tenant_cycle: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            number = getattr(self, field.name)
            if not (isinstance(number, int | float) and math.isfinite(number) and number >= 0):
                raise ValueError(f"{field.name} must be a number, 0 or more; got {number!r}")
        for name in ("early_share", "early_least", "tenant_share"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be a share, at most 1; got {getattr(self, name)!r}")
        for name in ("nodes", "node_repair", "tenant_memory"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)!r}")

    @property
    def moves_capacity(self) -> bool:
        """Whether capacity ever differs from the nominal one."""
        return self.node_mtbf > 0 or self.tenant_share > 0

    @property
    def ideal(self) -> bool:
        """Whether everything goes as promised."""
        return not (self.poll or self.early_share or self.job_mtbf or self.moves_capacity)


@dataclass(frozen=True)
class Ending:
    """How the run of a job, or of a chunk of it, will end if nothing is taken away.

    Attributes
    ----------
    time : int
        When the job leaves, UTC seconds.
    fate : int or None
        `KEPT`, `FAILED` or `LATE`; None if work is left for another chunk.
    work : int
        Seconds of work that are left then.
    """

    time: int
    fate: int | None
    work: int


class Cloud:
    """What becomes of jobs. The same seed gives the same, whatever became of others.

    Parameters
    ----------
    model
        What can happen.
    rows
        Number of requests.
    seed
        Of everything random.
    needed : IntArray, shape (rows,), optional
        Seconds that each job really needs; default: as the model draws them.
    """

    def __init__(
        self, model: CloudModel, rows: int, seed: int, needed: IntArray | None = None
    ) -> None:
        self.model = model
        self._seed = seed
        self._shares = shares_needed(model, rows, seed)
        self._needed = needed

    @property
    def ideal(self) -> bool:
        """Whether everything goes as promised."""
        return self.model.ideal and self._needed is None

    def seen(self, time: int) -> int:
        """The first look at the plan at or after `time`."""
        poll = self.model.poll
        return -(-time // poll) * poll if poll else time

    def work(self, row: int, duration: int) -> int:
        """Seconds that a job really needs, of the duration it asked for."""
        if self._needed is not None:
            return int(self._needed[row])
        if not self.model.early_share:
            return duration
        return max(1, math.ceil(duration * float(self._shares[row])))

    def run(
        self, key: tuple[int, ...], start: int, end: int, work: int, deadline: int, chunk: bool
    ) -> Ending:
        """Play a reserved time [start, end) of a job that still needs `work` seconds.

        Parameters
        ----------
        key
            Numbers that tell this from all other times of jobs.
        start, end
            What is reserved, UTC seconds.
        work
            Seconds of work that are left.
        deadline
            When it must be done, UTC seconds.
        chunk
            Whether more reserved time follows, so that work may be left over.
        """
        begin, stop = self.seen(start), self.seen(end)
        for crash in self._crashes(key):
            if crash >= work or begin + crash >= stop:
                break
            begin = self.seen(begin + crash)
            if begin + work > stop and not chunk:
                return Ending(min(begin, stop), FAILED, work)
        done = begin + work
        if done <= stop:
            return Ending(done, LATE if done > deadline else KEPT, 0)
        if chunk:
            return Ending(stop, None, work - max(0, stop - begin))
        return Ending(stop, FAILED, work)

    def _crashes(self, key: tuple[int, ...]) -> list[int]:
        """Running times until the next crashes; a hundred of them are enough for anyone."""
        if not self.model.job_mtbf:
            return []
        rng = np.random.default_rng([self._seed, 2, *key])
        draws = rng.exponential(self.model.job_mtbf * HOUR, 100)
        return [int(draw) + 1 for draw in draws]


def shares_needed(model: CloudModel, rows: int, seed: int) -> FloatArray:
    """Share of the duration that each job really needs, shape (rows,)."""
    rng = np.random.default_rng([seed, 1])
    early = rng.random(rows) < model.early_share
    return np.where(early, rng.uniform(model.early_least, 1.0, rows), 1.0)


def actual_durations(model: CloudModel, workload: Workload, seed: int) -> IntArray:
    """Seconds that each job really needs, shape (m,); at most its duration."""
    if not model.early_share:
        return workload.duration
    needed = np.ceil(workload.duration * shares_needed(model, len(workload), seed))
    durations: IntArray = np.maximum(needed.astype(np.int64), 1)
    return durations


class Capacity:
    """The share of the pool that is really there, as time goes on.

    Parameters
    ----------
    model
        What can happen.
    names
        The nodes that can break; a pool of one node is cut into `model.nodes`
        parts, and a broken part takes its share of the node.
    seed
        Of everything random.
    """

    def __init__(self, model: CloudModel, names: tuple[str, ...], seed: int) -> None:
        self._model = model
        self._names = names
        self._parts = model.nodes if len(names) == 1 else 1
        count = len(names) * self._parts
        self._rng = np.random.default_rng([seed, 3])
        self._down = np.zeros(count, dtype=bool)
        self._next: FloatArray = np.full(count, float(NEVER))
        self._others = 0.0
        self._last: int | None = None

    def step(self, now: int) -> FloatArray:
        """Share of each node that is there at `now`, shape (nodes,), between 0 and 1.

        Parameters
        ----------
        now
            UTC seconds, not before the last call.
        """
        up = self._nodes_up(now).reshape(len(self._names), self._parts).mean(axis=1)
        left: FloatArray = up * self._left_by_tenants(now)
        self._last = now
        return left

    def _nodes_up(self, now: int) -> FloatArray:
        model = self._model
        if not model.node_mtbf:
            return np.ones(len(self._down))
        if self._last is None:
            self._next = now + self._rng.exponential(model.node_mtbf * HOUR, len(self._down))
        while (due := self._next <= now).any():
            for node in np.flatnonzero(due):
                self._down[node] = not self._down[node]
                mean = model.node_repair if self._down[node] else model.node_mtbf
                self._next[node] += self._rng.exponential(mean * HOUR)
        return (~self._down).astype(np.float64)

    def _left_by_tenants(self, now: int) -> float:
        """An Ornstein-Uhlenbeck process around the daily cycle, drawn exactly."""
        model = self._model
        if not model.tenant_share:
            return 1.0
        if self._last is None:
            self._others = float(self._rng.normal())
        else:
            kept = math.exp(-(now - self._last) / (model.tenant_memory * HOUR))
            self._others *= kept
            self._others += math.sqrt(1 - kept * kept) * float(self._rng.normal())
        hour = now / HOUR % 24
        cycle = model.tenant_cycle * math.cos(2 * math.pi * (hour - 15) / 24)
        load = model.tenant_load + cycle + model.tenant_swing * self._others
        free = 1 - (1 - model.tenant_share) * max(0.0, load)
        return min(1.0, max(0.0, free / model.tenant_share))


def shares_seen(
    model: CloudModel, names: tuple[str, ...], seed: int, begin: int, slots: range, slot: int
) -> FloatArray:
    """The greatest share of each node that is there at some time in each slot.

    Parameters
    ----------
    model, names, seed
        As for `Capacity`.
    begin
        When the run begins, UTC seconds.
    slots
        Absolute indices of the slots.
    slot
        Length of a slot, seconds.

    Returns
    -------
    FloatArray, shape (slots, nodes)
        What a run with this seed goes through; 1 before it begins.
    """
    seen = np.ones((len(slots), len(names)))
    there = Capacity(model, names, seed)
    step = model.poll or slot
    first = begin // step * step
    seen[max(first // slot - slots.start, 0) :] = 0
    for look in range(first, slots.stop * slot, step):
        share = there.step(look)
        low = max(look // slot - slots.start, 0)
        high = max(-(-(look + step) // slot) - slots.start, 0)
        np.maximum(seen[low:high], share, out=seen[low:high])
    return seen
