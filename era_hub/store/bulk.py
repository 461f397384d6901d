"""New rows that wait for the next flush, to be written together with others of their kind.

A transaction that decides on many bids adds hundreds of rows that nobody looks at again
before it ends. To SQLAlchemy's unit of work each is an object with a history, which costs
several times as much as to store it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, TextClause, event, insert, inspect, text
from sqlalchemy.orm import Session, make_transient_to_detached

from .tables import Base

T = TypeVar("T")

Row = dict[str, Any]

_ORDER = {table.name: place for place, table in enumerate(Base.metadata.sorted_tables)}
"""The tables, each after those that it refers to."""


@dataclass(frozen=True)
class Writer(Generic[T]):
    """Stores what was gathered for a table, and for those that nobody else adds to."""

    into: type[Base]
    write: Callable[[Connection, list[T]], None]

    @property
    def place(self) -> int:
        """When its turn is."""
        return _ORDER[self.into.__tablename__]


class BulkSession(Session):
    """A session that writes with each flush what was gathered for it, before its own changes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gathered: dict[Writer[Any], list[Any]] = {}

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """Write all changes to the database, but do not commit them."""
        if self.gathered:
            gathered, self.gathered = self.gathered, {}
            connection = self.connection()
            for writer in sorted(gathered, key=lambda each: each.place):
                writer.write(connection, gathered[writer])
        super().flush(objects)

    def close(self) -> None:
        """Give the connection back, and forget what was noted of the transaction."""
        super().close()
        # Some of it refers to the session: the garbage collector would have to find it all.
        self.info.clear()


# With nothing of its own to write, a session does not flush when it commits.
event.listen(BulkSession, "before_commit", BulkSession.flush)


@event.listens_for(BulkSession, "after_soft_rollback")
def _forget(session: BulkSession, _previous: Any) -> None:
    # A savepoint begins with a flush: what has been gathered since is part of it.
    session.gathered.clear()


def gather(session: Session, writer: Writer[T], row: T) -> None:
    """Have a row written with the next flush, in one call for all that were gathered."""
    assert isinstance(session, BulkSession)
    session.gathered.setdefault(writer, []).append(row)


def add(session: Session, *objects: Base) -> None:
    """Have new objects written with the next flush; the session knows them as stored already.

    Parameters
    ----------
    objects : Base
        With a value for each of their columns.
    """
    for each in objects:
        kind = type(each)
        gather(session, plain(kind), {name: each.__dict__[name] for name in _columns(kind)})
        make_transient_to_detached(each)
    session.add_all(objects)


@cache
def plain(into: type[Base]) -> Writer[Row]:
    """What stores rows of a table, each a dictionary with the same keys."""
    return Writer(into, partial(write, into))


def write(into: type[Base], connection: Connection, rows: list[Row]) -> None:
    """Store such rows at once."""
    if connection.dialect.name == "postgresql":
        connection.execute(_from_json(into, *rows[0]), {"rows": json.dumps(rows)})
    else:
        connection.execute(insert(into), rows)


def write_numbered(into: type[Base], connection: Connection, rows: list[Row]) -> list[int]:
    """Store such rows at once; the numbers that the database gives them, in their order."""
    if connection.dialect.name == "postgresql":
        found = connection.scalars(
            _from_json(into, *rows[0], returning="id"), {"rows": json.dumps(rows)}
        )
        return sorted(found)  # they are drawn row by row
    key = inspect(into).primary_key[0]
    return list(connection.scalars(insert(into).returning(key, sort_by_parameter_order=True), rows))


@cache
def _columns(of: type[Base]) -> tuple[str, ...]:
    return tuple(column.key for column in inspect(of).column_attrs)


@cache
def _from_json(into: type[Base], *names: str, returning: str = "") -> TextClause:
    """The statement for any number of rows, which PostgreSQL need understand but once."""
    table, columns = into.__tablename__, ", ".join(f'"{name}"' for name in names)
    statement = (
        f"INSERT INTO {table} ({columns}) "
        f"SELECT {columns} FROM json_populate_recordset(NULL::{table}, CAST(:rows AS json))"
    )
    return text(f"{statement} RETURNING {returning}" if returning else statement)
