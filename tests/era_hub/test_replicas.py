"""Several services on one PostgreSQL: all answer, one writes, another takes its place."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin
from uuid import uuid4

import httpx
import psycopg
import pytest
from sqlalchemy import text
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from era_hub import models
from era_hub.api import ROUTES
from era_hub.changes import Change
from era_hub.client import EraClient
from era_hub.client.calls import EraError
from era_hub.market import Market
from era_hub.models import micro_credits
from era_hub.plugins import ConfigurationError
from era_hub.replicas import Follower, forwarding, reachable
from era_hub.replicas.news import channel, tell, understand
from era_hub.store.database import Database
from era_hub.store.demand import Demand
from era_hub.store.election import Forbidden, Leader, Writer, depose, holder
from era_hub.store.election import leader as who_leads
from era_pricing import Feedback
from tests.end_to_end.people import log_in
from tests.era_hub.small_market import Clock, market_on, notebook
from tests.era_hub.watched_hub import Stream
from tests.postgres import TEMPLATE, PostgresServer
from tests.running_hub import FAST, until
from tests.running_service import HubBeside, RunningService

pytestmark = pytest.mark.postgres

OPTIONS = FAST | {
    "EraHub.rate": 0,
    "EraHub.starting_grant": "100000",
    "EraHub.deposed_after": 2.0,
}
Pair = tuple[RunningService, RunningService]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubBeside]:
    with HubBeside(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def replicas(hub: HubBeside, postgres: PostgresServer) -> Iterator[Pair]:
    url = postgres.url(postgres.create()).render_as_string(hide_password=False)
    with (
        RunningService(hub, url, OPTIONS, replica=0) as one,
        RunningService(hub, url, OPTIONS, replica=1) as two,
    ):
        yield one, two


@pytest.fixture(scope="module")
def ann(hub: HubBeside) -> str:
    """A token of hers."""
    return hub.user_token("ann")


def health(service: RunningService) -> models.Health:
    answer = httpx.get(f"{service.url}api/v1/health", timeout=5)
    return models.Health.model_validate_json(answer.content)


def roles(replicas: Pair) -> Pair:
    """The one that leads and the one that follows, when both know it."""

    def found() -> Pair | None:
        leads = [health(each).leads for each in replicas]
        return None if leads.count(True) != 1 else replicas[:: 1 if leads[0] else -1]

    return until(found, 10, "one leader")  # type: ignore[return-value]


def bid(**more: Any) -> models.ReservationRequest:
    """For an hour from now on, so that nothing is started here."""
    later = datetime.now(UTC) + timedelta(hours=1)
    asked = {
        "configuration": "gpu-1",
        "duration": "10m",
        "value": micro_credits("9"),
        "server_name": uuid4().hex,
        "arrival": later,
        "deadline": later + timedelta(hours=20),
    }
    return models.ReservationRequest(**asked | more)


@contextmanager
def events(service: RunningService, token: str) -> Iterator[Stream]:
    headers = {"Authorization": f"token {token}"}
    url = f"{service.url}api/v1/events"
    with httpx.stream("GET", url, headers=headers, timeout=15) as response:
        stream = Stream(response)
        stream.until("prices")  # it is open
        yield stream


def made(client: EraClient, request: models.ReservationRequest, key: str | None = None) -> str:
    outcome = client.reserve(request, idempotency_key=key)
    assert outcome.reservation is not None, outcome.reason
    return str(outcome.reservation.id)


# -- reading --------------------------------------------------------------------------------


def test_a_follower_says_what_the_writer_says(replicas: Pair, ann: str) -> None:
    leader, follower = roles(replicas)
    clients = [each.client_with(ann) for each in (leader, follower)]
    before = clients[1].market(hours=5)
    later = before.first_slot + timedelta(hours=2)
    with events(follower, ann) as stream:
        wanted = bid(configuration="gpu-4", arrival=later, deadline=later + timedelta(minutes=30))
        new = made(clients[0], wanted)
        # What the follower tells of it already knows.
        assert stream.until("reservation")["data"] == {"user": "ann", "id": new}
        there = clients[1].market(hours=5)
    assert sum(there.promised) == sum(before.promised) + 4 * 60
    asked = set(models.QuoteRequest.model_fields)
    question = models.QuoteRequest(**wanted.model_dump(include=asked))
    first, second = (each.quote(question) for each in clients)
    assert first.best == second.best
    assert [each.price for each in first.starts] == [each.price for each in second.starts]
    assert [each.id for each in clients[1].reservations()][:1] == [new]
    assert clients[0].account() == clients[1].account()
    more = models.ExtensionQuoteRequest(duration="10m")
    longer = [each.quote_extension(new, more) for each in clients]
    assert longer[0] == longer[1]


def test_each_says_whom_it_follows(replicas: Pair, hub: HubBeside) -> None:
    leader, follower = roles(replicas)
    assert health(leader).follows is None
    assert health(follower).follows == f"http://127.0.0.1:{leader.port}"
    assert health(follower).lag < 5
    headers = {"Authorization": f"token {hub.user_token('admin')}"}
    for service, leads in ((leader, 1.0), (follower, 0.0)):
        told = httpx.get(f"{service.url}api/v1/metrics", headers=headers).text
        assert f"era_leading {leads}" in told
        assert "era_following_lag_seconds " in told


def test_a_login_begins_at_one_and_ends_at_another(replicas: Pair, hub: HubBeside) -> None:
    # The hub's proxy passes on to the first.
    other = replicas[1]
    with log_in(hub, "ann") as browser:
        begun = browser.get(other.url, follow_redirects=False)
        assert begun.status_code == 302
        page = browser.get(urljoin(hub.url, begun.headers["Location"]))
        assert "Your reservations" in page.text
        # The cookie of the one counts for the other.
        assert "Your reservations" in browser.get(other.url, follow_redirects=False).text


# -- writing --------------------------------------------------------------------------------


def test_a_follower_passes_on_what_changes_something(replicas: Pair, ann: str) -> None:
    leader, follower = roles(replicas)
    there, here = leader.client_with(ann), follower.client_with(ann)
    request, key = bid(), uuid4().hex
    new = made(here, request, key)
    assert made(there, request, key) == new == made(here, request, key)
    with pytest.raises(EraError, match="changed since"):
        here.give_back(new, version=7)
    here.give_back(new)
    assert there.reservation(new).state == "cancelled"


def test_the_writers_answer_comes_back_unchanged(replicas: Pair, ann: str) -> None:
    answers = []
    for service in roles(replicas):
        with httpx.Client(
            base_url=f"{service.url}api/v1/",
            headers={"Authorization": f"token {ann}", "X-Request-ID": "one-request"},
        ) as client:
            answers.append(
                [
                    client.post("reservations", json={"value": "much"}),
                    client.post("reservations", content=b"{}", headers={"Content-Type": "a/b"}),
                    client.post("reservations", content=b"x" * (5 << 20)),
                    client.delete(f"reservations/{uuid4()}"),
                    client.delete("jobs/none"),
                ]
            )
    for first, second in zip(*answers, strict=True):
        assert 400 <= first.status_code < 500
        assert second.status_code == first.status_code
        assert second.headers["X-Request-ID"] == "one-request"
        assert second.headers.multi_items().count(("content-type", "application/problem+json")) == 1
        same = ("title", "status", "instance")
        assert [second.json()[name] for name in same] == [first.json()[name] for name in same]


def test_strangers_are_refused_where_they_ask(replicas: Pair) -> None:
    _, follower = roles(replicas)
    answer = httpx.post(f"{follower.url}api/v1/reservations", json={})
    assert answer.status_code == 401


def test_nothing_is_passed_on_twice(replicas: Pair, ann: str) -> None:
    _, follower = roles(replicas)
    headers = {"Authorization": f"token {ann}", "Era-Passed-On": "1"}
    url = f"{follower.url}api/v1/reservations"
    answer = httpx.post(url, headers=headers, content=bid().model_dump_json())
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "does not write" in answer.json()["detail"]


# -- taking over ----------------------------------------------------------------------------


class Writers:
    """People who bid at one replica, each with a key that is repeated until it is answered."""

    def __init__(self, service: RunningService, token: str, count: int = 4) -> None:
        self.service, self.token = service, token
        self.made: dict[str, str] = {}
        self.asked: dict[str, models.ReservationRequest] = {}
        self.begun_and_done: list[tuple[float, float]] = []
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._bid) for _ in range(count)]

    def __enter__(self) -> Writers:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for each in self._threads:
            each.join()

    def _bid(self) -> None:
        with EraClient(self.service.url, self.token) as client:
            while not self._enough.is_set():
                key, request, begin = uuid4().hex, bid(), time.monotonic()
                self.asked[key] = request
                while key not in self.made:
                    try:
                        self.made[key] = made(client, request, key)
                    except EraError:
                        if time.monotonic() - begin > 60:
                            raise
                        time.sleep(0.05)  # as Retry-After asks, in short
                self.begun_and_done.append((begin, time.monotonic()))

    def wait_for(self, more: int) -> None:
        wanted = len(self.made) + more
        until(lambda: len(self.made) >= wanted, 60, "reservations")

    def resumed(self, since: float) -> float:
        """Seconds until something was done that was begun after a moment."""
        return min(done for begin, done in self.begun_and_done if done > since) - since


def nothing_lost_or_doubled(writers: Writers, services: Pair) -> None:
    for service in services:
        with EraClient(service.url, writers.token) as client:
            held = client.reservations(limit=10_000)
            names = [each.server_name for each in held]
            for key, request in writers.asked.items():
                assert names.count(request.server_name) == 1
                assert made(client, request, key) == writers.made[key]


@pytest.mark.slow
def test_another_writes_within_seconds_when_the_writer_is_killed(replicas: Pair, ann: str) -> None:
    leader, follower = roles(replicas)
    with Writers(follower, ann) as writers:
        writers.wait_for(20)
        killed = time.monotonic()
        leader.kill()
        writers.wait_for(20)
    assert writers.resumed(killed) < 5
    assert health(follower).leads
    leader.start()
    assert roles(replicas) == (follower, leader)
    nothing_lost_or_doubled(writers, replicas)


def test_a_service_that_ends_hands_over_at_once(replicas: Pair, ann: str) -> None:
    leader, follower = roles(replicas)
    leader.stop()
    ended = time.monotonic()
    made(follower.client_with(ann), bid())
    assert time.monotonic() - ended < 3
    leader.start()
    assert not health(leader).leads


@pytest.mark.slow
def test_a_frozen_writer_is_deposed_and_follows_when_it_wakes(replicas: Pair, ann: str) -> None:
    leader, follower = roles(replicas)
    with Writers(follower, ann) as writers:
        writers.wait_for(10)
        leader.freeze()
        try:
            until(lambda: health(follower).leads, 15, "another writer")
            writers.wait_for(10)
        finally:
            leader.thaw()
        # What reaches the old one before it knows is refused or passed on.
        with Writers(leader, ann, 2) as late:
            late.wait_for(5)
    assert roles(replicas) == (follower, leader)
    for each in (writers, late):
        nothing_lost_or_doubled(each, replicas)
    with events(leader, ann) as stream:
        new = made(follower.client_with(ann), bid())
        assert stream.until("reservation")["data"]["id"] == new


def test_a_follower_that_heard_nothing_learns_everything(
    replicas: Pair, postgres: PostgresServer, ann: str
) -> None:
    leader, follower = roles(replicas)
    before = sum(follower.client_with(ann).market(hours=24).promised)
    with events(follower, ann) as stream:
        ended = postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN era%'"
        )
        assert len(ended) == 2
        made(leader.client_with(ann), bid())
        stream.until("reset")
        assert sum(follower.client_with(ann).market(hours=24).promised) > before


# -- the parts ------------------------------------------------------------------------------


@pytest.fixture
def databases(postgres: PostgresServer) -> Iterator[list[Database]]:
    """Two services' connections to one database."""
    name = postgres.create(TEMPLATE)
    opened = [Database(postgres.url(name)) for _ in range(2)]
    yield opened
    for each in opened:
        each.close()
    postgres.drop(name)


def test_a_followers_predictor_learns_what_the_writers_does(
    databases: list[Database], clock: Clock
) -> None:
    writers = [Writer(each, "local", "http://127.0.0.1:1") for each in databases]
    assert writers[0].try_lead()
    markets = [
        market_on(database, clock, writer=writer)
        for database, writer in zip(databases, writers, strict=True)
    ]
    follower = Follower(markets[1], writers[1], "second", 0, logging.getLogger())
    for day in range(3):
        for hour in range(8):
            clock.now += 3600
            # Declined bids, too: they leave nothing behind but what they tell of the demand.
            markets[0].reserve(f"user{day}{hour}", notebook(6, 1, "0.1" if hour % 2 else "90"))
        clock.now += 16 * 3600
    first = clock() // 3600 * 3600

    def forecast(number: int) -> list[float]:
        found = markets[number].era.forecast("gpu-4", first, 200, clock())
        return [round(each, 6) for each in found.expected.tolist()]

    assert forecast(1) != forecast(0)
    follower.catch_up()
    assert forecast(1) == forecast(0)
    with databases[0].reader.begin() as session:
        assert follower.seen == Demand(session, "local", "nvidia.com/gpu").newest()


def test_a_followers_prices_are_those_that_the_writer_has_worked_out(
    databases: list[Database], clock: Clock
) -> None:
    writers = [Writer(each, "local", "http://127.0.0.1:1") for each in databases]
    assert writers[0].try_lead()
    one, two = (
        market_on(database, clock, writer=writer)
        for database, writer in zip(databases, writers, strict=True)
    )
    follower = Follower(two, writers[1], "second", 0, logging.getLogger())

    def prices(market: Market) -> list[int]:
        return list(map(int, market.era.prices("gpu-2", clock(), 200)))

    for hour in range(6):
        one.reserve(f"user{hour}", notebook(6, 2, "90", deadline=clock() + 8 * 3600))
        clock.now += 3600
        one.pass_time()
    # By itself it would come to others.
    two.era.update(Feedback())
    assert prices(two) != prices(one)
    follower.catch_up()
    assert prices(two) == prices(one)


def test_news_come_with_the_commit_in_pieces_or_not_at_all(databases: list[Database]) -> None:
    write = text("UPDATE writers SET beat = beat + 1")
    put = text("INSERT INTO writers (pool, address, since, beat) VALUES ('p', '', 0, 0)")
    some = [Change("reservation", f"user-{n}", str(uuid4())) for n in range(300)]
    many = [Change("reservation", f"user-{n}", str(uuid4())) for n in range(3000)]
    with closing(psycopg.connect(**databases[1].connecting(), autocommit=True)) as listening:
        listening.execute(f"LISTEN {channel('p')}".encode())

        def heard() -> list[Any]:
            return [understand(each.payload) for each in listening.notifies(timeout=0.5)]

        with databases[0].session.begin() as session:
            session.execute(put)
            tell(session, "p", "me", some)
            assert heard() == []
        pieces = heard()
        assert len(pieces) > 1 and all(each.complete for each in pieces)
        assert [change for each in pieces for change in each.changes] == some
        with databases[0].session.begin() as session:
            session.execute(write)
            tell(session, "p", "me", many)
        assert [each.complete for each in heard()] == [False]
        with databases[0].session.begin() as session:
            tell(session, "p", "me", some)  # nothing was stored
        assert heard() == []


def test_a_writer_that_could_not_say_where_it_is_says_it_later(databases: list[Database]) -> None:
    writer = Writer(databases[0], "a", "http://10.0.0.1:1")
    assert writer.try_lead()
    with databases[1].session.begin() as session:
        session.execute(text("UPDATE writers SET address = 'http://10.0.0.2:1'"))
    assert writer.try_lead()
    with databases[1].reader.begin() as session:
        found = who_leads(session, "a")
    assert found is not None and found.address == "http://10.0.0.1:1"


@pytest.mark.asyncio
async def test_what_waited_for_a_frozen_writer_long_is_done_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = asyncio.Event()
    silent = await asyncio.start_server(lambda *_: heard.set(), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    own = SimpleNamespace(address="http://127.0.0.1:1")
    replica = SimpleNamespace(leading=False, leader=Leader(address, 1, 1), writer=own)
    passing = forwarding.Forwarding(replica)  # type: ignore[arg-type]
    # Longer than it would wait for somebody to be there at all.
    monkeypatch.setattr(forwarding, "WAIT", 0.0)
    line = RequestStartLine("POST", "/jobs", "HTTP/1.1")
    headers = HTTPHeaders({"Host": "x", "Idempotency-Key": "k"})
    request = HTTPServerRequest(start_line=line, headers=headers)
    asked = asyncio.create_task(passing.ask(request, b"{}", "name"))
    try:
        await heard.wait()
        replica.leading = True
        assert await asked is None
    finally:
        asked.cancel()
        silent.close()
        await passing.close()


def test_only_quotes_are_posts_that_change_nothing() -> None:
    """What else should be here is decided by the writer: each replica would answer it alone."""
    asked = {
        (path, method)
        for path, handler in ROUTES
        for method in ("post", "put", "patch", "delete")
        if hasattr(found := getattr(handler, method), "endpoint") and not found.endpoint.writes
    }
    assert asked == {("quotes", "post"), ("reservations/{id}/extend/quote", "post")}
    reads = [h.get.endpoint.writes for _, h in ROUTES if hasattr(h.get, "endpoint")]
    assert reads and not any(reads)


def test_who_may_not_depose_is_told_what_to_do(
    databases: list[Database], postgres: PostgresServer
) -> None:
    writer = Writer(databases[0], "a")
    assert writer.try_lead()
    postgres.execute("CREATE ROLE weak LOGIN")
    weak = Database(databases[0].url.set(username="weak"))
    try:
        with weak.reader.begin() as session:
            process = holder(session, "a")
            assert process is not None
            with pytest.raises(Forbidden, match="pg_signal_backend"):
                depose(session, "a", process)
        with databases[1].reader.begin() as session:
            assert holder(session, "b") is None
            assert not depose(session, "a", process + 1)
            assert depose(session, "a", process)
    finally:
        weak.close()
        postgres.execute("DROP ROLE weak")
    assert Writer(databases[1], "a").try_lead()


@pytest.mark.parametrize(
    ("address", "listens", "found"),
    [
        ("", "http://127.0.0.1:10101", "http://127.0.0.1:10101"),
        ("", "http://10.0.0.5:10101/", "http://10.0.0.5:10101"),
        ("https://era-1.example.org/", "http://0.0.0.0:80", "https://era-1.example.org"),
        ("http://[::1]:8000", "http://0.0.0.0:80", "http://[::1]:8000"),
    ],
)
def test_where_the_others_find_it(address: str, listens: str, found: str) -> None:
    assert reachable(address, listens) == found


@pytest.mark.parametrize(
    ("address", "listens"),
    [
        ("", "http://0.0.0.0:10101"),
        ("", "http://[::]:10101"),
        ("", "http://:10101"),
        ("http://0.0.0.0:1", "http://127.0.0.1:1"),
        ("10.0.0.5:10101", "http://127.0.0.1:1"),
        ("ftp://10.0.0.5", "http://127.0.0.1:1"),
        ("http://10.0.0.5/era", "http://127.0.0.1:1"),
        ("http://10.0.0.5:many", "http://127.0.0.1:1"),
        ("http://me:secret@10.0.0.5", "http://127.0.0.1:1"),
    ],
)
def test_an_address_that_leads_nowhere_is_a_clear_error(address: str, listens: str) -> None:
    with pytest.raises(ConfigurationError, match="EraHub.address.* such as http://") as caught:
        reachable(address, listens)
    assert "secret" not in str(caught.value)
