"""``%%era_job``: a cell as a background job."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from decimal import Decimal
from typing import Any

import click
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from .jobs import JobHandle
from .options import FAILURES, job_options, sentence
from .session import Era


def register(shell: Any) -> None:
    """Give a shell the magic."""

    def era_job(line: str, cell: str) -> None:
        run(shell, line, cell)

    era_job.__doc__ = command.get_help(click.Context(command, info_name="%%era_job"))
    shell.register_magic_function(era_job, "cell", "era_job")


def run(shell: InteractiveShell, line: str, cell: str) -> None:
    """Run the magic; what goes wrong is a line on stderr, not a traceback."""
    try:
        command.main(
            shlex.split(line),
            prog_name="%%era_job",
            standalone_mode=False,
            obj=(shell, cell),
        )
    except click.ClickException as error:
        print(f"%%era_job: {error.format_message()} (%%era_job --help explains)", file=sys.stderr)
    except FAILURES as error:
        print(f"%%era_job: {sentence(error)}", file=sys.stderr)
    except (KeyboardInterrupt, click.Abort):
        print("%%era_job: interrupted; a job that was sent goes on.", file=sys.stderr)


@click.command()
@job_options
@click.option("--as", "variable", metavar="NAME", help="Keep the job's handle in this variable.")
@click.pass_obj
def command(
    place: tuple[InteractiveShell, str],
    configuration: str | None,
    gpus: int,
    duration: int,
    deadline: datetime | None,
    value: Decimal,
    name: str | None,
    account: str | None,
    commitment: str,
    env: tuple[tuple[str, str], ...],
    wait: bool,
    variable: str | None,
) -> None:
    """Send this cell to the background as a job of its own.

    The cell runs as a script in a fresh Python: it sees no variables of the notebook,
    so it imports what it needs and leaves results in files. Print a tqdm bar and the
    market shows the job's progress.

    \b
    Example:
      %%era_job --gpus 1 --duration 30m --deadline 18:00 --value 5 --as job
      import torch
      ...
      torch.save(model, "model.pt")

    \b
    Then, in another cell:
      job.wait()
      torch.load(job.path("model.pt"))
    """
    shell, cell = place
    if variable is not None and not variable.isidentifier():
        raise click.UsageError(f"--as: {variable!r} is not a name for a variable.")
    _check(cell)
    era = Era()
    job: JobHandle = era.submit(
        f"{cell.rstrip()}\n",
        configuration=configuration,
        gpus=gpus,
        duration=duration,
        deadline=deadline,
        value=value,
        name=name or "notebook cell",
        environment=dict(env),
        account=account,
        commitment=commitment,
    )
    if variable:
        shell.push({variable: job})
    if wait:
        job.wait()
    display(job)


def _check(cell: str) -> None:
    """Find out before paying whether the cell is a script."""
    if not cell.strip():
        raise click.UsageError("the cell is empty.")
    try:
        compile(cell, "<cell>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        where = getattr(error, "lineno", None)
        raise click.UsageError(
            f"the cell is not plain Python{f' (line {where})' if where else ''}: {error}. "
            "Lines beginning with % or ! work in notebooks only."
        ) from None
