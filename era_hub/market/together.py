"""Bids that wait for the writer at the same time are stored in one transaction.

Each is decided by itself, in the order in which they came. Only what makes a decision
durable is shared: one lock of the ledger, one write of all rows, one commit. So a
market under load answers several times as many bids as the disk can commit.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from ..store.answers import Answers
from ..store.database import unavailable
from ..store.election import NotLeading
from ..store.ledger import Ledger
from ..store.servers import Servers
from .once import Call
from .state import UNCHANGED, PoolState

T = TypeVar("T")

SHARE = 0.02
"""Seconds of decisions after which a transaction is committed: those in it wait for the rest."""

MOST = 32
"""Bids in one transaction."""


@dataclass(frozen=True)
class Coming:
    """What a bid will ask the database for, so that one question can serve many bids."""

    user: str
    server_name: str | None = None
    call: Call | None = None


@dataclass
class _Waiting:
    """A call, who waits for it, and what has come of it."""

    call: Callable[[], Any]
    coming: Coming
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Together:
    """Runs calls on the writer's thread, as many in one transaction as have come meanwhile."""

    def __init__(self, state: PoolState) -> None:
        self.state = state
        self._waiting: deque[_Waiting] = deque()
        self._running: asyncio.Task[None] | None = None

    async def run(self, coming: Coming, function: Callable[..., T], *args: Any) -> T:
        """What a function returns, once it is stored.

        Parameters
        ----------
        coming : Coming
            What it will look for.
        function : callable
            A part of a transaction. When it raises a refusal (`UNCHANGED`), what it has
            stored until then stays: it must have left nothing half-done.

        Raises
        ------
        Unavailable
            If the database was lost meanwhile, as of `Database.run`.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(lambda: function(*args), coming, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        result: T = await future
        return result

    async def _run(self) -> None:
        while self._waiting:
            for each in await self.state.database.run(self._commit):
                if each.future.done():  # whoever asked has gone
                    continue
                if each.error is None:
                    each.future.set_result(each.result)
                else:
                    each.future.set_exception(each.error)

    def _commit(self) -> list[_Waiting]:
        """Decide on what waits, and commit it."""
        # Who comes later waits for the next one: to look up for each alone what it needs would
        # keep these waiting.
        coming = deque(self._waiting.popleft() for _ in range(min(len(self._waiting), MOST)))
        batch: list[_Waiting] = []
        try:
            with self.state.transaction() as session:
                self._read_ahead(session, [each.coming for each in coming])
                end = time.monotonic() + SHARE
                while coming and (not batch or time.monotonic() < end):
                    batch.append(coming.popleft())
                    _decide(batch[-1], UNCHANGED)
        except Exception as error:
            lost = unavailable(error)
            batch = batch or [coming.popleft()]
            if lost is None and not isinstance(error, NotLeading):
                # Nothing was stored. One of them is to blame: only that one shall fail.
                for each in batch:
                    _decide(each, Exception)
            else:
                # Perhaps it was stored: whoever repeats it with the same key learns that.
                for each in batch:
                    each.error = lost or error
        finally:
            self._waiting.extendleft(reversed(coming))
        return batch

    def _read_ahead(self, session: Session, coming: Sequence[Coming]) -> None:
        ledger = Ledger(session, self.state.clock())
        ledger.lock()
        ledger.read_ahead({each.user for each in coming})
        Servers(session).read_ahead(
            {(each.user, each.server_name) for each in coming if each.server_name is not None}
        )
        calls = {(each.call.caller, each.call.key) for each in coming if each.call is not None}
        Answers(session).read_ahead(calls)


def _decide(each: _Waiting, expected: type[Exception] | tuple[type[Exception], ...]) -> None:
    each.result = each.error = None
    try:
        each.result = each.call()
    except expected as error:
        each.error = unavailable(error) or error
