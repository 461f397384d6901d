"""Deadlines and times as people write and read them.

This is the one place where a text such as ``18:00`` becomes an instant. A time
without a zone is a time on the wall clock of this machine.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from era_hub.models import parse_duration

HELP = "18:00, 'tomorrow 9:00', +4h, or a date and time such as 2026-03-01T18:00"
"""The forms of a deadline, for help texts and error messages."""

_CLOCK = re.compile(r"^(?:(?P<day>today|tomorrow)\s+)?(?P<h>\d{1,2}):(?P<m>\d{2})$", re.IGNORECASE)


def parse_deadline(
    value: str | datetime | None,
    *,
    now: datetime | None = None,
    zone: tzinfo | None = None,
) -> datetime | None:
    """The instant, in UTC, that a person means by a deadline.

    Parameters
    ----------
    value : str, datetime or None
        ``"18:00"`` (the next time the clock shows it), ``"today 18:00"``,
        ``"tomorrow 9:00"``, ``"+4h"`` (from now), an ISO 8601 date with a time, or
        a datetime. None and the empty text mean no deadline.
    now : datetime, optional
        The present, with a time zone. Default: the clock.
    zone : tzinfo, optional
        Zone of times that name none. Default: that of this machine.

    Returns
    -------
    datetime or None
        In UTC, and later than `now`.

    Raises
    ------
    ValueError
        If the text is no deadline, or the deadline has passed.

    Notes
    -----
    Where clocks are put forward, a time that is skipped means as much later; where
    they are put back, a time that comes twice means the first that is still ahead.

    Examples
    --------
    >>> noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    >>> parse_deadline("18:00", now=noon, zone=UTC).isoformat()
    '2026-03-02T18:00:00+00:00'
    >>> parse_deadline("9:00", now=noon, zone=UTC).isoformat()
    '2026-03-03T09:00:00+00:00'
    >>> parse_deadline("+1h30m", now=noon).isoformat()
    '2026-03-02T13:30:00+00:00'
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    now = (now or datetime.now(UTC)).astimezone(UTC)
    try:
        deadline = _instant(value, now, zone)
    except OverflowError:
        raise ValueError(f"the deadline {value} is out of range") from None
    if deadline <= now:
        raise ValueError(f"the deadline {value} has passed")
    return deadline


def _instant(value: str | datetime, now: datetime, zone: tzinfo | None) -> datetime:
    if isinstance(value, datetime):
        return _aware(value, now, zone)
    text = value.strip()
    if text.startswith("+"):
        return now + timedelta(seconds=parse_duration(text[1:]))
    if clock := _CLOCK.match(text):
        return _next(clock, text, now, zone)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{value!r} is not a deadline; write {HELP}") from None
    if _is_date(text):
        # Midnight at which end of the day? Guessing wrong costs a day.
        raise ValueError(f"the deadline {value!r} needs a time of day, such as {text}T18:00")
    return _aware(moment, now, zone)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _next(clock: re.Match[str], text: str, now: datetime, zone: tzinfo | None) -> datetime:
    """The next instant at which the wall clock shows the time."""
    try:
        wall = time(int(clock["h"]), int(clock["m"]))
    except ValueError:
        raise ValueError(f"{text!r} is not a time of day; hours go from 0 to 23") from None
    today = now.astimezone(zone).date()
    named = {"today": (0,), "tomorrow": (1,)}.get((clock["day"] or "").lower())
    for days in named or (0, 1):
        moment = _aware(datetime.combine(today + timedelta(days), wall), now, zone)
        if moment > now or named:
            return moment
    # Left only where the clock is put back over midnight; the day after will do.
    return _aware(datetime.combine(today + timedelta(2), wall), now, zone)


def _aware(moment: datetime, now: datetime, zone: tzinfo | None) -> datetime:
    """`moment` in UTC; without a zone it is a time on the wall clock of `zone`."""
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    first, second = (_from_wall(moment.replace(fold=fold), zone) for fold in (0, 1))
    # `second` is later only where the clock shows this time twice.
    return second if first <= now < second else first


def _from_wall(moment: datetime, zone: tzinfo | None) -> datetime:
    if zone is None:
        # Without arguments, astimezone applies this machine's rules of that date;
        # the zone of datetime.now().astimezone() would be fixed to today's offset.
        return moment.astimezone().astimezone(UTC)
    return moment.replace(tzinfo=zone).astimezone(UTC)


def format_when(
    moment: datetime, *, now: datetime | None = None, zone: tzinfo | None = None
) -> str:
    """A time for people: the hour today, else with the day.

    Examples
    --------
    >>> noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    >>> format_when(datetime(2026, 3, 2, 18, tzinfo=UTC), now=noon, zone=UTC)
    '18:00'
    >>> format_when(datetime(2026, 3, 3, 2, tzinfo=UTC), now=noon, zone=UTC)
    'tomorrow 02:00'
    >>> format_when(datetime(2026, 3, 6, 2, tzinfo=UTC), now=noon, zone=UTC)
    'Fri 6 Mar 02:00'
    """
    local = moment.astimezone(zone)
    today = (now or datetime.now(UTC)).astimezone(zone).date()
    days = (local.date() - today).days
    if days == 0:
        return f"{local:%H:%M}"
    if days == 1:
        return f"tomorrow {local:%H:%M}"
    return f"{local:%a} {local.day} {local:%b %H:%M}"


def format_span(seconds: float) -> str:
    """A length of time for people.

    Examples
    --------
    >>> format_span(5400)
    '1 h 30 min'
    >>> format_span(40)
    '40 s'
    """
    if seconds < 60:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
