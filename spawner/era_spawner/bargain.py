"""One attempt to get GPUs for a server: find or make a reservation, and claim it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from era_hub.client import AsyncEraClient, EraError
from era_hub.models import Kind, Outcome, Reservation, ReservationRequest, State

from . import refusals
from .options import SKEW, NewServer, OptionsError, OwnReservation, parse


@dataclass
class Bargain:
    """One attempt to get GPUs for a user's server.

    Attributes
    ----------
    client : AsyncEraClient
        Authorised to act for all users.
    user, server_name : str
        The hub's own names.
    pages : str
        Path of the service's pages, for links.
    patience : float
        Seconds to wait for the answer to a bid after a cancel.
    owed : str
        Id of the reservation to give back if the server does not start; empty if
        there is none. Valid also after `strike` has failed.
    found : str
        Id of the reservation that the options led to, be it that it starts later.
    """

    client: AsyncEraClient
    user: str
    server_name: str
    pages: str
    patience: float
    owed: str = ""
    found: str = ""

    async def strike(self, options: Any) -> Reservation:
        """Get the claimed reservation that `options` ask for.

        Raises
        ------
        SpawnException
            If it was declined, or starts later; see `refusals`.
        OptionsError
            If the options make no sense.
        EraError
            If the service refuses a call, or does not answer.
        """
        choice = parse(options)
        if isinstance(choice, OwnReservation):
            reservation = await self._find(choice.reservation)
        else:
            reservation = await self._bid(choice)
        self.found = reservation.id
        if reservation.start > datetime.now(UTC) + SKEW:
            raise refusals.scheduled(reservation, self.pages)
        claimed = await self._claim(reservation, fresh=isinstance(choice, NewServer))
        await self._give_back_others()
        return claimed

    async def _find(self, reservation_id: str) -> Reservation:
        try:
            found: Reservation = await self.client.reservation(reservation_id)
        except EraError as error:
            if error.status == 404:
                raise OptionsError("There is no such reservation.") from None
            raise
        if found.user != self.user:
            # The same words as for none: whose it is, is nobody's business.
            raise OptionsError("There is no such reservation.")
        if found.kind is not Kind.NOTEBOOK:
            raise OptionsError("That reservation is for a job, not for a notebook server.")
        if found.server_name != self.server_name:
            name = repr(found.server_name) if found.server_name else "the default server"
            raise OptionsError(f"That reservation is for another server: {name}.")
        if found.state.final:
            raise OptionsError("That reservation has ended; make a new one.")
        return found

    async def _bid(self, choice: NewServer) -> Reservation:
        request = choice.request(self.user, self.server_name, datetime.now(UTC))
        outcome = await self._send(request)
        if outcome.accepted and outcome.reservation:
            return outcome.reservation
        latest = choice.latest_start if request.deadline else None
        raise refusals.declined(outcome, request.value, latest)

    async def _send(self, request: ReservationRequest) -> Outcome:
        sending = asyncio.ensure_future(self.client.reserve(request, idempotency_key=uuid4().hex))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            # The bid is on its way, and nobody would learn of a reservation it makes:
            # wait for the answer, so that it can be given back.
            with suppress(EraError, ValidationError, TimeoutError):
                outcome = await asyncio.wait_for(sending, self.patience)
                if outcome.reservation:
                    self.owed = outcome.reservation.id
            raise

    async def _claim(self, reservation: Reservation, fresh: bool) -> Reservation:
        # From here on whatever goes wrong gives it back, a cancel included ...
        self.owed = reservation.id
        try:
            claimed: Reservation = await self.client.claim(reservation.id)
        except EraError as error:
            if error.status == 409:
                # ... but not when the service is about to start the server itself,
                self.owed = ""
                raise refusals.starting(reservation, self.pages) from None
            if not fresh:
                # ... nor a reservation paid for earlier, for a fault of the service.
                self.owed = ""
            raise
        return claimed

    async def _give_back_others(self) -> None:
        """Nothing but this start runs for the server, so what else it holds is left over.

        A hub that was killed in the middle of a start does not know of its reservation.
        """
        with suppress(EraError, ValidationError):
            mine = await self.client.reservations(user=self.user, current=True, kind=Kind.NOTEBOOK)
            for each in mine:
                same = each.server_name == self.server_name and each.id != self.found
                if same and each.state is State.ACTIVE:
                    await self.client.give_back(each.id)
