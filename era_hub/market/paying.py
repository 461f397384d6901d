"""Who pays for a bid, and what their quotas leave."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .. import models
from ..answers import Forbidden
from ..models import OWN
from ..store.ledger import Ledger
from ..store.policies import NotAllowed, Payer, Policies
from ..store.quotas import Quotas, Refusal, Wanted
from ..store.tables import Account, Reservation
from .rows import OPEN
from .state import PoolState

NO_GROUPS: tuple[str, ...] = ()


@dataclass(frozen=True)
class Purse:
    """The account that a bid is paid from: `name` as bids say it, and what is there."""

    name: str
    payer: Payer
    account: Account
    available: int


class Paying:
    """The accounts behind the bids."""

    def __init__(self, state: PoolState) -> None:
        self.state = state

    def purse(
        self, session: Session, user: str, groups: Collection[str], wanted: str | None
    ) -> Purse:
        """The account a bid of the user's is paid from.

        Parameters
        ----------
        groups : collection of str
            Those that the user is in now.
        wanted : str or None
            What the bid says: ``own``, ``group:NAME``, or nothing.

        Raises
        ------
        Forbidden
            If it is the account of a group that the user is not in.
        """
        try:
            payer = Policies(session).payer(user, groups, wanted)
        except NotAllowed as error:
            raise Forbidden(f"account: {error}") from None
        ledger = Ledger(session, self.state.clock())
        account = self._account(ledger, payer)
        return Purse(str(payer), payer, account, ledger.available(account))

    def purse_of(self, session: Session, row: Reservation, groups: Collection[str]) -> Purse:
        """The account that pays for a reservation; raises `Forbidden` as `purse` does."""
        account = None if row.account_id is None else session.get_one(Account, row.account_id)
        named = account is not None and account.kind == "group"
        said = f"group:{account.name}" if account is not None and named else OWN
        return self.purse(session, row.user, groups, said)

    def refusals(
        self,
        session: Session,
        user: str,
        groups: Collection[str],
        purse: Purse,
        request: Wish,
        start: int,
        end: int,
        without: str | None = None,
    ) -> Sequence[Refusal]:
        """The limits that a reservation of [start, end) would break."""
        wanted = Wanted(
            user=user,
            groups=groups,
            payer=purse.payer,
            account_id=purse.account.id,
            configuration=request.configuration,
            gpus=request.gpus,
            start=start,
            end=end,
        )
        return Quotas(session).check(wanted, self.state.clock(), without=without)

    def limited(self, session: Session, user: str, groups: Collection[str], purse: Purse) -> bool:
        """Whether there is any limit that a bid must keep."""
        quotas = Quotas(session)
        if quotas.limits(user, groups).any:
            return True
        return purse.payer.kind == "group" and quotas.group_limits(purse.payer.name).any

    def accounts(
        self, user: str, groups: Collection[str] = NO_GROUPS
    ) -> list[models.AccountSummary]:
        """The accounts that the user may pay with, and which one is the default."""
        with self.state.transaction() as session:
            ledger, policies = Ledger(session, self.state.clock()), Policies(session)
            usual = policies.payer(user, groups)
            found = []
            # The usual one too where its account is not open yet: it would pay.
            for payer in dict.fromkeys([*policies.choices(user, groups), usual]):
                account = self._account(ledger, payer)
                found.append(
                    models.AccountSummary(
                        account=str(payer),
                        balance=ledger.balance(account),
                        held=held(session, account),
                        default=payer == usual,
                    )
                )
            return found

    def _account(self, ledger: Ledger, payer: Payer) -> Account:
        if payer.kind == "group":
            return ledger.group(payer.name)
        return ledger.user(payer.name, self.state.grant)


@dataclass(frozen=True)
class Wish:
    """What a quota looks at in a request, besides its time."""

    configuration: str
    gpus: int


def held(session: Session, account: Account) -> int:
    """What an account has set aside for reservations that have not ended."""
    query = select(func.coalesce(func.sum(Reservation.price), 0)).where(
        Reservation.account_id == account.id, Reservation.state.in_(OPEN)
    )
    return int(session.scalar(query) or 0)


def refused(refusals: Sequence[Refusal]) -> str:
    """The limits that stand in the way, for the user."""
    return "; ".join(map(str, refusals))
