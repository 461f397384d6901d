"""What `Era` and `AsyncEra` have in common: every call, written once."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from era_hub import models
from era_hub.client import EraError, discover

from . import bids, views
from .bids import Credits, Declined, Script
from .jobs import Handle
from .steps import Steps


class Session(ABC):
    """The market for people writing Python; see `Era` and `AsyncEra`."""

    client: Any

    def __init__(self, url: str | None, token: str | None) -> None:
        self.url, self._token = discover(url, token)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.url}>"

    @abstractmethod
    def _run(self, steps: Steps[Any]) -> Any:
        """Run steps to their result, or to an awaitable of it."""

    @abstractmethod
    def _pause(self, seconds: float) -> Any:
        """Wait, or an awaitable that does."""

    @abstractmethod
    def _handle(self, job: models.Job) -> Handle:
        """The handle of a job."""

    # -- looking ------------------------------------------------------------

    def market(self, hours: float = 24) -> Any:
        """Prices now and for the coming `hours`, a view of `era_hub.models.Market`."""
        return self._run(_shown(self.client.market, views.MarketView, hours))

    def account(self, account: str | None = None) -> Any:
        """Your credits and their movements, a view of `era_hub.models.Account`.

        With ``group:NAME`` those of a group of yours.
        """
        return self._run(_shown(self.client.account, views.AccountView, None, account))

    def accounts(self) -> Any:
        """The accounts that you may pay with, each an `era_hub.models.AccountSummary`."""
        return self._run(self._accounts_steps())

    def reservations(self, current: bool = False) -> Any:
        """Your reservations, newest first; only those not ended if `current`."""
        return self._run(self._reservations_steps(current))

    def jobs(self, current: bool = False) -> Any:
        """Handles of your jobs, newest first; only those not ended if `current`."""
        return self._run(self._jobs_steps(current))

    def job(self, job_id: str) -> Any:
        """The handle of a job, by its id or the beginning of one.

        Raises
        ------
        ValueError
            If no id, or more than one, begins so.
        """
        return self._run(self._job_steps(job_id))

    # -- buying -------------------------------------------------------------

    def quote(
        self,
        configuration: str | None = None,
        *,
        gpus: int = 1,
        duration: str | float = "30m",
        deadline: str | datetime | None = None,
        commitment: str = "flexible",
    ) -> Any:
        """What a job would cost now. Commits nobody.

        Parameters
        ----------
        configuration : str, optional
            A configuration's name. Default: the smallest with `gpus` GPUs.
        gpus : int
            GPUs, where no configuration is named.
        duration : str or float
            ``"30m"``, ``"1h30m"``, or seconds.
        deadline : str, datetime or None
            When it must have ended: ``"18:00"``, ``"tomorrow 9:00"``, ``"+4h"``, ISO
            8601. None: it must start now. A later deadline never costs more.
        commitment : str
            ``"flexible"``: may be moved within its window until it starts, and starts
            early where GPUs are idle. ``"preemptible"``: may be stopped besides and go on
            later, for less: it must write checkpoints. ``"fixed"``: keeps the start that
            it is told.

        Returns
        -------
        QuoteView
            The cheapest start (`best`, `price`) and all others (`starts`).

        Examples
        --------
        >>> Era().quote(gpus=1, duration="30m", deadline="18:00")  # doctest: +SKIP
        one-gpu for 30 min: 0.80 credits, from 14:30.
        """
        return self._run(self._quote_steps(configuration, gpus, duration, deadline, commitment))

    def submit(
        self,
        script: Script | None = None,
        *,
        value: Credits,
        duration: str | float,
        deadline: str | datetime | None = None,
        gpus: int = 1,
        configuration: str | None = None,
        command: str | Sequence[str] | None = None,
        args: Sequence[str] = (),
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
        account: str | None = None,
        commitment: str = "flexible",
    ) -> Any:
        """Bid for a background job and, if the market accepts, send it off.

        Parameters
        ----------
        script : path, str or list of str
            A script's path, a script's text, or a command as a list. A script is
            run by this Python where jobs can find it.
        value : str, float or Decimal
            The most you will pay, in credits. You pay the market's price, which does
            not depend on it, so the true value is the best bid.
        duration, deadline, gpus, configuration, commitment
            As in `quote`. The job is stopped at the end of its duration.
        command : str or list of str, optional
            What to run; in the job's directory, where the script is too.
        args : sequence of str
            Appended to the command.
        name : str, optional
            Default: the script's file name or the command.
        environment : mapping, optional
            Environment variables of the job.
        account : str, optional
            Who pays: ``own``, or ``group:NAME`` for a group of yours; `accounts` lists them.
            Default: as the hub's admins have set it.

        Returns
        -------
        JobHandle
            Of the accepted job. Jobs that print a tqdm bar show their progress.

        Raises
        ------
        Declined
            If the market declines, with the price, the reason and an alternative.
        ValueError
            If the request makes no sense; the text says what to change.
        EraError
            If the service refuses it, for example for want of credits.

        Examples
        --------
        >>> era = Era()  # doctest: +SKIP
        >>> job = era.submit("train.py", args=["--epochs", "5"], gpus=1,
        ...                  duration="30m", deadline="18:00", value=5)  # doctest: +SKIP
        >>> job.wait()  # doctest: +SKIP
        """
        what = bids.source(script, command, python=bids.interpreter(self.url))

        def build(chosen: str) -> models.JobRequest:
            return bids.job_request(
                what,
                chosen,
                duration,
                deadline,
                value,
                name=name,
                args=args,
                environment=environment,
                account=account,
                commitment=commitment,
            )

        return self._run(self._submit_steps(build, configuration, gpus))

    # -- the steps ----------------------------------------------------------

    def _accounts_steps(self) -> Steps[views.Listing]:
        return views.Listing((yield self.client.accounts()), views.accounts_table, "No accounts.")

    def _configuration_steps(self, configuration: str | None, gpus: int) -> Steps[str]:
        if configuration is not None:
            return configuration
        market = yield self.client.market()
        return bids.find_configuration(market, gpus)

    def _quote_steps(
        self,
        configuration: str | None,
        gpus: int,
        duration: str | float,
        deadline: str | datetime | None,
        commitment: str,
    ) -> Steps[views.QuoteView]:
        chosen = yield from self._configuration_steps(configuration, gpus)
        request = bids.quote_request(chosen, duration, deadline, commitment=commitment)
        return views.QuoteView((yield self.client.quote(request)))

    def _submit_steps(
        self, build: Callable[[str], models.JobRequest], configuration: str | None, gpus: int
    ) -> Steps[Handle]:
        request = build((yield from self._configuration_steps(configuration, gpus)))
        key = uuid.uuid4().hex
        try:
            outcome = yield self.client.submit(request, key)
        except EraError as error:
            if error.status:
                raise
            # The answer was lost, perhaps not the request; the key makes asking
            # again safe.
            outcome = yield self.client.submit(request, key)
        if outcome.job is None:
            raise Declined(outcome)
        return self._handle(outcome.job)

    def _jobs_steps(self, current: bool) -> Steps[views.Listing]:
        jobs = yield self.client.jobs(current=current)
        handles = [self._handle(job) for job in jobs]
        return views.Listing(
            handles, lambda those: views.jobs_table(h.model for h in those), "No jobs."
        )

    def _reservations_steps(self, current: bool) -> Steps[views.Listing]:
        found = yield self.client.reservations(current=current)
        return views.Listing(found, views.reservations_table, "No reservations.")

    def _job_steps(self, job_id: str) -> Steps[Handle]:
        if not job_id.strip("./ "):
            raise ValueError("give a job's id or the beginning of one")
        try:
            return self._handle((yield self.client.job(job_id)))
        except EraError as error:
            if error.status not in (400, 404, 422):
                raise
        found = [job for job in (yield self.client.jobs()) if job.id.startswith(job_id)]
        if len(found) == 1:
            return self._handle(found[0])
        if found:
            raise ValueError(f"{len(found)} jobs begin with {job_id!r}; give more of the id")
        raise ValueError(f"no job of yours begins with {job_id!r}")


def _shown(call: Callable[..., Any], view: type, *args: Any) -> Steps[Any]:
    return view((yield call(*args)))
