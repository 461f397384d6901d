"""Optimistic versions: a change is refused if what it was based on has changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from .tables import Base


class Stale(Exception):
    """Somebody else was faster. Versions count from 1; 0 is what does not exist."""

    def __init__(self, what: str, expected: int, found: int) -> None:
        state = f"is at version {found}" if found else "does not exist"
        based = f"version {expected}" if expected else "that there was none"
        super().__init__(f"{what} {state}, and the change assumes {based}; look again")
        self.what = what
        self.expected = expected
        self.found = found


class Missing(LookupError):
    """There is no such thing."""


def expect(what: str, row: Any, version: int | None) -> None:
    """Refuse to go on unless a row has this version; none or 0 for one that must not exist."""
    found = row.version if row is not None else 0
    if found != (version or 0):
        raise Stale(what, version or 0, found)


def store(session: Session, what: str, row: Any) -> None:
    """Write a new or changed row; what another service wrote meanwhile is not overwritten."""
    expected = row.version or 0
    try:
        with session.begin_nested():
            session.add(row)
    except (StaleDataError, IntegrityError) as error:
        if isinstance(error, IntegrityError) and expected:
            raise
        raise Stale(what, expected, expected + 1) from error


def remove(session: Session, what: str, row: Base, version: int) -> None:
    """Delete a row of this version."""
    expect(what, row, version)
    session.delete(row)
    session.flush()
