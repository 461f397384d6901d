"""The spawner's dealings with the service, over HTTP with a small one."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from jupyterhub.utils import maybe_future
from kubernetes_asyncio.client import ApiException
from tornado import web
from traitlets.config import Config

from era_hub.client import EraError
from era_spawner import EraLocalSpawner
from era_spawner.refusals import SpawnException

from .service import TOKEN, account, dump, market, now, reservation

CLAIM = "POST reservations/r-1/claim"
# After a claim the spawner looks what else the server holds.
OTHERS = "GET reservations"
RETURN = "DELETE reservations/r-1"


def is_running(one: Any) -> bool:
    return one.proc is not None if isinstance(one, EraLocalSpawner) else one._pod() is not None


async def refused(one: Any) -> SpawnException:
    with pytest.raises(SpawnException) as caught:
        await one.start()
    assert not is_running(one)
    # The hub does this after every failed start.
    await one.run_post_stop_hook()
    one.clear_state()
    return caught.value


@pytest.mark.asyncio
async def test_starts_on_the_reserved_gpus(service, start, kind):
    service.accept()
    one = start(environment={"CUDA_VISIBLE_DEVICES": "7", "ERA_TOKEN": "x", "MINE": "1"})
    await one.start()
    name, body, key = service.calls[0]
    assert name == "POST reservations" and key
    assert (body["user"], body["server_name"]) == ("ann", "")
    assert (body["configuration"], body["duration"], body["value"]) == ("gpu-2", 3600, 3_000_000)
    assert "arrival" not in body and "deadline" not in body
    assert service.names()[1:] == [CLAIM, OTHERS]
    env = await kind.environment(one)
    if kind.numbered:
        shown = {env["CUDA_VISIBLE_DEVICES"], env["NVIDIA_VISIBLE_DEVICES"], env["ERA_GPUS"]}
        assert shown == {"0,3"}
        assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    else:
        # The device plug-in says which, so nothing else may.
        assert not env.keys() & {"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ERA_GPUS"}
    assert (env["ERA_URL"], env["ERA_RESERVATION"]) == (service.url, "r-1")
    assert env["ERA_END"].endswith("+00:00")
    assert env["MINE"] == "1" and "ERA_TOKEN" not in env
    assert TOKEN not in str(env)
    assert one.get_state()["era_reservation"] == "r-1"


@pytest.mark.asyncio
async def test_without_gpus_none_are_shown(service, start, kind):
    service.accept()
    claimed = reservation(units=0, gpus=[], state="active")
    service.answers[CLAIM] = 200, dump(claimed)
    one = start()
    await one.start()
    env = await kind.environment(one)
    assert (env["CUDA_VISIBLE_DEVICES"], env["NVIDIA_VISIBLE_DEVICES"]) == ("", "none")


@pytest.mark.asyncio
async def test_environment_without_a_reservation(start):
    env = start().get_env()
    assert (env["CUDA_VISIBLE_DEVICES"], env["NVIDIA_VISIBLE_DEVICES"]) == ("", "none")
    assert "ERA_RESERVATION" not in env


@pytest.mark.asyncio
async def test_stop_gives_back_even_though_poll_clears_the_state(service, start):
    service.accept()
    one = start()
    await one.start()
    await one.stop(now=True)
    assert await one.poll() is not None
    await one.run_post_stop_hook()
    one.clear_state()
    assert service.names().count(RETURN) == 1
    assert "era_reservation" not in one.get_state()


@pytest.mark.asyncio
async def test_gives_back_after_a_restart_of_the_hub(service, start):
    service.accept()
    one = start()
    one.load_state({"pid": 0, "era_reservation": "r-1"})
    assert one.get_state()["era_reservation"] == "r-1"
    await one.run_post_stop_hook()
    assert service.names() == [RETURN]


@pytest.mark.asyncio
async def test_reserved_for_later_is_not_cancelled(service, start):
    service.accept(start=now() + timedelta(hours=3))
    latest = (now() + timedelta(hours=4)).isoformat()
    one = start(user_options={**start().user_options, "latest_start": latest})
    error = await refused(one)
    assert error.reason == "scheduled"
    assert "/@/space%20word/services/era/#reservation-r-1" in error.message
    assert service.names() == ["POST reservations"]
    assert service.calls[0][1]["deadline"]


@pytest.mark.asyncio
async def test_gpus_still_being_freed(service, start):
    service.accept()
    service.refuse(CLAIM, 409, "not yet")
    assert (await refused(start())).reason == "starting"
    assert RETURN not in service.names()


@pytest.mark.asyncio
async def test_declined(service, start):
    service.answers["POST reservations"] = 200, {"accepted": False, "price": 4_000_000}
    error = await refused(start())
    assert (error.reason, error.status_code) == ("price-too-low", 402)
    assert service.names() == ["POST reservations"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "refused"), (402, "refused"), (403, "unavailable"), (500, "unavailable")],
)
@pytest.mark.asyncio
async def test_errors_of_the_service(service, start, status, reason):
    service.refuse("POST reservations", status, "There is no configuration 'gpu-2'.")
    error = await refused(start())
    assert error.reason == reason and error.status_code < 500
    assert ("gpu-2" in error.message) is (reason == "refused")


@pytest.mark.asyncio
async def test_an_answer_that_makes_no_sense(service, start):
    service.answers["POST reservations"] = 200, {"unexpected": True}
    assert (await refused(start())).reason == "unavailable"


@pytest.mark.asyncio
async def test_each_attempt_has_its_own_key(service, start):
    service.answers["POST reservations"] = 200, {"accepted": False, "price": 4_000_000}
    one = start()
    await refused(one)
    await refused(one)
    keys = [key for _, _, key in service.calls]
    assert len(set(keys)) == 2 and all(keys)


@pytest.mark.asyncio
async def test_starts_on_a_reservation_made_before(service, start):
    service.accept(server_name="train")
    one = start(server_name="train", user_options={"reservation": "r-1"})
    await one.start()
    assert service.names() == ["GET reservations/r-1", CLAIM, OTHERS]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user": "anna"}, "no such reservation"),
        ({"kind": "job"}, "for a job"),
        ({"server_name": "other"}, "another server"),
        ({"state": "released"}, "has ended"),
    ],
)
@pytest.mark.asyncio
async def test_reservations_that_do_not_fit(service, start, changes, words):
    service.accept(**changes)
    error = await refused(start(user_options={"reservation": "r-1"}))
    assert error.reason == "bad-options" and words in error.message
    assert service.names() == ["GET reservations/r-1"]


@pytest.mark.asyncio
async def test_unknown_reservation(service, start):
    error = await refused(start(user_options={"reservation": "r-9"}))
    assert (error.reason, error.status_code) == ("bad-options", 400)


@pytest.mark.asyncio
async def test_future_reservation_stays(service, start):
    service.accept(start=now() + timedelta(hours=1))
    assert (await refused(start(user_options={"reservation": "r-1"}))).reason == "scheduled"
    assert service.names() == ["GET reservations/r-1"]


@pytest.mark.parametrize(
    ("options", "returned"),
    [({"reservation": "r-1"}, False), (None, True)],
)
@pytest.mark.asyncio
async def test_failed_claim_gives_back_only_what_this_start_bought(
    service, start, options, returned
):
    service.accept()
    service.refuse(CLAIM, 500, "broken")
    one = start(**({"user_options": options} if options else {}))
    assert (await refused(one)).reason == "unavailable"
    assert (RETURN in service.names()) is returned


@pytest.mark.asyncio
async def test_what_can_not_start_gives_back(service, start, kind):
    service.accept()
    with pytest.raises((FileNotFoundError, ApiException)):
        await start(**kind.breaks()).start()
    assert service.names() == ["POST reservations", CLAIM, OTHERS, RETURN]


@pytest.mark.parametrize("call", ["POST reservations", CLAIM])
@pytest.mark.asyncio
async def test_cancel_gives_back(service, start, call):
    service.accept()
    answer = service.answers[call]
    arrived = asyncio.Event()

    async def slow():
        arrived.set()
        await asyncio.sleep(0.3)
        return answer

    service.answers[call] = slow
    one = start()
    task = asyncio.ensure_future(one.start())
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(one)
    assert service.names()[-1] == RETURN


@pytest.mark.asyncio
async def test_service_down_at_stop_is_harmless(service, start, caplog, monkeypatch):
    service.accept()
    one = start()
    one.log = logging.getLogger("test-spawner")
    await one.start()
    await one.stop(now=True)
    one.era_url = "http://127.0.0.1:1"
    await one.run_post_stop_hook()
    assert "could not be given back" in caplog.text
    assert TOKEN not in caplog.text
    # The next try succeeds, once the service is back.
    one.era_url = service.url
    await one.run_post_stop_hook()
    await one.run_post_stop_hook()
    assert service.names().count(RETURN) == 1


@pytest.mark.asyncio
async def test_stop_waits_no_longer_than_release_timeout(service, start):
    service.accept()

    async def never():
        await asyncio.sleep(5)
        return 200, {}

    service.answers[RETURN] = never
    one = start(release_timeout=0.2)
    one.load_state({"era_reservation": "r-1"})
    await asyncio.wait_for(one.run_post_stop_hook(), 2)


@pytest.mark.asyncio
async def test_service_down_at_start_and_form(start):
    one = start(url="http://127.0.0.1:1")
    assert (await refused(one)).reason == "unavailable"
    assert "can&#39;t be reached" in await one.get_options_form()
    one = start(url="", era_token="")
    assert (await refused(one)).reason == "unavailable"
    assert "can&#39;t be reached" in await one.get_options_form()


@pytest.mark.parametrize("hook", ["sync", "async", "failing"])
@pytest.mark.asyncio
async def test_post_stop_hook_is_chained(service, start, hook):
    service.accept()
    ran = []

    async def later(spawner):
        ran.append(spawner)

    def fail(spawner):
        ran.append(spawner)
        raise RuntimeError("of the administrator's own")

    one = start(post_stop_hook={"sync": ran.append, "async": later, "failing": fail}[hook])
    one.load_state({"era_reservation": "r-1"})
    await one.run_post_stop_hook()
    assert ran == [one]
    assert service.names() == [RETURN]


@pytest.mark.asyncio
async def test_progress(service, start, kind):
    service.accept()
    one = start()
    events = one.progress()
    assert (await anext(events))["progress"] == 5
    waiting = asyncio.ensure_future(anext(events))
    await one.start()
    event = await waiting
    which = " (0, 3)" if kind.numbered else ""
    assert event["message"].startswith(f"Reserved 2 GPUs{which} until ")
    assert event["message"].endswith(" for 2.40 credits")
    assert "<time" in event["html_message"]
    if kind.numbered:
        # The local spawner's own; that of pods has what Kubernetes says, and here says nothing.
        assert (await anext(events))["message"] == "Spawning server..."
    else:
        assert [event async for event in events] == []


@pytest.mark.asyncio
async def test_form(service, start):
    service.answers["GET market"] = 200, dump(market())
    service.answers["GET accounts"] = 200, [dump(account()), dump(account("group:lab"))]
    others = reservation(id="r-7", server_name="other")
    service.answers["GET reservations"] = 200, [dump(reservation()), dump(others)]
    html = await start().get_options_form()
    assert 'value="r-1"' in html and 'value="r-7"' not in html
    assert 'href="/@/space%20word/services/era/"' in html
    assert 'value="group:lab"' in html
    assert TOKEN not in html


def read_image(form_data):
    return {"image": form_data["image"][0]}


async def read_image_later(form_data):
    return read_image(form_data)


@pytest.mark.parametrize("read", [read_image, read_image_later], ids=["sync", "async"])
@pytest.mark.asyncio
async def test_a_configured_form_is_kept(service, start, read):
    service.accept()
    service.answers["GET market"] = 200, dump(market())
    service.answers["GET accounts"] = 200, [dump(account())]
    service.answers["GET reservations"] = 200, []
    one = start(options_form='<input name="image">', options_from_form=read)
    html = await one.get_options_form()
    assert html.index('name="configuration"') < html.index('<input name="image">')
    fields = {"configuration": ["gpu-2"], "hours": ["2"], "max_price": ["3"], "image": ["a/b"]}
    expected = {"configuration": "gpu-2", "duration": "7200s", "max_price": "3", "image": "a/b"}
    assert await maybe_future(one.run_options_from_form(fields)) == expected
    assert await maybe_future(one.options_from_query(fields)) == expected
    one.user_options = expected
    await one.start()
    assert one.get_env()["ERA_RESERVATION"] == "r-1"


@pytest.mark.asyncio
async def test_options_from_form_and_query(start):
    one = start()
    fields = {"configuration": ["gpu-1"], "hours": ["2"], "within": ["0"], "max_price": ["1"]}
    expected = {"configuration": "gpu-1", "duration": "7200s", "max_price": "1"}
    assert one.run_options_from_form(fields) == expected
    assert one.options_from_query(fields) == expected
    with pytest.raises(web.HTTPError) as caught:
        one.run_options_from_form({"hours": ["-1"]})
    assert caught.value.reason == "bad-options"


@pytest.mark.asyncio
async def test_bad_options_never_reach_the_service(service, start):
    error = await refused(start(user_options={"configuration": "gpu-1", "duration": "x"}))
    assert (error.reason, error.status_code) == ("bad-options", 400)
    assert service.names() == []


@pytest.mark.asyncio
async def test_the_hub_sees_that_options_are_handled(start, caplog):
    one = start()
    one.log = logging.getLogger("test-spawner")
    await one._run_apply_user_options({"configuration": "gpu-1", "cmd": ["evil"]})
    assert "unhandled" not in caplog.text and "evil" not in str(one.cmd)


def test_configured_for_all_market_spawners():
    config = Config()
    config.EraSpawnerMixin.era_url = "http://127.0.0.1:9"
    one = EraLocalSpawner(config=config)
    assert one.era_url == "http://127.0.0.1:9"
    assert "For example" in EraLocalSpawner.era_url.help


@pytest.mark.asyncio
async def test_missing_configuration_is_named(start):
    with pytest.raises(EraError, match="era_url and era_token"):
        start(url="")._era_client()
