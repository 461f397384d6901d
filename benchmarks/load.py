"""How many reservations and quotes a second the service answers, and how fast.

    python -m benchmarks.load --store postgresql

starts a hub with the market, and clients that keep it busy from processes of their own
on the same machine: first as fast as they get answers, then at a fixed rate, where the
time of an answer counts from the moment at which its request was due. Reservations are
durable: PostgreSQL and SQLite wait for the disk at every commit.
"""

from __future__ import annotations

import http.client
import json
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from tqdm import tqdm

USERS = 100
GPUS = 4096
PATH = "/services/era/api/v1/"
WARM_UP = 2.0
"""Seconds before the measurement, in which connections open and caches fill."""


@dataclass
class Order:
    """What one process of clients is to do."""

    port: int
    kind: str
    tokens: list[str]
    connections: int
    seconds: float
    rate: float | None
    seed: int


@dataclass
class Figures:
    """What came back: answers by status, and seconds until each."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: int = 0
    latencies: list[float] = field(default_factory=list)
    cpu: float = 0.0
    """Seconds of the service's processor time for one request."""

    def add(self, other: Figures) -> None:
        self.seconds = max(self.seconds, other.seconds)
        self.statuses += other.statuses
        self.accepted += other.accepted
        self.latencies += other.latencies

    @property
    def good(self) -> int:
        return sum(count for status, count in self.statuses.items() if status == 200)

    def row(self) -> dict[str, Any]:
        """Rates per second and milliseconds."""
        p50, p99 = np.percentile(self.latencies or [0], [50, 99]) * 1000
        return {
            "per_second": round(self.good / self.seconds, 1),
            "p50_ms": round(float(p50), 1),
            "p99_ms": round(float(p99), 1),
            "cpu_ms": round(self.cpu * 1000, 2),
            "accepted": self.accepted,
            "failed": sum(self.statuses.values()) - self.good,
        }


def bodies(kind: str, seed: int) -> Iterator[dict[str, Any]]:
    """Requests of all sizes for the coming days, which follow from the seed."""
    rng = random.Random(seed)
    now = datetime.now(UTC)
    while True:
        begin = now + timedelta(seconds=rng.randrange(3600, 12 * 86_400))
        body: dict[str, Any] = {
            "configuration": f"gpu-{rng.choice([1, 1, 1, 2, 4])}",
            "duration": rng.choice([1800, 3600, 3600, 7200]),
            "arrival": begin.isoformat(),
            "deadline": (begin + timedelta(hours=rng.choice([3, 6, 24]))).isoformat(),
        }
        if kind == "reservations":
            body |= {"value": 10**9, "server_name": uuid.UUID(int=rng.getrandbits(128)).hex[:12]}
        yield body


def drive(order: Order) -> Figures:
    """One process: its connections, each on a thread, one request at a time."""
    begin = time.perf_counter() + 0.5
    with ThreadPoolExecutor(order.connections) as pool:
        found = list(pool.map(lambda i: _connection(order, i, begin), range(order.connections)))
    total = Figures()
    for each in found:
        total.add(each)
    return total


def _connection(order: Order, number: int, begin: float) -> Figures:
    found = Figures(order.seconds)
    connection = http.client.HTTPConnection("127.0.0.1", order.port, timeout=60)
    source = bodies(order.kind, 1000 * order.seed + number)
    token = order.tokens[(order.seed * order.connections + number) % len(order.tokens)]
    headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
    pause = order.connections / order.rate if order.rate else 0.0
    due = begin + number * pause / order.connections
    end = begin + WARM_UP + order.seconds
    while True:
        now = time.perf_counter()
        if due > now:
            time.sleep(due - now)
        if max(due, now) >= end:
            return found
        sent = due if pause else now
        body = json.dumps(next(source))
        if order.kind == "reservations":
            headers["Idempotency-Key"] = uuid.uuid4().hex
        connection.request("POST", PATH + order.kind, body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if sent >= begin + WARM_UP:
            found.statuses[answer.status] += 1
            found.accepted += b'"accepted":true' in said
            found.latencies.append(time.perf_counter() - sent)
        due = due + pause if pause else 0.0


def measure(
    service: Service, kind: str, seconds: float, rate: float | None, connections: int = 16
) -> Figures:
    """All processes together."""
    processes = 2
    orders = [
        Order(
            service.port,
            kind,
            service.tokens,
            max(1, connections // processes),
            seconds,
            rate and rate / processes,
            time.time_ns() + i,
        )
        for i in range(processes)
    ]
    total, before = Figures(), service.cpu()
    with ProcessPoolExecutor(processes) as pool:
        for each in pool.map(drive, orders):
            total.add(each)
    # Of all requests, with those of the warm-up.
    asked = max(1, sum(total.statuses.values())) * (seconds + WARM_UP) / seconds
    total.cpu = (service.cpu() - before) / asked
    return total


def store_until(service: Service, wanted: int) -> None:
    """Make reservations until so many are stored."""
    with tqdm(total=wanted, unit="reservation", desc=f"storing {wanted:,}", leave=False) as bar:
        while bar.n < wanted:
            made = measure(service, "reservations", min(20, 1 + (wanted - bar.n) / 300), None)
            if not made.accepted:
                raise click.ClickException(f"nothing was accepted: {made.statuses}")
            bar.update(made.accepted)


@dataclass
class Service:
    """A running service, and tokens of its users."""

    process: psutil.Process
    port: int
    tokens: list[str]

    def cpu(self) -> float:
        """Seconds of processor time until now."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def open_service(stack: ExitStack, store: str, folder: Path) -> Service:
    """A hub with the market on a durable store."""
    from tests.postgres import PostgresServer, find_postgres
    from tests.running_hub import RunningHub

    options: dict[str, Any] = {"EraHub.rate": 0, "EraHub.starting_grant": "1000000000"}
    # As services are, and not as tests want them, which wait for what the reconciler does.
    options |= {"EraHub.interval": 1.0, "Pool.predictor": "blend"}
    if store == "postgresql":
        programs = find_postgres()
        if programs is None:
            raise click.ClickException("no PostgreSQL server: install the package postgresql")
        server = PostgresServer(programs, durable=True)
        stack.callback(server.close)
        url = server.url(server.create())
        options["EraHub.db_url"] = url.render_as_string(hide_password=False)
    hub = stack.enter_context(RunningHub(folder / "hub", gpus=GPUS, options=options))
    tokens = [hub.user_token(f"user{i}") for i in range(USERS)]
    port = int((hub.folder / "port").read_text())
    return Service(psutil.Process(hub.service_pid()), port, tokens)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--store", type=click.Choice(["sqlite", "postgresql"]), default="postgresql")
@click.option("--seconds", default=15.0, show_default=True, help="Of each measurement.")
@click.option("--stored", default="0", show_default=True, help="Reservations stored before each.")
@click.option("--reservations", default=300.0, show_default=True, help="A second, fixed rate.")
@click.option("--quotes", default=1000.0, show_default=True, help="A second, fixed rate.")
@click.option(
    "--connections", default=16, show_default=True, help="Open at once, in two processes."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(
    store: str,
    seconds: float,
    stored: str,
    reservations: float,
    quotes: float,
    connections: int,
    as_json: bool,
) -> None:
    folder, rows, made = Path(tempfile.mkdtemp(prefix="era-load-")), [], 0
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        service = open_service(stack, store, folder)
        for wanted in map(int, stored.split(",")):
            store_until(service, wanted - made)
            made = max(made, wanted)
            for kind, fixed in (("quotes", quotes), ("reservations", reservations)):
                for rate in (None, fixed):
                    found = measure(service, kind, seconds, rate, connections)
                    made += found.accepted
                    row = {"store": store, "stored": wanted, "kind": kind, "rate": rate or "most"}
                    rows.append(row | found.row())
                    print(rows[-1], file=sys.stderr)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
