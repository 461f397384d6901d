"""``era-hub holders|demand|changes``: what there is to know, and nothing to change."""

from __future__ import annotations

import json
from typing import Any

import click

from . import shared
from .shared import Target, connected, paged


@click.command()
@connected
@click.argument("user", required=False)
@paged(100)
def holders(to: Target, user: str | None, limit: int, onward: str | None) -> None:
    """Who holds and waits for what. No bid's value is shown.

    \b
    Example:
      era-hub holders
    """
    with to.connect() as client:
        page = client.holders(user=user, limit=limit, after=onward)
    if to.raw:
        return shared.dump(page)
    rows = [
        (
            each.user,
            each.configuration,
            "waits" if each.waiting else each.state.value,
            shared.moment(each.start),
            shared.moment(each.end),
            shared.money(each.price),
            each.payer,
            each.message,
        )
        for holder in page.items
        for each in holder.reservations
    ]
    head = ("user", "what", "state", "start", "end", ">credits", "payer", "")
    shared.show_table(head, rows, "Nobody holds a reservation.")
    shared.tell_of_more(page.next)
    return None


@click.command()
@connected
@click.option("--days", type=click.IntRange(1, 366), default=14, show_default=True)
def demand(to: Target, days: int) -> None:
    """What was asked for, day by day (UTC), in sums that show no single bid.

    Hours are GPU-hours, and turned away is what declined bids offered in credits. It is told
    when the day is over, and only if there were enough of them.

    \b
    Example:
      era-hub demand --days 30
    """
    with to.connect() as client:
        found = client.demand(days)
    if to.raw:
        return shared.dump(found)
    rows = [
        (
            f"{each.day:%Y-%m-%d}",
            str(each.bids),
            str(each.accepted),
            str(each.declined),
            f"{each.gpu_hours_asked:.1f}",
            f"{each.gpu_hours_accepted:.1f}",
            shared.money(each.turned_away),
        )
        for each in found.days
    ]
    counts = (">bids", ">accepted", ">declined", ">hours asked", ">hours accepted", ">turned away")
    shared.show_table(("day", *counts), rows, "Nobody has asked for anything.")
    return None


@click.command()
@connected
@click.option("--actor", help="Only what they changed, such as admin:ann.")
@click.option("--subject", help="Only of this, such as user:bob or pool:local.")
@click.option("--action", help="Only this, such as quota.set.")
@paged(50)
def changes(
    to: Target,
    actor: str | None,
    subject: str | None,
    action: str | None,
    limit: int,
    onward: str | None,
) -> None:
    """What admins changed, newest first: the audit log.

    \b
    Example:
      era-hub changes --subject user:ann
    """
    with to.connect() as client:
        page = client.audit_log(
            actor=actor, subject=subject, action=action, limit=limit, before=onward
        )
    if to.raw:
        return shared.dump(page)
    rows = [
        (
            shared.moment(each.at),
            each.actor,
            each.action,
            each.subject,
            _short(each.before),
            _short(each.after),
        )
        for each in page.items
    ]
    head = ("when", "who", "what", "of", "before", "after")
    shared.show_table(head, rows, "No changes.")
    shared.tell_of_more(page.next)
    return None


def _short(state: dict[str, Any] | None) -> str:
    return "" if state is None else json.dumps(state, ensure_ascii=False)
