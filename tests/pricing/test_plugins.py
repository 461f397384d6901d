"""Algorithms and predictors are found by name; the example in the reference works."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from era_pricing import (
    Algorithm,
    BasicEcon,
    Bid,
    FirstFit,
    Predictor,
    Prior,
    find_algorithm,
    find_predictor,
    plugins,
)
from tests.pricing.small_pool import HOUR, ask

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PAGES = [REFERENCE / "engine.md", REFERENCE / "algorithms-and-predictors.md"]


class Shipped(FirstFit):
    """As another distribution could ship it."""


@pytest.fixture
def announce(monkeypatch):
    """Make entry points known for the length of a test."""

    def announce(name, value, group):
        points = EntryPoints([EntryPoint(name, value, group)])
        monkeypatch.setattr(plugins, "entry_points", lambda group: points.select(group=group))

    return announce


def test_those_that_come_along_are_found():
    assert find_algorithm("basic-econ") is BasicEcon
    assert find_algorithm("first-fit") is FirstFit
    assert find_predictor("prior") is Prior


def test_those_of_others_are_found_through_entry_points(announce):
    announce("theirs", f"{__name__}:Shipped", "era.algorithms")
    assert find_algorithm("theirs").__name__ == "Shipped"
    with pytest.raises(ValueError, match=r"era\.predictors has no plug-in named 'theirs'; .*prior"):
        find_predictor("theirs")


def test_an_unknown_name_lists_the_known_ones(announce):
    announce("theirs", "some.module:Thing", "era.algorithms")
    with pytest.raises(ValueError, match="known are basic-econ, .*first-fit, .*theirs"):
        find_algorithm("bsic-econ")


def test_a_plugin_of_the_wrong_kind_is_refused(announce):
    announce("theirs", "era_pricing:Prior", "era.algorithms")
    with pytest.raises(TypeError, match="'theirs' must be a subclass of Algorithm"):
        find_algorithm("theirs")


@pytest.mark.parametrize("base", [Algorithm, Predictor])
def test_an_unfinished_plugin_cannot_be_made(base):
    with pytest.raises(TypeError, match="abstract"):
        type("Unfinished", (base,), {})()


def test_the_examples_in_the_reference_work(make_era):
    scope: dict[str, Any] = {}
    text = "".join(page.read_text() for page in PAGES)
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, scope)
    assert scope["decision"].accepted
    era = make_era(algorithm=scope["Scarcity"](base=100))
    request = ask("gpu", 2 * HOUR, 0, 9 * HOUR)
    # Nobody there: 100 an hour. Then one of four GPUs is promised: 100 / (3/4).
    first = era.make_reservation("a", Bid.of(request, 10**9))
    assert (first.price, first.reservation.start) == (200, 0)
    tight = ask("gpu", 2 * HOUR, 0, 2 * HOUR)
    assert era.quote(tight).price == 2 * 133
    assert era.make_reservation("b", Bid.of(tight, 265)).accepted is False
    assert scope["Scarcity"].turned_away == 1
