"""Connections: one writer, readers beside it, lost servers, and secrets that stay secret."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from era_hub.store.database import Database, Unavailable, unavailable
from era_hub.store.tables import Account, Reservation
from tests.era_hub.small_market import balances, count
from tests.era_hub.store.rows import NOW, a_reservation, hold, open_account, store
from tests.postgres import PASSWORD, TEMPLATE, PostgresServer

# -- SQLite -------------------------------------------------------------------


@pytest.fixture
def sqlite(tmp_path: Path) -> Any:
    database = Database(f"sqlite:///{tmp_path / 'state' / 'era.sqlite'}")
    database.migrate()
    yield database
    database.close()


def test_the_folder_of_a_new_database_is_made(tmp_path: Path, sqlite: Database) -> None:
    assert (tmp_path / "state/era.sqlite").is_file()


def test_nobody_else_can_read_the_database(tmp_path: Path, sqlite: Database) -> None:
    open_account(sqlite)
    files = list((tmp_path / "state").iterdir())
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 10_000)],
)
def test_how_sqlite_is_set_up(sqlite: Database, pragma: str, value: object) -> None:
    with sqlite.engine.begin() as connection:
        assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == value


def test_a_transaction_locks_from_its_beginning(sqlite: Database) -> None:
    """So what it has read is still true when it writes."""
    other = Database(sqlite.url)
    with sqlite.engine.begin() as first, other.engine.connect() as second:
        first.execute(text("SELECT 1"))
        impatient = second.connection.driver_connection
        assert impatient is not None
        impatient.execute("PRAGMA busy_timeout=0")
        with pytest.raises(OperationalError, match="locked") as caught:
            second.execute(text("SELECT 1"))
    assert "busy" in str(unavailable(caught.value))
    other.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="needs a file"):
        Database(url)


def test_no_other_database_is_known() -> None:
    with pytest.raises(ValueError, match="SQLite or PostgreSQL, not mysql"):
        Database("mysql://somewhere/era")


@pytest.mark.asyncio
async def test_a_full_disk_is_said(sqlite: Database) -> None:
    def fill() -> None:
        with sqlite.session.begin() as session:
            pages = session.execute(text("PRAGMA page_count")).scalar_one()
            session.execute(text(f"PRAGMA max_page_count={pages}"))
        store(sqlite, a_reservation(message="x" * 100_000))

    with pytest.raises(Unavailable, match="disk of the database is full"):
        await sqlite.run(fill)
    assert count(sqlite, Reservation) == 0


# -- both stores --------------------------------------------------------------


def test_data_survives_closing_and_opening(
    database: Database, another: Callable[[], Database]
) -> None:
    store(database, a_reservation(gpus=[1, 2], message="ünï"))
    hold(database, 70)
    database.engine.dispose()
    second = another()
    with second.session.begin() as session:
        row = session.get_one(Reservation, "r1")
        assert (row.slot_prices, row.gpus, row.message) == ([30, 40], [1, 2], "ünï")
    assert balances(second) == {"bank": -1000, "ann": 930, "escrow": 70}


@pytest.mark.asyncio
async def test_everything_runs_on_one_thread_one_after_the_other(database: Database) -> None:
    running: list[int] = []

    def step() -> tuple[int, int]:
        running.append(1)
        crowd = len(running)
        open_account(database)
        running.pop()
        return threading.get_ident(), crowd

    answers = await asyncio.gather(*(database.run(step) for _ in range(20)))
    assert len({thread for thread, _ in answers}) == 1
    assert {crowd for _, crowd in answers} == {1}
    assert threading.get_ident() not in {thread for thread, _ in answers}


@pytest.mark.asyncio
async def test_a_question_is_answered_at_once_while_the_writer_is_idle(database: Database) -> None:
    assert await database.ask(threading.get_ident) == threading.get_ident()


@pytest.mark.asyncio
async def test_a_question_waits_for_what_the_writer_has_begun(database: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()
    done: list[str] = []

    def slow() -> None:
        begun.set()
        assert may_end.wait(10)
        done.append("change")

    change = asyncio.create_task(database.run(slow))
    await asyncio.to_thread(begun.wait, 10)
    question = asyncio.create_task(database.ask(done.append, "question"))
    # Whatever could run without the writer has done so by now.
    await asyncio.to_thread(lambda: None)
    assert done == []
    may_end.set()
    await asyncio.gather(change, question)
    assert done == ["change", "question"]


@pytest.mark.asyncio
async def test_a_question_that_failed_holds_nobody_up(database: Database) -> None:
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await database.ask(fail)
    assert await database.run(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("way", ["run", "read"])
@pytest.mark.asyncio
async def test_errors_come_back_from_the_thread(database: Database, way: str) -> None:
    def fail(*, text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError, match="like this"):
        await getattr(database, way)(fail, text="like this")


@pytest.mark.asyncio
async def test_what_was_begun_is_finished_though_its_caller_is_gone(database: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert may_end.wait(10)
        open_account(database)

    caller = asyncio.create_task(database.run(slow))
    await asyncio.to_thread(begun.wait, 10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    may_end.set()
    # The thread takes this up only when it is done with the other.
    assert await database.run(count, database, Account) == 2


def names(database: Database) -> list[str]:
    with database.reader.begin() as session:
        return list(session.scalars(text("SELECT name FROM accounts ORDER BY name")))


@pytest.mark.asyncio
async def test_readers_do_not_wait_for_the_writer_and_see_what_is_committed(
    database: Database,
) -> None:
    open_account(database)
    writing, may_commit = threading.Event(), threading.Event()

    def write() -> None:
        with database.session.begin() as session:
            session.add(Account(kind="user", name="zoe", created=NOW))
            session.flush()
            writing.set()
            assert may_commit.wait(30)

    writer = asyncio.create_task(database.run(write))
    assert await asyncio.to_thread(writing.wait, 30)
    # More at once than there are readers.
    found = await asyncio.gather(*(database.read(names, database) for _ in range(9)))
    assert not writer.done()
    assert found == [["ann", "bank"]] * 9
    may_commit.set()
    await writer
    assert await database.read(names, database) == ["ann", "bank", "zoe"]


def test_a_reader_sees_one_moment(database: Database) -> None:
    with database.reader.begin() as session:
        query = text("SELECT count(*) FROM accounts")
        assert session.scalar(query) == 0
        open_account(database)
        assert session.scalar(query) == 0


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"(?i)read.?only"), database.reader.begin() as session:
        session.add(Account(kind="user", name="ann", created=NOW))
        session.flush()
    assert count(database, Account) == 0


def test_values_are_in_no_error(database: Database) -> None:
    store(database, a_reservation())
    with pytest.raises(DBAPIError) as caught:
        store(database, a_reservation(message="sealed bid"))
    assert "sealed bid" not in str(caught.value)


# -- PostgreSQL ---------------------------------------------------------------


@pytest.fixture
def server(postgres: PostgresServer) -> Any:
    postgres.name = postgres.create(TEMPLATE)  # type: ignore[attr-defined]
    yield postgres
    postgres.drop(postgres.name)  # type: ignore[attr-defined]


def kill_connections(server: PostgresServer, database: Database) -> None:
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{database.url.database}'"
    )


@pytest.mark.postgres
@pytest.mark.asyncio
async def test_a_lost_connection_is_one_clear_error_and_then_it_goes_on(
    server: PostgresServer,
) -> None:
    database = Database(server.url(server.name))  # type: ignore[attr-defined]
    await database.run(open_account, database)
    await database.read(names, database)
    kill_connections(server, database)
    with pytest.raises(Unavailable, match="the database does not answer; try again"):
        await database.run(open_account, database, 5, "bob")
    await database.run(open_account, database, 5, "bob")
    kill_connections(server, database)
    # What only reads is simply done again.
    assert await database.read(names, database) == ["ann", "bank", "bob"]
    database.close()


@pytest.mark.postgres
@pytest.mark.asyncio
async def test_a_server_that_is_down_is_one_clear_error(
    postgres: PostgresServer, server: PostgresServer
) -> None:
    database = Database(server.url(server.name))  # type: ignore[attr-defined]
    await database.run(open_account, database)
    postgres.stop()
    try:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await database.run(open_account, database, 5, "bob")
            with pytest.raises(Unavailable):
                await database.read(names, database)
    finally:
        postgres.start()
    assert await database.read(names, database) == ["ann", "bank"]
    await database.run(open_account, database, 5, "bob")
    assert balances(database) == {"bank": -1005, "ann": 1000, "bob": 5}
    database.close()


def asks_for(driver: str, server: PostgresServer) -> str:
    url = server.loopback(server.name)  # type: ignore[attr-defined]
    return url.set(drivername=driver).render_as_string(hide_password=False)


@pytest.mark.postgres
@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_way_to_say_postgresql_means_the_same(server: PostgresServer, driver: str) -> None:
    database = Database(asks_for(driver, server))
    open_account(database)
    assert database.engine.driver == "psycopg"
    database.close()


@pytest.mark.postgres
@pytest.mark.parametrize("way", ["PGPASSFILE", "PGPASSWORD", "passfile"])
@pytest.mark.asyncio
async def test_the_password_may_come_from_elsewhere(
    server: PostgresServer, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.loopback(server.name, None)  # type: ignore[attr-defined]
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{server.port}:*:era:{PASSWORD}\n")
    file.chmod(0o600)
    if way == "PGPASSWORD":
        monkeypatch.setenv(way, PASSWORD)
    elif way == "PGPASSFILE":
        monkeypatch.setenv(way, str(file))
    else:
        url = url.update_query_dict({"passfile": str(file)})
    database = Database(url)
    await database.run(open_account, database)
    assert await database.read(names, database) == ["ann", "bank"]
    database.close()


@pytest.mark.postgres
@pytest.mark.asyncio
async def test_the_password_is_in_no_error_and_no_log(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "hunter2-and-more"
    url = server.loopback(server.name, secret)  # type: ignore[attr-defined]
    database = Database(url.render_as_string(hide_password=False))
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Unavailable) as caught:
        await database.run(open_account, database)
    said = [str(caught.value), repr(caught.value), repr(database), str(database.url), caplog.text]
    error: BaseException | None = caught.value
    while error is not None:
        said += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    assert not any(secret in each for each in said)
    assert "***" in repr(database)
    database.close()


@pytest.mark.postgres
@pytest.mark.asyncio
async def test_services_may_migrate_at_the_same_time(postgres: PostgresServer) -> None:
    name = postgres.create()
    services = [Database(postgres.url(name)) for _ in range(3)]
    await asyncio.gather(*(each.run(each.migrate) for each in services))
    open_account(services[0])
    assert balances(services[2]) == {"bank": -1000, "ann": 1000}
    for each in services:
        each.close()
    postgres.drop(name)
