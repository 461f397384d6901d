"""``era-hub``: start the service, run a demo, or work as the market's admin."""

from __future__ import annotations

import click

from .. import __version__
from .accounts import accounts, grant, grants, overdraft, withdraw
from .audit import audit
from .pool import capacity, maintenance
from .records import changes, demand, holders
from .rules import policy, quota
from .shared import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="era-hub")
def main() -> None:
    """ERA Hub: a market for GPU time inside JupyterHub.

    Try it on this machine with `era-hub demo`. To add it to a hub of yours, put
    `import era_hub; era_hub.setup(c)` at the end of jupyterhub_config.py: the hub
    then starts the service by itself.

    The other commands are for the market's admins. They talk to the running service:
    set ERA_URL to https://<your hub>/services/era and ERA_TOKEN to a token of an
    admin's. What changes something says first what it does, and asks.
    """


@main.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": [],
    }
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Run the service; started by the hub. See `era-hub serve --help-all`."""
    from ..app import EraHub

    EraHub.launch_instance(argv=list(arguments))


@main.command()
@click.option("--port", default=8000, show_default=True, help="Where the hub listens.")
@click.option(
    "--dir",
    "folder",
    default="era-demo",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Database, passwords and home folders; a second start finds them again.",
)
@click.option(
    "--gpus",
    type=click.IntRange(1, 1024),
    help="Simulate this many GPUs, instead of using the machine's own (or 8 if it has none).",
)
def demo(port: int, folder: str, gpus: int | None) -> None:
    """Start a complete hub on http://127.0.0.1:8000 to try ERA Hub.

    It has the users ann, bob and admin, and JupyterLab with the example notebook in
    each home folder. Ctrl-C stops everything it started.
    """
    from ..demo import run

    raise SystemExit(run(port, folder, gpus))


for command in (
    grant,
    withdraw,
    overdraft,
    grants,
    quota,
    policy,
    capacity,
    maintenance,
    accounts,
    holders,
    demand,
    changes,
    audit,
):
    main.add_command(command)
