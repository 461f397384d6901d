"""What has changed, told to whoever listens: from the market's thread to the event loop.

The last changes are kept in one ring that all listeners read, each from a place of
its own. So a listener costs nothing while it does not read, and one that is too slow
finds its place overwritten and is told to read everything anew.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Literal

Kind = Literal["reservation", "job", "account", "prices"]


@dataclass(frozen=True, slots=True)
class Change:
    """What is no longer as it was, without saying how it is now.

    Parameters
    ----------
    kind : {"reservation", "job", "account", "prices"}
    user : str or None
        Whose it is; None for what everybody may see.
    id : str or None
        Of the reservation or job, or the account's.
    """

    kind: Kind
    user: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A change and its place; without a change, the listener has missed some."""

    id: str
    change: Change | None


class Changes:
    """Passes changes on from any thread to listeners on event loops.

    Parameters
    ----------
    kept : int
        How many of the last changes are kept for listeners that come back.
    """

    def __init__(self, kept: int = 1024) -> None:
        # Places of an earlier process, or of another replica, mean nothing to this one.
        self._run = secrets.token_hex(4)
        self._ring: deque[Change] = deque(maxlen=kept)
        self._count = 0
        self._lock = Lock()
        self._listeners: dict[Listener, asyncio.AbstractEventLoop] = {}

    def publish(self, *changes: Change) -> None:
        """Tell of changes; callable from any thread, after they are committed."""
        with self._lock:
            self._ring.extend(changes)
            self._count += len(changes)
            self._call()

    def lose(self) -> None:
        """Some changes are not known: all listeners are to read everything anew."""
        with self._lock:
            self._ring.clear()
            self._count += 1
            self._call()

    def _call(self) -> None:
        """Wake the listeners; the caller has the lock."""
        asleep = [each for each in self._listeners.items() if not each[0].called]
        for listener, loop in asleep:
            listener.called = True
            with suppress(RuntimeError):  # its loop was closed: nobody listens
                loop.call_soon_threadsafe(listener.awake.set)

    @contextmanager
    def subscribe(self, after: str | None = None) -> Iterator[Listener]:
        """Listen on the running event loop.

        Parameters
        ----------
        after : str, optional
            The id of the last event that was seen, to go on from there. Default:
            from now on.
        """
        listener = Listener(self, self._place(after))
        with self._lock:
            self._listeners[listener] = asyncio.get_running_loop()
        try:
            yield listener
        finally:
            with self._lock:
                del self._listeners[listener]

    def id(self, place: int) -> str:
        """The id of the event before this place."""
        return f"{self._run}-{place}"

    def since(self, place: int | None) -> tuple[int, list[Event]]:
        """The place now and the events from the given one on."""
        with self._lock:
            now, first = self._count, self._count - len(self._ring)
            if place is None or not first <= place <= now:
                return now, [Event(self.id(now), None)]
            found = list(islice(self._ring, place - first, None))
        return now, [Event(self.id(place + 1 + i), each) for i, each in enumerate(found)]

    def _place(self, after: str | None) -> int | None:
        if after is None:
            return self._count
        run, _, place = after.partition("-")
        known = run == self._run and place.isascii() and place.isdecimal() and len(place) < 20
        return int(place) if known else None


class Listener:
    """One place in the ring; an endless asynchronous iterator of lists of events."""

    def __init__(self, changes: Changes, place: int | None) -> None:
        self._changes = changes
        self.place = place
        self.awake = asyncio.Event()
        self.called = False
        """Whether `awake` is set or about to be; guarded by the lock of `Changes`."""

    @property
    def id(self) -> str | None:
        """The id of the last event that was read."""
        return None if self.place is None else self._changes.id(self.place)

    async def next(self) -> list[Event]:
        """Wait for events that are new to this listener."""
        while True:
            # First the flag, then the look: what comes in between sets it again.
            self.awake.clear()
            self.called = False
            self.place, events = self._changes.since(self.place)
            if events:
                return events
            await self.awake.wait()

    def __aiter__(self) -> AsyncIterator[list[Event]]:
        return self

    async def __anext__(self) -> list[Event]:
        return await self.next()
