"""All that the reconciler deals with: real processes, a real database, and a hub on a wire.

The clock of the market is set by the tests. It starts at the next slot, because jobs
are supervised by processes that go by the machine's own clock.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from era_hub.clouds.base import Phase
from era_hub.clouds.local import LocalCloud
from era_hub.hub import Hub
from era_hub.models import Job, Reservation, State
from era_hub.reconciler import Reconciler
from era_hub.views import when
from tests.era_hub.small_hub import TOKEN, SmallHub
from tests.era_hub.small_market import Clock, job, notebook, open_market

T = TypeVar("T")
GRANT = 100_000_000
SLOT = 300
LEASE = 120
PATIENCE = 20.0  # seconds until a test that waits has failed

# Jobs that end when a test says so, by a file in their directory.
WAIT = "while not os.path.exists('go'): time.sleep(0.01)"
STARTED = f"""
import os, time
with open("started", "a") as file:
    print(os.environ["ERA_GPUS"], file=file)
{WAIT}
"""
STUBBORN = f"""
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: open("asked to stop", "w").close())
open("started", "w").close()
{WAIT}
"""


async def until(question: Callable[[], Awaitable[T]]) -> T:
    """The first answer that is true."""
    give_up = time.monotonic() + PATIENCE
    while not (answer := await question()):
        assert time.monotonic() < give_up, "waited too long"
        await asyncio.sleep(0.02)
    return answer


@dataclass
class World:
    """All that the reconciler deals with."""

    folder: Path
    clock: Clock = field(default_factory=lambda: Clock(-(-int(time.time()) // SLOT) * SLOT))
    jumped: int = 0
    """Seconds by which the clock was set, or stood still, in all."""
    no_show: int = 0

    def __post_init__(self) -> None:
        # The clock is that of today: what happens must not hang on the prices of the hour.
        self.market = open_market(self.folder, self.clock, algorithm="basic-econ", peak_load=0)
        self.homes = self.folder / "homes"
        self.served = SmallHub(self.spawn)
        self.hub = Hub(self.served.url, TOKEN)
        self.restart()

    def restart(self) -> None:
        """Forget what is only in memory, as a restarted service does."""
        self.cloud = LocalCloud(
            system_users=False,
            home_root=str(self.homes),
            simulated_gpus=8,
            stop_on_exit=True,
        )
        self.reconciler = Reconciler(
            market=self.market,
            database=self.market.database,
            cloud=self.cloud,
            hub=self.hub,
            clock=self.clock,
            interval=3600,
            lease=LEASE,
            grace=60,
            log=logging.getLogger(__name__),
            monotonic=lambda: float(self.clock.now - self.jumped),
            no_show=self.no_show,
        )

    def jump(self, seconds: int) -> None:
        """The machine sleeps for so long, or its clock is set."""
        self.clock.now += seconds
        self.jumped += seconds

    async def spawn(self, _user: str, _name: str, options: dict[str, Any]) -> None:
        """As the hub's spawner does: the reservation is claimed when the server starts."""
        await self.call("claim", options["reservation"])

    async def close(self) -> None:
        await self.cloud.close()
        await self.hub.close()
        await self.served.close()
        self.market.database.close()

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the market on its thread."""
        return await self.market.database.run(getattr(self.market, method), *args, **kwargs)

    async def passes(self, count: int = 1) -> None:
        for _ in range(count):
            await self.reconciler.run_once()

    async def reserve(
        self, request: Any, user: str = "ann", starts_in: int | None = None
    ) -> Reservation:
        """A reservation of the request's duration, now or later."""
        if starts_in is not None:
            arrival = self.clock.now + starts_in
            window = {"arrival": when(arrival), "deadline": when(arrival + request.duration)}
            request = request.model_copy(update=window)
        verdict = await self.call("reserve", user, request)
        assert verdict.reservation is not None, verdict.reason
        return verdict.reservation

    async def see(self, reservation: Reservation) -> Reservation:
        return await self.call("reservation", reservation.id)

    async def see_job(self, reservation: Reservation) -> Job:
        return await self.call("job", reservation.id)

    async def balance(self, user: str = "ann") -> int:
        return (await self.call("statement", user)).balance

    async def busy(self) -> set[str]:
        """Reservations whose time it is, and those that still have a workload."""
        return {each.reservation.id for each in await self.call("due")}

    def directory(self, reservation: Reservation) -> Path:
        return self.homes / reservation.user / "era-jobs" / reservation.id

    async def wrote(self, reservation: Reservation, name: str) -> str:
        """What a job has written to a file, once it is there."""
        path = self.directory(reservation) / name

        async def there() -> bool:
            return path.exists()

        await until(there)
        return path.read_text()

    def let_go(self, reservation: Reservation) -> None:
        """Let a waiting job end."""
        (self.directory(reservation) / "go").touch()

    async def process_gone(self, reservation: Reservation) -> None:
        async def gone() -> bool:
            status = await self.cloud.status(reservation.id, reservation.user)
            return status.phase is Phase.ENDED

        await until(gone)

    async def running(
        self, script: str = STARTED, user: str = "ann", **options: Any
    ) -> Reservation:
        """A job that runs."""
        made = await self.reserve(job(script=script, **options), user)
        await self.passes()
        await self.wrote(made, "started")
        return await self.see(made)

    async def serving(
        self, user: str = "ann", name: str = "", gpus: int = 1, hours: float = 1
    ) -> Reservation:
        """A notebook that runs."""
        made = await self.reserve(notebook(gpus, hours, server_name=name), user)
        await self.passes()
        found = await self.see(made)
        assert found.state is State.ACTIVE
        return found

    def stored(self) -> list[str]:
        """All that is in the database."""
        with sqlite3.connect(self.folder / "era.sqlite") as connection:
            return list(connection.iterdump())
