"""Servers that run: their end, and what a hub does that knows too little of them."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from era_spawner.mixin import LOOK

from .service import dump, now, reservation

ASK = "GET reservations/r-1"
RETURN = "DELETE reservations/r-1"
LONG_AGO = {"start": now() - timedelta(hours=5)}
"""A reservation of an hour is over then."""


async def started(service, start, **traits):
    service.accept()
    one = start(**traits)
    one.log = logging.getLogger("test-spawner")
    await one.start()
    return one


@pytest.mark.asyncio
async def test_a_server_whose_time_is_long_over_is_stopped(service, start, kind, caplog):
    one = await started(service, start)
    assert await one.poll() is None
    one._era_end = now() - timedelta(seconds=one.overdue_grace + 1)
    service.answers[ASK] = 200, dump(reservation(state="active", **LONG_AGO))
    assert await one.poll() == 0
    assert not kind.runs(one) and "still runs: stopped" in caplog.text
    assert await one.poll() is not None


@pytest.mark.asyncio
async def test_the_service_has_its_grace(service, start, kind):
    one = await started(service, start)
    one._era_end = now() - timedelta(seconds=5)
    service.answers[ASK] = 200, dump(reservation(state="active", end=one._era_end))
    assert await one.poll() is None and kind.runs(one)


@pytest.mark.asyncio
async def test_an_extension_is_heeded_and_kept(service, start, kind):
    one = await started(service, start)
    longer = now() + timedelta(hours=9)
    service.answers[ASK] = 200, dump(reservation(state="active", end=longer))
    one._era_end = now() - timedelta(hours=3)
    assert await one.poll() is None and kind.runs(one)
    assert one.orm_spawner.state["era_end"] == longer.isoformat()
    # It is asked again now and then only.
    before = service.names().count(ASK)
    assert await one.poll() is None
    assert service.names().count(ASK) == before
    one._era_look -= LOOK
    assert await one.poll() is None
    assert service.names().count(ASK) == before + 1


@pytest.mark.asyncio
async def test_what_ended_early_counts(service, start, kind):
    one = await started(service, start)
    released = reservation(state="released", ended=now() - timedelta(hours=1))
    service.answers[ASK] = 200, dump(released)
    assert await one.poll() == 0 and not kind.runs(one)


@pytest.mark.parametrize(("hours", "status"), [(-3, 0), (3, None)])
@pytest.mark.asyncio
async def test_without_the_service_the_last_end_known_counts(service, start, hours, status):
    one = await started(service, start)
    one.era_url = "http://127.0.0.1:1"
    state = {**one.get_state(), "era_end": (now() + timedelta(hours=hours)).isoformat()}
    one.load_state(state)
    assert await one.poll() == status


@pytest.mark.asyncio
async def test_an_end_that_nobody_knows_stops_nothing(service, start):
    one = await started(service, start)
    one._era_end = None
    service.answers[ASK] = 404, {"detail": "no such reservation"}
    assert await one.poll() is None


@pytest.mark.asyncio
async def test_what_the_server_held_before_is_given_back(service, start):
    """A hub that was killed in the middle of a start does not know of its reservation."""
    mine = reservation(state="active")
    left = reservation(id="r-0", state="active")
    booked = reservation(id="r-2", start=now() + timedelta(hours=3))
    other = reservation(id="r-3", state="active", server_name="other")
    service.answers["GET reservations"] = 200, [dump(one) for one in (mine, left, booked, other)]
    service.answers["DELETE reservations/r-0"] = 200, dump(left)
    await started(service, start)
    given_back = [name for name in service.names() if name.startswith("DELETE")]
    assert given_back == ["DELETE reservations/r-0"]


@pytest.mark.asyncio
async def test_other_choices_come_back_with_the_reservation(service, start, kind):
    """The service starts a server with the id of its reservation, and with nothing else."""
    traits = {"options_form": '<input name="image">'}
    service.accept(start=now() + timedelta(hours=3))
    latest = (now() + timedelta(hours=4)).isoformat()
    one = start(**traits)
    one.user_options = {**one.user_options, "latest_start": latest, "image": "a/b"}
    with pytest.raises(Exception, match="Reserved"):
        await one.start()
    await one.run_post_stop_hook()
    one.clear_state()

    later = start(**traits)
    later.load_state(one.get_state())
    later.user_options = {"reservation": "r-1"}
    assert later.user_options == {"reservation": "r-1", "image": "a/b"}
    later.user_options = {"reservation": "r-1", "image": "c/d"}
    assert later.user_options["image"] == "c/d"
    later.user_options = {"reservation": "r-2"}
    assert later.user_options == {"reservation": "r-2"}
