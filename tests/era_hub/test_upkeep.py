"""What happens as time passes: grants are paid, credits lapse, answers are forgotten."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import text

from era_hub.changes import Change
from era_hub.market import Market
from era_hub.models import micro_credits
from era_hub.store.grants import Grants
from era_hub.upkeep import REMEMBERED, Upkeep
from tests.era_hub.small_market import Clock

DAY = 86_400


@pytest.fixture
def upkeep(market: Market, clock: Clock) -> Upkeep:
    return Upkeep(market, market.database, clock, 0.01, logging.getLogger("upkeep"))


def balance(market: Market, user: str) -> int:
    return market.statement(user).balance


def grant(market: Market, clock: Clock, amount: str, **more: int) -> None:
    with market.transaction() as session:
        Grants(session, clock()).create(
            "user", "ann", micro_credits(amount), actor="admin:root", **more
        )


@pytest.mark.asyncio
async def test_a_periodic_grant_is_paid_when_it_is_due_and_once(
    upkeep: Upkeep, clock: Clock
) -> None:
    market = upkeep.market
    await upkeep.run_once()
    before = balance(market, "ann")
    grant(market, clock, "10", period=DAY, anchor=clock() + DAY)
    await upkeep.run_once()
    assert balance(market, "ann") == before
    clock.now += DAY
    for _ in range(2):
        await upkeep.run_once()
    assert balance(market, "ann") == before + micro_credits("10")
    clock.now += 3 * DAY  # the service was away
    await upkeep.run_once()
    assert balance(market, "ann") == before + micro_credits("40")


@pytest.mark.asyncio
async def test_what_has_lapsed_is_taken_back_and_told(upkeep: Upkeep, clock: Clock) -> None:
    market = upkeep.market
    await upkeep.run_once()
    before = balance(market, "ann")
    grant(market, clock, "10", expires_after=DAY)
    await upkeep.run_once()
    assert balance(market, "ann") == before + micro_credits("10")
    clock.now += DAY
    with market.changes.subscribe() as listener:
        await upkeep.run_once()
        told = await listener.next()
    assert Change("account") in [each.change for each in told]
    assert balance(market, "ann") == before
    assert market.statement("ann").entries[0].kind == "expiry"


@pytest.mark.asyncio
async def test_answers_to_repeated_requests_are_forgotten_after_a_week(
    upkeep: Upkeep, clock: Clock
) -> None:
    await upkeep.run_once()

    def count() -> int:
        with upkeep.market.reading() as session:
            return session.scalar(text("SELECT count(*) FROM answers")) or 0

    with upkeep.market.transaction() as session:
        session.execute(
            text(
                "INSERT INTO answers (caller, key, request, status, body, at) "
                "VALUES ('ann', 'k', 'r', 200, '{}', :now)"
            ),
            {"now": clock()},
        )
    clock.now += REMEMBERED - 1
    await upkeep.run_once()
    assert count() == 1
    clock.now += 3600
    await upkeep.run_once()
    assert count() == 0
