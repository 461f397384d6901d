"""What keeps the widget up to date and does what it is asked for.

A `Feed` runs on an event loop of its own, in a thread of its own (see `Background`).
The kernel's loop would not do: it stands still while a cell runs, and a running cell
is just when one wants to see a price or a log move. The kernel's channels take
messages from any thread, so what the feed finds out reaches the browser at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from era_hub.client import EraError
from era_hub.models import format_credits

from . import snapshot
from .logtext import Screen
from .options import sentence
from .session import AsyncEra
from .times import format_when

LIVE = 2.0
"""Seconds between looks while somebody watches."""

PIECES = 20
"""Pieces of one log read in one look, so that a huge log holds up nothing."""


def pace(silence: float) -> float:
    """Seconds between looks after so many seconds without a sign of life of a browser.

    A closed laptop says no goodbye, so the pace falls by itself. It doesn't fall to
    nothing: where the kernel can't hear the browser during a cell, the widget is to
    move all the same.

    Examples
    --------
    >>> pace(5), pace(600), pace(7200)
    (2.0, 10.0, 60.0)
    """
    if silence < 60:
        return LIVE
    return 10.0 if silence < 3600 else 60.0


class _OpenLog:
    """A log that somebody looks at."""

    def __init__(self) -> None:
        self.screen = Screen()
        self.offset = 0
        self.complete = False


class Feed:
    """Looks at the market again and again, and acts on messages of the browser.

    Parameters
    ----------
    connect : callable
        Opens the session; what it raises is shown.
    show : callable
        Takes the new values of traits, as keyword arguments.
    send : callable
        Takes a message for the browser.
    """

    def __init__(
        self,
        connect: Callable[[], AsyncEra],
        show: Callable[..., None],
        send: Callable[[dict[str, Any]], None],
    ) -> None:
        self._connect = connect
        self._show = show
        self._send = send
        self._session: AsyncEra | None = None
        self._wake = asyncio.Event()
        self._looking = asyncio.Lock()
        self._views: set[str] = set()
        self._heard = time.monotonic()
        self._watched = True
        self._logs: dict[str, _OpenLog] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                if self._watched:
                    await self.refresh()
                wait = pace(time.monotonic() - self._heard) if self._watched else None
                # Not wait_for: before Python 3.12 it may lose a cancellation.
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            if self._session is not None:
                await self._session.close()

    async def refresh(self) -> None:
        """Look once. What goes wrong is shown; the last known values stay."""
        async with self._looking:  # two at once would read a piece of a log twice
            try:
                state = await self._look(self._open())
            except Exception as error:
                state = {"error": sentence(error)}
            self._show(**state)

    def _open(self) -> AsyncEra:
        if self._session is None:
            self._session = self._connect()
        return self._session

    async def _look(self, session: AsyncEra) -> dict[str, Any]:
        client = session.client
        market, account, accounts, jobs, current, notices = await asyncio.gather(
            client.market(),
            client.account(),
            client.accounts(),
            client.jobs(limit=200),
            client.reservations(current=True),
            client.notices(),
        )
        await asyncio.gather(*(self._read(session, job, log) for job, log in self._logs.items()))
        return {
            "now": snapshot.milliseconds(market.now),
            "market": snapshot.market_state(market),
            "account": snapshot.account_state(account),
            "accounts": snapshot.accounts_state(accounts),
            "jobs": snapshot.jobs_state(jobs),
            "notebook": snapshot.notebook_state(current),
            "notices": snapshot.notices_state(notices),
            "files": snapshot.scripts(Path.cwd()),
            "logs": {job: log.screen.text() for job, log in self._logs.items()},
            "error": "",
        }

    async def _read(self, session: AsyncEra, job: str, log: _OpenLog) -> None:
        for _ in range(PIECES):
            if log.complete:
                return
            try:
                piece = await session.client.log(job, log.offset)
            except EraError as error:
                if not 400 <= error.status < 500:
                    raise
                log.screen.feed(sentence(error))
                log.complete = True
                return
            log.screen.feed(piece.text)
            log.offset, log.complete = piece.offset, piece.complete
            if not piece.text:
                return

    # -- messages of the browser --------------------------------------------

    async def act(self, message: Any) -> None:
        """Do what a message says, and answer if it has an id."""
        self._heard = time.monotonic()
        actions: dict[str, Callable[[dict[str, Any]], Coroutine[Any, Any, str]]] = {
            "hello": self._hello,
            "here": self._hello,
            "bye": self._bye,
            "log": self._log,
            "submit": self._submit,
            "cancel": self._cancel,
        }
        answer: dict[str, Any] = {"ok": True, "text": ""}
        try:
            answer["text"] = await actions[message["do"]](message)
        except KeyError as error:
            answer = {"ok": False, "text": f"The message lacks or does not know {error}."}
        except Exception as error:
            answer = {"ok": False, "text": sentence(error)}
        if isinstance(message, dict) and "id" in message:
            self._send({"re": message["id"], **answer})

    async def _hello(self, message: dict[str, Any]) -> str:
        if message["view"] not in self._views or not self._watched:
            self._views.add(message["view"])
            self._watched = True
            self._wake.set()
        return ""

    async def _bye(self, message: dict[str, Any]) -> str:
        self._views.discard(message["view"])
        self._watched = bool(self._views)
        self._wake.set()
        return ""

    async def _log(self, message: dict[str, Any]) -> str:
        if message["open"]:
            self._logs.setdefault(str(message["job"]), _OpenLog())
        else:
            self._logs.pop(str(message["job"]), None)
        self._wake.set()
        return ""

    async def _submit(self, message: dict[str, Any]) -> str:
        form = message["form"]
        script, command = _what(form["kind"], str(form["text"]))
        job = await self._open().submit(
            script,
            command=command,
            configuration=str(form["configuration"]),
            duration=form["duration"],
            deadline=form["deadline"],
            value=form["value"],
            name=form["name"] or None,
            account=form.get("account") or None,
            commitment=form["commitment"],
        )
        self._wake.set()
        start = format_when(job.model.reservation.start)
        return f"Accepted for {job.price} credits; it starts {start}."

    async def _cancel(self, message: dict[str, Any]) -> str:
        job = await self._open().client.cancel_job(str(message["job"]))
        self._wake.set()
        refunded = format_credits(job.reservation.refunded)
        return f"{job.name} is {job.state.value}; {refunded} credits were refunded."


def _what(kind: str, text: str) -> tuple[Any, str | None]:
    """Script and command from the form's text."""
    if not text.strip():
        raise ValueError("say what to run")
    if kind == "file":
        return Path(text.strip()), None
    if kind == "command":
        return None, text
    # A text without a line break could pass for a path.
    return f"{text.rstrip()}\n", None


class Background:
    """A thread with an event loop, running one coroutine until it is stopped."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._main = main
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._task: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread.start()
        self._started.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._main())
        self._loop.call_soon(self._started.set)
        try:
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        finally:
            self._finish()

    def _finish(self) -> None:
        rest = asyncio.all_tasks(self._loop)
        for task in rest:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        self._loop.close()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine on the loop; from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self, timeout: float = 5) -> None:
        """Cancel what runs and wait for the thread's end."""
        with suppress(RuntimeError):  # the loop is closed already
            if self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(timeout)
