"""When most is reserved at once; and times, as quotas speak of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

MONDAY = 4 * 86_400
"""1970-01-05 00:00 UTC, from which periods are counted."""


class Span(NamedTuple):
    """Units from `start` until `end`."""

    start: int
    end: int
    units: int


class Peak(NamedTuple):
    """The most units at once, and the first time in which they are."""

    start: int
    end: int
    units: int


def highest(spans: Iterable[Span], start: int, end: int) -> Peak:
    """The most units at once between `start` and `end`."""
    changes: defaultdict[int, int] = defaultdict(int)
    changes[start] = 0
    for span in spans:
        if span.start < end and span.end > start:
            changes[max(span.start, start)] += span.units
            changes[min(span.end, end)] -= span.units
    times = [at for at in sorted(changes) if at < end]
    best, units = Peak(start, end, -1), 0
    for at, until in zip(times, [*times[1:], end], strict=True):
        units += changes[at]
        if units > best.units:
            best = Peak(at, until, units)
        elif units == best.units and best.end == at:
            best = best._replace(end=until)
    return best


def period_start(at: int, period: int) -> int:
    """When the period began in which a time lies."""
    return at - (at - MONDAY) % period


def clock_time(at: int) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def hours(seconds: int) -> str:
    """Seconds in hours, without needless digits."""
    return f"{seconds / 3600:.2f}".rstrip("0").rstrip(".")
