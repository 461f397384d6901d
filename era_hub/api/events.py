"""Changes as they happen, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, Field
from tornado.iostream import StreamClosedError

from ..changes import Change, Event, Listener
from .base import ApiHandler, Principal, Problem, Scope, endpoint

STREAM = "text/event-stream"

PRICES_PAUSE = 1.0
"""Seconds from one event about prices to the next."""

GATHER = 0.05
"""Seconds in which changes are gathered: what changes twice is told once."""

SEND = 30.0
"""Seconds for a reader to take what is sent, before it counts as gone."""

RETRY = 3000
"""Milliseconds after which browsers connect again."""


class Streams:
    """The open streams: so many for each user, and all of them closed at the end.

    Parameters
    ----------
    limit : int
        Streams of one user.
    keepalive : float
        Seconds of silence after which a comment is sent: proxies cut idle connections.
    check : float
        Seconds after which the hub is asked again whether a login still holds.
    """

    def __init__(self, limit: int = 10, keepalive: float = 15.0, check: float = 60.0) -> None:
        self.limit = limit
        self.keepalive = keepalive
        self.check = check
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._tasks)

    def admit(self, caller: Principal) -> None:
        """Refuse one stream too many; services may have as many as they like."""
        if caller.kind == "user" and self._held[caller.name] >= self.limit:
            raise Problem(429, f"you have {self.limit} streams open; close one", retry_after=5)

    def add(self, caller: Principal, task: asyncio.Task[None]) -> None:
        """Count a stream until its task is done."""
        self._tasks.add(task)
        self._held[caller.name] += 1

        def forget(_: Any) -> None:
            self._tasks.discard(task)
            self._held[caller.name] -= 1
            if not self._held[caller.name]:
                del self._held[caller.name]

        task.add_done_callback(forget)

    async def close(self) -> None:
        """End all streams; clients come back to the next process."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class EventsQuery(BaseModel):
    """How long to listen."""

    seconds: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="end after so many; a proxy that passes nothing on before the end of an "
        "answer can be told by it. Default: no end",
    )


class EventsHandler(ApiHandler):
    """GET events"""

    @endpoint("What changes, as server-sent events", str, query=EventsQuery, media=STREAM)
    async def get(self, query: EventsQuery) -> None:
        caller = self.require(Scope.BID, Scope.ADMIN, Scope.SPAWN)
        streams = self.services.streams
        streams.admit(caller)
        self._stream = asyncio.create_task(self._tell(query.seconds))
        streams.add(caller, self._stream)
        # Cancelled when the other side hangs up, or when the service ends.
        with suppress(asyncio.CancelledError, StreamClosedError, TimeoutError):
            await self._stream
        self.finish()

    async def head(self, *path: str) -> None:
        """What GET would say first, without opening a stream."""
        self.require(Scope.BID, Scope.ADMIN, Scope.SPAWN)
        self.set_header("Content-Type", STREAM)
        self.finish()

    def on_connection_close(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.cancel()

    async def _tell(self, seconds: float | None) -> None:
        self.set_header("Content-Type", STREAM)
        self.set_header("X-Accel-Buffering", "no")  # nginx would keep it back
        after = self.request.headers.get("Last-Event-ID")
        with self.services.changes.subscribe(after) as listener:
            # A first event, so that the reader has an id from which to go on. What was
            # put off for the reader's sake when the last stream broke is not known here.
            self.write(f"retry: {RETRY}\n\n")
            if listener.id is not None:
                self._send([Event(listener.id, Change("prices"))])
            await self._flush()
            login = asyncio.create_task(self._until_login_ends())
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._pass_on(listener, login)
            finally:
                login.cancel()

    async def _pass_on(self, listener: Listener, login: asyncio.Task[None]) -> None:
        clock = asyncio.get_running_loop().time
        news: asyncio.Task[list[Event]] | None = None
        told, prices = clock(), None
        try:
            while not login.done():
                news = news or asyncio.create_task(listener.next())
                wait = self.services.streams.keepalive
                if prices is not None:
                    wait = min(wait, max(0.0, told + PRICES_PAUSE - clock()))
                await asyncio.wait((news, login), timeout=wait, return_when="FIRST_COMPLETED")
                ready: list[Event] = []
                if news.done():
                    found, news = news.result(), None
                    prices = next((e for e in reversed(found) if _moves_prices(e)), prices)
                    ready = self._visible(found)
                if prices is not None and clock() >= told + PRICES_PAUSE:
                    # With the newest id of all, and so in the end.
                    last = ready[-1].id if ready else listener.id or prices.id
                    ready.append(Event(last, Change("prices")))
                    told, prices = clock(), None
                if ready:
                    self._send(ready)
                elif news is not None and prices is None and not news.done():
                    self.write(": still here\n\n")
                await self._flush()
                await asyncio.sleep(GATHER)
        finally:
            if news is not None:
                news.cancel()

    async def _until_login_ends(self) -> None:
        while True:
            await asyncio.sleep(self.services.streams.check)
            try:
                self.principal = await self.fresh_principal()
                self.require(Scope.BID, Scope.ADMIN, Scope.SPAWN)
            except Problem:
                # Also when the hub does not answer: the client asks again, and is told.
                return

    def _visible(self, events: Iterable[Event]) -> list[Event]:
        """The events that the caller may know of, each once; those about prices come later."""
        caller = self.principal
        newest = {
            each.change: each
            for each in events
            if each.change is None
            or (each.change.kind != "prices" and _may_know(caller, each.change))
        }
        # A dictionary keeps the place of the first; ids must not go backwards.
        order = {each: index for index, each in enumerate(events)}
        return sorted(newest.values(), key=order.__getitem__)

    def _send(self, events: Iterable[Event]) -> None:
        for each in events:
            if each.change is None:
                kind, data = "reset", {}
            else:
                kind = each.change.kind
                data = {"user": each.change.user, "id": each.change.id}
            self.write(f"id: {each.id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n")

    async def _flush(self) -> None:
        async with asyncio.timeout(SEND):
            await self.flush()


def _moves_prices(event: Event) -> bool:
    """Whoever has reserved or released something has moved the prices of all."""
    return event.change is not None and event.change.kind in ("prices", "reservation")


def _may_know(caller: Principal | None, change: Change) -> bool:
    if caller is None:
        return False
    mine = change.user is None or (caller.kind == "user" and caller.name == change.user)
    return mine or caller.sees_everybody
