"""Bodies of requests: JSON, and nothing that two readers could understand differently."""

from __future__ import annotations

import json
from email.message import Message
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from tornado.httputil import HTTPHeaders

M = TypeVar("M", bound=BaseModel)

UTF_8 = ("utf-8", "utf8", "us-ascii")


class BadBody(ValueError):
    """A body that is not taken; the text says why.

    Parameters
    ----------
    status : int
        415 for what is no JSON by its headers, 422 for what is wrong inside.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def check_headers(headers: HTTPHeaders) -> None:
    """Refuse what says itself that it is not plain JSON; what says nothing may be."""
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise BadBody(415, "send the body without a Content-Encoding")
    given = headers.get("Content-Type")
    if given in (None, "application/json"):
        return
    parsed = Message()
    parsed["Content-Type"] = given
    charset = parsed.get_content_charset("utf-8")
    if parsed.get_content_type() != "application/json" or charset not in UTF_8:
        raise BadBody(415, "send JSON in UTF-8, with the header 'Content-Type: application/json'")


def parse(raw: bytes, model: type[M]) -> M:
    """Validate a body; an empty one counts as an empty object."""
    try:
        found = model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise BadBody(422, explain(error)) from None
    # Only now, as what fits the model is of its depth and size. The escape may be part of
    # a longer one, so it is a reason to look closer and no more.
    _check_twins(raw or b"{}", look_for_nul=b"\\u0000" in raw)
    return found


def _check_twins(raw: bytes, look_for_nul: bool) -> None:
    """The first reader of a repeated name sees one value and the second the other."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            names = [name for name, _ in pairs]
            twin = next(name for name in names if names.count(name) > 1)
            raise BadBody(422, f"{twin[:100]}: given more than once")
        return fields

    try:
        value = json.loads(raw, object_pairs_hook=unique)
    except BadBody:
        raise
    except (ValueError, RecursionError):
        raise BadBody(422, "the body is not JSON that all readers understand alike") from None
    if look_for_nul and _holds_nul(value):
        raise BadBody(422, "texts may not hold NUL characters")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(map(_holds_nul, value))


def explain(error: ValidationError) -> str:
    """One sentence from pydantic's findings: which field, and what is wrong with it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:200]
    what = first["msg"].removeprefix("Value error, ")[:500]
    text = f"{where}: {what}" if where else what
    # A name or value in it may be anything; the answer must be valid UTF-8 all the same.
    return text.encode("utf-8", "replace").decode()
