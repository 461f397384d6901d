"""First answers, the log of what admins changed, and the settings of a pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from era_hub.store.answers import Answer, Answers, KeyReused, digest
from era_hub.store.audit_log import AuditLog
from era_hub.store.database import Database
from era_hub.store.settings import Settings
from era_hub.store.tables import Answer as AnswerRow
from era_hub.store.versions import Missing, Stale
from tests.era_hub.small_market import count
from tests.era_hub.store.rows import HOUR, NOW


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.session.begin() as session:
        yield session


# -- answers ------------------------------------------------------------------


def test_the_first_answer_is_kept(session: Session) -> None:
    answers = Answers(session)
    request = digest("POST", "/reservations", b"{}")
    assert answers.find("ann", "k", request) is None
    answers.keep("ann", "k", request, 201, '{"id": "ü"}', NOW)
    assert answers.find("ann", "k", request) == Answer(201, '{"id": "ü"}')
    assert answers.find("bob", "k", request) is None
    assert answers.find("ann", "K", request) is None


@pytest.mark.parametrize(
    "other", [("POST", "/jobs", b"{}"), ("PUT", "/reservations", b"{}"), ("POST", "/", b"{ }")]
)
def test_a_key_is_for_one_request(session: Session, other: tuple[str, str, bytes]) -> None:
    answers = Answers(session)
    answers.keep("ann", "k", digest("POST", "/reservations", b"{}"), 201, "", NOW)
    with pytest.raises(KeyReused, match="'k'"):
        answers.find("ann", "k", digest(*other))


def test_a_second_answer_cannot_be_stored(database: Database) -> None:
    for _ in range(2):
        with database.session.begin() as session:
            if Answers(session).find("ann", "k", "x") is None:
                Answers(session).keep("ann", "k", "x", 200, "first", NOW)
    with pytest.raises(IntegrityError), database.session.begin() as session:
        Answers(session).keep("ann", "k", "x", 200, "second", NOW)
    assert count(database, AnswerRow) == 1


def test_old_answers_are_forgotten_in_portions(session: Session) -> None:
    answers = Answers(session)
    for number in range(5):
        answers.keep("ann", f"k{number}", "x", 200, "", NOW + number)
    assert [answers.prune(NOW + 4, limit=3) for _ in range(3)] == [3, 1, 0]
    assert answers.find("ann", "k4", "x") is not None
    assert answers.find("ann", "k3", "x") is None


# -- the audit log ------------------------------------------------------------


def test_the_audit_log_is_read_newest_first_and_page_by_page(session: Session) -> None:
    log = AuditLog(session)
    for number in range(5):
        actor = "admin:root" if number % 2 else "admin:eve"
        log.write(NOW + number, actor, "quota", f"user u{number}", {"gpus": 1}, None, f"q{number}")
    newest = log.read(limit=2)
    assert [(row.at, row.before, row.after, row.request_id) for row in newest] == [
        (NOW + 4, {"gpus": 1}, None, "q4"),
        (NOW + 3, {"gpus": 1}, None, "q3"),
    ]
    assert [row.at - NOW for row in log.read(before=newest[-1].id)] == [2, 1, 0]
    assert [row.at - NOW for row in log.read(actor="admin:root")] == [3, 1]
    assert [row.at - NOW for row in log.read(subject="user u2")] == [2]
    assert log.read(action="grant") == []


# -- settings -----------------------------------------------------------------


def test_a_pool_has_settings_from_the_first_on(database: Database) -> None:
    with database.reader.begin() as session:
        row = Settings(session).pool("local")
        assert (row.version, row.price_floor, row.price_ceiling, row.held_back) == (
            0,
            None,
            None,
            0,
        )
    with database.session.begin() as session:
        new = {"price_floor": 5, "price_ceiling": 9, "held_back": 2}
        assert Settings(session).set("local", 0, **new).version == 1  # type: ignore[arg-type]
    for version in (0, 2):
        with pytest.raises(Stale), database.session.begin() as session:
            Settings(session).set("local", version, price_floor=1, price_ceiling=1, held_back=1)
    with database.reader.begin() as session:
        row = Settings(session).pool("local")
        assert (row.version, row.price_floor, row.price_ceiling, row.held_back) == (1, 5, 9, 2)


@pytest.mark.parametrize(
    ("floor", "ceiling", "held"), [(-1, None, 0), (5, 4, 0), (None, -1, 0), (None, None, -1)]
)
def test_settings_that_make_no_sense_are_refused(
    session: Session, floor: Any, ceiling: Any, held: int
) -> None:
    with pytest.raises(ValueError):
        Settings(session).set("a", 0, price_floor=floor, price_ceiling=ceiling, held_back=held)


def test_maintenance_is_planned_changed_and_called_off(session: Session) -> None:
    settings = Settings(session)
    late = settings.plan("a", NOW + HOUR, NOW + 2 * HOUR, None, "new driver")
    early = settings.plan("a", NOW, NOW + 60, 2, "a fan")
    settings.plan("b", NOW, NOW + 60, 2, "another pool's")
    assert settings.maintenance("a") == [early, late]
    assert settings.maintenance("a", since=NOW + 60) == [late]
    settings.change(late.id, 1, end=NOW + 3 * HOUR)
    assert (late.version, late.end, late.reason) == (2, NOW + 3 * HOUR, "new driver")
    with pytest.raises(Stale):
        settings.change(late.id, 1, units=1)
    with pytest.raises(ValueError, match="end after its start"):
        settings.change(late.id, 2, end=NOW)
    with pytest.raises(Stale):
        settings.drop(late.id, 1)
    settings.drop(late.id, 2)
    assert settings.maintenance("a") == [early]
    with pytest.raises(Missing):
        settings.drop(late.id, 2)
    with pytest.raises(ValueError, match="units"):
        settings.plan("a", NOW, NOW + 1, 0, "")
