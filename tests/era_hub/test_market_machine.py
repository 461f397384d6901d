"""Random histories of the market: whatever happens, the books and the plan are right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from sqlalchemy import select

from era_hub.market import OPEN, Conflict
from era_hub.models import JobState, Kind, State, format_credits
from era_hub.store.tables import Reservation
from era_pricing import Quote
from tests.era_hub.small_market import (
    HOUR,
    Clock,
    balances,
    job,
    notebook,
    open_market,
    unbalanced,
)

GPUS, SLOT, HORIZON = 4, 600, 6 * HOUR
USERS = ["ann", "anna", "bob"]
POOL: dict[str, Any] = {"gpus": GPUS, "grant": "8", "slot": SLOT, "horizon": HORIZON}


class Histories(RuleBasedStateMachine):
    """Three users, and everything that can happen to their reservations."""

    made = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.clock = Clock()
        self.market = open_market(Path(self.folder.name), self.clock, **POOL)

    def teardown(self) -> None:
        self.market.database.close()
        self.folder.cleanup()

    def row(self, reservation_id: str) -> Reservation:
        with self.market.database.session() as session:
            return session.get_one(Reservation, reservation_id)

    def rows(self) -> list[Reservation]:
        with self.market.database.session() as session:
            return list(session.scalars(select(Reservation)))

    def waits(self, user: str, server: str, quote: Quote) -> bool:
        """Whether the server is reserved already for some of the time offered."""
        assert quote.start is not None and quote.end is not None
        return any(
            (row.user, row.server_name, row.kind) == (user, server, Kind.NOTEBOOK)
            and row.state == State.ACCEPTED
            and row.start < quote.end
            and row.end > quote.start
            for row in self.rows()
        )

    # -- what users do --------------------------------------------------------

    @rule(
        target=made,
        bid=st.sampled_from([notebook, job]),
        user=st.sampled_from(USERS),
        server=st.sampled_from(["", "lab"]),
        gpus=st.integers(0, GPUS),
        minutes=st.integers(1, 150),
        ahead=st.one_of(st.just(0), st.integers(-HOUR, 3 * HOUR)),
        slack=st.integers(0, 3 * HOUR),
        value=st.one_of(st.just(10**9), st.integers(0, 10_000_000)),
    )
    def reserve(
        self,
        bid: Any,
        user: str,
        server: str,
        gpus: int,
        minutes: int,
        ahead: int,
        slack: int,
        value: int,
    ) -> Any:
        arrival = self.clock.now + ahead
        request = bid(
            gpus,
            minutes / 60,
            format_credits(value),
            arrival=arrival,
            deadline=max(arrival, self.clock.now) + minutes * 60 + slack,
            **({"server_name": server} if bid is notebook else {}),
        )
        balance = self.market.statement(user).balance
        quote = self.market.quote(request)
        wanted = quote.price is not None and quote.price <= min(value, balance)
        if bid is notebook and wanted and self.waits(user, server, quote):
            with pytest.raises(Conflict):
                self.market.reserve(user, request)
            assert self.market.statement(user).balance == balance
            return multiple()
        verdict = self.market.reserve(user, request)
        assert verdict.price == quote.price
        assert verdict.accepted == wanted
        if verdict.reservation is None:
            assert verdict.reason
            assert self.market.statement(user).balance == balance
            return multiple()
        assert self.market.statement(user).balance == balance - verdict.reservation.price
        assert max(arrival, self.clock.now) <= verdict.reservation.start.timestamp()
        return verdict.reservation.id

    @rule(target=made, user=st.sampled_from(USERS), gpus=st.integers(1, 2))
    def start_at_once(self, user: str, gpus: int) -> Any:
        """As the spawn page does."""
        server = f"server-{len(self.rows())}"
        made = self.market.reserve(user, notebook(gpus, server_name=server)).reservation
        if made is None:
            return multiple()
        self.claim(made.id)
        return made.id

    @rule(reservation_id=made, stopped=st.booleans())
    def give_back(self, reservation_id: str, stopped: bool) -> None:
        row, now = self.row(reservation_id), self.clock.now
        ended = self.market.give_back(reservation_id, stopped=stopped)
        if row.state not in OPEN:
            assert (ended.state, ended.refunded) == (row.state, row.refunded)
        elif now < row.start:
            assert (ended.state, ended.refunded) == (State.CANCELLED, row.price)
        else:
            begins = [row.start, *range((row.start // SLOT + 1) * SLOT, row.end, SLOT)]
            parts = zip(begins, row.slot_prices, strict=True)
            due = sum(price for begin, price in parts if begin > now)
            assert (ended.state, ended.refunded) == (State.RELEASED, due)

    # -- what the reconciler does -----------------------------------------------

    @rule(reservation_id=made)
    def claim(self, reservation_id: str) -> None:
        row = self.row(reservation_id)
        taken = {index for each in self.rows() if each.has_workload for index in each.gpus or ()}
        due = row.state in OPEN and row.start <= self.clock.now < row.end
        running = row.state == State.ACTIVE
        if due and (running or row.units <= GPUS - len(taken)):
            claimed = self.market.claim(reservation_id)
            assert claimed.state is State.ACTIVE
            assert len(claimed.gpus or ()) == row.units
            assert not running or claimed.gpus == row.gpus
        else:
            with pytest.raises(Conflict):
                self.market.claim(reservation_id)

    @rule(
        reservation_id=made,
        state=st.sampled_from([State.COMPLETED, State.FAILED]),
        refund_all=st.booleans(),
    )
    def end(self, reservation_id: str, state: State, refund_all: bool) -> None:
        row = self.row(reservation_id)
        if row.kind == Kind.JOB and state is State.FAILED:
            self.market.job_failed_to_start(reservation_id, "no luck")
        elif row.kind == Kind.JOB:
            self.market.job_ended(reservation_id, JobState.SUCCEEDED, 0, "")
        else:
            self.market.end(reservation_id, state, refund_all=refund_all)
        ended = self.row(reservation_id)
        assert State(ended.state).final
        if row.state not in OPEN:
            assert (ended.state, ended.refunded) == (row.state, row.refunded)

    @rule(reservation_id=made)
    def the_workload_has_stopped(self, reservation_id: str) -> None:
        if self.row(reservation_id).state not in OPEN:
            self.market.workload_gone(reservation_id)
            assert not self.row(reservation_id).has_workload

    # -- what happens -------------------------------------------------------------

    @rule(seconds=st.one_of(st.integers(1, 60), st.integers(1, 2 * HOUR)))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def the_service_restarts(self) -> None:
        now, slots = self.clock.now, HORIZON // SLOT
        running = self.market.era.get_current_allocation(now)
        promised = self.market.era.promised(now, slots).tolist()
        self.market.database.close()
        self.market = open_market(Path(self.folder.name), self.clock, **POOL)
        assert self.market.era.get_current_allocation(now) == running
        again = self.market.era.promised(now, slots).tolist()
        # What has ended by itself in the running slot keeps it until then, or a restart.
        assert again[0] <= promised[0]
        assert again[1:] == promised[1:]

    # -- what is always true --------------------------------------------------------

    @invariant()
    def the_books_balance(self) -> None:
        assert unbalanced(self.market.database) == []
        accounts, rows = balances(self.market.database), self.rows()
        assert sum(accounts.values()) == 0
        held = dict.fromkeys(USERS, 0)
        for row in rows:
            assert 0 <= row.refunded <= row.price == sum(row.slot_prices)
            if row.state in OPEN:
                held[row.user] += row.price
        assert accounts.get("escrow", 0) == sum(held.values())
        paid = sum(row.price - row.refunded for row in rows if row.state not in OPEN)
        assert accounts.get("revenue", 0) == paid
        for user in USERS:
            assert accounts.get(user, 0) >= 0
            statement = self.market.statement(user, 1000)
            assert statement.held == held[user]
            assert statement.balance == sum(each.amount for each in statement.entries)

    @invariant()
    def no_gpu_has_two_workloads(self) -> None:
        used = Counter(index for row in self.rows() if row.has_workload for index in row.gpus or ())
        assert set(used) <= set(range(GPUS))
        assert all(times == 1 for times in used.values())

    @invariant()
    def no_more_is_promised_than_there_is(self) -> None:
        era, now = self.market.era, self.clock.now
        slots = HORIZON // SLOT + 1
        assert (era.promised(now, slots) <= era.capacity(now, slots)).all()
        running = era.get_current_allocation(now)
        assert sum(each.units.get("nvidia.com/gpu", 0) for each in running.values()) <= GPUS
        due = {
            each.id for each in self.rows() if each.state in OPEN and each.start <= now < each.end
        }
        assert set(running) == due


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
