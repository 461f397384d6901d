"""One writer for each pool, and what becomes of it when it loses its connection."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from era_hub.store.database import Database, unavailable
from era_hub.store.election import InUse, Leader, NotLeading, Writer, leader
from era_hub.store.tables import Account
from tests.era_hub.small_market import count
from tests.era_hub.store.rows import NOW
from tests.postgres import TEMPLATE, PostgresServer


class Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


def write(writer: Writer, name: str = "ann") -> None:
    with writer.begin() as session:
        session.add(Account(kind="user", name=name, created=NOW))


def who_leads(database: Database, pool: str = "a") -> Leader | None:
    with database.reader.begin() as session:
        return leader(session, pool)


# -- both stores --------------------------------------------------------------


def test_only_who_leads_may_write(database: Database) -> None:
    writer = Writer(database, "a")
    assert not writer.leading
    with pytest.raises(NotLeading, match="pool a"):
        write(writer)
    assert writer.try_lead()
    assert writer.leading
    write(writer)
    writer.release()
    writer.release()
    assert not writer.leading
    with pytest.raises(NotLeading):
        write(writer, "bob")
    assert count(database, Account) == 1


def test_the_writer_says_where_it_is(database: Database) -> None:
    clock = Clock()
    writer = Writer(database, "a", "http://one:8000", clock)
    assert who_leads(database) is None
    writer.try_lead()
    clock.now += 5
    assert writer.try_lead()
    assert who_leads(database) == Leader("http://one:8000", NOW, NOW + 5)
    assert who_leads(database, "b") is None
    writer.release()
    assert who_leads(database) is None


def test_a_service_may_lead_several_pools(database: Database) -> None:
    writers = [Writer(database, pool) for pool in "abc"]
    assert all(writer.try_lead() for writer in writers)
    writers[0].release()
    assert [writer.leading for writer in writers] == [False, True, True]
    write(writers[1])
    with pytest.raises(NotLeading):
        write(writers[0], "bob")


# -- SQLite -------------------------------------------------------------------

SECOND = """
import sys
from era_hub.store.database import Database
from era_hub.store.election import Writer
Writer(Database(sys.argv[1]), "b").try_lead()
print("leads", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sqlite(tmp_path: Path) -> Any:
    database = Database(f"sqlite:///{tmp_path / 'era.sqlite'}")
    database.migrate()
    yield database
    database.close()


def second_process(database: Database) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SECOND, str(database.url)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_services_on_one_sqlite_file_are_found_out(sqlite: Database) -> None:
    writer = Writer(sqlite, "a")
    writer.try_lead()
    with second_process(sqlite) as second:
        out, err = second.communicate(timeout=60)
    assert out == ""
    assert "era.sqlite is in use by another service (process " in err
    writer.release()
    with second_process(sqlite) as second:
        assert second.stdout is not None
        assert second.stdout.readline() == "leads\n"
        with pytest.raises(InUse, match=f"process {second.pid}"):
            writer.try_lead()
        assert not writer.leading
        second.kill()
        second.wait()
    assert writer.try_lead()


# -- PostgreSQL ---------------------------------------------------------------


@pytest.fixture
def two(postgres: PostgresServer) -> Any:
    """Two services' candidates for one pool."""
    name = postgres.create(TEMPLATE)
    databases = [Database(postgres.url(name)) for _ in range(2)]
    yield [Writer(each, "a", f"http://{n}") for n, each in enumerate(databases)]
    for each in databases:
        each.close()
    postgres.drop(name)


def backend(writer: Writer) -> int:
    with writer.begin() as session:
        return int(session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def kill(postgres: PostgresServer, pid: int) -> None:
    postgres.execute(f"SELECT pg_terminate_backend({pid}, 10000)")


@pytest.mark.postgres
def test_a_second_service_waits(two: list[Writer]) -> None:
    first, second = two
    assert first.try_lead()
    assert not second.try_lead()
    assert first.try_lead()
    with pytest.raises(NotLeading):
        write(second)
    first.release()
    assert second.try_lead()
    assert not first.try_lead()
    assert who_leads(first.database) is not None
    assert who_leads(first.database).address == "http://1"  # type: ignore[union-attr]


@pytest.mark.postgres
def test_closing_is_releasing(two: list[Writer]) -> None:
    first, second = two
    assert first.try_lead()
    first.database.close()
    assert not first.leading
    assert second.try_lead()


@pytest.mark.postgres
def test_who_loses_the_connection_loses_the_lead(
    two: list[Writer], postgres: PostgresServer
) -> None:
    first, second = two
    first.try_lead()
    write(first)
    kill(postgres, backend(first))
    assert second.try_lead()
    with pytest.raises(DBAPIError) as caught:
        write(first, "bob")
    assert unavailable(caught.value) is not None
    assert not first.leading
    # Its next connection would work, and must not be used.
    with pytest.raises(NotLeading):
        write(first, "bob")
    assert not first.try_lead()
    write(second, "carl")
    assert count(second.database, Account) == 2


@pytest.mark.postgres
def test_a_transaction_under_way_is_lost_with_the_lead(
    two: list[Writer], postgres: PostgresServer
) -> None:
    first, second = two
    first.try_lead()
    pid = backend(first)
    with pytest.raises(DBAPIError), first.begin() as session:
        session.add(Account(kind="user", name="ann", created=NOW))
        session.flush()
        kill(postgres, pid)
        assert second.try_lead()
        write(second, "zoe")
    assert not first.leading
    assert count(second.database, Account) == 1


@pytest.mark.postgres
def test_who_is_back_first_leads_after_a_restart(
    two: list[Writer], postgres: PostgresServer
) -> None:
    first, second = two
    first.try_lead()
    second.try_lead()
    write(first)
    postgres.stop()
    postgres.start()
    for writer in two:
        with pytest.raises(DBAPIError):
            writer.try_lead()
    assert not first.leading
    assert second.try_lead()
    assert not first.try_lead()
    write(second, "zoe")


@pytest.mark.postgres
def test_pools_have_writers_of_their_own(two: list[Writer]) -> None:
    first, second = two
    other = Writer(second.database, "b")
    assert first.try_lead()
    assert other.try_lead()
    assert not second.try_lead()
    write(other)
    write(first, "bob")


def test_another_services_database_is_another_election(
    database: Database, make_database: Callable[..., Database]
) -> None:
    assert Writer(database, "a").try_lead()
    assert Writer(make_database(), "a").try_lead()
