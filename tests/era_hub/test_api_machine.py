"""Random histories over HTTP, beside a model so simple that it is plainly right."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from era_hub.admin_models import CreditsGrant, CreditsWithdrawal, QuotaRequest
from era_hub.client import EraError
from era_hub.client.admin import AdminClient
from tests.running_hub import RunningHub

pytestmark = pytest.mark.slow

GPUS, SLOT, GRANT, CREDIT = 4, 300, 3, 1_000_000
SLOTS = 12
"""Everything happens in so many slots, tomorrow: there the clock changes nothing."""
ROUNDS, ENOUGH = 5, 3
"""At most so many rounds are played, until everything has happened so often."""


@dataclass
class Held:
    """A reservation of the model; times are slots."""

    user: str
    server: str
    units: int
    start: int
    end: int
    price: int
    version: int
    cancelled: bool = False


@dataclass(frozen=True)
class Sent:
    """A call with a key, and its first answer."""

    user: str
    method: str
    path: str
    body: Any
    key: str
    answer: Any


class Histories(RuleBasedStateMachine):
    """Two users and an admin; the model's room is taken from nobody but them."""

    hub: RunningHub
    tokens: dict[str, str]
    seen: Counter[str]
    """What happened in all histories: they must not be of refusals only."""

    made = Bundle("made")
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.begin = (int(time.time()) // 86_400 + 2) * 86_400
        self.users = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("ann", "bob")]
        self.http = {}
        self.balances: Counter[str] = Counter()
        for user in self.users:
            self.http[user] = httpx.Client(
                base_url=f"{self.hub.url}services/era/api/v1/",
                headers={"Authorization": f"token {self.hub.user_token(user)}"},
            )
            self.balances[user] = GRANT * CREDIT
        self.admin = AdminClient(f"{self.hub.url}services/era", self.tokens["admin"])
        self.held: dict[str, Held] = {}
        self.longest: dict[str, int] = {}
        self.most: dict[str, int] = {}

    def teardown(self) -> None:
        for name, each in self.held.items():
            if not each.cancelled:
                self.http[each.user].delete(f"reservations/{name}").raise_for_status()
        for each in (*self.http.values(), self.admin):
            each.close()

    # -- the model --------------------------------------------------------------

    def open(self) -> list[Held]:
        return [each for each in self.held.values() if not each.cancelled]

    def used(self, slot: int, user: str | None = None) -> int:
        return sum(
            each.units
            for each in self.open()
            if each.start <= slot < each.end and user in (None, each.user)
        )

    def fits(self, units: int, start: int, end: int) -> bool:
        return all(self.used(slot) + units <= GPUS for slot in range(start, end))

    def allowed(self, user: str, units: int, begin: int, start: int, end: int) -> bool:
        """Whether the quotas allow [start, end) more for a reservation that begins at `begin`."""
        longest, most = self.longest.get(user, SLOTS * 9), self.most.get(user, GPUS)
        at_once = max(self.used(slot, user) + units for slot in range(start, end))
        return end - begin <= longest and at_once <= most

    def taken(self, user: str, server: str, start: int, end: int) -> bool:
        return any(
            (each.user, each.server) == (user, server) and each.start < end and each.end > start
            for each in self.open()
        )

    def moment(self, slot: int) -> str:
        return datetime.fromtimestamp(self.begin + slot * SLOT, UTC).isoformat()

    def call(self, user: str, method: str, path: str, **request: Any) -> httpx.Response:
        answer = self.http[user].request(method, path, **request)
        assert answer.status_code < 500, answer.text
        return answer

    # -- users ------------------------------------------------------------------

    @rule(
        targets=(made,),
        who=st.integers(0, 1),
        server=st.sampled_from(["", "lab"]),
        units=st.integers(1, GPUS),
        start=st.integers(0, SLOTS - 1),
        length=st.integers(1, 4),
        value=st.sampled_from([0, CREDIT // 10, CREDIT, 100 * CREDIT]),
    )
    def reserve(
        self, who: int, server: str, units: int, start: int, length: int, value: int
    ) -> Any:
        user, end = self.users[who], start + length
        body = {
            "configuration": f"gpu-{units}",
            "duration": length * SLOT,
            "arrival": self.moment(start),
            "deadline": self.moment(end),
            "server_name": server,
            "value": value,
        }
        answer = self.call(user, "POST", "reservations", json=body)
        can_pay = min(value, self.balances[user])
        if answer.status_code == 409:
            assert self.taken(user, server, start, end)
            assert self.fits(units, start, end)
            return multiple()
        assert answer.status_code == 200, answer.text
        outcome = answer.json()
        if not outcome["accepted"]:
            assert outcome["reason"]
            assert (
                not self.fits(units, start, end)
                or not self.allowed(user, units, start, start, end)
                or outcome["price"] > can_pay
            )
            self.seen["declined"] += 1
            return multiple()
        assert self.fits(units, start, end)
        assert self.allowed(user, units, start, start, end)
        assert not self.taken(user, server, start, end)
        assert outcome["price"] <= can_pay
        row = outcome["reservation"]
        assert datetime.fromisoformat(row["start"]) == datetime.fromisoformat(self.moment(start))
        self.seen["accepted"] += 1
        self.balances[user] -= row["price"]
        self.held[row["id"]] = Held(user, server, units, start, end, row["price"], row["version"])
        return row["id"]

    @rule(name=made, length=st.integers(1, 3), value=st.sampled_from([0, CREDIT, 50 * CREDIT]))
    def extend(self, name: str, length: int, value: int) -> None:
        held = self.held[name]
        end = held.end + length
        body = {"duration": length * SLOT, "value": value}
        answer = self.call(held.user, "POST", f"reservations/{name}/extend", json=body)
        if answer.status_code == 409:
            assert held.cancelled or self.taken(held.user, held.server, held.end, end)
            return
        assert answer.status_code == 200, answer.text
        assert not held.cancelled
        outcome, fits = answer.json(), self.fits(held.units, held.end, end)
        allowed = self.allowed(held.user, held.units, held.start, held.end, end)
        can_pay = min(value, self.balances[held.user])
        if outcome["accepted"]:
            assert fits
            assert allowed
            assert outcome["price"] <= can_pay
            self.seen["extended"] += 1
            held.end, held.version = end, outcome["reservation"]["version"]
            held.price += outcome["price"]
            self.balances[held.user] -= outcome["price"]
        else:
            assert not fits or not allowed or outcome["price"] > can_pay

    @rule(name=made, given_version=st.sampled_from([None, "right", "old"]))
    def give_back(self, name: str, given_version: str | None) -> None:
        held = self.held[name]
        version = held.version - (given_version == "old")
        headers = {"If-Match": f'"{version}"'} if given_version else {}
        answer = self.call(held.user, "DELETE", f"reservations/{name}", headers=headers)
        if given_version == "old":
            assert answer.status_code == 412
            return
        assert answer.status_code == 200, answer.text
        row = answer.json()
        assert (row["state"], row["refunded"]) == ("cancelled", held.price)
        if not held.cancelled:
            held.cancelled, held.version = True, row["version"]
            self.balances[held.user] += held.price

    @rule(name=made)
    def somebody_else_tries(self, name: str) -> None:
        other = next(each for each in self.users if each != self.held[name].user)
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/extend")):
            body = {"duration": SLOT, "value": CREDIT} if method == "POST" else None
            answer = self.call(other, method, f"reservations/{name}{path}", json=body)
            assert answer.status_code == 404

    # -- keys -------------------------------------------------------------------

    @rule(target=sent, who=st.integers(0, 1), start=st.integers(0, SLOTS - 1))
    def reserve_with_a_key(self, who: int, start: int) -> Any:
        user, key = self.users[who], uuid.uuid4().hex
        body = {
            "configuration": "gpu-1",
            "duration": SLOT,
            "arrival": self.moment(start),
            "deadline": self.moment(start + 1),
            "server_name": f"key-{start}",
            "value": 100 * CREDIT,
        }
        headers = {"Idempotency-Key": key}
        answer = self.call(user, "POST", "reservations", json=body, headers=headers)
        if answer.status_code == 409:
            assert self.taken(user, f"key-{start}", start, start + 1)
            return multiple()
        outcome = answer.json()
        if outcome["accepted"]:
            row = outcome["reservation"]
            self.balances[user] -= row["price"]
            self.held[row["id"]] = Held(
                user, f"key-{start}", 1, start, start + 1, row["price"], row["version"]
            )
        return Sent(user, "POST", "reservations", body, key, outcome)

    @rule(call=sent)
    def the_same_again(self, call: Sent) -> None:
        headers = {"Idempotency-Key": call.key}
        again = self.call(call.user, call.method, call.path, json=call.body, headers=headers)
        assert again.json() == call.answer

    @rule(call=sent)
    def another_call_with_the_key(self, call: Sent) -> None:
        headers, body = {"Idempotency-Key": call.key}, {**call.body, "value": 1}
        answer = self.call(call.user, call.method, call.path, json=body, headers=headers)
        assert answer.status_code == 422

    # -- admins -----------------------------------------------------------------

    @rule(who=st.integers(0, 1), amount=st.integers(1, 5 * CREDIT), lapse=st.booleans())
    def grant(self, who: int, amount: int, lapse: bool) -> None:
        user = self.users[who]
        expires = 86_400 if lapse else None
        self.admin.give(CreditsGrant(kind="user", name=user, amount=amount, expires_after=expires))
        self.balances[user] += amount

    @rule(who=st.integers(0, 1), amount=st.integers(1, 8 * CREDIT))
    def withdraw(self, who: int, amount: int) -> None:
        user = self.users[who]
        wanted = CreditsWithdrawal(kind="user", name=user, amount=amount)
        if amount > self.balances[user]:
            with pytest.raises(EraError) as refused:
                self.admin.withdraw(wanted)
            assert refused.value.status == 422
        else:
            self.admin.withdraw(wanted)
            self.balances[user] -= amount

    @rule(
        who=st.integers(0, 1),
        longest=st.one_of(st.none(), st.integers(1, 4)),
        most=st.one_of(st.none(), st.integers(0, GPUS)),
    )
    def limit(self, who: int, longest: int | None, most: int | None) -> None:
        user = self.users[who]
        version = next((each.version for each in self.admin.quotas() if each.name == user), 0)
        seconds = None if longest is None else longest * SLOT
        self.admin.set_quota(
            QuotaRequest(kind="user", name=user, longest=seconds, gpus=most, version=version)
        )
        for limits, limit in ((self.longest, longest), (self.most, most)):
            limits.pop(user, None)
            if limit is not None:
                limits[user] = limit

    # -- what is always true ------------------------------------------------------

    @invariant()
    def accounts_are_as_the_model_says(self) -> None:
        for user in self.users:
            account = self.call(user, "GET", "account").json()
            held = sum(each.price for each in self.open() if each.user == user)
            assert (account["balance"], account["held"]) == (self.balances[user], held)
            rows = self.call(user, "GET", "reservations?limit=1000").json()
            assert {
                each["id"]: (each["state"], each["price"], each["version"]) for each in rows
            } == {
                name: ("cancelled" if each.cancelled else "accepted", each.price, each.version)
                for name, each in self.held.items()
                if each.user == user
            }

    @invariant()
    def so_much_is_promised(self) -> None:
        market = self.call(self.users[0], "GET", "market?hours=72").json()
        first = datetime.fromisoformat(market["first_slot"]).timestamp()
        offset = (self.begin - int(first)) // SLOT
        promised = market["promised"][offset : offset + SLOTS + 8]
        assert promised == [self.used(slot) for slot in range(len(promised))]
        assert max(market["promised"]) <= GPUS


@pytest.fixture(scope="module")
def small_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    folder: Path = tmp_path_factory.mktemp("machine")
    options = {"EraHub.rate": 0, "EraHub.starting_grant": GRANT, "Pool.slot": SLOT}
    with RunningHub(folder, gpus=GPUS, options=options) as running:
        yield running


def rarest() -> int:
    """How often what matters has happened, of that which has happened least."""
    return min(Histories.seen[each] for each in ("accepted", "extended", "declined"))


def test_the_service_does_what_the_model_does(small_pool: RunningHub) -> None:
    Histories.hub = small_pool
    Histories.tokens = {"admin": small_pool.user_token("admin")}
    Histories.seen = Counter()
    # Each history has some of the rules only: perhaps nobody extends in a dozen of them.
    for _ in range(ROUNDS):
        run_state_machine_as_test(
            Histories,
            settings=settings(
                max_examples=12,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        if rarest() >= ENOUGH:
            break
    assert rarest() >= ENOUGH
    with AdminClient(f"{small_pool.url}services/era", Histories.tokens["admin"]) as admin:
        assert admin.books().findings == []
