"""Both clients against a real server on the loopback interface."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.netutil import bind_sockets

from era_hub import cloud_models, models
from era_hub.client import AsyncEraClient, EraClient, EraError, discover, shared_scripts
from tests.era_hub.test_models import JOB, RESERVATION

TOKEN = "a-token-that-nobody-may-see"
BASE = "/@/space%20word/services/era"
PROBLEM = models.Problem(title="Conflict", status=409, detail="not before noon")


@dataclass
class Wire:
    """A server that remembers what it was asked, and answers what a test sets."""

    status: int = 200
    content_type: str = "application/json"
    content: str = '{"status": "ok"}'
    port: int = 0
    asked: list[HTTPServerRequest] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """More headers of the answer."""
    pages: list[str] = field(default_factory=list)
    """Bodies of lists; each but the last comes with a link to the next one."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{BASE}"

    @property
    def last(self) -> HTTPServerRequest:
        return self.asked[-1]

    def answer(
        self, content: str, status: int = 200, content_type: str = "application/json"
    ) -> None:
        self.content, self.status, self.content_type = content, status, content_type

    def __call__(self, request: HTTPServerRequest) -> None:
        self.asked.append(request)
        headers = HTTPHeaders({"Content-Type": self.content_type, **self.headers})
        if self.pages:
            self.content = self.pages.pop(0)
            if self.pages:
                place = f"a%26{len(self.pages)}"
                headers["Link"] = f'<http://elsewhere/?cursor={place}&limit=7>; rel="next"'
        body = self.content.encode()
        headers["Content-Length"] = str(len(body))
        if self.status in (301, 302):
            headers["Location"] = "/hub/login"
        assert request.connection is not None
        request.connection.write_headers(
            ResponseStartLine("", self.status, "As told"), headers, body
        )
        request.connection.finish()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire, ready, loops = Wire(), threading.Event(), list[asyncio.AbstractEventLoop]()

    async def serve() -> None:
        sockets = bind_sockets(0, "127.0.0.1")
        wire.port = sockets[0].getsockname()[1]
        server = HTTPServer(wire)
        server.add_sockets(sockets)
        stop = asyncio.Event()
        loops.append(asyncio.get_running_loop())
        stops.append(stop)
        ready.set()
        await stop.wait()
        server.stop()
        await server.close_all_connections()

    stops: list[asyncio.Event] = []
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield wire
    loops[0].call_soon_threadsafe(stops[0].set)
    thread.join(10)
    assert not thread.is_alive()


Question = Callable[[Any], Any]


def ask_at_once(url: str, question: Question, token: str = TOKEN) -> Any:
    with EraClient(url, token) as client:
        return question(client)


def ask_later(url: str, question: Question, token: str = TOKEN) -> Any:
    async def ask() -> Any:
        async with AsyncEraClient(url, token) as client:
            return await question(client)

    return asyncio.run(ask())


@pytest.fixture(params=[ask_at_once, ask_later], ids=["EraClient", "AsyncEraClient"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Asks a question with one kind of client."""
    return request.param


# -- where the market is ------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The process's environment, without a market."""
    for name in ("ERA_URL", "ERA_TOKEN", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", found := dict(os.environ))
    return found


def test_without_a_url_it_says_how_to_set_one(environment: dict[str, str]) -> None:
    environment["ERA_TOKEN"] = TOKEN
    with pytest.raises(EraError, match="Set ERA_URL") as caught:
        discover()
    assert caught.value.status == 0


def test_without_a_token_it_says_how_to_get_one(environment: dict[str, str]) -> None:
    environment["ERA_URL"] = "http://hub/services/era"
    with pytest.raises(EraError, match="set ERA_TOKEN"):
        EraClient()


@pytest.mark.parametrize(
    ("given", "variables", "found"),
    [
        (("http://a", "t"), {}, ("http://a", "t")),
        (("http://a/", None), {"ERA_TOKEN": "e"}, ("http://a", "e")),
        ((None, None), {"ERA_URL": "http://e/", "ERA_TOKEN": "e"}, ("http://e", "e")),
        (
            (None, None),
            {"ERA_URL": "http://e", "JUPYTERHUB_API_TOKEN": "hub"},
            ("http://e", "hub"),
        ),
        (
            (None, None),
            {"ERA_URL": "http://e", "ERA_TOKEN": "e", "JUPYTERHUB_API_TOKEN": "hub"},
            ("http://e", "e"),
        ),
        (
            ("http://a", "t"),
            {"ERA_URL": "http://e", "ERA_TOKEN": "e", "JUPYTERHUB_API_TOKEN": "hub"},
            ("http://a", "t"),
        ),
        (("", ""), {"ERA_URL": "http://e", "ERA_TOKEN": "e"}, ("http://e", "e")),
        # As from a file that ends with a line break.
        ((None, None), {"ERA_URL": "http://e\n", "ERA_TOKEN": " e\n"}, ("http://e", "e")),
    ],
)
def test_what_is_given_comes_first_then_our_variables_then_the_hubs(
    environment: dict[str, str],
    given: tuple[str | None, str | None],
    variables: dict[str, str],
    found: tuple[str, str],
) -> None:
    environment.update(variables)
    assert discover(*given) == found


# -- requests -----------------------------------------------------------------

BID = models.ReservationRequest(configuration="gpu-1", duration=3600, value=5)
WORK = models.JobRequest(configuration="gpu-1", duration=3600, value=5, script="ü")
OUTCOME = models.Outcome(accepted=True, price=1, reason=None, reservation=RESERVATION)
ALLOCATION = cloud_models.Allocation(pool="local", resource="cpu", capacity=8, running=[])
LIST = f"[{RESERVATION.model_dump_json()}]"


@pytest.mark.parametrize(
    ("question", "asked", "content"),
    [
        (lambda c: c.market(2), "GET market?hours=2", None),
        (lambda c: c.reservations(), "GET reservations", LIST),
        (
            lambda c: c.reservations(user="a&b", current=True, kind=models.Kind.JOB),
            "GET reservations?user=a%26b&current=true&kind=job",
            LIST,
        ),
        (lambda c: c.reservation("r1"), "GET reservations/r1", RESERVATION),
        (lambda c: c.give_back("r1"), "DELETE reservations/r1", RESERVATION),
        (lambda c: c.claim("r1"), "POST reservations/r1/claim", RESERVATION),
        (lambda c: c.jobs(user="ann"), "GET jobs?user=ann", f"[{JOB.model_dump_json()}]"),
        (lambda c: c.job("j1"), "GET jobs/j1", JOB),
        (lambda c: c.cancel_job("j1"), "DELETE jobs/j1", JOB),
        (
            lambda c: c.log("j1", 7),
            "GET jobs/j1/log?offset=7",
            models.Log(text="ü", offset=9, complete=True),
        ),
        (
            lambda c: c.account("ann"),
            "GET account?user=ann",
            models.Account(name="ann", balance=1, held=0, entries=[]),
        ),
        (lambda c: c.notices(), "GET notices", "[]"),
        (lambda c: c.user(), "GET user", models.User(name="ann", kind="user", scopes=[])),
        (lambda c: c.allocation(), "GET allocation", ALLOCATION),
        (lambda c: c.health(), "GET health", models.Health(status="ok")),
        (lambda c: c.version(), "GET version", models.Version(version="1", api="v1")),
    ],
)
def test_questions(wire: Wire, ask: Any, question: Question, asked: str, content: Any) -> None:
    expected = content
    if content is None:
        expected = _a_market()
    if not isinstance(expected, str):
        wire.answer(expected.model_dump_json())
        assert ask(wire.url, question) == expected
    else:
        wire.answer(expected)
        assert [each.model_dump(mode="json") for each in ask(wire.url, question)] == json.loads(
            expected
        )
    method, _, path = asked.partition(" ")
    assert (wire.last.method, wire.last.uri) == (method, f"{BASE}/api/v1/{path}")
    assert wire.last.headers["Authorization"] == f"token {TOKEN}"
    assert wire.last.body == b""
    assert "Idempotency-Key" not in wire.last.headers


def _a_market() -> models.Market:
    return models.Market(
        now=RESERVATION.start,
        pool="local",
        slot=300,
        first_slot=RESERVATION.start,
        horizon=RESERVATION.end,
        resource="nvidia.com/gpu",
        simulated=False,
        capacity=[8],
        promised=[1],
        configurations=[],
    )


@pytest.mark.parametrize(
    ("question", "path", "body", "answer"),
    [
        (
            lambda c: c.quote(models.QuoteRequest(configuration="gpu-1", duration="1h")),
            "quotes",
            {"configuration": "gpu-1", "count": 1, "duration": 3600, "commitment": "fixed"},
            models.Quote(configuration="a", duration=1, feasible=False, best=None, starts=[]),
        ),
        (
            lambda c: c.reserve(BID, "key-1"),
            "reservations",
            {"configuration": "gpu-1", "count": 1, "duration": 3600, "value": 5, "server_name": ""},
            OUTCOME,
        ),
        (
            lambda c: c.update(cloud_models.Feedback(ended=[{"id": "r1"}]), "key-1"),
            "allocation/update",
            {"ended": [{"id": "r1", "message": ""}], "failed": []},
            cloud_models.FeedbackResult(settled=[], broken=[], moved=[], unknown=["r1"]),
        ),
        (
            lambda c: c.submit(WORK, "key-1"),
            "jobs",
            WORK.model_dump(exclude_none=True),
            models.JobOutcome(**OUTCOME.model_dump(), job=JOB),
        ),
    ],
    ids=["quote", "reserve", "update", "submit"],
)
def test_bids(
    wire: Wire, ask: Any, question: Question, path: str, body: dict[str, Any], answer: Any
) -> None:
    wire.answer(answer.model_dump_json())
    assert ask(wire.url, question) == answer
    assert (wire.last.method, wire.last.uri) == ("POST", f"{BASE}/api/v1/{path}")
    assert wire.last.headers["Content-Type"] == "application/json"
    assert json.loads(wire.last.body) == body
    expected = None if path == "quotes" else "key-1"
    assert wire.last.headers.get("Idempotency-Key") == expected


def test_a_list_goes_on_on_the_next_page(wire: Wire, ask: Any) -> None:
    """And the token stays where it is, whatever address the link names."""
    wire.pages = [LIST, LIST, LIST]
    assert ask(wire.url, lambda c: c.reservations(current=True)) == [RESERVATION] * 3
    first, *others = (str(each.uri) for each in wire.asked)
    assert first == f"{BASE}/api/v1/reservations?current=true"
    places = [f"{BASE}/api/v1/reservations?cursor=a%26{left}&limit=7" for left in (2, 1)]
    assert others == places


def test_a_list_ends_at_its_limit(wire: Wire, ask: Any) -> None:
    wire.pages = [LIST, LIST]
    assert ask(wire.url, lambda c: c.reservations(limit=1)) == [RESERVATION]
    assert [each.uri for each in wire.asked] == [f"{BASE}/api/v1/reservations?limit=1"]
    wire.pages = [f"[{JOB.model_dump_json()}]"] * 2
    assert len(ask(wire.url, lambda c: c.jobs(limit=2000))) == 2
    assert wire.asked[1].uri == f"{BASE}/api/v1/jobs?limit=1000"


def test_what_has_not_changed_is_not_sent_again(wire: Wire, ask: Any) -> None:
    wire.headers = {"ETag": '"7"'}
    wire.answer(ALLOCATION.model_dump_json())

    def twice(client: Any) -> Any:
        first = client.allocation()
        if not isinstance(first, cloud_models.Allocation):
            return both(client, first)
        wire.answer("", 304)
        return first, client.allocation()

    async def both(client: Any, first: Any) -> Any:
        found = await first
        wire.answer("", 304)
        return found, await client.allocation()

    assert ask(wire.url, twice) == (ALLOCATION, ALLOCATION)
    assert [each.headers.get("If-None-Match") for each in wire.asked] == [None, '"7"']


def test_without_a_key_none_is_sent(wire: Wire, ask: Any) -> None:
    wire.answer(OUTCOME.model_dump_json())
    ask(wire.url, lambda client: client.reserve(BID))
    assert "Idempotency-Key" not in wire.last.headers


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("a/b", "a%2Fb"),
        ("../account", "%2E%2E%2Faccount"),
        ("a?x=1#y", "a%3Fx%3D1%23y"),
        ("ü %", "%C3%BC%20%25"),
        ("..", "%2E%2E"),
        (".", "%2E"),
    ],
)
@pytest.mark.parametrize("call", ["reservation", "give_back", "job", "cancel_job"])
def test_parts_of_a_path_are_quoted(
    wire: Wire, ask: Any, call: str, name: str, quoted: str
) -> None:
    wire.answer((JOB if "job" in call else RESERVATION).model_dump_json())
    ask(wire.url, lambda client: getattr(client, call)(name))
    folder = "jobs" if "job" in call else "reservations"
    assert wire.last.uri == f"{BASE}/api/v1/{folder}/{quoted}"


# -- errors -------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 409, 422, 500])
def test_problem_details_become_an_error(wire: Wire, ask: Any, status: int) -> None:
    wire.answer(PROBLEM.model_dump_json(), status, "application/problem+json")
    with pytest.raises(EraError) as caught:
        ask(wire.url, lambda client: client.claim("r1"))
    assert (str(caught.value), caught.value.status) == ("not before noon", status)


@pytest.mark.parametrize(
    ("status", "content"),
    [(502, "<h1>Bad gateway</h1>"), (503, ""), (500, "[]"), (500, "null"), (400, '{"x": 1}')],
)
def test_other_errors_become_one_too(wire: Wire, ask: Any, status: int, content: str) -> None:
    wire.answer(content, status)
    with pytest.raises(EraError, match=f"the market answered {status}") as caught:
        ask(wire.url, lambda client: client.health())
    assert caught.value.status == status


def test_redirects_are_not_followed(wire: Wire, ask: Any) -> None:
    """They lead to the login page, and the token must not go anywhere else."""
    wire.answer("", 302)
    with pytest.raises(EraError, match="the market answered 302"):
        ask(wire.url, lambda client: client.health())
    assert len(wire.asked) == 1


@pytest.mark.parametrize("content", ["<html>the hub's home page</html>", "", "[]", '{"a": 1}'])
def test_what_no_market_answers_is_an_error(wire: Wire, ask: Any, content: str) -> None:
    wire.answer(content, content_type="text/html")
    with pytest.raises(EraError, match="ERA_URL") as caught:
        ask(wire.url, lambda client: client.health())
    assert caught.value.status == 200


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/x", "127.0.0.1:{port}", "ftp://x"])
def test_a_market_that_cannot_be_reached(ask: Any, url: str) -> None:
    with bind_sockets(0, "127.0.0.1")[0] as unused:
        port = unused.getsockname()[1]
    with pytest.raises(EraError, match="can't be reached") as caught:
        ask(url.format(port=port), lambda client: client.health())
    assert caught.value.status == 0


# -- secrets ------------------------------------------------------------------


def test_the_token_is_in_no_url(wire: Wire, ask: Any) -> None:
    wire.answer(LIST)
    ask(wire.url, lambda client: client.reservations(user="ann"))
    assert TOKEN not in str(wire.last.uri)
    assert TOKEN in wire.last.headers["Authorization"]


@pytest.mark.parametrize(
    "token", [TOKEN, f"{TOKEN}\n", f"{TOKEN}\r\nX: y", f"{TOKEN}…", f"{TOKEN}\0"]
)
def test_the_token_is_in_no_error(wire: Wire, ask: Any, token: str) -> None:
    wire.answer("", 500)
    for url in (wire.url, "http://127.0.0.1:1", "nonsense://"):
        with pytest.raises(EraError) as caught:
            ask(url, lambda client: client.health(), token)
        told = "".join(traceback.format_exception(caught.value))
        assert TOKEN not in told + repr(caught.value)


def test_the_token_is_in_no_description() -> None:
    with EraClient("http://127.0.0.1:1", TOKEN) as client:
        assert TOKEN not in repr(client) + str(client)


# -- browser code -------------------------------------------------------------


def test_the_browser_code_comes_with_the_package() -> None:
    scripts = "".join(shared_scripts())
    for name in ("priceChart", "cheapestStart", "formatCredits"):
        assert f"export function {name}(" in scripts
