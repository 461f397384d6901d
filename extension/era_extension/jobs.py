"""Handles of background jobs: what a job is doing, its log, its files."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from era_hub import models
from era_hub.client import EraError
from era_hub.models import JobState, format_credits, parse_duration

from .bids import Credits, Declined, extension_request
from .steps import Steps
from .times import format_when
from .views import credits, progress

if TYPE_CHECKING:
    from .core import Session

AWAY = frozenset({0, 502, 503, 504})
"""Statuses of a service, or of the proxy before it, that is restarting."""

RETRIES = (1, 2, 4, 8, 15, 30)
"""Seconds between attempts while the service is away; a minute in all."""


class Handle:
    """What the handles of both kinds of session share.

    Attributes
    ----------
    model : era_hub.models.Job
        The job as last seen; `refresh` looks again.
    """

    def __init__(self, session: Session, job: models.Job) -> None:
        self._session = session
        self.model = job

    @property
    def id(self) -> str:
        """The job's id, also that of its reservation."""
        return self.model.id

    @property
    def state(self) -> JobState:
        """Queued, running, succeeded, failed, cancelled or timed-out, as last seen."""
        return self.model.state

    @property
    def progress(self) -> float | None:
        """From 0 to 1, read from the job's progress bar; None without one."""
        return self.model.progress

    @property
    def price(self) -> str:
        """What was agreed on, in credits. Only an extension changes it."""
        return format_credits(self.model.reservation.price)

    @property
    def directory(self) -> Path | None:
        """Where the job runs and leaves its files; None before that is known."""
        return Path(self.model.directory) if self.model.directory else None

    def path(self, name: str) -> Path:
        """A file in the job's directory.

        Raises
        ------
        ValueError
            If `name` leads out of the directory.
        FileNotFoundError
            If the directory isn't known yet.

        Examples
        --------
        >>> model = torch.load(job.path("model.pt"))  # doctest: +SKIP
        """
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError(f"{name!r} is not a name inside the job's directory")
        if self.directory is None:
            raise FileNotFoundError("the job has no directory yet; refresh() looks again")
        return self.directory / name

    def refresh(self) -> Any:
        """Look again; returns the handle."""
        return self._session._run(self._refresh_steps())

    def wait(self, timeout: str | float | None = None, show: bool = True) -> Any:
        """Wait until the job has ended.

        The bar follows the job's own: anything that prints a tqdm bar to stderr
        (``NN%|``) shows its progress, without any call to this package.

        Parameters
        ----------
        timeout : str or float, optional
            Seconds, or a text such as ``"30m"``. Default: as long as it takes.
        show : bool
            Whether to draw a progress bar (with tqdm, where it is installed).

        Returns
        -------
        JobState
            How it ended. A failed job is an answer here, not an exception.

        Raises
        ------
        TimeoutError
            If the job hasn't ended in time; it goes on.
        """
        return self._session._run(self._wait_steps(timeout, show))

    def log(self) -> Any:
        """What the job has printed so far, as text."""
        return self._session._run(self._log_steps())

    def cancel(self) -> Any:
        """Stop the job, or take it out of the queue; what is unused is refunded."""
        return self._session._run(self._cancel_steps())

    def extend(self, duration: str | float, value: Credits) -> Any:
        """Buy more time right after the job's end, whether it waits or runs.

        The job is told, and stopped at its new end.

        Parameters
        ----------
        duration : str or float
            How much longer: ``"30m"``, ``"1h30m"``, or seconds.
        value : str, float or Decimal
            The most you will pay for it, in credits.

        Returns
        -------
        JobHandle
            This one.

        Raises
        ------
        Declined
            If the market declines, with the price and the reason.
        EraError
            If the job has ended or is about to be stopped.
        """
        return self._session._run(self._extend_steps(extension_request(duration, value)))

    # -- the steps of both kinds --------------------------------------------

    def _extend_steps(self, request: models.ExtensionRequest) -> Steps[Handle]:
        # The key makes it safe for whatever lies between to send it twice.
        outcome = yield self._session.client.extend(self.id, request, uuid.uuid4().hex)
        if outcome.job is None:
            raise Declined(outcome)
        self.model = outcome.job
        return self

    def _refresh_steps(self) -> Steps[Handle]:
        self.model = yield from self._patiently(lambda: self._session.client.job(self.id))
        return self

    def _cancel_steps(self) -> Steps[Handle]:
        self.model = yield self._session.client.cancel_job(self.id)
        return self

    def _log_steps(self) -> Steps[str]:
        parts, offset = [], 0
        while True:
            log = yield self._session.client.log(self.id, offset)
            parts.append(log.text)
            if log.complete or not log.text or log.offset == offset:
                return "".join(parts)
            offset = log.offset

    def _wait_steps(self, timeout: str | float | None, show: bool) -> Steps[JobState]:
        if isinstance(timeout, str):
            timeout = parse_duration(timeout)
        limit = None if timeout is None else time.monotonic() + timeout
        with _Bar(self.model, show) as bar:
            while True:
                yield from self._refresh_steps()
                bar.show(self.model)
                if self.state.final:
                    return self.state
                left = float("inf") if limit is None else limit - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"the job is still {self.state.value}; it goes on")
                yield self._session._pause(min(self._pace(), left))

    def _pace(self) -> float:
        """Seconds to the next look: often while it runs, seldom long before its start."""
        if self.state is JobState.RUNNING:
            return 1
        ahead = (self.model.reservation.start - datetime.now(UTC)).total_seconds()
        return min(max(ahead, 1), 10)

    def _read_steps(self, place: _Place) -> Steps[str | None]:
        """The next piece of the log, waiting for it; None at the end."""
        while not place.complete:
            log = yield from self._patiently(
                lambda: self._session.client.log(self.id, place.offset)
            )
            place.offset, place.complete = log.offset, log.complete
            if log.text:
                return log.text
            if not log.complete:
                yield self._session._pause(1)
        return None

    def _patiently(self, call: Callable[[], Any]) -> Steps[Any]:
        """Call again while the service is away; a wait of hours outlives its restart."""
        for seconds in RETRIES:
            try:
                return (yield call())
            except EraError as error:
                if error.status not in AWAY:
                    raise
            yield self._session._pause(seconds)
        return (yield call())

    # -- how it looks -------------------------------------------------------

    def _facts(self) -> dict[str, str]:
        job = self.model
        facts = {
            "state": job.state.value,
            "progress": progress(job),
            "price": f"{credits(job.reservation.price)} credits",
            "reserved": f"{format_when(job.reservation.start)} to "
            f"{format_when(job.reservation.end)} on {job.reservation.configuration}",
        }
        if job.exit_code is not None:
            facts["exit code"] = str(job.exit_code)
        if job.message:
            facts["message"] = job.message
        if job.directory:
            facts["directory"] = job.directory
        return facts

    def __repr__(self) -> str:
        facts = ", ".join(f"{key}: {text}" for key, text in self._facts().items() if text != "-")
        return f"<job {self.id} {self.model.name!r}, {facts}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(key)}</th><td>{escape(text)}</td></tr>"
            for key, text in self._facts().items()
        )
        title = f"Job {escape(self.model.name)} <code>{escape(self.id)}</code>"
        return f"<table><caption>{title}</caption><tbody>{rows}</tbody></table>"


class JobHandle(Handle):
    """A job of an `Era` session.

    Examples
    --------
    >>> job = Era().submit("train.py", duration="30m", value=5)  # doctest: +SKIP
    >>> job.wait()  # doctest: +SKIP
    <JobState.SUCCEEDED: 'succeeded'>
    >>> print(job.log())  # doctest: +SKIP
    """

    def follow(self) -> Iterator[str]:
        """Pieces of the log as they are printed, until the job ends."""
        place = _Place()
        while (text := self._session._run(self._read_steps(place))) is not None:
            yield text


class AsyncJobHandle(Handle):
    """A job of an `AsyncEra` session; the methods of `JobHandle`, to be awaited."""

    async def follow(self) -> AsyncIterator[str]:
        """Pieces of the log as they are printed, until the job ends."""
        place = _Place()
        while (text := await self._session._run(self._read_steps(place))) is not None:
            yield text


class _Place:
    """How far a log has been read."""

    def __init__(self) -> None:
        self.offset = 0
        self.complete = False


class _Bar:
    """A progress bar, or nothing where it isn't wanted or tqdm isn't installed."""

    def __init__(self, job: models.Job, show: bool) -> None:
        self._bar: Any = None
        if show:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._bar = tqdm(
                total=100, desc=job.name, bar_format="{desc} {percentage:3.0f}%|{bar}|{postfix}"
            )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, job: models.Job) -> None:
        if self._bar is None:
            return
        done = 1 if job.state is JobState.SUCCEEDED else (job.progress or 0)
        self._bar.n = round(100 * done)
        self._bar.set_postfix_str(job.state.value)
