"""How the hub tells who is calling; the same in every replica of the service."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from jupyterhub.services.auth import HubOAuth
from tornado.web import RequestHandler

LONGEST_PAGE = 1000
"""Characters of a page's path that are kept while its user logs in: a cookie holds them."""


def common_secret(purpose: str) -> bytes:
    """32 bytes that all replicas know, from the service's token with the hub.

    A cookie that one replica has set counts at all of them, and after a restart.
    """
    token = os.environ["JUPYTERHUB_API_TOKEN"].encode()
    return hmac.digest(token, f"era-hub {purpose}".encode(), hashlib.sha256)


class Auth(HubOAuth):
    """Identifies callers by header or cookie: a token in a URL would end up in logs.

    A login that has begun at one replica may end at another. So what has to be known at
    its end travels with it, encrypted, and is not kept in memory.
    """

    def _get_token_url(self, handler: RequestHandler) -> str:
        return ""

    def generate_state(self, next_url: str | None = None, **extra_state: Any) -> str:
        """What the browser brings back from the hub."""
        if next_url is not None and len(next_url) > LONGEST_PAGE:
            next_url = None
        state = json.dumps({"next_url": next_url, **extra_state})
        return _box().encrypt(state.encode()).decode("ascii")

    def clear_oauth_state(self, state_id: str) -> None:
        """Nothing is kept of it; the hub's code is good for one login only."""

    def _decode_state(self, state_id: str, /) -> dict[str, Any]:
        try:
            found = json.loads(_box().decrypt(state_id, ttl=self.oauth_state_max_age))
        except (InvalidToken, ValueError):
            return {}
        return dict(found)


def _box() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(common_secret("login")))
