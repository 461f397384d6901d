"""What people ask for, turned into the requests of the API.

Nothing here talks to the service, so that the synchronous and asynchronous
sessions, the command line, the magic and the widget all build requests alike.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from era_hub import models

from .times import format_when, parse_deadline

Credits = str | float | Decimal
"""An amount of credits as people give it."""

Script = str | os.PathLike[str] | Sequence[str]
"""A script's path, its text, or a command as a list."""

RequestT = TypeVar("RequestT", bound=BaseModel)

MAX_NAME = 200


class Declined(Exception):
    """The market declined a bid.

    Attributes
    ----------
    outcome : era_hub.models.Outcome
        The market's full answer.
    price : str or None
        What the bid would have cost, in credits; None if nothing fits the window.
    reason : str or None
        Why it was declined.
    alternative : era_hub.models.Start or None
        The cheapest other start that would fit.
    """

    def __init__(self, outcome: models.Outcome) -> None:
        self.outcome = outcome
        self.reason = outcome.reason
        self.alternative = outcome.alternative
        self.price = None if outcome.price is None else models.format_credits(outcome.price)
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        parts = [f"The market declined the bid: {(self.reason or 'no reason given').rstrip('.')}."]
        if self.price is not None and self.price not in (self.reason or ""):
            parts.append(f"It would cost {self.price} credits.")
        if other := self.alternative:
            cost = models.format_credits(other.price)
            parts.append(f"The cheapest other start is {format_when(other.start)}, for {cost}.")
        return " ".join(parts)


@dataclass(frozen=True)
class Source:
    """What a job runs: a script's text, a command, or both."""

    script: str | None = None
    filename: str = "script.py"
    command: list[str] | None = None
    name: str = "job"


def find_configuration(market: models.Market, gpus: int) -> str:
    """Name of the smallest configuration with exactly so many GPUs.

    "Smallest" is the cheapest at its cheapest slot, and among equals the first.

    Raises
    ------
    ValueError
        If none has that many, listing those there are.
    """
    fitting = [c for c in market.configurations if c.gpus == gpus]
    if not fitting:
        names = ", ".join(f"{c.name} ({c.gpus})" for c in market.configurations) or "none"
        raise ValueError(f"no configuration has {gpus} GPUs; there are (with GPUs): {names}")
    return min(fitting, key=_cheapest).name


def _cheapest(configuration: models.ConfigurationPrices) -> float:
    return min((p for p in configuration.prices if p is not None), default=float("inf"))


def source(
    script: Script | None = None,
    command: str | Sequence[str] | None = None,
    *,
    python: str | None = None,
    folder: Path | None = None,
) -> Source:
    """Read what a job is to run.

    Parameters
    ----------
    script : path, str or list of str, optional
        The path of a script, the text of one, or (a list) a command.
    command : str or list of str, optional
        A command; with a script too, how to run that script.
    python : str, optional
        Interpreter for scripts; None leaves the choice to the service.
    folder : Path, optional
        Where relative paths start. Default: the current directory.

    Raises
    ------
    ValueError
        If there is nothing to run, or a path names no file.
    """
    if isinstance(script, Sequence) and not isinstance(script, str):
        if command is not None:
            raise ValueError("give one command, not two")
        script, command = None, script
    words = shlex.split(command) if isinstance(command, str) else command
    words = None if words is None else [str(word) for word in words]
    if script is None:
        if not words:
            raise ValueError("give a script or a command to run")
        return Source(command=words, name=shlex.join(words)[:MAX_NAME])
    text, filename = _read(script, folder or Path())
    if words is None:
        words = _runner(filename, python)
    return Source(text, filename, words, name=filename)


def _runner(filename: str, python: str | None) -> list[str] | None:
    if filename.endswith(".sh"):
        return ["bash", filename]
    return [python, filename] if python else None


def _read(script: str | os.PathLike[str], folder: Path) -> tuple[str, str]:
    """Text and file name of a script given by its path or by its text."""
    if isinstance(script, str) and re.search(r"[\n(=]", script) and not _is_file(folder / script):
        return script, "script.py"
    path = folder / Path(script).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None
    # The service takes plain names only; what the file is called matters little.
    filename = re.sub(r"[^A-Za-z0-9_.-]", "_", path.name).lstrip(".-")[:128]
    return text, filename or "script.py"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False  # too long or holding a NUL: a script's text, not a path


def interpreter(url: str, environ: Mapping[str, str] | None = None) -> str | None:
    """This Python, if jobs of the service at `url` will find it too.

    They do inside a notebook of the hub, whose jobs run where the notebook does, and
    where the service itself is on this machine. Else the service chooses.
    """
    environ = os.environ if environ is None else environ
    here = re.match(r"^https?://(localhost|127\.0\.0\.1|\[::1\])(:|/|$)", url)
    return sys.executable if here or "JUPYTERHUB_API_TOKEN" in environ else None


def quote_request(
    configuration: str,
    duration: str | float,
    deadline: str | datetime | None,
    *,
    commitment: str = models.Commitment.FLEXIBLE,
    now: datetime | None = None,
) -> models.QuoteRequest:
    """The request for a job's price; see `parse_deadline` for the deadline's forms."""
    return _build(
        models.QuoteRequest,
        configuration=configuration,
        duration=duration,
        deadline=parse_deadline(deadline, now=now),
        commitment=commitment,
    )


def job_request(
    what: Source,
    configuration: str,
    duration: str | float,
    deadline: str | datetime | None,
    value: Credits,
    *,
    name: str | None = None,
    args: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    account: str | None = None,
    commitment: str = models.Commitment.FLEXIBLE,
    now: datetime | None = None,
) -> models.JobRequest:
    """The bid for a background job."""
    return _build(
        models.JobRequest,
        configuration=configuration,
        duration=duration,
        deadline=parse_deadline(deadline, now=now),
        value=models.micro_credits(value),
        name=name or what.name,
        script=what.script,
        filename=what.filename,
        command=what.command,
        args=[str(arg) for arg in args],
        environment={str(k): str(v) for k, v in (environment or {}).items()},
        account=_account(account),
        commitment=commitment,
    )


def _account(name: str | None) -> str | None:
    if name not in (None, models.OWN) and not str(name).startswith("group:"):
        raise ValueError(f"account: {name!r} is none; say own, or group:NAME for a group of yours")
    return name


def extension_request(duration: str | float, value: Credits) -> models.ExtensionRequest:
    """The bid for more time."""
    return _build(models.ExtensionRequest, duration=duration, value=models.micro_credits(value))


def _build(model: type[RequestT], **fields: Any) -> RequestT:
    """The model, with what is wrong with its fields in one sentence."""
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {message}" if where else message) from None
