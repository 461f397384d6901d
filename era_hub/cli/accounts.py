"""``era-hub grant|grants|withdraw|overdraft|accounts``: who has which credits."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

import click

from .. import admin_models as models
from . import shared
from .shared import CREDITS, DURATION, MOMENT, Target, changing, connected, paged


@click.command()
@changing
@click.argument("names", nargs=-1)
@click.option("--amount", type=CREDITS, required=True, help="Credits.")
@click.option("--group", is_flag=True, help="The names are those of groups.")
@click.option("--everyone", is_flag=True, help="To each user who has an account, at the time.")
@click.option("--memo", default="", help="Why; the owner reads it.")
@click.option("--every", type=DURATION, help="Again and again, so far apart: 7d, 30d.")
@click.option("--cap", type=CREDITS, help="Top up to this balance at most.")
@click.option("--from", "anchor", type=MOMENT, help="The first time. [default: now]")
@click.option("--lapse-after", type=DURATION, help="They lapse so much later if unused.")
def grant(
    to: Target,
    names: tuple[str, ...],
    amount: int,
    group: bool,
    everyone: bool,
    memo: str,
    every: int | None,
    cap: int | None,
    anchor: datetime | None,
    lapse_after: int | None,
) -> None:
    """Give credits to users, groups or everyone: once, later, or periodically.

    Without --every, --cap, --from and --everyone the credits are there at once.
    Otherwise it plans a standing grant; `era-hub grants` lists, changes and ends
    them.

    \b
    Examples:
      era-hub grant ann bob --amount 50 --memo "for the workshop"
      era-hub grant --group vision --amount 1000 --lapse-after 90d
      era-hub grant --everyone --amount 20 --every 7d --cap 100 --dry-run
    """
    if bool(names) == everyone:
        raise click.UsageError("name users or groups, or say --everyone")
    standing = everyone or any(each is not None for each in (every, cap, anchor))
    if standing and memo:
        raise click.UsageError("--memo: a standing grant has none")
    kind = "group" if group else "user"
    bodies: list[Any] = []
    for name in names or ("",):
        if standing:
            bodies.append(
                models.GrantRequest(
                    kind="everyone" if everyone else kind,
                    name=name,
                    amount=amount,
                    period=every,
                    cap=cap,
                    anchor=anchor,
                    expires_after=lapse_after,
                )
            )
        else:
            bodies.append(
                models.CreditsGrant(
                    kind=kind, name=name, amount=amount, memo=memo, expires_after=lapse_after
                )
            )
    with to.connect() as client:
        call = client.create_grant if standing else client.give
        shared.carry_out(to, [partial(call, body) for body in bodies])


@click.command()
@changing
@click.argument("names", nargs=-1, required=True)
@click.option("--amount", type=CREDITS, help="Credits.")
@click.option("--all", "everything", is_flag=True, help="All that is there.")
@click.option("--group", is_flag=True, help="The names are those of groups.")
@click.option("--memo", default="", help="Why; the owner reads it.")
def withdraw(
    to: Target,
    names: tuple[str, ...],
    amount: int | None,
    everything: bool,
    group: bool,
    memo: str,
) -> None:
    """Take credits back, as far as they are there. What reservations hold stays.

    \b
    Examples:
      era-hub withdraw ann --amount 12.50 --memo "granted twice"
      era-hub withdraw --group old-project --all
    """
    if (amount is None) != everything:
        raise click.UsageError("say --amount or --all")
    bodies = [
        models.CreditsWithdrawal(
            kind="group" if group else "user", name=name, amount=amount, memo=memo
        )
        for name in names
    ]
    with to.connect() as client:
        shared.carry_out(to, [partial(client.withdraw, body) for body in bodies])


@click.command()
@changing
@click.argument("name")
@click.argument("amount", type=CREDITS)
@click.option("--group", is_flag=True, help="The name is that of a group.")
def overdraft(
    to: Target,
    name: str,
    amount: int,
    group: bool,
) -> None:
    """Let the balance of an account fall AMOUNT credits below zero; 0 for not at all.

    \b
    Example:
      era-hub overdraft --group vision 100
    """
    kind = "group" if group else "user"
    body = models.OverdraftChange(kind=kind, name=name, overdraft=amount)
    with to.connect() as client:
        shared.carry_out(to, [partial(client.set_overdraft, body)])


@click.group()
def grants() -> None:
    """Standing grants: list, change and end them; `era-hub grant` makes them."""


@grants.command("list")
@connected
@click.option("--ended", is_flag=True, help="Also those that are over.")
def list_grants(to: Target, ended: bool) -> None:
    """Standing grants, newest first.

    \b
    Example:
      era-hub grants list --ended
    """
    with to.connect() as client:
        found = client.grants(ended=ended or None)
    if to.raw:
        return shared.dump(found)
    rows = [
        (
            str(each.id),
            f"{each.kind} {each.name}".strip(),
            shared.money(each.amount),
            shared.span(each.period) or "once",
            shared.money(each.cap),
            shared.span(each.expires_after) or "never",
            "over" if each.ended else shared.moment(each.next_at),
        )
        for each in found
    ]
    head = ("id", "for", ">credits", "every", ">cap", "lapse after", "next")
    return shared.show_table(head, rows, "No standing grants.")


@grants.command("change")
@changing
@click.argument("grant_id", type=int, metavar="ID")
@click.option("--amount", type=CREDITS, help="Credits, each time. [default: as it is]")
@click.option("--cap", type=CREDITS, help="Top up to this balance at most; 0 for no cap.")
@click.option("--lapse-after", type=DURATION, help="They lapse so much later if unused.")
@click.option("--never-lapse", is_flag=True, help="They do not lapse.")
def change_grant(
    to: Target,
    grant_id: int,
    amount: int | None,
    cap: int | None,
    lapse_after: int | None,
    never_lapse: bool,
) -> None:
    """Give other amounts from the next time on. What is not said stays as it is.

    \b
    Example:
      era-hub grants change 3 --amount 30 --cap 0
    """
    with to.connect() as client:
        old = _grant(client, grant_id)
        body = models.GrantChange(
            version=old.version,
            amount=old.amount if amount is None else amount,
            cap=old.cap if cap is None else (cap or None),
            expires_after=None if never_lapse else lapse_after or old.expires_after,
        )
        shared.carry_out(to, [partial(client.change_grant, grant_id, body)])


@grants.command("end")
@changing
@click.argument("grant_id", type=int, metavar="ID")
def end_grant(to: Target, grant_id: int) -> None:
    """Give nothing more. What was given stays on the accounts.

    \b
    Example:
      era-hub grants end 3
    """
    with to.connect() as client:
        version = _grant(client, grant_id).version
        shared.carry_out(to, [partial(client.end_grant, grant_id, version)])


def _grant(client: shared.AdminClient, grant_id: int) -> models.StandingGrant:
    found = next((each for each in client.grants(ended=True) if each.id == grant_id), None)
    if found is None:
        raise click.ClickException(f"there is no grant {grant_id}")
    return found


@click.command()
@connected
@click.argument("name", required=False)
@click.option("--group", is_flag=True, help="The name is that of a group.")
@click.option("--search", default="", help="Only names that hold this.")
@click.option("--below", type=CREDITS, help="Only balances below this.")
@paged(100)
def accounts(
    to: Target,
    name: str | None,
    group: bool,
    search: str,
    below: int | None,
    limit: int,
    onward: str | None,
) -> None:
    """All accounts with their balances, or with NAME the entries of one.

    \b
    Examples:
      era-hub accounts --below 5
      era-hub accounts ann
      era-hub accounts --group vision --json
    """
    with to.connect() as client:
        if name is not None:
            kind = "group" if group else "user"
            found = client.statement(kind, name, limit=limit, before=onward)
            return shared.dump(found) if to.raw else _show_statement(found)
        page = client.all_accounts(
            kind="group" if group else None,
            search=search or None,
            below=below,
            limit=limit,
            after=onward,
        )
    if to.raw:
        return shared.dump(page)
    rows = [
        (
            each.kind,
            each.name,
            shared.money(each.balance),
            shared.money(each.held),
            shared.money(each.lapsing),
            shared.money(each.overdraft),
            str(each.open_reservations),
        )
        for each in page.items
    ]
    head = ("", "name", ">balance", ">held", ">lapsing", ">overdraft", ">open reservations")
    shared.show_table(head, rows, "No accounts.")
    shared.tell_of_more(page.next)
    return None


def _show_statement(found: models.AdminStatement) -> None:
    account = found.account
    held = f", {shared.money(account.held)} held" if account.held else ""
    click.echo(f"{shared.printable(account.name)}: {shared.money(account.balance)} credits{held}")
    for lot in found.lots:
        amount = shared.money(lot.remaining)
        click.echo(f"  of which {amount} lapse at {shared.moment(lot.expires)}")
    rows = [
        (shared.moment(each.at), shared.money(each.amount), shared.money(each.balance), each.text)
        for each in found.items
    ]
    shared.show_table(("when", ">credits", ">balance", "what"), rows, "No entries.")
    shared.tell_of_more(found.next)
