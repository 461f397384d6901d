"""Random histories of the market against a model made of dictionaries."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from era_pricing import (
    BasicEcon,
    Bid,
    BidError,
    Configuration,
    Era,
    Feedback,
    Inventory,
    PricedResource,
    Prior,
    TimeGrid,
    UnknownReservation,
)
from tests.pricing.small_pool import GPU, ask, change

SLOT, HORIZON, POOL = 10, 200, 5
CONFIGURATIONS = [
    Configuration("one", {"nvidia.com/gpu": "1"}),
    Configuration("two", {"nvidia.com/gpu": "2"}),
    Configuration("cpu", {"cpu": "1"}),
]


@dataclass
class Job:
    start: int
    end: int
    units: int
    parts: tuple[int, ...]
    order: int
    live: bool = True
    refunded: int = 0

    def slots(self):
        """Slots occupied; none from a release on."""
        return set(range(self.start // SLOT, -(-self.end // SLOT))) if self.live else set()

    def due(self, now):
        """Sum of the parts that begin after `now`."""
        begins = [self.start, *range((self.start // SLOT + 1) * SLOT, self.end, SLOT)]
        return sum(p for b, p in zip(begins, self.parts, strict=True) if b > now)


class Market(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    def __init__(self):
        super().__init__()
        self.now = 3
        self.changes = []
        self.model: dict[str, Job] = {}
        self.made = 0
        self.era = self.new_era()

    def new_era(self):
        return Era(
            TimeGrid(SLOT, HORIZON),
            Inventory.single({GPU: POOL}),
            CONFIGURATIONS,
            BasicEcon(),
            [PricedResource(GPU, 1000, Prior(10**6, 6, lead_time=50))],
            lambda: self.now,
        )

    def capacity(self, slot):
        """The least capacity in any second of the slot."""

        def at(second):
            found = POOL
            for start, end, units in self.changes:
                if start <= second and (end is None or second < end):
                    found = units
            return found

        return min(at(second) for second in range(slot * SLOT, (slot + 1) * SLOT))

    def promised(self, slot):
        return sum(job.units for job in self.model.values() if slot in job.slots())

    def window(self):
        return range(self.now // SLOT, self.now // SLOT + HORIZON // SLOT)

    @rule(seconds=st.integers(1, 35))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(
        target=jobs,
        configuration=st.sampled_from(["one", "two", "cpu"]),
        count=st.integers(1, 3),
        duration=st.integers(1, 45),
        arrival=st.integers(-5, 60),
        slack=st.integers(0, 80),
        value=st.sampled_from([0, 20_000, 10**9]),
        forget=st.sampled_from([False, False, False, True]),
    )
    def make(self, configuration, count, duration, arrival, slack, value, forget):
        self.made += 1
        job_id = f"job-{self.made}"
        first = max(0, self.now + arrival)
        request = ask(configuration, duration, first, first + duration + slack, count)
        try:
            quote = self.era.quote(request)
        except BidError:
            with pytest.raises(BidError):
                self.era.make_reservation(job_id, Bid.of(request, value))
            return job_id
        decision = self.era.make_reservation(job_id, Bid.of(request, value))
        assert decision.price == quote.price
        assert decision.accepted == (quote.price is not None and value >= quote.price)
        if not decision.accepted:
            return job_id
        r = decision.reservation
        assert max(self.now, first) <= r.start
        assert r.end <= request.deadline
        assert r.end - r.start == -(-duration // SLOT) * SLOT
        assert sum(r.slot_prices) == r.price
        if forget:
            self.era.forget(job_id)
        else:
            self.model[job_id] = Job(
                r.start, r.end, r.placements[0].units.get(GPU, 0), r.slot_prices, self.made
            )
        return job_id

    def expect_release(self, job_id):
        """What a release must refund, or None; the model is changed accordingly."""
        job = self.model.get(job_id)
        if job is None or not job.live or job.end <= self.now:
            return None
        job.live = False
        refund = job.due(self.now) if self.now >= job.start else sum(job.parts)
        job.refunded += refund
        return refund

    @rule(job_id=jobs, how=st.sampled_from(["cancel", "release"]))
    def give_back(self, job_id, how):
        expected = self.expect_release(job_id)
        if expected is None:
            with pytest.raises(UnknownReservation):
                getattr(self.era, how)(job_id)
        else:
            assert getattr(self.era, how)(job_id) == expected

    @rule(
        ended=st.lists(consumes(jobs), max_size=2),
        start=st.integers(-10, 60),
        length=st.one_of(st.none(), st.integers(1, 60)),
        units=st.integers(0, 7),
    )
    def update(self, ended, start, length, units):
        first = max(0, self.now + start)
        end = None if length is None else first + length
        released = {}
        for job_id in ended:
            refund = self.expect_release(job_id)
            if refund is not None:
                released[job_id] = refund
        self.changes.append((first, end, units))
        broken = self.expect_broken()
        result = self.era.update(Feedback(capacity=[change(first, end, units)], terminated=ended))
        assert result.released == released
        assert result.broken == broken
        assert set(result.unknown) == set(ended) - set(released)

    def expect_broken(self):
        """Drop the latest made in an overloaded slot until none is, then put back what fits."""

        def overloaded():
            return {s for s in self.window() if self.promised(s) > self.capacity(s)}

        for job in self.model.values():
            if not (job.live and job.end > self.now) and job.slots() & overloaded():
                job.live = False
        dropped = []
        while lost := overloaded():
            touching = [j for j in self.model.items() if j[1].live and j[1].slots() & lost]
            # Units of nothing are in nobody's way.
            job_id, job = max(touching, key=lambda item: (item[1].units > 0, item[1].order))
            job.live = False
            dropped.append(job_id)
        for job_id in sorted(dropped, key=lambda name: self.model[name].order):
            self.model[job_id].live = True
            if overloaded():
                self.model[job_id].live = False
        broken = [job_id for job_id in dropped if not self.model[job_id].live]
        for job_id in broken:
            self.model[job_id].refunded += sum(self.model[job_id].parts)
        return {job_id: sum(self.model[job_id].parts) for job_id in broken}

    @invariant()
    def promises_match_the_model_and_never_exceed_the_capacity(self):
        promised = self.era.promised(self.now, HORIZON // SLOT)
        capacity = self.era.capacity(self.now, HORIZON // SLOT)
        assert list(promised) == [self.promised(s) for s in self.window()]
        assert list(capacity) == [self.capacity(s) for s in self.window()]
        assert (promised <= capacity).all()

    @invariant()
    def the_allocation_is_what_runs_now(self):
        running = {i for i, j in self.model.items() if j.live and j.start <= self.now < j.end}
        assert set(self.era.get_current_allocation()) == running

    @invariant()
    def nobody_gets_more_back_than_was_paid(self):
        assert all(0 <= job.refunded <= sum(job.parts) for job in self.model.values())

    @invariant()
    def a_restored_engine_has_the_same_plan(self):
        again = self.new_era()
        again.restore(self.era.reservations())
        assert again.reservations() == self.era.reservations()
        # What has ended within the running slot is not restored, and frees its rest.
        later = self.now + SLOT
        assert list(again.promised(later, 40)) == list(self.era.promised(later, 40))


TestMarket = Market.TestCase
TestMarket.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
