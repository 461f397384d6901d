"""Deadlines and times."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_extension.times import format_span, format_when, parse_deadline

NEW_YORK = ZoneInfo("America/New_York")
BERLIN = ZoneInfo("Europe/Berlin")
CAIRO = ZoneInfo("Africa/Cairo")  # puts its clock back over midnight
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18:00", "2026-03-02T18:00+00:00"),
        (" 18:00 ", "2026-03-02T18:00+00:00"),
        ("9:05", "2026-03-03T09:05+00:00"),
        ("12:00", "2026-03-03T12:00+00:00"),
        ("0:00", "2026-03-03T00:00+00:00"),
        ("today 18:00", "2026-03-02T18:00+00:00"),
        ("tomorrow 9:00", "2026-03-03T09:00+00:00"),
        ("Tomorrow  18:00", "2026-03-03T18:00+00:00"),
        ("+4h", "2026-03-02T16:00+00:00"),
        ("+1h30m", "2026-03-02T13:30+00:00"),
        ("+ 90", "2026-03-02T12:01:30+00:00"),
        ("2026-03-05T18:00", "2026-03-05T18:00+00:00"),
        ("2026-03-05 18:00", "2026-03-05T18:00+00:00"),
        ("2026-03-05T18:00Z", "2026-03-05T18:00+00:00"),
        ("2026-03-05T18:00+02:00", "2026-03-05T16:00+00:00"),
        (NOON.replace(day=5, hour=18, tzinfo=None), "2026-03-05T18:00+00:00"),
        (datetime(2026, 3, 5, 18, tzinfo=NEW_YORK), "2026-03-05T23:00+00:00"),
        (None, None),
        ("", None),
        ("  ", None),
    ],
)
def test_deadlines(text: str | datetime | None, expected: str | None) -> None:
    found = parse_deadline(text, now=NOON, zone=UTC)
    assert found == (expected and datetime.fromisoformat(expected))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("noon", "is not a deadline; write 18:00"),
        ("25:00", "hours go from 0 to 23"),
        ("18:60", "time of day"),
        ("+soon", "is not a duration"),
        ("+", "is not a duration"),
        ("+0m", "more than zero"),
        ("2026-03-05", "needs a time of day"),
        ("today 9:00", "has passed"),
        ("2026-03-01T18:00", "has passed"),
        ("2026-13-01T18:00", "is not a deadline"),
        ("+999999999999d", "more than zero|duration"),
    ],
)
def test_refusals_say_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_deadline(text, now=NOON, zone=UTC)


@pytest.mark.parametrize(
    ("zone", "now", "text", "expected"),
    [
        # 8 March 2026, 2:00 becomes 3:00 in New York: 2:30 is skipped, so as much later.
        (NEW_YORK, "2026-03-08T06:00+00:00", "2:30", "2026-03-08T07:30+00:00"),
        (NEW_YORK, "2026-03-08T06:00+00:00", "3:30", "2026-03-08T07:30+00:00"),
        (NEW_YORK, "2026-03-07T20:00+00:00", "tomorrow 9:00", "2026-03-08T13:00+00:00"),
        # Four hours are four hours.
        (NEW_YORK, "2026-03-08T06:00+00:00", "+4h", "2026-03-08T10:00+00:00"),
        # 25 October 2026, 3:00 becomes 2:00 in Berlin: 2:30 comes twice.
        (BERLIN, "2026-10-24T22:00+00:00", "2:30", "2026-10-25T00:30+00:00"),
        (BERLIN, "2026-10-25T00:45+00:00", "2:30", "2026-10-25T01:30+00:00"),
        (BERLIN, "2026-10-25T01:45+00:00", "2:30", "2026-10-26T01:30+00:00"),
        (BERLIN, "2026-10-25T00:45+00:00", "2026-10-25T02:30", "2026-10-25T01:30+00:00"),
        # The local date counts, not that of UTC.
        (NEW_YORK, "2026-03-03T02:00+00:00", "tomorrow 9:00", "2026-03-03T14:00+00:00"),
        # 29 October 2026, 24:00 becomes 23:00 in Cairo.
        (CAIRO, "2026-10-29T20:45+00:00", "23:30", "2026-10-29T21:30+00:00"),
    ],
)
def test_changes_of_the_clock(zone: ZoneInfo, now: str, text: str, expected: str) -> None:
    found = parse_deadline(text, now=datetime.fromisoformat(now), zone=zone)
    assert found == datetime.fromisoformat(expected)


moments = st.datetimes(
    NOON.replace(year=2020, tzinfo=None),
    NOON.replace(year=2035, tzinfo=None),
    timezones=st.just(UTC),
)
zones = st.sampled_from([UTC, NEW_YORK, BERLIN, CAIRO, ZoneInfo("Australia/Lord_Howe")])


@given(now=moments, zone=zones, hour=st.integers(0, 23), minute=st.integers(0, 59))
def test_a_time_of_day_is_the_next_one(
    now: datetime, zone: ZoneInfo, hour: int, minute: int
) -> None:
    found = parse_deadline(f"{hour}:{minute:02}", now=now, zone=zone)
    assert found is not None
    assert now < found <= now + timedelta(hours=26)
    local = found.astimezone(zone)
    skipped = local.utcoffset() != (found - timedelta(hours=3)).astimezone(zone).utcoffset()
    assert (local.hour, local.minute) == (hour, minute) or skipped


@given(now=moments, zone=zones, seconds=st.integers(1, 10**8))
def test_a_written_deadline_is_read_back(now: datetime, zone: ZoneInfo, seconds: int) -> None:
    moment = now + timedelta(seconds=seconds)
    assert parse_deadline(moment.astimezone(zone).isoformat(), now=now, zone=zone) == moment
    assert parse_deadline(f"+{seconds}", now=now, zone=zone) == moment


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_deadline(text, now=NOON, zone=UTC)
    except ValueError:
        return
    assert found is None or found > NOON


def test_the_zone_of_this_machine_has_its_rules() -> None:
    code = (
        "from datetime import datetime, UTC\n"
        "from era_extension.times import parse_deadline\n"
        "now = datetime(2026, 10, 24, 20, tzinfo=UTC)\n"
        "print(parse_deadline('tomorrow 9:00', now=now).isoformat())\n"
    )
    import os

    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TZ": "Europe/Berlin", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    # Summer time today, winter time tomorrow.
    assert answer.stdout.strip() == "2026-10-25T08:00:00+00:00"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (40, "40 s"), (1800, "30 min"), (5400, "1 h 30 min"), (90000, "1 d 1 h")],
)
def test_spans(seconds: int, text: str) -> None:
    assert format_span(seconds) == text


def test_a_deadline_is_shown_on_the_wall_clock() -> None:
    late = datetime(2026, 3, 3, 1, tzinfo=UTC)
    assert format_when(late, now=NOON, zone=NEW_YORK) == "20:00"
    assert format_when(late, now=NOON, zone=UTC) == "tomorrow 01:00"
