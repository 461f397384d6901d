"""The market: one writer that turns bids into reservations and money.

Budget check, engine call, ledger hold and reservation row happen in one
transaction, on the database's writer thread (`Database.run`). The engine's plan
is a cache of the database: whenever a transaction fails half-way the plan is
rebuilt from what is stored.
"""

from __future__ import annotations

from typing import Any

from ..answers import Conflict, Forbidden, MarketError, NotFound, Outdated
from .bids import Bids
from .cloudside import CloudSide
from .extending import Extensions
from .life import Life
from .once import Call, Once
from .paying import Paying
from .questions import Place, Questions
from .rows import OPEN
from .state import PoolState
from .supply import Supply
from .together import Coming, Together

__all__ = [
    "OPEN",
    "Call",
    "Coming",
    "Conflict",
    "Forbidden",
    "Market",
    "MarketError",
    "NotFound",
    "Outdated",
    "Place",
]


class Market(PoolState):
    """All changes of one pool's promises and of the money behind them.

    Its methods are those of its parts, named below; each part has a module of its own.
    Parameters as of `PoolState`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        paying = Paying(self)
        self.accounts = paying.accounts

        bids = Bids(self, paying)
        self.quote = bids.quote
        self.reserve = bids.reserve

        extensions = Extensions(self, paying)
        self.quote_extension = extensions.quote_extension
        self.extend = extensions.extend

        life = Life(self)
        self.claim = life.claim
        self.give_back = life.give_back
        self.end = life.end
        self.note = life.note
        self.run_over = life.run_over
        self.job_started = life.job_started
        self.job_ended = life.job_ended
        self.job_failed_to_start = life.job_failed_to_start
        self.workload_gone = life.workload_gone

        supply = Supply(self, life)
        self.preview_settings = supply.preview_settings
        self.apply_settings = supply.apply_settings
        self.honour = supply.honour
        self.take_nodes = supply.take_nodes
        self.pass_time = supply.pass_time

        cloud = CloudSide(self, life, supply)
        self.allocation = cloud.allocation
        self.update = cloud.update

        questions = Questions(self)
        self.reservation = questions.reservation
        self.reservations = questions.reservations
        self.due = questions.due
        self.job = questions.job
        self.jobs = questions.jobs
        self.work = questions.work
        self.statement = questions.statement

        self.once = Once(self).once
        self.together = Together(self).run
