"""The service: a traitlets Application on Tornado."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from jupyterhub.utils import url_path_join
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.web import Application as WebApplication
from traitlets import Bool, Enum, Float, Integer, Type, Unicode, default
from traitlets.config import Application, catch_config_error

from era_pricing.predictors import SeenRequest

from . import __version__
from .api import ROUTES, pattern
from .api.base import BODY_LIMIT, NotFoundHandler
from .api.events import Streams
from .api.limits import RateLimit
from .api.login import Auth, common_secret
from .api.openapi import document
from .changes import Change, Changes
from .clouds.base import Cloud, CloudError
from .clouds.local import LocalCloud
from .hub import Hub
from .logs import FORMATTERS, enter_request, logging_config
from .market import Market
from .metrics import Metrics
from .nodes import Nodes
from .plugins import ConfigurationError
from .pool import Pool, amount
from .reconciler import Reconciler
from .replicas import Forwarding, Replica, reachable
from .store.database import Database
from .store.demand import Demand
from .store.election import Writer
from .upkeep import Upkeep
from .web import page_routes

# Larger bodies are cut off unread; up to here they get an answer that says so.
TRANSPORT_LIMIT = 8 * BODY_LIMIT

BODY_SECONDS = 60.0
"""Seconds for the body of a request to arrive."""


@dataclass
class Services:
    """The parts of a running service that requests use."""

    database: Database
    market: Market
    cloud: Cloud
    reconciler: Reconciler
    upkeep: Upkeep
    replica: Replica
    forwarding: Forwarding
    changes: Changes
    metrics: Metrics
    limits: RateLimit
    streams: Streams
    hub: Hub


class Web(WebApplication):
    """Names each request before anything is done for it."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        enter_request(request.headers.get("X-Request-ID"))
        return super().find_handler(request, **kwargs)


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
        help="""What runs the jobs. `LocalCloud` runs them as processes of this machine,
        `era_hub.clouds.kubernetes.cloud.KubernetesCloud` as Jobs of a cluster; its options
        are in docs/reference/kubernetes.md.""",
    ).tag(config=True)  # type: ignore[assignment]

    starting_grant = Unicode("100", help="Credits on a new user's account.").tag(config=True)

    interval = Float(
        1.0, help="Seconds between two passes of the reconciler, which starts and ends workloads."
    ).tag(config=True)

    no_show = Integer(
        0,
        min=0,
        help="Seconds after the start of a notebook's reservation in which its server must have "
        "started; then what is left is released, by the rule for refunds. 0: until its end.",
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

    log_format = Enum(  # type: ignore[assignment]
        sorted(FORMATTERS),
        "text",
        help="`text` for people, or `json`: one object a line. Both name the request that a "
        "line is about, as the header X-Request-ID does.",
    ).tag(config=True)

    rate = Float(
        50.0,
        min=0,
        help="Requests a second that one user may make in the long run; 0 for no limit. "
        "Services, such as the spawner, have none.",
    ).tag(config=True)

    burst = Integer(200, min=1, help="Requests that one user may make at once.").tag(config=True)

    event_streams = Integer(
        10, min=1, help="Streams of events that one user may have open, such as pages."
    ).tag(config=True)

    keepalive = Float(
        15.0,
        min=0.1,
        help="Seconds of silence after which a stream of events says that it still is there: "
        "fewer than it takes any proxy on the way to cut it.",
    ).tag(config=True)

    login_check = Float(
        60.0,
        min=0.1,
        help="Seconds after which the hub is asked again whether the login of an open stream "
        "of events still holds.",
    ).tag(config=True)

    authenticate_prometheus = Bool(
        True,
        help="Whether the metrics need a token. Without, everybody who reaches the service "
        "reads them, save the sums of what was bid.",
    ).tag(config=True)

    admins_see_bids = Bool(
        False,
        help="Whether the market's admins see what each bid would have paid at most. By default "
        "they see sums over several bids.",
    ).tag(config=True)

    address = Unicode(
        help="URL at which other replicas on the same PostgreSQL reach this one, such as "
        "http://10.0.0.5:10101; default: where the service listens. They pass on to it what "
        "only the writer can do, with the logins of those who ask."
    ).tag(config=True)

    deposed_after = Float(
        10.0,
        min=2,
        help="Seconds without a sign after which another replica takes the writer's place: "
        "more than any transaction takes. One that has died is replaced at once.",
    ).tag(config=True)

    classes = [Pool, LocalCloud, Auth]

    aliases = {"config": "EraHub.config_file"}

    def get_default_logging_config(self) -> dict[str, Any]:
        """All loggers in one format, on standard error."""
        return logging_config(self.log_format, self.log_level, type(self).__name__)

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
        """Open the database, rebuild the plan, serve, and lead or follow."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        # The writer thread waits for the database a dozen times in each transaction. After each
        # it would have to wait, by default for 5 ms, for its turn again.
        sys.setswitchinterval(0.0005)
        services = await self.build()
        # What is there now stays: a full collection that went through all of it would keep
        # everybody waiting, for a tenth of a second every few seconds under load.
        gc.collect()
        gc.freeze()
        # So does what survives later: promises are kept for weeks. Smaller portions, sooner.
        gc.callbacks.append(_keep_survivors)
        gc.set_threshold(700, 10, 2)
        server = HTTPServer(
            self.web_application(services),
            max_body_size=TRANSPORT_LIMIT,
            body_timeout=BODY_SECONDS,
        )
        listen = urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
        server.listen(listen.port or 80, listen.hostname or "127.0.0.1")
        duties = (services.upkeep.run, services.reconciler.run)
        loops = [
            asyncio.create_task(services.replica.run(duties)),
            asyncio.create_task(self._tell_of_slots(services)),
            asyncio.create_task(Nodes(services.market, services.cloud, services.reconciler).run()),
        ]
        self.log.info("ERA Hub %s serves at %s", __version__, listen.geturl())
        await stop.wait()
        server.stop()
        await services.streams.close()
        for loop in loops:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop
        await services.cloud.close()
        if services.replica.leading:
            await services.reconciler.settle_jobs()
        await services.hub.close()
        await services.forwarding.close()
        await services.database.run(services.replica.writer.release)
        services.database.close()

    async def _tell_of_slots(self, services: Services) -> None:
        """Prices are others when a slot begins, though nobody has bid."""
        slot = services.market.era.grid.slot
        while True:
            await asyncio.sleep(slot - time.time() % slot)
            services.changes.publish(Change("prices"))

    async def build(self) -> Services:
        """The parts of the service, with the plan rebuilt from the database."""
        cloud = self.cloud_class(parent=self)
        try:
            await cloud.open()
        except CloudError as error:
            raise ConfigurationError(f"EraHub.cloud_class: {error}") from None
        pool = Pool(parent=self)
        database = Database(self.db_url)
        nodes = cloud.nodes
        for_sale = pool.for_sale(nodes)
        grant = amount("EraHub.starting_grant", self.starting_grant)
        changes = Changes()
        await database.run(database.migrate)
        writer = Writer(database, pool.name, self._address(database))
        sender = secrets.token_hex(8)
        replica = Replica(writer, sender, self.deposed_after, self.log)
        await replica.open()
        past, newest = await database.read(self._past, database, pool)
        market = Market(
            database=database,
            era=pool.build(nodes, for_sale, clock, past),
            configurations=for_sale,
            pool=pool.name,
            gpus=None if cloud.gpus is None else [gpu.index for gpu in cloud.gpus],
            nodes=nodes,
            grant=grant,
            clock=clock,
            changes=changes,
            begin=replica.begin,
            grace=self.grace,
        )
        try:
            await replica.enter(market, newest)
        except ValueError as error:
            raise ConfigurationError(
                f"Pool.slot can't change while reservations are open: {error}"
            ) from None
        kind = "simulated " if cloud.simulated else ""
        self.log.info("Pool %s: %d %sGPUs", pool.name, market.size, kind)
        hub = Hub(os.environ["JUPYTERHUB_API_URL"], os.environ["JUPYTERHUB_API_TOKEN"])
        reconciler = Reconciler(
            market,
            database,
            cloud,
            hub,
            clock,
            self.interval,
            self.lease,
            self.grace,
            self.log,
            no_show=self.no_show,
        )
        upkeep = Upkeep(market, database, clock, self.interval, self.log)
        return Services(
            database,
            market,
            cloud,
            reconciler,
            upkeep,
            replica,
            Forwarding(replica),
            changes,
            Metrics(),
            RateLimit(self.rate, self.burst),
            Streams(self.event_streams, self.keepalive, self.login_check),
            hub,
        )

    def _address(self, database: Database) -> str:
        """Where the other services reach this one; a file of SQLite has no others."""
        if database.dialect == "sqlite":
            return ""
        return reachable(self.address, os.environ["JUPYTERHUB_SERVICE_URL"])

    def _past(self, database: Database, pool: Pool) -> tuple[list[SeenRequest], int]:
        with database.reader.begin() as session:
            demand = Demand(session, pool.name, pool.resource)
            return demand.recall(clock()), demand.newest()

    def web_application(self, services: Services) -> WebApplication:
        """All routes below the service's prefix."""
        auth = Auth.instance(parent=self, cache_max_age=60)
        prefix = auth.base_url
        root = url_path_join(prefix, "api/v1/")
        routes: list[Any] = [(root + pattern(path), handler) for path, handler in ROUTES]
        routes += [(url_path_join(prefix, "api/") + ".*", NotFoundHandler)]
        routes += page_routes(prefix)
        self._routes = {handler: f"api/v1/{path}" for path, handler in ROUTES}
        self._measure = services.metrics.request
        return Web(
            routes,
            services=services,
            openapi=document(ROUTES, root),
            prefix=prefix,
            authenticate_prometheus=self.authenticate_prometheus,
            admins_see_bids=self.admins_see_bids,
            default_handler_class=NotFoundHandler,
            cookie_secret=common_secret("cookies"),
            log_function=self._log_request,
        )

    def _log_request(self, handler: Any) -> None:
        status, request = handler.get_status(), handler.request
        spent = request.request_time()
        route = self._routes.get(type(handler), "other")
        self._measure(request.method, route, status, spent)
        level = logging.DEBUG if status < 400 else logging.WARNING
        if not self.log.isEnabledFor(level):
            return
        # The path only: a query may hold what nobody should find in a log.
        facts = {"status": status, "method": request.method, "path": request.path}
        facts |= {"ms": round(1000 * spent, 1)}
        principal = getattr(handler, "principal", None)
        if principal is not None:
            facts["caller"] = principal.name
        text = "%d %s %s %.1f ms"
        self.log.log(level, text, status, request.method, request.path, facts["ms"], extra=facts)


def _keep_survivors(phase: str, info: dict[str, int]) -> None:
    """Spare the next full collection what the last one has gone through."""
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def clock() -> int:
    """UTC seconds now."""
    return int(time.time())
