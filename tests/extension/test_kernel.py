"""The widget in a real kernel: it updates itself while a cell runs."""

from __future__ import annotations

import os
import time
from typing import Any

from jupyter_client.manager import start_new_kernel

from era_hub.models import JobState
from tests.extension.fake_service import TOKEN, FakeService, a_job

CELL = """
import threading
from IPython.display import display
from era_extension import Market, feed
feed.LIVE = 0.05
market = Market()
display(market)
stop = threading.Event()
market.observe(lambda change: stop.set(), "files")
print("bu" + "sy", flush=True)
stop.wait(30)
print("fr" + "ee", flush=True)
"""


def test_updates_reach_the_browser_while_a_cell_runs(service: FakeService, tmp_path: Any) -> None:
    service.jobs["3f9c01"] = [a_job()]
    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ}, cwd=str(tmp_path))
    seen: list[str] = []

    def until(fits: Any) -> None:
        limit = time.monotonic() + 20
        while not fits(message := client.get_iopub_msg(timeout=limit - time.monotonic())):
            seen.append(str(message["content"]))
        seen.append(str(message["content"]))

    def said(text: str) -> Any:
        return lambda message: text in str(message["content"])

    try:
        client.execute(CELL)
        until(said("busy\\n"))
        until(said("'state': 'running'"))
        service.jobs["3f9c01"] = [a_job(state=JobState.SUCCEEDED)]
        until(said("'state': 'succeeded'"))
        assert not any("free\\n" in content for content in seen)
        (tmp_path / "new.py").write_text("")  # ends the cell
        until(said("free\\n"))
        client.execute("market.close(); market._background.alive")
        until(lambda message: message["content"].get("data", {}).get("text/plain") == "False")
        assert not any(TOKEN in content for content in seen)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
