"""One notebook server's next step: started, watched, moved, stopped, settled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from ..answers import Due
from ..hub import HubError
from ..market import Market
from ..models import Kind, Reservation, State
from ..patience import PatientHub

WATCH = 15.0
"""Seconds between looks at a server that should be running."""

STARTING = 10.0
"""Seconds given to the Hub to start a server before it is asked again."""

STOPPING = 1.0
"""Seconds between looks at a server that must go elsewhere."""


class Notebooks:
    """Brings notebooks forward. Every step may be repeated.

    Parameters
    ----------
    market : Market
    call : callable
        Calls a method of the market on its thread.
    hub : PatientHub
    clock, monotonic : callable
        As of `Reconciler`.
    lease : int
        Seconds for which an active reservation may be without its server.
    no_show : int
        Seconds after its start for which a reservation waits for its server; 0 for no end.
    """

    def __init__(
        self,
        market: Market,
        call: Callable[..., Any],
        hub: PatientHub,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        lease: int,
        no_show: int,
        log: logging.Logger,
    ) -> None:
        self.market = market
        self.call = call
        self.hub = hub
        self.clock = clock
        self.monotonic = monotonic
        self.lease = lease
        self.no_show = no_show
        self.log = log
        self.awake_since = clock()
        """Since when servers have been looked after, UTC seconds."""
        self._missing: dict[str, float] = {}

    def forget(self) -> None:
        """Nobody was missed until now."""
        self.awake_since = self.clock()
        self._missing.clear()

    def keep(self, known: Collection[str]) -> None:
        """Only these reservations matter any more."""
        self._missing = {key: each for key, each in self._missing.items() if key in known}

    async def step(self, due: Due, over: bool) -> float:
        """Bring one notebook forward; returns the seconds until the next look.

        Parameters
        ----------
        over : bool
            Whether its reservation has ended.
        """
        reservation = due.reservation
        if reservation.state is State.ACCEPTED:
            return await self._waits(due, over)
        if reservation.state is State.ACTIVE and not over:
            return await (self._leave(due) if due.displaced else self._watch(reservation))
        if reservation.state is State.ACTIVE:
            message = "the reservation has ended"
            await self.call(self.market.end, reservation.id, State.COMPLETED, message)
        await self._stop(reservation)
        return 0

    async def _waits(self, due: Due, over: bool) -> float:
        reservation = due.reservation
        if over:
            await self._missed(reservation)
        elif due.now is not None:
            if self.no_show and self.clock() >= self._expected(reservation) + self.no_show:
                await self._nobody_came(reservation)
                return 0
            await self._start(reservation)
            return STARTING
        return 0

    def _expected(self, reservation: Reservation) -> int:
        # While nobody looked after servers, nobody could come.
        return max(_seconds(reservation.start), self.awake_since)

    async def _start(self, reservation: Reservation) -> None:
        # The spawner claims the reservation; what runs comes from there, not from here.
        options = {"reservation": reservation.id}
        try:
            await self.hub.start(reservation.user, reservation.server_name, options)
        except HubError as error:
            message = f"the server has not started yet: {error}"
            if message != reservation.message:
                await self.call(self.market.note, reservation.id, message)
            raise

    async def _nobody_came(self, reservation: Reservation) -> None:
        """Released by the refund rule: what has not begun comes back."""
        if await self.hub.server(reservation.user, reservation.server_name) is not None:
            return  # it is on its way, or serves another reservation
        message = f"no server ran in the first {self.no_show} seconds: released"
        self.log.info("Reservation %s: %s", reservation.id, message)
        await self.call(self.market.end, reservation.id, State.RELEASED, message)

    async def _missed(self, reservation: Reservation) -> None:
        """A notebook that never started: refunded, unless its user kept the server busy."""
        if _seconds(reservation.end) <= self.awake_since:
            refund, message = True, "the service was not running at the reserved time"
        elif await self.hub.server(reservation.user, reservation.server_name) is not None:
            refund = False
            message = "not used: the server was running on another reservation all the time"
        else:
            refund, message = True, reservation.message or "the server could not be started in time"
        state = State.FAILED if refund else State.COMPLETED
        await self.call(self.market.end, reservation.id, state, message, refund_all=refund)

    async def _watch(self, reservation: Reservation) -> float:
        server = await self.hub.server(reservation.user, reservation.server_name)
        now = self.monotonic()
        if server is not None:
            self._missing.pop(reservation.id, None)
            return WATCH
        since = self._missing.setdefault(reservation.id, now)
        if now - since >= self.lease:
            self.log.warning("Reservation %s has lost its server: released", reservation.id)
            await self.call(self.market.give_back, reservation.id, stopped=True)
        return min(WATCH, self.lease / 4)

    async def _leave(self, due: Due) -> float:
        """Its node is lost, and its reservation goes on elsewhere: the server moves there."""
        reservation = due.reservation
        server = await self.hub.server(reservation.user, reservation.server_name)
        if server is None:
            await self.call(self.market.run_over, reservation.id, moved_message(due))
            return 0
        if server.pending != "stop":
            text = "Reservation %s has lost its node: its server moves"
            self.log.warning(text, reservation.id)
            await self.hub.stop(reservation.user, reservation.server_name)
        return STOPPING

    async def _stop(self, reservation: Reservation) -> None:
        server = await self.hub.server(reservation.user, reservation.server_name)
        if server is None or await self._belongs_to_another(reservation):
            await self.call(self.market.workload_gone, reservation.id)
        elif server.pending != "stop":
            self.log.info("Stopping the server of reservation %s", reservation.id)
            await self.hub.stop(reservation.user, reservation.server_name)

    async def _belongs_to_another(self, reservation: Reservation) -> bool:
        """Whether the running server is already that of the user's next reservation."""
        mine = await self.call(
            self.market.reservations, user=reservation.user, kind=Kind.NOTEBOOK, current=True
        )
        return any(
            each.state is State.ACTIVE
            and each.server_name == reservation.server_name
            and each.id != reservation.id
            for each in mine
        )


def moved_message(due: Due) -> str:
    """What the owner of a notebook is told whose node was lost."""
    lost = ", ".join(due.nodes or ())
    there = ", ".join(due.now.nodes) if due.now else "another node"
    return f"node {lost} was lost: the reservation goes on on {there}, where the server can start"


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
