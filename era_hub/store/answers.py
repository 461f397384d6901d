"""First answers: whoever repeats a call with the same Idempotency-Key gets the same one.

An answer is stored in the transaction of the call, so either both are there or neither is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session

from .tables import Answer as Row


class KeyReused(Exception):
    """The same key came with another request."""


@dataclass(frozen=True)
class Answer:
    """What was answered: a status, and a body as it was sent."""

    status: int
    body: str


class Answers:
    """Reads and stores first answers within the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def find(self, caller: str, key: str, request: str) -> Answer | None:
        """The first answer to this request, if there was one.

        Raises
        ------
        KeyReused
            If the caller used the key for another request.
        """
        self.read_ahead([(caller, key)])
        row = self.session.info["answers"][caller, key]
        if row is None:
            return None
        if row.request != request:
            raise KeyReused(f"Idempotency-Key {key!r} was used for another request")
        return Answer(row.status, row.body)

    def keep(self, caller: str, key: str, request: str, status: int, body: str, now: int) -> None:
        """Store the first answer to a request; a second can't be stored."""
        row = Row(caller=caller, key=key, request=request, status=status, body=body, at=now)
        self.session.add(row)
        self.session.info.setdefault("answers", {})[caller, key] = row

    def read_ahead(self, calls: Collection[tuple[str, str]]) -> None:
        """Read the answers to several calls, each a caller and a key, at once."""
        known: dict[tuple[str, str], Row | None] = self.session.info.setdefault("answers", {})
        missing = [call for call in calls if call not in known]
        if missing:
            query = select(Row).where(tuple_(Row.caller, Row.key).in_(missing))
            with self.session.no_autoflush:
                found = {(row.caller, row.key): row for row in self.session.scalars(query)}
            known.update((call, found.get(call)) for call in missing)

    def prune(self, before: int, limit: int = 1000) -> int:
        """Forget at most `limit` answers given before a time; how many those were."""
        old = select(Row.caller, Row.key).where(Row.at < before).order_by(Row.at).limit(limit)
        keys = [tuple(row) for row in self.session.execute(old)]
        if keys:
            self.session.execute(delete(Row).where(tuple_(Row.caller, Row.key).in_(keys)))
            for caller, key in keys:
                self.session.info.get("answers", {}).pop((caller, key), None)
        return len(keys)


def digest(method: str, path: str, body: bytes) -> str:
    """A request in short, to compare with a later one."""
    head = f"{method} {path}\n".encode()
    return hashlib.sha256(head + body).hexdigest()
