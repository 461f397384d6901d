"""The market: who pays for a bid, what quotas leave, and repeated calls."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from era_hub import models
from era_hub.changes import Change, Changes
from era_hub.market import Call, Forbidden, Market, MarketError
from era_hub.models import State
from era_hub.store.books import prove
from era_hub.store.ledger import Ledger
from era_hub.store.policies import Policies
from era_hub.store.quotas import Quotas
from era_hub.store.tables import Reservation
from era_hub.views import when
from tests.era_hub.small_market import (
    DAWN,
    HOUR,
    Clock,
    balances,
    count,
    job,
    notebook,
    open_market,
)

GRANT = 100_000_000


def give_group(market: Market, name: str, credits: int) -> None:
    with market.transaction() as session:
        ledger = Ledger(session, market.clock())
        ledger.grant(ledger.group(name), credits, "for the lab")


def quota(market: Market, kind: str, name: str = "", **limits: Any) -> None:
    with market.transaction() as session:
        Quotas(session).set(kind, name, **limits)


def policy(market: Market, kind: str, name: str, pays: str, rank: int | None = None) -> None:
    with market.transaction() as session:
        Policies(session).set(kind, name, pays, rank)


def reserve(
    market: Market, request: Any, user: str = "ann", groups: Collection[str] = ()
) -> models.Reservation:
    verdict = market.reserve(user, request, groups)
    assert verdict.accepted, verdict.reason
    assert verdict.reservation is not None
    return verdict.reservation


def declined(market: Market, request: Any, user: str = "ann", groups: Collection[str] = ()) -> str:
    before = balances(market.database)
    verdict = market.reserve(user, request, groups)
    assert not verdict.accepted
    assert verdict.reservation is None
    assert verdict.reason
    after = balances(market.database)
    assert {name: after[name] for name in before if name != "bank"} == {
        name: total for name, total in before.items() if name != "bank"
    }
    return verdict.reason


def books_are_right(market: Market) -> None:
    with market.database.reader.begin() as session:
        assert prove(session) == []


# -- who pays -----------------------------------------------------------------


def test_a_group_pays_where_the_bid_says_so_and_gets_its_refund(market: Market) -> None:
    give_group(market, "lab", 50_000_000)
    later = {"arrival": DAWN + HOUR, "deadline": DAWN + 2 * HOUR}
    made = reserve(market, notebook(account="group:lab", **later), groups=["lab", "other"])
    assert made.account == market.reservation(made.id).account == "group:lab"
    assert [each.account for each in market.reservations()] == ["group:lab"]
    now = balances(market.database)
    assert now["lab"] == 50_000_000 - made.price
    assert "ann" not in now or now["ann"] == GRANT
    market.give_back(made.id)
    assert balances(market.database)["lab"] == 50_000_000
    books_are_right(market)


def test_nobody_pays_from_a_group_they_are_not_in(market: Market) -> None:
    give_group(market, "lab", 50_000_000)
    for groups in ([], ["la"], ["labs"]):
        with pytest.raises(Forbidden, match="group:lab"):
            market.reserve("ann", notebook(account="group:lab"), groups)
    assert count(market.database, Reservation) == 0


def test_a_group_without_credits_can_not_pay(market: Market) -> None:
    reason = declined(market, notebook(account="group:lab"), groups=["lab"])
    assert "only 0.00 are free on the account of group:lab" in reason


def test_policy_decides_where_the_bid_does_not_say(market: Market) -> None:
    for name in ("lab", "class"):
        give_group(market, name, 50_000_000)
    policy(market, "group", "class", "group:class", rank=2)
    policy(market, "group", "lab", "group:lab", rank=1)
    groups = ["class", "lab"]
    assert reserve(market, job(), groups=groups).account == "group:lab"
    assert reserve(market, job(), groups=["class"]).account == "group:class"
    assert reserve(market, job(account="own"), groups=groups).account == "own"
    assert reserve(market, job()).account == "own"
    policy(market, "user", "ann", "own")
    assert reserve(market, job(), groups=groups).account == "own"
    books_are_right(market)


def test_the_accounts_a_user_may_choose_from(market: Market) -> None:
    give_group(market, "lab", 50_000_000)
    policy(market, "group", "lab", "group:lab", rank=1)
    made = reserve(market, job(), groups=["lab"])
    own, lab = market.accounts("ann", ["lab", "empty"])
    assert (own.account, own.balance, own.held, own.default) == ("own", GRANT, 0, False)
    assert (lab.account, lab.balance, lab.held, lab.default) == (
        *("group:lab", 50_000_000 - made.price),
        *(made.price, True),
    )
    assert [each.account for each in market.accounts("bob")] == ["own"]


# -- quotas -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "request_", "words"),
    [
        ({"gpus": 2}, notebook(gpus=3), ["gpus", "at most 2", "2 are left"]),
        ({"longest": HOUR}, notebook(hours=2), ["longest", "at most 1"]),
        ({"configurations": ["cpu"]}, notebook(), ["configurations", "cpu", "gpu-1"]),
        (
            {"gpu_seconds": 2 * HOUR, "period": 24 * HOUR},
            notebook(gpus=3),
            ["gpu_seconds", "2 left"],
        ),
        ({"horizon": HOUR}, notebook(hours=2), ["horizon", "at most 1"]),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
@pytest.mark.parametrize("kind", ["everyone", "user", "member"])
def test_each_limit_is_named_with_its_value_and_what_is_left(
    market: Market, kind: str, limits: dict[str, Any], request_: Any, words: list[str]
) -> None:
    names = {"everyone": "", "user": "ann", "member": "lab"}
    quota(market, kind, names[kind], **limits)
    reason = declined(market, request_, groups=["lab"])
    for word in words:
        assert word in reason
    if kind != "everyone":
        reserve(market, request_, "bob")


def test_a_bid_takes_the_cheapest_start_that_the_quota_allows(market: Market) -> None:
    window = {"arrival": DAWN, "deadline": DAWN + 4 * HOUR}
    free = market.quote(notebook(**window))
    assert free.start is not None
    first = reserve(market, notebook(arrival=free.start, deadline=free.start + HOUR))
    quota(market, "everyone", gpus=1)
    second = reserve(market, notebook(server_name="b", **window))
    assert second.end <= first.start or second.start >= first.end
    assert (second.arrival, second.deadline) == (when(DAWN), when(DAWN + 4 * HOUR))
    quote = market.quote(notebook(**window))
    cheapest = quote.price
    assert cheapest is not None and cheapest <= second.price


def test_a_quota_leaves_no_start_that_is_too_dear(market: Market) -> None:
    reserve(market, notebook(hours=4))
    quota(market, "everyone", gpus=1)
    later = {"arrival": DAWN, "deadline": DAWN + 5 * HOUR}
    assert "gpus" in declined(market, notebook(server_name="b", value="0.01", **later))
    assert reserve(market, notebook(server_name="b", **later)).start == when(DAWN + 4 * HOUR)


def test_a_group_quota_limits_its_members_in_sum(market: Market) -> None:
    give_group(market, "lab", 50_000_000)
    quota(market, "group", "lab", gpus=3)
    bid = {"account": "group:lab"}
    reserve(market, notebook(gpus=2, **bid), "ann", ["lab"])
    assert "group lab" in declined(market, notebook(gpus=2, **bid), "bob", ["lab"])
    reserve(market, notebook(gpus=1, **bid), "bob", ["lab"])
    reserve(market, notebook(gpus=2, account="own"), "carl", ["lab"])


def test_what_a_quota_refuses_is_no_demand(market: Market) -> None:
    before = market.quote(notebook()).price
    quota(market, "everyone", gpus=1)
    declined(market, notebook(gpus=8, value="1000"))
    assert market.quote(notebook()).price == before


# -- repeated calls -----------------------------------------------------------


def outcome(market: Market, user: str, request: Any) -> models.Outcome:
    verdict = market.reserve(user, request)
    return models.Outcome(
        accepted=verdict.accepted,
        price=verdict.price,
        reason=verdict.reason,
        reservation=verdict.reservation,
    )


ANSWER = TypeAdapter(models.Outcome)


@pytest.mark.parametrize(
    "request_",
    [notebook(), job(), notebook(value="0")],
    ids=["notebook", "job", "declined"],
)
def test_a_repeated_call_gets_its_first_answer(market: Market, clock: Clock, request_: Any) -> None:
    call = Call("user:ann", "key", "a request")
    first = market.once(call, ANSWER, outcome, market, "ann", request_)
    books = balances(market.database)
    if first.reservation is not None:
        market.give_back(first.reservation.id)
        books = balances(market.database)
    clock.now += 60
    again = market.once(call, ANSWER, outcome, market, "ann", request_)
    assert again == first
    assert balances(market.database) == books
    assert count(market.database, Reservation) == (first.reservation is not None)


def test_a_repeated_call_survives_a_restart(tmp_path: Path, clock: Clock) -> None:
    call = Call("user:ann", "key", "a request")
    market = open_market(tmp_path, clock)
    first = market.once(call, ANSWER, outcome, market, "ann", notebook())
    market.database.close()
    again = open_market(tmp_path, clock)
    assert again.once(call, ANSWER, outcome, again, "ann", notebook()) == first
    assert count(again.database, Reservation) == 1
    again.database.close()


def test_the_same_key_for_another_request_is_refused(market: Market) -> None:
    market.once(Call("user:ann", "key", "one"), ANSWER, outcome, market, "ann", job())
    with pytest.raises(MarketError, match="used for another request"):
        market.once(Call("user:ann", "key", "two"), ANSWER, outcome, market, "ann", job())
    market.once(Call("user:bob", "key", "two"), ANSWER, outcome, market, "bob", job())
    market.once(Call("user:ann", "other", "two"), ANSWER, outcome, market, "ann", job())
    assert count(market.database, Reservation) == 3


def test_a_call_that_failed_may_succeed_when_repeated(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Call("user:ann", "key", "a request")
    plan = market.era.promised(DAWN, 12).tolist()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "hold", fail)
        with pytest.raises(OSError, match="disk full"):
            market.once(call, ANSWER, outcome, market, "ann", notebook())
    assert market.era.promised(DAWN, 12).tolist() == plan
    assert market.once(call, ANSWER, outcome, market, "ann", notebook()).accepted


# -- what is told -------------------------------------------------------------


class Heard(Changes):
    """Remembers what it was told, and what of it was stored by then."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Change] = []

    def publish(self, *changes: Change) -> None:
        self.heard += changes


def test_changes_are_told_when_they_are_committed(market: Market) -> None:
    market.pass_time()  # what is worked out for a slot is told as well
    market.changes = heard = Heard()
    made = reserve(market, job())
    mine = [Change("reservation", "ann", made.id), Change("job", "ann", made.id)]
    money = [Change("account", "ann"), Change("prices")]
    assert heard.heard == [*mine, *money]
    heard.heard.clear()
    assert not market.reserve("ann", notebook(value="0")).accepted
    market.reservations()
    market.claim(made.id)
    assert heard.heard == mine
    heard.heard.clear()
    with pytest.raises(RuntimeError), market.transaction():
        market.end(made.id, State.COMPLETED)
        raise RuntimeError("not stored after all")
    assert heard.heard == []
    assert market.reservation(made.id).state is State.ACTIVE
    market.give_back(made.id)
    assert set(money) <= set(heard.heard)
