"""First answers: whoever repeats a call with the same Idempotency-Key gets the same one.

An answer is stored in the transaction of the call, so either both are there or neither is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Executable, bindparam, delete, select
from sqlalchemy.orm import Session

from .bulk import gather, plain
from .pairs import parameters, wanted
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
        first = self._known()[caller, key]
        if first is None:
            return None
        if first.request != request:
            raise KeyReused(f"Idempotency-Key {key!r} was used for another request")
        return first.answer

    def keep(self, caller: str, key: str, request: str, status: int, body: str, now: int) -> None:
        """Store the first answer to a request; a second can't be stored."""
        row = {"caller": caller, "key": key, "request": request, "status": status}
        gather(self.session, plain(Row), row | {"body": body, "at": now})
        self._known()[caller, key] = _First(request, Answer(status, body))

    def read_ahead(self, calls: Collection[tuple[str, str]]) -> None:
        """Read the answers to several calls, each a caller and a key, at once."""
        known = self._known()
        missing = set(calls) - known.keys()
        if not missing:
            return
        known.update(dict.fromkeys(missing))
        with self.session.no_autoflush:
            found = self.session.execute(_first(len(missing)), parameters(missing))
            for caller, key, request, status, body in found:
                known[caller, key] = _First(request, Answer(status, body))

    def prune(self, before: int, limit: int = 1000) -> int:
        """Forget at most `limit` answers given before a time; how many those were."""
        old = select(Row.caller, Row.key).where(Row.at < before).order_by(Row.at).limit(limit)
        keys = [tuple(row) for row in self.session.execute(old)]
        if keys:
            self.session.connection().execute(_FORGET, [{"c": c, "k": k} for c, k in keys])
            for caller, key in keys:
                self._known().pop((caller, key), None)
        return len(keys)

    def _known(self) -> dict[tuple[str, str], _First | None]:
        """What this transaction has read or stored; None where nothing was answered yet."""
        return self.session.info.setdefault("answers", {})  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _First:
    """The first answer to a call, and a digest of what was asked."""

    request: str
    answer: Answer


_FORGET = delete(Row.__table__).where(  # type: ignore[arg-type]
    Row.caller == bindparam("c"), Row.key == bindparam("k")
)


# Made but once: to build a statement takes as long as to execute it.
@cache
def _first(count: int) -> Executable:
    """The answers to so many calls."""
    calls = wanted(count)
    return select(Row.caller, Row.key, Row.request, Row.status, Row.body).join(
        calls, (Row.caller == calls.c.first) & (Row.key == calls.c.second)
    )


def digest(method: str, path: str, body: bytes) -> str:
    """A request in short, to compare with a later one."""
    head = f"{method} {path}\n".encode()
    return hashlib.sha256(head + body).hexdigest()
