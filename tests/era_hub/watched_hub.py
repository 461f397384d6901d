"""A running hub that shows its admins much and is short of patience, and its streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.running_hub import FAST, RunningHub

OPTIONS = FAST | {
    "EraHub.log_format": "json",
    "EraHub.log_level": "DEBUG",
    "EraHub.admins_see_bids": True,
    "EraHub.keepalive": 0.3,
    "EraHub.login_check": 0.5,
    "EraHub.event_streams": 2,
    "EraHub.rate": 30,
    "EraHub.burst": 60,
}
PROMETHEUS = """
c.JupyterHub.services.append({"name": "prometheus", "api_token": "prometheus-reads-this"})
c.JupyterHub.load_roles.append(
    {
        "name": "prometheus",
        "services": ["prometheus"],
        "scopes": ["access:services!service=era", "custom:era:metrics"],
    }
)
"""


def watched(folder: Path) -> RunningHub:
    return RunningHub(folder, options=OPTIONS, extra=PROMETHEUS)


def lines(hub: RunningHub) -> list[dict[str, Any]]:
    """What the service has logged."""
    found = []
    for line in hub.log().splitlines():
        if line.startswith('{"time"'):
            found.append(json.loads(line))
    return found


def direct(hub: RunningHub) -> str:
    """The API without the proxy: that of these tests passes on whole answers only."""
    port = (hub.folder / "port").read_text()
    return f"http://127.0.0.1:{port}{hub.base_path}services/era/api/v1/"


class Stream:
    """Server-sent events as they come; everything that came is in `text`."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.text = ""
        self._lines = response.iter_lines()

    def next(self) -> dict[str, Any] | None:
        """The next event with its name, id and data; None at the end of the stream."""
        event: dict[str, Any] = {}
        for line in self._lines:
            self.text += f"{line}\n"
            if not line and "event" in event:
                return event
            name, _, value = line.partition(": ")
            if name in ("event", "id", "data"):
                event[name] = json.loads(value) if name == "data" else value
        return None

    def until(self, kind: str) -> dict[str, Any]:
        """The next event of a kind."""
        while (event := self.next()) is not None:
            if event["event"] == kind:
                return event
        raise AssertionError(f"the stream ended before {kind}:\n{self.text}")

    def rest(self) -> str:
        """Read to the end of the stream."""
        while self.next() is not None:
            pass
        return self.text


@contextmanager
def events(hub: RunningHub, token: str, last: str | None = None) -> Iterator[Stream]:
    headers = {"Authorization": f"token {token}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    url = f"{direct(hub)}events"
    with httpx.stream("GET", url, headers=headers, timeout=15) as response:
        yield Stream(response)
