"""The OpenAPI 3.1 document, from the models that validate the requests."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from .. import __version__, models
from .base import ApiHandler, Endpoint

REF = "#/components/schemas/{model}"
METHODS = ("get", "post", "delete")


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
        (path, method, getattr(handler, method).endpoint)
        for path, handler in routes
        for method in METHODS
        if hasattr(getattr(handler, method), "endpoint")
    ]
    paths: dict[str, Any] = {}
    for path, method, each in endpoints:
        paths.setdefault(f"/{path}", {})[method] = _operation(path, method, each)
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
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": _schema(each.answer)}},
            },
            "default": {
                "description": "A problem, in one sentence",
                "content": {"application/problem+json": {"schema": _schema(models.Problem)}},
            },
        },
        "security": [{"token": []}] if each.scopes else [],
    }
    if each.scopes:
        operation["description"] = "Needs the scope " + " or ".join(each.scopes) + "."
    if each.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(each.body)}},
        }
    if method == "post" and each.body is not None and path != "quotes":
        operation["parameters"].append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "schema": {"type": "string"},
                "description": "a request repeated with the same key reserves nothing more: "
                "the answer is the first reservation as it is now",
            }
        )
    return operation


def _parameters(path: str, each: Endpoint) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    if each.query is not None:
        schema = each.query.model_json_schema(ref_template=REF)
        for name, field in schema["properties"].items():
            found.append({"name": name, "in": "query", "required": False, "schema": field})
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
