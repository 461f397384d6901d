"""Every endpoint of the service, written once for both kinds of client.

A client supplies `_call`, which sends one request; the synchronous client
returns the answer, the asynchronous one an awaitable of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from .. import cloud_models, models


class EraError(Exception):
    """The service refused a request; the text says what to change.

    Attributes
    ----------
    status : int
        HTTP status; 0 if the service could not be reached.
    """

    def __init__(self, detail: str, status: int = 0) -> None:
        super().__init__(detail)
        self.status = status


class Calls(ABC):
    """The API of the service as methods; see :mod:`era_hub.models` for the types."""

    @abstractmethod
    def _call(
        self,
        method: str,
        path: str,
        answer: Any,
        *,
        body: BaseModel | None = None,
        params: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        version: int | None = None,
        limit: int | None = None,
        paged: bool = False,
        remembered: bool = False,
    ) -> Any:
        """Send a request and parse the answer as `answer`.

        Parameters
        ----------
        limit : int, optional
            The most items of a list.
        paged : bool
            The answer is a list in pages: follow the links to those after the first.
        remembered : bool
            Keep the answer, and ask only whether it is still the same.
        """

    # -- the market ---------------------------------------------------------

    def market(self, hours: float = 24) -> Any:
        """Prices now and for the coming `hours`, a `models.Market`."""
        return self._call("GET", "market", models.Market, params={"hours": hours})

    def quote(self, request: models.QuoteRequest) -> Any:
        """Price at every start in the window, a `models.Quote`; commits nobody."""
        return self._call("POST", "quotes", models.Quote, body=request)

    # -- reservations -------------------------------------------------------

    def reserve(
        self, request: models.ReservationRequest, idempotency_key: str | None = None
    ) -> Any:
        """Bid for a notebook server; a `models.Outcome`."""
        return self._call(
            "POST", "reservations", models.Outcome, body=request, idempotency_key=idempotency_key
        )

    def reservations(
        self,
        *,
        user: str | None = None,
        everybody: bool = False,
        current: bool = False,
        kind: models.Kind | None = None,
        state: models.State | None = None,
        configuration: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Any:
        """Reservations, newest first: one's own; for admins those of `user`, or everybody's.

        `since` and `until` narrow them to what overlaps with the time between. There are
        at most `limit`; without, all that there are, however many pages they fill.
        """
        params = {
            "user": user,
            "everybody": everybody or None,
            "current": current or None,
            "kind": kind,
            "state": state,
            "configuration": configuration,
            "since": None if since is None else since.isoformat(),
            "until": None if until is None else until.isoformat(),
        }
        return self._call(
            "GET",
            "reservations",
            list[models.Reservation],
            params=params,
            limit=limit,
            paged=True,
        )

    def reservation(self, reservation_id: str) -> Any:
        """One `models.Reservation`."""
        return self._call("GET", f"reservations/{path_part(reservation_id)}", models.Reservation)

    def give_back(self, reservation_id: str, version: int | None = None) -> Any:
        """Cancel (before its start) or release a reservation; harmless when repeated.

        With `version` only if it has not changed since it was at that.
        """
        path = f"reservations/{path_part(reservation_id)}"
        return self._call("DELETE", path, models.Reservation, version=version)

    def extend(
        self,
        reservation_id: str,
        request: models.ExtensionRequest,
        idempotency_key: str | None = None,
        version: int | None = None,
    ) -> Any:
        """Bid for more time after the end of a reservation or job; a `models.JobOutcome`."""
        return self._call(
            "POST",
            f"reservations/{path_part(reservation_id)}/extend",
            models.JobOutcome,
            body=request,
            idempotency_key=idempotency_key,
            version=version,
        )

    def quote_extension(self, reservation_id: str, request: models.ExtensionQuoteRequest) -> Any:
        """What more time costs now, a `models.ExtensionQuote`; commits nobody."""
        path = f"reservations/{path_part(reservation_id)}/extend/quote"
        return self._call("POST", path, models.ExtensionQuote, body=request)

    def claim(self, reservation_id: str) -> Any:
        """Start a reservation and get its GPUs; for the spawner's service only."""
        path = f"reservations/{path_part(reservation_id)}/claim"
        return self._call("POST", path, models.Reservation)

    # -- jobs ---------------------------------------------------------------

    def submit(self, request: models.JobRequest, idempotency_key: str | None = None) -> Any:
        """Bid for a background job; a `models.JobOutcome`."""
        return self._call(
            "POST", "jobs", models.JobOutcome, body=request, idempotency_key=idempotency_key
        )

    def jobs(
        self, *, user: str | None = None, current: bool = False, limit: int | None = None
    ) -> Any:
        """A list of `models.Job`, newest first: at most `limit`, or all that there are."""
        params = {"user": user, "current": current or None}
        return self._call("GET", "jobs", list[models.Job], params=params, limit=limit, paged=True)

    def job(self, job_id: str) -> Any:
        """One `models.Job`."""
        return self._call("GET", f"jobs/{path_part(job_id)}", models.Job)

    def cancel_job(self, job_id: str) -> Any:
        """Stop a job or take it out of the queue; the unused rest is refunded."""
        return self._call("DELETE", f"jobs/{path_part(job_id)}", models.Job)

    def log(self, job_id: str, offset: int = 0) -> Any:
        """A `models.Log`: what the job printed from byte `offset` on."""
        path = f"jobs/{path_part(job_id)}/log"
        return self._call("GET", path, models.Log, params={"offset": offset})

    # -- the caller ---------------------------------------------------------

    def account(self, user: str | None = None, account: str | None = None) -> Any:
        """Balance and ledger, a `models.Account`: the own one, or that of ``group:NAME``."""
        params = {"user": user, "account": account}
        return self._call("GET", "account", models.Account, params=params)

    def accounts(self, user: str | None = None) -> Any:
        """The accounts that may pay for bids, a list of `models.AccountSummary`."""
        return self._call("GET", "accounts", list[models.AccountSummary], params={"user": user})

    def notices(self) -> Any:
        """What the caller should know now, a list of `models.Notice`."""
        return self._call("GET", "notices", list[models.Notice])

    def user(self) -> Any:
        """Who is calling, a `models.User`."""
        return self._call("GET", "user", models.User)

    # -- the cloud's side, for schedulers ------------------------------------

    def allocation(self) -> Any:
        """What must run right now, a `cloud_models.Allocation`.

        Asked again and again it is cheap: the service sends it only if it has changed.
        """
        return self._call("GET", "allocation", cloud_models.Allocation, remembered=True)

    def update(self, feedback: cloud_models.Feedback, idempotency_key: str | None = None) -> Any:
        """Say what there is and what has ended; a `cloud_models.FeedbackResult`."""
        return self._call(
            "POST",
            "allocation/update",
            cloud_models.FeedbackResult,
            body=feedback,
            idempotency_key=idempotency_key,
        )

    # -- the service itself -----------------------------------------------------

    def health(self) -> Any:
        """Whether the service works, a `models.Health`; needs no login."""
        return self._call("GET", "health", models.Health)

    def version(self) -> Any:
        """A `models.Version`; needs no login."""
        return self._call("GET", "version", models.Version)


def path_part(text: str) -> str:
    # Dots too: "..", as it is, would be a step up.
    return quote(text, safe="").replace(".", "%2E")
