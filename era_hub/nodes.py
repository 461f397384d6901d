"""What the market learns of the cloud's nodes as they come and go."""

from __future__ import annotations

import asyncio
import logging

from .clouds.base import Cloud
from .market import Market
from .reconciler import Reconciler
from .store.database import Unavailable

AGAIN = 1.0
"""Seconds until what could not be stored is tried again."""


class Nodes:
    """Hears of changes of the cloud: the market sells what there is, the reconciler looks again.

    Parameters
    ----------
    market : Market
        Its calls run on the writer thread.
    cloud : Cloud
    reconciler : Reconciler
        Woken at every change: a job may have ended.
    """

    def __init__(self, market: Market, cloud: Cloud, reconciler: Reconciler) -> None:
        self.market = market
        self.cloud = cloud
        self.reconciler = reconciler
        self.log = logging.getLogger("EraHub")
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled."""
        self.cloud.changed = self._changed.set
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self.cloud.nodes != self.market.nodes:
                await self._take()
            self.reconciler.wake()

    async def _take(self) -> None:
        try:
            effects = await self.market.database.run(self.market.take_nodes, self.cloud.nodes)
        except Exception as error:
            level = logging.WARNING if isinstance(error, Unavailable) else logging.ERROR
            self.log.log(level, "The cloud's nodes could not be taken in: %s", error)
            await asyncio.sleep(AGAIN)
            self._changed.set()
            return
        names = ", ".join(each.name for each in self.market.nodes) or "none"
        text = "Nodes: %s; %d reservations moved, %d broken"
        self.log.info(text, names, len(effects.moved), len(effects.losses))
