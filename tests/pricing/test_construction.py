"""Plug-ins are made of what is known and of options, matched by name."""

from __future__ import annotations

from typing import Any

import pytest

from era_pricing import BasicEcon, Prior
from era_pricing.algorithms import BidPrice
from era_pricing.construction import MissingParameter, construct, options_of
from era_pricing.predictors import LP, Blend


class Needy:
    def __init__(self, base: int, history: Any, slot: int = 1, *rest: int, **more: int) -> None:
        self.base, self.history, self.slot = base, history, slot


FACTS = {"history": lambda: "the past", "slot": lambda: 300, "colour": lambda: "red"}


def test_facts_fill_the_parameters_of_their_names_and_options_win() -> None:
    made = construct(Needy, FACTS, {"base": 7})
    assert (made.base, made.history, made.slot) == (7, "the past", 300)
    assert construct(Needy, FACTS, {"base": 7, "slot": 60}).slot == 60


def test_facts_nobody_asks_for_are_not_made() -> None:
    def fail() -> None:
        raise AssertionError("made for nothing")

    assert isinstance(construct(BasicEcon, {"history": fail}, {}), BasicEcon)
    made = construct(Needy, {**FACTS, "slot": fail}, {"base": 7, "slot": 60})
    assert made.slot == 60


@pytest.mark.parametrize(
    ("facts", "missing"), [({}, "history"), ({"history": lambda: "the past"}, "base")]
)
def test_what_is_missing_is_named_the_history_first(facts: Any, missing: str) -> None:
    with pytest.raises(MissingParameter) as error:
        construct(Needy, facts, {})
    assert error.value.name == missing


def test_what_a_plugin_refuses_is_passed_on() -> None:
    with pytest.raises(ValueError, match="peak_demand must be 0 or more"):
        construct(Prior, {"max_price": lambda: 1}, {"peak_demand": -1})


@pytest.mark.parametrize(
    ("plugin", "option", "wanted"),
    [
        (BidPrice, {"curvature": "steep"}, "curvature must be a number, got 'steep'"),
        (BidPrice, {"lookahead": "5d"}, "lookahead must be a number, got '5d'"),
        (BidPrice, {"samples": True}, "samples must be a number, got True"),
        (BidPrice, {"steady": "yes"}, "steady must be true or false, got 'yes'"),
        (BidPrice, {"steady": None}, "steady must be true or false, got None"),
    ],
)
def test_an_option_of_the_wrong_type_is_named(plugin: Any, option: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        construct(plugin, {}, option)


def test_none_is_an_option_where_the_parameter_says_so() -> None:
    assert isinstance(construct(BidPrice, {}, {"lookahead": None}), BidPrice)


def test_options_are_the_parameters_that_a_setting_can_stand_for() -> None:
    assert options_of(Blend) == ["half_life"]
    assert {"unsent", "weeks"} < set(options_of(LP))
    assert "history" not in options_of(LP)
    assert options_of(BasicEcon) == []
    assert options_of(Needy) == ["base", "slot"]
