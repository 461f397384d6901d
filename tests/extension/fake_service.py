"""A small service that speaks the API over real HTTP, with answers set by tests."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from era_hub import models
from era_hub.models import JobState, State

TOKEN = "a-token-that-nobody-may-see"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def a_reservation(**fields: Any) -> models.Reservation:
    start = datetime.now(UTC)
    defaults: dict[str, Any] = {
        "id": "3f9c01",
        "kind": models.Kind.JOB,
        "user": "ann",
        "configuration": "one-gpu",
        "units": 1,
        "state": State.ACTIVE,
        "arrival": start,
        "deadline": start + timedelta(hours=1),
        "duration": 1800,
        "start": start,
        "end": start + timedelta(minutes=30),
        "price": 800_000,
        "created": start,
    }
    return models.Reservation(**{**defaults, **fields})


def a_job(job_id: str = "3f9c01", **fields: Any) -> models.Job:
    defaults: dict[str, Any] = {
        "name": "train.py",
        "user": "ann",
        "state": JobState.RUNNING,
        "progress": 0.25,
        "directory": "/home/ann/era-jobs/3f9c01",
        "reservation": a_reservation(id=job_id),
    }
    return models.Job(id=job_id, **{**defaults, **fields})


def a_market(**fields: Any) -> models.Market:
    def configuration(name: str, gpus: int, price: int) -> models.ConfigurationPrices:
        prices = [price] * 144 + [None] * 12 + [price // 2] * 132
        low, high = ([p and round(p * by) for p in prices] for by in (0.5, 1.5))
        return models.ConfigurationPrices(
            name=name,
            title=name.title(),
            resources={"nvidia.com/gpu": str(gpus)},
            gpus=gpus,
            price_per_hour=price * 12,
            prices=prices,
            forecast=models.PriceForecast(expected=prices, low=low, high=high),
        )

    defaults: dict[str, Any] = {
        "now": NOW,
        "pool": "gpus",
        "slot": 300,
        "first_slot": NOW,
        "horizon": NOW + timedelta(days=14),
        "resource": "nvidia.com/gpu",
        "simulated": True,
        "capacity": [4] * 288,
        "promised": [1] * 288,
        "configurations": [
            configuration("big-one-gpu", 1, 300_000),
            configuration("one-gpu", 1, 100_000),
            configuration("two-gpus", 2, 200_000),
        ],
    }
    return models.Market(**{**defaults, **fields})


def a_quote(**fields: Any) -> models.Quote:
    starts = [
        models.Start(
            start=NOW + timedelta(hours=i), end=NOW + timedelta(hours=i, minutes=30), price=p
        )
        for i, p in enumerate((900_000, 800_000, 1_200_000))
    ]
    defaults: dict[str, Any] = {
        "configuration": "one-gpu",
        "duration": 1800,
        "feasible": True,
        "best": starts[1],
        "starts": starts,
    }
    return models.Quote(**{**defaults, **fields})


def an_account() -> models.Account:
    entry = models.LedgerEntry(
        id=1, at=NOW, kind="grant", amount=20_000_000, balance=20_000_000, memo="a [b]week[/b]"
    )
    return models.Account(name="ann", balance=12_500_000, held=800_000, entries=[entry])


def an_own_account(**fields: Any) -> models.AccountSummary:
    defaults: dict[str, Any] = {
        "account": "own",
        "balance": 12_500_000,
        "held": 800_000,
        "default": True,
    }
    return models.AccountSummary(**{**defaults, **fields})


class FakeService:
    """Answers and a record of requests; runs in a thread of its own."""

    def __init__(self) -> None:
        self.market = a_market()
        self.account = an_account()
        self.accounts = [an_own_account()]
        self.quote = a_quote()
        self.jobs: dict[str, list[models.Job]] = {}  # states in turn; the last one stays
        self.logs: dict[str, list[str]] = {}  # pieces; complete after the last
        self.reservations: list[models.Reservation] = []
        self.notices: list[models.Notice] = []
        self.outcome: models.JobOutcome | None = None
        self.problem: tuple[int, str] | None = None
        self.requests: list[tuple[str, str, Any, dict[str, str]]] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        sockets = bind_sockets(0, "127.0.0.1")
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/@/space%20word/services/era"
        application = Application([(r".*/api/v1/(.*)", _Handler, {"service": self})])
        server = HTTPServer(application)
        server.add_sockets(sockets)
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()
        server.stop()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def sent(self, method: str, path: str) -> list[Any]:
        """Bodies of the requests to an endpoint."""
        return [body for m, p, body, _ in self.requests if (m, p) == (method, path)]

    def accept(self, job: models.Job) -> None:
        self.jobs[job.id] = [job]
        self.outcome = models.JobOutcome(
            accepted=True, price=job.reservation.price, reservation=job.reservation, job=job
        )

    def answer(self, method: str, parts: list[str], offset: int) -> Any:
        match (method, *parts):
            case ("GET", "market" | "account" | "accounts" | "reservations" | "notices" as name):
                return getattr(self, name)
            case ("POST", "quotes"):
                return self.quote
            case ("POST", "jobs"):
                return self.outcome
            case ("POST", "reservations", job_id, "extend") if job_id in self.jobs:
                return self._extended(job_id)
            case ("GET", "jobs"):
                return [states[-1] for states in self.jobs.values()]
            case (_, "jobs", job_id, *rest) if job_id in self.jobs:
                return self._job(method, job_id, rest, offset)
        return None

    def _extended(self, job_id: str) -> models.JobOutcome:
        """What a test has set, or half an hour more for 0.40 credits."""
        if self.outcome is not None:
            return self.outcome
        job = self.jobs[job_id][-1]
        old = job.reservation
        longer = {"end": old.end + timedelta(minutes=30), "price": old.price + 400_000}
        job = job.model_copy(update={"reservation": old.model_copy(update=longer)})
        self.jobs[job_id] = [job]
        return models.JobOutcome(accepted=True, price=400_000, reservation=job.reservation, job=job)

    def _job(self, method: str, job_id: str, rest: list[str], offset: int) -> Any:
        states = self.jobs[job_id]
        if rest == ["log"]:
            return self._log(job_id, offset)
        if method == "DELETE":
            job = states[-1]
            refunded = job.reservation.model_copy(update={"refunded": 300_000})
            update = {"state": JobState.CANCELLED, "reservation": refunded}
            self.jobs[job_id] = [job.model_copy(update=update)]
            return self.jobs[job_id][0]
        return states.pop(0) if len(states) > 1 else states[0]

    def _log(self, job_id: str, offset: int) -> models.Log:
        pieces = self.logs.get(job_id, [])
        at = 0
        for i, piece in enumerate(pieces):
            if at == offset and piece:
                end = at + len(piece.encode())
                return models.Log(text=piece, offset=end, complete=i == len(pieces) - 1)
            at += len(piece.encode())
        return models.Log(text="", offset=offset, complete=self.jobs[job_id][-1].state.final)


class _Handler(RequestHandler):
    def initialize(self, service: FakeService) -> None:
        self.service = service

    def _serve(self, path: str) -> None:
        service, request = self.service, self.request
        body = json.loads(request.body) if request.body else None
        service.requests.append((request.method, path, body, dict(request.headers)))
        self.set_header("Content-Type", "application/json")
        if service.problem:
            status, detail = service.problem
            return self._refuse(status, detail)
        if request.headers.get("Authorization") != f"token {TOKEN}":
            return self._refuse(403, "Log in first.")
        offset = int(self.get_query_argument("offset", "0"))
        answer = service.answer(request.method, path.split("/"), offset)
        if answer is None:
            return self._refuse(404, "There is no such thing.")
        self.finish(TypeAdapter(Any).dump_json(answer))
        return None

    get = post = delete = _serve

    def _refuse(self, status: int, detail: str) -> None:
        self.set_status(status)
        self.finish({"title": "Refused", "status": status, "detail": detail})
