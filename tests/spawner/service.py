"""What the spawner's tests share: a small service and samples of what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from era_hub.models import AccountSummary, ConfigurationPrices, Market, Reservation, State

TOKEN = "secret-token-of-the-spawner"
Answer = tuple[int, Any]


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def reservation(**changes: Any) -> Reservation:
    start = changes.pop("start", now() - timedelta(seconds=1))
    values = {
        "id": "r-1",
        "kind": "notebook",
        "user": "ann",
        "configuration": "gpu-2",
        "units": 2,
        "state": "accepted",
        "arrival": start,
        "deadline": start + timedelta(hours=1),
        "duration": 3600,
        "start": start,
        "end": start + timedelta(hours=1),
        "price": 2_400_000,
        "created": now(),
    }
    return Reservation(**{**values, **changes})


def market(**changes: Any) -> Market:
    one = ConfigurationPrices(
        name="gpu-1",
        title="1 GPU",
        resources={"nvidia.com/gpu": "1", "cpu": "8", "memory": "64Gi"},
        gpus=1,
        price_per_hour=2_000_000,
        prices=[166_667] * 576,
    )
    values = {
        "now": now(),
        "pool": "local",
        "slot": 300,
        "first_slot": now(),
        "horizon": now() + timedelta(days=14),
        "resource": "nvidia.com/gpu",
        "simulated": False,
        "capacity": [8] * 576,
        "promised": [0] * 576,
        "configurations": [one],
    }
    return Market(**{**values, **changes})


def account(name: str = "own", balance: int = 12_000_000, **changes: Any) -> AccountSummary:
    values = {"account": name, "balance": balance, "held": 0, "default": name == "own"}
    return AccountSummary(**{**values, **changes})


class Service:
    """Answers as programmed and notes every request."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, str | None]] = []
        self.answers: dict[str, Answer | Callable[[], Any]] = {}
        self.url = ""

    def accept(self, **changes: Any) -> None:
        """Accept every bid, and let it be claimed on GPUs 0 and 3."""
        accepted = reservation(**changes)
        claimed = accepted.model_copy(update={"state": State.ACTIVE, "gpus": [0, 3]})
        outcome = {"accepted": True, "price": accepted.price, "reservation": dump(accepted)}
        self.answers["POST reservations"] = 201, outcome
        self.answers["GET reservations/r-1"] = 200, dump(accepted)
        self.answers["POST reservations/r-1/claim"] = 200, dump(claimed)
        self.answers["DELETE reservations/r-1"] = 200, dump(accepted)

    def refuse(self, call: str, status: int, detail: str) -> None:
        body = {"type": "about:blank", "title": "", "status": status, "detail": detail}
        self.answers[call] = status, body

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def listen(self) -> HTTPServer:
        application = web.Application([(r"/api/v1/(.*)", _Handler, {"service": self})])
        sock, port = bind_unused_port()
        server = HTTPServer(application)
        server.add_socket(sock)
        self.url = f"http://127.0.0.1:{port}"
        return server


class _Handler(web.RequestHandler):
    def initialize(self, service: Service) -> None:
        self.service = service

    async def answer(self, path: str) -> None:
        call = f"{self.request.method} {path}"
        body = json.loads(self.request.body) if self.request.body else None
        self.service.calls.append((call, body, self.request.headers.get("Idempotency-Key")))
        assert self.request.headers["Authorization"] == f"token {TOKEN}"
        answer = self.service.answers.get(call, (404, {"detail": f"no {call} here"}))
        if callable(answer):
            answer = await answer()
        status, content = answer
        self.set_status(status)
        self.write(json.dumps(content))

    get = post = delete = answer


def dump(model: Any) -> Any:
    return model.model_dump(mode="json")
