"""Take the pictures of the documentation from a running demo.

    .venv/bin/python docs/images/take.py

Needs Chromium (``ERA_CHROMIUM``, or on PATH) and the test tools of `make test`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

HERE = Path(__file__).parent
PORT = 8499
HUB = f"http://127.0.0.1:{PORT}"
BUSY = [  # hours from now, hours long, GPUs: somebody else's bookings
    (0, 3, 3),
    (3, 4, 6),
    (9, 6, 5),
    (20, 3, 6),
]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
BID = """async ([prefix, body]) => {
  const xsrf = document.querySelector('meta[name="era-xsrf"]').content;
  const headers = {"X-XSRFToken": xsrf, "Content-Type": "application/json"};
  const answer = await fetch(prefix + "api/v1/jobs",
    {method: "POST", headers, body: JSON.stringify(body)});
  if (!answer.ok) throw new Error(await answer.text());
}"""


def main() -> None:
    """Start a demo in a folder of its own, act, take pictures, stop it."""
    expect.set_options(timeout=60_000)
    with tempfile.TemporaryDirectory() as folder:
        command = [Path(sys.executable).parent / "era-hub", "demo", "--port", str(PORT)]
        demo = subprocess.Popen([*command, "--dir", folder], stdout=subprocess.PIPE, text=True)
        try:
            password = _password(demo)
            _no_news(Path(folder) / "homes" / "ann")
            with sync_playwright() as playwright:
                chromium = os.environ.get("ERA_CHROMIUM") or shutil.which("chromium")
                browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
                for act in (_bob_books, _ann_works, _admin_looks):
                    size = {"width": 1200, "height": 1000}
                    context = browser.new_context(viewport=size, device_scale_factor=1.5)
                    act(context.new_page(), password)
                browser.close()
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait()


def _password(demo: subprocess.Popen[str]) -> str:
    assert demo.stdout is not None
    for line in demo.stdout:
        if found := re.search(r"Password\s+(\S+)", line):
            return found[1]
    raise SystemExit("the demo did not start")


def _no_news(home: Path) -> None:
    """Answer JupyterLab's question about news before it is asked."""
    plugin = home / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension"
    plugin.mkdir(parents=True)
    (plugin / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')


def _log_in(page: Page, user: str, password: str) -> None:
    page.goto(HUB)
    page.fill("#username_input", user)
    page.fill("#password_input", password)
    page.click("#login_submit")
    page.wait_for_url("**/hub/spawn**")


def _bob_books(page: Page, password: str) -> None:
    """Make a day on which it matters when one asks."""
    _log_in(page, "bob", password)
    page.goto(f"{HUB}/services/era/")
    for begin, length, gpus in BUSY:
        arrival = datetime.now(UTC) + timedelta(hours=begin)
        body = {
            "configuration": f"gpu-{gpus}",
            "duration": f"{length}h",
            "value": 90_000_000,
            "name": "sweep",
            "script": "import time; time.sleep(100000)",
        }
        if begin:
            body |= {"arrival": arrival.isoformat()}
        page.evaluate(BID, ["/services/era/", body])


def _ann_works(page: Page, password: str) -> None:
    _log_in(page, "ann", password)
    page.get_by_label("2 GPUs").check()
    page.get_by_label("For how long?").fill("2")
    page.get_by_label("When must it start?").select_option("Within 12 hours")
    page.get_by_label("For how long?").blur()
    page.screenshot(path=HERE / "spawn-page.png", full_page=True)
    page.get_by_label("When must it start?").select_option("Now, or not at all")
    page.locator("#spawn_form button[type=submit]").click()
    page.wait_for_url("**/user/ann/lab**")
    page.locator(".jp-DirListing-item", has_text="train_digits.ipynb").dblclick()
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    # The cells before it wait for a job, which may begin with the next slot only.
    expect(page.get_by_text("credits to spend")).to_be_visible(timeout=400_000)
    form = page.get_by_role("form", name="Bid for a background job")
    form.scroll_into_view_if_needed()
    form.get_by_label("Script").fill("train_digits.py")
    form.get_by_label("The most you will pay").fill("5")
    time.sleep(3)  # for the widget's next refresh, and the animation of its bars
    page.locator(".jp-OutputArea-output", has=form).screenshot(path=HERE / "widget.png")
    page.goto(f"{HUB}/services/era/")
    expect(page.locator("#ledger table")).to_be_visible()
    page.screenshot(path=HERE / "market-page.png", full_page=True)


def _admin_looks(page: Page, password: str) -> None:
    _log_in(page, "admin", password)
    page.goto(f"{HUB}/services/era/admin")
    expect(page.locator("#accounts table")).to_be_visible()
    page.screenshot(path=HERE / "admin-page.png")


if __name__ == "__main__":
    main()
