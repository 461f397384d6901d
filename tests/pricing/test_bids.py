"""Bids and configurations that make no sense are refused with a sentence that helps."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from era_pricing import Bid, BidError, Configuration, ResourceRequest, TimeGrid, parse_quantity

HOUR = 3600
GOOD = {"configuration": "gpu", "duration": HOUR, "arrival": 0, "deadline": 9 * HOUR, "count": 1}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("duration", 0, "1 or more"),
        ("duration", -5, "1 or more"),
        ("duration", 1.5, "whole number"),
        ("duration", float("nan"), "whole number"),
        ("duration", float("inf"), "whole number"),
        ("duration", True, "whole number"),
        ("duration", "60", "whole number"),
        ("duration", 9 * HOUR + 1, "the window has 32400"),
        ("arrival", -1, "0 or more"),
        ("arrival", None, "whole number"),
        ("deadline", 0, "after arrival"),
        ("deadline", float("inf"), "whole number"),
        ("count", 0, "1 or more"),
        ("count", False, "whole number"),
        ("configuration", "", "name"),
        ("configuration", 7, "name"),
    ],
)
def test_bad_requests_name_the_field(field, value, says):
    with pytest.raises(BidError, match=f"^{field} must .*{says}"):
        ResourceRequest(**{**GOOD, field: value})


@pytest.mark.parametrize("value", [-1, 0.5, 2.0, float("nan"), float("inf"), True, "9", None])
def test_bad_values_are_refused(value):
    with pytest.raises(
        BidError, match=r"^value must be a whole number of micro-credits, 0 or more"
    ):
        Bid(ResourceRequest(**GOOD), value)


def test_a_bid_needs_a_request():
    with pytest.raises(BidError, match=r"^request must"):
        Bid("gpu", 1)


def test_numpy_integers_count_as_integers():
    request = ResourceRequest("gpu", np.int64(60), 0, np.int32(90))
    assert request == ResourceRequest("gpu", 60, 0, 90)
    assert type(request.duration) is int


@pytest.mark.parametrize(
    ("changes", "now", "says"),
    [
        ({"configuration": "tpu"}, 0, "configuration must be one of cpu, gpu, two; got 'tpu'"),
        ({"count": 9}, 0, "count must be at most 8: 9 GPUs asked, the pool has 8"),
        (
            {"configuration": "two", "count": 10**30},
            0,
            f"count must be at most 4: {2 * 10**30} GPUs asked, the pool has 8",
        ),
        ({}, 9 * HOUR, "deadline must be after now (32400 UTC seconds), got 32400"),
        (
            {"duration": 49 * HOUR, "deadline": 99 * HOUR},
            0,
            "duration must be at most 172800 seconds, as far as the pool sells ahead; got 176400",
        ),
    ],
)
def test_requests_the_pool_can_never_serve(make_era, changes, now, says):
    era = make_era(capacity=8)
    with pytest.raises(BidError) as error:
        era.quote(ResourceRequest(**{**GOOD, **changes}), now=now)
    assert str(error.value) == says
    with pytest.raises(BidError):
        era.make_reservation("a", Bid(ResourceRequest(**{**GOOD, **changes}), 10**9), now=now)


def test_a_bundle_larger_than_the_pool_names_the_configuration(make_era):
    request = ResourceRequest("two", HOUR, 0, HOUR)
    with pytest.raises(BidError, match=r"^configuration must .*: 2 GPUs asked, the pool has 1$"):
        make_era(capacity=1).quote(request)


def test_another_resource_is_called_by_its_name(make_era):
    era = make_era(
        configurations=[Configuration("c", {"example.com/token": "5"})],
        resource="example.com/token",
    )
    with pytest.raises(BidError, match=r"5 units of example\.com/token asked, the pool has 4"):
        era.quote(ResourceRequest("c", HOUR, 0, HOUR))


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
    with pytest.raises(ValueError, match="'a', cpu: must be a whole number, got '500m'"):
        bundle.units("cpu")


@pytest.mark.parametrize(
    ("name", "resources", "says"),
    [
        ("", {}, "must have a name"),
        ("a", {"cpu": "many"}, "'a', cpu: 'many' is not a quantity"),
        ("a", {"cpu": "-1"}, "'a', cpu: must not be negative"),
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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"price_floor": 0}, "price_floor must"),
        ({"price_floor": 1.5}, "price_floor must"),
        ({"configurations": [Configuration("a", {})] * 2}, "two configurations are named 'a'"),
        ({"configurations": [Configuration("a", {"nvidia.com/gpu": "500m"})]}, "whole number"),
    ],
)
def test_engines_that_make_no_sense(make_era, changes, says):
    with pytest.raises(ValueError, match=says):
        make_era(**changes)


@pytest.mark.parametrize(("slot", "horizon"), [(0, 10), (-5, 10), (300, 0), (300, 1000)])
def test_grids_that_make_no_sense(slot, horizon):
    with pytest.raises(ValueError, match="must be a positive"):
        TimeGrid(slot, horizon)
