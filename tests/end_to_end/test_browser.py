"""What people click: spawn page, JupyterLab with the widget, and the market's own page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from era_hub import models
from era_hub.admin_models import CreditsGrant, PayerPolicyRequest
from era_hub.client.admin import AdminClient
from era_hub.models import JobState, Kind, State
from tests.end_to_end.people import faults_of, launch, log_in_page
from tests.running_hub import FAST, RunningHub, until

EXAMPLES = Path(__file__).parents[2] / "examples"
MILLION = 1_000_000
pytestmark = pytest.mark.browser
# Kernels and servers start meanwhile, on machines that may be slow.
expect.set_options(timeout=60_000)

WIDGET = """{
 "cells": [{"cell_type": "code", "execution_count": null, "id": "one", "metadata": {},
   "outputs": [], "source": ["from era_extension import Market\\n", "Market()"]}],
 "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python",
   "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    folder = tmp_path_factory.mktemp("browser")
    home = folder / "homes" / "ann"
    home.mkdir(parents=True)
    shutil.copy(EXAMPLES / "train_digits.py", home)
    (home / "widget.ipynb").write_text(WIDGET)
    with RunningHub(folder, options=FAST) as running:
        yield running


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = launch(playwright, chromium)
        made = browser.new_page(viewport={"width": 1200, "height": 1000})
        made.set_default_timeout(60_000)
        faults = faults_of(made)
        yield made
        browser.close()
        assert not faults


def headline(page: Page) -> str:
    return page.inner_text("#era-headline")


def test_a_notebook_and_a_job_by_hand(hub: RunningHub, page: Page) -> None:
    ann = hub.client("ann")
    log_in_page(page, hub, "ann")
    expect(page.get_by_text("these 8 GPUs are simulated")).to_be_visible()
    expect(page.get_by_text("100.00 credits")).to_be_visible()

    # The total follows what is typed.
    page.get_by_label("1 GPU").check()
    page.get_by_label("For how long?").fill("1")
    one = re.search(r"costs ([\d.]+) credits", headline(page))
    page.get_by_label("2 GPUs").check()
    page.get_by_label("For how long?").fill("2")
    two = re.search(r"costs ([\d.]+) credits", headline(page))
    assert one and two
    assert float(two[1]) == pytest.approx(4 * float(one[1]), abs=0.02)
    expect(page.locator("#era-chart svg")).to_be_visible()
    expect(page.get_by_text("likely price if you reserve later")).to_be_visible()
    chart = page.locator("#era-chart").get_by_role("img")
    expect(chart).to_have_accessible_name(re.compile("Reserved later, an hour is expected to cost"))

    # The reservation confirms the price that was shown.
    page.get_by_role("button", name="Start now").click()
    page.wait_for_url("**/user/ann/lab**")
    [notebook] = ann.reservations(kind=Kind.NOTEBOOK)
    assert notebook.price / MILLION == pytest.approx(float(two[1]), abs=0.01)
    assert notebook.state is State.ACTIVE

    # The widget: prices, a bid, and the job's progress and log as it runs.
    page.locator(".jp-DirListing-item", has_text="widget.ipynb").dblclick()
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible()
    page.locator(".jp-NotebookPanel .jp-CodeCell").first.click()
    page.keyboard.press("Shift+Enter")
    form = page.get_by_role("form", name="Bid for a background job")
    expect(form.get_by_text("Total now")).to_be_visible()
    expect(page.locator(".jp-OutputArea svg").first).to_be_visible()
    form.get_by_label("Script").fill("train_digits.py")
    form.get_by_label("Duration", exact=True).fill("5")
    form.get_by_label("The most you will pay").fill("0.000001")
    expect(form.get_by_text("the market would decline")).to_be_visible()
    form.get_by_role("button", name="Submit").click()
    expect(form.get_by_role("status")).to_contain_text("more than the most you would pay")
    assert ann.jobs() == []
    form.get_by_label("The most you will pay").fill("5")
    form.get_by_role("button", name="Submit").click()
    jobs = page.get_by_role("region", name="Your jobs")
    row = jobs.get_by_role("listitem").first
    expect(row).to_contain_text("train_digits.py")
    row.get_by_text("Log").click()
    expect(row.get_by_role("log")).to_contain_text("accuracy")
    expect(row).to_contain_text("succeeded")
    assert ann.jobs()[0].state is JobState.SUCCEEDED

    # Cancelling asks once more.
    form.get_by_label("Run").select_option("Python code")
    form.get_by_label("Code").fill("import time\nprint('on', flush=True)\ntime.sleep(300)")
    form.get_by_role("button", name="Submit").click()
    second = jobs.get_by_role("listitem").first
    expect(second).to_contain_text("running")
    second.get_by_role("button", name=re.compile("^Cancel")).click()
    second.get_by_role("button", name="Yes, stop it").click()
    expect(second).to_contain_text("cancelled")
    assert ann.jobs()[0].state is JobState.CANCELLED

    # The market's page: what runs, and giving it back stops the server.
    page.goto(f"{hub.url}services/era/")
    line = page.locator(f"#reservation-{notebook.id}")
    expect(line).to_contain_text("active")
    expect(page.locator("#ledger")).to_contain_text("starting grant")
    page.once("dialog", lambda dialog: dialog.accept())
    line.get_by_role("button", name="Release").click()
    expect(line).to_contain_text("released")
    hub.until_gone("ann")


def test_too_low_and_for_later(hub: RunningHub, page: Page) -> None:
    bob = hub.client("bob")
    log_in_page(page, hub, "bob")
    page.get_by_label("Pay at most").fill("0.000001")
    expect(page.locator("#era-total")).to_contain_text("declined")
    page.locator("#spawn_form button[type=submit]").click()
    expect(page.locator(".spawn-error-msg")).to_contain_text("credits")
    assert bob.reservations() == []

    # Somebody else has all GPUs: the page says when it will start, and it starts then.
    ann = hub.client("ann")
    blocker = until(
        lambda: (
            ann.submit(
                models.JobRequest(
                    configuration="gpu-8",
                    duration="20s",
                    value=50 * MILLION,
                    script="import time; time.sleep(60)",
                )
            ).job
        ),
        30,
        "8 free GPUs",
    )
    page.goto(f"{hub.url}hub/spawn")
    page.get_by_label("1 GPU").check()
    page.get_by_label("For how long?").fill("0.25")
    page.get_by_label("When must it start?").select_option("Within 1 hour")
    page.get_by_label("Pay at most").fill("20")
    page.locator("#spawn_form button[type=submit]").click()
    notice = page.locator(".spawn-error-msg")
    expect(notice).to_contain_text("start")
    [waiting] = bob.reservations(current=True)
    assert waiting.start >= blocker.reservation.end
    link = notice.get_by_role("link").first
    link.click()
    expect(page.locator(f"#reservation-{waiting.id}")).to_be_visible()
    hub.until_ready("bob")
    assert bob.reservation(waiting.id).state is State.ACTIVE
    hub.stop_server("bob")
    hub.until_gone("bob")


def test_the_page_of_somebody_new_and_on_a_phone(hub: RunningHub, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    log_in_page(page, hub, "anna")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto(f"{hub.url}services/era/")
    expect(page.locator("#balance")).to_have_text("100.00")
    chart = page.locator("#chart").get_by_role("img")
    expect(chart).to_have_accessible_name(re.compile("8 times in 10 between"))
    chart.hover(position={"x": 340, "y": 60})
    expect(page.get_by_text("reserved later:")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # No token is on the page: nothing there opens the API.
    html = page.content()
    for token in set(re.findall(r"[0-9a-f]{32,}", html)):
        client = hub.client_with(token)
        with pytest.raises(Exception, match="log in"):
            client.account()


@pytest.fixture(scope="module")
def lab(hub: RunningHub) -> str:
    """A group of ann's with credits, which pays for her where she does not choose."""
    admin = AdminClient(f"{hub.url}services/era", hub.user_token("admin"))
    admin.give(CreditsGrant(kind="group", name="lab", amount=50 * MILLION, memo="for the lab"))
    admin.set_policy(PayerPolicyRequest(kind="user", name="ann", pays="group:lab"))
    return "group:lab"


def test_who_pays_is_chosen_where_there_is_a_choice(hub: RunningHub, page: Page, lab: str) -> None:
    ann = hub.client("ann")
    log_in_page(page, hub, "ann")
    payer = page.get_by_label("Who pays?")
    expect(payer).to_have_value(lab)
    expect(payer.get_by_role("option")).to_contain_text(["You (", "Group lab ("])
    page.get_by_label("1 GPU").check()
    page.get_by_label("For how long?").fill("6")
    page.get_by_label("Pay at most").fill("60")
    payer.select_option("own")
    page.get_by_role("button", name="Start now").click()
    page.wait_for_url("**/user/ann/lab**")
    [made] = ann.reservations(current=True, kind=Kind.NOTEBOOK)
    assert made.account == "own"

    page.goto(f"{hub.url}services/era/")  # JupyterLab complains when its server stops
    hub.stop_server("ann")
    hub.until_gone("ann")
    page.goto(f"{hub.url}hub/spawn")
    expect(payer).to_have_value(lab)
    page.get_by_label("For how long?").fill("6")
    page.get_by_role("button", name="Start now").click()
    page.wait_for_url("**/user/ann/lab**")
    [made] = ann.reservations(current=True, kind=Kind.NOTEBOOK)
    assert made.account == lab

    # The page: more time at a price that is shown first, from the account that has paid.
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(f"{hub.url}services/era/")
    line = page.locator(f"#reservation-{made.id}")
    line.get_by_role("button", name="Extend").click()
    dialog = page.get_by_role("dialog", name="More time")
    dialog.get_by_label("For how long?").fill("soon")
    expect(dialog.get_by_role("alert")).to_contain_text("'soon' is not a duration")
    expect(dialog.get_by_role("button", name="Extend")).to_be_disabled()
    dialog.get_by_label("For how long?").fill("2h")
    go = dialog.get_by_role("button", name=re.compile(r"Extend for [\d.]+ credits"))
    expect(go).to_be_enabled()
    expect(dialog).to_contain_text("paid by lab")
    assert ann.reservation(made.id).end == made.end
    before = ann.accounts()[1].balance
    go.click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#done")).to_contain_text("Extended until")
    assert (ann.reservation(made.id).end - made.end).total_seconds() == 7200
    assert ann.accounts()[1].balance < before

    # The ledgers: the own one, and the group's, in words and with a link.
    expect(page.locator("#ledger")).to_contain_text("Received: starting grant")
    page.get_by_label("Account of").select_option("the group lab")
    first = page.locator("#ledger tbody tr").first
    expect(first).to_contain_text("Extended gpu-1 by 2 h; held until it ends")
    expect(first).to_contain_text("−")
    expect(first.get_by_role("link")).to_have_attribute("href", f"#reservation-{made.id}")
    expect(page.locator("#ledger")).to_contain_text("Received from an admin: for the lab")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def eight_gpus(begin: datetime) -> models.JobRequest:
    """A job that needs all of them for ten minutes, then or never."""
    return models.JobRequest(
        configuration="gpu-8",
        duration="10m",
        value=90 * MILLION,
        script="print(1)",
        arrival=begin,
        deadline=begin + timedelta(minutes=10),
    )


def test_an_extension_that_is_declined_says_why(hub: RunningHub, page: Page) -> None:
    """Somebody was faster: what was shown is not there any more, and nothing is paid."""
    bob = hub.client("bob")
    begin = datetime.now(UTC) + timedelta(hours=12)
    mine = bob.submit(eight_gpus(begin)).job
    assert mine is not None
    log_in_page(page, hub, "bob")
    page.goto(f"{hub.url}services/era/")
    page.locator(f"#reservation-{mine.id}").get_by_role("button", name="Extend").click()
    dialog = page.get_by_role("dialog", name="More time")
    dialog.get_by_label("For how long?").fill("10m")
    go = dialog.get_by_role("button", name=re.compile("Extend for"))
    expect(go).to_be_enabled()
    later = mine.reservation.end + timedelta(minutes=1)
    faster = hub.client("anna").submit(eight_gpus(later))
    assert faster.accepted
    go.click()
    expect(dialog.get_by_role("alert")).to_contain_text("Not extended:")
    expect(dialog.get_by_role("button", name="Extend")).to_be_disabled()
    assert bob.job(mine.id).reservation.end == mine.reservation.end
    dialog.get_by_role("button", name="Not now").click()
    expect(dialog).to_be_hidden()
    bob.cancel_job(mine.id)
