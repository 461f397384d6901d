"""What runs without a reservation: found on a schedule, and ended if it is ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import TypeVar

from .answers import NotFound
from .clouds.base import Cloud, CloudError
from .hub import HubError
from .market import Market
from .models import Kind, Reservation, State
from .patience import PatientHub
from .store.database import Database

T = TypeVar("T")

OUR_OPTIONS = frozenset(("configuration", "reservation"))
"""One of these is among the options of every server that a spawner of ERA Hub has started."""


class Orphans:
    """Looks for workloads that the reconciler does not know of, because nothing names them.

    Each look asks first what runs and then what may run, and acts only on what was there
    at the look before as well: what starts or ends meanwhile is never taken for an orphan.

    Parameters
    ----------
    market : Market
    database : Database
    cloud : Cloud
    hub : PatientHub
    """

    def __init__(
        self,
        market: Market,
        database: Database,
        cloud: Cloud,
        hub: PatientHub,
        log: logging.Logger,
    ) -> None:
        self.market = market
        self.database = database
        self.cloud = cloud
        self.hub = hub
        self.log = log
        self._suspects: dict[str, set[Hashable]] = {}
        self._told: set[Hashable] = set()

    def forget(self) -> None:
        """What was seen before counts no more."""
        self._suspects.clear()

    async def look(self) -> None:
        """Look for both kinds; trouble with one does not keep the other."""
        for kind in (self._jobs, self._servers):
            try:
                await kind()
            except (HubError, CloudError) as error:
                self.log.info("No look for orphans: %s", error)

    async def _jobs(self) -> None:
        running: dict[str, str] = {}
        for each in await self.cloud.workloads():
            running.setdefault(each.id, each.what)
        known = {each.id for each in await self._with_workload()}
        for job_id in self._seen_twice("jobs", running.keys() - known):
            owner = await self._owner(job_id)
            if owner is None:
                self._tell(
                    job_id,
                    f"{running[job_id]} runs for job {job_id}, which this market does not know: "
                    "left alone",
                )
                continue
            self._tell(job_id, f"{running[job_id]} runs for job {job_id}, which is over: ended")
            await self.cloud.stop(job_id, owner)

    async def _servers(self) -> None:
        servers = await self.hub.all_servers()
        ready = {key for key, each in servers.items() if each.ready and not each.pending}
        known = {
            (each.user, each.server_name)
            for each in await self._with_workload()
            if each.kind is Kind.NOTEBOOK and each.state is not State.ACCEPTED
        }
        for user, name in self._seen_twice("servers", ready - known):
            what = f"server {name!r} of {user}" if name else f"the default server of {user}"
            if not OUR_OPTIONS & servers[user, name].options.keys():
                self._tell(
                    (user, name),
                    f"{what} runs without a reservation, and was not started through ERA Hub: "
                    "left alone",
                )
                continue
            self._tell((user, name), f"{what} runs without a reservation: stopped")
            await self.hub.stop(user, name)

    async def _with_workload(self) -> list[Reservation]:
        return [each.reservation for each in await self._call(self.market.due)]

    async def _owner(self, reservation_id: str) -> str | None:
        """Whose the reservation was; None if the market has never made it."""
        try:
            return (await self._call(lambda: self.market.reservation(reservation_id))).user
        except NotFound:
            return None

    async def _call(self, question: Callable[[], T]) -> T:
        return await self.database.run(question)

    def _seen_twice(self, kind: str, found: set[T]) -> list[T]:
        """What was there at the last look too; the rest may be gone at the next one."""
        before = self._suspects.get(kind, set())
        self._suspects[kind] = set(found)
        gone = before - found
        self._told -= gone
        return [each for each in found if each in before]

    def _tell(self, key: Hashable, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self.log.warning("%s", text[0].upper() + text[1:])
