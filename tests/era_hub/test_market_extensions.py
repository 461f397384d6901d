"""The market: more time after the end of a reservation."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_hub.market import Conflict, Forbidden, Market, Outdated
from era_hub.models import ExtensionQuoteRequest, ExtensionRequest, State, micro_credits
from era_hub.store.books import prove
from era_hub.store.ledger import Ledger
from era_hub.views import when
from era_pricing import BidError
from tests.era_hub.small_market import DAWN, HOUR, Clock, balances, job, notebook, open_market
from tests.era_hub.test_market_accounts import give_group, quota, reserve

GRANT = 100_000_000
SLOT = 300


def more(minutes: float = 30, value: str = "100") -> ExtensionRequest:
    return ExtensionRequest(duration=minutes * 60, value=micro_credits(value))


def quoted(market: Market, reservation_id: str, minutes: float = 30) -> Any:
    return market.quote_extension(reservation_id, ExtensionQuoteRequest(duration=minutes * 60))


def books_are_right(market: Market) -> None:
    with market.database.reader.begin() as session:
        assert prove(session) == []


@pytest.mark.parametrize("claimed", [True, False])
def test_an_extension_costs_what_was_quoted_and_moves_the_end(
    market: Market, clock: Clock, claimed: bool
) -> None:
    made = reserve(market, notebook(gpus=2))
    if claimed:
        market.claim(made.id)
    clock.now += 20 * 60
    quote = quoted(market, made.id)
    assert quote.feasible
    assert quote.end == when(DAWN + HOUR + 30 * 60)
    verdict = market.extend(made.id, more())
    assert (verdict.accepted, verdict.price, verdict.reason) == (True, quote.price, None)
    longer = market.reservation(made.id)
    assert verdict.reservation == longer
    assert (longer.start, longer.end) == (made.start, quote.end)
    assert (longer.duration, longer.price) == (90 * 60, made.price + quote.price)
    assert longer.version > made.version
    assert market.statement("ann").balance == GRANT - longer.price
    assert market.statement("ann").held == longer.price
    held, before = market.statement("ann").entries[:2]
    assert (held.kind, held.part, held.amount) == ("hold", 1, -quote.price)
    assert before.part == 0
    assert market.era.promised(clock.now, 20).tolist() == [2] * 14 + [0] * 6
    books_are_right(market)


def test_what_was_extended_is_refunded_from_where_it_is_given_back(
    market: Market, clock: Clock
) -> None:
    made = reserve(market, notebook())
    for _ in range(2):
        assert market.extend(made.id, more(60)).accepted
    longer = market.reservation(made.id)
    clock.now += 2 * HOUR
    ended = market.give_back(made.id)
    assert 0 < ended.refunded < longer.price - made.price
    assert market.statement("ann").balance == GRANT - longer.price + ended.refunded
    assert balances(market.database)["escrow"] == 0
    books_are_right(market)


def test_an_extension_is_declined_above_its_value_and_beyond_the_account(market: Market) -> None:
    made = reserve(market, notebook())
    price = quoted(market, made.id).price
    low = market.extend(made.id, ExtensionRequest(duration=1800, value=price - 1))
    assert (low.accepted, low.price) == (False, price)
    assert "more than the most you would pay" in str(low.reason)
    spent = reserve(market, notebook(gpus=7, server_name="b"))
    # All but a little of what is left goes to a long one of somebody else's making.
    left = market.statement("ann").balance
    with market.transaction() as session:
        ledger = Ledger(session, market.clock())
        ledger.withdraw(ledger.user("ann"), left - 1, "for a test", "a test")
    poor = market.extend(made.id, more())
    assert not poor.accepted
    assert "are free on your account" in str(poor.reason)
    assert market.reservation(made.id).end == made.end
    assert market.reservation(spent.id).state is State.ACCEPTED
    books_are_right(market)


def test_there_is_no_room_for_an_extension(market: Market) -> None:
    made = reserve(market, notebook(gpus=8))
    reserve(market, notebook(gpus=1, arrival=DAWN + HOUR, deadline=DAWN + 2 * HOUR), "bob")
    quote = quoted(market, made.id)
    assert (quote.feasible, quote.price) == (False, None)
    assert "promised to others" in quote.reason
    verdict = market.extend(made.id, more())
    assert (verdict.accepted, verdict.price) == (False, None)
    assert "promised to others" in str(verdict.reason)


def test_the_server_may_be_reserved_for_the_time_after(market: Market) -> None:
    made = reserve(market, notebook())
    reserve(market, notebook(arrival=DAWN + HOUR, deadline=DAWN + 2 * HOUR))
    with pytest.raises(Conflict, match="hold a reservation for this server"):
        market.extend(made.id, more())
    assert market.reservation(made.id) == made


def test_what_has_ended_is_not_extended(market: Market, clock: Clock) -> None:
    given_back, over = reserve(market, notebook()), reserve(market, job())
    market.give_back(given_back.id)
    clock.now += HOUR
    for each in (given_back, over):
        with pytest.raises(Conflict, match="has ended"):
            market.extend(each.id, more())
        with pytest.raises(Conflict, match="has ended"):
            quoted(market, each.id)


def test_nothing_is_extended_beyond_the_horizon(market: Market) -> None:
    made = reserve(market, notebook())
    verdict = market.extend(made.id, more(15 * 24 * 60))
    assert (verdict.accepted, verdict.price) == (False, None)


def test_an_extension_must_make_sense(market: Market) -> None:
    made = reserve(market, notebook())
    with pytest.raises(BidError):
        market.extend(made.id, ExtensionRequest.model_construct(duration=0, value=1))


def test_a_job_is_extended_while_it_waits_and_while_it_runs(market: Market, clock: Clock) -> None:
    made = reserve(market, job())
    assert market.extend(made.id, more()).job is not None
    assert market.job(made.id).reservation.end == when(DAWN + HOUR + 30 * 60)
    market.claim(made.id)
    market.job_started(made.id, "/tmp")
    clock.now += HOUR
    assert market.extend(made.id, more()).accepted
    assert market.job(made.id).reservation.end == when(DAWN + 2 * HOUR)
    books_are_right(market)


def test_a_job_that_is_about_to_be_stopped_is_not_extended(market: Market, clock: Clock) -> None:
    market.grace = 60
    made = reserve(market, job())
    market.claim(made.id)
    market.job_started(made.id, "/tmp")
    clock.now += HOUR - 65
    before = balances(market.database)
    with pytest.raises(Conflict, match="until 65 seconds before its end"):
        quoted(market, made.id)
    with pytest.raises(Conflict, match="about to be stopped"):
        market.extend(made.id, more())
    assert balances(market.database) == before
    clock.now -= 1
    assert market.extend(made.id, more()).accepted
    # The new end is far enough ahead to go on.
    clock.now += 30
    assert market.extend(made.id, more()).accepted


def test_the_group_that_pays_goes_on_paying_for_its_members(market: Market) -> None:
    give_group(market, "lab", 50_000_000)
    made = reserve(market, notebook(account="group:lab"), groups=["lab"])
    with pytest.raises(Forbidden):
        market.extend(made.id, more())
    verdict = market.extend(made.id, more(), ["lab"])
    assert verdict.accepted and verdict.price is not None
    assert balances(market.database)["lab"] == 50_000_000 - made.price - verdict.price
    books_are_right(market)


@pytest.mark.parametrize(
    "limits",
    [{"longest": HOUR}, {"horizon": HOUR}, {"gpu_seconds": HOUR, "period": 24 * HOUR}],
    ids=str,
)
def test_quotas_hold_for_the_whole_of_it(market: Market, limits: dict[str, int]) -> None:
    quota(market, "everyone", **limits)
    made = reserve(market, notebook())
    verdict = market.extend(made.id, more())
    assert not verdict.accepted
    assert next(iter(limits)) in str(verdict.reason)
    assert market.reservation(made.id) == made


def test_gpus_at_once_count_what_comes_after(market: Market) -> None:
    quota(market, "everyone", gpus=2)
    made = reserve(market, notebook(gpus=2))
    assert market.extend(made.id, more()).accepted
    later = {"arrival": DAWN + 2 * HOUR, "deadline": DAWN + 3 * HOUR}
    reserve(market, notebook(gpus=1, server_name="b", **later))
    refused = market.extend(made.id, more(60))
    assert not refused.accepted
    assert "gpus" in str(refused.reason)


def test_only_the_version_that_was_looked_at_is_changed(market: Market) -> None:
    made = reserve(market, notebook())
    assert market.extend(made.id, more(), versions={made.version}).accepted
    with pytest.raises(Outdated, match="has changed"):
        market.extend(made.id, more(), versions={made.version})
    with pytest.raises(Outdated):
        market.give_back(made.id, versions={made.version})
    now = market.reservation(made.id)
    assert now.state is State.ACCEPTED
    with pytest.raises(Outdated):
        market.give_back(made.id, versions=())
    assert market.give_back(made.id, versions={1, now.version}).state.final


@settings(max_examples=25, deadline=None)
@given(
    minutes=st.lists(st.integers(1, 120), min_size=1, max_size=4),
    late=st.integers(0, 3599),
    given_back=st.integers(0, 4 * HOUR),
)
def test_however_it_is_extended_the_books_are_right(
    minutes: list[int], late: int, given_back: int
) -> None:
    clock = Clock()
    with TemporaryDirectory() as folder:
        market = open_market(Path(folder), clock)
        made = reserve(market, notebook())
        clock.now += late
        for each in minutes:
            before = market.reservation(made.id)
            quote = quoted(market, made.id, each)
            verdict = market.extend(made.id, more(each))
            after = market.reservation(made.id)
            assert verdict.accepted
            assert after.price - before.price == verdict.price == quote.price
            assert after.end == quote.end
            assert (after.end - before.end).total_seconds() == -(-each * 60 // SLOT) * SLOT
        plan = market.era.promised(DAWN, 24 * 12).tolist()
        market.rebuild()
        assert market.era.promised(DAWN, 24 * 12).tolist() == plan
        clock.now += given_back
        market.give_back(made.id)
        books_are_right(market)
        assert balances(market.database)["escrow"] == 0
        market.database.close()
