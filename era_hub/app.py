"""The service: a traitlets Application on Tornado."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from jupyterhub.services.auth import HubOAuth
from jupyterhub.utils import url_path_join
from tornado.httpserver import HTTPServer
from tornado.web import Application as WebApplication
from traitlets import Float, Integer, Type, Unicode, default
from traitlets.config import Application, catch_config_error

from era_pricing.predictors import SeenRequest

from . import __version__
from .api import ROUTES, pattern
from .api.base import BODY_LIMIT, NotFoundHandler
from .api.openapi import document
from .clouds.base import Cloud
from .clouds.local import LocalCloud
from .hub import Hub
from .market import Market
from .plugins import ConfigurationError
from .pool import Pool, amount
from .reconciler import Reconciler
from .store.database import Database
from .store.demand import Demand
from .web import page_routes

# Larger bodies are cut off unread; up to here they get an answer that says so.
TRANSPORT_LIMIT = 8 * BODY_LIMIT


@dataclass
class Services:
    """The parts of a running service that requests use."""

    database: Database
    market: Market
    cloud: Cloud
    reconciler: Reconciler


class EraHub(Application):
    """The market as a JupyterHub service.

    Started by the hub (see `era_hub.setup`), which hands over URL and tokens in
    the environment.
    """

    name = "era-hub"
    version = __version__
    description = "A market for GPU time: the JupyterHub service."
    examples = "era-hub serve --config=/etc/jupyterhub/era_hub_config.py"

    config_file = Unicode("", help="Configuration file to load (Python or JSON).").tag(config=True)

    state_dir = Unicode("era", help="Folder of the embedded database.").tag(config=True)

    db_url = Unicode(help="SQLAlchemy URL of the database; default: SQLite in `state_dir`.").tag(
        config=True
    )

    @default("db_url")
    def _default_db_url(self) -> str:
        return f"sqlite:///{Path(self.state_dir).absolute() / 'era.sqlite'}"

    cloud_class: type[Cloud] = Type(
        LocalCloud,
        klass=Cloud,
        help="What runs the jobs; `LocalCloud` runs them as processes of this machine.",
    ).tag(config=True)  # type: ignore[assignment]

    starting_grant = Unicode("100", help="Credits on a new user's account.").tag(config=True)

    interval = Float(
        1.0, help="Seconds between two passes of the reconciler, which starts and ends workloads."
    ).tag(config=True)

    lease = Integer(
        120,
        help="Seconds for which a reservation may be without its notebook server, as when the "
        "hub restarts, before the rest of it is released.",
    ).tag(config=True)

    grace = Integer(
        30,
        help="Seconds between a job's SIGTERM and its end; at most a quarter of its time.",
    ).tag(config=True)

    classes = [Pool, LocalCloud, HubOAuth]

    aliases = {"config": "EraHub.config_file"}

    @catch_config_error
    def initialize(self, argv: list[str] | None = None) -> None:
        """Read the command line, then the configuration file below it."""
        self.parse_command_line(argv)
        if self.config_file:
            given = self.cli_config
            self.load_config_file(self.config_file)
            self.update_config(given)

    def start(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        try:
            asyncio.run(self.serve())
        except ConfigurationError as error:
            self.log.critical("Wrong configuration: %s", error)
            self.exit(1)

    async def serve(self) -> None:
        """Open the database, rebuild the plan, serve and reconcile."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        services, hub = await self.build()
        server = HTTPServer(self.web_application(services), max_body_size=TRANSPORT_LIMIT)
        listen = urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
        server.listen(listen.port or 80, listen.hostname or "127.0.0.1")
        loop = asyncio.create_task(services.reconciler.run())
        self.log.info("ERA Hub %s serves at %s", __version__, listen.geturl())
        await stop.wait()
        server.stop()
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop
        await services.cloud.close()
        await services.reconciler.settle_jobs()
        await hub.close()
        services.database.close()

    async def build(self) -> tuple[Services, Hub]:
        """The parts of the service, with the plan rebuilt from the database."""
        cloud = self.cloud_class(parent=self)
        pool = Pool(parent=self)
        database = Database(self.db_url)
        for_sale = pool.for_sale(len(cloud.gpus))
        grant = amount("EraHub.starting_grant", self.starting_grant)
        await database.run(database.migrate)
        past = await database.run(self._past, database, pool)
        market = Market(
            database=database,
            era=pool.build(len(cloud.gpus), for_sale, clock, past),
            configurations=for_sale,
            pool=pool.name,
            gpus=[gpu.index for gpu in cloud.gpus],
            grant=grant,
            clock=clock,
        )
        try:
            await database.run(market.rebuild)
        except ValueError as error:
            raise ConfigurationError(
                f"Pool.slot can't change while reservations are open: {error}"
            ) from None
        await database.run(market.honour)
        kind = "simulated " if cloud.simulated else ""
        self.log.info("Pool %s: %d %sGPUs", pool.name, len(cloud.gpus), kind)
        hub = Hub(os.environ["JUPYTERHUB_API_URL"], os.environ["JUPYTERHUB_API_TOKEN"])
        reconciler = Reconciler(
            market, database, cloud, hub, clock, self.interval, self.lease, self.grace, self.log
        )
        return Services(database, market, cloud, reconciler), hub

    def _past(self, database: Database, pool: Pool) -> list[SeenRequest]:
        with database.session.begin() as session:
            return Demand(session, pool.name, pool.resource).recall(clock())

    def web_application(self, services: Services) -> WebApplication:
        """All routes below the service's prefix."""
        auth = HubOAuth.instance(parent=self, cache_max_age=60)
        prefix = auth.base_url
        root = url_path_join(prefix, "api/v1/")
        routes: list[Any] = [(root + pattern(path), handler) for path, handler in ROUTES]
        routes += [(url_path_join(prefix, "api/") + ".*", NotFoundHandler)]
        routes += page_routes(prefix)
        return WebApplication(
            routes,
            services=services,
            openapi=document(ROUTES, root),
            prefix=prefix,
            cookie_secret=secrets.token_bytes(32),
            log_function=self._log_request,
        )

    def _log_request(self, handler: Any) -> None:
        status, request = handler.get_status(), handler.request
        # The path only: a query may hold what nobody should find in a log.
        level = self.log.debug if status < 400 else self.log.warning
        spent = 1000 * request.request_time()
        level("%d %s %s %.1f ms", status, request.method, request.path, spent)


def clock() -> int:
    """UTC seconds now."""
    return int(time.time())
