"""The choices of somebody who launches a server are untrusted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from era_spawner.options import NewServer, OptionsError, OwnReservation, from_form, parse

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
GOOD = {"configuration": "gpu-1", "duration": "1h30m", "max_price": "2.5"}


def test_new_server():
    choice = parse({**GOOD, "latest_start": "2030-01-31T22:00:00+01:00"})
    assert isinstance(choice, NewServer)
    request = choice.request("ann", "train", NOW)
    assert (request.user, request.server_name) == ("ann", "train")
    assert (request.configuration, request.duration, request.value) == ("gpu-1", 5400, 2_500_000)
    assert request.deadline == datetime(2030, 1, 31, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize("latest", [None, "2030-01-31T11:59:00Z"])
def test_without_a_latest_start_ahead_it_is_now_or_not_at_all(latest):
    assert parse({**GOOD, "latest_start": latest}).request("ann", "", NOW).deadline is None


def test_who_pays():
    options = from_form(form(**GOOD, account="group:lab"), NOW)
    assert options["account"] == "group:lab"
    assert parse(options).request("ann", "", NOW).account == "group:lab"
    assert parse(GOOD).request("ann", "", NOW).account is None
    with pytest.raises(OptionsError, match="own or group:NAME, not 'lab'"):
        parse({**GOOD, "account": "lab"})


def test_own_reservation():
    assert parse({"reservation": "abc-1"}) == OwnReservation(reservation="abc-1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "which configuration"),
        (None, "names with values"),
        ([1], "names with values"),
        ({**GOOD, "configuration": ""}, "configuration"),
        ({**GOOD, "configuration": 5}, "configuration"),
        ({**GOOD, "configuration": "x" * 201}, "configuration"),
        ({**GOOD, "duration": "-1h"}, "duration"),
        ({**GOOD, "duration": "soon"}, "duration"),
        ({**GOOD, "duration": 0}, "duration"),
        ({**GOOD, "duration": float("nan")}, "duration"),
        ({**GOOD, "duration": "9" * 400}, "duration"),
        ({**GOOD, "duration": None}, "duration"),
        ({**GOOD, "max_price": "-1"}, "most you will pay"),
        ({**GOOD, "max_price": "nan"}, "most you will pay"),
        ({**GOOD, "max_price": "1e400"}, "most you will pay"),
        ({**GOOD, "max_price": "much"}, "most you will pay"),
        ({**GOOD, "max_price": {"$gt": 0}}, "most you will pay"),
        ({**GOOD, "latest_start": "tomorrow"}, "latest start"),
        ({**GOOD, "latest_start": "2030-01-31T22:00:00"}, "latest start"),
        ({**GOOD, "latest": "2030-01-31T22:00:00Z"}, "'latest' is not an option"),
        ({"configuration": "gpu-1", "duration": "1h"}, "most you will pay"),
        ({"configuration": "gpu-1", "max_price": "1"}, "for how long"),
        ({"reservation": ""}, "no such reservation"),
        ({"reservation": "../user"}, "no such reservation"),
        ({"reservation": ["r"]}, "reservation"),
        ({**GOOD, "reservation": "r"}, "not an option"),
    ],
)
def test_bad_options_give_one_clear_sentence(options, words):
    with pytest.raises(OptionsError) as caught:
        parse(options)
    text = str(caught.value)
    assert words in text
    assert text.endswith(".") and "\n" not in text
    assert "pydantic" not in text and "Value error" not in text


def test_latest_start_beyond_the_calendar():
    choice = parse({**GOOD, "duration": "2d", "latest_start": "9999-12-31T23:00:00Z"})
    with pytest.raises(OptionsError, match="too far in the future"):
        choice.request("ann", "", NOW)


def test_names_the_service_would_not_take():
    with pytest.raises(OptionsError):
        parse(GOOD).request("ann", "s" * 201, NOW)


def form(**fields: str) -> dict[str, list[str]]:
    return {key: [value] for key, value in fields.items()}


def test_form():
    options = from_form(
        form(configuration="gpu-1", hours="1.5", within="0", max_price=" 2.5 ", latest_local=""),
        NOW,
    )
    assert options == {"configuration": "gpu-1", "duration": "5400s", "max_price": "2.5"}
    assert parse(options).duration == 5400


def test_form_start_within_hours():
    options = from_form(form(within="4", latest_start="2031-01-01T00:00:00Z"), NOW)
    assert datetime.fromisoformat(options["latest_start"]) == NOW + timedelta(hours=4)


def test_form_start_at():
    stamp = "2030-01-31T22:00:00.000Z"
    options = from_form(form(within="at", latest_start=stamp, latest_local="2030-01-31T23:00"), NOW)
    assert options["latest_start"] == stamp


def test_form_without_script_takes_the_hubs_zone():
    options = from_form(form(within="at", latest_start="", latest_local="2030-01-31T23:00"), NOW)
    local = datetime(2030, 1, 31, 23).astimezone()
    assert datetime.fromisoformat(options["latest_start"]) == local


def test_form_with_a_reservation_drops_the_rest():
    assert from_form(form(reservation="r-1", configuration="gpu-1", hours="x"), NOW) == {
        "reservation": "r-1"
    }
    assert from_form(form(reservation="", configuration="gpu-1"), NOW) == {"configuration": "gpu-1"}


def test_query_takes_the_schema_itself():
    query = form(**GOOD, latest_start="2030-01-31T22:00:00Z", _xsrf="x")
    assert from_form(query, NOW) == {**GOOD, "latest_start": "2030-01-31T22:00:00Z"}


@pytest.mark.parametrize(
    "fields",
    [
        {"hours": "-1"},
        {"hours": "nan"},
        {"hours": "inf"},
        {"hours": "two"},
        {"within": "soon"},
        {"within": "1e300"},
        {"within": "at"},
        {"within": "at", "latest_local": "25 o'clock"},
    ],
)
def test_bad_form_gives_one_clear_sentence(fields):
    with pytest.raises(OptionsError) as caught:
        from_form(form(**fields), NOW)
    assert str(caught.value).endswith(".")


def test_uploads_and_empty_lists_are_no_choices():
    assert from_form({"configuration": [], "hours": [{"body": b"1"}], "max_price": None}, NOW) == {}
