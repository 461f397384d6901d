"""Several replicas on one PostgreSQL: how long until writes resume when the writer dies?

    python -m benchmarks.takeover --rounds 30 --replicas 3

Clients reserve, extend and cancel at all replicas. In each round the one that writes is
killed, or with `--freeze` stopped as a virtual machine that is being moved, and the seconds
until the next change is answered are taken; then it comes back as a follower. In the end
what the clients were told is held against what the service says.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from tests.running_hub import until
from tests.running_service import RunningService

from .bidders import Bidder, Tally, most_sold
from .stage import Stage, Store, audit, heading, open_store, quantile, table

GRANT = 20_000
PATIENCE = 90.0
GOAL = 5.0


def main() -> None:
    """Start everything, take writers away, and print a report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--freeze", action="store_true", help="stop writers, and wake them later")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between a client's calls")
    options = parser.parse_args()
    settings = {"EraHub.rate": 0, "EraHub.starting_grant": str(GRANT)}
    with (
        open_store("postgresql") as store,
        Stage(store.folder / "hub", options.clients) as stage,
        ExitStack() as stack,
    ):
        replicas = [
            stack.enter_context(
                RunningService(stage, store.url, settings, options.gpus, replica=number)
            )
            for number in range(options.replicas)
        ]
        sound = _run(stage, store, replicas, options)
    raise SystemExit(0 if sound else 1)


def _run(
    stage: Stage, store: Store, replicas: list[RunningService], options: argparse.Namespace
) -> bool:
    tally = Tally()
    dice = random.Random(options.seed)
    bidders = []
    for number in range(options.clients):
        # Each begins at another replica.
        turned = number % len(replicas)
        urls = [each.url for each in (*replicas[turned:], *replicas[:turned])]
        bidders.append(Bidder(stage, urls, number, tally, options.seed, options.pause))
    for each in bidders:
        each.start()
    gaps: list[float] = []
    begin = time.monotonic()
    for _ in track(range(options.rounds), "Taking writers away", console=Console(stderr=True)):
        time.sleep(dice.uniform(1, 3))
        writer = _writer(store, replicas)
        if options.freeze:
            writer.freeze()
        else:
            writer.kill()
        seconds = tally.wait_for_write(time.monotonic(), PATIENCE)
        if seconds is None:
            raise SystemExit(f"no write for {PATIENCE} s after the end of {writer.name}")
        gaps.append(seconds)
        if options.freeze:
            time.sleep(1)
            writer.thaw()
        else:
            writer.start(wait=False)
        until(writer.healthy, PATIENCE, writer.name)
    for each in bidders:
        each.ending.set()
    for each in bidders:
        each.join()
    return _report(stage, store, replicas, bidders, tally, gaps, begin, options)


def _writer(store: Store, replicas: list[RunningService]) -> RunningService:
    """The replica that writes, as PostgreSQL knows it."""
    import psycopg

    def found() -> RunningService | None:
        with psycopg.connect(store.url) as connection:
            row = connection.execute("SELECT address FROM writers").fetchone()
        port = row and urlsplit(row[0]).port
        return next((each for each in replicas if each.port == port), None)

    writer = until(found, PATIENCE, "a writer")
    assert writer is not None
    return writer


def _report(
    stage: Stage,
    store: Store,
    replicas: list[RunningService],
    bidders: list[Bidder],
    tally: Tally,
    gaps: list[float],
    begin: float,
    options: argparse.Namespace,
) -> bool:
    seconds = time.monotonic() - begin
    url = _writer(store, replicas).url
    wrong: Counter[str] = Counter()
    for each in bidders:
        wrong.update(each.check(url, stage.tokens[each.user], GRANT * 1_000_000))
    most = most_sold(stage, url)
    for service in replicas:
        service.stop()
    books = audit(store.url)
    print(heading())
    what = "frozen" if options.freeze else "killed with SIGKILL"
    rows = [
        ("replicas", len(replicas)),
        (f"writers {what}", len(gaps)),
        ("calls answered", f"{tally.kinds.total():,} in {seconds:.0f} s"),
        ("seconds until writes resume, p50", f"{quantile(gaps, 0.5):.2f}"),
        ("p90, longest", f"{quantile(gaps, 0.9):.2f}, {max(gaps):.2f} (goal: {GOAL:.0f})"),
        ("accepted, but missing", wrong["missing"]),
        ("there, but accepted by no answer", wrong["of nobody"]),
        ("in another state, at another price", f"{wrong['wrong state']}, {wrong['wrong price']}"),
        ("accounts with another balance", wrong["wrong balance"]),
        ("other wrong answers", len(tally.wrong)),
        ("most GPUs sold at once", f"{most} of {options.gpus}"),
        ("findings of era-hub audit", f"{len(books['findings'])} ({books['took']} s)"),
    ]
    print(table(rows))
    print("answers:", dict(sorted(tally.kinds.items())), dict(sorted(tally.statuses.items())))
    for text in tally.wrong[:20]:
        print("WRONG", text[:300])
    for finding in books["findings"][:20]:
        print("AUDIT", finding)
    sys.stdout.flush()
    return not (wrong.total() or tally.wrong or books["findings"]) and most <= options.gpus


if __name__ == "__main__":
    main()
