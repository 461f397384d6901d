"""One user as admins see them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from ..admin_models import UserReport
from ..answers import NotFound
from ..store.ledger import Ledger
from ..store.policies import Policies
from . import quotas
from .ask import Questions


def report(
    session: Session, now: int, name: str, groups: Sequence[str] | None = None
) -> UserReport:
    """A user's account, limits and open reservations.

    Parameters
    ----------
    groups : sequence of str, optional
        Those that the user is in, as the hub says. Default: those of the last bid.

    Raises
    ------
    NotFound
        If the market has never heard of the user.
    """
    ask = Questions(session, now)
    account = Ledger(session, now).find("user", name)
    if account is None and not groups:
        raise NotFound(f"there is no account of {name}")
    found = list(groups) if groups is not None else quotas.groups_seen(session, name)
    policies = Policies(session)
    return UserReport(
        name=name,
        groups=sorted(found),
        groups_from="last bid" if groups is None else "hub",
        account=None if account is None else ask.account("user", name),
        payer=str(policies.payer(name, found)),
        payers=[str(each) for each in policies.choices(name, found)],
        limits=quotas.usage(session, name, found, now),
        reservations=ask.open_reservations([name]),
    )
