"""Malformed requests against a real service: answers by status, and the service's memory.

    python -m benchmarks.fuzz --requests 100000

starts a hub with the market in a folder of its own, sends the requests through several
connections and prints what came back. The requests follow from the seed alone.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

GOOD: dict[str, dict[str, Any]] = {
    "quotes": {
        "configuration": "gpu-1",
        "count": 1,
        "duration": "1h",
        "arrival": "2050-01-01T12:00:00Z",
        "deadline": "2050-01-01T14:00:00+01:00",
    },
    "reservations": {
        "configuration": "gpu-1",
        "count": 1,
        "duration": 3600,
        "value": 1,
        "server_name": "s",
        "user": "ann",
    },
    "jobs": {
        "configuration": "gpu-1",
        "duration": "90",
        "value": 0,
        "name": "n",
        "script": "1",
        "filename": "a.py",
        "command": ["true"],
        "args": ["x"],
        "environment": {"A": "b"},
    },
    "reservations/00000000-0000-4000-8000-000000000000/extend": {"duration": "10m", "value": 1},
    "allocation/update": {
        "capacity": [{"units": 8, "start": "2050-01-01T12:00:00Z"}],
        "ended": [{"id": "x", "exit_code": 1, "message": "m"}],
        "failed": [{"id": "y", "reason": "r"}],
    },
    "admin/account/grant": {
        "kind": "user",
        "name": "ann",
        "amount": 5,
        "memo": "m",
        "expires_after": "1h",
    },
    "admin/account/withdraw": {"kind": "user", "name": "ann", "amount": 1, "memo": "m"},
    "admin/account/overdraft": {"kind": "group", "name": "g", "overdraft": 0, "expected": 0},
    "admin/policies": {"kind": "group", "name": "g", "pays": "own", "rank": 1, "version": 0},
    "admin/quotas": {
        "kind": "group",
        "name": "g",
        "gpus": 4,
        "gpu_seconds": 3600,
        "period": "7d",
        "longest": "1h",
        "horizon": "2d",
        "configurations": ["gpu-1"],
        "version": 0,
    },
    # What these would do when they are made goes on for ever.
    "admin/grants?preview=true": {
        "kind": "everyone",
        "name": "",
        "amount": 5,
        "period": "7d",
        "cap": 9,
        "anchor": "2050-01-01T12:00:00Z",
        "expires_after": "1h",
    },
    "admin/pool?preview=true": {
        "price_floor": 1,
        "price_ceiling": 9,
        "held_back": 0,
        "version": 0,
    },
    "admin/maintenance?preview=true": {
        "start": "2050-01-01T12:00:00Z",
        "end": "2050-01-01T14:00:00+01:00",
        "gpus": 1,
        "reason": "r",
    },
}
ADMINS = ("admin/", "allocation/")
"""What only an admin may send."""

# As they stand in JSON.
ODD = [
    *("null", "true", "[]", "{}", '""', "-1", "0", "1e400", "-1e400", "NaN", "Infinity"),
    *("1.5", "1e15", "1e-300", "9223372036854775808", "1" * 5000, "-" + "9" * 400, "0" * 50),
    *(r'"\ud800"', r'"\udfff\ud800"', r'"\u0000"', '"\0"', r'"\x"', '"٣"', '"\uff11h"', '"1h1h"'),
    *('"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"', '"2050-02-30T00:00:00Z"'),
    *('"2050-01-01"', '"1e9"', '"-5m"', '"99999999999d"', '"' + "9" * 10_000 + 'h"', "[1,2"),
    *("[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, '"' + "x" * 100_000 + '"'),
    *('"../../etc/passwd"', '"\\u202e"', '"<script>"', "'x'", "0x10", "+1", ".5", "1.", "01"),
]
TYPES = [
    *("application/json",) * 20,
    *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *("application/json; charset=utf-16", "application/json; charset=utf-8", "", ";;;", "\xff"),
]
PATHS = [
    *("reservations/%00", "reservations/%ff", "jobs/..%2f..", "jobs/%c3%28/log", "reservations/'"),
    *(
        "reservations?limit=%00",
        "reservations?limit=1&limit=2",
        "market?hours=nan",
        "jobs?limit=-1",
    ),
    *("admin/accounts?limit=1e9", "admin/accounts?after=%ed", "admin/quotas?version=-1"),
    *("admin/account?kind=x&name=%00", "admin/grants/..", "admin/maintenance/-1?version=x"),
    *("admin/audit?before=9999999999999999999999", "admin/demand?days=nan", "admin/user?name="),
    *("market?hours=1e999", "account?user=%ed%a0%80", "reservations?kind=%f0", "account?limit=1e9"),
    *("jobs/x/log?offset=99999999999999999999", "events?seconds=-1", "?", "nothing", "%", "a%zz"),
    *(
        "account?user=" + "x" * 3000,
        "reservations?%00=1",
        "market?hours=%d9%a1",
        "reservations/" + "y" * 999,
    ),
]
METHODS = ["GET", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS", "POST", "BREW"]


@dataclass
class Request:
    """One request, as it goes over the wire."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False


@dataclass
class Report:
    """What came back; status 0 counts requests without an answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[tuple[Request, int, bytes]] = field(default_factory=list)


def requests(count: int, seed: int = 0) -> Iterator[Request]:
    """Requests that follow from the seed, most of them wrong in one way or several."""
    rng = random.Random(seed)
    for _ in range(count):
        if rng.random() < 0.12:
            method, path = rng.choice(METHODS), rng.choice(PATHS)
            yield Request(method, path, b"{}" if method in ("POST", "PUT", "PATCH") else b"")
            continue
        path = rng.choice(list(GOOD))
        body = _body(rng, path)
        headers = {"Content-Type": rng.choice(TYPES)}
        if rng.random() < 0.05:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body) if rng.random() < 0.7 else body
        if rng.random() < 0.1:
            headers["Idempotency-Key"] = rng.choice(["k", " ", "x" * 999, "\xe9", "a b"])
        if rng.random() < 0.03:
            headers["Authorization"] = rng.choice(
                ["token ", "token \xff\xfe", "Bearer " + "x" * 5000, "Basic eDp5", "token a b"]
            )
        yield Request("POST", path, body, headers, chunked=rng.random() < 0.2)


def _body(rng: random.Random, path: str) -> bytes:
    fields = {name: json.dumps(value) for name, value in GOOD[path].items()}
    for _ in range(rng.randint(1, 3)):
        fields[rng.choice([*fields, "colour", "", "value"])] = rng.choice(ODD)
    if rng.random() < 0.2:
        del fields[rng.choice(list(fields))]
    pairs = [f"{json.dumps(name)}:{value}" for name, value in fields.items()]
    if rng.random() < 0.1:
        pairs.append(rng.choice(pairs))
    raw = bytearray(("{" + ",".join(pairs) + "}").encode())
    kind = rng.random()
    if kind < 0.15:
        for _ in range(rng.randint(1, 8)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    elif kind < 0.25:
        del raw[rng.randrange(len(raw)) :]
    elif kind < 0.3:
        raw = bytearray(rng.randbytes(rng.randint(0, 300)))
    elif kind < 0.33:
        raw = bytearray(rng.choice(ODD).encode())
    return bytes(raw)


def send_all(port: int, root: str, user: str, admin: str, wanted: Iterator[Request]) -> Report:
    """Send requests one after the other on one connection, which is opened anew if need be.

    `user` and `admin` are tokens; each request comes from whoever may send it.
    """
    report = Report()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for each in wanted:
        token = admin if each.path.startswith(ADMINS) else user
        status, answer = _send(connection, root, token, each)
        report.statuses[status] += 1
        problem = status >= 400 and each.method != "HEAD"
        if status == 0 or status >= 500 or (problem and not _names_its_request(answer)):
            report.failures.append((each, status, answer))
    connection.close()
    return report


def _send(
    connection: http.client.HTTPConnection, root: str, token: str, each: Request
) -> tuple[int, bytes]:
    headers = {"Authorization": f"token {token}", **each.headers}
    body: Any = each.body or None
    if each.chunked and each.body:
        half = len(each.body) // 2
        body = iter([part for part in (each.body[:half], each.body[half:]) if part])
        headers["Transfer-Encoding"] = "chunked"
    try:
        connection.request(
            each.method, root + each.path, body, headers, encode_chunked=each.chunked
        )
        response = connection.getresponse()
        return response.status, response.read()
    except (http.client.HTTPException, OSError) as error:
        connection.close()
        return 0, repr(error).encode()


def _names_its_request(answer: bytes) -> bool:
    try:
        problem = json.loads(answer)
    except ValueError:
        return False
    return bool(problem.get("instance")) and bool(problem.get("detail"))


def main() -> None:
    """Start a hub, send the requests and print a report."""
    from tests.running_hub import RunningHub

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        RunningHub(Path(folder) / "hub", options={"EraHub.rate": 0}) as hub,
        ThreadPoolExecutor(options.connections) as pool,
    ):
        service = psutil.Process(hub.service_pid())
        tokens = hub.user_token("ann"), hub.user_token("admin")
        port = int((hub.folder / "port").read_text())
        total, failures = Counter[int](), 0
        rounds = 10
        share = options.requests // (rounds * options.connections)
        begin = time.perf_counter()
        for number in range(rounds):
            seeds = [
                options.seed + number * options.connections + i for i in range(options.connections)
            ]
            jobs = [
                pool.submit(
                    send_all,
                    port,
                    "/services/era/api/v1/",
                    *tokens,
                    requests(share, seed),
                )
                for seed in seeds
            ]
            for job in jobs:
                report = job.result()
                total += report.statuses
                failures += len(report.failures)
                for request, status, answer in report.failures[:3]:
                    print(
                        "WRONG",
                        status,
                        request.method,
                        request.path[:80],
                        request.body[:80],
                        answer[:200],
                    )
            memory = service.memory_info().rss / 2**20
            print(
                f"{sum(total.values()):7d} requests, {memory:6.1f} MiB, {service.num_fds()} files"
            )
        spent = time.perf_counter() - begin
    print(f"{sum(total.values()) / spent:.0f} requests/s; {failures} wrong answers")
    for status, count in sorted(total.items()):
        print(f"{status}: {count}")


if __name__ == "__main__":
    main()
