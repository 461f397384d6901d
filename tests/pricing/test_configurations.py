"""Formal and actual resources, in base units."""

from __future__ import annotations

import pytest

from era_pricing import BidError, Configuration, Inventory, base_units
from tests.pricing.small_pool import GPU, HOUR, ask, build


@pytest.mark.parametrize(
    ("resource", "quantity", "units"),
    [
        ("cpu", "500m", 500),
        ("cpu", 2, 2000),
        ("cpu", "1.5", 1500),
        ("memory", "6Gi", 6 * 2**30),
        (GPU, "2k", 2000),
        (GPU, 3, 3),
    ],
)
def test_quantities_are_counted_in_base_units(resource, quantity, units):
    assert base_units(resource, quantity) == units


@pytest.mark.parametrize(
    ("resource", "quantity", "says"),
    [
        ("cpu", "1u", "must be a whole number of thousandths, got '1u'"),
        ("memory", "0.5", "must be a whole number, got '0.5'"),
        (GPU, "-1", "must not be negative, got '-1'"),
        (GPU, -1, "must not be negative, got '-1'"),
        (GPU, "5E", r"must be below 2\*\*62"),
        (GPU, True, "True is not a quantity"),
        (GPU, 1.5, "1.5 is not a quantity"),
        (GPU, None, "None is not a quantity"),
    ],
)
def test_quantities_that_make_no_sense(resource, quantity, says):
    with pytest.raises(ValueError, match=says):
        base_units(resource, quantity)


def test_what_is_taken_is_what_is_told_unless_said_otherwise():
    plain = Configuration("a", {GPU: "1", "cpu": "4"})
    assert plain.taken == {GPU: 1, "cpu": 4000}
    shared = Configuration("b", {GPU: "1"}, actual={"example.com/seat": 1, "cpu": "100m"})
    assert shared.resources == {GPU: "1"}
    assert shared.taken == {"example.com/seat": 1, "cpu": 100}
    assert (shared.units(GPU), shared.units("example.com/seat")) == (0, 1)


def test_bad_actual_resources_name_the_configuration():
    with pytest.raises(ValueError, match="configuration 'a', cpu: 'many' is not a quantity"):
        Configuration("a", {}, actual={"cpu": "many"})


def test_a_resource_that_exists_in_the_plan_alone_is_limited():
    era = build(
        inventory=Inventory.single({GPU: 4, "example.com/seat": 2}),
        configurations=[Configuration("gpu", {GPU: 1}, actual={GPU: 1, "example.com/seat": 1})],
    )
    assert era.quote(ask("gpu", HOUR, 0, HOUR, 2)).feasible
    with pytest.raises(BidError, match=r"configurations\['gpu'\] must be at most 2"):
        era.quote(ask("gpu", HOUR, 0, HOUR, 3))


def test_a_resource_that_nobody_has_is_not_counted():
    era = build(configurations=[Configuration("gpu", {GPU: 1, "example.com/other": 99})])
    assert era.quote(ask("gpu", HOUR, 0, HOUR, 4)).feasible
