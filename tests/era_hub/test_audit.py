"""``era-hub audit`` on a database of its own: what was sold, against what there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from era_hub.market import Market
from era_hub.store.settings import Settings
from era_hub.store.tables import Reservation
from tests.era_hub.small_market import HOUR, Clock, notebook, open_market

GPUS = 4


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    """As the service was ten minutes ago: the command asks the real clock."""
    opened = open_market(tmp_path, Clock(int(time.time()) - 600), gpus=GPUS)
    opened.honour()
    yield opened
    opened.database.close()


def audit(market: Market, *arguments: str) -> list[dict[str, Any]]:
    url = market.database.url.render_as_string()
    done = subprocess.run(
        [sys.executable, "-m", "era_hub", "audit", "--json", *arguments],
        env={**os.environ, "ERA_DB_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    assert done.returncode == (1 if findings else 0), done.stderr
    return findings


def sell_twice(market: Market) -> None:
    """Two reservations of all GPUs, moved to one time behind the market's back."""
    now = market.clock()
    for number in range(2):
        arrival = now + (2 + 2 * number) * HOUR
        bid = notebook(GPUS, arrival=arrival, deadline=arrival + HOUR, server_name=f"s{number}")
        assert market.reserve("ann", bid).accepted
    same = {"start": now + 2 * HOUR, "end": now + 3 * HOUR}
    with market.database.session.begin() as session:
        session.execute(update(Reservation).values(**same))


def test_what_was_sold_twice_is_found_without_being_told_the_size(market: Market) -> None:
    assert audit(market) == []
    sell_twice(market)
    (found,) = audit(market)
    assert (found["check"], found["subject"]) == ("capacity", "pool local")
    assert found["text"].startswith(f"{2 * GPUS} units are sold of {GPUS} at ")
    assert audit(market, "--gpus", str(2 * GPUS)) == []


def test_what_is_held_back_and_out_for_maintenance_counts(market: Market) -> None:
    start = market.clock() + 2 * HOUR
    bid = notebook(GPUS - 1, arrival=start, deadline=start + HOUR)
    assert market.reserve("ann", bid).accepted
    assert audit(market) == []
    with market.database.session.begin() as session:
        Settings(session).plan("local", start + 60, start + 120, 2, "fans")
    (found,) = audit(market)
    assert found["text"] == f"{GPUS - 1} units are sold of {GPUS - 2} at {start + 60}"


def test_a_pool_that_has_become_smaller_was_larger_once(market: Market, tmp_path: Path) -> None:
    now = market.clock()
    made = market.reserve("ann", notebook(GPUS)).reservation
    assert made is not None
    market.claim(made.id)
    market.database.close()
    smaller = open_market(tmp_path, Clock(now + 600), gpus=1)
    smaller.honour()  # gives up what runs
    assert smaller.reservation(made.id).state.final
    assert audit(smaller) == []
