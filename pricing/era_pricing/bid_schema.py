"""The words of the bidding language, and its JSON Schema."""

from __future__ import annotations

from typing import Any

from era_pricing.bids import LATEST, MOST_BUNDLES, MOST_VALUE, Commitment
from era_pricing.notation import CREDITS, DURATION, MICRO, MOST_QUANTITY, QUANTITY, RESOURCE, TIME

WORDS = {
    "configurations": "how many bundles of each configuration, by its name, all at the same time",
    "resources": "what one bundle holds, as Kubernetes quantities; a bundle is always on one node",
    "count": "how many such bundles, all at the same time; 1 unless given",
    "duration": "how long it is needed without a break, such as '2h'",
    "arrival": "when it may start at the earliest; the submission unless given",
    "deadline": "when it must have ended, such as '2026-01-05T18:00:00Z' or '+12h'",
    "and": "requests that are only of use together",
    "xor": "alternatives, of which at most one is had",
    "value": "the most to be paid, in credits, such as '12.50'; or steps that fall with time",
    "by": "when all must have ended for this value; only the last step may leave it out",
    "commitment": "what an acceptance fixes; 'fixed' unless given",
    "overrun": "how long to go on after the end while capacity is idle; '0s' unless given",
}
"""Every key of the language, and what it says."""

REQUEST = ("configurations", "resources", "count", "duration", "arrival", "deadline")
"""The keys of a request."""
BID = ("commitment", "overrun")
"""The keys that hold for the whole bid."""

EXAMPLES: list[dict[str, Any]] = [
    {"configurations": {"gpu-1": 1}, "duration": "2h", "deadline": "+12h", "value": "1.50"},
    {
        "resources": {"nvidia.com/gpu": 4, "cpu": "500m", "memory": "6Gi"},
        "count": 2,
        "duration": "4h",
        "arrival": "2026-01-05T08:00:00Z",
        "deadline": "2026-01-06T08:00:00Z",
        "value": [{"by": "2026-01-05T18:00:00Z", "value": "10"}, {"value": "4"}],
        "commitment": "preemptible",
    },
    {
        "xor": [
            {"configurations": {"gpu-8": 1}, "duration": "2h", "deadline": "+1d", "value": "12"},
            {
                "and": [
                    {"configurations": {"gpu-4": 1}, "duration": "4h", "deadline": "+1d"},
                    {"resources": {"cpu": 8}, "duration": "30min", "deadline": "+2d"},
                ],
                "value": "10",
            },
        ],
        "commitment": "flexible",
        "overrun": "30min",
    },
]
"""Bids that the schema shows."""


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a bid; ``language.schema.json`` holds the same.

    It cannot say everything: that a deadline comes after the arrival and leaves
    room for the duration, that values fall and only the last step is without
    `by`, that a day is on the calendar, that a number has at most six decimals
    or a quantity is whole in its base unit, and what a name with a ``=`` means.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Bid",
        "description": "What somebody would buy, and the most they would pay for it.",
        "oneOf": [
            _request("One request", "value", *BID),
            _all("Requests that are only of use together", *BID),
            _mapping("Alternatives", ["xor", *BID], ["xor"]),
        ],
        "examples": EXAMPLES,
        "$defs": {
            **_values(),
            "request": _request("Request"),
            "alternative": {
                "title": "Alternative",
                "description": "One of the things that would do, and what it is worth.",
                "oneOf": [
                    _request("One request", "value"),
                    _all("Requests that are only of use together"),
                ],
            },
            "step": _mapping("Step", ["by", "value"], ["value"], value=_ref("credits")),
            **_scalars(),
        },
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _sentence(word: str) -> str:
    text = WORDS[word]
    return f"{text[0].upper()}{text[1:]}."


def _mapping(title: str, may: list[str], must: list[str], **rules: Any) -> dict[str, Any]:
    properties = {word: rules.get(word, _ref(word)) for word in may}
    return {
        "title": title,
        "type": "object",
        "properties": properties,
        "required": must,
        "additionalProperties": False,
    }


def _request(title: str, *more: str) -> dict[str, Any]:
    must = ["duration", "deadline", *[word for word in more if word == "value"]]
    return _mapping(title, [*REQUEST, *more], must) | {
        "oneOf": [{"required": ["configurations"]}, {"required": ["resources"]}],
        "dependentRequired": {"count": ["resources"]},
    }


def _all(title: str, *more: str) -> dict[str, Any]:
    return _mapping(title, ["and", "value", *more], ["and", "value"])


def _values() -> dict[str, Any]:
    """The rule for the value of every key."""
    count = {"type": "integer", "minimum": 1, "maximum": MOST_BUNDLES}
    steps = {"type": "array", "minItems": 1, "items": _ref("step")}
    rules: dict[str, dict[str, Any]] = {
        "configurations": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"minLength": 1},
            "additionalProperties": count,
            "examples": [{"gpu-8": 1}],
        },
        "resources": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^{RESOURCE}$"},
            "additionalProperties": _ref("quantity"),
            "examples": [{"nvidia.com/gpu": 2, "cpu": "500m", "memory": "6Gi"}],
        },
        "count": {**count, "default": 1},
        "duration": {**_duration(1), "examples": ["90s", "1h30min", "PT1H30M", 5400]},
        "arrival": _ref("time"),
        "deadline": _ref("time"),
        "and": {"type": "array", "minItems": 1, "items": _ref("request")},
        "xor": {"type": "array", "minItems": 1, "items": _ref("alternative")},
        "value": {"oneOf": [_ref("credits"), steps], "examples": ["12.50"]},
        "by": _ref("time"),
        "commitment": {"enum": [str(each) for each in Commitment], "default": "fixed"},
        "overrun": {**_duration(0), "default": "0s", "examples": ["30min"]},
    }
    return {
        word: {"title": word.capitalize(), "description": _sentence(word), **rule}
        for word, rule in rules.items()
    }


def _duration(least: int) -> dict[str, Any]:
    text = f"^{DURATION}$" if least == 0 else f"^(?=.*[1-9]){DURATION}$"
    return {
        "anyOf": [
            {"type": "integer", "minimum": least, "maximum": LATEST},
            {"type": "string", "pattern": text},
        ]
    }


def _scalars() -> dict[str, Any]:
    return {
        "time": {
            "title": "Time",
            "description": "UTC seconds, ISO 8601 with a time zone, or after the submission.",
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": LATEST},
                {"type": "string", "pattern": f"^{TIME}$"},
            ],
            "examples": ["2026-01-05T08:00:00Z", "2026-01-05T09:00:00+01:00", "+2h", 1767600000],
        },
        "credits": {
            "title": "Credits",
            "description": "An amount in credits with at most six decimals.",
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": MOST_VALUE // MICRO},
                {"type": "string", "pattern": f"^{CREDITS}$"},
            ],
            "examples": ["12.50", 12.5],
        },
        "quantity": {
            "title": "Quantity",
            "description": "In Kubernetes notation, above 0; cpu in thousandths, others whole.",
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_QUANTITY},
                {"type": "string", "pattern": f"^{QUANTITY}$"},
            ],
            "examples": ["500m", "6Gi", 2],
        },
    }
