"""The OpenAPI document says what the API does, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel

from era_hub import __version__, models
from era_hub.api import ROUTES
from era_hub.api.base import Endpoint
from era_hub.api.openapi import document
from tests.era_hub.test_models import ANSWERS

SERVER = "/@/space%20word/services/era/api/v1/"
DOCUMENT = document(ROUTES, SERVER)
SCHEMAS = DOCUMENT["components"]["schemas"]
VERBS = ("get", "head", "post", "put", "patch", "delete", "options")


def served() -> dict[tuple[str, str], Endpoint]:
    """What the handlers answer, by path and method."""
    return {
        (f"/{path}", verb): method.endpoint
        for path, handler in ROUTES
        for verb in VERBS
        if hasattr(method := getattr(handler, verb), "endpoint")
    }


OPERATIONS = [
    pytest.param(path, verb, each, id=f"{verb} {path}") for (path, verb), each in served().items()
]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from references(each)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


def parameters(operation: dict[str, Any], where: str) -> set[str]:
    return {each["name"] for each in operation["parameters"] if each["in"] == where}


def reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_it_is_json() -> None:
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


def test_it_says_which_version_and_where() -> None:
    assert DOCUMENT["info"]["version"] == __version__
    assert DOCUMENT["servers"] == [{"url": SERVER}]


def test_every_route_is_documented_and_no_other() -> None:
    documented = {(path, verb) for path, verbs in DOCUMENT["paths"].items() for verb in verbs}
    assert documented == set(served())
    assert {path for path, _ in documented} == {f"/{path}" for path, _ in ROUTES}


def test_every_method_that_a_handler_has_is_an_endpoint() -> None:
    """One without would serve without authorisation, validation or documentation."""
    bare = [
        f"{verb} {path}"
        for path, handler in ROUTES
        for verb in VERBS
        for method in [getattr(handler, verb)]
        if method.__module__.startswith("era_hub")
        and not hasattr(method, "endpoint")
        and verb != "head"  # as GET, without the body
    ]
    assert bare == []


def test_operations_have_names_of_their_own() -> None:
    names = [each["operationId"] for verbs in DOCUMENT["paths"].values() for each in verbs.values()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names)


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert found
    assert {each.removeprefix("#/components/schemas/") for each in found} <= set(SCHEMAS)


@pytest.mark.parametrize(("path", "verb", "endpoint"), OPERATIONS)
def test_operations_say_what_they_take_and_give(path: str, verb: str, endpoint: Endpoint) -> None:
    operation = DOCUMENT["paths"][path][verb]
    assert operation["summary"] == endpoint.summary
    (kind, content), *others = operation["responses"]["200"]["content"].items()
    assert (kind, others) == (endpoint.media.partition(";")[0], [])
    answer = content["schema"]
    if endpoint.media != "application/json":
        assert answer == {"type": "string"}
    elif isinstance(endpoint.answer, type) and issubclass(endpoint.answer, BaseModel):
        assert answer == reference(endpoint.answer)
    elif endpoint.answer == dict[str, Any]:
        assert answer["type"] == "object"
    else:
        (model,) = endpoint.answer.__args__
        assert answer == {"type": "array", "items": reference(model)}

    if endpoint.body is None:
        assert "requestBody" not in operation
    else:
        body = operation["requestBody"]
        assert body["required"] is True
        assert body["content"]["application/json"]["schema"] == reference(endpoint.body)

    assert parameters(operation, "path") == set(re.findall(r"{(\w+)}", path))
    query = endpoint.query.model_fields if endpoint.query else {}
    assert parameters(operation, "query") == set(query)

    for status, answer in operation["responses"].items():
        assert "X-Request-ID" in answer["headers"]
        assert ("Retry-After" in answer["headers"]) == (status in ("429", "503"))
        if int(status) >= 400:
            schema = {"schema": reference(models.Problem)}
            assert answer["content"] == {"application/problem+json": schema}
    assert ("413" in operation["responses"]) == (endpoint.body is not None)
    assert ("401" in operation["responses"]) == bool(endpoint.scopes)
    conditional = verb == "get" and endpoint.media != "text/event-stream"
    assert ("304" in operation["responses"]) == conditional


@pytest.mark.parametrize(("path", "verb", "endpoint"), OPERATIONS)
def test_operations_say_who_may_call_them(path: str, verb: str, endpoint: Endpoint) -> None:
    operation = DOCUMENT["paths"][path][verb]
    if not endpoint.scopes:
        assert operation["security"] == []
    else:
        assert operation["security"] == [{"token": []}]
        assert all(scope in operation["description"] for scope in endpoint.scopes)


def test_only_what_is_harmless_needs_no_login() -> None:
    unprotected = {path for (path, _), each in served().items() if not each.scopes}
    assert unprotected == {"/health", "/version", "/openapi.json"}


def test_what_takes_a_version_says_so() -> None:
    taking = {
        (path, verb)
        for path, verbs in DOCUMENT["paths"].items()
        for verb, each in verbs.items()
        if "If-Match" in parameters(each, "header")
    }
    one = "/reservations/{id}"
    assert taking == {(one, "delete"), (f"{one}/extend", "post"), ("/jobs/{id}", "delete")}
    for path, verb in taking:
        assert "412" in DOCUMENT["paths"][path][verb]["responses"]


def test_queries_without_a_default_are_required() -> None:
    for (path, verb), each in served().items():
        if each.query is not None:
            needed = {
                name for name, field in each.query.model_fields.items() if field.is_required()
            }
            said = {
                parameter["name"]
                for parameter in DOCUMENT["paths"][path][verb]["parameters"]
                if parameter["in"] == "query" and parameter["required"]
            }
            assert said == needed
    policies = DOCUMENT["paths"]["/admin/policies"]["delete"]["parameters"]
    assert {each["name"] for each in policies if each.get("required")} == {
        "kind",
        "name",
        "version",
    }


def test_what_changes_something_takes_an_idempotency_key() -> None:
    taking, changing = set(), set()
    for path, verbs in DOCUMENT["paths"].items():
        for verb, each in verbs.items():
            if "Idempotency-Key" in parameters(each, "header"):
                taking.add((path, verb))
            if verb != "get":
                changing.add((path, verb))
    assert changing - taking == {("/quotes", "post"), ("/reservations/{id}/extend/quote", "post")}
    assert taking <= changing


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"configuration": "gpu-1", "duration": 60, "value": 1}, True),
        ({"configuration": "gpu-1", "duration": "1h30m", "value": 1}, True),
        ({"configuration": "gpu-1", "duration": 60}, False),
        ({"configuration": "gpu-1", "duration": 0, "value": 1}, False),
        ({"configuration": "gpu-1", "duration": 60, "value": -1}, False),
        ({"configuration": "gpu-1", "duration": 60, "value": 1, "typo": 1}, False),
    ],
)
def test_schemas_of_requests_tell_right_from_wrong(body: dict[str, Any], valid: bool) -> None:
    assert _fits(body, models.ReservationRequest) is valid


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda each: type(each).__name__)
def test_answers_fit_their_schemas(answer: BaseModel) -> None:
    assert _fits(json.loads(answer.model_dump_json()), type(answer))


def _fits(value: Any, model: type[BaseModel]) -> bool:
    schema = {**reference(model), "components": {"schemas": SCHEMAS}}
    return bool(Draft202012Validator(schema).is_valid(value))
