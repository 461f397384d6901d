"""What admins do, each as a preview and for good, and what they ask.

A change is one transaction with its row in the audit log; a preview is the same
transaction, rolled back when it has said what it does.
"""

from __future__ import annotations

from ..market import Market
from .accounts import Accounts
from .ask import Questions
from .desk import Call, Desk
from .grants import Grants
from .policies import Policies
from .pool import PoolDesk
from .quotas import Quotas

__all__ = ["Admin", "Call", "Questions"]


class Admin:
    """The changes that admins make to one market, by what they change.

    Parameters
    ----------
    market : Market

    Notes
    -----
    As the market's, its methods are called on the database's writer thread.
    """

    def __init__(self, market: Market) -> None:
        desk = Desk(market)
        self.accounts = Accounts(desk)
        self.grants = Grants(desk)
        self.policies = Policies(desk)
        self.quotas = Quotas(desk)
        self.pool = PoolDesk(desk)
