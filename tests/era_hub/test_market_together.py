"""Bids that are stored in one transaction: each is decided as if it came alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import TypeAdapter
from sqlalchemy import event

from era_hub.answers import Verdict
from era_hub.market import Call, Coming, Conflict, Market
from era_hub.models import ReservationRequest
from era_hub.store.books import prove
from era_hub.store.database import Unavailable
from era_hub.store.election import NotLeading
from era_hub.store.ledger import Ledger
from era_hub.store.tables import Reservation
from tests.era_hub.small_market import Clock, count, notebook, open_market

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def market(tmp_path: Path, clock: Clock) -> AsyncIterator[Market]:
    opened = open_market(tmp_path, clock)
    yield opened
    opened.database.close()


def bid(market: Market, user: str, request: ReservationRequest) -> Any:
    """A bid that waits for the writer with others."""
    coming = Coming(user, request.server_name)
    return market.together(coming, market.reserve, user, request)


async def all_of(*bids: Any) -> list[Any]:
    return await asyncio.gather(*bids, return_exceptions=True)


def commits(market: Market) -> list[None]:
    """Grows by one for each transaction of the writer that is committed."""
    found: list[None] = []
    event.listen(market.database.engine, "commit", lambda _: found.append(None))
    return found


async def test_bids_that_come_together_are_stored_in_one_transaction(market: Market) -> None:
    seen = commits(market)
    verdicts = await all_of(*(bid(market, f"user{i}", notebook()) for i in range(6)))
    assert all(isinstance(each, Verdict) and each.accepted for each in verdicts)
    assert count(market.database, Reservation) == 6
    assert len(seen) < 6


async def test_they_are_decided_in_their_order(market: Market) -> None:
    verdicts = await all_of(*(bid(market, f"user{i}", notebook(gpus=3)) for i in range(4)))
    assert [each.accepted for each in verdicts] == [True, True, False, False]


async def test_one_account_pays_for_all_of_its_bids(market: Market) -> None:
    names = [f"s{i}" for i in range(3)]
    first = await bid(market, "ann", notebook(server_name="first"))
    rest = await all_of(*(bid(market, "ann", notebook(server_name=name)) for name in names))
    paid = sum(each.price for each in [first, *rest])
    statement = market.statement("ann")
    assert statement.balance == 100_000_000 - paid
    assert statement.held == paid
    with market.database.reader.begin() as session:
        assert not list(prove(session))


async def test_no_account_pays_what_it_does_not_have(tmp_path: Path, clock: Clock) -> None:
    market = open_market(tmp_path, clock, grant="1")
    price = market.quote(notebook(gpus=4)).price
    assert price is not None and 500_000 < price <= 1_000_000
    verdicts = await all_of(
        *(bid(market, "ann", notebook(gpus=4, server_name=name)) for name in "ab")
    )
    assert [each.accepted for each in verdicts] == [True, False]
    assert "free on your account" in verdicts[1].reason
    market.database.close()


async def test_two_bids_for_one_server_are_not_both_taken(market: Market) -> None:
    first, second = await all_of(bid(market, "ann", notebook()), bid(market, "ann", notebook()))
    assert first.accepted
    assert isinstance(second, Conflict)


async def test_a_refused_bid_does_not_take_the_others_with_it(market: Market) -> None:
    odd = notebook().model_copy(update={"configuration": "no-such"})
    before, refused, after = await all_of(
        bid(market, "ann", notebook()), bid(market, "bob", odd), bid(market, "eve", notebook())
    )
    assert before.accepted and after.accepted
    assert "no-such" in str(refused)
    assert count(market.database, Reservation) == 2


async def test_a_repeated_call_gets_the_first_answer_even_within_one_transaction(
    market: Market,
) -> None:
    call = Call("user:ann", "key-1", "digest")
    coming = Coming("ann", "", call)
    answer = TypeAdapter(str)

    def reserve() -> str:
        made = market.reserve("ann", notebook()).reservation
        assert made is not None
        return made.id

    first, again = await all_of(
        market.together(coming, market.once, call, answer, reserve),
        market.together(coming, market.once, call, answer, reserve),
    )
    assert first == again
    assert count(market.database, Reservation) == 1
    assert await market.together(coming, market.once, call, answer, reserve) == first


async def test_only_the_one_that_can_not_be_stored_fails(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = Ledger.hold

    def fail(self: Ledger, account: Any, *args: Any, **kwargs: Any) -> None:
        hold(self, account, *args, **kwargs)
        if account.name == "bob":
            raise OSError("a bug")

    monkeypatch.setattr(Ledger, "hold", fail)
    before, broken, after = await all_of(
        *(bid(market, user, notebook(gpus=2)) for user in ("ann", "bob", "eve"))
    )
    assert before.accepted and after.accepted
    assert isinstance(broken, OSError)
    assert count(market.database, Reservation) == 2
    assert market.era.promised(market.clock(), 1).tolist() == [4]
    with market.database.reader.begin() as session:
        assert not list(prove(session))


async def test_without_the_writer_all_of_them_fail(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Any:
        raise NotLeading("another writes")

    monkeypatch.setattr(market, "_begin", refuse)
    found = await all_of(*(bid(market, user, notebook()) for user in ("ann", "bob")))
    assert all(isinstance(each, (NotLeading, Unavailable)) for each in found)
