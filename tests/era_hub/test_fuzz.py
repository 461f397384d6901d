"""Malformed requests: each gets an answer that says so, and none does harm."""

from __future__ import annotations

import gzip
import http.client
import re
import socket
from collections.abc import Iterator

import httpx
import psutil
import pytest

from benchmarks import fuzz
from era_hub.api import ROUTES
from era_hub.api.base import BODY_LIMIT, methods
from tests.era_hub.watched_hub import direct
from tests.running_hub import FAST, RunningHub

ROOT = "/services/era/api/v1/"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    options = FAST | {"EraHub.rate": 0}
    with RunningHub(tmp_path_factory.mktemp("hub"), options=options) as running:
        yield running


@pytest.fixture(scope="module")
def token(hub: RunningHub) -> str:
    return hub.user_token("ann")


def post(hub: RunningHub, token: str | None, body: bytes, **headers: str) -> httpx.Response:
    known = {"Content-Type": "application/json"}
    if token is not None:
        known["Authorization"] = f"token {token}"
    return httpx.post(f"{direct(hub)}reservations", content=body, headers=known | headers)


def test_no_request_is_too_odd_for_an_answer(hub: RunningHub, token: str) -> None:
    port = int((hub.folder / "port").read_text())
    report = fuzz.send_all(port, ROOT, token, hub.user_token("admin"), fuzz.requests(3000))
    assert report.failures == []
    assert sum(report.statuses.values()) == 3000
    # They are odd in many ways, and do reach what they are meant for.
    assert {200, 400, 401, 404, 405, 415, 422} <= set(report.statuses)
    assert report.statuses[422] > 1000


def test_all_that_has_a_body_is_sent_odd_ones() -> None:
    asked = {
        re.sub(r"{\w+}", "[^/]+", path)
        for path, handler in ROUTES
        for endpoint in methods(handler).values()
        if endpoint.body is not None
    }
    sent = [path.partition("?")[0] for path in fuzz.GOOD]
    # What is changed has the fields of what is made, and what is quoted those of a bid.
    like = ("admin/grants/", "admin/maintenance/", "reservations/[^/]+/extend/quote")
    missing = {path for path in asked if not any(re.fullmatch(path, each) for each in sent)}
    assert {path for path in missing if not path.startswith(like)} == set()


GOOD = '"configuration": "gpu-1", "duration": 60, "value": 0'


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (f'{{{GOOD}, "value": 5}}', "value: given more than once"),
        (f'{{{GOOD}, "server_name": "a\\u0000b"}}', "NUL"),
        (f'{{{GOOD}, "server_name": "\\ud800"}}', "JSON"),
        (f'{{{GOOD}, "server_name": {"[" * 100_000}', "JSON"),
        (f'{{{GOOD}, "count": {"1" * 100_000}}}', "JSON"),
        (f'{{{GOOD}, "count": 1e400}}', "count"),
        (f"{{{GOOD}, }}", "JSON"),
    ],
)
def test_json_that_readers_may_understand_differently(
    hub: RunningHub, token: str, body: str, word: str
) -> None:
    answer = post(hub, token, body.encode())
    assert answer.status_code == 422
    assert word in answer.json()["detail"]
    assert answer.json()["instance"] == answer.headers["X-Request-ID"]


def test_a_backslash_is_no_nul(hub: RunningHub, token: str) -> None:
    body = f'{{{GOOD}, "server_name": "\\\\u0000"}}'.encode()
    assert post(hub, token, body).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
    ],
)
def test_what_says_itself_that_it_is_not_json(
    hub: RunningHub, token: str, headers: dict[str, str]
) -> None:
    assert post(hub, token, f"{{{GOOD}}}".encode(), **headers).status_code == 415


def test_large_bodies_take_no_memory(hub: RunningHub, token: str) -> None:
    """Chunked, compressed or announced; from those who are logged in and those who are not."""
    service = psutil.Process(hub.service_pid())
    large = b'{"script": "' + b"0" * (20 << 20) + b'"}'
    post(hub, token, large)
    before = service.memory_info().rss
    bomb = gzip.compress(bytes(200 << 20))

    def chunks() -> Iterator[bytes]:
        for first in range(0, len(large), 1 << 16):
            yield large[first : first + (1 << 16)]

    for caller, status in ((token, 413), (None, 401)):
        assert post(hub, caller, large).status_code == status
        assert post(hub, caller, chunks()).status_code == status  # type: ignore[arg-type]
        expected = 415 if caller else 401
        assert post(hub, caller, bomb, **{"Content-Encoding": "gzip"}).status_code == expected
    # Many at once, half sent and left open.
    port = int((hub.folder / "port").read_text())
    head = f"POST {ROOT}jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {30 << 20}\r\n\r\n"
    open_ones = []
    for _ in range(20):
        each = socket.create_connection(("127.0.0.1", port))
        each.sendall(head.encode() + bytes(8 << 20))
        open_ones.append(each)
    grown = service.memory_info().rss - before
    for each in open_ones:
        each.close()
    assert grown < 4 * BODY_LIMIT
    assert httpx.get(f"{direct(hub)}version").status_code == 200


def test_a_connection_lives_on_after_a_refusal(hub: RunningHub) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int((hub.folder / "port").read_text()))
    for path, body in (("jobs", bytes(1 << 20)), ("nothing", bytes(1 << 20)), ("jobs/%ff", b"x")):
        connection.request("POST", ROOT + path, body)
        assert connection.getresponse().read()
    connection.request("GET", f"{ROOT}version")
    assert connection.getresponse().status == 200
    connection.close()
