"""The admins' page: who may see it, and changes that are shown before they are made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from era_hub.models import ReservationRequest
from tests.end_to_end.people import faults_of, launch, log_in, log_in_page
from tests.running_hub import RunningHub

PAGE = "services/era/admin"
MILLION = 1_000_000


def ask(hub: RunningHub, path: str) -> Any:
    """What the REST API answers an admin."""
    headers = {"Authorization": f"token {hub.user_token('admin')}"}
    answer = httpx.get(f"{hub.url}services/era/api/v1/admin/{path}", headers=headers)
    assert answer.is_success, answer.text
    return answer.json()


def balance(hub: RunningHub, name: str) -> int | None:
    items = ask(hub, f"accounts?search={name}")["items"]
    return next((each["balance"] for each in items if each["name"] == name), None)


# -- who may see it ----------------------------------------------------------------------


def test_strangers_are_sent_to_the_login(hub: RunningHub) -> None:
    answer = httpx.get(f"{hub.url}{PAGE}")
    assert answer.status_code == 302
    assert "/hub/api/oauth2/authorize" in answer.headers["Location"]


def test_users_see_neither_the_page_nor_the_way_to_it(hub: RunningHub) -> None:
    with log_in(hub, "ann") as browser:
        home = browser.get("services/era/")
        assert home.status_code == 200
        assert "services/era/admin" not in home.text
        refused = browser.get(PAGE)
        assert refused.status_code == 403
        assert "Only admins of the market may see this page." in refused.text
        assert "admin.js" not in refused.text


def test_admins_find_it_from_their_own_page(hub: RunningHub) -> None:
    with log_in(hub, "admin") as browser:
        assert 'href="/services/era/admin"' in browser.get("services/era/").text
        page = browser.get(PAGE)
        assert page.status_code == 200
        policy = page.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        scripts = re.findall(r"<script\b[^>]*>", page.text)
        assert scripts and all(' src="/services/era/static/' in each for each in scripts)


# -- in a browser ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(hub: RunningHub, chromium: str) -> Iterator[Page]:
    """An admin's browser, far from UTC."""
    hub.client("ann").account()
    with sync_playwright() as playwright:
        browser = launch(playwright, chromium)
        made = browser.new_page(
            viewport={"width": 1200, "height": 1000}, timezone_id="Asia/Kolkata"
        )
        log_in_page(made, hub, "admin")
        yield made
        browser.close()


@pytest.fixture
def page(hub: RunningHub, opened: Page) -> Iterator[Page]:
    faults = faults_of(opened)
    opened.goto(f"{hub.url}{PAGE}")
    expect(opened.locator("#accounts table")).to_be_visible()
    yield opened
    assert not faults


def form(page: Page, title: str) -> Locator:
    return page.get_by_role("form", name=title)


def row(page: Page, section: str, text: str) -> Locator:
    return page.locator(f"#{section} tbody tr", has_text=text)


def preview(page: Page, title: str) -> Locator:
    """Send a form; the dialog that says what it would do."""
    form(page, title).get_by_role("button", name="Preview").click()
    dialog = page.get_by_role("dialog", name="What this does")
    expect(dialog).to_be_visible()
    return dialog


def confirm(page: Page) -> None:
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


CREDITS = "Grant or withdraw credits, or allow an overdraft"


@pytest.mark.browser
def test_credits_are_granted_when_what_that_does_was_seen(hub: RunningHub, page: Page) -> None:
    before = balance(hub, "ann")
    assert before is not None
    credits = form(page, CREDITS)
    credits.get_by_label("Name").fill("ann")
    # As a float, 1.005 credits are less than 1005000 micro-credits.
    credits.get_by_label("Credits").fill("1.005")
    credits.get_by_label("Memo").fill("for the workshop")
    dialog = preview(page, CREDITS)
    expect(dialog).to_contain_text("ann's balance")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert balance(hub, "ann") == before

    preview(page, CREDITS)
    assert balance(hub, "ann") == before
    with page.expect_request(lambda request: request.method == "POST") as sent:
        confirm(page)
    assert re.fullmatch(r"[0-9a-f-]{36}", sent.value.headers["idempotency-key"])
    expect(credits.get_by_role("alert")).to_contain_text("Done: ann's balance")
    expect(credits.get_by_label("Name")).to_have_value("")
    assert balance(hub, "ann") == before + 1_005_000
    expect(row(page, "accounts", "ann").first).to_contain_text(f"{before // MILLION + 1}.0")
    line = row(page, "audit", "credits.grant").first
    expect(line).to_contain_text("admin:admin")
    expect(line).to_contain_text("user:ann")


@pytest.mark.browser
def test_a_lost_answer_does_not_grant_twice(hub: RunningHub, page: Page) -> None:
    before = balance(hub, "ann")
    assert before is not None
    credits = form(page, CREDITS)
    credits.get_by_label("Name").fill("ann")
    credits.get_by_label("Credits").fill("2")
    dialog = preview(page, CREDITS)
    # The change is made, and nobody hears of it.
    page.route("**/account/grant", lambda route: (route.fetch(), route.abort()), times=1)
    dialog.get_by_role("button", name="Confirm").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Confirm to try again")
    confirm(page)
    expect(credits.get_by_role("alert")).to_contain_text("Done")
    assert balance(hub, "ann") == before + 2 * MILLION


@pytest.mark.browser
@pytest.mark.parametrize(
    ("what", "amount", "lapse", "problem"),
    [
        ("Grant", "0", "", "amount: "),
        ("Grant", "1,000", "", "Credits: write credits as 2.50"),
        ("Grant", "5", "soon", "'soon' is not a duration"),
        ("Withdraw", "", "", "Credits: say how many"),
        ("Allow to overdraw by", "5", "7d", "Lapse after: only what is granted lapses"),
    ],
)
def test_what_is_refused_is_said_beside_the_form(
    hub: RunningHub, page: Page, what: str, amount: str, lapse: str, problem: str
) -> None:
    before, audit = balance(hub, "ann"), ask(hub, "audit")
    credits = form(page, CREDITS)
    credits.get_by_label("What").select_option(what)
    credits.get_by_label("Name").fill("ann")
    credits.get_by_label("Credits").fill(amount)
    credits.get_by_label("Lapse after").fill(lapse)
    credits.get_by_role("button", name="Preview").click()
    expect(credits.get_by_role("alert")).to_contain_text(problem)
    expect(page.get_by_role("dialog")).to_be_hidden()
    # What was typed stays, to be put right.
    expect(credits.get_by_label("Name")).to_have_value("ann")
    assert (balance(hub, "ann"), ask(hub, "audit")) == (before, audit)


@pytest.mark.browser
def test_an_overdraft_is_allowed_and_an_account_shows_its_entries(
    hub: RunningHub, page: Page
) -> None:
    credits = form(page, CREDITS)
    credits.get_by_label("What").select_option("Allow to overdraw by")
    credits.get_by_label("Name").fill("ann")
    credits.get_by_label("Credits").fill("7.5")
    expect(preview(page, CREDITS)).to_contain_text("ann can spend")
    confirm(page)
    line = row(page, "accounts", "user ann").first
    expect(line).to_contain_text("7.50")
    expect(row(page, "audit", "overdraft.set").first).to_contain_text("overdraft: 0.00 → 7.50")
    line.get_by_role("button", name="Entries").click()
    expect(page.get_by_role("heading", name="Entries of user ann")).to_be_focused()
    expect(row(page, "entries", "starting grant")).to_contain_text("100.00")


@pytest.mark.browser
def test_who_pays_is_set_changed_and_forgotten(hub: RunningHub, page: Page) -> None:
    title = "Set who pays"
    policy = form(page, title)
    policy.get_by_label("Name").fill("lab/vision")
    policy.get_by_label("Paid by the group").fill("lab/vision")
    policy.get_by_label("Rank").fill("2")
    expect(preview(page, title)).to_contain_text("paid by the group lab/vision")
    confirm(page)
    line = row(page, "policies", "members of lab/vision")
    expect(line).to_contain_text("group lab/vision")

    line.get_by_role("button", name="Change").click()
    policy.get_by_label("Paid by the group").fill("")
    preview(page, title)
    confirm(page)
    expect(line).to_contain_text("their own account")
    [stored] = ask(hub, "policies")
    assert (stored["pays"], stored["rank"], stored["version"]) == ("own", 2, 2)
    line.get_by_role("button", name="Remove").click()
    confirm(page)
    expect(line).to_have_count(0)
    assert ask(hub, "policies") == []


@pytest.mark.browser
def test_a_quota_is_set_changed_and_removed(hub: RunningHub, page: Page) -> None:
    title = "Set a quota"
    quota = form(page, title)
    quota.get_by_label("For").select_option("each member of a group")
    quota.get_by_label("Name").fill("lab/vision")
    quota.get_by_label("GPUs at once").fill("4")
    quota.get_by_label("GPU-hours").fill("500")
    quota.get_by_label("in each period of").fill("30d")
    preview(page, title)
    confirm(page)
    line = row(page, "quotas", "each member of lab/vision")
    expect(line).to_contain_text("500 in 30d")

    line.get_by_role("button", name="Change").click()
    expect(quota.get_by_label("in each period of")).to_have_value("30d")
    quota.get_by_label("GPUs at once").fill("3")
    preview(page, title)
    confirm(page)
    expect(line.locator("td").nth(1)).to_have_text("3")
    [stored] = ask(hub, "quotas")
    assert (stored["gpus"], stored["gpu_seconds"], stored["period"]) == (3, 1_800_000, 2_592_000)

    # Typed as if it were new, it would lift the limits that are not typed again.
    quota.get_by_label("For").select_option("each member of a group")
    quota.get_by_label("Name").fill("lab/vision")
    quota.get_by_label("GPUs at once").fill("9")
    quota.get_by_role("button", name="Preview").click()
    expect(quota.get_by_role("alert")).to_contain_text("look again")
    assert ask(hub, "quotas") == [stored]

    line.get_by_role("button", name="Remove").click()
    confirm(page)
    expect(line).to_have_count(0)
    assert ask(hub, "quotas") == []


@pytest.mark.browser
def test_a_standing_grant_is_planned_and_ended(hub: RunningHub, page: Page) -> None:
    title = "Plan a grant"
    grant = form(page, title)
    grant.get_by_label("For").select_option("every user")
    expect(grant.get_by_label("Name")).to_be_disabled()
    grant.get_by_label("Credits each time").fill("2.50")
    grant.get_by_label("Every", exact=True).fill("7d")
    grant.get_by_label("First time").fill("2035-01-01T00:00")
    grant.get_by_label("Top up to").fill("100")
    preview(page, title)
    confirm(page)
    line = row(page, "grants", "every user")
    expect(line).to_contain_text("2.50")
    expect(line).to_contain_text("7d")
    [stored] = ask(hub, "grants")
    assert (stored["amount"], stored["cap"]) == (2_500_000, 100 * MILLION)
    line.get_by_role("button", name="End").click()
    confirm(page)
    expect(line).to_have_count(0)
    assert ask(hub, "grants") == []


@pytest.mark.browser
def test_the_pool_and_its_maintenance(hub: RunningHub, page: Page) -> None:
    pool = form(page, "Prices and capacity")
    pool.get_by_label("GPUs held back").fill("2")
    pool.get_by_label("Lowest price").fill("0.5")
    preview(page, "Prices and capacity")
    confirm(page)
    expect(page.locator("#pool-now")).to_contain_text("6 of 8 GPUs are for sale")
    expect(pool.get_by_label("Lowest price")).to_have_value("0.50")
    settings = ask(hub, "pool")
    assert (settings["held_back"], settings["price_floor"]) == (2, 500_000)
    assert settings["price_ceiling"] is None

    title = "Plan maintenance"
    window = form(page, title)
    window.get_by_label("Start").fill("2035-03-01T18:00")
    window.get_by_label("End").fill("2035-03-01T22:00")
    window.get_by_label("Reason").fill("new cooling")
    preview(page, title)
    confirm(page)
    line = row(page, "windows", "new cooling")
    expect(line).to_contain_text("18:00")
    [stored] = ask(hub, "maintenance")
    start = datetime.fromisoformat(stored["start"])
    assert start == datetime.fromisoformat("2035-03-01T18:00+05:30")
    line.get_by_role("button", name="Drop").click()
    confirm(page)
    expect(line).to_have_count(0)
    assert ask(hub, "maintenance") == []


@pytest.mark.browser
def test_who_holds_what_is_listed(hub: RunningHub, page: Page) -> None:
    ann = hub.client("ann")
    request = ReservationRequest(
        configuration="gpu-1", duration=1800, value=50 * MILLION, server_name="seen"
    )
    outcome = ann.reserve(request)
    assert outcome.reservation is not None
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)
    line = row(page, "holders", "ann")
    line.get_by_text("1 reservation").click()
    expect(line.get_by_role("listitem")).to_contain_text("gpu-1")
    # Today's bids in sums, of which none is shown by itself.
    [today] = ask(hub, "demand?days=1")["days"]
    told = [str(today["bids"]), str(today["declined"])]
    assert page.locator("#demand tbody td").all_inner_texts()[1:3] == told
    assert today["turned_away"] is None


@pytest.mark.browser
def test_a_phone_shows_tables_as_lists_and_nothing_is_cut_off(page: Page) -> None:
    size = page.viewport_size
    assert size
    page.set_viewport_size({"width": 390, "height": 800})
    try:
        wide = "document.documentElement.scrollWidth"
        assert page.evaluate(wide) == 390
        tables = page.locator(".scroll")
        expect(tables.nth(1)).to_be_attached()
        assert max(tables.evaluate_all("all => all.map((each) => each.scrollWidth)")) < 390
        # Each value beside its column's name, which no header row tells any more.
        cell = row(page, "accounts", "ann").first.locator("td").nth(1)
        shown = cell.evaluate("cell => getComputedStyle(cell, '::before').content")
        headings = page.locator("#accounts thead th").all_inner_texts()
        assert shown.strip('"') in headings
        lefts = page.locator("#quota label").evaluate_all(
            "labels => labels.map((each) => each.getBoundingClientRect().left)"
        )
        assert len(lefts) > 5 and len(set(lefts)) == 1
    finally:
        page.set_viewport_size(size)


@pytest.mark.browser
def test_every_input_has_a_label_and_the_keyboard_is_enough(page: Page) -> None:
    unlabelled = page.locator("input:not([type=hidden]), select").evaluate_all(
        "inputs => inputs.filter((each) => !each.labels.length).map((each) => each.outerHTML)"
    )
    assert unlabelled == []
    name = form(page, CREDITS).get_by_label("Name")
    name.fill("ann")
    form(page, CREDITS).get_by_label("Credits").fill("3")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(form(page, CREDITS).get_by_label("Credits")).to_be_focused()
