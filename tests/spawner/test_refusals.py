"""Refusals reach people on every page of the hub, and programs as plain text."""

from __future__ import annotations

import importlib.util
import json
from datetime import timedelta
from pathlib import Path

import jupyterhub.spawner
import pytest
from jinja2 import Environment, FileSystemLoader
from jupyterhub._data import DATA_FILES_PATH
from jupyterhub.utils import format_exception
from tornado import web

from era_hub.models import Outcome, Start
from era_spawner import refusals

from .service import now, reservation

PAGES = "/@/space%20word/services/era/"


def alternative():
    start = now() + timedelta(hours=3)
    return Start(start=start, end=start + timedelta(hours=1), price=400_000)


def test_price_too_low():
    outcome = Outcome(accepted=False, price=2_400_000, alternative=alternative())
    error = refusals.declined(outcome, 2_000_000, None)
    assert isinstance(error, web.HTTPError) and error.status_code == 402
    assert error.reason == "price-too-low"
    assert "2.40 credits, above your limit of 2.00" in error.message
    assert "0.40 credits" in error.message and "(UTC" in error.message
    assert "<" not in error.message
    assert f'datetime="{alternative().start.isoformat()}"'[:26] in error.message_html


def test_no_capacity():
    outcome = Outcome(accepted=False, price=None, reason="full", alternative=None)
    error = refusals.declined(outcome, 2_000_000, now() + timedelta(hours=1))
    assert (error.reason, error.status_code) == ("no-capacity", 409)
    assert error.message.startswith("Nothing that fits is free to start by ")


def test_refused_for_another_reason():
    outcome = Outcome(accepted=False, price=1_000_000, reason="Only 0.50 credits are left.")
    error = refusals.declined(outcome, 2_000_000, None)
    assert (error.reason, error.message) == ("refused", "Only 0.50 credits are left.")


@pytest.mark.parametrize("build", [refusals.scheduled, refusals.starting])
def test_good_news(build):
    error = build(reservation(start=now() + timedelta(hours=2)), PAGES)
    assert error.reason == build.__name__
    assert "by itself" in error.message and f"{PAGES}#reservation-r-1" in error.message
    assert "era-good" in error.message_html and "alert-success" in error.message_html
    assert f'href="{PAGES}#reservation-r-1"' in error.message_html


def test_unavailable_does_not_count_as_the_hubs_failure():
    assert refusals.unavailable().status_code < 500


def test_texts_are_escaped():
    error = refusals.refusal("refused", "<img src=x>")
    assert "<img" not in error.message_html and "&lt;img src=x&gt;" in error.message_html
    error = refusals.declined(Outcome(accepted=False, price=0, reason="<b>"), 1, None)
    assert "<b>" not in error.message_html
    error = refusals.scheduled(reservation(id='"><img>'), '"><img>')
    assert "<img" not in error.message_html


def test_what_the_hubs_handlers_look_for():
    error = refusals.refusal("bad-options", "Say for how long you want it.")
    message, html = format_exception(error, only_jupyterhub=True)
    assert message == "Say for how long you want it."
    assert json.loads(json.dumps({"message": message})) == {"message": str(message)}
    assert "era-notice" in html
    assert f"Spawn failed: {message}" == "Spawn failed: Say for how long you want it."


@pytest.mark.parametrize("page", ["spawn.html", "not_running.html", "error.html"])
def test_html_is_shown_on_the_hubs_pages(page):
    error = refusals.scheduled(reservation(start=now() + timedelta(hours=2)), PAGES)
    message, html = format_exception(error, only_jupyterhub=True)
    templates = Environment(
        loader=FileSystemLoader(Path(DATA_FILES_PATH) / "templates"), autoescape=True
    )
    # As the hub's handlers call them, with names that differ from the template's for one.
    text = templates.get_template(page).render(
        static_url=lambda path, **_: path,
        no_spawner_check=True,
        error_message=message,
        html_error_message=html,
        failed=True,
        failed_message=message,
        failed_html_message=html,
        message=message,
        message_html=html,
    )
    assert text.count(f'<a href="{PAGES}#reservation-r-1">') == 1
    assert "&lt;span" not in text


def test_on_jupyterhub_5(monkeypatch):
    monkeypatch.delattr(jupyterhub.spawner, "SpawnException", raising=False)
    spec = importlib.util.spec_from_file_location("era_spawner.refusals5", refusals.__file__)
    old = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(old)
    error = old.refusal("no-capacity", "100% taken")
    assert type(error) is not refusals.SpawnException
    assert isinstance(error, web.HTTPError) and error.status_code == 409
    assert format_exception(error)[0] == "100% taken"
    assert "era-notice" in format_exception(error)[1]
