"""What the market learns from bids: stored with each decision, and there after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from era_hub.answers import Conflict
from era_hub.market import Market
from era_hub.store.demand import KEPT, Demand
from era_hub.store.ledger import Ledger
from era_hub.store.tables import SeenBid
from era_pricing.predictors import SeenRequest
from tests.era_hub.small_market import DAWN, HOUR, Clock, count, job, notebook, open_market

DAY = 24 * HOUR
MILLION = 1_000_000


def seen(market: Market) -> list[SeenRequest]:
    with market.database.session.begin() as session:
        return Demand(session, market.pool, market.era.resource).recall(market.clock())


def forecast(market: Market) -> np.ndarray:
    """Expected price and band of a GPU, every half hour of the coming two days."""
    found = market.era.forecast("gpu-1", market.clock(), 2 * DAY // 300)
    return np.stack((found.expected, found.low, found.high))[:, ::6]


def reopen(market: Market, folder: Path, clock: Clock, **settings: Any) -> Market:
    market.database.close()
    return open_market(folder, clock, **settings)


def busy_days(market: Market, clock: Clock, days: int) -> None:
    """Bids around ten and around four o'clock, most of them declined."""
    begin = clock.now // DAY * DAY + DAY
    random = np.random.default_rng(1)
    for day in range(days):
        for hour in np.sort(np.concatenate((random.normal(10, 1, 4), random.normal(16, 1, 4)))):
            clock.now = begin + day * DAY + int(hour * HOUR)
            value = f"{random.lognormal(0.3, 0.5):.2f}"
            market.reserve("ann", job(int(random.integers(1, 5)), 2, value, name="train"))
    clock.now = begin + days * DAY + HOUR


def test_a_decided_bid_is_remembered_as_the_predictor_was_told(
    market: Market, clock: Clock
) -> None:
    taken = market.reserve("ann", notebook(2, 1, "7", arrival=DAWN + HOUR, deadline=DAWN + DAY))
    clock.now += 60
    declined = market.reserve("bob", job(4, 1, "0.01"))
    market.reserve("carl", notebook(0, 1, "1"))  # nothing of what has a price
    common: dict[str, Any] = {"duration": HOUR}
    assert seen(market) == [
        SeenRequest(
            submitted=DAWN,
            arrival=DAWN + HOUR,
            deadline=DAWN + DAY,
            units=2,
            value=7 * MILLION,
            accepted=True,
            price=taken.price,
            **common,
        ),
        SeenRequest(
            submitted=DAWN + 60,
            arrival=DAWN + 60,
            deadline=DAWN + 60 + HOUR,
            units=4,
            value=10_000,
            accepted=False,
            price=declined.price,
            **common,
        ),
    ]


def test_the_engine_tells_the_predictor_the_same(
    market: Market, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from era_pricing.predictors import Blend

    heard: list[SeenRequest] = []
    monkeypatch.setattr(Blend, "observe", lambda self, each: heard.append(each))
    for number in range(12):
        clock.now += 37
        market.reserve("ann", job(1 + number % 8, 0.4 + number, f"{number / 3:.2f}"))
        wanted = notebook(1 + number % 3, 1, "5", deadline=clock.now + 9 * HOUR)
        market.reserve("bob", wanted.model_copy(update={"server_name": f"number-{number}"}))
    assert heard == seen(market)
    assert {each.accepted for each in heard} == {True, False}


def test_nobody_is_taken_to_want_more_than_they_can_pay(tmp_path: Path, clock: Clock) -> None:
    market = open_market(tmp_path, clock, grant="1")
    verdict = market.reserve("ann", notebook(8, 20, "1000"))
    assert verdict.reason is not None and "only 1.00 are free on your account" in verdict.reason
    [poor] = seen(market)
    assert (poor.value, poor.accepted, poor.price) == (MILLION, False, verdict.price)
    market.database.close()


def test_a_second_bid_for_the_same_server_is_refused_and_remembered(market: Market) -> None:
    market.reserve("ann", notebook())
    with pytest.raises(Conflict, match="already"):
        market.reserve("ann", notebook())
    assert len(seen(market)) == 2
    assert len(market.reservations()) == 1
    assert market.era.promised(DAWN, 1)[0] == 1


def test_a_bid_that_could_not_be_stored_is_not_remembered(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Ledger, "hold", fail)
    with pytest.raises(OSError, match="disk full"):
        market.reserve("ann", notebook())
    assert seen(market) == []


def test_after_eight_weeks_a_bid_is_gone(market: Market, clock: Clock) -> None:
    market.reserve("ann", job(value="0.01"))
    clock.now += KEPT
    market.reserve("ann", job(value="0.01"))
    assert count(market.database, SeenBid) == 2
    clock.now += 1
    market.reserve("ann", job(value="0.01"))
    assert [each.submitted for each in seen(market)] == [DAWN + KEPT, DAWN + KEPT + 1]
    with market.database.session.begin() as session:
        Demand(session, market.pool, market.era.resource).prune(clock.now)
    assert count(market.database, SeenBid) == 2


def test_other_pools_and_resources_are_kept_apart(market: Market) -> None:
    market.reserve("ann", job())
    [one] = seen(market)
    with market.database.session.begin() as session:
        for pool, resource in (("a100", "nvidia.com/gpu"), ("local", "tpu")):
            Demand(session, pool, resource).remember(one)
            assert len(Demand(session, pool, resource).recall(DAWN)) == 1
    assert len(seen(market)) == 1


def test_on_the_first_day_a_restart_changes_nothing(
    market: Market, tmp_path: Path, clock: Clock
) -> None:
    for number in range(9):
        clock.now += 700
        market.reserve("ann", job(1 + number % 4, 1, "2"))
    before = forecast(market)
    again = reopen(market, tmp_path, clock)
    assert np.array_equal(forecast(again), before)
    again.database.close()


@pytest.mark.parametrize("predictor", ["blend", "spread"])
def test_after_some_days_a_restart_forgets_nothing(
    market: Market, tmp_path: Path, clock: Clock, predictor: str
) -> None:
    assumed = forecast(market)
    busy_days(market, clock, 8)
    market.reserve("ann", job(value="0.01"))  # the first of a new day renews the tables
    before = forecast(market)
    again = reopen(market, tmp_path, clock, predictor=predictor)
    after = forecast(again)
    scale = before[0].mean()
    if predictor == "blend":
        assert np.abs(after - before).mean() < 0.1 * scale
    assert np.abs(before - assumed).mean() > 0.3 * scale
    # Another one changes nothing at all, nor does the rest of the day.
    third = reopen(again, tmp_path, clock, predictor=predictor)
    assert np.array_equal(forecast(third), after)
    for number in range(5):
        clock.now += 600
        third.reserve("bob", job(1 + number % 2, 1, "0.01"))
    quiet = forecast(third)
    fourth = reopen(third, tmp_path, clock, predictor=predictor)
    assert np.array_equal(forecast(fourth), quiet)
    fourth.database.close()
