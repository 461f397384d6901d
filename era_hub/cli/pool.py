"""``era-hub capacity|maintenance``: what there is to sell, and its price bounds."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import click

from .. import admin_models as models
from ..models import micro_credits
from . import shared
from .shared import MOMENT, Target, changing, connected


def _bound(text: str) -> int | None:
    return None if text == "default" else micro_credits(text)


@click.command()
@changing
@click.option("--held-back", type=click.IntRange(min=0), help="GPUs that are not for sale.")
@click.option(
    "--price-floor",
    metavar="CREDITS",
    help="Lowest price of a GPU-hour; `default`: as the service is configured.",
)
@click.option(
    "--price-ceiling",
    metavar="CREDITS",
    help="Highest price of a GPU-hour; `default`: as the service is configured.",
)
def capacity(
    to: Target, held_back: int | None, price_floor: str | None, price_ceiling: str | None
) -> None:
    """What the pool sells and at which bounds; with options, change it.

    What is not said stays as it is. Reservations that the pool can no longer honour
    are refunded in full; --dry-run says which.

    \b
    Examples:
      era-hub capacity
      era-hub capacity --held-back 2 --dry-run
      era-hub capacity --price-floor 0.50 --price-ceiling default
    """
    with to.connect() as client:
        old = client.pool_settings()
        if (held_back, price_floor, price_ceiling) == (None, None, None):
            return shared.dump(old) if to.raw else _show(old)
        try:
            body = models.PoolSettingsRequest(
                version=old.version,
                price_floor=old.price_floor if price_floor is None else _bound(price_floor),
                price_ceiling=old.price_ceiling if price_ceiling is None else _bound(price_ceiling),
                held_back=old.held_back if held_back is None else held_back,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return shared.carry_out(to, [partial(client.set_pool, body)])


def _show(found: models.PoolSettings) -> None:
    sold = found.gpus - found.held_back
    click.echo(f"Pool {found.pool}: {sold} of {found.gpus} GPUs for sale")
    ceiling = "none" if found.ceiling_now is None else shared.money(found.ceiling_now)
    click.echo(f"A GPU-hour costs at least {shared.money(found.floor_now)} credits", nl=False)
    click.echo(f"; ceiling: {ceiling}")


@click.group()
def maintenance() -> None:
    """Times in which some or all GPUs are not for sale."""


@maintenance.command("list")
@connected
@click.option("--past", is_flag=True, help="Also those that are over.")
def list_windows(to: Target, past: bool) -> None:
    """Maintenance windows, the earliest first.

    \b
    Example:
      era-hub maintenance list
    """
    with to.connect() as client:
        found = client.maintenance(past)
    if to.raw:
        return shared.dump(found)
    rows = [
        (
            str(each.id),
            shared.moment(each.start),
            shared.moment(each.end),
            "all" if each.gpus is None else str(each.gpus),
            each.reason,
        )
        for each in found
    ]
    return shared.show_table(("id", "start", "end", ">GPUs", "why"), rows, "No maintenance.")


@maintenance.command("plan")
@changing
@click.option("--start", type=MOMENT, required=True, help="Such as 2030-03-01T18:00, or +4h.")
@click.option("--end", type=MOMENT, required=True, help="Likewise.")
@click.option("--gpus", type=click.IntRange(min=1), help="How many. [default: all]")
@click.option("--reason", default="", help="Why; users read it.")
def plan(to: Target, start: datetime, end: datetime, gpus: int | None, reason: str) -> None:
    """Take GPUs out of the market for some time.

    Reservations that the pool can no longer honour are refunded in full; --dry-run
    says which.

    \b
    Example:
      era-hub maintenance plan --start 2030-03-01T18:00 --end 2030-03-01T22:00 --reason cooling
    """
    body = models.MaintenanceRequest(start=start, end=end, gpus=gpus, reason=reason)
    with to.connect() as client:
        shared.carry_out(to, [partial(client.plan_maintenance, body)])


@maintenance.command("change")
@changing
@click.argument("window", type=int, metavar="ID")
@click.option("--start", type=MOMENT, help="Such as 2030-03-01T18:00, or +4h.")
@click.option("--end", type=MOMENT, help="Likewise.")
@click.option("--gpus", type=click.IntRange(min=1), help="How many.")
@click.option("--all-gpus", is_flag=True, help="All of them.")
@click.option("--reason", help="Why; users read it.")
def change(
    to: Target,
    window: int,
    start: datetime | None,
    end: datetime | None,
    gpus: int | None,
    all_gpus: bool,
    reason: str | None,
) -> None:
    """Change a maintenance window. What is not said stays as it is.

    \b
    Example:
      era-hub maintenance change 2 --end 2030-03-01T23:00
    """
    with to.connect() as client:
        old = _window(client, window)
        body = models.MaintenanceChange(
            version=old.version,
            start=start or old.start,
            end=end or old.end,
            gpus=None if all_gpus else gpus or old.gpus,
            reason=old.reason if reason is None else reason,
        )
        shared.carry_out(to, [partial(client.change_maintenance, window, body)])


@maintenance.command("drop")
@changing
@click.argument("window", type=int, metavar="ID")
def drop(to: Target, window: int) -> None:
    """Call maintenance off.

    \b
    Example:
      era-hub maintenance drop 2
    """
    with to.connect() as client:
        version = _window(client, window).version
        shared.carry_out(to, [partial(client.drop_maintenance, window, version)])


def _window(client: shared.AdminClient, number: int) -> models.MaintenanceWindow:
    found = next((each for each in client.maintenance(past=True) if each.id == number), None)
    if found is None:
        raise click.ClickException(f"there is no maintenance window {number}")
    return found
