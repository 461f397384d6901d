"""A moderate load for a while: do memory, files, threads and connections stay as they are?

    python -m benchmarks.soak --minutes 20 --store postgresql --plot soak.svg

Users and admins do what they do at some 20 requests a second, and streams of events come
and go. After a warm-up a straight line is laid through what was measured.
"""

from __future__ import annotations

import argparse
import http.client
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from era_hub.client import EraClient
from tests.running_service import RunningService

from .operations import Book, Player
from .stage import STORES, Stage, Store, audit, heading, open_store, quantile, table

EVERY = 5.0
"""Seconds between two looks at the service."""

WARM_UP = 0.25
"""Share of the time in which caches fill and pools open: it does not count."""

# What is measured, its unit, and how much of it in an hour is still no growth.
MEASURED = (
    ("memory", "MiB", 20.0),
    ("open files", "", 3.0),
    ("threads", "", 1.0),
    ("database connections", "", 1.0),
)


@dataclass
class Line:
    """A straight line through what was measured after the warm-up."""

    first: float
    last: float
    most: float
    growth: float
    """In an hour."""


class Listener(threading.Thread):
    """Opens a stream of events, reads it for a while, and hangs up; again and again."""

    def __init__(self, url: str, token: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.parts = urlsplit(url)
        self.token = token
        self.random = random.Random(seed)
        self.streams = self.events = self.failures = 0
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.is_set():
            self.streams += 1
            connection = http.client.HTTPConnection(self.parts.netloc, timeout=30)
            try:
                self._listen(connection)
            except (OSError, http.client.HTTPException):
                self.failures += 1
            connection.close()
            self.ending.wait(self.random.uniform(0, 2))

    def _listen(self, connection: http.client.HTTPConnection) -> None:
        headers = {"Authorization": f"token {self.token}"}
        connection.request("GET", f"{self.parts.path}api/v1/events", headers=headers)
        response = connection.getresponse()
        self.failures += response.status != 200
        end = time.monotonic() + self.random.uniform(0.5, 20)
        while time.monotonic() < end and not self.ending.is_set():
            line = response.readline()
            if not line:
                break
            self.events += line.startswith(b"event:")


def main() -> None:
    """Start everything, look at it for a while, and print a verdict."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="write an SVG of what was measured")
    options = parser.parse_args()
    with (
        open_store(options.store) as store,
        Stage(store.folder / "hub", options.clients) as stage,
        RunningService(stage, store.url, {"EraHub.lease": 20}, options.gpus) as service,
    ):
        book = Book()
        for user in stage.users:
            with EraClient(service.url, stage.tokens[user]) as client:
                client.account()
        listeners = [
            Listener(service.url, stage.tokens[stage.users[each % len(stage.users)]], each)
            for each in range(options.streams)
        ]
        samples = _watch(stage, service, store, book, listeners, options)
        service.stop()
        books = audit(store.url)
    if options.plot:
        options.plot.write_text(plot(samples))
    flat = _report(samples, book, listeners, books, options)
    raise SystemExit(0 if flat else 1)


def _watch(
    stage: Stage,
    service: RunningService,
    store: Store,
    book: Book,
    listeners: list[Listener],
    options: argparse.Namespace,
) -> list[tuple[float, ...]]:
    ending = threading.Event()

    def play(number: int) -> None:
        player = Player(stage, service.url, number, book, options.seed)
        dice = random.Random(number)
        while not ending.wait(dice.expovariate(options.rate / options.clients)):
            player.play()
        player.close()

    threads = [threading.Thread(target=play, args=(each,)) for each in range(options.clients)]
    for each in (*threads, *listeners):
        each.start()
    process = psutil.Process(service.pid)
    samples = []
    begin = time.monotonic()
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=60 * options.minutes)
        while (now := time.monotonic() - begin) < 60 * options.minutes:
            found = (
                process.memory_info().rss / 2**20,
                process.num_fds(),
                process.num_threads(),
                _connections(process, store),
            )
            samples.append((now, *found))
            progress.update(task, completed=now, description=f"{found[0]:.0f} MiB")
            time.sleep(EVERY)
    ending.set()
    for listener in listeners:
        listener.ending.set()
    for each in (*threads, *listeners):
        each.join()
    return samples


def _connections(process: psutil.Process, store: Store) -> int:
    if store.postgres is None:
        place = store.url.removeprefix("sqlite:///")
        return sum(each.path == place for each in process.open_files())
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'era-hub'"
    return int(store.postgres.execute(query)[0][0])


def line_through(samples: Sequence[tuple[float, float]]) -> Line:
    """A least-squares line through what was measured after the warm-up."""
    whole = samples[-1][0]
    points = [each for each in samples if each[0] >= WARM_UP * whole]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    return Line(points[0][1], points[-1][1], max(y for _, y in points), 3600 * slope)


def _report(
    samples: list[tuple[float, ...]],
    book: Book,
    listeners: list[Listener],
    books: dict,
    options: argparse.Namespace,
) -> bool:
    print(heading())
    seconds = samples[-1][0]
    total, failed = book.statuses.total(), sum(n for s, n in book.statuses.items() if s >= 500)
    streams = sum(each.streams for each in listeners)
    lost = sum(each.failures for each in listeners)
    rows = [
        ("store", options.store),
        ("requests", f"{total:,}, {total / seconds:.0f} a second; {failed} answers of 5xx"),
        (
            "latency p50, p99",
            f"{1000 * quantile(book.seconds, 0.5):.0f} ms, "
            f"{1000 * quantile(book.seconds, 0.99):.0f} ms",
        ),
        (
            "streams of events",
            f"{streams:,}, {lost} failed; {sum(each.events for each in listeners):,} events",
        ),
        ("other wrong answers", len(book.wrong) - failed),
        ("findings of era-hub audit", f"{len(books['findings'])} ({books['took']} s)"),
    ]
    print(table(rows))
    print("\n| | after the warm-up | at the end | most | growth in an hour | |")
    print("|---" * 6 + "|")
    flat = True
    for index, (name, unit, allowed) in enumerate(MEASURED):
        line = line_through([(each[0], each[index + 1]) for each in samples])
        steady = line.growth <= allowed
        flat = flat and steady
        values = [f"{value:.1f}" for value in (line.first, line.last, line.most, line.growth)]
        verdict = "flat" if steady else "GROWS"
        print(f"| {name} {unit} | {' | '.join(values)} | {verdict} |")
    for text in [*book.wrong[:20], *books["findings"][:20]]:
        print("WRONG", str(text)[:400])
    sys.stdout.flush()
    return flat and not book.wrong and not books["findings"] and not lost


def plot(samples: Sequence[tuple[float, ...]]) -> str:
    """What was measured over the minutes, one curve below the other, as an SVG."""
    width, height, left, gap = 720, 110, 60, 40
    whole = samples[-1][0] or 1
    parts = []
    for index, (name, unit, _) in enumerate(MEASURED):
        top = gap + index * (height + gap)
        values = [each[index + 1] for each in samples]
        most = max(values) * 1.15 or 1
        points = " ".join(
            f"{left + (width - left) * each[0] / whole:.1f},{top + height * (1 - value / most):.1f}"
            for each, value in zip(samples, values, strict=True)
        )
        parts += [
            f'<text x="{left}" y="{top - 8}">{name}{f", {unit}" if unit else ""}</text>',
            f'<path d="M{left} {top}V{top + height}H{width}" fill="none" stroke="#888"/>',
            f'<text x="{left - 6}" y="{top + height}" text-anchor="end">0</text>',
            f'<text x="{left - 6}" y="{top + 12}" text-anchor="end">{most:.0f}</text>',
            f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>',
        ]
    bottom = gap + len(MEASURED) * (height + gap)
    parts.append(
        f'<text x="{width}" y="{bottom - 16}" text-anchor="end">{whole / 60:.0f} minutes</text>'
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 20} {bottom}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
