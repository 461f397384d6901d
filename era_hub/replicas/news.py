"""What the writer tells the other services: PostgreSQL delivers it with the commit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from ..changes import Change

LIMIT = 7_000
"""Bytes in one notification; PostgreSQL takes 8,000."""

MOST = 16
"""Notifications of one transaction, before it is easier to say that all may have changed."""

# Nothing is told of a transaction that has stored nothing.
TELL = text(
    "SELECT pg_notify(:channel, :payload), (SELECT max(id) FROM seen_bids) "
    "WHERE txid_current_if_assigned() IS NOT NULL"
)


@dataclass(frozen=True)
class News:
    """What a transaction has changed.

    Parameters
    ----------
    sender : str
        Which service has committed it.
    changes : tuple of Change
    complete : bool
        Whether these are all changes; if not, anything may have changed.
    """

    sender: str
    changes: tuple[Change, ...]
    complete: bool = True


def channel(pool: str) -> str:
    """Where the news of a pool are told; a name that needs no quotation marks."""
    return "era_" + hashlib.sha256(pool.encode()).hexdigest()[:32]


def tell(session: Session, pool: str, sender: str, changes: Sequence[Change]) -> int | None:
    """Tell of the transaction under way, when it is committed.

    Returns
    -------
    int or None
        The number of the newest bid that is stored; None if there is none, or nothing new.
    """
    session.flush()
    newest: int | None = None
    for payload in _packed(sender, changes):
        told = session.execute(TELL, {"channel": channel(pool), "payload": payload}).first()
        newest = None if told is None else told[1]
    return newest


def understand(payload: str) -> News:
    """What a notification says; raises `ValueError` if nobody of this version has sent it."""
    try:
        sender, changes = json.loads(payload)
        if changes is None:
            return News(sender, (), False)
        return News(sender, tuple(Change(*each) for each in changes))
    except TypeError as error:
        raise ValueError(f"not a list of changes: {error}") from None


def _packed(sender: str, changes: Sequence[Change]) -> Iterator[str]:
    """The notifications for these changes, each told once."""
    parts: list[list[str]] = [[]]
    size = 0
    for each in dict.fromkeys(changes):
        written = json.dumps([each.kind, each.user, each.id], separators=(",", ":"))
        if size + len(written) > LIMIT and parts[-1]:
            parts.append([])
            size = 0
        size += len(written) + 1
        parts[-1].append(written)
    name = json.dumps(sender)
    if len(parts) > MOST or any(sum(map(len, part)) > LIMIT for part in parts):
        yield f"[{name},null]"
        return
    for part in parts:
        yield f"[{name},[{','.join(part)}]]"
