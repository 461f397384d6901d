"""The market: prices, capacity held back and maintenance, as admins change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_hub.changes import Change
from era_hub.market import Market, MarketError
from era_hub.market.terms import Outage, Terms
from era_hub.models import State
from era_hub.store.books import prove
from era_hub.store.ledger import Ledger
from era_hub.store.settings import Settings
from era_hub.store.versions import Stale
from era_hub.views import when
from era_pricing import BidError, Inventory
from tests.era_hub.small_market import DAWN, HOUR, Clock, balances, job, notebook, open_market
from tests.era_hub.test_market_accounts import Heard, reserve

GRANT = 100_000_000
SLOT = 300


def held_back(units: int, version: int = 0, **prices: Any) -> Any:
    limits = {"price_floor": None, "price_ceiling": None, **prices}
    return lambda session: Settings(session).set("local", version, held_back=units, **limits)


def maintenance(first: float, last: float, units: int | None = None) -> Any:
    start, end = int(DAWN + first * HOUR), int(DAWN + last * HOUR)
    return lambda session: Settings(session).plan("local", start, end, units, "new disks")


def capacity(market: Market, hours: int = 6) -> list[int]:
    """GPUs in each hour from dawn."""
    return market.era.capacity(DAWN, hours * HOUR // SLOT).tolist()[:: HOUR // SLOT]


def test_capacity_held_back_is_not_sold(market: Market) -> None:
    assert market.apply_settings(held_back(6)) == []
    assert capacity(market) == [2] * 6
    with pytest.raises(BidError, match="3 GPUs asked, the pool sells 2"):
        market.reserve("ann", notebook(gpus=3))
    reserve(market, notebook(gpus=2))
    market.apply_settings(held_back(0, version=1))
    reserve(market, notebook(gpus=6), "bob")


def test_nothing_is_sold_during_maintenance(market: Market) -> None:
    market.apply_settings(maintenance(1, 3))
    market.apply_settings(maintenance(2, 5, units=6))
    assert capacity(market) == [8, 0, 0, 2, 2, 8]
    assert not market.reserve("ann", notebook(hours=2)).accepted
    made = reserve(market, notebook(gpus=3, deadline=DAWN + 12 * HOUR))
    assert made.start == when(DAWN) or made.start >= when(DAWN + 5 * HOUR)


def test_what_breaks_is_refunded_in_full_and_its_owner_told(market: Market, clock: Clock) -> None:
    running = reserve(market, notebook(gpus=3, hours=4))
    queued = reserve(market, job(gpus=4, arrival=DAWN + 2 * HOUR, deadline=DAWN + 3 * HOUR), "bob")
    after = reserve(market, job(gpus=4, arrival=DAWN + 3 * HOUR, deadline=DAWN + 4 * HOUR), "bob")
    market.claim(running.id)
    clock.now += HOUR
    market.changes = heard = Heard()
    edit = maintenance(2, 3, units=4)
    foreseen = market.preview_settings(edit)
    assert heard.heard == []
    losses = market.apply_settings(edit, "new disks")
    assert [(each.reservation.id, each.refund) for each in losses] == [(queued.id, queued.price)]
    assert [(each.reservation.id, each.refund) for each in foreseen] == [(queued.id, queued.price)]
    lost = market.job(queued.id)
    assert (lost.reservation.state, lost.reservation.refunded) == (State.FAILED, queued.price)
    assert "less to give" in lost.message and "new disks" in lost.message
    assert market.reservation(running.id).state is State.ACTIVE
    assert market.reservation(after.id).state is State.ACCEPTED
    assert market.statement("bob").balance == GRANT - after.price
    assert Change("reservation", "bob", queued.id) in heard.heard
    assert Change("prices") in heard.heard
    with market.database.reader.begin() as session:
        assert prove(session) == []


def test_a_preview_changes_nothing(market: Market) -> None:
    for user in ("ann", "bob", "carl"):
        reserve(market, notebook(gpus=2), user)
    plan = market.era.promised(DAWN, 24).tolist()
    quoted = market.quote(notebook(deadline=DAWN + 3 * HOUR)).prices.tolist()
    before = (market.reservations(), balances(market.database))
    losses = market.preview_settings(held_back(5, price_floor=9_000_000))
    # The last ones to come are the first to go.
    assert [each.reservation.user for each in losses] == ["bob", "carl"]
    assert market.era.promised(DAWN, 24).tolist() == plan
    assert market.quote(notebook(deadline=DAWN + 3 * HOUR)).prices.tolist() == quoted
    assert (market.reservations(), balances(market.database)) == before
    with market.database.reader.begin() as session:
        assert Settings(session).pool("local").version == 0
    assert (
        market.apply_settings(held_back(5)) == losses
        or [each.reservation.id for each in market.preview_settings(held_back(5, version=1))] == []
    )


def test_prices_stay_between_floor_and_ceiling(market: Market) -> None:
    hour = notebook(hours=1)
    cheap = market.quote(hour).price
    market.apply_settings(held_back(0, price_floor=7_000_000, price_ceiling=7_500_000))
    assert cheap is not None
    assert cheap < 7_000_000 <= (market.quote(hour).price or 0) <= 7_500_000
    market.apply_settings(held_back(0, version=1))
    assert market.quote(hour).price == cheap
    market.apply_settings(held_back(0, version=2, price_ceiling=250_000))
    assert (market.quote(notebook(gpus=8)).price or 0) <= 8 * 250_000


def test_a_ceiling_below_the_configured_floor_is_refused(market: Market) -> None:
    with pytest.raises(MarketError, match="price_ceiling must be at least the price floor"):
        market.apply_settings(held_back(3, price_ceiling=1))
    with pytest.raises(MarketError, match="price_floor must be above 0"):
        market.preview_settings(held_back(3, price_floor=0))
    assert capacity(market) == [8] * 6


def test_a_change_based_on_old_settings_is_refused(market: Market) -> None:
    market.apply_settings(held_back(1))
    with pytest.raises(Stale):
        market.apply_settings(held_back(2))
    assert capacity(market) == [7] * 6


def test_settings_survive_a_restart(tmp_path: Path, clock: Clock) -> None:
    market = open_market(tmp_path, clock)
    market.apply_settings(held_back(2, price_floor=7_000_000))
    market.apply_settings(maintenance(2, 3))
    there, quoted = capacity(market), market.quote(notebook()).price
    market.database.close()
    again = open_market(tmp_path, clock)
    again.honour()
    assert capacity(again) == there == [6, 6, 0, 6, 6, 6]
    assert again.quote(notebook()).price == quoted
    again.database.close()


def test_a_change_that_could_not_be_stored_has_no_effect(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve(market, notebook(gpus=8))

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "settle", fail)
        with pytest.raises(OSError, match="disk full"):
            market.apply_settings(held_back(4))
    assert capacity(market) == [8] * 6
    assert market.era.promised(DAWN, 1).tolist() == [8]
    assert market.preview_settings(held_back(0)) == []


@given(
    kept=st.integers(0, 9),
    outages=st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 10), st.none() | st.integers(1, 9)),
        max_size=5,
    ),
)
@settings(deadline=None)
def test_capacity_is_what_is_left_at_each_time(
    kept: int, outages: list[tuple[int, int, int | None]]
) -> None:
    terms = Terms(
        1, None, kept, tuple(Outage(start, start + long, n) for start, long, n in outages)
    )
    inventory = Inventory.single({"gpu": 8})
    for start, end, units in terms.for_sale(8):
        inventory.set_capacity(None, start, end, {"gpu": units})
    found = inventory.capacity(np.arange(35), 1)[0, 0].tolist()
    for time in range(35):
        lost = sum(
            8 if n is None else n for start, long, n in outages if start <= time < start + long
        )
        assert found[time] == max(8 - kept - lost, 0)
