"""The Hub, asked no more often than it can answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .hub import Hub, HubError, Server, Servers
from .timing import Backoff

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds for which a hub that is ill is left in peace, at first and at most."""


class PatientHub:
    """The Hub as the reconciler asks it.

    While the hub is ill (it can't be reached, or fails at questions) nobody asks it but
    one at a time, after growing pauses; everybody else learns at once that it is ill.
    What is asked several times in one pass is asked once.

    Parameters
    ----------
    hub : Hub
    monotonic : callable
        Seconds by a clock that is never set.
    """

    def __init__(self, hub: Hub, monotonic: Callable[[], float], log: logging.Logger) -> None:
        self._hub = hub
        self._monotonic = monotonic
        self._log = log
        self._illness = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._why = ""
        self._probe = asyncio.Lock()
        self._known: dict[str, asyncio.Task[Servers]] = {}

    @property
    def pause(self) -> float:
        """Seconds until the hub is asked again; 0 while it is well."""
        return max(0.0, self._illness.until - self._monotonic())

    def begin(self) -> None:
        """A pass begins: what was known is out of date."""
        self._known.clear()

    def recover(self) -> None:
        """Ask again at once."""
        self._illness.clear()

    async def server(self, user: str, name: str) -> Server | None:
        """The user's server, or None if it is not there."""
        asking = self._known.get(user)
        if asking is None:
            question = self._ask(lambda: self._hub.servers(user))
            asking = self._known[user] = asyncio.ensure_future(question)
        return (await asyncio.shield(asking)).get(name)

    async def all_servers(self) -> dict[tuple[str, str], Server]:
        """The servers of all users, by user and name."""
        return await self._ask(self._hub.all_servers)

    async def start(self, user: str, name: str, options: dict[str, Any]) -> None:
        """Ask for a server."""
        self._known.pop(user, None)
        await self._ask(lambda: self._hub.start(user, name, options))

    async def stop(self, user: str, name: str) -> None:
        """Ask for a stop."""
        self._known.pop(user, None)
        await self._ask(lambda: self._hub.stop(user, name))

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        if not self._illness.length:
            return await self._try(question)
        async with self._probe:
            return await self._try(question)

    async def _try(self, question: Callable[[], Awaitable[T]]) -> T:
        if self._illness.waits(self._monotonic()):
            raise HubError(self._why, ill=True)
        try:
            answer = await question()
        except HubError as error:
            if error.ill:
                self._fell_ill(error)
            raise
        if self._illness.length:
            self._log.info("The hub answers again")
            self._illness.clear()
        return answer

    def _fell_ill(self, error: HubError) -> None:
        self._why = str(error)
        if not self._illness.waits(self._monotonic()):
            self._illness.fail(self._monotonic())
            self._log.warning("The hub is asked again in %g s: %s", self._illness.length, error)
