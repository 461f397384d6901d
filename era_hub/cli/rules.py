"""``era-hub quota|policy``: limits, and who pays."""

from __future__ import annotations

from functools import partial

import click

from .. import admin_models as models
from . import shared
from .shared import DURATION, Command, Target, changing, connected

LIMITS = ("gpus", "gpu-hours", "longest", "horizon", "configurations")


@click.group()
def quota() -> None:
    """Limits of everyone, of users, and of groups.

    A user's own limits come first, then the most generous of those for members of
    the user's groups, then those of everyone; each sort of limit by itself. Limits
    of a group hold for what the group's account pays for, in sum.
    """


def whose(function: Command) -> Command:
    """Options that say whose limits."""
    for option in (
        click.option("--group", help="Of what this group's account pays for, in sum."),
        click.option("--members-of", metavar="GROUP", help="Of each member of this group."),
        click.option("--user", help="Of this user."),
        click.option("--everyone", is_flag=True, help="Of everyone."),
    ):
        function = option(function)
    return function


def _row(
    everyone: bool, user: str | None, members_of: str | None, group: str | None
) -> tuple[models.QuotaKind, str]:
    found: list[tuple[models.QuotaKind, str]] = []
    if everyone:
        found.append(("everyone", ""))
    if user is not None:
        found.append(("user", user))
    if members_of is not None:
        found.append(("member", members_of))
    if group is not None:
        found.append(("group", group))
    if len(found) != 1:
        raise click.UsageError("say one of --everyone, --user, --members-of and --group")
    return found[0]


def _find(client: shared.AdminClient, kind: str, name: str) -> models.Quota | None:
    return next((q for q in client.quotas() if (q.kind, q.name) == (kind, name)), None)


@quota.command("list")
@connected
def list_quotas(to: Target) -> None:
    """All limits.

    \b
    Example:
      era-hub quota list
    """
    with to.connect() as client:
        found = client.quotas()
    if to.raw:
        return shared.dump(found)
    rows = [
        (
            f"{each.kind} {each.name}".strip(),
            "" if each.gpus is None else str(each.gpus),
            "" if each.gpu_seconds is None else f"{each.gpu_seconds / 3600:g}",
            shared.span(each.period),
            shared.span(each.longest),
            shared.span(each.horizon),
            "any" if each.configurations is None else ", ".join(each.configurations) or "none",
        )
        for each in found
    ]
    head = ("of", ">GPUs", ">GPU-hours", "in each", "longest", "horizon", "configurations")
    return shared.show_table(head, rows, "No limits.")


@quota.command("set")
@changing
@whose
@click.option("--gpus", type=click.IntRange(min=0), help="GPUs at once.")
@click.option("--gpu-hours", type=click.FloatRange(min=0), help="GPU-hours in each period.")
@click.option("--period", type=DURATION, help="Length of a period. [default: as it is, or 7d]")
@click.option("--longest", type=DURATION, help="The longest reservation.")
@click.option("--horizon", type=DURATION, help="How far ahead a reservation may end.")
@click.option(
    "--configuration", "configurations", multiple=True, help="Only this; may be repeated."
)
@click.option(
    "--no", "lifted", type=click.Choice(LIMITS), multiple=True, help="Lift this limit of the row."
)
def set_quota(
    to: Target,
    everyone: bool,
    user: str | None,
    members_of: str | None,
    group: str | None,
    gpus: int | None,
    gpu_hours: float | None,
    period: int | None,
    longest: int | None,
    horizon: int | None,
    configurations: tuple[str, ...],
    lifted: tuple[str, ...],
) -> None:
    """Set limits. What is not said stays as it is.

    \b
    Examples:
      era-hub quota set --everyone --gpus 4 --longest 12h
      era-hub quota set --members-of vision --gpu-hours 500 --period 30d
      era-hub quota set --user ann --no gpus
    """
    kind, name = _row(everyone, user, members_of, group)
    given = {
        "gpus": gpus,
        "gpu_seconds": None if gpu_hours is None else round(gpu_hours * 3600),
        "period": period,
        "longest": longest,
        "horizon": horizon,
        "configurations": list(configurations) or None,
    }
    with to.connect() as client:
        old = _find(client, kind, name)
        limits = {
            key: getattr(old, key, None) if value is None else value for key, value in given.items()
        }
        for limit in lifted:
            limits["gpu_seconds" if limit == "gpu-hours" else limit] = None
        if limits["gpu_seconds"] is None:
            limits["period"] = None
        elif limits["period"] is None:
            limits["period"] = 7 * 86_400
        version = 0 if old is None else old.version
        body = models.QuotaRequest.model_validate(
            {"kind": kind, "name": name, "version": version, **limits}
        )
        shared.carry_out(to, [partial(client.set_quota, body)])


@quota.command("remove")
@changing
@whose
def remove_quota(
    to: Target, everyone: bool, user: str | None, members_of: str | None, group: str | None
) -> None:
    """Lift all limits of one row.

    \b
    Example:
      era-hub quota remove --user ann
    """
    kind, name = _row(everyone, user, members_of, group)
    with to.connect() as client:
        old = _find(client, kind, name)
        if old is None:
            raise click.ClickException(f"there are no limits of {f'{kind} {name}'.strip()}")
        shared.carry_out(to, [partial(client.remove_quota, kind, name, old.version)])


# -- who pays --------------------------------------------------------------------------------


@click.group()
def policy() -> None:
    """Who pays where a bid does not say.

    A user's own policy comes first, then, of the policies of the user's groups, the
    one with the lowest rank; without one the user's own account pays.
    """


@policy.command("list")
@connected
def list_policies(to: Target) -> None:
    """All policies, in the order in which they are asked.

    \b
    Example:
      era-hub policy list
    """
    with to.connect() as client:
        found = client.policies()
    if to.raw:
        return shared.dump(found)
    rows = [
        (
            each.kind,
            each.name,
            each.pays or "",
            "" if each.rank is None else str(each.rank),
        )
        for each in found
    ]
    return shared.show_table(("", "name", "pays", ">rank"), rows, "No policies.")


@policy.command("set")
@changing
@click.option("--user", help="Bids of this user.")
@click.option("--group", help="Bids of this group's members.")
@click.option("--pays", required=True, help="`own`, or `group:NAME`.")
@click.option("--rank", type=click.IntRange(min=0), help="Of a group: the lowest decides.")
def set_policy(
    to: Target, user: str | None, group: str | None, pays: str, rank: int | None
) -> None:
    """Set who pays for a user, or for the members of a group.

    \b
    Examples:
      era-hub policy set --group vision --pays group:vision --rank 10
      era-hub policy set --user ann --pays own
    """
    kind, name = _payer(user, group)
    with to.connect() as client:
        old = _policy(client, kind, name)
        if rank is None and old is not None:
            rank = old.rank
        body = models.PayerPolicyRequest(
            kind=kind, name=name, pays=pays, rank=rank, version=0 if old is None else old.version
        )
        shared.carry_out(to, [partial(client.set_policy, body)])


@policy.command("remove")
@changing
@click.option("--user", help="Bids of this user.")
@click.option("--group", help="Bids of this group's members.")
def remove_policy(to: Target, user: str | None, group: str | None) -> None:
    """Forget who pays: what comes next in the order decides.

    \b
    Example:
      era-hub policy remove --group vision
    """
    kind, name = _payer(user, group)
    with to.connect() as client:
        old = _policy(client, kind, name)
        if old is None:
            raise click.ClickException(f"there is no policy of {kind} {name}")
        shared.carry_out(to, [partial(client.remove_policy, kind, name, old.version)])


def _payer(user: str | None, group: str | None) -> tuple[models.Owner, str]:
    if (user is None) == (group is None):
        raise click.UsageError("say --user or --group")
    return ("user", user) if user is not None else ("group", group or "")


def _policy(client: shared.AdminClient, kind: str, name: str) -> models.PayerPolicy | None:
    return next((p for p in client.policies() if (p.kind, p.name) == (kind, name)), None)
