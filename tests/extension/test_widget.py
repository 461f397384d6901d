"""The kernel's side of the widget."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from era_extension import bundle, feed, snapshot
from era_extension.feed import Background, pace
from era_extension.widget import Market
from era_hub import models
from era_hub.models import JobState
from tests.extension.fake_service import TOKEN, FakeService, a_job, a_reservation

PATIENCE = 10


class Browser:
    """What the browser would send and get."""

    def __init__(self, widget: Market) -> None:
        self.widget = widget
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        widget.send = lambda content, buffers=None: self.answers.put(content)

    def send(self, **message: Any) -> None:
        self.widget._handle_custom_msg(message, [])

    def ask(self, **message: Any) -> dict[str, Any]:
        self.send(id="1", **message)
        answer = self.answers.get(timeout=PATIENCE)
        assert answer.pop("re") == "1"
        return answer

    def until(self, trait: str, fits: Any) -> Any:
        """Wait for a trait to change to a value that fits."""
        found = threading.Event()

        def look(_: Any = None) -> None:
            if fits(getattr(self.widget, trait)):
                found.set()

        self.widget.observe(look, trait)
        look()
        assert found.wait(PATIENCE), getattr(self.widget, trait)
        self.widget.unobserve(look, trait)
        return getattr(self.widget, trait)


@pytest.fixture
def browser(service: FakeService) -> Iterator[Browser]:
    widget = Market()
    yield Browser(widget)
    widget.close()


FORM = {
    "kind": "code",
    "text": "print(1)",
    "name": "",
    "configuration": "one-gpu",
    "duration": 1800,
    "deadline": None,
    "value": "5",
    "commitment": "flexible",
}


def test_what_is_shown(browser: Browser, service: FakeService) -> None:
    end = datetime.now(UTC) + timedelta(minutes=5)
    service.accept(a_job())
    service.reservations = [a_reservation(id="n", kind=models.Kind.NOTEBOOK, end=end)]
    service.notices = [
        models.Notice(id="1", level="warning", text="Ends soon.", reservation="n", at=end)
    ]
    widget = browser.widget
    widget.refresh()
    assert widget.error == ""
    assert widget.market["simulated"] is True and widget.market["slot"] == 300
    assert widget.market["firstSlot"] == widget.now == 1772452800000
    assert len(widget.market["configurations"][0]["prices"]) == 288
    assert widget.account == {"name": "ann", "balance": 12_500_000, "held": 800_000}
    assert (widget.jobs[0]["id"], widget.jobs[0]["progress"]) == ("3f9c01", 0.25)
    assert widget.notebook["end"] == snapshot.milliseconds(end)
    assert widget.notices == [{"id": "1", "level": "warning", "text": "Ends soon."}]
    json.dumps({name: getattr(widget, name) for name in ("market", "jobs", "notebook")})


def test_the_token_never_reaches_the_browser(browser: Browser, service: FakeService) -> None:
    browser.widget.refresh()
    assert browser.widget.error == ""
    for widget in (browser.widget, Market(service.url, TOKEN)):
        assert TOKEN not in json.dumps(widget.get_state(), default=str)
        assert not any("token" in name or "url" in name for name in widget.get_state())
        widget.close()


def test_submitting(
    browser: Browser, service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.accept(a_job())
    answer = browser.ask(do="submit", form={**FORM, "deadline": "2099-01-01T00:00:00.000Z"})
    assert answer["ok"] and answer["text"].startswith("Accepted for 0.80 credits; it starts ")
    browser.until("jobs", lambda jobs: [job["id"] for job in jobs] == ["3f9c01"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import torch")
    assert browser.ask(do="submit", form={**FORM, "kind": "file", "text": "train.py"})["ok"]
    words = {"kind": "command", "text": "ls -l", "commitment": "preemptible"}
    assert browser.ask(do="submit", form={**FORM, **words})["ok"]
    code, file, command = service.sent("POST", "jobs")
    assert (code["script"], code["value"]) == ("print(1)\n", 5_000_000)
    assert code["deadline"] == "2099-01-01T00:00:00Z"
    assert (file["script"], file["filename"]) == ("import torch", "train.py")
    assert command["command"] == ["ls", "-l"]
    assert [each["commitment"] for each in (file, command)] == ["flexible", "preemptible"]
    browser.widget.refresh()
    assert browser.widget.files == ["train.py"]


def test_errors_are_shown_not_raised(browser: Browser, service: FakeService) -> None:
    def refused(**form: Any) -> str:
        answer = browser.ask(do="submit", form={**FORM, **form})
        assert not answer["ok"]
        return answer["text"]

    assert "is not an amount" in refused(value="")
    assert "Say what to run" in refused(text=" ")
    assert "There is no file" in refused(kind="file", text="no.py")
    assert "has passed" in refused(deadline="2020-01-01T00:00:00Z")
    service.outcome = models.JobOutcome(accepted=False, price=900_000, reason="too little")
    assert "too little. It would cost 0.90 credits" in refused()
    assert "know 'dance'" in browser.ask(do="dance")["text"]
    assert not browser.ask(do="submit")["ok"]
    browser.widget._handle_custom_msg("nonsense", [])
    browser.widget.refresh()
    assert browser.widget.error == ""
    service.problem = (503, "Restarting.")
    browser.widget.refresh()
    assert browser.widget.error == "Restarting."
    assert browser.widget.account["balance"] == 12_500_000
    service.problem = None
    browser.widget.refresh()
    assert browser.widget.error == ""


def test_without_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ERA_URL", "ERA_TOKEN", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    widget = Market()
    widget.refresh()
    assert "Set ERA_URL" in widget.error
    widget.close()


def test_cancelling(browser: Browser, service: FakeService) -> None:
    service.accept(a_job())
    answer = browser.ask(do="cancel", job="3f9c01")
    assert answer == {
        "ok": True,
        "text": "train.py is cancelled; 0.30 credits were refunded.",
    }
    assert not browser.ask(do="cancel", job="other")["ok"]


def test_logs_follow_while_open(browser: Browser, service: FakeService) -> None:
    service.accept(a_job())
    service.logs["3f9c01"] = ["start\n", " 10%|#  |\r", " 20%|## |", ""]
    browser.send(do="log", job="3f9c01", open=True)
    browser.until("logs", lambda logs: logs.get("3f9c01") == "start\n 20%|## |")
    service.logs["3f9c01"][-1:] = ["\rdone     \n"]
    browser.widget.refresh()
    assert browser.widget.logs == {"3f9c01": "start\ndone\n"}
    browser.send(do="log", job="gone", open=True)
    browser.until("logs", lambda logs: "There is no such thing." in logs.get("gone", ""))
    assert browser.widget.error == ""
    browser.send(do="log", job="gone", open=False)
    browser.until("logs", lambda logs: "gone" not in logs)


def test_it_updates_itself_while_a_cell_runs(
    browser: Browser, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LIVE", 0.01)
    service.jobs["3f9c01"] = [a_job()]
    browser.widget._repr_mimebundle_()
    # This thread stands for the running cell: it handles no message meanwhile.
    browser.until("jobs", lambda jobs: jobs and jobs[0]["state"] == "running")
    service.jobs["3f9c01"] = [a_job(state=JobState.SUCCEEDED)]
    browser.until("jobs", lambda jobs: jobs[0]["state"] == "succeeded")


def test_it_stops_when_closed(
    browser: Browser, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LIVE", 0.01)
    browser.send(do="hello", view="v")
    browser.until("now", bool)
    background = browser.widget._background
    assert background is not None and background.alive
    browser.widget.close()
    assert not background.alive
    seen = len(service.requests)
    browser.send(do="hello", view="v")
    browser.widget.refresh()
    assert len(service.requests) == seen
    browser.widget.close()


def test_nothing_starts_before_it_is_displayed(browser: Browser, service: FakeService) -> None:
    assert browser.widget._background is None and service.requests == []


def test_it_rests_while_nobody_watches(service: FakeService) -> None:
    async def main() -> None:
        shown: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        one = feed.Feed(feed.AsyncEra, lambda **state: shown.put_nowait(state), lambda _: None)
        task = asyncio.create_task(one.run())
        await shown.get()
        for view in ("a", "b"):
            await one.act({"do": "hello", "view": view})
        await one.act({"do": "bye", "view": "a"})
        assert one._watched
        await one.act({"do": "bye", "view": "b"})
        assert not one._watched
        await one.act({"do": "here", "view": "b"})
        assert one._watched
        while not shown.empty():
            shown.get_nowait()
        await asyncio.wait_for(shown.get(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert one._session is not None and one._session.client._http.is_closed

    asyncio.run(main())


def test_the_pace_falls_in_silence() -> None:
    paces = [pace(silence) for silence in (0, 59, 60, 3599, 3600, 10**6)]
    assert paces == [2, 2, 10, 10, 60, 60]


def test_the_notebook_is_the_servers_own() -> None:
    end = datetime.now(UTC)

    def reservation(name: str, **fields: Any) -> models.Reservation:
        return a_reservation(kind=models.Kind.NOTEBOOK, id=name, server_name=name, **fields)

    found = [
        reservation("other", end=end),
        reservation("mine", end=end),
        reservation("mine", end=end + timedelta(hours=1), state=models.State.ACCEPTED),
        a_reservation(),
    ]
    state = snapshot.notebook_state(found, {"JUPYTERHUB_SERVER_NAME": "mine"})
    assert (state["id"], state["end"]) == ("mine", snapshot.milliseconds(end))
    assert snapshot.notebook_state(found, {}) == {}
    found.append(reservation("second", end=end).model_copy(update={"server_name": "mine"}))
    environ = {"JUPYTERHUB_SERVER_NAME": "mine", "ERA_RESERVATION": "second"}
    assert snapshot.notebook_state(found, environ)["id"] == "second"


def test_a_thread_that_has_ended_can_be_stopped() -> None:
    async def nothing() -> None:
        return None

    background = Background(nothing, "test")
    background.stop()
    background.stop()
    assert not background.alive


def test_the_browsers_code_asks_no_network_and_writes_no_markup() -> None:
    script = bundle.script()
    own = "".join(bundle.static(name) for name in (*bundle.PARTS, bundle.MAIN))
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "innerHTML", "insertAdjacentHTML"):
        assert word not in own
    assert not re.search(r"^import\b", script, re.MULTILINE)
    assert len(re.findall(r"^export\b", script, re.MULTILINE)) == 1
    assert "export default { render };" in script


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")
def test_the_browsers_code_is_a_module(tmp_path: Path) -> None:
    (tmp_path / "widget.mjs").write_text(bundle.script())
    code = "import('./widget.mjs').then((m) => process.exit(m.default.render ? 0 : 1))"
    subprocess.run(["node", "-e", code], cwd=tmp_path, check=True)
