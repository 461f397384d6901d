"""Random operations of users and admins, and a book of what they were answered."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from .stage import GROUPS, Api, Lost, Stage

CREDIT = 1_000_000
SIZES = ("cpu", "gpu-1", "gpu-1", "gpu-2", "gpu-4", "gpu-8")
REPEATED = 0.02
"""Share of the changes that are sent once more with the same key."""


@dataclass
class Made:
    """A reservation or job, as its client was told."""

    payer: tuple[str, str]
    user: str
    price: int
    version: int
    job: bool
    refunded: int | None = None


@dataclass
class Book:
    """What all clients were answered. Sums do not depend on the order of what is summed."""

    made: dict[str, Made] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    balances: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    given: int = 0
    ended: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def move(self, kind: str, name: str, amount: int) -> None:
        """Change a balance."""
        with self.lock:
            self.balances[kind, name] += amount

    def give(self, kind: str, name: str, amount: int) -> None:
        """Change a balance at the cost of the bank."""
        with self.lock:
            self.given += amount
            self.balances[kind, name] += amount

    def note(self, kind: str, status: int, done: bool, seconds: float) -> None:
        with self.lock:
            self.kinds[kind if done else f"{kind} refused"] += 1
            self.statuses[status] += 1
            self.seconds.append(seconds)

    def complain(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text)


class Player:
    """One user, who is an admin too, and uses the spawner now and then."""

    def __init__(self, stage: Stage, url: str, number: int, book: Book, seed: int) -> None:
        self.stage, self.book = stage, book
        self.user = stage.users[number]
        self.groups = stage.groups_of(number)
        self.random = random.Random(f"{seed} {number}")
        self.own = Api([url], stage.tokens[self.user])
        self.admin = Api([url], stage.tokens["admin"])
        self.spawner = Api([url], stage.spawner_token)
        self.open: list[str] = []
        self.grants: list[tuple[int, float]] = []
        weights: dict[Callable[[], None], float] = {
            self.quote: 16,
            self.look: 12,
            self.reserve: 28,
            self.submit: 6,
            self.extend: 8,
            self.give_back: 18,
            self.claim: 0.5,
            self.run_job: 0.2,
            self.grant: 4,
            self.withdraw: 2,
            self.standing_grant: 0.7,
            self.end_grant: 0.3,
            self.overdraft: 0.6,
            self.quota: 1.2,
            self.policy: 1,
            self.settings: 0.7,
            self.maintenance: 0.3,
            self.preview: 0.5,
        }
        self._actions, self._weights = list(weights), list(weights.values())

    def play(self) -> None:
        """One random operation."""
        (action,) = self.random.choices(self._actions, self._weights)
        try:
            action()
        except (KeyError, TypeError, AssertionError) as error:
            self.book.complain(f"{action.__name__}: {error!r}")

    def close(self) -> None:
        for each in (self.own, self.admin, self.spawner):
            each.close()

    # -- users ------------------------------------------------------------------

    def quote(self) -> None:
        self._ask(self.own, "quote", "POST", "quotes", self._wish())

    def look(self) -> None:
        paths = ["account", "accounts", "reservations?limit=20", "jobs?limit=10", "market?hours=24"]
        if self.open:
            paths.append(f"reservations/{self.random.choice(self.open)}")
        self._ask(self.own, "look", "GET", self.random.choice(paths))

    def reserve(self) -> None:
        name = f"s{self.random.randrange(1_000_000)}"
        body = {**self._wish(), **self._bid(), "server_name": name}
        self._made(self._change(self.own, "reserve", "POST", "reservations", body))

    def submit(self) -> None:
        body = {**self._wish(), **self._bid(), "script": "print(1)"}
        self._made(self._change(self.own, "job", "POST", "jobs", body))

    def extend(self) -> None:
        if not self.open:
            return
        name = self.random.choice(self.open)
        body = {"duration": self.random.choice((300, 3600)), "value": 3 * CREDIT}
        path = f"reservations/{name}/extend"
        answer = self._change(self.own, "extend", "POST", path, body, self._version(name))
        if answer is not None and answer["accepted"]:
            with self.book.lock:
                self.book.made[name].price += answer["price"]
                self.book.made[name].version = answer["reservation"]["version"]

    def give_back(self) -> None:
        if not self.open:
            return
        name = self.random.choice(self.open)
        job = self.book.made[name].job
        path = f"jobs/{name}" if job else f"reservations/{name}"
        kind = "cancel job" if job else "cancel"
        answer = self._change(self.own, kind, "DELETE", path, None, self._version(name))
        if answer is not None:
            self._ended(answer["reservation"] if job else answer)

    def claim(self) -> None:
        """As the spawner: reserve now, start, and after a while the server has stopped."""
        body = {"configuration": "gpu-1", "duration": 300, "value": 5 * CREDIT, "user": self.user}
        body["server_name"] = f"n{self.random.randrange(1_000_000)}"
        name = self._made(self._change(self.spawner, "reserve", "POST", "reservations", body))
        if name is not None:
            path = f"reservations/{name}"
            self._change(self.spawner, "claim", "POST", f"{path}/claim")
            ended = self._change(self.spawner, "release", "DELETE", path)
            if ended is not None:
                self._ended(ended)

    def run_job(self) -> None:
        """A job that runs at once."""
        body = {"configuration": "gpu-1", "duration": 300, "value": CREDIT, "script": "print(1)"}
        self._made(self._change(self.own, "job", "POST", "jobs", body))

    # -- admins -----------------------------------------------------------------

    def grant(self) -> None:
        kind, name = self._owner()
        amount = self.random.randrange(1, 30 * CREDIT)
        body: dict[str, Any] = {"kind": kind, "name": name, "amount": amount, "memo": "more"}
        if self.random.random() < 0.5:
            body["expires_after"] = 86_400 * self.random.randrange(2, 60)
        if self._change(self.admin, "grant", "POST", "admin/account/grant", body) is not None:
            self.book.give(kind, name, amount)

    def withdraw(self) -> None:
        kind, name = self._owner()
        amount = self.random.choice((None, self.random.randrange(1, 40 * CREDIT)))
        body = {"kind": kind, "name": name, "amount": amount}
        path = "admin/account/withdraw"
        if (done := self._change(self.admin, "withdraw", "POST", path, body)) is not None:
            self.book.give(kind, name, -done["after"]["amount"])

    def standing_grant(self) -> None:
        """Its first time is now, and its next after the end of all this."""
        everyone = self.random.random() < 0.1
        kind, name = ("everyone", "") if everyone else self._owner()
        amount = self.random.randrange(1, 10 * CREDIT)
        body: dict[str, Any] = {"kind": kind, "name": name, "amount": amount}
        if self.random.random() < 0.5:
            body["period"] = 86_400 * self.random.randrange(1, 40)
        if self.random.random() < 0.5:
            body["expires_after"] = 86_400 * self.random.randrange(2, 60)
        done = self._change(self.admin, "standing grant", "POST", "admin/grants", body)
        if done is not None:
            for each in self.stage.users if everyone else [name]:
                self.book.give("user" if everyone else kind, each, amount)
            if "period" in body:
                number = int(done["subject"].removeprefix("grant:"))
                self.grants.append((number, time.monotonic()))

    def end_grant(self) -> None:
        if self.grants and self.grants[0][1] < time.monotonic() - 30:
            number, _ = self.grants.pop(0)
            # Its first time has come and counted it up.
            for version in (2, 1, 3):
                path = f"admin/grants/{number}?version={version}"
                if self._change(self.admin, "end a grant", "DELETE", path) is not None:
                    return

    def overdraft(self) -> None:
        kind, name = self._owner()
        body = {"kind": kind, "name": name, "overdraft": self.random.choice((0, 0, 20 * CREDIT))}
        self._change(self.admin, "overdraft", "POST", "admin/account/overdraft", body)

    def quota(self) -> None:
        kind = self.random.choice(("everyone", "member", "user", "group"))
        name = {"everyone": "", "user": self.random.choice(self.stage.users)}.get(
            kind, self.random.choice(GROUPS)
        )
        version = self._listed("admin/quotas", kind, name)
        if version and self.random.random() < 0.6:
            path = f"admin/quotas?kind={kind}&name={name}&version={version}"
            self._change(self.admin, "lift a quota", "DELETE", path)
            return
        body: dict[str, Any] = {"kind": kind, "name": name, "version": version}
        body |= self.random.choice(
            (
                {"gpus": self.random.randrange(4, 40)},
                {"gpu_seconds": 3600 * self.random.randrange(50, 800), "period": 604_800},
                {"longest": 7200},
                {"horizon": 86_400 * self.random.randrange(3, 14)},
                {"configurations": ["cpu", "gpu-1", "gpu-2", "gpu-4"]},
            )
        )
        self._change(self.admin, "quota", "POST", "admin/quotas", body)

    def policy(self) -> None:
        kind, name = self._owner()
        version = self._listed("admin/policies", kind, name)
        if version and self.random.random() < 0.5:
            path = f"admin/policies?kind={kind}&name={name}&version={version}"
            self._change(self.admin, "forget a policy", "DELETE", path)
            return
        pays = self.random.choice(("own", f"group:{self.random.choice(GROUPS)}"))
        body: dict[str, Any] = {"kind": kind, "name": name, "pays": pays, "version": version}
        if kind == "group":
            body["rank"] = GROUPS.index(name)
        self._change(self.admin, "policy", "POST", "admin/policies", body)

    def settings(self) -> None:
        _, now = self._ask(self.admin, "look", "GET", "admin/pool")
        body = {
            "version": now["version"],
            "held_back": self.random.choice((0, 0, 0, 2, 8)),
            "price_floor": self.random.choice((None, 100_000, 300_000)),
            "price_ceiling": self.random.choice((None, 4_000_000)),
        }
        self._breaking("pool", "POST", "admin/pool", body)

    def maintenance(self) -> None:
        start = datetime.now(UTC) + timedelta(hours=self.random.uniform(1, 300))
        body = {
            "start": start.isoformat(),
            "end": (start + timedelta(hours=self.random.uniform(0.2, 4))).isoformat(),
            "gpus": self.random.choice((1, 4, 16)),
            "reason": "fans",
        }
        done = self._breaking("maintenance", "POST", "admin/maintenance", body)
        if done is not None and self.random.random() < 0.7:
            number = done["subject"].removeprefix("maintenance:")
            path = f"admin/maintenance/{number}?version=1"
            self._breaking("call maintenance off", "DELETE", path)

    def preview(self) -> None:
        """What changes nothing, though it does everything and takes it back."""
        kind, name = self._owner()
        body = {"kind": kind, "name": name, "amount": CREDIT}
        path = self.random.choice(("grant", "withdraw"))
        self._ask(self.admin, "preview", "POST", f"admin/account/{path}?preview=true", body)

    # -- inside -------------------------------------------------------------------

    def _wish(self) -> dict[str, Any]:
        # Nothing of it begins before all this is over, save what is meant to.
        arrival = datetime.now(UTC) + timedelta(hours=self.random.uniform(3, 320))
        length = self.random.choice((300, 900, 3600, 14_400))
        slack = timedelta(seconds=length * self.random.uniform(1, 4) + 300)
        return {
            "configuration": self.random.choice(
                ("cpu", "gpu-1", "gpu-1", "gpu-2", "gpu-4", "gpu-8")
            ),
            "duration": length,
            "arrival": arrival.isoformat(),
            "deadline": (arrival + slack).isoformat(),
        }

    def _bid(self) -> dict[str, Any]:
        groups = [*self.groups, self.random.choice(GROUPS)]
        account = self.random.choice((None, None, "own", f"group:{self.random.choice(groups)}"))
        value = int(self.random.uniform(0.05, 15) * CREDIT)
        return {"value": value} if account is None else {"value": value, "account": account}

    def _owner(self) -> tuple[str, str]:
        if self.random.random() < 0.3:
            return "group", self.random.choice(GROUPS)
        return "user", self.random.choice(self.stage.users)

    def _version(self, name: str) -> int | None:
        return self.book.made[name].version if self.random.random() < 0.3 else None

    def _listed(self, path: str, kind: str, name: str) -> int:
        _, rows = self._ask(self.admin, "look", "GET", path)
        found = [each["version"] for each in rows if (each["kind"], each["name"]) == (kind, name)]
        return found[0] if found else 0

    def _made(self, answer: Any) -> str | None:
        """Take note of what a bid has become."""
        if answer is None or not answer["accepted"]:
            return None
        row = answer["reservation"]
        account = row["account"]
        payer = ("user", self.user) if account == "own" else ("group", account[len("group:") :])
        made = Made(payer, self.user, answer["price"], row["version"], row["kind"] == "job")
        with self.book.lock:
            if row["id"] in self.book.made:
                self.book.complain(f"{row['id']} was made twice")
            self.book.made[row["id"]] = made
        self.open.append(row["id"])
        return str(row["id"])

    def _ended(self, row: dict[str, Any]) -> None:
        with self.book.lock:
            self.book.made[row["id"]].refunded = row["refunded"]
        self.open.remove(row["id"])

    def _breaking(self, kind: str, method: str, path: str, body: Any = None) -> Any:
        """A change that may cost others their reservations."""
        done = self._change(self.admin, kind, method, path, body)
        if done is not None:
            with self.book.lock:
                self.book.broken.update((done["after"] or {}).get("broken", ()))
        return done

    def _change(
        self,
        api: Api,
        kind: str,
        method: str,
        path: str,
        body: Any = None,
        version: int | None = None,
    ) -> Any:
        """The answer, or None if the service refused; some are repeated with their key."""
        key = uuid.UUID(int=self.random.getrandbits(128)).hex
        status, answer = self._ask(api, kind, method, path, body, key, version)
        if status != 200:
            return None
        if self.random.random() < REPEATED:
            again = self._ask(api, "repeat", method, path, body, key, version)
            if again != (status, answer):
                self.book.complain(f"{kind}: {answer} first, then {again}")
        return answer

    def _ask(
        self,
        api: Api,
        kind: str,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
        version: int | None = None,
    ) -> tuple[int, Any]:
        begin = time.perf_counter()
        try:
            status, answer = api.call(method, path, body, key, version)
        except Lost as error:
            status, answer = 599, str(error)
        done = status == 200 and (not isinstance(answer, dict) or answer.get("accepted", True))
        self.book.note(kind, status, done, time.perf_counter() - begin)
        if status >= 500:
            self.book.complain(f"{status} to {method} {path}: {answer}")
        return status, answer
