"""The REST API of a real service behind a real hub: answers, refusals and roles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from era_hub import models
from era_hub.admin_models import CreditsWithdrawal
from era_hub.client import EraClient, EraError
from era_hub.client.admin import AdminClient
from tests.running_hub import RunningHub, until

MILLION = 1_000_000


@pytest.fixture(scope="module")
def people(hub: RunningHub) -> dict[str, EraClient]:
    """One caller of each role; ann is the owner of what the tests make."""
    return {
        "owner": hub.client("ann"),
        "other": hub.client("anna"),
        "admin": hub.client("admin"),
        "service": hub.spawner(),
    }


@pytest.fixture(scope="module")
def owner(people: dict[str, EraClient]) -> EraClient:
    return people["owner"]


def tomorrow(**later: float) -> datetime:
    """A time far enough ahead that nothing starts during the tests."""
    return datetime.now(UTC) + timedelta(hours=12) + timedelta(**later)


def notebook(**changes: Any) -> models.ReservationRequest:
    wanted = {
        "configuration": "gpu-1",
        "duration": 600,
        "arrival": tomorrow(),
        "deadline": tomorrow(hours=1),
        "value": 50 * MILLION,
        # A server of its own each: one server can't be reserved twice at a time.
        "server_name": uuid4().hex,
    }
    return models.ReservationRequest(**(wanted | changes))


def job(**changes: Any) -> models.JobRequest:
    return models.JobRequest(
        **(
            notebook().model_dump(exclude={"user", "server_name"})
            | {
                "script": "print('done')",
            }
            | changes
        )
    )


# -- roles ---------------------------------------------------------------------------


def ask(client: EraClient, method: str, path: str, body: Any = None) -> httpx.Response:
    """A request as it is, without the client's parsing."""
    return client._http.request(method, path, json=body)


JOB = {"configuration": "gpu-1", "duration": "10m", "value": 0, "script": "1"}
SERVER = {"configuration": "gpu-1", "duration": "10m", "value": 0}

LONGER = {"duration": "10m"}
MORE = LONGER | {"value": 0}

# What each role gets: owner, other user, admin, service.
ROLES = [
    ("GET", "market", None, (200, 200, 200, 200)),
    ("POST", "quotes", {"configuration": "gpu-1", "duration": 60}, (200, 200, 200, 200)),
    ("GET", "reservations", None, (200, 200, 200, 200)),
    ("GET", "reservations?user=ann", None, (200, 403, 200, 200)),
    ("POST", "reservations", SERVER, (200, 200, 200, 422)),
    ("POST", "reservations", SERVER | {"user": "ann"}, (200, 403, 403, 200)),
    ("GET", "reservations?everybody=true", None, (403, 403, 200, 200)),
    ("GET", "jobs?everybody=true", None, (403, 403, 200, 200)),
    ("GET", "reservations/{reservation}", None, (200, 404, 200, 200)),
    ("POST", "reservations/{reservation}/claim", None, (403, 403, 403, 409)),
    ("POST", "reservations/{reservation}/extend", MORE, (200, 404, 403, 200)),
    ("POST", "reservations/{reservation}/extend/quote", LONGER, (200, 404, 200, 200)),
    ("GET", "jobs", None, (200, 200, 200, 200)),
    ("GET", "jobs?user=ann", None, (200, 403, 200, 200)),
    ("POST", "jobs", JOB, (200, 200, 200, 403)),
    ("GET", "jobs/{job}", None, (200, 404, 200, 200)),
    ("GET", "jobs/{job}/log", None, (200, 404, 200, 200)),
    ("GET", "account", None, (200, 200, 200, 422)),
    ("GET", "account?user=ann", None, (200, 403, 200, 200)),
    ("GET", "accounts", None, (200, 200, 200, 422)),
    ("GET", "accounts?user=ann", None, (200, 403, 200, 200)),
    ("GET", "notices", None, (200, 200, 200, 200)),
    ("GET", "allocation", None, (403, 403, 200, 403)),  # see test_allocation
    ("POST", "allocation/update", {}, (403, 403, 200, 403)),
    ("GET", "user", None, (200, 200, 200, 200)),
    ("HEAD", "events", None, (200, 200, 200, 200)),
    ("GET", "metrics", None, (403, 403, 200, 200)),
    ("GET", "health", None, (200, 200, 200, 200)),
    ("GET", "version", None, (200, 200, 200, 200)),
    ("GET", "openapi.json", None, (200, 200, 200, 200)),
]
OPEN = {"health", "version", "openapi.json"}


@pytest.fixture(scope="module")
def things(owner: EraClient) -> dict[str, str]:
    return {
        "reservation": owner.reserve(notebook()).reservation.id,
        "job": owner.submit(job()).job.id,
    }


@pytest.mark.parametrize(("method", "path", "body", "expected"), ROLES)
def test_each_endpoint_in_each_role(
    hub: RunningHub,
    people: dict[str, EraClient],
    things: dict[str, str],
    method: str,
    path: str,
    body: Any,
    expected: tuple[int, ...],
) -> None:
    path = path.format(**things)
    answers = tuple(ask(client, method, path, body).status_code for client in people.values())
    assert answers == expected
    stranger = httpx.request(method, f"{hub.url}services/era/api/v1/{path}", json=body)
    assert stranger.status_code == (200 if path in OPEN else 401)


def test_all_endpoints_are_tested_in_each_role() -> None:
    from era_hub.api import ROUTES

    documented = {
        (method.upper(), route)
        for route, handler in ROUTES
        for method in ("get", "post")
        if hasattr(getattr(handler, method), "endpoint")
        and not route.startswith("admin/")  # see test_admin
    }
    # A stream of events does not end; its HEAD answers as its GET begins.
    tested = {
        (
            method.replace("HEAD", "GET"),
            path.split("?")[0].replace("{reservation}", "{id}").replace("{job}", "{id}"),
        )
        for method, path, _, _ in ROLES
    }
    assert tested == documented


@pytest.mark.parametrize("kind", ["reservations", "jobs"])
def test_only_the_owner_admins_and_services_may_give_back(
    people: dict[str, EraClient], owner: EraClient, kind: str
) -> None:
    make = (
        (lambda: owner.reserve(notebook()))
        if kind == "reservations"
        else (lambda: owner.submit(job()))
    )
    for role, expected in (("owner", 200), ("other", 404), ("admin", 200), ("service", 200)):
        made = make().reservation.id
        answer = ask(people[role], "DELETE", f"{kind}/{made}")
        assert answer.status_code == expected, role
        state = owner.reservation(made).state
        assert state is (models.State.CANCELLED if expected == 200 else models.State.ACCEPTED)
        owner.give_back(made)


def test_a_token_without_our_scope_may_not_bid(hub: RunningHub) -> None:
    limited = hub.client("ann", ["access:services!service=era"])
    answer = ask(limited, "GET", "account")
    assert answer.status_code == 403
    assert "custom:era:bid" in answer.json()["detail"]


def test_a_token_without_access_to_the_service_is_refused(hub: RunningHub) -> None:
    answer = ask(hub.client("ann", ["custom:era:bid"]), "GET", "account")
    assert answer.status_code == 403


def test_a_declined_bid_is_shown_to_nobody(people: dict[str, EraClient], owner: EraClient) -> None:
    begin = tomorrow()
    outcome = owner.reserve(
        notebook(
            configuration="gpu-8",
            duration="3h",
            arrival=begin,
            deadline=begin + timedelta(hours=4),
            value=12_345_671,
        )
    )
    assert not outcome.accepted
    for client in people.values():
        for path in ("market", "reservations?user=ann", "jobs", "account", "allocation"):
            assert "12345671" not in ask(client, "GET", path).text


def test_bids_are_sealed(people: dict[str, EraClient], owner: EraClient) -> None:
    made = owner.reserve(notebook()).reservation
    try:
        assert owner.reservation(made.id).value == 50 * MILLION
        for role in ("admin", "service"):
            assert people[role].reservation(made.id).value is None
            assert all(each.value is None for each in people[role].reservations(user="ann"))
    finally:
        owner.give_back(made.id)


# -- answers --------------------------------------------------------------------------


def test_the_quote_is_the_price(owner: EraClient) -> None:
    wanted = notebook(configuration="gpu-3")
    quote = owner.quote(
        models.QuoteRequest(
            **wanted.model_dump(exclude={"value", "user", "server_name", "account"})
        )
    )
    before = owner.account()
    outcome = owner.reserve(wanted)
    assert outcome.accepted
    assert outcome.price == quote.best.price == min(start.price for start in quote.starts)
    assert outcome.reservation.start == quote.best.start
    after = owner.account()
    assert after.balance == before.balance - outcome.price
    assert after.held == before.held + outcome.price
    assert owner.give_back(outcome.reservation.id).refunded == outcome.price
    assert owner.account().balance == before.balance


def test_a_declined_bid_is_an_answer(owner: EraClient) -> None:
    outcome = owner.reserve(notebook(value=1))
    assert not outcome.accepted
    assert outcome.price > 1
    assert "more than the most you would pay" in outcome.reason
    assert outcome.reservation is None


def test_more_than_the_account_holds_is_declined(hub: RunningHub) -> None:
    poor = hub.client("poor")
    assert poor.account().balance == 100 * MILLION
    with AdminClient(f"{hub.url}services/era", hub.user_token("admin")) as admin:
        admin.withdraw(CreditsWithdrawal(kind="user", name="poor", amount=99 * MILLION))
    outcome = poor.reserve(
        notebook(
            configuration="gpu-8", duration="10h", deadline=tomorrow(hours=11), value=900 * MILLION
        )
    )
    assert not outcome.accepted
    assert "free on your account" in outcome.reason


def test_the_same_key_gives_the_same_reservation(owner: EraClient) -> None:
    before = owner.account().balance
    wanted = notebook()
    first, second = (owner.reserve(wanted, idempotency_key="once") for _ in range(2))
    assert first.reservation.id == second.reservation.id
    assert owner.account().balance == before - first.price
    owner.give_back(first.reservation.id)


def test_one_server_is_not_reserved_twice(owner: EraClient) -> None:
    wanted = notebook(deadline=None)  # at that time or not at all
    first = owner.reserve(wanted).reservation
    before = owner.account()
    with pytest.raises(EraError, match="hold a reservation for this server already") as refused:
        owner.reserve(wanted)
    assert refused.value.status == 409
    assert owner.account() == before
    other_time = {"arrival": first.end, "deadline": first.end + timedelta(hours=1)}
    second = owner.reserve(wanted.model_copy(update=other_time))
    assert second.accepted
    owner.give_back(first.id)
    owner.give_back(second.reservation.id)


def test_two_users_want_five_of_eight_gpus_in_the_same_hour(
    hub: RunningHub, owner: EraClient
) -> None:
    """One gets the hour, the other a later one; capacity is never exceeded."""
    bob = hub.client("bob")
    begin = tomorrow(hours=3).replace(minute=0, second=0, microsecond=0)
    hour = {
        "configuration": "gpu-5",
        "duration": "1h",
        "arrival": begin,
        "deadline": begin + timedelta(hours=1),
    }
    first = owner.reserve(notebook(**hour))
    assert first.reservation.start == begin
    same_hour = bob.reserve(notebook(**hour))
    assert not same_hour.accepted
    assert same_hour.alternative is not None
    assert (
        same_hour.alternative.start >= first.reservation.end
        or same_hour.alternative.end <= first.reservation.start
    )
    flexible = bob.reserve(notebook(**(hour | {"deadline": begin + timedelta(hours=2)})))
    assert flexible.reservation.start == first.reservation.end
    market = owner.market(hours=20)
    assert max(market.promised) >= 5
    assert all(
        taken <= there for taken, there in zip(market.promised, market.capacity, strict=True)
    )
    for client, outcome in ((owner, first), (bob, flexible)):
        client.give_back(outcome.reservation.id)


def test_the_market_says_what_is_for_sale(owner: EraClient) -> None:
    market = owner.market(hours=2)
    assert market.simulated
    assert [each.name for each in market.configurations][:3] == ["cpu", "gpu-1", "gpu-2"]
    assert len(market.capacity) == 2 * 3600 // market.slot
    cpu, one, two = market.configurations[:3]
    # What costs nothing has no price to expect.
    assert cpu.forecast is None
    assert set(cpu.prices) == {0}
    assert one.price_per_hour > 0
    assert two.prices[-1] > one.prices[-1]


def test_the_market_says_what_to_expect_later(owner: EraClient) -> None:
    market = owner.market(hours=20)
    for each in market.configurations[1:]:
        band = each.forecast
        assert band is not None
        rows = zip(each.prices, band.low, band.expected, band.high, strict=True)
        uncertain = 0
        for price, low, expected, high in rows:
            assert (price is None) == (low is None) == (expected is None) == (high is None)
            if None not in (low, expected, high):
                assert 0 < low <= expected <= high
                uncertain += low < high
        assert uncertain > 0


def send(client: EraClient, path: str, body: str | bytes) -> httpx.Response:
    """A body as it is, right or wrong, said to be JSON."""
    return client._http.post(path, content=body, headers={"Content-Type": "application/json"})


# -- bad input ----------------------------------------------------------------------------

BAD = [
    ({"duration": -3600}, "duration"),
    ({"duration": "-1h"}, "duration"),
    ({"duration": "soon"}, "duration"),
    ({"deadline": "2020-01-01T00:00:00Z", "arrival": None}, "has passed"),
    (
        {"arrival": "2050-01-01T12:00:00Z", "deadline": "2050-01-01T11:00:00Z"},
        "deadline must be later",
    ),
    ({"arrival": "2050-01-01T12:00:00Z", "deadline": "2050-01-02T12:00:00Z"}, "sold until"),
    ({"arrival": "2050-01-01T12:00:00Z"}, "sold until"),
    ({"duration": "400d"}, "sold until"),
    ({"configuration": "gpu-1", "count": 9}, "9"),
    ({"configuration": "gpu-9"}, "gpu-9"),
    ({"value": -1}, "value"),
    ({"value": 0.5}, "value"),
    ({"value": 10**30}, "value"),
    ({"deadline": "2050-01-01T12:00:00"}, "timezone"),
    ({"colour": "red"}, "colour"),
]


@pytest.mark.parametrize(("changes", "word"), BAD)
@pytest.mark.parametrize("path", ["reservations", "jobs"])
def test_bad_input_is_explained_and_nothing_is_stored(
    owner: EraClient, path: str, changes: dict[str, Any], word: str
) -> None:
    body = {"configuration": "gpu-1", "duration": "1h", "value": MILLION, **changes}
    if path == "jobs":
        body["script"] = "1"
    before = (owner.reservations(), owner.account())
    answer = ask(owner, "POST", path, body)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert word in answer.json()["detail"]
    assert (owner.reservations(), owner.account()) == before


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_no_numbers_that_are_none(owner: EraClient, value: str) -> None:
    body = f'{{"configuration": "gpu-1", "duration": 60, "value": {value}}}'
    answer = send(owner, "reservations", body)
    assert answer.status_code == 422
    assert "value" in answer.json()["detail"]


@pytest.mark.parametrize("body", ["", "[]", "null", "{", '"text"', "\x00"])
def test_bodies_that_are_no_objects(owner: EraClient, body: str) -> None:
    assert send(owner, "reservations", body).status_code == 422


def test_a_body_that_is_too_large(owner: EraClient) -> None:
    answer = owner._http.post("jobs", content=b'{"script": "' + b"0" * (5 << 20) + b'"}')
    assert answer.status_code == 413
    assert "more than 4,194,304" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["reservations/nonsense", "jobs/nonsense", "jobs/nonsense/log", "nonsense"]
)
def test_what_is_not_there(owner: EraClient, path: str) -> None:
    answer = ask(owner, "GET", path)
    assert answer.status_code == 404
    assert answer.json()["status"] == 404


def test_a_query_that_makes_no_sense(owner: EraClient) -> None:
    for path in ("market?hours=-1", "market?hours=nan", "jobs?limit=0", "reservations?kind=x"):
        assert ask(owner, "GET", path).status_code == 422, path


def test_a_wrong_token_is_refused(hub: RunningHub) -> None:
    with pytest.raises(EraError) as refused:
        hub.client_with("0" * 32).account()
    assert refused.value.status == 401


def test_a_token_in_the_url_does_not_count(hub: RunningHub) -> None:
    token = hub.user_token("ann")
    answer = httpx.get(f"{hub.url}services/era/api/v1/account", params={"token": token})
    assert answer.status_code == 401
    # The proxy writes URLs as they come; the service must not.
    lines = [line for line in hub.log().splitlines() if "tornado.access" not in line]
    assert not [line for line in lines if token in line]


# -- jobs -------------------------------------------------------------------------------------


def test_a_job_runs_on_its_gpus_and_is_settled(hub: RunningHub, owner: EraClient) -> None:
    before = owner.account()
    script = (
        "import os, pathlib\n"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['ERA_JOB_ID'], os.environ['KEY'])\n"
        "pathlib.Path('result').write_text('42')\n"
    )
    outcome = owner.submit(
        models.JobRequest(
            configuration="gpu-2",
            duration="1m",
            value=10 * MILLION,
            script=script,
            environment={"KEY": "mine"},
        )
    )
    assert outcome.accepted
    done = until(lambda: _final(owner, outcome.job.id), 30, "the job")
    assert (done.state, done.exit_code) == (models.JobState.SUCCEEDED, 0)
    gpus, job_id, key = owner.log(done.id).text.split()
    assert len(gpus.split(",")) == 2
    assert (job_id, key) == (done.id, "mine")
    assert owner.log(done.id).complete
    # It ended early: what was not begun comes back, to the last micro-credit.
    settled = owner.reservation(done.id)
    assert 0 < settled.refunded < settled.price
    assert owner.account().balance == before.balance - settled.price + settled.refunded
    assert owner.account().held == before.held


def test_a_cancelled_job_is_stopped(hub: RunningHub, owner: EraClient) -> None:
    outcome = owner.submit(
        models.JobRequest(
            configuration="gpu-1",
            duration="5m",
            value=10 * MILLION,
            script="import time; print('on', flush=True); time.sleep(300)",
        )
    )
    until(lambda: "on" in owner.log(outcome.job.id).text, 30, "the job's first line")
    owner.cancel_job(outcome.job.id)
    done = owner.job(outcome.job.id)
    assert done.state is models.JobState.CANCELLED
    assert done.reservation.state is models.State.RELEASED
    until(lambda: owner.log(outcome.job.id).complete, 30, "the end of its log")


def test_progress_is_read_from_the_log(hub: RunningHub, owner: EraClient) -> None:
    script = (
        "import sys, time\n"
        "sys.stderr.write('\\r 10%|#         | 1/10')\n"
        "sys.stderr.write('\\r 40%|####      | 4/10')\n"
        "sys.stderr.flush()\n"
        "time.sleep(300)\n"
    )
    outcome = owner.submit(
        models.JobRequest(configuration="gpu-1", duration="5m", value=10 * MILLION, script=script)
    )
    until(lambda: owner.job(outcome.job.id).progress == 0.4, 30, "40 %")
    owner.cancel_job(outcome.job.id)


def _final(client: EraClient, job_id: str) -> models.Job | None:
    found = client.job(job_id)
    return found if found.state.final else None
