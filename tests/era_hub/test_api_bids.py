"""The REST API: repeated calls, versions, extensions, accounts and pages."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import httpx
import pytest

from era_hub import models
from era_hub.client import EraClient, EraError
from era_hub.store.database import Database
from era_hub.store.ledger import Ledger
from tests.era_hub.test_api import MILLION, ask, job, notebook
from tests.running_hub import RunningHub


@pytest.fixture(scope="module")
def owner(hub: RunningHub) -> EraClient:
    return hub.client("ann")


@pytest.fixture(scope="module")
def lab(hub: RunningHub, owner: EraClient) -> str:
    """The account of a group that ann is in and anna is not, with credits."""
    database = Database(f"sqlite:///{hub.folder / 'era.sqlite'}")
    with database.session.begin() as session:
        ledger = Ledger(session, 1)
        ledger.grant(ledger.group("lab"), 50 * MILLION, "for the lab")
    database.close()
    return "group:lab"


def send(client: EraClient, method: str, path: str, body: Any = None, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client._http.request(method, path, json=body, headers=named)


def bid(request: Any) -> dict[str, Any]:
    found: dict[str, Any] = request.model_dump(mode="json", exclude_none=True)
    return found


# -- repeated calls -----------------------------------------------------------


@pytest.mark.parametrize("value", [50 * MILLION, 0], ids=["accepted", "declined"])
@pytest.mark.parametrize("path", ["reservations", "jobs"])
def test_a_repeated_bid_gets_the_first_answer(owner: EraClient, path: str, value: int) -> None:
    body = bid((notebook if path == "reservations" else job)(value=value))
    key = uuid4().hex
    first = send(owner, "POST", path, body, Idempotency_Key=key)
    assert first.status_code == 200
    assert first.json()["accepted"] == (value > 0)
    before = owner.account()
    made = first.json()["reservation"]
    if made is not None:
        owner.give_back(made["id"])
        before = owner.account()
    # The same in other words, such as with the fields in another order.
    again = send(owner, "POST", path, dict(reversed(body.items())), Idempotency_Key=key)
    assert again.json() == first.json()
    assert owner.account() == before


def test_the_same_key_with_another_body_is_a_problem(owner: EraClient) -> None:
    key, wanted = uuid4().hex, notebook()
    made = owner.reserve(wanted, idempotency_key=key).reservation
    with pytest.raises(EraError, match="used for another request") as refused:
        owner.reserve(wanted.model_copy(update={"value": 1}), idempotency_key=key)
    assert refused.value.status == 422
    with pytest.raises(EraError, match="used for another request"):
        owner.submit(job(), idempotency_key=key)
    owner.give_back(made.id)


def test_keys_are_each_callers_own(hub: RunningHub, owner: EraClient) -> None:
    key = uuid4().hex
    mine = owner.reserve(notebook(), idempotency_key=key).reservation
    other = hub.client("anna")
    theirs = other.reserve(notebook(), idempotency_key=key).reservation
    assert (mine.user, theirs.user) == ("ann", "anna")
    owner.give_back(mine.id)
    other.give_back(theirs.id)


def test_a_refused_bid_may_be_sent_again_with_the_same_key(owner: EraClient) -> None:
    key, wanted = uuid4().hex, notebook(deadline=None)
    first = owner.reserve(wanted).reservation
    with pytest.raises(EraError, match="hold a reservation for this server"):
        owner.reserve(wanted, idempotency_key=key)
    owner.give_back(first.id)
    second = owner.reserve(wanted, idempotency_key=key)
    assert second.accepted
    owner.give_back(second.reservation.id)


def test_giving_back_and_extending_take_keys_too(owner: EraClient) -> None:
    made = owner.reserve(notebook()).reservation
    key, more = uuid4().hex, {"duration": 600, "value": 50 * MILLION}
    path = f"reservations/{made.id}"
    first = send(owner, "POST", f"{path}/extend", more, Idempotency_Key=key)
    assert first.json()["accepted"]
    assert send(owner, "POST", f"{path}/extend", more, Idempotency_Key=key).json() == first.json()
    longer = owner.reservation(made.id)
    assert longer.price == made.price + first.json()["price"]
    key = uuid4().hex
    # A version that no longer is right by the time the call is repeated.
    tag = f'"{longer.version}"'
    gone = send(owner, "DELETE", path, Idempotency_Key=key, If_Match=tag)
    assert gone.json()["state"] == "cancelled"
    again = send(owner, "DELETE", path, Idempotency_Key=key, If_Match=tag)
    assert (again.status_code, again.json()) == (200, gone.json())


# -- versions -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["reservations", "jobs"])
def test_a_stale_change_is_refused(owner: EraClient, kind: str) -> None:
    made = (
        owner.reserve(notebook()) if kind == "reservations" else owner.submit(job())
    ).reservation
    path = f"{kind}/{made.id}"
    seen = ask(owner, "GET", path)
    tag = seen.headers["ETag"]
    assert send(owner, "GET", path, If_None_Match=tag).status_code == 304
    assert owner.extend(made.id, models.ExtensionRequest(duration=600, value=50 * MILLION)).accepted
    now = ask(owner, "GET", path)
    assert now.headers["ETag"] != tag
    for stale in (tag, f'"{made.version}"', '"nonsense"', "W/" + now.headers["ETag"]):
        refused = send(owner, "DELETE", path, If_Match=stale)
        assert refused.status_code == 412, stale
        assert "look again" in refused.json()["detail"]
    more = {"duration": 600, "value": 50 * MILLION}
    extend = f"reservations/{made.id}/extend"
    assert send(owner, "POST", extend, more, If_Match=tag).status_code == 412
    both = f"{tag}, {now.headers['ETag']}"
    ended = send(owner, "DELETE", path, If_Match=both)
    assert ended.status_code == 200
    assert send(owner, "DELETE", path, If_Match="*").status_code == 200


def test_the_client_names_versions(owner: EraClient) -> None:
    made = owner.reserve(notebook()).reservation
    more = models.ExtensionRequest(duration=600, value=50 * MILLION)
    longer = owner.extend(made.id, more, version=made.version).reservation
    assert longer.version > made.version
    for call in (owner.extend, owner.give_back):
        arguments = (made.id, more) if call == owner.extend else (made.id,)
        with pytest.raises(EraError) as refused:
            call(*arguments, version=made.version)
        assert refused.value.status == 412
    assert owner.give_back(made.id, version=longer.version).state is models.State.CANCELLED


# -- extensions ---------------------------------------------------------------


def test_an_extension_costs_what_was_quoted(owner: EraClient) -> None:
    made = owner.reserve(notebook()).reservation
    before = owner.account()
    quote = owner.quote_extension(made.id, models.ExtensionQuoteRequest(duration="15m"))
    assert quote.feasible
    outcome = owner.extend(made.id, models.ExtensionRequest(duration="15m", value=50 * MILLION))
    assert (outcome.accepted, outcome.price) == (True, quote.price)
    assert outcome.reservation.end == quote.end
    after = owner.account()
    assert after.balance == before.balance - quote.price
    assert after.held == before.held + quote.price
    assert (after.entries[0].kind, after.entries[0].part) == ("hold", 1)
    dear = owner.extend(made.id, models.ExtensionRequest(duration="15m", value=0))
    assert (dear.accepted, dear.reservation) == (False, None)
    assert "more than the most you would pay" in dear.reason
    assert owner.give_back(made.id).refunded == outcome.reservation.price


def test_a_job_is_extended_as_its_reservation_is(owner: EraClient) -> None:
    made = owner.submit(job()).job
    outcome = owner.extend(made.id, models.ExtensionRequest(duration=600, value=50 * MILLION))
    assert outcome.job.reservation == outcome.reservation == owner.reservation(made.id)
    owner.cancel_job(made.id)
    with pytest.raises(EraError, match="has ended") as refused:
        owner.extend(made.id, models.ExtensionRequest(duration=600, value=50 * MILLION))
    assert refused.value.status == 409


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"value": 1}, "duration"),
        ({"duration": 600}, "value"),
        ({"duration": 600, "value": -1}, "value"),
        ({"duration": 600, "value": 1, "colour": "red"}, "colour"),
    ],
)
def test_an_extension_must_make_sense(owner: EraClient, body: Any, word: str) -> None:
    made = owner.reserve(notebook()).reservation
    answer = ask(owner, "POST", f"reservations/{made.id}/extend", body)
    assert answer.status_code == 422
    assert word in answer.json()["detail"]
    owner.give_back(made.id)


# -- who pays -----------------------------------------------------------------


def test_a_member_pays_from_the_account_of_the_group(owner: EraClient, lab: str) -> None:
    own, group = owner.accounts()
    assert (own.account, own.default) == ("own", True)
    assert own.balance == owner.account().balance
    assert (group.account, group.default) == (lab, False)
    made = owner.reserve(notebook(account=lab)).reservation
    assert made.account == owner.reservation(made.id).account == lab
    now = owner.accounts()
    assert now[0] == own
    assert now[1].balance == group.balance - made.price
    assert now[1].held == group.held + made.price
    owner.give_back(made.id)
    assert owner.accounts()[1] == group


def test_the_spawner_may_pay_from_the_accounts_of_its_user(hub: RunningHub, lab: str) -> None:
    service = hub.spawner()
    assert [each.account for each in service.accounts("ann")] == ["own", lab]
    assert [each.account for each in service.accounts("anna")] == ["own"]
    made = service.reserve(notebook(account=lab, user="ann")).reservation
    assert (made.user, made.account) == ("ann", lab)
    service.give_back(made.id)
    with pytest.raises(EraError, match="group:lab") as refused:
        service.reserve(notebook(account=lab, user="anna"))
    assert refused.value.status == 403


def test_nobody_else_pays_from_it(hub: RunningHub, lab: str) -> None:
    other = hub.client("anna")
    assert [each.account for each in other.accounts()] == ["own"]
    for send_bid in (
        lambda: other.reserve(notebook(account=lab)),
        lambda: other.submit(job(account=lab)),
    ):
        with pytest.raises(EraError, match="anna may not pay from 'group:lab'") as refused:
            send_bid()
        assert refused.value.status == 403


@pytest.mark.parametrize("account", ["", "lab", "group:", "OWN", "group:a\0b"])
def test_an_account_that_is_none(owner: EraClient, account: str) -> None:
    answer = ask(owner, "POST", "reservations", bid(notebook()) | {"account": account})
    assert answer.status_code == 422
    assert "account" in answer.json()["detail"] or "NUL" in answer.json()["detail"]


# -- pages --------------------------------------------------------------------


def pages(client: EraClient, path: str) -> list[httpx.Response]:
    found = [ask(client, "GET", path)]
    while "Link" in found[-1].headers:
        match = re.fullmatch(r'<(\?[^>]*)>; rel="next"', found[-1].headers["Link"])
        assert match
        found.append(ask(client, "GET", path.partition("?")[0] + match[1]))
    return found


@pytest.mark.parametrize("kind", ["reservations", "jobs"])
def test_a_long_list_comes_in_pages(hub: RunningHub, kind: str) -> None:
    client = hub.client("bob")
    made = []
    for _ in range(5):
        outcome = client.reserve(notebook()) if kind == "reservations" else client.submit(job())
        made.append(outcome.reservation.id)
    query = f"{kind}?current=true&state=accepted&configuration=gpu-1&limit=2"
    if kind == "reservations":
        query += "&kind=notebook"
    found = pages(client, query)
    assert [len(each.json()) for each in found] == [2, 2, 1]
    ids = [each["id"] for answer in found for each in answer.json()]
    assert sorted(ids) == sorted(made)
    assert pages(client, f"{kind}?configuration=gpu-7")[0].json() == []
    for each in made:
        client.give_back(each)


def test_lists_are_narrowed_by_time(hub: RunningHub) -> None:
    client = hub.client("bob")
    made = client.reserve(notebook()).reservation
    during = client.reservations(since=made.start, until=made.end, state=models.State.ACCEPTED)
    assert during == [made]
    assert client.reservations(current=True, since=made.end) == []
    assert client.reservations(current=True, until=made.start) == []
    client.give_back(made.id)
    assert client.reservations(state=models.State.ACCEPTED) == []


@pytest.mark.parametrize("cursor", ["x", "%00", "MTIz", "OmE", "LTE6YQ", "é"])
def test_a_cursor_that_is_none(owner: EraClient, cursor: str) -> None:
    for kind in ("reservations", "jobs"):
        answer = ask(owner, "GET", f"{kind}?cursor={cursor}")
        assert answer.status_code in (400, 422)
