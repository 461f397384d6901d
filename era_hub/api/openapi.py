"""The OpenAPI 3.1 document, from the models that validate the requests."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from .. import __version__, models
from .base import JSON, ApiHandler, Endpoint, methods
from .events import STREAM
from .versions import VersionedHandler

REF = "#/components/schemas/{model}"
PROBLEMS = {
    400: "Path or query are not UTF-8",
    401: "No login, or one that has ended",
    403: "The login lacks a scope, or may not see this",
    404: "There is no such thing, or the caller may not know of it",
    409: "Not possible in the present state",
    412: "It was changed meanwhile",
    413: "The body is too long",
    415: "The body is not JSON by its headers",
    422: "A field or the query makes no sense",
    428: "The version that is to be changed is missing",
    429: "Too many requests",
    503: "The hub or the database does not answer",
}
HEADERS = {
    "X-Request-ID": "names the request, here and in the log; that of the request if it had one",
    "ETag": "changes with the answer; send it as If-None-Match to get 304 while it is the same",
    "Retry-After": "seconds until another try makes sense",
}

IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "the ETag of what was read: 412 if it has changed since",
}


def document(routes: list[tuple[str, type[ApiHandler]]], server: str) -> dict[str, Any]:
    """Describe the routes.

    Parameters
    ----------
    routes : list of (path, handler)
        Paths relative to the API's root, with ``{parameters}``.
    server : str
        URL path of the API's root.
    """
    endpoints = [
        (path, method, each)
        for path, handler in routes
        for method, each in methods(handler).items()
    ]
    handlers, paths = dict(routes), dict[str, Any]()
    for path, method, each in endpoints:
        operation = _operation(path, method, each)
        if method != "get" and issubclass(handlers[path], VersionedHandler):
            operation["parameters"].append(IF_MATCH)
        paths.setdefault(f"/{path}", {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ERA Hub",
            "version": __version__,
            "description": "A market for GPU time inside JupyterHub. Money is in integer "
            "micro-credits, time in ISO 8601 with an offset, durations in seconds.",
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "schemas": _schemas([each for _, _, each in endpoints]),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "a JupyterHub token with the scopes that an operation names",
                }
            },
        },
    }


def _operation(path: str, method: str, each: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": each.summary,
        "operationId": f"{method}-" + re.sub(r"[^a-z]+", "-", path).strip("-"),
        "parameters": _parameters(path, each),
        "responses": _responses(path, method, each),
        "security": [{"token": []}] if each.scopes else [],
    }
    if each.scopes:
        operation["description"] = "Needs the scope " + " or ".join(each.scopes) + "."
    if each.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(each.body)}},
        }
    if each.writes:
        operation["parameters"].append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "schema": {"type": "string"},
                "description": "a call repeated with the same key is not made again: its first "
                "answer is given once more, and 422 if it asks for something else",
            }
        )
    return operation


def _responses(path: str, method: str, each: Endpoint) -> dict[str, Any]:
    schema = _schema(each.answer) if each.media == JSON else {"type": "string"}
    kind = each.media.partition(";")[0]
    kept = ["ETag"] if method == "get" and kind != STREAM else []
    found: dict[str, Any] = {
        "200": {
            "description": "OK",
            "headers": _headers("X-Request-ID", *kept),
            "content": {kind: {"schema": schema}},
        }
    }
    if kept:
        found["304"] = {
            "description": "As the client has it already",
            "headers": _headers("X-Request-ID", *kept),
        }
    for status in _statuses(path, method, each):
        waits = ["Retry-After"] if status in (429, 503) else []
        found[str(status)] = {
            "description": PROBLEMS[status],
            "headers": _headers("X-Request-ID", *waits),
            "content": {"application/problem+json": {"schema": _schema(models.Problem)}},
        }
    return found


def _statuses(path: str, method: str, each: Endpoint) -> list[int]:
    """Which problems there may be."""
    found = {400, 503}
    if each.scopes:
        found |= {401, 403, 422, 429}
    if "{" in path or each.query is not None:
        found |= {404}
    if each.query is not None or each.body is not None:
        found |= {422}
    if each.body is not None:
        found |= {413, 415}
    if method != "get":
        found |= {404, 409, 412, 428}
    return sorted(found)


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}


def _parameters(path: str, each: Endpoint) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    if each.query is not None:
        schema = each.query.model_json_schema(ref_template=REF)
        for name, field in schema["properties"].items():
            required = name in schema.get("required", ())
            found.append({"name": name, "in": "query", "required": required, "schema": field})
    return found


def _schema(answer: Any) -> dict[str, Any]:
    if isinstance(answer, type) and issubclass(answer, BaseModel):
        return {"$ref": REF.format(model=answer.__name__)}
    schema = TypeAdapter(answer).json_schema(ref_template=REF, mode="serialization")
    schema.pop("$defs", None)
    return schema


def _schemas(endpoints: list[Endpoint]) -> dict[str, Any]:
    wanted: list[tuple[type[BaseModel], Any]] = [(models.Problem, "serialization")]
    for each in endpoints:
        if each.body is not None:
            wanted.append((each.body, "validation"))
        for model in _models_in(each.answer):
            wanted.append((model, "serialization"))
    _, schema = models_json_schema(list(dict.fromkeys(wanted)), ref_template=REF)
    schemas: dict[str, Any] = schema.get("$defs", {})
    schemas.setdefault("Kind", TypeAdapter(models.Kind).json_schema())
    return schemas


def _models_in(answer: Any) -> list[type[BaseModel]]:
    if isinstance(answer, type) and issubclass(answer, BaseModel):
        return [answer]
    return [
        each
        for each in getattr(answer, "__args__", ())
        if isinstance(each, type) and issubclass(each, BaseModel)
    ]
