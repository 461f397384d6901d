"""Kill the service again and again under load: what is lost, what is charged twice?

    python -m benchmarks.crash --kills 500 --store postgresql

Clients make reservations, extend and cancel them, each call with an idempotency key, and
repeat it until they have an answer. Meanwhile the service is killed with SIGKILL at random
moments, some of them while it starts, and started again at once. Once PostgreSQL is stopped
as in a crash, and once the disk is full. In the end what the clients were told is held
against what the service says, and `era-hub audit` proves the books.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import track

from tests.running_hub import until
from tests.running_service import RunningService

from .bidders import Bidder, Tally, most_sold
from .stage import STORES, Api, Stage, Store, audit, heading, open_store, quantile, table

GRANT = 20_000
PATIENCE = 60.0


@dataclass
class Faults:
    """What was done to the service, and how it took that."""

    gaps: list[float] = field(default_factory=list)
    """Seconds from each SIGKILL to the next answered change."""
    starting: int = 0
    restart: float | None = None
    refused: int = 0
    full: float | None = None
    oversold: int = 0
    looks: int = 0


class Killer:
    """Does one fault after the other to a service under load."""

    def __init__(
        self, stage: Stage, service: RunningService, store: Store, tally: Tally, seed: int
    ) -> None:
        self.service = service
        self.store = store
        self.tally = tally
        self.random = random.Random(seed)
        self.faults = Faults()
        self.admin = Api([service.url], stage.tokens["admin"])

    def kill(self) -> None:
        """Kill it, now and then once more while it starts, and wait for the next write."""
        time.sleep(self.random.uniform(0.02, 0.6))
        self.service.kill()
        begin = time.monotonic()
        self.service.start(wait=False)
        if self.random.random() < 0.1:
            time.sleep(self.random.uniform(0, 3))
            self.service.kill()
            self.faults.starting += 1
            begin = time.monotonic()
            self.service.start(wait=False)
        self.faults.gaps.append(self._next_write(begin))
        self._look()

    def restart_postgres(self) -> None:
        """Stop PostgreSQL as in a crash, for a second."""
        assert self.store.postgres is not None
        self.store.postgres.stop()
        begin = time.monotonic()
        time.sleep(1)
        self.store.postgres.start()
        self.faults.restart = self._next_write(begin) - 1

    def fill_disk(self) -> None:
        """Leave no room for three seconds, under load."""
        self.store.fill()
        begin = time.monotonic()
        while time.monotonic() < begin + 3:
            body = {"kind": "group", "name": "lab", "amount": 1_000_000, "memo": "x" * 500}
            status, _ = self.admin.call("POST", "admin/account/grant", body)
            self.faults.refused += status == 503
            if status not in (200, 503):
                self.tally.complain(f"{status} while the disk was full")
        self.store.free()
        self.faults.full = self._next_write(time.monotonic())

    def _next_write(self, begin: float) -> float:
        seconds = self.tally.wait_for_write(begin, PATIENCE)
        if seconds is None:
            raise SystemExit(f"no write for {PATIENCE} s; see {self.service._log}")
        return seconds

    def _look(self) -> None:
        end = time.monotonic() + PATIENCE
        status, market = self.admin.until_answered("GET", "market?hours=400", end)
        if status == 200:
            self.faults.looks += 1
            pairs = zip(market["promised"], market["capacity"], strict=True)
            self.faults.oversold += any(promised > there for promised, there in pairs)


def main() -> None:
    """Start everything, do the faults, and print a report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--disk",
        type=int,
        default=512,
        help="MiB of the disk that is filled up, for which one must be root; 0 for none",
    )
    options = parser.parse_args()
    settings = {"EraHub.rate": 0, "EraHub.starting_grant": str(GRANT)}
    with (
        open_store(options.store, options.disk) as store,
        Stage(store.folder / "hub", options.clients) as stage,
        RunningService(stage, store.url, settings, options.gpus) as service,
    ):
        sound = _run(stage, service, store, options)
    raise SystemExit(0 if sound else 1)


def _run(stage: Stage, service: RunningService, store: Store, options: argparse.Namespace) -> bool:
    tally = Tally()
    bidders = [
        Bidder(stage, [service.url], number, tally, options.seed)
        for number in range(options.clients)
    ]
    for each in bidders:
        each.start()
    killer = Killer(stage, service, store, tally, options.seed)
    begin = time.monotonic()
    console = Console(stderr=True)
    for number in track(range(options.kills), "Killing", console=console):
        if number == options.kills // 3 and store.postgres is not None:
            killer.restart_postgres()
        if number == options.kills * 2 // 3 and store.disk is not None:
            killer.fill_disk()
        killer.kill()
    for each in bidders:
        each.ending.set()
    for each in bidders:
        each.join()
    seconds = time.monotonic() - begin
    until(service.healthy, PATIENCE, "the service")
    return _report(stage, service, store, bidders, tally, killer.faults, seconds, options)


def _report(
    stage: Stage,
    service: RunningService,
    store: Store,
    bidders: list[Bidder],
    tally: Tally,
    faults: Faults,
    seconds: float,
    options: argparse.Namespace,
) -> bool:
    wrong: Counter[str] = Counter()
    for each in bidders:
        wrong.update(each.check(service.url, stage.tokens[each.user], GRANT * 1_000_000))
    most = most_sold(stage, service.url)
    service.stop()
    books = audit(store.url)
    gaps = faults.gaps
    made = sum(len(each.known) for each in bidders)
    cancelled = sum(known.cancelled for each in bidders for known in each.known.values())
    extended = sum(known.extensions for each in bidders for known in each.known.values())
    print(heading())
    rows = [
        ("store", options.store),
        ("kills, of them while starting", f"{len(gaps)} + {faults.starting}"),
        ("calls answered", f"{tally.kinds.total():,} in {seconds:.0f} s"),
        ("reservations, extensions, cancellations", f"{made:,}, {extended:,}, {cancelled:,}"),
        ("SIGKILL to the next write, p50", f"{quantile(gaps, 0.5):.1f} s"),
        ("p99, longest", f"{quantile(gaps, 0.99):.1f} s, {max(gaps):.1f} s"),
        ("PostgreSQL back to the next write", _seconds(faults.restart)),
        (
            "disk full: refused with 503, room to the next write",
            f"{faults.refused}, {_seconds(faults.full)}",
        ),
        ("accepted, but missing", wrong["missing"]),
        ("there, but accepted by no answer", wrong["of nobody"]),
        ("in another state, at another price", f"{wrong['wrong state']}, {wrong['wrong price']}"),
        ("accounts with another balance", wrong["wrong balance"]),
        ("other wrong answers", len(tally.wrong)),
        (
            "most GPUs sold at once",
            f"{most} of {options.gpus}; {faults.oversold} of {faults.looks} looks found too many",
        ),
        ("findings of era-hub audit", f"{len(books['findings'])} ({books['took']} s)"),
    ]
    print(table(rows))
    print("answers:", dict(sorted(tally.kinds.items())), dict(sorted(tally.statuses.items())))
    for text in tally.wrong[:20]:
        print("WRONG", text[:300])
    for each in books["findings"][:20]:
        print("AUDIT", each)
    sys.stdout.flush()
    clean = not (wrong.total() or tally.wrong or books["findings"] or faults.oversold)
    return clean and most <= options.gpus


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


if __name__ == "__main__":
    main()
