"""What happens as time passes: grants are paid, credits lapse, another service takes over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from era_hub.changes import Change
from era_hub.market import Market
from era_hub.models import micro_credits
from era_hub.store.database import Database, Unavailable
from era_hub.store.election import NotLeading, Writer
from era_hub.store.grants import Grants
from era_hub.upkeep import REMEMBERED, Upkeep
from tests.era_hub.small_market import Clock, market_on, notebook
from tests.postgres import PostgresServer

DAY = 86_400
Open = Callable[[str | URL], Upkeep]


@pytest.fixture
def open_service(clock: Clock) -> Iterator[Open]:
    """A service's upkeep on a database; once more on the same one is a second service."""
    opened: list[Database] = []

    def open_one(url: str | URL) -> Upkeep:
        database = Database(url)
        opened.append(database)
        database.migrate()
        writer = Writer(database, "local", "http://127.0.0.1:1/", clock)
        market = market_on(database, clock, writer=writer)
        return Upkeep(market, database, writer, clock, 0.01, logging.getLogger("upkeep"))

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def upkeep(open_service: Open, tmp_path: Path) -> Upkeep:
    return open_service(f"sqlite:///{tmp_path / 'era.sqlite'}")


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
    assert market.statement("ann").movements[0].kind == "expiry"


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


@pytest.mark.postgres
@pytest.mark.asyncio
async def test_a_second_service_takes_over_and_knows_every_promise(
    open_service: Open, postgres: PostgresServer, clock: Clock
) -> None:
    url = postgres.url(postgres.create())
    first, second = open_service(url), open_service(url)
    await first.run_once()
    await second.run_once()
    assert first.writer.leading and not second.writer.leading
    made = await first.database.run(first.market.reserve, "ann", notebook(6, 2))
    assert made.reservation is not None
    with pytest.raises(NotLeading):
        await second.database.run(second.market.reserve, "bob", notebook(2, 1))

    # The server ends the first one's connection, and with it the lock.
    with second.database.session.begin() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks "
                "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
        )
    await second.run_once()
    assert second.writer.leading
    with suppress(Unavailable):
        await first.run_once()
    await first.run_once()
    assert not first.writer.leading
    with pytest.raises((NotLeading, Unavailable, DBAPIError)):
        await first.database.run(first.market.reserve, "bob", notebook(2, 1))

    crowded = await second.database.run(second.market.reserve, "bob", notebook(3, 1))
    assert not crowded.accepted
    assert (await second.database.run(second.market.reserve, "bob", notebook(2, 1))).accepted
