"""Long lists in pages: filters, a cursor, and a link to the next page."""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import AwareDatetime, BaseModel, Field

from .. import models
from ..market import Place
from .base import ApiHandler, Problem

T = TypeVar("T", models.Reservation, models.Job)


class ListQuery(BaseModel):
    """Which reservations or jobs to list."""

    user: str | None = Field(None, description="for admins and the spawner: whose")
    everybody: bool = Field(False, description="for admins and the spawner: all users'")
    current: bool = Field(False, description="only those that have not ended")
    state: models.State | None = Field(None, description="of the reservation")
    configuration: str | None = Field(None, max_length=200)
    since: AwareDatetime | None = Field(None, description="only what ends after this time")
    until: AwareDatetime | None = Field(None, description="only what starts before this time")
    limit: int = Field(200, ge=1, le=1000, description="at most so many on a page")
    cursor: str | None = Field(
        None, max_length=300, description="where to go on: from the Link header of the last page"
    )

    def narrowed(self) -> dict[str, Any]:
        """The filters as the market takes them, with one more than the page holds."""
        return {
            "current": self.current,
            "state": self.state,
            "configuration": self.configuration,
            "since": None if self.since is None else int(self.since.timestamp()),
            "until": None if self.until is None else int(self.until.timestamp()),
            "after": None if self.cursor is None else _place(self.cursor),
            "limit": self.limit + 1,
        }


def page(handler: ApiHandler, query: ListQuery, found: list[T]) -> list[T]:
    """As much of a list as a page holds, with a Link to the next one (RFC 8288)."""
    if len(found) <= query.limit:
        return found
    last = found[query.limit - 1]
    made = last.reservation if isinstance(last, models.Job) else last
    place = f"{int(made.created.timestamp())}:{made.id}"
    asked = {name: handler.get_query_argument(name) for name in handler.request.query_arguments}
    asked.pop("_xsrf", None)
    asked["cursor"] = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    # Relative to the address of this page, whatever stands before it.
    handler.set_header("Link", f'<?{urlencode(asked)}>; rel="next"')
    return found[: query.limit]


def _place(cursor: str) -> Place:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        created, _, name = text.partition(":")
        if not (created.isascii() and created.isdecimal() and len(created) < 18 and name):
            raise ValueError(text)
        if "\0" in name:
            raise ValueError(text)
        return Place(int(created), name)
    except (binascii.Error, ValueError):
        raise Problem(422, "cursor: use the one of the last page's Link header") from None
