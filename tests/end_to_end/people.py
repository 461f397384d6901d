"""What a person does with a browser or a notebook, as far as tests need it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urljoin

import httpx
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.running_hub import RunningHub

PASSWORD = "market"
# Chromium as root, and without looking for a network that may not be there.
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launch(playwright: Playwright, chromium: str) -> Browser:
    return playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)


def faults_of(page: Page) -> list[str]:
    """A list to which are added the errors of a page's scripts, and what its policy forbids."""
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))

    def hear(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            faults.append(message.text)

    page.on("console", hear)
    return faults


def log_in_page(page: Page, hub: RunningHub, user: str) -> None:
    """Through the hub's login form in a browser."""
    page.goto(hub.url)
    page.fill("#username_input", user)
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    page.wait_for_url("**/hub/spawn**")


@contextmanager
def log_in(hub: RunningHub, user: str) -> Iterator[httpx.Client]:
    """Through the hub's login form without a browser; the client holds the cookies."""
    with httpx.Client(base_url=hub.url, follow_redirects=True, timeout=60) as client:
        page = client.get("hub/login")
        answer = client.post(
            "hub/login",
            params={"_xsrf": xsrf(page)},
            data={"username": user, "password": PASSWORD, "_xsrf": xsrf(page)},
        )
        assert answer.is_success, answer.text
        yield client


def spawn(client: httpx.Client, **choices: str) -> httpx.Response:
    """Fill in and send the spawn form."""
    page = client.get("hub/spawn")
    action = re.search(r'id="spawn_form"\s+action="([^"]+)"', page.text)
    assert action, page.text
    return client.post(urljoin(str(page.url), action[1].replace("&amp;", "&")), data=choices)


def xsrf(page: httpx.Response) -> str:
    """The token in the hub's forms that its POSTs must carry."""
    found = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


class Kernel:
    """A notebook's kernel, spoken to over the same websocket as JupyterLab."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.socket = socket

    async def run(self, code: str) -> str:
        """Execute a cell; returns what it printed and displayed as text.

        Raises
        ------
        AssertionError
            If the cell raised.
        """
        request = uuid.uuid4().hex
        header = {
            "msg_id": request,
            "msg_type": "execute_request",
            "username": "",
            "session": "tests",
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "stop_on_error": True}
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "channel": "shell",
            "content": content,
        }
        await self.socket.write_message(json.dumps(message))
        texts: list[str] = []
        while True:
            received = await self.socket.read_message()
            assert isinstance(received, str), f"the kernel's connection closed: {received!r}"
            answer = json.loads(received)
            if answer["parent_header"].get("msg_id") != request:
                continue
            texts += _texts(answer)
            if answer["msg_type"] == "error":
                raise AssertionError("\n".join(answer["content"]["traceback"]))
            state = answer["content"].get("execution_state")
            if answer["msg_type"] == "status" and state == "idle":
                return "".join(texts)


def _texts(answer: dict[str, Any]) -> Iterator[str]:
    if answer["msg_type"] == "stream":
        yield answer["content"]["text"]
    elif answer["msg_type"] in ("execute_result", "display_data"):
        yield answer["content"]["data"].get("text/plain", "")


@asynccontextmanager
async def kernel(hub: RunningHub, user: str, token: str) -> Any:
    """Start a kernel in the user's running server."""
    headers = {"Authorization": f"token {token}"}
    base = f"{hub.url}user/{user}/api/kernels"
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        started = await client.post(base, json={"name": "python3"})
        started.raise_for_status()
        url = f"{base}/{started.json()['id']}/channels".replace("http", "ws", 1)
        socket = await websocket_connect(HTTPRequest(url, headers=headers))
        try:
            yield Kernel(socket)
        finally:
            socket.close()
            await client.delete(f"{base}/{started.json()['id']}")
