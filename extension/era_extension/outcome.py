"""Logs in a shell, followed to the job's outcome."""

from __future__ import annotations

import json
import sys

import click

from era_hub.models import Job, JobState

from .jobs import JobHandle
from .logtext import Screen


def follow_log(job: JobHandle, raw: bool) -> int:
    """Print the log as it comes; returns the job's outcome as an exit code."""
    printer = Printer()
    for text in job.follow():
        if raw:
            click.echo(json.dumps({"job": job.id, "text": text}))
        else:
            printer.add(text)
    printer.end()
    state = job.wait(show=False)
    if raw:
        click.echo(job.model.model_dump_json())
    else:
        click.echo(ending(job.model), err=True)
    return exit_code(job.model, state)


def ending(job: Job) -> str:
    """How a job ended, in a sentence."""
    told = f": {job.message}" if job.message else ""
    return f"Job {job.id} {job.state.value}{told}".rstrip(".") + "."


def exit_code(job: Job, state: JobState) -> int:
    """What a shell is to make of it: 0 for success, else the job's own code or 1."""
    if state is JobState.SUCCEEDED:
        return 0
    return job.exit_code if job.exit_code and 0 < job.exit_code < 256 else 1


class Printer:
    """Prints a log: to a terminal as it is, elsewhere what a terminal would show."""

    def __init__(self) -> None:
        self._screen = None if sys.stdout.isatty() else Screen()
        self._ended_line = True

    def add(self, text: str) -> None:
        shown = text if self._screen is None else self._screen.feed(text)
        click.echo(shown, nl=False)
        if shown:
            self._ended_line = shown.endswith("\n")

    def end(self, text: str = "") -> None:
        self.add(text)
        rest = self._screen.rest() if self._screen else ""
        if rest or not self._ended_line:
            click.echo(rest)
