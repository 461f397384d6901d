"""What the market has to say to one notebook server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, TypedDict

import httpx

from era_hub.client import AsyncEraClient

from ..options import FAILURES, sentence


class Shown(TypedDict):
    """A notice, as the browser gets it."""

    id: str
    level: str
    text: str


class Answer(TypedDict):
    """What the browser gets. Times are ISO 8601 in UTC."""

    enabled: bool  # False: not a server of ERA Hub, so asking again is of no use
    notices: list[Shown]
    end: str | None  # when the server's reservation ends, if it has one
    now: str  # the browser's clock may be wrong
    error: str


class Notices:
    """Asks the market on behalf of the server whose environment this is.

    ``ERA_URL`` says where the market is and ``ERA_RESERVATION`` what the server runs
    on; the spawner sets both. A server that was started elsewhere has neither, and
    there is nothing to say.
    """

    def __init__(self) -> None:
        self._client: AsyncEraClient | None = None

    async def look(self) -> Answer:
        """The warnings and the time of the end. A market that fails is no exception here."""
        answer = Answer(
            enabled=bool(os.environ.get("ERA_URL")),
            notices=[],
            end=None,
            now=datetime.now(UTC).isoformat(),
            error="",
        )
        if answer["enabled"]:
            try:
                await self._ask(answer)
            except (*FAILURES, httpx.InvalidURL) as error:
                answer["error"] = sentence(error)
        return answer

    async def _ask(self, answer: Answer) -> None:
        if self._client is None:
            self._client = AsyncEraClient()
        own = os.environ.get("ERA_RESERVATION")
        questions: list[Awaitable[Any]] = [self._client.notices()]
        if own:
            questions.append(self._client.reservation(own))
        notices, *reservations = await asyncio.gather(*questions, return_exceptions=True)
        for reservation in reservations:
            if not isinstance(reservation, BaseException):
                answer["end"] = (reservation.ended or reservation.end).isoformat()
        if not isinstance(notices, BaseException):
            answer["notices"] = [
                Shown(id=each.id, level=each.level, text=each.text)
                for each in notices
                # "The server stops then" would be wrong about a user's other servers.
                if not own or each.reservation == own
            ]
        for found in (notices, *reservations):
            if isinstance(found, BaseException):
                raise found

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None
