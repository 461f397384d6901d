"""Random operations of many clients at once: do the books add up in the end?

    python -m benchmarks.books --operations 200000 --clients 16 --store postgresql

Clients quote, reserve, claim, extend, cancel and release, submit jobs, and as admins grant
and withdraw credits and set quotas, policies, prices and capacity, all through the HTTP API
of a real service. Then `era-hub audit` proves the books, and every balance is computed once
more from what the clients were answered, without a look into the database.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from era_hub.admin_models import AccountLine
from era_hub.client import EraClient
from era_hub.client.admin import AdminClient
from tests.running_service import RunningService

from .operations import CREDIT, Book, Player
from .stage import STORES, Stage, audit, heading, open_store, quantile, table

GRANT = 300


def main() -> None:
    """Start everything, let the clients work, and print a report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = {"EraHub.rate": 0, "EraHub.starting_grant": str(GRANT), "EraHub.lease": 20}
    with (
        open_store(options.store) as store,
        Stage(store.folder / "hub", options.clients) as stage,
        RunningService(stage, store.url, settings, options.gpus) as service,
    ):
        book = Book()
        for user in stage.users:
            with EraClient(service.url, stage.tokens[user]) as client:
                client.account()
            book.give("user", user, GRANT * CREDIT)
        begin = time.monotonic()
        _play(stage, service, book, options)
        seconds = time.monotonic() - begin
        differences = _compare(stage, service, book)
        service.stop()
        books = audit(store.url)
        print(heading())
        _report(book, options, seconds, differences, books)
    wrong = differences or book.wrong or books["findings"]
    raise SystemExit(1 if wrong else 0)


def _play(stage: Stage, service: RunningService, book: Book, options: argparse.Namespace) -> None:
    players = [
        Player(stage, service.url, number, book, options.seed) for number in range(options.clients)
    ]
    left = options.operations
    lock = threading.Lock()

    def play(player: Player) -> None:
        nonlocal left
        while True:
            with lock:
                if left <= 0:
                    return
                left -= 1
            player.play()

    threads = [threading.Thread(target=play, args=(each,), daemon=True) for each in players]
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:.0f}/s"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=options.operations, rate=0.0)
        begin = time.monotonic()
        for each in threads:
            each.start()
        while any(each.is_alive() for each in threads):
            done = options.operations - left
            rate = done / (time.monotonic() - begin)
            progress.update(task, completed=done, rate=rate)
            time.sleep(0.5)
        progress.update(task, completed=options.operations)
    for each in players:
        each.close()


def _compare(stage: Stage, service: RunningService, book: Book) -> list[str]:
    """What the service has that does not follow from what the clients were answered."""
    found: list[str] = []
    with AdminClient(service.url, stage.tokens["admin"]) as admin:
        accounts = _accounts(admin)
        while True:
            there = {each.id: each for each in admin.reservations(everybody=True)}
            before, accounts = accounts, _accounts(admin)
            if accounts == before:
                break  # no server or job has ended while all this was read
    for name in book.made.keys() ^ there.keys():
        found.append(f"reservation {name} is known to one side only")
    held = paid = 0
    for name, made in book.made.items():
        row = there.get(name)
        if row is None:
            continue
        if row.price != made.price:
            found.append(f"reservation {name} costs {row.price}, not {made.price}")
        refunded = made.refunded
        if name in book.broken:
            refunded = made.price
        elif refunded is None and row.state.final:
            # Its time was over, or it could not be started: no client was told.
            book.ended += 1
            refunded = row.refunded
        if row.state.final != (refunded is not None) or row.refunded != (refunded or 0):
            found.append(f"reservation {name} is {row.state}, {row.refunded} back, not {refunded}")
        book.move(*made.payer, -made.price + (refunded or 0))
        held += made.price if refunded is None else 0
        paid += made.price - refunded if refunded is not None else 0
    book.balances["system", "escrow"], book.balances["system", "revenue"] = held, paid
    book.balances["system", "bank"] = -book.given
    for key in book.balances.keys() | accounts.keys():
        balance = accounts[key].balance if key in accounts else 0
        if balance != book.balances[key]:
            found.append(f"{' '.join(key)} has {balance}, not {book.balances[key]}")
    return found


def _accounts(admin: AdminClient) -> dict[tuple[str, str], AccountLine]:
    found: list[AccountLine] = []
    for kind in ("user", "group", "system"):
        after = None
        while True:
            page = admin.all_accounts(kind=kind, limit=1000, after=after)
            found += page.items
            after = page.next
            if after is None:
                break
    return {(each.kind, each.name): each for each in found}


def _report(
    book: Book,
    options: argparse.Namespace,
    seconds: float,
    differences: list[str],
    books: dict[str, Any],
) -> None:
    made = len(book.made)
    total = book.statuses.total()
    failed = sum(count for status, count in book.statuses.items() if status >= 500)
    rows = [
        ("store", options.store),
        ("requests, all by HTTP", f"{total:,} in {seconds:.0f} s, {total / seconds:.0f} a second"),
        (
            "latency p50, p99",
            f"{1000 * quantile(book.seconds, 0.5):.0f} ms, "
            f"{1000 * quantile(book.seconds, 0.99):.0f} ms",
        ),
        ("reservations and jobs made", f"{made:,}"),
        ("of them broken by admins, ended by time", f"{len(book.broken):,}, {book.ended:,}"),
        ("answers of 5xx", failed),
        ("other wrong answers", len(book.wrong) - failed),
        ("accounts and reservations that differ from the answers", len(differences)),
        ("findings of era-hub audit", f"{len(books['findings'])} ({books['took']} s)"),
    ]
    print(table(rows))
    kinds: Counter[str] = book.kinds
    print("\n| operation | done | refused |\n|---|---|---|")
    for kind in sorted({each.removesuffix(" refused") for each in kinds}):
        print(f"| {kind} | {kinds[kind]:,} | {kinds[f'{kind} refused']:,} |")
    print("\nanswers by status:", dict(sorted(book.statuses.items())))
    for text in [*book.wrong[:20], *differences[:20], *books["findings"][:20]]:
        print("WRONG", str(text)[:400])
    sys.stdout.flush()


if __name__ == "__main__":
    main()
