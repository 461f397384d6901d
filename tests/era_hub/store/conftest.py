"""The contract's stores: every test with a `database` runs over SQLite and over PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from era_hub.store.database import Database
from tests.postgres import TEMPLATE, PostgresServer

STORES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file whose tables are up to date."""
    path = tmp_path_factory.mktemp("template") / "era.sqlite"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture(params=STORES)
def make_database(
    request: pytest.FixtureRequest, tmp_path: Path, migrated: Path
) -> Iterator[Callable[..., Database]]:
    """Makes new databases with up-to-date tables, or with none."""
    opened: list[Database] = []
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
    numbers = count()

    def make(empty: bool = False) -> Database:
        if server is not None:
            name = server.create("template1" if empty else TEMPLATE)
            database = Database(server.url(name))
        else:
            path = tmp_path / f"{next(numbers)}.sqlite"
            if not empty:
                shutil.copy(migrated, path)
            database = Database(f"sqlite:///{path}")
        opened.append(database)
        return database

    yield make
    for database in opened:
        database.close()
        if server is not None:
            server.drop(str(database.url.database))


@pytest.fixture
def database(make_database: Callable[..., Database]) -> Database:
    """A new database with up-to-date tables."""
    return make_database()


@pytest.fixture
def another(database: Database) -> Iterator[Callable[[], Any]]:
    """Opens the same database once more, as a second service does."""
    opened: list[Database] = []

    def open_again() -> Database:
        opened.append(Database(database.url))
        return opened[-1]

    yield open_again
    for each in opened:
        each.close()
