"""``era-sim``: try market mechanisms on recorded or made-up demand."""

from __future__ import annotations

import click

from era_pricing.simulator.commands.bound import bound
from era_pricing.simulator.commands.compare import compare_command
from era_pricing.simulator.commands.generate import generate
from era_pricing.simulator.commands.plan import plan_command
from era_pricing.simulator.commands.run import run


@click.group("era-sim", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="era-hub", prog_name="era-sim")
def main() -> None:
    """Try market mechanisms on recorded or made-up demand.

    The engine is the one that sells in a service; only the clock, the bidders and
    the cloud are simulated. Everything is seeded.
    """


for command in (run, bound, generate, compare_command, plan_command):
    main.add_command(command)
