"""Bids and configurations that make no sense are refused with a sentence that helps."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_pricing import Configuration, TimeGrid, parse_quantity
from era_pricing.bids import (
    LATEST,
    MOST_BUNDLES,
    MOST_VALUE,
    Alternative,
    Bid,
    BidError,
    Commitment,
    ResourceRequest,
    ValueStep,
)

HOUR = 3600
GOOD = {"configurations": {"gpu": 1}, "duration": HOUR, "arrival": 0, "deadline": 9 * HOUR}
REQUEST = ResourceRequest(**GOOD)
STEPS = (ValueStep(5 * HOUR, 10), ValueStep(7 * HOUR, 4), ValueStep(None, 1))
NO_NUMBERS = [0.5, 2.0, float("nan"), float("inf"), True, np.True_, "9", None, np.arange(3)]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("duration", 0, "1 or more"),
        ("duration", -5, "1 or more"),
        ("duration", 9 * HOUR + 1, "the window has 32400"),
        ("duration", LATEST + 1, f"{LATEST} or less"),
        ("arrival", -1, "0 or more"),
        ("deadline", 0, "after arrival"),
        ("deadline", LATEST + 1, f"{LATEST} or less"),
        ("configurations", {}, "at least one name"),
        ("configurations", "gpu", "at least one name"),
        ("configurations", ["gpu"], "at least one name"),
        ("configurations", {"": 1}, "names as keys"),
        ("configurations", {7: 1}, "names as keys"),
        *[(field, bad, "whole number") for field in list(GOOD)[1:] for bad in NO_NUMBERS],
    ],
)
def test_bad_requests_name_the_field(field, value, says):
    with pytest.raises(BidError, match=f"^{field} must .*{says}"):
        ResourceRequest(**{**GOOD, field: value})


@pytest.mark.parametrize("count", [0, -1, MOST_BUNDLES + 1, 10**30, *NO_NUMBERS])
def test_bad_counts_name_the_configuration(count):
    with pytest.raises(BidError, match=r"^configurations\['two'\] must be a whole number of bun"):
        ResourceRequest({"gpu": 1, "two": count}, HOUR, 0, HOUR)


@pytest.mark.parametrize("value", [-1, MOST_VALUE + 1, *NO_NUMBERS])
def test_bad_values_are_refused(value):
    with pytest.raises(BidError, match=r"^value must be a whole number of micro-credits, "):
        Bid.of(REQUEST, value)


@pytest.mark.parametrize("deadline", [-1, LATEST + 1, 0.5, True, "9"])
def test_bad_deadlines_of_steps_are_refused(deadline):
    with pytest.raises(BidError, match=r"^deadline must be a whole number of UTC seconds"):
        ValueStep(deadline, 1)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ((), "values must list at least one ValueStep"),
        (STEPS[0], "values must list at least one ValueStep"),
        ((STEPS[0], 4), r"values\[1\] must be of type ValueStep, got 4"),
        (
            (STEPS[0], STEPS[2], ValueStep(None, 0)),
            r"values\[1\]\.deadline must be a time: only the last step may be without",
        ),
        (
            (STEPS[1], STEPS[2], ValueStep(8 * HOUR, 0)),
            r"values\[1\]\.deadline must be a time: only the last step may be without",
        ),
        (
            (STEPS[0], ValueStep(5 * HOUR, 9)),
            r"values\[1\]\.deadline must be after that of the step before "
            r"\(18000 UTC seconds\), got 18000",
        ),
        (
            (STEPS[0], STEPS[1], ValueStep(None, 4)),
            r"values\[2\]\.value must be less than that of the step before "
            r"\(4 micro-credits\), got 4",
        ),
    ],
)
def test_values_that_do_not_fall_are_refused(steps, says):
    with pytest.raises(BidError, match=f"^{says}"):
        Alternative((REQUEST,), steps)


@pytest.mark.parametrize("requests", [(), None, REQUEST, "gpu", {"gpu": 1}])
def test_an_alternative_needs_requests(requests):
    with pytest.raises(BidError, match=r"^requests must list at least one ResourceRequest"):
        Alternative(requests, STEPS)


def test_a_bid_needs_alternatives():
    with pytest.raises(BidError, match=r"^alternatives must list at least one Alternative"):
        Bid(())
    with pytest.raises(BidError, match=r"^alternatives\[0\] must be of type Alternative"):
        Bid([REQUEST])
    with pytest.raises(BidError, match=r"^requests\[0\] must be of type ResourceRequest"):
        Bid.of("gpu", 1)


@pytest.mark.parametrize("commitment", ["flex", None, 1, ["fixed"]])
def test_commitments_are_named_where_unknown(commitment):
    with pytest.raises(BidError, match=r"^commitment must be one of fixed, flexible, preemptible"):
        Bid.of(REQUEST, 1, commitment)


@pytest.mark.parametrize("overrun", [-1, LATEST + 1, *NO_NUMBERS])
def test_bad_overruns_are_refused(overrun):
    with pytest.raises(BidError, match=r"^overrun must be a whole number of seconds"):
        Bid.of(REQUEST, 1, overrun=overrun)


def test_errors_can_say_which_part_of_a_bid_they_mean():
    error = BidError("duration must be 1 or more").within("requests[0]").within("alternatives[1]")
    assert str(error) == "alternatives[1].requests[0].duration must be 1 or more"
    assert isinstance(error, BidError)


def test_the_common_case_is_one_request_with_one_value():
    bid = Bid.of(REQUEST, 7, Commitment.FLEXIBLE, 60)
    assert bid == Bid((Alternative((REQUEST,), (ValueStep(None, 7),)),), Commitment.FLEXIBLE, 60)
    assert Bid.of(REQUEST, 7) == Bid.of(REQUEST, 7, Commitment.FIXED, 0)


def test_numpy_integers_texts_and_lists_become_what_they_mean():
    request = ResourceRequest({"gpu": np.int64(2)}, np.int64(60), 0, np.int32(90))
    assert request == ResourceRequest({"gpu": 2}, 60, 0, 90)
    assert type(request.duration) is int
    assert type(request.configurations["gpu"]) is int
    bid = Bid([Alternative([request], [ValueStep(np.int64(90), np.int64(1))])], "preemptible")
    assert bid.commitment is Commitment.PREEMPTIBLE
    assert bid.alternatives == (Alternative((request,), (ValueStep(90, 1),)),)
    assert type(bid.alternatives[0].requests) is tuple


@pytest.mark.parametrize(
    ("end", "value"),
    [(0, 10), (5 * HOUR, 10), (5 * HOUR + 1, 4), (7 * HOUR, 4), (7 * HOUR + 1, 1), (LATEST, 1)],
)
def test_the_value_is_that_of_the_first_step_that_is_met(end, value):
    assert Alternative((REQUEST,), STEPS).value_at(end) == value


def test_after_the_last_deadline_nothing_is_worth_anything():
    alternative = Alternative((REQUEST,), STEPS[:2])
    assert [alternative.value_at(7 * HOUR), alternative.value_at(7 * HOUR + 1)] == [4, 0]


@given(
    st.lists(st.integers(0, 50), min_size=1, unique=True).map(sorted),
    st.lists(st.integers(0, 99), min_size=51, max_size=51, unique=True),
    st.lists(st.integers(0, 60), min_size=2, max_size=2).map(sorted),
)
def test_a_later_end_is_never_worth_more(deadlines, values, ends):
    falling = sorted(values, reverse=True)
    steps = [ValueStep(*pair) for pair in zip(deadlines, falling, strict=False)]
    alternative = Alternative((REQUEST,), steps)
    assert alternative.value_at(ends[0]) >= alternative.value_at(ends[1]) >= 0


# -- what never changes ------------------------------------------------------------------


def test_a_request_keeps_its_own_copy_of_what_is_asked():
    asked = {"gpu": 1}
    request = ResourceRequest(asked, HOUR, 0, HOUR)
    asked["gpu"] = 5
    assert request.configurations == {"gpu": 1}
    with pytest.raises(TypeError):
        request.configurations["gpu"] = 5


def test_equal_bids_are_one_key():
    one = ResourceRequest({"gpu": 1, "cpu": 2}, HOUR, 0, HOUR)
    other = ResourceRequest({"cpu": 2, "gpu": 1}, HOUR, 0, HOUR)
    assert one == other
    assert len({Bid.of(one, 1), Bid.of(other, 1)}) == 1
    assert one != replace(one, configurations={"gpu": 1})
    assert one.configurations != [("gpu", 1)]


def test_bids_can_be_copied_and_sent_to_other_processes():
    bid = Bid((Alternative((REQUEST,), STEPS),), Commitment.FLEXIBLE, 60)
    assert pickle.loads(pickle.dumps(bid)) == bid
    assert copy.deepcopy(bid) == bid
    assert asdict(bid)["alternatives"][0]["requests"][0]["configurations"] == {"gpu": 1}
    assert repr(REQUEST.configurations) == "{'gpu': 1}"


# -- configurations ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("500m", Fraction(1, 2)),
        ("6Gi", 6 * 2**30),
        ("1.5k", 1500),
        (".5", Fraction(1, 2)),
        ("3e2", 300),
        ("2E-1", Fraction(1, 5)),
        ("1E", 10**18),
        ("250u", Fraction(1, 4000)),
        ("+7Ti", 7 * 2**40),
        ("-1", -1),
    ],
)
def test_quantities(text, value):
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", " 2", "2 Gi", "Gi", "1KI", "0x3", "1e", "nan", "--1", "٣", 2])
def test_texts_that_are_no_quantities(text):
    with pytest.raises(ValueError, match="is not a quantity; write for example"):
        parse_quantity(text)


def test_units_of_a_configuration():
    bundle = Configuration("a", {"nvidia.com/gpu": "2k", "cpu": "500m"})
    assert bundle.units("nvidia.com/gpu") == 2000
    assert bundle.units("example.com/other") == 0
    assert bundle.units("cpu") == 500


@pytest.mark.parametrize(
    ("name", "resources", "says"),
    [
        ("", {}, "must have a name"),
        ("a", {"cpu": "many"}, "'a', cpu: 'many' is not a quantity"),
        ("a", {"cpu": "-1"}, "'a', cpu: must not be negative"),
        ("a", {"nvidia.com/gpu": "500m"}, "'a', nvidia.com/gpu: must be a whole number, got"),
    ],
)
def test_configurations_that_make_no_sense(name, resources, says):
    with pytest.raises(ValueError, match=says):
        Configuration(name, resources)


def test_a_configuration_keeps_its_own_copy_of_the_resources():
    resources = {"nvidia.com/gpu": "1"}
    bundle = Configuration("a", resources)
    resources["nvidia.com/gpu"] = "5"
    assert bundle.units("nvidia.com/gpu") == 1


@pytest.mark.parametrize(("slot", "horizon"), [(0, 10), (-5, 10), (300, 0), (300, 1000)])
def test_grids_that_make_no_sense(slot, horizon):
    with pytest.raises(ValueError, match="must be a positive"):
        TimeGrid(slot, horizon)
