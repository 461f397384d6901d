"""What only the writer can do is passed on to it, and its answer comes back unchanged."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from urllib.parse import SplitResult, urlsplit

import httpx
from tornado.httputil import HTTPServerRequest

from ..plugins import ConfigurationError
from ..store.database import Unavailable
from ..store.election import Leader
from .leading import LOOK, Replica

HOP = "Era-Passed-On"
"""Header of a request that another service has passed on: it is not passed on again."""

NOT_LEADING = "Era-Not-Leading"
"""Header of the answer that says so."""

WAIT = 8.0
"""Seconds for which a request waits for somebody who can do it."""

PAUSE = 0.1
"""Seconds between two tries."""

ANSWER = 60.0
"""Seconds for the writer's answer."""

# What belongs to one connection, or is made anew for the next.
OWN = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-length",
        "date",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
    )
)


class Forwarding:
    """Passes requests on to the service that writes.

    Parameters
    ----------
    replica : Replica
        Knows who that is.
    """

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        # Straight to it: proxies of the environment are for what lies outside.
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(ANSWER, connect=2.0, pool=WAIT),
            limits=httpx.Limits(max_connections=200),
            verify=ssl.create_default_context(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(
        self, request: HTTPServerRequest, body: bytes, name: str
    ) -> httpx.Response | None:
        """The writer's answer; None if this service has become the writer.

        Parameters
        ----------
        name : str
            Names the request in the logs of both.

        Raises
        ------
        Unavailable
            If nobody could be asked, or it is not known what has become of it.
        """
        repeatable = request.method in ("GET", "HEAD") or "Idempotency-Key" in request.headers
        end = time.monotonic() + WAIT
        while not self.replica.leading:
            leader = self.replica.leader
            if leader is not None and leader.address != self.replica.writer.address:
                try:
                    answer = await self._send(leader, request, body, name)
                    if NOT_LEADING not in answer.headers:
                        return answer
                except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
                    pass  # it has not been asked
                except (httpx.HTTPError, _Replaced) as error:
                    if not repeatable:
                        raise Unavailable(
                            "the service that writes was lost while it did this: look whether "
                            "it was done before you try again, or send an Idempotency-Key"
                        ) from None
                    if isinstance(error, _Replaced):
                        continue  # however long that took, somebody can do it now
            if time.monotonic() > end:
                raise Unavailable("no service can write now; try again in a moment")
            await asyncio.sleep(PAUSE)
        return None

    async def _send(
        self, leader: Leader, request: HTTPServerRequest, body: bytes, name: str
    ) -> httpx.Response:
        headers = [(k, v) for k, v in request.headers.get_all() if k.lower() not in OWN]
        headers += [(HOP, "1"), ("X-Request-ID", name), ("Accept-Encoding", "identity")]
        url = leader.address.rstrip("/") + str(request.uri)
        method = str(request.method)
        asked = asyncio.ensure_future(
            self._http.request(method, url, headers=headers, content=body)
        )
        try:
            while not asked.done():
                await asyncio.wait((asked,), timeout=LOOK)
                # A frozen one keeps its connections, and says nothing any more.
                if not asked.done() and self._other_than(leader):
                    raise _Replaced
            return asked.result()
        finally:
            asked.cancel()

    def _other_than(self, leader: Leader) -> bool:
        now = self.replica.leader
        if self.replica.leading or now is None:
            return self.replica.leading
        return (now.address, now.since) != (leader.address, leader.since)


class _Replaced(Exception):
    """Another service has become the writer meanwhile."""


def answer_headers(answer: httpx.Response) -> list[tuple[str, str]]:
    """The headers of an answer that are the caller's."""
    hidden = OWN | {NOT_LEADING.lower(), "content-encoding"}
    return [(k, v) for k, v in answer.headers.multi_items() if k.lower() not in hidden]


def reachable(address: str, listens: str) -> str:
    """Where the other services reach this one.

    Parameters
    ----------
    address : str
        `EraHub.address`; empty for where the service listens.
    listens : str
        URL at which it listens.

    Raises
    ------
    ConfigurationError
        If nobody could find it there.
    """
    wanted = "the URL at which the other replicas reach this one, such as http://10.0.0.5:10101"
    parts = urlsplit(address or listens)
    host = parts.hostname or ""
    try:
        nowhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        nowhere = not host
    if not address and nowhere:
        raise ConfigurationError(
            f"EraHub.address: this service listens at {parts.netloc}, which tells nobody where "
            f"it is; set {wanted}"
        )
    if nowhere or not _plain(parts, path=not address):
        # Not in its own words: somebody may have put a password in there.
        raise ConfigurationError(f"EraHub.address must be {wanted}, and nothing after it")
    return f"{parts.scheme}://{parts.netloc}"


def _plain(parts: SplitResult, path: bool) -> bool:
    """Whether an address names no more than a scheme, a host and a port."""
    try:
        sound = parts.port != 0 and parts.scheme in ("http", "https")
    except ValueError:
        return False
    more = parts.username or parts.query or parts.fragment
    return sound and not more and (path or not parts.path.strip("/"))
