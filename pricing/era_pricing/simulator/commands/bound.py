"""`era-sim bound`: what no mechanism could exceed."""

from __future__ import annotations

import json

import click

from era_pricing.simulator.cloud import CloudModel
from era_pricing.simulator.commands.options import (
    capacity_option,
    json_option,
    plain_errors,
    pool_of,
    pool_option,
    read_requests,
    slot_option,
    workload_option,
)
from era_pricing.simulator.commands.terminal import amount, share, show
from era_pricing.simulator.metrics import span, total_bound
from era_pricing.timegrid import DAY, HOUR


@click.command()
@workload_option()
@capacity_option
@pool_option
@slot_option
@click.option(
    "--tolerance",
    type=click.FloatRange(1e-6, 0.5),
    default=1e-4,
    show_default=True,
    help="How far above the optimum the bound may lie, as a share; it is a bound at any.",
)
@json_option
def bound(
    workload: str,
    capacity: int | None,
    pool: str | None,
    slot: int,
    tolerance: float,
    as_json: bool,
) -> None:
    """Say what no mechanism could exceed, even one that knew all requests beforehand.

    It is the optimum of the LP relaxation: requests may be served in part and their
    units run at any speed up to what was asked for.

    \b
    Example:
      era-sim bound --workload week.csv --capacity 64
    """
    with plain_errors():
        there, requests = read_requests(workload, pool_of(capacity, pool))
        found = total_bound(requests, there, CloudModel(), 0, slot, tolerance)
    columns = requests.columns
    value = int(columns.value.sum()) / 1e6
    _, count = span(columns, slot)
    room = there.capacity(there.priced[0]) * count * slot / HOUR
    answer = {
        "requests": len(columns),
        "requested_value": value,
        "omniscient_bound": found.value,
        "share_of_value": found.value / value if value else 1.0,
        "unit_hours_asked": float(columns.unit_hours.sum()),
        "unit_hours_there": room,
        "days": count * slot / DAY,
    }
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    rows = [
        ("requests", amount(len(columns)), f"over {count * slot / DAY:.1f} days"),
        ("requested value", amount(value), "credits"),
        ("omniscient bound", amount(found.value, 2), f"credits, {share(answer['share_of_value'])}"),
        ("unit-hours asked for", amount(answer["unit_hours_asked"]), f"there are {amount(room)}"),
    ]
    show(("", "", ""), rows, texts=(0, 2))
