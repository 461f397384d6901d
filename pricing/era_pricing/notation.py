"""How durations, times, amounts and quantities are written in documents.

Every reader takes what a JSON or YAML file may hold and gives integers, or
raises a ValueError that says what would work. Every writer gives a text that
its reader turns into the same number. The patterns are regular expressions
that Python and JSON Schema (ECMA-262) understand alike; they have no anchors.
"""

from __future__ import annotations

import re
import reprlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real

from era_pricing.bids import LATEST, MOST_VALUE
from era_pricing.configurations import base_units, parse_quantity

MICRO = 1_000_000
"""Micro-credits in a credit."""
DECIMALS = 6
"""Decimals of an amount in credits."""
MOST_QUANTITY = 10**18
"""The greatest quantity of a resource, in base units."""

_N = "[0-9]{1,9}"
_SHORT = f"(?=[0-9])({_N}d)?({_N}h)?({_N}(m|min))?({_N}s)?"
_ISO = f"P(?=[0-9T])({_N}W|({_N}D)?(T(?=[0-9])({_N}H)?({_N}M)?({_N}S)?)?)"
DURATION = f"({_SHORT}|{_ISO})"
"""For example ``1h30min`` or ``PT1H30M``."""
_DAY = "(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.0{1,9})?)?"
_MOMENT = f"{_DAY}T{_CLOCK}"
TIME = rf"(\+{DURATION}|{_MOMENT}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))"
"""For example ``2026-01-05T08:00:00Z``, or ``+2h`` after the submission."""
CREDITS = rf"[0-9]{{1,12}}(\.[0-9]{{1,{DECIMALS}}})?"
"""For example ``12.50``."""
_NUMBER = r"([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})"
QUANTITY = rf"(?=[0.]*[1-9]){_NUMBER}([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{{1,2}})?"
"""A Kubernetes quantity above 0, for example ``500m`` or ``6Gi``."""
RESOURCE = "([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
"""The name of a Kubernetes resource, for example ``nvidia.com/gpu``."""

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "min": 60, "m": 60, "s": 1}
_PART = re.compile("([0-9]+)([a-z]+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMAL = ("", "k", "M", "G", "T", "P", "E")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
_FAR = 40

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def shown(value: object) -> str:
    """An object as in `repr`, cut where it is long; a decimal number as it was written."""
    return str(value) if isinstance(value, Decimal) else _short.repr(value)


def exact(value: object) -> Fraction | None:
    """The number that a document holds, as it is written there; None if it is none.

    A float counts as its shortest decimal text. NaN, infinities and bools are
    no numbers. Beyond 10**40, and closer than 10**-40 to 0, another number
    that is just as far out stands for it, so that ``1e999999999`` costs nothing.
    """
    if type(value) is int:
        return _in_reach(Decimal(value))
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    if isinstance(value, Decimal):
        return _in_reach(value)
    return _in_reach(Decimal(int(value) if isinstance(value, Integral) else repr(float(value))))


def _in_reach(number: Decimal) -> Fraction | None:
    if not number.is_finite():
        return None
    if number and abs(number.adjusted()) > _FAR:
        far = Fraction(10) ** (_FAR if number.adjusted() > 0 else -_FAR)
        return -far if number < 0 else far
    return Fraction(number)


def _whole(value: object) -> int | None:
    number = exact(value)
    return int(number) if number is not None and number.denominator == 1 else None


def _matches(pattern: str, value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


def read_duration(value: object, least: int = 1) -> int:
    """Seconds from a number of seconds or a text such as ``90s`` or ``PT2H``.

    Parameters
    ----------
    value
        What the document holds.
    least
        The shortest duration that is taken, in seconds.

    Raises
    ------
    ValueError
        If it is no duration, or too short or long.

    Examples
    --------
    >>> read_duration("1h30min")
    5400
    """
    seconds = _whole(value)
    if isinstance(value, str) and _matches(DURATION, value):
        seconds = _seconds_in(value)
    if seconds is None:
        raise ValueError(
            "must be a duration: whole seconds, such as 5400, or a text such as "
            f"'90min', '1h30min', '2d' or 'PT1H30M'; got {shown(value)}"
        )
    if not least <= seconds <= LATEST:
        raise ValueError(f"must be from {least} to {LATEST} seconds, got {shown(value)}")
    return seconds


def _seconds_in(duration: str) -> int:
    parts = _PART.findall(duration.lower().replace("p", "").replace("t", ""))
    return sum(int(count) * _UNITS[unit] for count, unit in parts)


def write_duration(seconds: int) -> str:
    """Text of a duration, such as ``1h30min``.

    Examples
    --------
    >>> write_duration(5400)
    '1h30min'
    """
    text = ""
    for unit in ("d", "h", "min", "s"):
        count, seconds = divmod(seconds, _UNITS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def read_time(value: object, now: int) -> int:
    """UTC seconds from a number, a text or an aware `datetime` (which YAML makes of a text).

    Parameters
    ----------
    value
        What the document holds.
    now
        When the document was submitted, in UTC seconds; ``+2h`` is two hours later.

    Raises
    ------
    ValueError
        If it is no time, has no time zone, or is before 1970 or after 9999.
    """
    seconds = _whole(value)
    if isinstance(value, datetime):
        seconds = _seconds_of(value)
    elif isinstance(value, str) and _matches(TIME, value):
        if value.startswith("+"):
            seconds = now + _seconds_in(value[1:])
        else:
            seconds = _seconds_of(_calendar(value))
    elif isinstance(value, date) or _matches(f"{_DAY}([T ]{_CLOCK})?", value):
        raise ValueError(
            "must be a time of day with its time zone, such as '2026-01-05T08:00:00Z'; "
            f"got {shown(value)}"
        )
    if seconds is None:
        raise ValueError(
            "must be a time in whole seconds: UTC seconds, a text such as "
            "'2026-01-05T08:00:00Z', or '+2h' for two hours after the submission; "
            f"got {shown(value)}"
        )
    if not 0 <= seconds <= LATEST:
        raise ValueError(f"must be between the years 1970 and 9999, got {shown(value)}")
    return seconds


def _calendar(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be a day of the calendar, got {text!r}") from None


def _seconds_of(moment: datetime) -> int | None:
    if moment.utcoffset() is None:
        raise ValueError(
            "must be a time with its time zone, such as "
            f"'{moment.isoformat()}Z' for UTC; got '{moment.isoformat()}'"
        )
    since = moment - _EPOCH
    return None if since.microseconds else since // timedelta(seconds=1)


def write_time(seconds: int) -> str:
    """Text of a time in UTC, such as ``2026-01-05T08:00:00Z``."""
    return f"{(_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()}Z"


def read_credits(value: object) -> int:
    """Micro-credits from an amount in credits, a number or a text.

    Raises
    ------
    ValueError
        If it is no amount, is negative or too great, or has more than 6 decimals.

    Examples
    --------
    >>> read_credits("12.50")
    12500000
    """
    number = exact(value)
    if isinstance(value, str) and _matches(CREDITS, value):
        number = Fraction(value)
    if number is None or (number * MICRO).denominator != 1:
        raise ValueError(
            f"must be an amount in credits with at most {DECIMALS} decimals, "
            f"such as '12.50'; got {shown(value)}"
        )
    micro = int(number * MICRO)
    if not 0 <= micro <= MOST_VALUE:
        raise ValueError(f"must be from 0 to {MOST_VALUE // MICRO} credits, got {shown(value)}")
    return micro


def write_credits(micro: int) -> str:
    """Text of an amount in credits, as short as possible.

    Examples
    --------
    >>> write_credits(12_500_000)
    '12.5'
    """
    whole, rest = divmod(micro, MICRO)
    return f"{whole}.{rest:0{DECIMALS}d}".rstrip("0").rstrip(".")


def read_quantity(resource: str, value: object) -> str:
    """The one text that stands for a quantity, however it was written.

    Parameters
    ----------
    resource
        Its name: ``cpu`` is counted in thousandths, all others in whole units.
    value
        A text in Kubernetes notation, or a number.

    Returns
    -------
    str
        ``"500m"`` for ``"0.5"``, ``"1536Mi"`` for ``"1.5Gi"``: a whole number with
        the suffix that makes the text shortest, but no suffix below a million.

    Raises
    ------
    ValueError
        If the resource has no name that Kubernetes takes, or the value is no
        quantity above 0 or no whole number of base units.
    """
    if not _matches(RESOURCE, resource):
        raise ValueError("must be the name of a resource, such as cpu or nvidia.com/gpu")
    number = exact(value)
    if isinstance(value, str) and _matches(QUANTITY, value):
        number = parse_quantity(value)
    if number is None or number <= 0:
        raise ValueError(
            f"must be a quantity above 0, such as '2', '500m' or '6Gi'; got {shown(value)}"
        )
    base = number * base_units(resource, "1")
    if base.denominator != 1:
        unit = "milli-cores, such as '500m'" if resource == "cpu" else "units, such as '2'"
        raise ValueError(f"must be a whole number of {unit}; got {shown(value)}")
    if base > MOST_QUANTITY:
        raise ValueError(f"must be at most {MOST_QUANTITY} units, got {shown(value)}")
    return _shortest(number)


def _shortest(number: Fraction) -> str:
    if number.denominator != 1:
        return f"{int(number * 1000)}m"
    count = int(number)
    if count < MICRO:
        return str(count)
    texts = [
        f"{count // step**power}{suffix}"
        for step, suffixes in ((1000, _DECIMAL), (1024, _BINARY))
        for power, suffix in enumerate(suffixes)
        if count % step**power == 0
    ]
    return min(texts, key=len)
