"""Clients that reserve, extend and cancel without end, and remember what they were told.

Each call has an idempotency key of its own, and is repeated until there is an answer. What
they remember is then held against what the service says: see `check`.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from era_hub.client import EraClient

from .stage import Api, Stage

CREDIT = 1_000_000
PATIENCE = 120.0
"""Seconds for which a call is repeated."""


@dataclass
class Known:
    """A reservation as its client was told of it."""

    key: str
    price: int
    version: int
    extensions: int = 0
    cancelled: bool = False


@dataclass
class Tally:
    """What all clients have seen."""

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    written: float = 0.0
    """When the last change was answered whose request was sent after `since`."""
    since: float = 0.0
    news: threading.Condition = field(default_factory=threading.Condition)

    def note(self, kind: str, sent: float, status: int, changed: bool) -> None:
        """Take note of an answer; `changed` says that something was stored for it."""
        with self.news:
            self.kinds[kind] += 1
            self.statuses[status] += 1
            if changed and sent >= self.since:
                self.written = time.monotonic()
                self.news.notify_all()

    def complain(self, text: str) -> None:
        with self.news:
            self.wrong.append(text)

    def wait_for_write(self, since: float, timeout: float) -> float | None:
        """Seconds from `since` to the next answered change; None if there is none."""
        with self.news:
            self.since = max(self.since, since)
            found = self.news.wait_for(lambda: self.written > since, timeout)
            return self.written - since if found else None


class Bidder(threading.Thread):
    """One user's client.

    Parameters
    ----------
    tally : Tally
        Shared by all.
    pause : float
        Seconds between two calls, on average.
    """

    def __init__(
        self, stage: Stage, urls: list[str], number: int, tally: Tally, seed: int, pause: float = 0
    ) -> None:
        super().__init__(daemon=True)
        self.user = stage.users[number]
        self.api = Api(urls, stage.tokens[self.user], timeout=20)
        self.tally = tally
        self.pause = pause
        self.random = random.Random(f"{seed} {number}")
        self.known: dict[str, Known] = {}
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.is_set():
            open_ones = [key for key, each in self.known.items() if not each.cancelled]
            dice = self.random.random()
            try:
                if not open_ones or dice < 0.45:
                    self._reserve()
                elif dice < 0.65:
                    self._extend(self.random.choice(open_ones))
                else:
                    self._cancel(self.random.choice(open_ones))
            except (AssertionError, KeyError, TypeError, TimeoutError) as error:
                self.tally.complain(f"{self.user}: {type(error).__name__} {error}")
            if self.pause:
                self.ending.wait(self.random.expovariate(1 / self.pause))
        self.api.close()

    def _call(self, kind: str, method: str, path: str, body: Any, key: str) -> tuple[int, Any]:
        sent = time.monotonic()
        call = {"body": body, "key": key}
        status, answer = self.api.until_answered(method, path, sent + PATIENCE, **call)
        changed = status == 200 and answer.get("accepted", True)
        self.tally.note(kind if status == 200 else f"{kind} refused", sent, status, changed)
        if status not in (200, 409):
            self.tally.complain(f"{self.user}: {status} to {kind}: {answer}")
        if status == 200 and self.random.random() < 0.05:
            again = self.api.until_answered(method, path, time.monotonic() + PATIENCE, **call)
            if again != (status, answer):
                self.tally.complain(f"{self.user}: another answer to the same {kind}")
        return status, answer

    def _reserve(self) -> None:
        # Nothing begins while this runs, so nobody but this client changes anything.
        arrival = datetime.now(UTC) + timedelta(hours=self.random.uniform(3, 300))
        length = self.random.choice((300, 900, 3600, 14_400))
        window = timedelta(seconds=length * self.random.uniform(1, 3) + 300)
        body = {
            "configuration": f"gpu-{self.random.choice((1, 1, 2, 4, 8))}",
            "duration": length,
            "value": int(self.random.uniform(0.05, 20) * CREDIT),
            "arrival": arrival.isoformat(),
            "deadline": (arrival + window).isoformat(),
            "server_name": f"s{self.random.randrange(1_000_000)}",
        }
        key = uuid.UUID(int=self.random.getrandbits(128)).hex
        status, answer = self._call("reserve", "POST", "reservations", body, key)
        if status == 200 and answer["accepted"]:
            made = answer["reservation"]
            if made["id"] in self.known:
                self.tally.complain(f"{self.user}: {made['id']} was made by two keys")
            self.known[made["id"]] = Known(key, answer["price"], made["version"])

    def _extend(self, reservation: str) -> None:
        body = {"duration": self.random.choice((300, 1800)), "value": 5 * CREDIT}
        key = uuid.UUID(int=self.random.getrandbits(128)).hex
        status, answer = self._call(
            "extend", "POST", f"reservations/{reservation}/extend", body, key
        )
        if status == 200 and answer["accepted"]:
            known = self.known[reservation]
            known.price += answer["price"]
            known.extensions += 1
            if answer["reservation"]["price"] != known.price:
                self.tally.complain(f"{self.user}: {reservation} does not cost what was said")

    def _cancel(self, reservation: str) -> None:
        key = uuid.UUID(int=self.random.getrandbits(128)).hex
        status, answer = self._call("cancel", "DELETE", f"reservations/{reservation}", None, key)
        if status == 200:
            known = self.known[reservation]
            known.cancelled = True
            if (answer["state"], answer["refunded"]) != ("cancelled", known.price):
                self.tally.complain(f"{self.user}: {reservation} was cancelled, got {answer}")

    # -- afterwards -------------------------------------------------------------

    def check(self, url: str, token: str, grant: int) -> dict[str, int]:
        """What the service has that this client was not told, and the other way round."""
        with EraClient(url, token) as client:
            there = {each.id: each for each in client.reservations()}
            account = client.account()
        found = Counter[str]()
        found["missing"] = len(self.known.keys() - there.keys())
        found["of nobody"] = len(there.keys() - self.known.keys())
        spent = 0
        for name, known in self.known.items():
            made = there.get(name)
            if made is None:
                continue
            state = "cancelled" if known.cancelled else "accepted"
            refund = known.price if known.cancelled else 0
            found["wrong state"] += made.state != state
            found["wrong price"] += made.price != known.price or made.refunded != refund
            spent += known.price - refund
        found["wrong balance"] = int(account.balance != grant - spent)
        return dict(found)


def most_sold(stage: Stage, url: str) -> int:
    """The most GPUs at once in all open reservations, from what their owners are told."""
    steps: Counter[datetime] = Counter()
    for user in stage.users:
        with EraClient(url, stage.tokens[user]) as client:
            for each in client.reservations(current=True):
                steps[each.start] += each.units
                steps[each.end] -= each.units
    most = now = 0
    for _, change in sorted(steps.items()):
        now += change
        most = max(most, now)
    return most
