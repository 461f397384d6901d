"""A copy of one kind of object that is kept up to date by a watch."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from era_hub.clouds.kubernetes.api import Api, ApiError, Json
from era_hub.clouds.kubernetes.views import number
from era_hub.timing import Backoff

PAGE = 500  # objects that are listed at once
WATCH_SECONDS = (240, 300)  # the server ends a watch after that long; spread, so not all at once
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


class Viewed(Protocol):
    """What is kept of an object."""

    @property
    def uid(self) -> str:
        """Tells the object from an earlier one of the same name."""

    @property
    def version(self) -> int:
        """Grows with each change; 0 if it can't be told."""


V = TypeVar("V", bound=Viewed)


class Expired(Exception):
    """What the watch would go on from is no longer known: list again."""


class Copy(Generic[V]):
    """The objects of one kind, as far as the API server has told.

    First all are listed, then changes are watched. A watch that breaks off goes on where
    it was; where the server no longer knows that place, everything is listed again and
    compared. While the server is away, what was known last stays.

    Parameters
    ----------
    path : str
        Of the collection.
    view : callable
        Makes what is kept of an object from the object.
    seen : callable
        Called with what was kept and what is kept now, for each change; None for nothing.
    selector : str
        Label selector, to leave others out.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        view: Callable[[Json], V],
        seen: Callable[[V | None, V | None], None],
        log: logging.Logger,
        selector: str = "",
    ) -> None:
        self.api = api
        self.path = path
        self.view = view
        self.seen = seen
        self.log = log
        self.selector = selector or None
        self.items: dict[str, V] = {}
        self.listed = 0
        """How often everything was listed."""
        self._version = ""

    def __iter__(self) -> Iterator[V]:
        return iter(self.items.values())

    def put(self, found: Json) -> V:
        """Keep an object that the server has just answered, unless a later one is known."""
        new = self.view(found)
        old = self.items.get(new.uid)
        if old is not None and new.version < old.version:
            return old
        self.items[new.uid] = new
        self.seen(old, new)
        return new

    async def run(self) -> None:
        """List and watch until cancelled. The first list is `refresh`."""
        pauses = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                if not self._version:
                    await self.refresh()
                await self._watch()
                pauses.clear()
            except Expired:
                self._version = ""
            except ApiError as error:
                pauses.fail(asyncio.get_running_loop().time())
                self.log.warning(
                    "Watching %s: next try in %.1f s: %s", self.path, pauses.length, error
                )
                await asyncio.sleep(pauses.length * random.uniform(0.75, 1.25))
            except Exception:
                self.log.exception("Watching %s: listing again", self.path)
                self._version = ""
                await asyncio.sleep(LONGEST_PAUSE)

    async def refresh(self) -> None:
        """List everything, and take what is not there for deleted."""
        found: dict[str, V] = {}
        token, version = None, ""
        while True:
            page = await self._page(token)
            version = page["metadata"]["resourceVersion"]
            for each in page["items"]:
                view = self.view(each)
                found[view.uid] = view
            token = page["metadata"].get("continue")
            if not token:
                break
        old, self.items = self.items, found
        self._version = version
        self.listed += 1
        for uid in old.keys() - found.keys():
            self.seen(old[uid], None)
        for uid, new in found.items():
            known = old.get(uid)
            if known is None or known.version != new.version or not new.version:
                self.seen(known, new)

    async def look(self, selector: str, concerns: Callable[[V], bool]) -> None:
        """Ask about some of the objects now, without waiting for the watch.

        Parameters
        ----------
        selector : str
            Label selector of theirs.
        concerns : callable
            Whether an object that is known is one of them.
        """
        answer = await self.api.get(self.path, labelSelector=selector)
        found = {self.put(each).uid for each in answer["items"]}
        version = number(answer["metadata"]["resourceVersion"])
        for uid, known in list(self.items.items()):
            if uid not in found and known.version <= version and concerns(known):
                del self.items[uid]
                self.seen(known, None)

    async def _page(self, token: str | None) -> Json:
        options = {"limit": PAGE, "labelSelector": self.selector, "continue": token}
        try:
            return await self.api.get(self.path, **options)
        except ApiError as error:
            if error.status == 410:
                raise Expired from None
            raise

    async def _watch(self) -> None:
        stream = self.api.stream(
            self.path,
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=self._version,
            timeoutSeconds=random.randint(*WATCH_SECONDS),
            labelSelector=self.selector,
        )
        rest = b""
        try:
            async for piece in stream:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._event(json.loads(line))
        except ApiError as error:
            if error.status == 410:
                raise Expired from None
            raise
        finally:
            await stream.aclose()

    def _event(self, event: Json) -> None:
        kind, found = event["type"], event["object"]
        if kind == "ERROR":
            if found.get("code") == 410:
                raise Expired
            raise ApiError(found.get("code", 0), str(found.get("message")))
        self._version = found["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        if kind != "DELETED":
            self.put(found)
            return
        last = self.put(found)  # it may have changed with its deletion
        del self.items[last.uid]
        self.seen(last, None)
