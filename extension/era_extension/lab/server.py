"""The server extension: ``GET <base_url>era/notices``."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.application import ExtensionApp
from tornado import web

from .notices import Notices


class NoticesHandler(APIHandler):
    """Answers with a `notices.Answer`."""

    auth_resource = "era"
    # An open browser tab asks for ever. Counted as activity, that would keep an idle
    # server from being culled.
    _track_activity = False

    def initialize(self, notices: Notices) -> None:
        """Take what all requests share."""
        self.notices = notices

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """The warnings of now, and when the reservation ends."""
        answer: Any = await self.notices.look()
        self.finish(answer)


class EraExtension(ExtensionApp):
    """Jupyter starts and stops it with the server."""

    name = "era_extension"

    def initialize_handlers(self) -> None:
        """Add the endpoint; Jupyter puts the server's base URL before it."""
        self.market_notices = Notices()
        handler = (r"/era/notices", NoticesHandler, {"notices": self.market_notices})
        self.handlers.append(handler)

    async def stop_extension(self) -> None:
        """Close the connections to the market."""
        await self.market_notices.close()
