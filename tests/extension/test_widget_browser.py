"""The browser's side of the widget, in a real browser, with a model of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from era_extension import bundle, snapshot
from era_hub.models import JobState
from tests.extension.fake_service import (
    a_job,
    a_market,
    a_reservation,
    an_account,
    an_own_account,
)

pytestmark = pytest.mark.browser

HOST = """
const state = JSON.parse(stateText);
const listeners = new Map();
window.sent = [];
const emit = (name, value) => (listeners.get(name) ?? []).forEach((f) => f(value));
window.model = {
  get: (name) => state[name],
  on: (name, f) => listeners.set(name, [...(listeners.get(name) ?? []), f]),
  off: (name, f) => listeners.set(name, (listeners.get(name) ?? []).filter((g) => g !== f)),
  send: (message) => window.sent.push(message),
};
window.change = (text) => {
  Object.assign(state, JSON.parse(text));
  emit("change:now");
  emit("change");
};
window.answer = (answer) => emit("msg:custom", answer);
const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
const widget = (await import(url)).default;
window.leave = widget.render({ model: window.model, el: document.body });
"""


@pytest.fixture(scope="module")
def pages(chromium: str) -> Iterator[Callable[[], Page]]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page
        browser.close()


def a_state(**fields: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    market = a_market(now=now, first_slot=now - timedelta(minutes=2))
    return {
        "now": snapshot.milliseconds(now),
        "market": snapshot.market_state(market),
        "account": snapshot.account_state(an_account()),
        "accounts": snapshot.accounts_state([an_own_account()]),
        "jobs": snapshot.jobs_state([a_job()]),
        "notebook": {},
        "notices": [],
        "files": ["train.py"],
        "logs": {},
        "error": "",
        **fields,
    }


@pytest.fixture
def page(pages: Callable[[], Page]) -> Iterator[Page]:
    page = pages()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: r.url.startswith("http") and faults.append(r.url))
    page.add_style_tag(content=bundle.static("market_widget.css"))
    script = f"async ([source, stateText]) => {{ {HOST} }}"
    page.evaluate(script, [bundle.script(), json.dumps(a_state())])
    yield page
    page.close()
    assert faults == []


def change(page: Page, **fields: Any) -> None:
    page.evaluate("(text) => change(text)", json.dumps(fields))


def last_sent(page: Page) -> dict[str, Any]:
    return page.evaluate("sent.at(-1)")


def test_what_is_shown(page: Page) -> None:
    expect(page.get_by_text("12.50 credits")).to_be_visible()
    expect(page.get_by_text("simulated GPUs")).to_be_visible()
    expect(page.locator(".era-chart svg")).to_be_visible()
    assert page.get_by_role("progressbar").get_attribute("value") == "0.25"
    assert page.evaluate("sent[0].do") == "hello"
    end = snapshot.milliseconds(datetime.now(UTC) + timedelta(minutes=5))
    change(page, notebook={"id": "n", "configuration": "one-gpu", "end": end})
    expect(page.get_by_text("This notebook's time on one-gpu ends at")).to_contain_text("in 0:0")
    change(page, notices=[{"id": "1", "level": "warning", "text": "Save your work."}])
    expect(page.get_by_text("Save your work.")).to_be_visible()
    change(page, error="Restarting.")
    expect(page.get_by_role("alert")).to_have_text("Restarting.")
    page.evaluate("leave()")
    assert last_sent(page)["do"] == "bye"


def test_how_firm_the_start_is(page: Page) -> None:
    page.get_by_label("Configuration").select_option("one-gpu")
    total = page.get_by_text("Total now:")
    expect(total).not_to_contain_text("at most")
    page.get_by_label("Its start").select_option("preemptible")
    expect(total).to_contain_text("Total now: at most")


def test_the_chart_shows_what_to_expect_later(page: Page) -> None:
    page.get_by_label("Configuration").select_option("one-gpu")
    chart = page.locator(".era-chart")
    picture = chart.get_by_role("img")
    expect(chart.get_by_text("price if you reserve now")).to_be_visible()
    expect(chart.get_by_text("likely price if you reserve later (8 times in 10)")).to_be_visible()
    expect(picture).to_have_accessible_name(re.compile("8 times in 10 between 0.4. and 1.3."))
    # One shape on each side of the hours that are sold out.
    band = chart.locator("path.era-later").get_attribute("d")
    assert band is not None and band.count("Z") == 2
    # What is expected is what it costs now: no second line for that.
    expect(chart.locator("path.era-expected")).to_have_count(0)
    picture.hover(position={"x": 80, "y": 60})
    expect(chart.get_by_text("reserved later: likely 0.60 to 1.80")).to_be_visible()
    picture.focus()
    page.keyboard.press("ArrowRight")
    spoken = chart.locator("[aria-live]")
    expect(spoken).to_contain_text("per hour, reserved later: likely 0.60 to 1.80")


def test_another_price_later_is_a_line_of_its_own(page: Page) -> None:
    market = a_state()["market"]
    for one in market["configurations"]:
        one["forecast"]["expected"] = [p and 2 * p for p in one["prices"]]
        one["forecast"]["high"] = [p and 3 * p for p in one["prices"]]
    change(page, market=market)
    chart = page.locator(".era-chart")
    expect(chart.locator("path.era-expected")).to_have_count(1)
    expect(chart.get_by_text("expected price if you reserve later")).to_be_visible()


def test_without_a_forecast_the_chart_shows_prices_alone(page: Page) -> None:
    market = a_state()["market"]
    for one in market["configurations"]:
        one["forecast"] = None
    change(page, market=market)
    chart = page.locator(".era-chart")
    expect(chart.get_by_text("price", exact=True)).to_be_visible()
    expect(chart.locator("path.era-later")).to_have_count(0)
    name = chart.get_by_role("img").get_attribute("aria-label")
    assert name is not None and "Reserved later" not in name


def test_the_total_follows_the_form(page: Page) -> None:
    total = page.locator(".era-total")
    page.get_by_label("Configuration").select_option("one-gpu")
    page.get_by_label("Duration", exact=True).fill("30")
    page.get_by_label("Finish by").fill("")
    expect(total).to_contain_text("Total now: 0.60 credits")
    page.get_by_label("Duration", exact=True).fill("1")
    page.get_by_label("Unit of the duration").select_option("hours")
    expect(total).to_contain_text("1.20 credits")
    page.get_by_label("The most you will pay").fill("1")
    expect(total).to_contain_text("the market would decline")
    # The second half of the chart is cheaper.
    late = (datetime.now() + timedelta(hours=20)).strftime("%Y-%m-%dT%H:%M")  # noqa: DTZ005
    page.get_by_label("Finish by").fill(late)
    expect(total).to_contain_text("0.60 credits")
    page.get_by_label("Duration", exact=True).fill("100")
    expect(total).to_contain_text("Nothing in the coming 24 hours fits")


def test_submitting(page: Page) -> None:
    page.get_by_label("Script", exact=True).fill("train.py")
    page.get_by_label("Configuration").select_option("two-gpus")
    page.get_by_label("Finish by").fill("")
    page.get_by_label("The most you will pay").fill("2.5")
    page.get_by_role("button", name="Submit").click()
    message = last_sent(page)
    assert message["do"] == "submit"
    assert message["form"] == {
        "kind": "file",
        "text": "train.py",
        "name": "",
        "configuration": "two-gpus",
        "duration": 1800,
        "deadline": None,
        "value": "2.5",
        "commitment": "flexible",
        "account": "",
    }
    page.evaluate("(re) => answer({ re, ok: false, text: 'No <b>.' })", message["id"])
    expect(page.get_by_text("No <b>.")).to_be_visible()
    page.get_by_label("Run").first.select_option("code")
    page.get_by_label("Code").fill("print(1)")
    page.get_by_role("button", name="Submit").click()
    assert last_sent(page)["form"]["text"] == "print(1)"


def test_who_pays_is_asked_where_there_is_a_choice(page: Page) -> None:
    form = page.get_by_role("form", name="Bid for a background job")
    payer = form.get_by_label("Who pays")
    expect(payer).to_be_hidden()
    own, lab = an_own_account(default=False), an_own_account(account="group:lab")
    page.evaluate(
        "text => change(text)", json.dumps({"accounts": snapshot.accounts_state([own, lab])})
    )
    expect(payer).to_have_value("group:lab")
    expect(payer.get_by_role("option")).to_have_text(
        ["You (12.50 credits)", "Group lab (12.50 credits)"]
    )
    payer.select_option("own")
    # A later look at the market leaves the choice as it is.
    richer = own.model_copy(update={"balance": 13_000_000})
    news = {"accounts": snapshot.accounts_state([richer, lab])}
    page.evaluate("text => change(text)", json.dumps(news))
    expect(payer).to_have_value("own")
    form.get_by_label("Script").fill("train.py")
    form.get_by_label("The most you will pay").fill("5")
    form.get_by_role("button", name="Submit").click()
    sent = page.evaluate("sent.find((message) => message.do === 'submit')")
    assert sent["form"]["account"] == "own"


def test_cancelling_asks_first(page: Page) -> None:
    page.get_by_role("button", name="Cancel train.py").press("Enter")
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Cancel train.py")).to_be_focused()
    assert last_sent(page)["do"] == "hello"
    page.get_by_role("button", name="Cancel train.py").click()
    page.get_by_role("button", name="Yes, stop it").click()
    assert (last_sent(page)["do"], last_sent(page)["job"]) == ("cancel", "3f9c01")
    change(page, jobs=snapshot.jobs_state([a_job(state=JobState.CANCELLED)]))
    expect(page.get_by_role("button", name="Cancel train.py")).to_be_hidden()


def test_logs_open_and_stay_open(page: Page) -> None:
    page.get_by_text("Log", exact=True).click()
    page.wait_for_function("sent.at(-1).do === 'log'")
    assert last_sent(page) == {"do": "log", "job": "3f9c01", "open": True}
    text = "<img src=x onerror=alert(1)>\n" + "line\n" * 200
    change(page, logs={"3f9c01": text})
    log = page.get_by_role("log")
    expect(log).to_contain_text("<img src=x")
    assert log.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight < 24")
    newer = a_job("77aa", name="<script>", reservation=a_reservation(id="77aa"))
    change(page, jobs=snapshot.jobs_state([newer, a_job()]))
    expect(log).to_be_visible()
    assert page.locator(".era-jobs strong").all_text_contents() == ["<script>", "train.py"]


def test_every_control_has_a_name(page: Page) -> None:
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, select, textarea')]"
        ".filter((e) => !e.labels?.length && !e.ariaLabel).length"
    )
    assert nameless == 0
