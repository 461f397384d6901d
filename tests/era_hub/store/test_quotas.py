"""Quotas: whose limit is in force, what counts, and what a refusal says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from era_hub.store.database import Database
from era_hub.store.ledger import Ledger
from era_hub.store.peaks import Span, highest, hours, period_start
from era_hub.store.policies import Payer
from era_hub.store.quotas import Limits, Quotas, Refusal, Wanted
from era_hub.store.versions import Stale
from tests.era_hub.store.rows import DAY, HOUR, NOW, a_reservation

WEEK = 7 * DAY
MONDAY = NOW - 4 * DAY - 8 * HOUR
"""2027-01-11 00:00 UTC."""


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session.begin() as session:
        yield session


@pytest.fixture
def quotas(session: Session) -> Quotas:
    return Quotas(session)


def reserved(
    session: Session, start: float, end: float, gpus: int, name: str = "r1", **fields: Any
) -> None:
    """A reservation, in hours from now."""
    times = {"start": NOW + int(start * HOUR), "end": NOW + int(end * HOUR)}
    session.add(a_reservation(name, units=gpus, **times | fields))
    session.flush()


def refused(
    session: Session,
    start: float = 0,
    end: float = 1,
    gpus: int = 1,
    configuration: str = "gpu-1",
    groups: tuple[str, ...] = (),
    group: str | None = None,
    without: str | None = None,
) -> list[Refusal]:
    """What stands against ann's reservation, in hours from now."""
    payer, account = Payer("user", "ann"), None
    if group is not None:
        payer, account = Payer("group", group), Ledger(session, NOW).group(group).id
    wanted = Wanted(
        "ann",
        groups,
        payer,
        account,
        configuration,
        gpus,
        NOW + int(start * HOUR),
        NOW + int(end * HOUR),
    )
    return Quotas(session).check(wanted, NOW, without)


# -- whose limit --------------------------------------------------------------


def test_without_quotas_there_are_no_limits(session: Session, quotas: Quotas) -> None:
    assert quotas.limits("ann", ["lab"]) == Limits()
    assert quotas.group_limits("lab") == Limits()
    assert refused(session, 0, 9999, 9999) == []


def test_the_nearest_quota_decides_each_sort_by_itself(quotas: Quotas) -> None:
    quotas.set("everyone", "", gpus=1, longest=HOUR, horizon=DAY, gpu_seconds=9, period=DAY)
    quotas.set("member", "lab", gpus=2, longest=2 * HOUR)
    quotas.set("user", "ann", gpus=0)
    assert quotas.limits("zoe", []) == Limits(1, 9, DAY, HOUR, DAY)
    assert quotas.limits("zoe", ["lab"]) == Limits(2, 9, DAY, 2 * HOUR, DAY)
    assert quotas.limits("ann", ["lab"]) == Limits(0, 9, DAY, 2 * HOUR, DAY)


def test_of_overlapping_groups_the_most_generous_counts(quotas: Quotas) -> None:
    quotas.set("member", "bio", gpus=2, longest=HOUR, configurations=["gpu-1"])
    quotas.set("member", "astro", gpus=4, gpu_seconds=70, period=WEEK, configurations=["cpu"])
    quotas.set("member", "chem", longest=3 * HOUR, gpu_seconds=11, period=DAY)
    wanted = Limits(4, 11, DAY, 3 * HOUR, None, ("cpu", "gpu-1"))
    for groups in (["bio", "astro", "chem"], ["chem", "astro", "bio"]):
        assert quotas.limits("ann", groups) == wanted
    assert quotas.limits("ann", ["bio"]) == Limits(2, None, None, HOUR, None, ("gpu-1",))


def test_a_groups_sum_is_no_limit_of_its_members(quotas: Quotas) -> None:
    quotas.set("group", "lab", gpus=2)
    assert quotas.limits("ann", ["lab"]) == Limits()
    assert quotas.group_limits("lab") == Limits(gpus=2)


# -- GPUs at once -------------------------------------------------------------


def test_a_refusal_says_which_limit_its_value_and_what_is_left(
    session: Session, quotas: Quotas
) -> None:
    quotas.set("user", "ann", gpus=4)
    reserved(session, 6, 8, 3)
    (refusal,) = refused(session, 5, 9, 2)
    assert (refusal.limit, refusal.value, refusal.left) == ("gpus", 4, 1)
    assert str(refusal) == (
        "gpus: at most 4 GPUs at once for ann, 1 is left "
        "from 2027-01-15 14:00 to 2027-01-15 16:00 UTC"
    )
    assert refused(session, 5, 9, 1) == []


@pytest.mark.parametrize(("start", "end"), [(0, 6), (8, 10), (5, 6), (8, 9)])
def test_what_only_touches_does_not_overlap(
    session: Session, quotas: Quotas, start: int, end: int
) -> None:
    quotas.set("user", "ann", gpus=4)
    reserved(session, 6, 8, 4)
    assert refused(session, start, end, 4) == []
    assert [each.left for each in refused(session, start - 1, end + 1, 1)] == [0]


def test_one_after_the_other_is_not_at_once(session: Session, quotas: Quotas) -> None:
    quotas.set("everyone", "", gpus=2)
    for number in range(5):
        reserved(session, number, number + 1, 1, f"r{number}")
    assert refused(session, 0, 5, 1) == []
    assert [each.left for each in refused(session, 0, 5, 2)] == [1]


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "anna"},
        {"state": "cancelled", "ended": NOW},
        {"state": "completed", "ended": NOW},
        {"state": "failed", "ended": NOW},
    ],
    ids=str,
)
def test_other_peoples_and_what_has_ended_does_not_count(
    session: Session, quotas: Quotas, fields: dict[str, Any]
) -> None:
    quotas.set("user", "ann", gpus=1)
    reserved(session, 0, 5, 1, **fields)
    assert refused(session) == []


def test_a_machine_without_gpus_needs_none_of_the_quota(session: Session, quotas: Quotas) -> None:
    quotas.set("user", "ann", gpus=0, gpu_seconds=0, period=DAY)
    assert refused(session, gpus=0, configuration="cpu") == []
    assert [each.limit for each in refused(session, gpus=1)] == ["gpus", "gpu_seconds"]


def test_an_extension_does_not_compete_with_itself(session: Session, quotas: Quotas) -> None:
    quotas.set("user", "ann", gpus=2, gpu_seconds=5 * HOUR, period=WEEK)
    reserved(session, 0, 2, 2)
    assert refused(session, 0, 3, 2, without="r1")[0].limit == "gpu_seconds"
    assert refused(session, 0, 2.5, 2, without="r1") == []
    assert [each.limit for each in refused(session, 0, 2.5, 2)] == ["gpus", "gpu_seconds"]


# -- GPU-seconds of a period --------------------------------------------------


def test_hours_are_those_that_start_in_the_same_period(session: Session, quotas: Quotas) -> None:
    quotas.set("user", "ann", gpu_seconds=10 * HOUR, period=WEEK)
    reserved(session, -100, -99, 1, "week before")  # Monday 04:00 was 100 h ago
    reserved(session, 0, 3, 2, "this week")
    next_monday = (MONDAY + WEEK - NOW) / HOUR
    reserved(session, next_monday, next_monday + 2, 4, "next week")
    (refusal,) = refused(session, 10, 13.5, 1)
    assert (refusal.limit, refusal.value, refusal.left) == ("gpu_seconds", 10 * HOUR, 3 * HOUR)
    assert str(refusal) == (
        "gpu_seconds: at most 10 GPU-hours in 168 h for ann, 3 left "
        "from 2027-01-11 00:00 to 2027-01-18 00:00 UTC, 3.5 asked"
    )
    assert refused(session, 10, 13, 1) == []
    # What begins in this week counts in this week as a whole.
    assert refused(session, next_monday - 1, next_monday + 2, 1) == []
    assert [each.left for each in refused(session, next_monday, next_monday + 3, 1)] == [2 * HOUR]


def test_what_was_given_back_counts_as_far_as_it_was_used(session: Session, quotas: Quotas) -> None:
    quotas.set("user", "ann", gpu_seconds=10 * HOUR, period=WEEK)
    reserved(session, -9, -1, 1, "r1", state="released", ended=NOW - 6 * HOUR)
    reserved(session, 5, 9, 1, "r2", state="cancelled", ended=NOW)
    reserved(session, -9, -8, 1, "r3", state="failed", ended=NOW - 8 * HOUR)
    reserved(session, -9, -8, 1, "r4", state="completed", ended=NOW)
    used = [each for each in quotas.usage("ann", [], NOW) if each.limit == "gpu_seconds"]
    assert [(each.value, each.used, each.left) for each in used] == [
        (10 * HOUR, 4 * HOUR, 6 * HOUR)
    ]


@given(st.integers(-(10**6), 10**10), st.integers(1, 10**7))
def test_a_time_lies_in_its_period(at: int, period: int) -> None:
    begin = period_start(at, period)
    assert begin <= at < begin + period
    assert (begin - 4 * DAY) % period == 0


def test_weeks_begin_on_monday() -> None:
    assert period_start(NOW, WEEK) == MONDAY
    assert period_start(MONDAY, WEEK) == MONDAY
    assert period_start(MONDAY - 1, WEEK) == MONDAY - WEEK


# -- each reservation ---------------------------------------------------------


def test_the_longest_reservation(session: Session, quotas: Quotas) -> None:
    quotas.set("user", "ann", longest=8 * HOUR)
    assert refused(session, 1, 9) == []
    (refusal,) = refused(session, 1, 13)
    assert str(refusal) == "longest: at most 8 h in one reservation for ann, 12 h asked"


def test_how_far_ahead(session: Session, quotas: Quotas) -> None:
    quotas.set("everyone", "", horizon=DAY)
    assert refused(session, 23, 24) == []
    (refusal,) = refused(session, 23, 25)
    assert "until 2027-01-16 08:00 UTC; this ends at 2027-01-16 09:00 UTC" in str(refusal)


def test_which_configurations(session: Session, quotas: Quotas) -> None:
    quotas.set("user", "ann", configurations=["gpu-2", "gpu-1"])
    assert refused(session, configuration="gpu-2") == []
    (refusal,) = refused(session, configuration="gpu-8")
    assert str(refusal) == "configurations: ann may have gpu-1, gpu-2, not gpu-8"
    quotas.set("user", "ann", version=1, configurations=[])
    assert [each.limit for each in refused(session)] == ["configurations"]


def test_every_limit_in_the_way_is_named(session: Session, quotas: Quotas) -> None:
    quotas.set(
        "everyone",
        "",
        gpus=1,
        gpu_seconds=1,
        period=DAY,
        longest=1,
        horizon=1,
        configurations=["cpu"],
    )
    assert {each.limit for each in refused(session, 0, 2, 2)} == {
        "gpus",
        "gpu_seconds",
        "longest",
        "horizon",
        "configurations",
    }


# -- what a group pays for ----------------------------------------------------


def test_a_group_is_limited_in_sum(session: Session, quotas: Quotas) -> None:
    quotas.set("group", "lab", gpus=4, gpu_seconds=8 * HOUR, period=WEEK)
    lab = Ledger(session, NOW).group("lab").id
    reserved(session, 0, 2, 3, "bob's", user="bob", account_id=lab)
    reserved(session, 0, 2, 3, "ann's own", user="ann")
    assert refused(session, 0, 2, 8) == []
    assert refused(session, 0, 2, 1, group="lab") == []
    assert [str(each).split(",")[0] for each in refused(session, 0, 2, 2, group="lab")] == [
        "gpus: at most 4 GPUs at once for group lab",
        "gpu_seconds: at most 8 GPU-hours in 168 h for group lab",
    ]


def test_who_spends_from_a_group_is_limited_too(session: Session, quotas: Quotas) -> None:
    quotas.set("group", "lab", gpus=4)
    quotas.set("member", "lab", gpus=1)
    refusals = refused(session, 0, 2, 2, groups=("lab",), group="lab")
    assert [(each.limit, each.value) for each in refusals] == [("gpus", 1)]


def test_usage_shows_every_limit_in_force(session: Session, quotas: Quotas) -> None:
    quotas.set("everyone", "", gpus=4, longest=HOUR)
    quotas.set("group", "lab", gpus=8)
    lab = Ledger(session, NOW).group("lab").id
    reserved(session, -1, 1, 3, user="ann", account_id=lab)
    reserved(session, -1, 1, 2, "r2", user="bob", account_id=lab)
    reserved(session, 1, 2, 1, "later")
    found = quotas.usage("ann", ["lab"], NOW, Payer("group", "lab"), lab)
    assert [(each.whose, each.limit, each.value, each.used, each.left) for each in found] == [
        ("ann", "gpus", 4, 3, 1),
        ("ann", "longest", HOUR, None, None),
        ("group lab", "gpus", 8, 5, 3),
    ]


# -- changing them ------------------------------------------------------------


def test_who_was_slower_is_told(quotas: Quotas) -> None:
    quotas.set("user", "ann", gpus=1)
    with pytest.raises(Stale):
        quotas.set("user", "ann", gpus=2)
    row = quotas.set("user", "ann", version=1, longest=60)
    assert (row.version, row.gpus, row.longest) == (2, None, 60)
    with pytest.raises(Stale):
        quotas.remove("user", "ann", 1)
    quotas.remove("user", "ann", 2)
    assert quotas.all() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "users"},
        {"name": ""},
        {"kind": "everyone"},
        {"gpus": -1},
        {"gpu_seconds": 5},
        {"period": 5},
        {"gpu_seconds": 5, "period": 0},
        {"horizon": -1},
    ],
    ids=str,
)
def test_quotas_that_make_no_sense_are_refused(quotas: Quotas, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        quotas.set(**{"kind": "user", "name": "ann"} | wrong)


SPAN = st.tuples(st.integers(0, 20), st.integers(1, 10), st.integers(1, 5))


@given(st.lists(SPAN, max_size=8), st.integers(0, 20), st.integers(1, 15))
def test_the_highest_is_the_highest(
    spans: list[tuple[int, int, int]], start: int, length: int
) -> None:
    listed = [Span(begin, begin + lasts, units) for begin, lasts, units in spans]
    end = start + length
    busy = {
        at: sum(each.units for each in listed if each.start <= at < each.end)
        for at in range(start, end)
    }
    found = highest(listed, start, end)
    assert found.units == max(busy.values())
    first = min(at for at, units in busy.items() if units == found.units)
    last = next((at for at in range(first, end) if busy[at] != found.units), end)
    assert (found.start, found.end) == (first, last)


def test_hours_are_short() -> None:
    assert [hours(each) for each in (0, 1800, 3600, 36000, 4000)] == ["0", "0.5", "1", "10", "1.11"]
