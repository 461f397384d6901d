"""The market: long lists, narrowed and in pages."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from era_hub.market import Market, Place
from era_hub.models import Kind, State
from tests.era_hub.small_market import DAWN, HOUR, Clock, job, notebook, open_market
from tests.era_hub.test_market_accounts import give_group, reserve


def ids(market: Market, **narrow: Any) -> list[str]:
    return [each.id for each in market.reservations(**narrow)]


def test_lists_are_narrowed_by_state_configuration_and_time(market: Market, clock: Clock) -> None:
    early = reserve(market, notebook(gpus=0))
    clock.now += 1
    late = reserve(market, job(gpus=2, arrival=DAWN + 5 * HOUR, deadline=DAWN + 6 * HOUR))
    clock.now += 1
    market.claim(early.id)
    assert ids(market, state=State.ACTIVE) == [early.id]
    assert ids(market, state=State.ACCEPTED) == [late.id]
    assert ids(market, configuration="gpu-2") == [late.id]
    assert ids(market, since=DAWN + 2 * HOUR) == [late.id]
    assert ids(market, until=DAWN + 2 * HOUR) == [early.id]
    assert ids(market, since=DAWN + 5 * HOUR, until=DAWN + 5 * HOUR + 1) == [late.id]
    assert ids(market, since=DAWN + 6 * HOUR) == []
    assert ids(market, until=DAWN) == []
    assert [each.id for each in market.jobs(state=State.ACCEPTED)] == [late.id]
    assert market.jobs(until=DAWN + 2 * HOUR) == []


@settings(max_examples=20, deadline=None)
@given(pauses=st.lists(st.integers(0, 2), min_size=1, max_size=12), size=st.integers(1, 5))
def test_pages_hold_everything_once(pauses: list[int], size: int) -> None:
    clock = Clock()
    with TemporaryDirectory() as folder:
        market = open_market(Path(folder), clock)
        for pause in pauses:
            clock.now += pause
            reserve(market, job(gpus=0))
        found: list[Any] = []
        while True:
            after = Place(int(found[-1].created.timestamp()), found[-1].id) if found else None
            more = market.reservations(kind=Kind.JOB, limit=size, after=after)
            assert [each.id for each in market.jobs(limit=size, after=after)] == [
                each.id for each in more
            ]
            if not more:
                break
            found += more
        assert found == market.reservations()
        assert len({each.id for each in found}) == len(pauses)
        market.database.close()


def test_a_list_takes_the_same_number_of_statements_however_long(market: Market) -> None:
    give_group(market, "lab", 50_000_000)
    asked: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append(statement)

    reading = market.database.reader.kw["bind"]
    event.listen(reading, "before_cursor_execute", note)
    counts = set()
    for number in range(6):
        reserve(market, job(account="group:lab" if number % 2 else "own"), f"u{number}", ["lab"])
        asked.clear()
        assert len(market.reservations()) == number + 1
        counts.add(len(asked))
    assert counts == {2}
