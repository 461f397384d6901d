"""Bids as documents: what is read, what is refused and how, and what the schema says."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import era_pricing
from era_pricing import bid_schema, notation
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
from era_pricing.bundles import bundle, bundle_of
from era_pricing.language import LanguageError, dump_bid, parse_bid, schema

NOW = 1_767_600_000  # 2026-01-05T08:00:00Z
HOUR = 3600
DAY = 86_400
PAGE = Path(__file__).parents[2] / "docs/reference/bidding-language.md"
ONE = {"configurations": {"gpu-8": 1}, "duration": "2h", "deadline": "+1d", "value": "12.50"}


def request(**changes):
    """The simplest bid, changed; None takes a key away."""
    return {key: value for key, value in {**ONE, **changes}.items() if value is not None}


def part(**changes):
    """A request in a list, which has no value of its own."""
    return request(value=None, **changes)


def refusal(document, **options):
    with pytest.raises(LanguageError) as error:
        parse_bid(document, NOW, **options)
    return str(error.value)


# -- what is read ------------------------------------------------------------------------


def test_the_simplest_bid_is_flat():
    asked = ResourceRequest({"gpu-8": 1}, 2 * HOUR, NOW, NOW + DAY)
    for document in (ONE, json.dumps(ONE), yaml.safe_load(yaml.safe_dump(ONE))):
        parsed = parse_bid(document, NOW)
        assert parsed.bid == Bid.of(asked, 12_500_000)
        assert parsed.configurations == ()


def test_alternatives_of_several_requests_with_falling_values():
    document = {
        "commitment": "flexible",
        "overrun": "30min",
        "xor": [
            request(arrival="+1h"),
            {
                "and": [
                    part(configurations={"gpu-4": 2, "cpu": 1}, duration="PT4H"),
                    part(configurations={"gpu-1": 1}, deadline=NOW + 2 * DAY),
                ],
                "value": [{"by": "2026-01-05T18:00:00Z", "value": "10"}, {"value": 4}],
            },
        ],
    }
    several = Alternative(
        (
            ResourceRequest({"gpu-4": 2, "cpu": 1}, 4 * HOUR, NOW, NOW + DAY),
            ResourceRequest({"gpu-1": 1}, 2 * HOUR, NOW, NOW + 2 * DAY),
        ),
        (ValueStep(NOW + 10 * HOUR, 10_000_000), ValueStep(None, 4_000_000)),
    )
    single = Alternative(
        (ResourceRequest({"gpu-8": 1}, 2 * HOUR, NOW + HOUR, NOW + DAY),),
        (ValueStep(None, 12_500_000),),
    )
    assert parse_bid(document, NOW).bid == Bid((single, several), Commitment.FLEXIBLE, 30 * 60)


def test_the_requests_of_a_bid_may_be_at_its_top():
    both = parse_bid({"and": [part(), part()], "value": 1}, NOW).bid
    assert [len(each.requests) for each in both.alternatives] == [2]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (5400, 5400),
        (5400.0, 5400),
        (Decimal("5400"), 5400),
        (np.int64(5400), 5400),
        ("90s", 90),
        ("90m", 5400),
        ("90min", 5400),
        ("1h30min", 5400),
        ("1d1s", DAY + 1),
        ("2d", 2 * DAY),
        ("PT1H30M", 5400),
        ("PT90S", 90),
        ("P1D", DAY),
        ("P1DT12H", 36 * HOUR),
        ("P1W", 7 * DAY),
    ],
)
def test_durations(written, seconds):
    bid = parse_bid(request(duration=written, deadline="+30d"), NOW).bid
    assert bid.alternatives[0].requests[0].duration == seconds


@pytest.mark.parametrize(
    "written",
    [
        *(
            "",
            "2",
            "2 h",
            "h",
            "-2h",
            "+2h",
            "1.5h",
            "30min1h",
            "2H",
            "P",
            "PT",
            "P1M",
            "P1Y",
            "p1d",
        ),
        *("P1W1D", "P1DT", "1h\n", "٣h", 0.5, True, None, math.nan, math.inf, [3600], b"1h"),
        *(Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1e-999999999"), np.True_),
    ],
)
def test_texts_and_numbers_that_are_no_durations(written):
    says = refusal({**ONE, "duration": written})
    assert says.startswith("duration must be a duration: whole seconds, such as 5400, or a text")


@pytest.mark.parametrize(
    "written", [0, -5, "0s", "PT0H", LATEST + 1, 1e300, Decimal("1e999999999")]
)
def test_durations_out_of_range(written):
    assert refusal(request(duration=written)).startswith("duration must be from 1 to 253402300799")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (NOW + DAY, NOW + DAY),
        (float(NOW + DAY), NOW + DAY),
        ("2026-01-06T08:00:00Z", NOW + DAY),
        ("2026-01-06T08:00Z", NOW + DAY),
        ("2026-01-06T08:00:00.000Z", NOW + DAY),
        ("2026-01-06T09:30:00+01:30", NOW + DAY),
        ("2026-01-06T06:00:00-02:00", NOW + DAY),
        ("+1d", NOW + DAY),
        ("+PT24H", NOW + DAY),
        (datetime(2026, 1, 6, 8, tzinfo=UTC), NOW + DAY),
        (datetime(2026, 1, 6, 9, tzinfo=timezone(timedelta(hours=1))), NOW + DAY),
        ("9999-12-31T23:59:59Z", LATEST),
    ],
)
def test_times(written, seconds):
    bid = parse_bid(request(deadline=written), NOW).bid
    assert bid.alternatives[0].requests[0].deadline == seconds


@pytest.mark.parametrize(
    "written",
    [
        *("2026-01-06T08:00:00", "2026-01-06", "2026-01-06 08:00:00", "2026-01-06T08:00"),
        *(datetime(2026, 1, 6, 8), date(2026, 1, 6)),  # noqa: DTZ001
    ],
)
def test_a_time_without_a_zone_is_refused(written):
    says = refusal(request(deadline=written))
    assert re.match(
        r"deadline must be a time .*its time zone, such as '2026-01-0.T08:00:00Z'", says
    )


@pytest.mark.parametrize(
    "written",
    [
        *("tomorrow", "", "1767686400", "+", "2h", "-2h", "+2", "2026-13-01T00:00:00Z", "now"),
        *("2026-01-06T24:00:00Z", "2026-01-06T08:00:60Z", "2026-01-06T08:00:00.5Z", "08:00Z"),
        *("2026-01-06T08:00:00z", "2026-01-06T08:00:00Z\n", "1969-12-31T23:59:59Z", True, None),
        *(1e9 + 0.5, math.nan, math.inf, ["+2h"], datetime(2026, 1, 6, 8, 0, 0, 1, tzinfo=UTC)),
    ],
)
def test_texts_and_numbers_that_are_no_times(written):
    says = refusal({**ONE, "deadline": written})
    assert says.startswith("deadline must be a time in whole seconds: UTC seconds, a text such as")


def test_days_that_are_not_on_the_calendar():
    says = refusal(request(deadline="2026-02-30T00:00:00Z"))
    assert says == "deadline must be a day of the calendar, got '2026-02-30T00:00:00Z'"


@pytest.mark.parametrize(
    "written",
    [
        *(-1, LATEST + 1, 10**30, 1e300, "1970-01-01T00:00:00+01:00", "+999999999d"),
        *("9999-12-31T23:59:59-01:00", datetime(1969, 12, 31, tzinfo=UTC)),
    ],
)
def test_times_out_of_range(written):
    assert refusal(request(deadline=written)).startswith("deadline must be between the years 1970")


@pytest.mark.parametrize(
    ("written", "micro"),
    [
        ("12.50", 12_500_000),
        ("0", 0),
        ("0.000001", 1),
        (12.5, 12_500_000),
        (0.1, 100_000),
        (1e-6, 1),
        (3, 3_000_000),
        (Decimal("2.500000000"), 2_500_000),
        (np.float64(2.5), 2_500_000),
        ("1000000000", MOST_VALUE),
        (1e9, MOST_VALUE),
    ],
)
def test_values(written, micro):
    assert parse_bid(request(value=written), NOW).bid.alternatives[0].value_at(0) == micro


def test_numbers_in_json_are_read_exactly():
    text = json.dumps(ONE).replace('"12.50"', "123456789.123456")
    assert parse_bid(text, NOW).bid.alternatives[0].value_at(0) == 123_456_789_123_456
    says = refusal(json.dumps(ONE).replace('"12.50"', "0.1000000000000000000001"))
    assert says.endswith("with at most 6 decimals, such as '12.50'; got 0.1000000000000000000001")


@pytest.mark.parametrize(
    "written",
    [
        *("", "12,50", "1e3", "-1", "+1", ".5", "1.", "0.0000001", "1.0000000", "$3", "nan", "٣"),
        *(0.1234567, math.nan, math.inf, True, None, {}, b"3", 1e-300, Decimal("1e-999999999")),
    ],
)
def test_texts_and_numbers_that_are_no_amounts(written):
    says = refusal({**ONE, "value": written})
    assert says.startswith("value must be an amount in credits with at most 6 decimals, such as")


@pytest.mark.parametrize("written", [-1, "1000000000.000001", 10**30, Decimal("1e999999999")])
def test_amounts_out_of_range(written):
    assert refusal(request(value=written)).startswith("value must be from 0 to 1000000000 credits")


def test_what_yaml_makes_of_numbers_and_times_is_understood():
    text = """
        configurations: {gpu-8: 1}
        duration: 7_200
        arrival: 2026-01-05T08:00:00Z
        deadline: 2026-01-06 09:00:00+01:00
        value: 12.50
        overrun: 30min
    """
    asked = ResourceRequest({"gpu-8": 1}, 2 * HOUR, NOW, NOW + DAY)
    parsed = parse_bid(yaml.safe_load(text), NOW)
    assert parsed.bid == Bid.of(asked, 12_500_000, overrun=1800)


# -- bundles without a name --------------------------------------------------------------


def test_resources_are_a_configuration_that_comes_along():
    inline = {"nvidia.com/gpu": 4, "memory": "1.5Gi", "cpu": 0.5}
    parsed = parse_bid(request(configurations=None, resources=inline, count=3), NOW)
    (configuration,) = parsed.configurations
    assert configuration.name == "cpu=500m,memory=1536Mi,nvidia.com/gpu=4"
    assert configuration.resources == {"cpu": "500m", "memory": "1536Mi", "nvidia.com/gpu": "4"}
    assert configuration.units("cpu") == 500
    assert configuration.units("memory") == 3 * 2**29
    (asked,) = parsed.bid.alternatives[0].requests
    assert asked.configurations == {configuration.name: 3}


def test_equal_bundles_have_one_name_however_they_are_written():
    written = [
        {"cpu": "0.5", "a/b": "1e3"},
        {"a/b": 1000, "cpu": "500m"},
        {"cpu": 0.5, "a/b": "1k"},
    ]
    alternatives = [request(configurations=None, resources=each) for each in written]
    parsed = parse_bid({"xor": alternatives}, NOW)
    assert [each.name for each in parsed.configurations] == ["a/b=1000,cpu=500m"]


@pytest.mark.parametrize(
    ("resource", "written", "text"),
    [
        ("cpu", "1500m", "1500m"),
        ("cpu", "2000m", "2"),
        ("memory", "6Gi", "6Gi"),
        ("memory", "6442450944", "6Gi"),
        ("memory", "6G", "6G"),
        ("memory", "1048577", "1048577"),
        ("nvidia.com/gpu", "1024", "1024"),
        ("nvidia.com/gpu", 1e3, "1000"),
        ("nvidia.com/gpu", "2.0", "2"),
        ("memory", "1E", "1E"),
    ],
)
def test_every_quantity_has_one_text(resource, written, text):
    assert bundle({resource: written}).resources == {resource: text}


def test_a_bundle_can_be_had_back_from_its_name():
    made = bundle({"nvidia.com/gpu": 4, "cpu": "0.5"})
    assert bundle_of(made.name) == made
    for other in ("gpu-8", "", "cpu=0.5", "nvidia.com/gpu=4,cpu=500m", "cpu=1,cpu=1", "cpu=", "="):
        assert bundle_of(other) is None


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({}, "a bundle must have at least one resource"),
        ({"cpu": "0"}, "cpu must be a quantity above 0"),
        ({"a b": "1"}, "a b must be the name of a resource"),
    ],
)
def test_bundles_that_make_no_sense(resources, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        bundle(resources)


def test_a_bundle_may_be_called_by_its_name_beside_others():
    parsed = parse_bid(request(configurations={"gpu-8": 1, "cpu=8": 2}), NOW, known=["gpu-8"])
    assert [dict(each.resources) for each in parsed.configurations] == [{"cpu": "8"}]
    assert parsed.bid.alternatives[0].requests[0].configurations == {"gpu-8": 1, "cpu=8": 2}


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "says"),
    [
        # The whole
        ([], "the bid must be a mapping, got []"),
        ({**ONE, 5: 6}, "the bid must have texts as keys, got 5"),
        ({}, "duration is missing: how long"),
        ("{", "the bid must be JSON: Expecting property name"),
        ("[" * 200_000, "the bid must be JSON with fewer brackets inside each other"),
        ('{"value": NaN}', "the bid must be JSON: NaN is no number of JSON"),
        ('{"value": 1, "value": 2}', "the bid must be JSON: a mapping has 'value' twice"),
        ('{"value": 1e9999999999999999999}', "the bid must be JSON with numbers of a size"),
        # Keys
        (request(value=None), "value is missing: the most to be paid, in credits"),
        ({**ONE, "dedline": 5}, "dedline is unknown; did you mean deadline?"),
        ({**ONE, "x y": 5}, "['x y'] is unknown; known here are configurations, resources, "),
        ({**ONE, "by": 5}, "by has no place here: it goes in a step of a value; here go config"),
        (
            {"xor": [ONE], "value": 5},
            "value has no place here: it goes at the top or in each alternative of xor",
        ),
        (
            {"xor": [request(overrun="1h")]},
            "xor[0].overrun has no place here: it goes at the top of the bid; here go conf",
        ),
        ({"xor": [{"xor": [ONE]}]}, "xor[0].xor has no place here: it goes at the top of the bid"),
        ({"and": [ONE], "value": 5}, "and[0].value has no place here: it goes at the top or in "),
        (
            {"xor": [ONE, {"and": [part()]}]},
            "xor[1].value is missing: the most to be paid, in credits",
        ),
        # Lists
        ({"xor": []}, "xor must be a list of at least one alternative, got []"),
        ({"xor": ONE}, "xor must be a list of at least one alternative, got {"),
        ({"xor": "ab"}, "xor must be a list of at least one alternative, got 'ab'"),
        ({"and": [part(), 7], "value": 1}, "and[1] must be a mapping, got 7"),
        # Requests
        ({"xor": [{"and": [part(), part(duration="2")], "value": 1}]}, "xor[0].and[1].duration mu"),
        (
            request(deadline="+2h", arrival="+2h"),
            "deadline must be after the arrival, 2026-01-05T10:00:00Z; got 2026-01-05T10:00:00Z",
        ),
        (
            request(deadline="+1h"),
            "duration must be at most 1h, the time from arrival to deadline; got 2h",
        ),
        (request(configurations=None), "the bid must have either `configurations` or `resources`"),
        (request(resources={"cpu": 1}), "the bid must have either `configurations` or `resources`"),
        (
            {"xor": [{"and": [part(configurations=None)], "value": 1}]},
            "xor[0].and[0] must have either `configurations` or `resources`",
        ),
        (request(count=2), "count goes with `resources`; write the number in configurations"),
        (request(configurations={}), "configurations must name at least one configuration"),
        (request(configurations="gpu-8"), "configurations must be a mapping, got 'gpu-8'"),
        (request(configurations={"": 1}), "configurations[''] must have a name"),
        (
            request(configurations={"a.b": 0}),
            "configurations['a.b'] must be a whole number of bundles from 1 to 1000000000, got 0",
        ),
        (request(configurations={"a": True}), "configurations.a must be a whole number of bundles"),
        (request(configurations={"a": 1e10}), "configurations.a must be a whole number of bundles"),
        (
            request(configurations={"cpu=0.5": 1}),
            "configurations['cpu=0.5'] has a '=', so it must be the contents of a bundle",
        ),
        # Resources
        (request(configurations=None, resources={}), "resources must have at least one resource"),
        (request(configurations=None, resources=["cpu"]), "resources must be a mapping"),
        (
            request(configurations=None, resources={"cpu=1": 1}),
            "resources['cpu=1'] must be the name of a resource, such as cpu or nvidia.com/gpu",
        ),
        (
            request(configurations=None, resources={"cpu": "0.0001"}),
            "resources.cpu must be a whole number of milli-cores, such as '500m'; got '0.0001'",
        ),
        (
            request(configurations=None, resources={"nvidia.com/gpu": "500m"}),
            "resources['nvidia.com/gpu'] must be a whole number of units, such as '2'; got '500m'",
        ),
        (
            request(configurations=None, resources={"memory": "6 GB"}),
            "resources.memory must be a quantity above 0, such as '2', '500m' or '6Gi'; got '6 GB'",
        ),
        (
            request(configurations=None, resources={"memory": "2E"}),
            "resources.memory must be at most 1000000000000000000 units, got '2E'",
        ),
        (
            request(configurations=None, resources={"cpu": 1}, count=0),
            "count must be a whole number of bundles from 1 to 1000000000, got 0",
        ),
        # Values, commitment, overrun
        (request(value=[]), "value must be a list of at least one step, got []"),
        (request(value=[{}]), "value[0].value is missing"),
        (request(value=["3"]), "value[0] must be a mapping, got '3'"),
        (request(value=[{"value": 3}, {"value": 2}]), "value[0].by is missing: when all must have"),
        (
            request(value=[{"by": "+2h", "value": 3}, {"by": "+1h", "value": 2}]),
            "value[1].by must be after that of the step before, 2026-01-05T10:00:00Z; got 2026-01",
        ),
        (
            request(value=[{"by": "+2h", "value": 3}, {"value": "3.0"}]),
            "value[1].value must be less than that of the step before, 3; got 3",
        ),
        (
            {"xor": [ONE, request(value=[{"by": "noon", "value": 3}])]},
            "xor[1].value[0].by must be a time in whole seconds",
        ),
        ({**ONE, "commitment": "flex"}, "commitment must be one of fixed, flexible, preemptible; "),
        ({**ONE, "commitment": []}, "commitment must be one of fixed, flexible, preemptible; got "),
        ({**ONE, "overrun": "-1h"}, "overrun must be a duration"),
        ({**ONE, "overrun": -1}, "overrun must be from 0 to 253402300799 seconds, got -1"),
    ],
)
def test_mistakes_are_named_with_their_place(document, says):
    assert refusal(document).startswith(says)


def test_names_that_are_not_for_sale_are_refused_where_the_others_are_known():
    known = ["gpu-1", "gpu-8", "cpu"]
    assert parse_bid(ONE, NOW, known=known).bid == parse_bid(ONE, NOW).bid
    says = refusal(request(configurations={"gpu8": 1}), known=known)
    assert says == "configurations.gpu8 is not for sale; did you mean gpu-8?"
    says = refusal(request(configurations={"tpu_v4_large": 1}), known=known)
    assert says == "configurations.tpu_v4_large is not for sale; known here are cpu, gpu-1, gpu-8"


def test_long_mistakes_are_shown_in_part():
    assert len(refusal(request(value="9" * 10**5))) < 300
    assert len(refusal({**ONE, "z" * 10**5: 1})) < 300


def test_errors_keep_the_path_and_can_be_put_into_a_larger_document():
    with pytest.raises(LanguageError) as caught:
        parse_bid({"xor": [request(value="much")]}, NOW)
    error = caught.value
    assert isinstance(error, BidError)
    assert error.path == "xor[0].value"
    assert str(error.within("bids[7]")) == f"bids[7].xor[0].value {error.problem}"
    assert str(LanguageError("", "must").within("bids[7]")) == "bids[7] must"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_reading_leaves_the_document_as_it_was():
    document = {"xor": [request(configurations=None, resources={"cpu": 1})]}
    before = copy.deepcopy(document)
    parse_bid(document, NOW)
    assert document == before


# -- writing -----------------------------------------------------------------------------


def test_a_bid_is_written_in_its_simplest_form():
    document = {
        "configurations": {"gpu-8": 1},
        "duration": "1h30min",
        "arrival": "2026-01-05T08:00:00Z",
        "deadline": "2026-01-06T08:00:00Z",
        "value": "12.5",
    }
    assert (
        dump_bid(
            parse_bid(
                {"xor": [{"and": [request(value=None, duration=5400)], "value": 12.5}]}, NOW
            ).bid
        )
        == document
    )
    inline = {**document, "resources": {"cpu": "500m"}, "commitment": "flexible", "overrun": "1d"}
    del inline["configurations"]
    assert dump_bid(parse_bid(inline, NOW).bid) == inline


def test_a_name_that_looks_like_a_bundle_but_is_none_cannot_be_written():
    bid = Bid.of(ResourceRequest({"size=large": 1}, 1, 0, 1), 1)
    with pytest.raises(LanguageError, match=r"^configurations\['size=large'\] has a '='"):
        dump_bid(bid)


NAMES = st.text(min_size=1, max_size=8).filter(lambda name: "=" not in name)
CPUS = st.integers(1, 10**6).map(lambda milli: f"{milli}m")
AMOUNTS = st.one_of(st.integers(1, 10**18), st.integers(1, 10**6).map(lambda n: n * 2**30))
RESOURCES = st.fixed_dictionaries({}, optional={"cpu": CPUS, "memory": AMOUNTS, "a.b/c": AMOUNTS})
BUNDLES = RESOURCES.filter(bool).map(lambda resources: bundle(resources).name)


@st.composite
def requests(draw):
    arrival = draw(st.integers(0, LATEST - 1))
    deadline = draw(st.integers(arrival + 1, LATEST))
    duration = draw(st.integers(1, deadline - arrival))
    counts = st.dictionaries(NAMES | BUNDLES, st.integers(1, MOST_BUNDLES), min_size=1, max_size=3)
    return ResourceRequest(draw(counts), duration, arrival, deadline)


@st.composite
def alternatives(draw):
    values = draw(st.lists(st.integers(0, MOST_VALUE), min_size=1, max_size=4, unique=True))
    count = len(values)
    times = st.lists(st.integers(0, LATEST), min_size=count, max_size=count, unique=True)
    deadlines = [*sorted(draw(times))[:-1], draw(st.none() | st.just(LATEST))]
    if deadlines[-1] in deadlines[:-1]:
        deadlines[-1] = None
    steps = map(ValueStep, deadlines, sorted(values, reverse=True))
    return Alternative(draw(st.lists(requests(), min_size=1, max_size=3)), tuple(steps))


BIDS = st.builds(
    Bid,
    st.lists(alternatives(), min_size=1, max_size=3),
    st.sampled_from(Commitment),
    st.integers(0, LATEST),
)


@given(BIDS, st.integers(0, LATEST))
def test_what_is_written_is_read_back(bid, now):
    document = dump_bid(bid)
    assert VALIDATOR.is_valid(document)
    for form in (document, json.dumps(document), yaml.safe_load(yaml.safe_dump(document))):
        parsed = parse_bid(form, now)
        assert parsed.bid == bid
        asked = {name for a in bid.alternatives for r in a.requests for name in r.configurations}
        assert {each.name for each in parsed.configurations} == {n for n in asked if "=" in n}


# -- the schema --------------------------------------------------------------------------


def _pattern(validator, pattern, instance, schema):
    """As in ECMA-262, where a `$` does not match before a line's end."""
    if validator.is_type(instance, "string") and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


STRICT = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})
VALIDATOR = STRICT(schema())


def test_the_published_schema_is_the_one_of_the_code():
    published = Path(era_pricing.__file__).with_name("language.schema.json")
    assert published.read_text("utf-8") == json.dumps(schema(), indent=2) + "\n"


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema())


def test_everything_in_the_schema_has_a_title_and_every_key_a_description():
    definitions = schema()["$defs"]
    assert [name for name, each in definitions.items() if not each["title"]] == []
    for word in bid_schema.WORDS:
        rule = definitions[word]
        assert "description" in rule or "description" in definitions[rule["$ref"].split("/")[-1]]


def _examples(node, root):
    """Every example in a schema, with the rule that it is an example of."""
    if isinstance(node, dict):
        for example in node.get("examples", []) if isinstance(node.get("examples"), list) else []:
            yield {"$defs": root["$defs"], **node}, example
        for key, below in node.items():
            if key != "examples":
                yield from _examples(below, root)
    elif isinstance(node, list):
        for below in node:
            yield from _examples(below, root)


def test_the_examples_of_the_schema_are_good_ones():
    found = list(_examples(schema(), schema()))
    assert len(found) > 10
    for rule, example in found:
        STRICT(rule).validate(example)
    for example in schema()["examples"]:
        bid = parse_bid(example, NOW).bid
        assert parse_bid(dump_bid(bid), 0).bid == bid


def texts(pattern):
    return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(
        ["0s", "PT0S", "1h\n", "1e3", "-1", "1.", "6Gi\n", "+1d", "fixed", "2026-01-05"]
    ),
    st.lists(st.integers(0, 5), max_size=2),
    st.just({}),
)


def mostly(usual, rare):
    """One of a list as a rule, and something of a wider range now and then."""
    return st.integers(0, 9).flatmap(lambda dice: rare if dice == 9 else st.sampled_from(usual))


DURATIONS = mostly(
    [1, 3600, 7200.0, "90s", "1h30m", "PT5M"], texts(f"(?=.*[1-9]){notation.DURATION}")
)
ARRIVALS = mostly([0, "+0s", "+1h", "2026-01-05T12:00:00+01:00"], texts(notation.TIME))
DEADLINES = mostly([LATEST, "+9d", "9999-12-31T00:00Z"], texts(notation.TIME))
CREDITS = mostly([0, 3, 0.1, 12.5, "7.000001"], st.floats(0, 1e9) | texts(notation.CREDITS))
STEPS = st.lists(
    st.fixed_dictionaries({"value": CREDITS}, optional={"by": DEADLINES}), min_size=1, max_size=2
)
QUANTITIES = mostly([1, 2.0, "6Gi", "3k", "5."], st.floats(1e-300, 1e18) | texts(notation.QUANTITY))
COUNTS = st.sampled_from([1, 2.0, MOST_BUNDLES])
CONFIGURATIONS = mostly(["gpu-8", "cpu=500m", "a.b"], st.text(min_size=1, max_size=3))
RESOURCE_NAMES = mostly(["cpu", "memory", "nvidia.com/gpu"], texts(notation.RESOURCE))
GOODS = st.one_of(
    st.fixed_dictionaries(
        {"configurations": st.dictionaries(CONFIGURATIONS, COUNTS, min_size=1, max_size=2)}
    ),
    st.fixed_dictionaries(
        {"resources": st.dictionaries(RESOURCE_NAMES, QUANTITIES, min_size=1, max_size=2)},
        optional={"count": COUNTS},
    ),
)
PARTS = st.builds(
    lambda goods, rest: goods | rest,
    GOODS,
    st.fixed_dictionaries(
        {"duration": DURATIONS, "deadline": DEADLINES}, optional={"arrival": ARRIVALS}
    ),
)
PRICED = st.builds(
    lambda goods, value: goods | value,
    PARTS | st.fixed_dictionaries({"and": st.lists(PARTS, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"value": CREDITS | STEPS}),
)
DOCUMENTS = st.builds(
    lambda offers, rest: offers | rest,
    PRICED | st.fixed_dictionaries({"xor": st.lists(PRICED, min_size=1, max_size=2)}),
    st.fixed_dictionaries(
        {}, optional={"commitment": st.sampled_from([*Commitment]).map(str), "overrun": DURATIONS}
    ),
)


def _places(node):
    """Every mapping and list in a document."""
    if isinstance(node, dict | list):
        yield node
        for below in node.values() if isinstance(node, dict) else node:
            yield from _places(below)


@st.composite
def spoilt(draw):
    """Documents that are nearly right: one thing is taken away, changed or added."""
    document = draw(DOCUMENTS)
    place = draw(st.sampled_from(list(_places(document))))
    if isinstance(place, list):
        place.append(draw(ODD))
        return document
    key = draw(st.sampled_from([*place, *bid_schema.WORDS, "other"]))
    if key in place and draw(st.booleans()):
        del place[key]
    else:
        place[key] = draw(ODD)
    return document


BEYOND_A_SCHEMA = (
    "deadline must be after the arrival",
    "the time from arrival to deadline",
    "by is missing",
    "must be after that of the step before",
    "must be less than that of the step before",
    "must be a day of the calendar",
    "must be between the years",
    "must be an amount in credits with at most 6 decimals",
    "must be from 0 to 1000000000 credits, got '",
    "to 253402300799 seconds, got '",
    "must be a whole number of milli-cores",
    "must be a whole number of units",
    "must be at most 1000000000000000000 units",
    "has a '=', so it must be the contents of a bundle",
)


@given(DOCUMENTS)
def test_what_the_schema_takes_is_read(document):
    """But for what a schema can't express."""
    VALIDATOR.validate(document)
    agree(document)


@given(spoilt())
def test_what_is_read_the_schema_takes(document):
    agree(document)


def agree(document):
    valid = VALIDATOR.is_valid(document)
    try:
        parse_bid(document, NOW)
    except LanguageError as error:
        assert not valid or any(reason in str(error) for reason in BEYOND_A_SCHEMA), error
    else:
        assert valid


# -- the page about it -------------------------------------------------------------------

SAMPLES = re.findall(r"^```(json|yaml)\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)


@pytest.mark.parametrize(("kind", "text"), SAMPLES)
def test_the_samples_of_the_page_are_bids(kind, text):
    document = json.loads(text) if kind == "json" else yaml.safe_load(text)
    parse_bid(document, NOW)
    VALIDATOR.validate(json.loads(json.dumps(document, default=datetime.isoformat)))


def test_the_page_explains_every_word():
    page = PAGE.read_text("utf-8")
    assert len(SAMPLES) >= 5
    assert [word for word in bid_schema.WORDS if f"| `{word}` |" not in page] == []
