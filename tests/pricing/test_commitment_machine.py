"""Random histories of a pool with nodes, of all commitments, against naive book-keeping.

The model keeps lists of what each node is promised second by second. Where the engine
has a choice (which start, which node) it follows the engine, and checks that the choice
was allowed; what may be charged and refunded it works out by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from era_pricing import (
    Alternative,
    BasicEcon,
    Bid,
    BidError,
    CapacityChange,
    Commitment,
    Configuration,
    EarlyStart,
    Era,
    Feedback,
    FirstFit,
    Inventory,
    PricedResource,
    Prior,
    Reservation,
    ResourceRequest,
    TimeGrid,
    UnknownReservation,
    ValueStep,
)
from era_pricing.algorithms import BidPrice, Exponential, OnDemand
from tests.pricing.small_pool import GPU

SLOT, HORIZON = 10, 200
SLOTS = HORIZON // SLOT
POOLS = {
    "one": {"pool": {GPU: 5, "cpu": 3}},
    "two": {"a": {GPU: 3, "cpu": 2}, "b": {GPU: 2, "cpu": 1}},
}
BUNDLES = {"one": {GPU: 1}, "two": {GPU: 2, "cpu": 1}, "cpu": {"cpu": 1}}
CONFIGURATIONS = [
    Configuration(name, {r: str(n) for r, n in units.items()}) for name, units in BUNDLES.items()
]
BASE = {GPU: 1, "cpu": 1000}  # base units in a whole one


@dataclass
class Job:
    reservation: Reservation
    bid: Bid
    paid: int
    refunded: int = 0
    over: bool = False


class Market(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    def __init__(self):
        super().__init__()
        self.now = 3
        self.made = 0
        self.model: dict[str, Job] = {}
        self.changes: list[tuple[str, int, int | None, int]] = []
        self.losing = False  # whether capacity may just have been lost

    @initialize(
        pool=st.sampled_from(sorted(POOLS)),
        algorithm=st.sampled_from([BasicEcon, BidPrice, Exponential, FirstFit, OnDemand]),
        replan=st.booleans(),
        early=st.sampled_from(list(EarlyStart)),
        chunk=st.integers(1, 3),
    )
    def open(self, pool, algorithm, replan, early, chunk):
        self.nodes = POOLS[pool]
        self.options = {"replan": replan, "early_start": early, "chunk": chunk}
        self.algorithm = algorithm
        self.era = self.new_era()

    def new_era(self):
        return Era(
            TimeGrid(SLOT, HORIZON),
            Inventory.of_nodes(self.nodes),
            CONFIGURATIONS,
            self.algorithm(),
            [
                PricedResource(GPU, 1000, Prior(10**6, 6, lead_time=50)),
                PricedResource("cpu", 2, Prior(500, 4000)),
            ],
            lambda: self.now,
            **self.options,
        )

    # What is promised, and what there is.

    def capacity(self, node, slot):
        """GPUs of a node throughout a slot."""

        def at(second):
            units = self.nodes[node][GPU]
            for name, start, end, new in self.changes:
                if name == node and start <= second and (end is None or second < end):
                    units = new
            return units

        return min(at(second) for second in range(slot * SLOT, (slot + 1) * SLOT))

    def placements(self):
        return [
            (job_id, placement)
            for job_id, job in self.model.items()
            if not job.over
            for placement in job.reservation.placements
        ]

    def load(self, node, slot, without=()):
        """Bundles on a node in a slot, counted one by one."""
        used = {GPU: 0, "cpu": 0}
        for job_id, placement in self.placements():
            if job_id in without or placement.end <= self.now:
                continue
            if placement.start < (slot + 1) * SLOT and placement.end > slot * SLOT:
                for share in placement.shares:
                    if share.node == node:
                        for resource, units in BUNDLES[share.configuration].items():
                            used[resource] += units * share.count
        return used

    def room(self, node, slot, resource, without=()):
        there = self.capacity(node, slot) if resource == GPU else self.nodes[node]["cpu"]
        return there - self.load(node, slot, without)[resource]

    def sync(self):
        """Take over what the engine says its reservations are; check what it may change."""
        known = {r.job_id: r for r in self.era.reservations()}
        for job_id, job in self.model.items():
            if job.over:
                assert job_id not in known
            elif job_id in known:
                self.check_moved(job, known[job_id])
                job.reservation = known[job_id]
            else:
                assert job.reservation.end <= self.now
                job.over = True

    def check_moved(self, job, new):
        old = job.reservation
        assert new.price == old.price
        assert len(new.placements) == len(old.placements) or self.losing
        for number in {p.request for p in old.placements}:
            before = [p for p in old.placements if p.request == number]
            after = [p for p in new.placements if p.request == number]
            assert {str(p.configurations) for p in after} == {str(before[0].configurations)}
            for total in (lambda p: p.end - p.start, lambda p: sum(p.slot_prices)):
                assert sum(map(total, after)) == sum(map(total, before))
            times = sorted((p.start, p.end) for p in after)
            assert all(a[1] <= b[0] for a, b in pairwise(times))
            if old.commitment is Commitment.FIXED:
                assert times == sorted((p.start, p.end) for p in before)
            else:
                window = new.windows[number]
                for p in after:
                    kept = any(p.start == q.start and p.end <= q.end for q in before)
                    assert kept or max(window.arrival, self.now) <= p.start
                    assert p.end <= window.deadline
            for p in before:
                if p.start < self.now:
                    self.check_begun(old.commitment, p, after)

    def check_begun(self, commitment, placement, after):
        """What is done stays; only on lost capacity the rest may go elsewhere."""
        if placement in after:
            return
        assert self.losing
        assert placement.end > self.now
        assert commitment is not Commitment.FIXED
        if commitment is Commitment.FLEXIBLE:
            assert after[0].start >= self.now
            return
        (done,) = [p for p in after if p.start == placement.start]
        assert done.shares == placement.shares
        assert self.now <= done.end < placement.end

    # What people and the cloud do.

    @rule(seconds=st.integers(1, 35))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(
        count=st.integers(2, 5),
        duration=st.integers(5, 40),
        slack=st.integers(0, 120),
        hurry=st.integers(0, 30),
    )
    def crowd(self, count, duration, slack, hurry):
        """Several jobs that may be moved, and one that will not wait."""
        for number in range(count):
            self.make(
                {"one": 1 + number % 3},
                duration,
                5 * number,
                slack,
                10**9,
                Commitment.FLEXIBLE,
                None,
                None,
                0,
                False,
            )
        self.make({"one": 2}, 15, hurry, 10, 10**9, Commitment.FIXED, None, None, 0, False)

    @rule(
        target=jobs,
        configurations=st.dictionaries(
            st.sampled_from(sorted(BUNDLES)), st.integers(1, 3), min_size=1, max_size=2
        ),
        duration=st.integers(1, 45),
        arrival=st.integers(-5, 60),
        slack=st.integers(0, 80),
        value=st.sampled_from([0, 20_000, 10**9]),
        commitment=st.sampled_from(list(Commitment)),
        step=st.one_of(st.none(), st.integers(0, 40)),
        again=st.one_of(st.none(), st.integers(0, 40)),
        overrun=st.sampled_from([0, 0, 25]),
        forget=st.sampled_from([False, False, False, True]),
    )
    def make(
        self,
        configurations,
        duration,
        arrival,
        slack,
        value,
        commitment,
        step,
        again,
        overrun,
        forget,
    ):
        self.made += 1
        job_id = f"job-{self.made}"
        first = max(0, self.now + arrival)
        requests = [ResourceRequest(configurations, duration, first, first + duration + slack)]
        if again is not None:
            requests.append(
                ResourceRequest({"one": 1}, duration, first + again, first + again + 2 * duration)
            )
        values = [ValueStep(None, value)]
        if step is not None:
            values.insert(0, ValueStep(first + duration + step, value + 5000))
        bid = Bid((Alternative(tuple(requests), tuple(values)),), commitment, overrun)
        try:
            quote = self.era.quote(bid)
        except BidError:
            with pytest.raises(BidError):
                self.era.make_reservation(job_id, bid)
            self.sync()
            return job_id
        decision = self.era.make_reservation(job_id, bid)
        assert decision.price == quote.price
        self.sync()
        if decision.price is None:
            assert not decision.accepted
            return job_id
        worth = bid.alternatives[0].value_at(quote.end)
        assert decision.accepted == (worth >= decision.price)
        if decision.accepted:
            self.check_new(bid, decision.reservation, quote)
            if forget:
                self.era.forget(job_id)
                self.sync()
            else:
                self.model[job_id] = Job(decision.reservation, bid, decision.price)
        return job_id

    def check_new(self, bid, reservation, quote):
        assert reservation.placements == quote.placements
        assert reservation.price == quote.price
        requests = bid.alternatives[0].requests
        assert {p.request for p in reservation.placements} == set(range(len(requests)))
        for number, request in enumerate(requests):
            parts = [p for p in reservation.placements if p.request == number]
            seconds = sum(p.end - p.start for p in parts)
            whole = -(-request.duration // SLOT) * SLOT
            if len(parts) > 1:
                assert reservation.commitment is Commitment.PREEMPTIBLE
                chunk = self.options["chunk"] * SLOT
                assert all(p.end - p.start >= chunk for p in parts)
                assert whole <= seconds < whole + chunk
            elif reservation.commitment is not Commitment.PREEMPTIBLE:
                assert seconds == whole
            for p in parts:
                assert p.configurations == request.configurations
                assert max(self.now, request.arrival) <= p.start
                assert p.end <= request.deadline
                assert min(p.slot_prices) >= 0

    def due(self, reservation):
        """What a release must refund now."""
        if self.now < reservation.start:
            return reservation.price
        total = reservation.overrun_price
        for p in reservation.placements:
            begins = [p.start, *range((p.start // SLOT + 1) * SLOT, p.end, SLOT)]
            pairs = zip(begins, p.slot_prices, strict=True)
            total += sum(price for begin, price in pairs if begin > self.now)
        return total

    def give_up(self, job_id):
        """What a release must refund, or None; the model is changed accordingly."""
        job = self.model.get(job_id)
        if job is None or job.over or job.reservation.end <= self.now:
            return None
        job.over = True
        refund = self.due(job.reservation)
        job.refunded += refund
        return refund

    def in_overrun(self, job_id):
        allocation = self.era.get_current_allocation().get(job_id)
        return allocation is not None and allocation.overrun

    @rule(job_id=jobs, how=st.sampled_from(["cancel", "release"]))
    def give_back(self, job_id, how):
        if self.in_overrun(job_id):
            job = self.model[job_id]
            refund = getattr(self.era, how)(job_id)
            left = job.reservation.end + job.reservation.overrun - self.now
            assert refund == job.reservation.overrun_price * left // job.reservation.overrun
            job.refunded += refund
            job.over = True
            return
        # A call at this time may start jobs early before it gives anything back.
        self.era.update(Feedback())
        self.take_overruns(self.era.update(Feedback()))
        self.sync()
        expected = self.give_up(job_id)
        if expected is None:
            with pytest.raises(UnknownReservation):
                getattr(self.era, how)(job_id)
        else:
            assert getattr(self.era, how)(job_id) == expected
        self.sync()

    def take_overruns(self, result):
        for job_id, refund in result.overruns.items():
            self.model[job_id].refunded += refund

    @rule(job_id=jobs, seconds=st.integers(1, 40), value=st.sampled_from([0, 10**9]))
    def extend(self, job_id, seconds, value):
        self.take_overruns(self.era.update(Feedback()))
        self.sync()
        job = self.model.get(job_id)
        if job is None or job.over or job.reservation.end <= self.now:
            with pytest.raises(UnknownReservation):
                self.era.extend(job_id, seconds, value)
            return
        decision = self.era.extend(job_id, seconds, value)
        if decision.price is not None:
            assert decision.accepted == (value >= decision.price)
        if not decision.accepted:
            assert decision.reservation is None
            self.sync()
            return
        new, old = decision.reservation, job.reservation
        longer = -(-seconds // SLOT) * SLOT
        assert new.price == old.price + decision.price
        length = [sum(p.end - p.start for p in r.placements) for r in (old, new)]
        assert length[1] == length[0] + longer
        if old.start <= self.now or old.commitment is Commitment.FIXED:
            assert (new.start, new.end) == (old.start, old.end + longer)
        job.reservation, job.paid = new, job.paid + decision.price
        self.sync()

    @rule(
        ended=st.lists(jobs, max_size=2, unique=True),
        node=st.integers(0, 1),
        start=st.integers(-10, 60),
        length=st.one_of(st.none(), st.integers(1, 60)),
        units=st.integers(0, 4),
    )
    def update(self, ended, node, start, length, units):
        self.take_overruns(self.era.update(Feedback()))
        self.sync()
        ended = [job_id for job_id in ended if not self.in_overrun(job_id)]
        name = sorted(self.nodes)[node % len(self.nodes)]
        first = max(0, self.now + start)
        end = None if length is None else first + length
        released = {}
        for job_id in ended:
            refund = self.give_up(job_id)
            if refund is not None:
                released[job_id] = refund
        self.changes.append((name, first, end, units))
        change = CapacityChange(first, end, {GPU: units}, name)
        result = self.era.update(Feedback(capacity=[change], terminated=ended))
        assert result.released == released
        assert set(result.unknown) == set(ended) - set(released)
        self.take_overruns(result)
        for job_id, refund in result.broken.items():
            job = self.model[job_id]
            assert refund == job.reservation.price
            job.refunded += refund
            job.over = True
        self.losing = True
        self.sync()
        self.losing = False
        for job_id in result.broken:
            self.check_lost(self.model[job_id].reservation)
        moved = {r.job_id: r for r in result.moved}
        known = {r.job_id: r for r in self.era.reservations()}
        assert all(known.get(job_id, r) == r for job_id, r in moved.items())

    def check_lost(self, reservation):
        """A reservation of one bundle that was broken would not fit where it was."""
        if len(reservation.placements) > 1 or len(reservation.placements[0].shares) > 1:
            return
        placement = reservation.placements[0]
        share = placement.shares[0]
        if share.count > 1:
            return
        units = BUNDLES[share.configuration]
        first, end = max(placement.start, self.now) // SLOT, -(-placement.end // SLOT)
        for node in self.nodes if placement.start > self.now else [share.node]:
            assert not self.has_room(node, first, end, units)
        if reservation.windows:
            window, slots = reservation.windows[0], (placement.end - placement.start) // SLOT
            first = -(-max(window.arrival, self.now) // SLOT)
            last = min(window.deadline // SLOT, self.now // SLOT + SLOTS) - slots
            for start in range(first, last + 1):
                for node in self.nodes:
                    assert not self.has_room(node, start, start + slots, units)

    def has_room(self, node, first, end, units):
        """Whether units are free on a node throughout some slots."""
        return all(
            self.room(node, slot, resource) >= number
            for slot in range(first, end)
            for resource, number in units.items()
        )

    # What must always hold.

    @invariant()
    def no_node_is_promised_more_than_it_has(self):
        if not hasattr(self, "era"):
            return
        self.sync()
        first = self.now // SLOT
        total = {GPU: [0] * SLOTS, "cpu": [0] * SLOTS}
        for node in self.nodes:
            for slot in range(first, first + SLOTS):
                used = self.load(node, slot)
                assert used[GPU] <= self.capacity(node, slot)
                assert used["cpu"] <= self.nodes[node]["cpu"]
                for resource, units in used.items():
                    total[resource][slot - first] += units * BASE[resource]
        for resource, expected in total.items():
            promised = self.era.promised(self.now, SLOTS, resource).tolist()
            # What has ended inside the running slot holds it to its end.
            assert promised[1:] == expected[1:]
            assert promised[0] >= expected[0]

    @invariant()
    def the_allocation_is_what_runs_now(self):
        if not hasattr(self, "era"):
            return
        now = {GPU: dict.fromkeys(self.nodes, 0), "cpu": dict.fromkeys(self.nodes, 0)}
        for job_id, allocation in self.era.get_current_allocation().items():
            job = self.model[job_id]
            running = [p for p in job.reservation.placements if p.start <= self.now < p.end]
            if allocation.overrun:
                assert job.reservation.end <= self.now < job.reservation.end + job.bid.overrun
            else:
                assert list(allocation.placements) == running
            for placement in allocation.placements:
                for share in placement.shares:
                    for resource, units in BUNDLES[share.configuration].items():
                        now[resource][share.node] += units * share.count
        slot = self.now // SLOT
        for node in self.nodes:
            assert now[GPU][node] <= self.capacity(node, slot)
            assert now["cpu"][node] <= self.nodes[node]["cpu"]

    @invariant()
    def nobody_gets_more_back_than_was_paid(self):
        assert all(0 <= job.refunded <= job.paid for job in self.model.values())

    @invariant()
    def a_restored_engine_has_the_same_plan(self):
        if not hasattr(self, "era"):
            return
        again = self.new_era()
        again.restore(self.era.reservations())
        assert again.reservations() == self.era.reservations()
        later = self.now + SLOT
        for resource in (GPU, "cpu"):
            promised = self.era.promised(later, 40, resource)
            assert list(again.promised(later, 40, resource)) == list(promised)


TestMarket = Market.TestCase
TestMarket.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
