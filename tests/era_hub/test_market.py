"""The market: bids, promises and money, over a real database and the real engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from era_hub.market import Conflict, Market, NotFound
from era_hub.models import JobState, Kind, QuoteRequest, State, format_credits
from era_hub.store.ledger import Ledger
from era_hub.store.tables import AlgorithmState, Entry, Job, Reservation, Transaction
from era_hub.views import when
from era_pricing import BidError
from tests.era_hub.small_market import (
    DAWN,
    HOUR,
    Clock,
    balances,
    count,
    job,
    notebook,
    open_market,
    unbalanced,
)

SLOT = 300
GRANT = 100_000_000
DAY_AHEAD = 24 * HOUR // SLOT


def reserve(market: Market, request: Any, user: str = "ann") -> Any:
    """The reservation of a bid that must be accepted."""
    verdict = market.reserve(user, request)
    assert verdict.accepted, verdict.reason
    return verdict.reservation


def price(market: Market, request: Any) -> int:
    found = market.quote(request).price
    assert found is not None
    return found


def balance(market: Market, user: str = "ann") -> int:
    return market.statement(user).balance


def promised(market: Market, slots: int = DAY_AHEAD) -> list[int]:
    return list(map(int, market.era.promised(market.clock(), slots)))


def rows(market: Market) -> tuple[int, int, int, int]:
    tables = (Reservation, Job, Transaction, Entry)
    return tuple(count(market.database, each) for each in tables)  # type: ignore[return-value]


# -- bids ---------------------------------------------------------------------


def test_an_accepted_bid_costs_what_was_quoted_not_what_was_bid(market: Market) -> None:
    request = notebook(gpus=2, hours=2, server_name="big")
    quoted = market.quote(request)
    verdict = market.reserve("ann", request)
    assert (verdict.accepted, verdict.price, verdict.reason) == (True, quoted.price, None)
    made = verdict.reservation
    assert made is not None and quoted.start is not None and quoted.end is not None
    assert (made.price, made.value) == (quoted.price, GRANT)
    assert (made.start, made.end) == (when(quoted.start), when(quoted.end))
    assert (made.user, made.server_name, made.kind) == ("ann", "big", Kind.NOTEBOOK)
    assert (made.state, made.units, made.gpus) == (State.ACCEPTED, 2, None)
    assert market.reservation(made.id) == made
    assert balances(market.database) == {
        "bank": -GRANT,
        "ann": GRANT - made.price,
        "escrow": made.price,
    }


def test_the_price_does_not_depend_on_the_value(market: Market) -> None:
    quoted = price(market, notebook())
    for value in ("100", "1", format_credits(quoted)):
        assert market.quote(notebook(value=value)).price == quoted
    assert reserve(market, notebook(value=format_credits(quoted))).price == quoted


def test_a_statement_shows_what_is_free_and_what_is_held(market: Market) -> None:
    first = reserve(market, notebook())
    second = reserve(market, job(hours=2))
    statement = market.statement("ann")
    assert statement.held == first.price + second.price
    assert statement.balance == GRANT - statement.held
    kinds = [(each.kind, each.reservation) for each in statement.entries]
    assert kinds == [("hold", second.id), ("hold", first.id), ("grant", None)]
    assert statement.entries[0].memo == "reserved gpu-1 for 2 h"
    assert market.statement("ann", limit=1).entries == statement.entries[:1]
    assert market.statement("bob").held == 0


def test_what_costs_nothing_needs_no_money(tmp_path: Path, clock: Clock) -> None:
    market = open_market(tmp_path, clock, grant="0")
    made = reserve(market, notebook(gpus=0, value="0"))
    assert (made.price, made.units) == (0, 0)
    clock.now += 60
    assert market.claim(made.id).gpus == []
    market.end(made.id, State.COMPLETED)
    assert set(balances(market.database).values()) == {0}


def sold_out(market: Market) -> Any:
    reserve(market, notebook(gpus=8), "bob")
    return notebook()


def too_low(market: Market) -> Any:
    return notebook(value=format_credits(price(market, notebook()) - 1))


def too_poor(market: Market) -> Any:
    market.grant = price(market, notebook(gpus=8, hours=20)) - 1
    return notebook(gpus=8, hours=20, value="1000")


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (sold_out, "no room for 1 GPU"),
        (too_low, "more than the most you would pay"),
        (too_poor, "are free on your account"),
    ],
)
@pytest.mark.parametrize("kind", [Kind.NOTEBOOK, Kind.JOB])
def test_a_declined_bid_leaves_only_the_account(
    market: Market, arrange: Any, reason: str, kind: Kind
) -> None:
    request = arrange(market)
    if kind is Kind.JOB:
        shared = request.model_dump(exclude={"server_name", "user", "arrival", "deadline"})
        request = job().model_copy(update=shared)
    quoted, plan, before = market.quote(request), promised(market), rows(market)
    verdict = market.reserve("ann", request)
    assert (verdict.accepted, verdict.price) == (False, quoted.price)
    assert verdict.reservation is None
    assert verdict.job is None
    assert verdict.reason is not None and reason in verdict.reason
    reservations, jobs, transactions, entries = before
    # The starting grant alone.
    assert rows(market) == (reservations, jobs, transactions + 1, entries + 2)
    assert balance(market) == market.grant
    assert market.statement("ann").held == 0
    assert promised(market) == plan
    assert market.quote(request).price == quoted.price


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"configuration": "gpu-9"}, "configuration must be one of"),
        ({"count": 9}, "count must be at most 8"),
        ({"duration": 15 * 86_400}, "time is sold until"),
        ({"arrival": when(DAWN + 20 * 86_400)}, "time is sold until"),
        ({"arrival": when(DAWN + 14 * 86_400 - HOUR + 1)}, "time is sold until"),
        ({"deadline": when(DAWN + HOUR - 1)}, "shorter than the duration"),
        ({"deadline": when(DAWN)}, "has passed"),
        ({"deadline": when(DAWN - HOUR)}, "has passed"),
        # A time zone may move it out of the years that UTC can say.
        ({"deadline": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=12)))}, "has passed"),
        ({"arrival": when(DAWN + HOUR), "deadline": when(DAWN + 2 * HOUR - 1)}, "shorter than"),
    ],
)
def test_a_bid_that_makes_no_sense_stores_nothing(
    market: Market, change: dict[str, Any], reason: str
) -> None:
    request = notebook().model_copy(update=change)
    with pytest.raises(BidError, match=reason):
        market.quote(request)
    with pytest.raises(BidError, match=reason):
        market.reserve("ann", request)
    assert rows(market) == (0, 0, 0, 0)
    assert balances(market.database) == {}


@pytest.mark.parametrize(
    "deadline",
    [
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    ],
    ids=str,
)
@pytest.mark.parametrize("seconds", [HOUR, 1])
def test_a_deadline_may_be_as_far_off_as_there_are_dates(
    market: Market, deadline: datetime, seconds: int
) -> None:
    request = notebook(value="100").model_copy(update={"deadline": deadline, "duration": seconds})
    made = reserve(market, request)
    assert made.deadline > when(DAWN + 365 * 24 * HOUR)
    assert market.reservation(made.id) == made


def test_time_is_sold_to_the_horizon(market: Market) -> None:
    last = DAWN + 14 * 24 * HOUR - HOUR
    made = reserve(market, notebook(arrival=last, deadline=last + 20 * HOUR))
    assert made.start == when(last)


def test_an_arrival_in_the_past_means_now(market: Market, clock: Clock) -> None:
    clock.now += 100
    made = reserve(market, notebook(arrival=DAWN - HOUR, deadline=clock.now + HOUR))
    assert made.start == when(clock.now)


def test_rounding_to_whole_slots_costs_no_start(market: Market, clock: Clock) -> None:
    clock.now += 17
    made = reserve(market, notebook(hours=400 / HOUR))
    assert made.start == when(clock.now)
    assert made.duration == 2 * SLOT


def test_flexibility_never_costs_more(market: Market) -> None:
    reserve(market, notebook(gpus=5, hours=3), "bob")
    rigid = price(market, notebook(gpus=2))
    assert price(market, notebook(gpus=2, deadline=DAWN + 12 * HOUR)) <= rigid


def test_of_two_who_want_most_of_the_gpus_the_flexible_one_waits(market: Market) -> None:
    first = reserve(market, notebook(gpus=5), "ann")
    rigid = market.reserve("bob", notebook(gpus=5))
    assert (rigid.accepted, rigid.price) == (False, None)
    second = reserve(market, notebook(gpus=5, deadline=DAWN + 4 * HOUR), "bob")
    assert first.start == when(DAWN)
    assert second.start >= first.end
    third = reserve(market, notebook(gpus=3), "carl")
    assert third.start == when(DAWN)


# -- one server, one reservation ----------------------------------------------


def test_a_server_is_not_reserved_twice_for_the_same_time(market: Market) -> None:
    later = {"arrival": DAWN + HOUR, "deadline": DAWN + 3 * HOUR}
    reserve(market, notebook(hours=2, server_name="lab", **later))
    plan, before = promised(market), rows(market)
    with pytest.raises(Conflict, match="from 2027-01-15 09:00 UTC to 2027-01-15 11:00 UTC"):
        market.reserve("ann", notebook(hours=1.5, server_name="lab"))
    assert (promised(market), rows(market)) == (plan, before)
    # Up to then and from then on it is free; so are other servers, and everything else.
    reserve(market, notebook(server_name="lab"))
    reserve(market, notebook(server_name="lab", arrival=DAWN + 3 * HOUR, deadline=DAWN + 4 * HOUR))
    reserve(market, notebook(server_name="", **later))
    reserve(market, notebook(server_name="lab", **later), "anna")
    reserve(market, job(**later))


def test_a_running_server_may_be_reserved_anew(market: Market, clock: Clock) -> None:
    """Its user may end it before."""
    market.claim(reserve(market, notebook()).id)
    clock.now += 60
    assert reserve(market, notebook()).start == when(clock.now)


def test_a_server_given_back_can_be_reserved_again(market: Market) -> None:
    market.give_back(reserve(market, notebook()).id)
    reserve(market, notebook())


# -- claims -------------------------------------------------------------------


def test_claims_get_gpus_of_their_own(market: Market) -> None:
    made = [reserve(market, notebook(gpus=n), user) for n, user in ((3, "ann"), (1, "bob"))]
    made.append(reserve(market, job(gpus=4), "carl"))
    claimed = [market.claim(each.id) for each in made]
    assert [len(each.gpus or ()) for each in claimed] == [3, 1, 4]
    assert sorted(index for each in claimed for index in each.gpus or ()) == list(range(8))
    assert {each.state for each in claimed} == {State.ACTIVE}


def test_claiming_again_changes_nothing(market: Market, clock: Clock) -> None:
    first = reserve(market, notebook(gpus=2))
    claimed = market.claim(first.id)
    market.claim(reserve(market, notebook(gpus=2), "bob").id)
    clock.now += 60
    assert market.claim(first.id) == claimed == market.reservation(first.id)


@pytest.mark.parametrize("late", [HOUR - 1, 2 * HOUR, 30 * HOUR])
def test_a_claim_has_its_time(market: Market, clock: Clock, late: int) -> None:
    made = reserve(market, notebook(arrival=DAWN + HOUR, deadline=DAWN + 2 * HOUR))
    clock.now += late
    with pytest.raises(Conflict, match="runs from"):
        market.claim(made.id)
    assert market.reservation(made.id) == made


def test_a_claim_is_good_to_the_last_second(market: Market, clock: Clock) -> None:
    made = reserve(market, notebook())
    clock.now += HOUR - 1
    assert market.claim(made.id).state is State.ACTIVE


def test_what_is_over_cannot_be_claimed(market: Market) -> None:
    made = reserve(market, notebook())
    market.give_back(made.id)
    with pytest.raises(Conflict, match="released; make a new one"):
        market.claim(made.id)


def test_gpus_are_handed_over_when_they_are_free(market: Market, clock: Clock) -> None:
    first = reserve(market, notebook(gpus=8), "ann")
    second = reserve(market, notebook(gpus=8, arrival=DAWN + HOUR, deadline=DAWN + 2 * HOUR), "bob")
    market.claim(first.id)
    clock.now += HOUR
    market.end(first.id, State.COMPLETED)
    with pytest.raises(Conflict, match="still being freed"):
        market.claim(second.id)
    assert market.reservation(second.id).state is State.ACCEPTED
    market.workload_gone(first.id)
    assert market.claim(second.id).gpus == list(range(8))


@pytest.mark.parametrize("name", ["claim", "give_back", "reservation", "workload_gone", "job"])
def test_what_does_not_exist_is_not_found(market: Market, name: str) -> None:
    with pytest.raises(NotFound, match="there is no"):
        getattr(market, name)("nothing")


def test_a_notebook_is_no_job(market: Market) -> None:
    made = reserve(market, notebook())
    with pytest.raises(NotFound):
        market.job(made.id)


# -- giving back --------------------------------------------------------------


def test_before_its_start_all_is_refunded(market: Market, clock: Clock) -> None:
    made = reserve(market, notebook(arrival=DAWN + HOUR, deadline=DAWN + 2 * HOUR))
    clock.now += HOUR - 1
    plan = promised(market)
    ended = market.give_back(made.id)
    assert (ended.state, ended.refunded, ended.ended) == (
        State.CANCELLED,
        made.price,
        when(clock.now),
    )
    assert balance(market) == GRANT
    assert market.statement("ann").held == 0
    assert sum(plan) == 12 and sum(promised(market)) == 0


@pytest.mark.parametrize("claimed", [True, False])
@pytest.mark.parametrize(
    ("after", "slots_used"), [(0, 1), (1, 1), (SLOT, 2), (30 * 60, 7), (HOUR - 1, 12)]
)
def test_after_its_start_the_slots_not_begun_are_refunded(
    market: Market, clock: Clock, claimed: bool, after: int, slots_used: int
) -> None:
    made = reserve(market, notebook())
    with market.database.session() as session:
        prices = session.get_one(Reservation, made.id).slot_prices
    if claimed:
        market.claim(made.id)
    clock.now += after
    ended = market.give_back(made.id)
    assert ended.state is State.RELEASED
    assert ended.refunded == sum(prices[slots_used:])
    assert balances(market.database) == {
        "bank": -GRANT,
        "ann": GRANT - made.price + ended.refunded,
        "escrow": 0,
        "revenue": made.price - ended.refunded,
    }


def test_giving_back_twice_refunds_once(market: Market, clock: Clock) -> None:
    made = reserve(market, notebook())
    market.claim(made.id)
    clock.now += 600
    first = market.give_back(made.id)
    before = rows(market)
    clock.now += 600
    assert market.give_back(made.id) == first
    market.end(made.id, State.FAILED, refund_all=True)
    assert market.reservation(made.id) == first
    assert rows(market) == before


def test_what_is_given_back_can_be_sold_again(market: Market, clock: Clock) -> None:
    made = reserve(market, notebook(gpus=8, hours=3), "ann")
    clock.now += SLOT // 2
    market.give_back(made.id)
    rest = notebook(gpus=8, arrival=clock.now, deadline=clock.now + HOUR)
    assert reserve(market, rest, "bob").start == when(clock.now)


@pytest.mark.parametrize("stopped", [True, False])
def test_the_gpus_are_held_until_the_workload_has_stopped(market: Market, stopped: bool) -> None:
    made = reserve(market, notebook())
    market.claim(made.id)
    ended = market.give_back(made.id, stopped=stopped)
    assert ended.gpus is None
    waiting = [] if stopped else [ended]
    assert [each.reservation for each in market.due()] == waiting
    market.give_back(made.id, stopped=True)
    assert market.due() == []


def test_after_its_end_nothing_is_refunded(market: Market, clock: Clock) -> None:
    made = reserve(market, notebook())
    market.claim(made.id)
    clock.now += HOUR
    assert market.give_back(made.id).refunded == 0
    assert balance(market) == GRANT - made.price


# -- ends ---------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 30 * 60, HOUR, 50 * HOUR])
def test_a_full_refund(market: Market, clock: Clock, after: int) -> None:
    made = reserve(market, notebook())
    clock.now += after
    market.end(made.id, State.FAILED, "our fault", refund_all=True)
    ended = market.reservation(made.id)
    assert (ended.state, ended.message, ended.refunded) == (
        *(State.FAILED, "our fault"),
        made.price,
    )
    assert balance(market) == GRANT


def test_used_to_the_end_it_is_paid_in_full(market: Market, clock: Clock) -> None:
    made = reserve(market, notebook())
    market.claim(made.id)
    clock.now += HOUR
    market.end(made.id, State.COMPLETED)
    assert market.reservation(made.id).refunded == 0
    assert balances(market.database)["revenue"] == made.price


def test_a_note_tells_why_it_has_not_started_and_goes_with_the_start(market: Market) -> None:
    made = reserve(market, notebook())
    market.note(made.id, "the hub is busy")
    assert market.reservation(made.id).message == "the hub is busy"
    assert market.claim(made.id).message == ""


# -- jobs ---------------------------------------------------------------------


def test_the_life_of_a_job(market: Market, clock: Clock) -> None:
    request = job(
        name="train", filename="train.py", args=["--fast"], environment={"SEED": "1"}, gpus=2
    )
    verdict = market.reserve("ann", request)
    queued = verdict.job
    assert queued is not None and queued.reservation == verdict.reservation
    assert (queued.name, queued.user, queued.state) == ("train", "ann", JobState.QUEUED)
    work = market.work(queued.id)
    assert work.command == ("python3", "train.py", "--fast")
    assert work.files == {"train.py": "print(1)"}
    assert work.environment == {"SEED": "1"}

    market.claim(queued.id)
    market.job_started(queued.id, "/home/ann/era-jobs/1")
    running = market.job(queued.id)
    assert (running.state, running.directory) == (JobState.RUNNING, "/home/ann/era-jobs/1")
    assert running.reservation.gpus == [0, 1]

    clock.now += 25 * 60
    market.job_ended(queued.id, JobState.SUCCEEDED, 0, "")
    ended = market.job(queued.id)
    assert (ended.state, ended.exit_code, ended.progress) == (JobState.SUCCEEDED, 0, 1.0)
    assert ended.reservation.state is State.COMPLETED
    # Six slots of twelve have begun.
    assert 0 < ended.reservation.refunded < ended.reservation.price
    assert balance(market) == GRANT - ended.reservation.price + ended.reservation.refunded
    assert market.due() == []

    before = rows(market)
    market.job_ended(queued.id, JobState.FAILED, 1, "again")
    market.job_started(queued.id, "/home/ann/era-jobs/1")
    market.give_back(queued.id)
    assert market.job(queued.id) == ended
    assert rows(market) == before


def test_a_command_needs_no_script(market: Market) -> None:
    made = reserve(market, job(script=None, command=["nvidia-smi"], args=["-L"]))
    assert market.work(made.id).command == ("nvidia-smi", "-L")
    assert market.work(made.id).files == {}


def test_a_job_that_failed_to_start_costs_nothing(market: Market, clock: Clock) -> None:
    made = reserve(market, job())
    market.claim(made.id)
    clock.now += 20 * 60
    market.job_failed_to_start(made.id, "no such account")
    found = market.job(made.id)
    assert (found.state, found.message) == (JobState.FAILED, "no such account")
    assert found.reservation.state is State.FAILED
    assert balance(market) == GRANT
    assert market.due() == []


def test_a_running_job_that_is_cancelled_stays_so(market: Market, clock: Clock) -> None:
    made = reserve(market, job())
    market.claim(made.id)
    market.job_started(made.id, "/tmp")
    clock.now += 60
    market.give_back(made.id)
    assert market.job(made.id).state is JobState.CANCELLED
    assert [each.reservation.id for each in market.due()] == [made.id]
    market.job_ended(made.id, JobState.FAILED, -15, "stopped on request")
    assert market.job(made.id).state is JobState.CANCELLED
    assert market.reservation(made.id).state is State.RELEASED
    assert market.due() == []


def test_a_queued_job_that_is_cancelled_costs_nothing(market: Market) -> None:
    made = reserve(market, job(arrival=DAWN + HOUR, deadline=DAWN + 2 * HOUR))
    market.give_back(made.id)
    assert market.job(made.id).state is JobState.CANCELLED
    assert market.reservation(made.id).state is State.CANCELLED
    assert balance(market) == GRANT


# -- lists --------------------------------------------------------------------


def test_lists_can_be_narrowed(market: Market, clock: Clock) -> None:
    old = reserve(market, notebook(), "ann")
    clock.now += 1
    other = reserve(market, notebook(), "bob")
    clock.now += 1
    work = reserve(market, job(), "ann")
    market.give_back(old.id)

    def ids(**narrow: Any) -> list[str]:
        return [each.id for each in market.reservations(**narrow)]

    assert ids() == [work.id, other.id, old.id]
    assert ids(user="ann") == [work.id, old.id]
    assert ids(user="ann", current=True) == [work.id]
    assert ids(kind=Kind.NOTEBOOK) == [other.id, old.id]
    assert ids(limit=1) == [work.id]
    assert ids(user="an") == []
    assert [each.id for each in market.jobs()] == [work.id]
    assert market.jobs(user="bob") == []
    market.give_back(work.id)
    assert market.jobs(current=True) == []


# -- failures and restarts ----------------------------------------------------


def test_a_failure_while_storing_leaves_neither_row_nor_promise(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = reserve(market, notebook(gpus=2), "bob")
    request = notebook(gpus=3)
    quoted, plan, before = price(market, request), promised(market), rows(market)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "hold", fail)
        with pytest.raises(OSError, match="disk full"):
            market.reserve("ann", request)
    assert rows(market) == before
    assert promised(market) == plan
    assert price(market, request) == quoted
    assert market.reservations() == [kept]
    assert reserve(market, request).price == quoted


def test_a_failure_while_settling_keeps_the_reservation(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reserve(market, notebook(gpus=3))
    market.claim(made.id)
    plan, before = promised(market), rows(market)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "settle", fail)
        with pytest.raises(OSError, match="disk full"):
            market.give_back(made.id)
    assert market.reservation(made.id).state is State.ACTIVE
    assert (promised(market), rows(market)) == (plan, before)
    assert market.give_back(made.id).state is State.RELEASED


def test_a_restart_gives_the_same_plan(tmp_path: Path, clock: Clock) -> None:
    market = open_market(tmp_path, clock)
    clock.now += 77  # in the middle of a slot
    running = reserve(market, notebook(gpus=3, hours=2))
    reserve(market, job(gpus=2, arrival=DAWN + HOUR, deadline=DAWN + 9 * HOUR), "bob")
    short = reserve(market, notebook(hours=0.25), "bob")
    cancelled = reserve(market, notebook(arrival=DAWN + 3 * HOUR, deadline=DAWN + 5 * HOUR))
    market.claim(running.id)
    market.give_back(cancelled.id)
    clock.now += HOUR // 2  # `short` is over by then, though nobody has settled it
    plan = promised(market)
    allocation = market.era.get_current_allocation()
    quoted = market.quote(notebook(gpus=2, deadline=DAWN + 12 * HOUR))
    assert short.id not in allocation and running.id in allocation
    market.database.close()

    again = open_market(tmp_path, clock)
    assert promised(again) == plan
    assert again.era.get_current_allocation() == allocation
    requoted = again.quote(notebook(gpus=2, deadline=DAWN + 12 * HOUR))
    assert requoted.prices.tolist() == quoted.prices.tolist()
    # What was given back after the restart is worth the same.
    assert again.give_back(running.id).refunded > 0
    again.end(short.id, State.COMPLETED)
    assert balances(again.database)["escrow"] == again.statement("bob").held
    assert unbalanced(again.database) == []
    again.database.close()


def test_prices_go_on_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    """Also where they follow from what was worked out over hours."""
    market = open_market(tmp_path, clock)
    for hour in range(6):
        start = clock.now + 3 * HOUR
        reserve(market, notebook(gpus=2, arrival=start, deadline=start + 5 * HOUR), f"user{hour}")
        clock.now += HOUR
        market.pass_time()

    def prices(market: Market) -> list[int]:
        return list(map(int, market.era.prices("gpu-4", clock.now, DAY_AHEAD)))

    shown = prices(market)
    market.database.close()
    again = open_market(tmp_path, clock)
    assert prices(again) == shown
    with again.database.session.begin() as session:
        session.execute(delete(AlgorithmState))
    again.rebuild()
    assert prices(again) != shown
    again.database.close()


def test_gpus_stay_with_their_workload_across_a_restart(tmp_path: Path, clock: Clock) -> None:
    market = open_market(tmp_path, clock)
    claimed = market.claim(reserve(market, notebook(gpus=5)).id)
    market.database.close()
    again = open_market(tmp_path, clock)
    other = again.claim(reserve(again, notebook(gpus=3), "bob").id)
    assert again.claim(claimed.id) == claimed
    assert not {*(claimed.gpus or ())} & {*(other.gpus or ())}
    again.database.close()


def test_with_fewer_gpus_the_last_promises_are_given_up(tmp_path: Path, clock: Clock) -> None:
    market = open_market(tmp_path, clock)
    first = reserve(market, notebook(gpus=2))
    clock.now += 1
    second = reserve(market, notebook(gpus=3), "bob")
    running = reserve(market, job(gpus=1), "carl")
    queued = reserve(market, job(gpus=2, arrival=DAWN + HOUR, deadline=DAWN + 2 * HOUR), "dora")
    for each in (first, second, running):
        market.claim(each.id)
    market.job_started(running.id, "/tmp")
    market.database.close()

    smaller = open_market(tmp_path, clock, gpus=4)
    smaller.honour()
    assert smaller.reservation(first.id).state is State.ACTIVE
    assert smaller.reservation(queued.id).state is State.ACCEPTED
    lost = smaller.reservation(second.id)
    assert (lost.state, lost.refunded) == (State.FAILED, lost.price)
    assert "fewer GPUs" in lost.message
    assert balance(smaller, "bob") == GRANT
    assert (smaller.era.promised(DAWN, DAY_AHEAD) <= 4).all()
    before = rows(smaller)
    smaller.honour()
    assert rows(smaller) == before
    smaller.database.close()

    tiny = open_market(tmp_path, clock, gpus=1)
    tiny.honour()
    for each in (running, queued):
        found = tiny.job(each.id)
        assert found.reservation.state.final == found.state.final
    assert tiny.job(queued.id).state is JobState.FAILED
    assert "fewer GPUs" in tiny.job(queued.id).message
    assert balances(tiny.database)["escrow"] == tiny.statement("carl").held
    tiny.database.close()


def test_the_allocation_never_exceeds_the_capacity(market: Market, clock: Clock) -> None:
    users = ["ann", "bob", "carl"]
    for number in range(60):
        size, hours = 1 + number % 5, 0.5 + number % 3
        market.reserve(users[number % 3], job(size, hours, deadline=DAWN + 12 * HOUR))
    busiest = 0
    for _ in range(12 * HOUR // SLOT):
        running = market.era.get_current_allocation(clock.now)
        used = sum(each.units.get("nvidia.com/gpu", 0) for each in running.values())
        assert used == market.era.promised(clock.now, 1)[0] <= 8
        busiest = max(busiest, used)
        clock.now += SLOT
    assert busiest >= 7


def test_a_quote_promises_nothing(market: Market) -> None:
    request = QuoteRequest(configuration="gpu-8", duration="1h")
    first = market.quote(request)
    assert market.quote(request).price == first.price
    assert rows(market) == (0, 0, 0, 0)
    assert sum(promised(market)) == 0
