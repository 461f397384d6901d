"""What an operator sees: metrics, logs and request ids; and what nobody should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.people import log_in
from tests.era_hub.watched_hub import direct, events, lines, watched
from tests.running_hub import RunningHub, until

API = "services/era/api/v1/"
VALUE = 1_234_567


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with watched(tmp_path_factory.mktemp("hub")) as running:
        yield running


def get(hub: RunningHub, path: str, token: str | None = None, **headers: str) -> httpx.Response:
    if token is not None:
        headers["Authorization"] = f"token {token}"
    return httpx.get(f"{hub.url}{API}{path}", headers=headers)


def bid(
    hub: RunningHub, token: str, value: int, name: str | None = None, **headers: str
) -> dict[str, Any]:
    body = {
        "configuration": "gpu-1",
        "duration": "10m",
        "value": value,
        "server_name": name or uuid4().hex,
    }
    headers = {"Authorization": f"token {token}", **headers}
    answer = httpx.post(f"{hub.url}{API}reservations", json=body, headers=headers)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


# -- bids -----------------------------------------------------------------------------


def test_a_site_may_let_its_admins_see_bids_and_nobody_else(hub: RunningHub) -> None:
    token = hub.user_token("ann")
    path = f"reservations/{bid(hub, token, VALUE)['reservation']['id']}"
    callers = {"owner": token, "admin": hub.user_token("admin"), "spawner": hub.spawner_token}
    seen = {role: get(hub, path, each).json()["value"] for role, each in callers.items()}
    assert seen == {"owner": VALUE, "admin": VALUE, "spawner": None}
    assert get(hub, path, hub.user_token("anna")).status_code == 404


# -- metrics --------------------------------------------------------------------------


def measured(hub: RunningHub) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = get(hub, "metrics", "prometheus-reads-this")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def test_bids_prices_and_money_are_measured(hub: RunningHub) -> None:
    ann = hub.user_token("ann")
    before = measured(hub)
    capacity = [each for (name, _), each in before.items() if name == "era_capacity_units"]
    assert capacity == [8.0]
    taken = bid(hub, ann, 50_000_000)
    assert taken["accepted"]
    for _ in range(5):
        assert not bid(hub, ann, 1)["accepted"]
    after = measured(hub)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("era_bids_total", kind="notebook", outcome="accepted") == 1
    assert grown("era_bids_total", kind="notebook", outcome="declined") == 5
    assert grown("era_bid_value_credits_total", outcome="declined") == pytest.approx(5e-6)
    # One accepted bid alone would tell its value.
    assert grown("era_bid_value_credits_total", outcome="accepted") == 0
    route = {"method": "POST", "route": "api/v1/reservations"}
    assert grown("era_requests_total", **route, status="200") == 6
    assert grown("era_request_seconds_count", **route) == 6
    assert grown("era_market_call_seconds_count", call="reserve") == 6
    assert grown("era_writer_wait_seconds_count") >= 6
    assert value(after, "era_reconciler_lag_seconds") < 10
    prices = [each for (name, _), each in after.items() if name == "era_price_credits_per_hour"]
    assert max(prices) > 0
    ledger = [each for (name, _), each in after.items() if name == "era_ledger_credits"]
    assert sum(ledger) == pytest.approx(0)
    assert max(ledger) > 0


def test_a_bid_that_is_sent_again_counts_once(hub: RunningHub) -> None:
    ann, name, before = hub.user_token("ann"), uuid4().hex, measured(hub)
    key = {"Idempotency-Key": uuid4().hex}
    first = bid(hub, ann, 50_000_000, name, **key)
    for _ in range(3):
        assert bid(hub, ann, 50_000_000, name, **key) == first
    after = measured(hub)
    labels = {"kind": "notebook", "outcome": "accepted"}
    bids = "era_bids_total"
    assert value(after, bids, **labels) - value(before, bids, **labels) == 1


def test_measurements_have_no_names_or_ids_in_them(hub: RunningHub) -> None:
    ann = hub.user_token("ann")
    made = bid(hub, ann, 50_000_000)["reservation"]["id"]
    assert get(hub, f"reservations/{made}", ann).status_code == 200
    httpx.request("BREW", f"{direct(hub)}coffee")
    text = get(hub, "metrics", "prometheus-reads-this").text
    assert 'route="api/v1/reservations/{id}"' in text
    for secret in (made, "ann", "coffee", "BREW", ann):
        assert f'"{secret}"' not in text
        assert made not in text


def test_streams_are_counted(hub: RunningHub) -> None:
    with events(hub, hub.user_token("ann")) as stream:
        stream.until("prices")
        assert value(measured(hub), "era_event_streams") == 1
    until(lambda: value(measured(hub), "era_event_streams") == 0, 10, "the end of the stream")


def test_prometheus_may_do_nothing_else(hub: RunningHub) -> None:
    for path in ("account?user=ann", "reservations", "allocation", "events?seconds=0.1"):
        assert get(hub, path, "prometheus-reads-this").status_code == 403, path


# -- request ids and logs -------------------------------------------------------------


def test_an_answer_names_its_request(hub: RunningHub) -> None:
    first, second = get(hub, "version"), get(hub, "version")
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert get(hub, "version", **{"X-Request-ID": "trace-0815.a_b"}).headers["X-Request-ID"] == (
        "trace-0815.a_b"
    )
    for odd in ("short", "x" * 65, "with blanks in", 'quote"12345678', "<script>alert"):
        assert get(hub, "version", **{"X-Request-ID": odd}).headers["X-Request-ID"] != odd


@pytest.mark.parametrize("path", ["account", "nothing/there", "reservations?limit=x"])
def test_a_problem_names_its_request_and_the_log_does_too(hub: RunningHub, path: str) -> None:
    name = f"request-{uuid4().hex}"
    token = hub.user_token("ann") if "limit" in path else None
    answer = get(hub, path, token, **{"X-Request-ID": name})
    assert answer.json()["instance"] == name == answer.headers["X-Request-ID"]

    def logged() -> list[dict[str, Any]]:
        return [each for each in lines(hub) if each.get("request") == name and "status" in each]

    (line,) = until(logged, 5, "the line in the log")
    assert line["status"] == answer.status_code == answer.json()["status"]
    assert line["path"].endswith(path.partition("?")[0])
    assert line["level"] == "warning"


def test_no_token_cookie_or_query_is_logged(hub: RunningHub) -> None:
    ann = hub.user_token("ann")
    hidden = f"secret-{uuid4().hex}"
    with log_in(hub, "ann") as browser:
        browser.get("services/era/")
        cookies = [str(each.value) for each in browser.cookies.jar if each.name != "_xsrf"]
    for mode in ("navigate", "cors", "websocket"):
        for path in (f"account?token={ann}&x={hidden}", f"jobs?limit={hidden}", f"no?{hidden}"):
            answer = get(hub, path, ann, Cookie=f"other={hidden}", **{"Sec-Fetch-Mode": mode})
            assert answer.status_code in (200, 404, 422)
    broken = f"account?%ff={hidden}&token={ann}"
    assert get(hub, broken, ann).status_code in (200, 400, 422)
    found = lines(hub)
    assert any(each.get("caller") == "ann" for each in found)
    text = json.dumps(found)
    assert [each for each in (ann, hidden, *cookies) if each in text] == []


def test_a_token_in_the_url_counts_for_nobody(hub: RunningHub) -> None:
    ann = hub.user_token("ann")
    for mode in ("navigate", "websocket"):
        answer = get(hub, f"account?token={ann}", **{"Sec-Fetch-Mode": mode})
        assert answer.status_code == 401, mode


# -- limits ---------------------------------------------------------------------------


def test_who_asks_too_fast_has_to_wait_and_nobody_else(hub: RunningHub) -> None:
    url = f"{direct(hub)}user"
    ann = {"Authorization": f"token {hub.user_token('ann')}"}
    spawner = {"Authorization": f"token {hub.spawner_token}"}
    with httpx.Client() as client:
        answers = [client.get(url, headers=ann) for _ in range(150)]
        refused = [each for each in answers if each.status_code == 429]
        assert refused
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert refused[0].headers["Content-Type"] == "application/problem+json"
        bob = {"Authorization": f"token {hub.user_token('bob')}"}
        assert client.get(url, headers=bob).status_code == 200
        assert all(client.get(url, headers=spawner).status_code == 200 for _ in range(150))
        until(lambda: client.get(url, headers=ann).status_code == 200, 5, "the bucket")
    assert value(measured(hub), "era_rate_limited_total") >= len(refused)


# -- answers --------------------------------------------------------------------------


def test_what_has_not_changed_is_not_sent_again(hub: RunningHub) -> None:
    ann = hub.user_token("ann")
    first = get(hub, "account", ann)
    etag = first.headers["ETag"]
    again = get(hub, "account", ann, **{"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == etag
    bid(hub, ann, 50_000_000)
    changed = get(hub, "account", ann, **{"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_head_is_get_without_the_body(hub: RunningHub) -> None:
    headers = {"Authorization": f"token {hub.user_token('ann')}"}
    with httpx.Client(base_url=direct(hub), headers=headers) as client:
        for path in ("account", "version", "reservations?limit=1", "nothing"):
            got, head = client.get(path), client.head(path)
            assert head.status_code == got.status_code
            assert head.content == b""
            assert head.headers["Content-Length"] == got.headers["Content-Length"]
        refused = client.head("quotes")
        assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
        assert client.delete("market").headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["version", "account", "nothing", "metrics"])
def test_answers_are_safe_in_a_browser(hub: RunningHub, path: str) -> None:
    answer = httpx.get(f"{direct(hub)}{path}")
    headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


def test_cookies_alone_change_nothing(hub: RunningHub) -> None:
    ann = hub.user_token("ann")
    made = bid(hub, ann, 50_000_000)["reservation"]["id"]
    path = f"{API}reservations/{made}"
    with log_in(hub, "ann") as browser:
        page = browser.get("services/era/").text
        xsrf = page.split('name="era-xsrf" content="')[1].split('"')[0]
        for headers in ({}, {"X-XSRFToken": "guessed"}, {"X-XSRFToken": xsrf[:-4]}):
            assert browser.delete(path, headers=headers).status_code == 401
            posted = browser.post(f"{API}quotes", json={}, headers=headers)
            assert posted.status_code == 401
        assert get(hub, f"reservations/{made}", ann).json()["state"] == "accepted"
        # By cookie and token, or by header alone.
        assert browser.post(f"{API}quotes", json={}, headers={"X-XSRFToken": xsrf}).is_client_error
        assert browser.delete(path, headers={"X-XSRFToken": xsrf}).status_code == 200
    headers = {"Authorization": f"token {ann}"}
    assert httpx.delete(f"{hub.url}{path}", headers=headers).status_code == 200
