"""``era-hub audit``: prove the books on the database itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .. import admin_models as models
from . import shared

if TYPE_CHECKING:
    from ..store.database import Database


@click.command()
@click.option(
    "--db",
    envvar="ERA_DB_URL",
    help="sqlite:////path/to/era.sqlite or postgresql://user@host/name; a password belongs "
    "into PGPASSFILE or the environment's ERA_DB_URL. [default: as the service]",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False),
    help="The service's configuration file, which names the database.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False),
    help="The service's folder, where it keeps its database if nothing else is configured.",
)
@click.option(
    "--gpus",
    type=click.IntRange(min=0),
    help="So many are there from now on. [default: as the service last had, at all times]",
)
@click.option("--pool", default="local", show_default=True, help="Of which pool those are.")
@click.option("--json", "raw", is_flag=True, help="Print the findings as JSON.")
def audit(
    db: str | None,
    config: str | None,
    state_dir: str | None,
    gpus: int | None,
    pool: str,
    raw: bool,
) -> None:
    """Prove the books from every entry, and print what does not add up.

    It reads the database itself, whether the service runs or not, and changes
    nothing. The exit code is 1 if anything does not add up.

    \b
    Examples:
      era-hub audit --state-dir /srv/jupyterhub/era
      era-hub audit --db postgresql://era@db.example.org/era --json
    """
    from ..store.database import Unavailable

    try:
        books = _prove(_open(db, config, state_dir), None if gpus is None else {pool: gpus})
    except Unavailable as error:
        raise click.ClickException(str(error)) from error
    if raw:
        shared.dump(books)
    elif books.sound:
        click.echo(f"The books add up ({books.seconds:.1f} s).")
    else:
        rows = [(each.check, each.subject, each.text) for each in books.findings]
        shared.show_table(("check", "of", "finding"), rows, "")
        click.echo(f"{len(rows)} findings: the books do not add up.")
    raise SystemExit(0 if books.sound else 1)


def _open(db: str | None, config: str | None, state_dir: str | None) -> Database:
    from sqlalchemy.exc import ArgumentError

    from ..app import EraHub
    from ..store.database import Database

    service = EraHub()
    arguments = [f"--config={config}"] if config else []
    arguments += [f"--EraHub.state_dir={state_dir}"] if state_dir else []
    service.initialize(arguments)
    try:
        from sqlalchemy.engine import make_url

        url = make_url(db or service.db_url)
        # The service makes a file that is missing; here that would be an empty set of books.
        if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
            raise click.ClickException(
                f"there is no database {url.database}; say --state-dir, --config or --db"
            )
        return Database(url)
    except (ArgumentError, ValueError) as error:
        raise click.UsageError(f"--db: {error}") from None


def _prove(database: Database, capacities: dict[str, int] | None) -> models.Books:
    from sqlalchemy.exc import DBAPIError

    from ..admin import Questions
    from ..store.database import unavailable

    columns = (
        TextColumn("Proving the books"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    try:
        with (
            Progress(*columns, console=Console(stderr=True), transient=True) as progress,
            database.reader.begin() as session,
        ):
            task = progress.add_task("")

            def told(check: str, done: int, total: int) -> None:
                progress.update(task, description=check, completed=done, total=total)

            return Questions(session, int(time.time())).books(capacities, told)
    except DBAPIError as error:
        known = unavailable(error)
        detail = known or "the tables are not those of this version; start its service once"
        raise click.ClickException(str(detail)) from error
    finally:
        database.close()
