"""One run: a mechanism over a workload, event by event, with the engine that a service uses."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from time import perf_counter_ns
from typing import Final

import numpy as np
import numpy.typing as npt

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.bids import Bid, BidError
from era_pricing.engine import Era
from era_pricing.reservations import Feedback
from era_pricing.simulator.building import build, capacity_changes, unit_bid
from era_pricing.simulator.cloud import (
    BROKEN,
    KEPT,
    NEVER,
    Capacity,
    Cloud,
    CloudModel,
)
from era_pricing.simulator.live import LiveJobs
from era_pricing.simulator.mechanism import Mechanism, Pool
from era_pricing.simulator.requests import Requests
from era_pricing.timegrid import DAY, HOUR, TimeGrid
from era_pricing.workload import Workload

TOO_DEAR, ACCEPTED, NO_ROOM, REFUSED = 0, 1, 2, 3
"""The answer to a bid: it cost more than it was worth; it was accepted; it did not fit into
its window; it could never be served."""

_CHUNK: Final = 4096
_PRICES_AHEAD: Final = DAY
_SHOWN: Final = np.array((0.1, 0.5, 0.9))


@dataclass(frozen=True, eq=False)
class Run:
    """What happened, as columns: one row for each request, stint or slot.

    Attributes
    ----------
    requests, mechanism, pool, cloud, seed, grid
        What was run.
    answer, fate : int8 array, shape (m,)
        `ACCEPTED` or why not; what became of accepted ones, see `cloud`.
    price, refund : IntArray, shape (m,)
        Charged on acceptance, and given back later, micro-credits.
    worth : IntArray, shape (m,)
        Value of what was accepted if it is kept, micro-credits; else 0.
    promised_start, start : IntArray, shape (m,)
        The start told on acceptance and the one it really had, UTC seconds; -1: none.
    decision_ns : IntArray, shape (m,)
        Time that the engine took for each decision.
    stints : IntArray, shape (k, 4)
        Reserved times that came to pass: row, start, end, units.
    first_slot : int
        Absolute index of the first slot of the run.
    capacity : FloatArray, shape (n,)
        Units of the first priced resource that were there in each slot.
    prices : FloatArray, shape (n, 3)
        10 %, 50 % and 90 % quantile of the price of one unit in the slots of the
        coming day that were for sale, micro-credits per hour; NaN: none was.
    """

    requests: Requests
    mechanism: Mechanism
    pool: Pool
    cloud: CloudModel
    seed: int
    grid: TimeGrid
    answer: npt.NDArray[np.int8]
    fate: npt.NDArray[np.int8]
    price: IntArray
    refund: IntArray
    worth: IntArray
    promised_start: IntArray
    start: IntArray
    decision_ns: IntArray
    stints: IntArray
    first_slot: int
    capacity: FloatArray
    prices: FloatArray


def simulate(
    requests: Requests | Workload,
    mechanism: Mechanism,
    pool: Pool,
    *,
    history: Workload | None = None,
    cloud: CloudModel | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Run a mechanism over a workload.

    Parameters
    ----------
    requests
        What is asked for; sorted by submission if it is not.
    mechanism
        How the pool sells.
    pool
        What there is to sell.
    history
        Requests of the past, for plug-ins that learn.
    cloud
        What goes otherwise than planned; an ideal cloud if None.
    seed
        Of everything random. The same arguments give the same run, but for
        the measured times.
    progress
        Called with the number of requests decided since the last call.

    Raises
    ------
    SetupError
        If the mechanism cannot be built.

    Notes
    -----
    Memory is a few dozen bytes for each request; no object of a request outlives
    its reservation.
    """
    if isinstance(requests, Workload):
        requests = Requests(requests)
    requests = requests.sorted()
    grid = mechanism.grid(requests.columns, history)
    era = build(mechanism, pool, grid, requests, history, seed)
    run = _Simulation(era, grid, requests, mechanism, pool, cloud or CloudModel(), seed)
    run.play(progress or (lambda decided: None))
    return run.result()


class _Samples:
    """What is looked at when a slot begins."""

    def __init__(self) -> None:
        self.slots, self.capacity, self.prices = array("q"), array("d"), array("d")

    def add(self, slot: int, capacity: float, prices: tuple[float, float, float]) -> None:
        self.slots.append(slot)
        self.capacity.append(capacity)
        self.prices.extend(prices)

    def arrays(self) -> tuple[int, FloatArray, FloatArray]:
        """First slot, and capacity and prices of each; between looks capacity stays."""
        if not self.slots:
            return 0, np.zeros(0), np.zeros((0, 3))
        first, last = self.slots[0], self.slots[-1]
        at = np.array(self.slots, dtype=np.int64) - first
        latest = np.searchsorted(at, np.arange(last - first + 1), side="right") - 1
        capacity = np.array(self.capacity)[latest]
        prices = np.full((last - first + 1, 3), np.nan)
        prices[at] = np.array(self.prices).reshape(-1, 3)
        return first, capacity, prices


class _Simulation:
    """The events of one run, in the order of time.

    At the same moment the cloud's look at the plan comes first, then what happens
    to jobs, then submissions in their order.
    """

    def __init__(
        self,
        era: Era,
        grid: TimeGrid,
        requests: Requests,
        mechanism: Mechanism,
        pool: Pool,
        cloud: CloudModel,
        seed: int,
    ) -> None:
        self._era = era
        self._grid = grid
        self._requests = requests
        self._mechanism = mechanism
        self._pool = pool
        self._model = cloud
        self._seed = seed
        m = len(requests)
        self._world = Cloud(cloud, m, seed, requests.needed)
        self._live = LiveJobs(self._world, pool.priced[0], m)
        self._there = Capacity(cloud, tuple(pool.nodes), seed)
        self._answer = np.full(m, REFUSED, dtype=np.int8)
        self._price, self._refund = np.zeros(m, np.int64), np.zeros(m, np.int64)
        self._worth, self._ns = np.zeros(m, np.int64), np.zeros(m, np.int64)
        self._told = np.full(m, -1, np.int64)
        self._left: list[str] = []
        self._samples = _Samples()
        self._shown = pool.shown
        self._units_there = float(pool.capacity(pool.priced[0]))

    def play(self, progress: Callable[[int], None]) -> None:
        """Go through all events."""
        submissions = _submissions(self._requests, self._mechanism)
        row, due, bid = next(submissions, (0, NEVER, None))
        step = self._model.poll or self._grid.slot
        look = due // step * step
        while due < NEVER or self._live:
            happens = self._live.next_time
            if look <= min(happens, due):
                self._look(look)
                look += step
                if not self._live and not self._model.moves_capacity:
                    look = max(look, min(due, NEVER - step) // step * step)
            elif happens <= due:
                self._play(happens)
            else:
                self._decide(row, due, bid)
                if row % 256 == 255 or row == len(self._requests) - 1:
                    progress(row % 256 + 1)
                row, due, bid = next(submissions, (0, NEVER, None))

    # Events.

    def _decide(self, row: int, now: int, bid: Bid | None) -> None:
        """A submission."""
        assert bid is not None
        before = perf_counter_ns()
        try:
            decision = self._era.make_reservation(str(row), bid, now)
        except BidError:
            self._ns[row] = perf_counter_ns() - before
            return
        self._ns[row] = perf_counter_ns() - before
        made, chosen = decision.reservation, decision.quote.alternative
        if made is None or chosen is None or decision.price is None:
            self._answer[row] = TOO_DEAR if decision.price is not None else NO_ROOM
            return
        self._answer[row] = ACCEPTED
        self._price[row] = decision.price
        self._told[row] = made.start
        alternative = bid.alternatives[chosen]
        self._worth[row] = alternative.value_at(made.end)
        self._live.add(row, made, alternative)

    def _look(self, now: int) -> None:
        """The cloud looks at the plan and reports."""
        self._update(self._feedback(now), now)
        slot, samples = self._grid.index(now), self._samples
        if not samples.slots or samples.slots[-1] < slot:
            samples.add(slot, self._units_there, self._price_sample(now))
        else:
            samples.capacity[-1] = max(samples.capacity[-1], self._units_there)

    def _play(self, now: int) -> None:
        """Something happens to jobs."""
        if not self._world.ideal:
            # Jobs may have been moved since the last look.
            self._update(Feedback(), now)
        left = self._live.play(now)
        if self._model.poll:
            self._left += left
        elif left:
            self._update(Feedback(terminated=left), now)

    # Inside.

    def _update(self, feedback: Feedback, now: int) -> None:
        result = self._era.update(feedback, now)
        for reservation in result.moved:
            self._live.replace(reservation, now)
        for refunds, fate in (
            (result.released, None),
            (result.broken, BROKEN),
        ):
            for job, refund in refunds.items():
                self._refund[int(job)] += refund
                self._live.strike(job, now, fate)
        for job, refund in result.overruns.items():
            self._refund[int(job)] += refund

    def _feedback(self, now: int) -> Feedback:
        left, self._left = self._left, []
        if not self._model.moves_capacity:
            return Feedback(terminated=left)
        share = self._there.step(now)
        step = self._model.poll or self._grid.slot
        end = self._grid.index_up(now + step) * self._grid.slot
        self._units_there = float(self._pool.left(self._pool.priced[0], share))
        return Feedback(capacity_changes(self._pool, share, now, end), terminated=left)

    def _price_sample(self, now: int) -> tuple[float, float, float]:
        """Quantiles of the price per unit and hour in the coming day."""
        slot = self._grid.slot
        ahead = max(1, min(self._grid.slots, _PRICES_AHEAD // slot))
        if self._shown is None:
            return (np.nan, np.nan, np.nan)
        prices = self._era.prices(self._shown, now, ahead, now)
        for_sale = prices[prices >= 0]
        if not len(for_sale):
            return (np.nan, np.nan, np.nan)
        for_sale.sort()
        if for_sale[0] == for_sale[-1]:
            return (float(for_sale[0]) * (HOUR / slot),) * 3
        last = len(for_sale) - 1
        found = np.interp(_SHOWN * last, np.arange(last + 1), for_sale) * (HOUR / slot)
        return (float(found[0]), float(found[1]), float(found[2]))

    def result(self) -> Run:
        """All that was noted down, as arrays."""
        accepted = self._answer == ACCEPTED
        fate = self._live.fate
        self._worth[~accepted | (fate != KEPT)] = 0
        first, capacity, prices = self._samples.arrays()
        return Run(
            requests=self._requests,
            mechanism=self._mechanism,
            pool=self._pool,
            cloud=self._model,
            seed=self._seed,
            grid=self._grid,
            answer=self._answer,
            fate=fate,
            price=self._price,
            refund=self._refund,
            worth=self._worth,
            promised_start=self._told,
            start=self._live.start,
            decision_ns=self._ns,
            stints=self._live.stints(),
            first_slot=first,
            capacity=capacity,
            prices=prices,
        )


def _submissions(requests: Requests, mechanism: Mechanism) -> Iterator[tuple[int, int, Bid | None]]:
    """Row, time and bid of each request; plain numbers are made a few thousand at a time."""
    columns = requests.columns
    for low in range(0, len(columns), _CHUNK):
        part = slice(low, low + _CHUNK)
        submitted = columns.submitted[part].tolist()
        if requests.bids:
            yield from zip(count(low), submitted, requests.bids[part], strict=False)
            continue
        rows = zip(
            columns.units[part].tolist(),
            columns.duration[part].tolist(),
            columns.arrival[part].tolist(),
            columns.deadline[part].tolist(),
            columns.value[part].tolist(),
            strict=True,
        )
        for row, now, fields in zip(count(low), submitted, rows, strict=False):
            yield row, now, unit_bid(*fields, mechanism)
