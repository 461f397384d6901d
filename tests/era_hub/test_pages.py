"""The pages for people: login, headers, and what a forged request gets."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.end_to_end.people import log_in
from tests.running_hub import RunningHub

PAGE = "services/era/"
BID = {"configuration": "gpu-1", "duration": "10m", "value": 9_000_000, "server_name": "forged"}


def test_strangers_are_sent_to_the_login(hub: RunningHub) -> None:
    answer = httpx.get(f"{hub.url}{PAGE}")
    assert answer.status_code == 302
    assert "/hub/api/oauth2/authorize" in answer.headers["Location"]


def test_the_page_comes_after_the_login(hub: RunningHub) -> None:
    with log_in(hub, "ann") as browser:
        page = browser.get(PAGE)
        assert page.status_code == 200
        assert "Your reservations" in page.text
        assert "GPUs are simulated" in page.text
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        # Nothing the session stands on is written into the page.
        for cookie in browser.cookies.jar:
            if cookie.name != "_xsrf":
                assert str(cookie.value) not in page.text
        for script in re.findall(r'src="([^"]+)"', page.text):
            assert browser.get(script).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"X-XSRFToken": "guessed"}])
def test_a_forged_request_is_refused(hub: RunningHub, headers: dict[str, str]) -> None:
    """Cookies alone do not bid: another site could make the browser send them."""
    ann = hub.client("ann")
    with log_in(hub, "ann") as browser:
        browser.get(PAGE)
        mode = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site"}
        answer = browser.post(f"{PAGE}api/v1/reservations", json=BID, headers=headers | mode)
    assert answer.status_code == 401
    assert ann.reservations() == []


def test_the_pages_own_requests_are_taken(hub: RunningHub) -> None:
    ann = hub.client("ann")
    with log_in(hub, "ann") as browser:
        token = re.search(r'name="era-xsrf" content="([^"]+)"', browser.get(PAGE).text)
        assert token
        answer = browser.post(
            f"{PAGE}api/v1/reservations",
            json=BID | {"value": 0},
            headers={"X-XSRFToken": token[1]},
        )
        assert (answer.status_code, answer.json()["accepted"]) == (200, False)
    assert ann.reservations() == []


@pytest.mark.parametrize("path", ["static/../../app.py", "static/%2e%2e/%2e%2e/app.py", "nothing"])
def test_nothing_else_is_served(hub: RunningHub, path: str) -> None:
    with log_in(hub, "ann") as browser:
        assert browser.get(f"{PAGE}{path}").status_code in (403, 404)
