"""The ledger in words, and what members of a group learn of each other."""

from __future__ import annotations

import httpx
import pytest

from era_hub import admin_models, models
from era_hub.answers import Forbidden
from era_hub.client import EraError
from era_hub.client.admin import AdminClient
from era_hub.cloud_models import FailedWorkload, Feedback
from era_hub.market import Market
from era_hub.store.ledger import Ledger
from tests.era_hub.small_market import HOUR, Clock, job, notebook
from tests.running_hub import RunningHub

MILLION = 1_000_000
LAB = ("lab",)
PAID_BY_LAB = {"account": "group:lab"}


@pytest.fixture
def lab(market: Market, clock: Clock) -> Market:
    """A market where a group has credits."""
    with market.database.session.begin() as session:
        ledger = Ledger(session, clock.now)
        ledger.grant(ledger.group("lab"), 500 * MILLION, "for the lab", actor="admin:grace")
    return market


def entries(market: Market, user: str, account: str = "own") -> list[models.LedgerEntry]:
    return market.statement(user, account=account, groups=LAB).entries


def test_a_life_in_words(market: Market, clock: Clock) -> None:
    made = market.reserve("ann", notebook(hours=2)).reservation
    assert made is not None
    held = entries(market, "ann")[0]
    assert held.text == "Reserved gpu-1 for 2 h; held until it ends"
    assert (held.reservation, held.start, held.end) == (made.id, made.start, made.end)
    assert held.amount == -made.price < 0
    market.extend(made.id, models.ExtensionRequest(duration=HOUR, value=50 * MILLION))
    assert entries(market, "ann")[0].text == "Extended gpu-1 by 1 h; held until it ends"
    clock.now += HOUR
    market.give_back(made.id)
    back, more, first, start = entries(market, "ann")
    assert back.text == "Released gpu-1 before its end: the time not used is refunded"
    assert back.amount > 0
    assert (more.text, first.text) == ("Extended gpu-1 by 1 h", "Reserved gpu-1 for 2 h")
    assert start.text == "Received: starting grant"


def test_a_job_and_what_never_began(market: Market, clock: Clock) -> None:
    later = clock.now + 2 * HOUR
    sent = market.reserve("ann", job(arrival=later, deadline=later + HOUR, name="sweep")).job
    assert sent is not None
    market.give_back(sent.id)
    back = entries(market, "ann")[0]
    assert back.text == "Cancelled gpu-1 for the job sweep before it began: its price is given back"


def test_what_lapses_and_who_gave_it(lab: Market, clock: Clock) -> None:
    with lab.database.session.begin() as session:
        ledger = Ledger(session, clock.now)
        ann = ledger.user("ann", 0)
        ledger.grant(ann, MILLION, "a prize", actor="admin:grace", expires=clock.now + HOUR)
    given = entries(lab, "ann")[0]
    assert given.text == "Received from an admin: a prize"
    assert given.expires is not None
    assert given.expires.timestamp() == clock.now + HOUR
    assert "grace" not in str(entries(lab, "ann", "group:lab"))


def test_members_do_not_learn_who_of_them_bid_what(lab: Market) -> None:
    """The value is sealed, and bob's name and reservation are his own business."""
    made = lab.reserve("bob", notebook(value="77.123456", **PAID_BY_LAB), LAB).reservation
    assert made is not None
    [held, given] = entries(lab, "ann", "group:lab")
    assert held.text == "Another member: reserved gpu-1 for 1 h; held until it ends"
    assert (held.amount, held.start) == (-made.price, made.start)
    assert given.text == "Received from an admin: for the lab"
    for secret in ("bob", made.id, "77.123456", "77123456"):
        assert secret not in held.model_dump_json()
    own = entries(lab, "bob", "group:lab")[0]
    assert (own.reservation, own.text) == (made.id, "Reserved gpu-1 for 1 h; held until it ends")
    assert "77123456" not in own.model_dump_json()


def test_a_broken_promise_says_why_to_its_owner_alone(lab: Market) -> None:
    made = lab.reserve("bob", notebook(**PAID_BY_LAB), LAB).reservation
    assert made is not None
    lab.update(Feedback(failed=[FailedWorkload(id=made.id, reason="node 7 burnt down")]))
    back = entries(lab, "bob", "group:lab")[0]
    assert (back.amount, back.kind) == (made.price, "refund")
    assert back.text == "Refunded as gpu-1 failed: the cluster could not run it: node 7 burnt down"
    assert entries(lab, "ann", "group:lab")[0].text == "Another member: refunded as gpu-1 failed"


def test_only_members_see_the_account_of_a_group(lab: Market) -> None:
    with pytest.raises(Forbidden, match="carl may not pay from 'group:lab'"):
        lab.statement("carl", account="group:lab", groups=("other",))


# -- over the API, in every role -----------------------------------------------------------


@pytest.fixture(scope="module")
def shared(hub: RunningHub) -> int:
    """Credits for the group of ann."""
    admin = AdminClient(f"{hub.url}services/era", hub.user_token("admin"))
    grant = admin_models.CreditsGrant(kind="group", name="lab", amount=50 * MILLION, memo="shared")
    admin.give(grant)
    return 50 * MILLION


def test_the_ledger_of_a_group_in_every_role(hub: RunningHub, shared: int) -> None:
    lab = hub.client("ann").account(account="group:lab")
    assert (lab.name, lab.entries[0].text) == ("lab", "Received from an admin: shared")
    assert lab.entries[0].amount == shared
    # The spawner and admins ask on behalf of somebody.
    for client in (hub.spawner(), hub.client("admin")):
        assert client.account("ann", "group:lab") == lab
        with pytest.raises(EraError, match="anna may not pay from 'group:lab'") as refused:
            client.account("anna", "group:lab")
        assert refused.value.status == 403
    other = hub.client("anna")
    for ask in (
        lambda: other.account(account="group:lab"),
        lambda: other.account("ann", "group:lab"),
        lambda: hub.client("admin").account(account="group:lab"),
    ):
        with pytest.raises(EraError) as refused:
            ask()
        assert refused.value.status == 403
    answer = httpx.get(f"{hub.url}services/era/api/v1/account?account=group:lab")
    assert answer.status_code == 401


@pytest.mark.parametrize("account", ["lab", "group:", "OWN"])
def test_an_account_that_is_none(hub: RunningHub, account: str) -> None:
    with pytest.raises(EraError, match="account") as refused:
        hub.client("ann").account(account=account)
    assert refused.value.status == 422
