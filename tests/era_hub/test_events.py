"""Server-sent events: who hears of what, what a gap looks like, and when a stream ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from era_hub import models
from era_hub.changes import Change, Changes
from era_hub.client import EraClient
from tests.era_hub.watched_hub import direct, events, watched
from tests.running_hub import RunningHub

VALUE = 7_654_321


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with watched(tmp_path_factory.mktemp("hub")) as running:
        yield running


def reserve(client: EraClient) -> str:
    wanted = models.ReservationRequest(
        configuration="gpu-1",
        duration="10m",
        deadline=client.market(hours=5).horizon,
        value=VALUE,
        server_name=uuid4().hex,
    )
    made = client.reserve(wanted).reservation
    assert made is not None
    return made.id


# -- over the wire --------------------------------------------------------------------


def test_the_owner_hears_of_a_reservation_and_strangers_only_of_prices(hub: RunningHub) -> None:
    ann = hub.user_token("ann")
    with (
        events(hub, ann) as mine,
        events(hub, hub.user_token("bob")) as others,
        events(hub, hub.user_token("admin")) as admins,
        events(hub, hub.spawner_token) as spawners,
    ):
        streams = (mine, others, admins, spawners)
        assert mine.response.headers["Content-Type"] == "text/event-stream"
        for stream in streams:
            stream.until("prices")
        made = reserve(hub.client_with(ann))
        for stream in (mine, admins, spawners):
            told = stream.until("reservation")
            assert told["data"] == {"user": "ann", "id": made}
        others.until("prices")
        hub.client_with(ann).give_back(made)
        for stream in streams:
            stream.until("prices")
        assert made not in others.text
        assert "ann" not in others.text
        assert all(str(VALUE) not in stream.text for stream in streams)


def test_slots_begin_and_silence_is_kept_alive(hub: RunningHub) -> None:
    with events(hub, hub.user_token("ann")) as stream:
        stream.until("prices")
        begin = time.monotonic()
        stream.until("prices")
        # Slots last ten seconds.
        assert time.monotonic() - begin < 12
        assert ": still here" in stream.text


def test_prices_are_told_once_a_second_at_most(hub: RunningHub) -> None:
    client = hub.client("ann")
    with events(hub, hub.user_token("bob")) as stream:
        stream.until("prices")
        begin = time.monotonic()
        for _ in range(5):
            client.give_back(reserve(client))
        for _ in range(2):
            stream.until("prices")
        assert time.monotonic() - begin >= 1


def test_who_comes_back_is_told_what_was_missed(hub: RunningHub) -> None:
    token = hub.user_token("ann")
    with events(hub, token) as stream:
        last = stream.until("prices")["id"]
    made = reserve(hub.client_with(token))
    with events(hub, token, last) as stream:
        assert stream.until("reservation")["data"]["id"] == made
        assert "event: reset" not in stream.text
    hub.client_with(token).give_back(made)


@pytest.mark.parametrize("last", ["0badcafe-5", "nonsense", "-", "9" * 400])
def test_what_was_missed_may_be_unknown(hub: RunningHub, last: str) -> None:
    with events(hub, hub.user_token("ann"), last) as stream:
        first = stream.next()
        assert first is not None
        assert first["event"] == "reset"
        with events(hub, hub.user_token("ann"), first["id"]) as again:
            assert again.until("prices")
            assert "event: reset" not in again.text


def test_a_stream_ends_with_the_login(hub: RunningHub) -> None:
    answer = hub.http.post("/users/anna/tokens", json={})
    with events(hub, answer.json()["token"]) as stream:
        stream.until("prices")
        assert hub.http.delete(f"/users/anna/tokens/{answer.json()['id']}").is_success
        stream.rest()  # would time out if it went on


def test_a_user_has_so_many_streams_and_no_more(hub: RunningHub) -> None:
    token = hub.user_token("bob")
    with events(hub, token) as first, events(hub, token) as second:
        first.until("prices")
        second.until("prices")
        with events(hub, token) as third:
            assert third.response.status_code == 429
            assert int(third.response.headers["Retry-After"]) > 0
        with events(hub, hub.user_token("ann")) as another:
            assert another.response.status_code == 200
    # What was closed counts no longer, as soon as the service has noticed.
    deadline = time.monotonic() + 10
    while True:
        with events(hub, token) as again:
            if again.response.status_code == 200:
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_proxy_that_passes_on_whole_answers_gets_one(hub: RunningHub) -> None:
    token = hub.user_token("ann")
    url = f"{hub.url}services/era/api/v1/events"
    headers = {"Authorization": f"token {token}"}
    answer = httpx.get(url, params={"seconds": 0.5}, headers=headers, timeout=10)
    assert answer.status_code == 200
    assert "event: prices" in answer.text
    assert httpx.get(url, params={"seconds": 0}, headers=headers).status_code == 422


def test_without_login_there_is_no_stream(hub: RunningHub) -> None:
    with events(hub, "0" * 32) as stream:
        assert stream.response.status_code == 401


# -- in the process -------------------------------------------------------------------


def run(test: object) -> None:
    asyncio.run(asyncio.wait_for(test, 20))  # type: ignore[arg-type]


def test_changes_come_from_any_thread_in_their_order() -> None:
    async def test() -> None:
        changes = Changes(kept=10_000)

        def publish(name: str) -> None:
            for number in range(500):
                changes.publish(Change("job", name, str(number)))

        with changes.subscribe() as listener:
            threads = [threading.Thread(target=publish, args=(name,)) for name in "abc"]
            for thread in threads:
                thread.start()
            heard: dict[str, list[int]] = {"a": [], "b": [], "c": []}
            while sum(map(len, heard.values())) < 1500:
                for event in await listener.next():
                    assert event.change is not None
                    heard[str(event.change.user)].append(int(str(event.change.id)))
        assert all(each == list(range(500)) for each in heard.values())

    run(test())


def test_a_slow_listener_is_told_that_it_missed_something() -> None:
    async def test() -> None:
        changes = Changes(kept=4)
        with changes.subscribe() as slow, changes.subscribe() as quick:
            for number in range(4):
                changes.publish(Change("job", "ann", str(number)))
            assert len(await quick.next()) == 4
            changes.publish(Change("job", "ann", "5"))
            assert [event.change for event in await slow.next()] == [None]
            # From there on it goes on as if nothing had been.
            assert [event.change for event in await quick.next()] == [Change("job", "ann", "5")]
            changes.publish(Change("job", "ann", "6"))
            assert [event.change for event in await slow.next()] == [Change("job", "ann", "6")]

    run(test())


def test_a_place_is_worth_nothing_to_another_process() -> None:
    async def test() -> None:
        old, new = Changes(), Changes()
        for changes in (old, new):
            changes.publish(Change("prices"), Change("prices"))
        with old.subscribe() as listener:
            place = listener.id
        with old.subscribe(place) as listener:
            old.publish(Change("prices"))
            assert [event.change for event in await listener.next()] == [Change("prices")]
        with new.subscribe(place) as listener:
            assert [event.change for event in await listener.next()] == [None]

    run(test())


# -- in the page ----------------------------------------------------------------------

LISTEN = """async ([token, module]) => {
    window.told = 0;
    window.open_ = null;
    const { listen } = await import(module);
    const headers = { Authorization: `token ${token}` };
    const url = module.replace("static/events.js", "api/v1/events");
    window.over = false;
    listen(url, headers, () => window.told++, (open) => { window.open_ = open; })
        .then(() => { window.over = true; });
}"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


def listen(browser: Browser, base: str, token: str) -> Page:
    page = browser.new_page()
    page.goto(f"{base}static/era.css")
    page.evaluate(LISTEN, [token, f"{base}static/events.js"])
    return page


@pytest.mark.browser
def test_the_page_hears_of_changes_until_the_login_ends(hub: RunningHub, browser: Browser) -> None:
    made = hub.http.post("/users/anna/tokens", json={}).json()
    page = listen(browser, direct(hub).removesuffix("api/v1/"), made["token"])
    page.wait_for_function("window.open_ === true")
    told = page.evaluate("window.told")
    client = hub.client_with(made["token"])
    client.give_back(reserve(client))
    page.wait_for_function(f"window.told >= {told} + 2")
    assert hub.http.delete(f"/users/anna/tokens/{made['id']}").is_success
    page.wait_for_function("window.open_ === false")
    page.close()


@pytest.mark.browser
def test_the_page_does_not_listen_through_a_proxy_that_hears_ends_only(
    hub: RunningHub, browser: Browser
) -> None:
    page = listen(browser, f"{hub.url}services/era/", hub.user_token("ann"))
    page.wait_for_function("window.over === true")
    assert page.evaluate("window.open_") is None
    page.close()
