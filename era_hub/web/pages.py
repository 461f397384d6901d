"""Pages for people: the user's, and the admins'."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from jupyterhub.services.auth import HubOAuthCallbackHandler
from jupyterhub.utils import url_path_join
from tornado.web import HTTPError, StaticFileHandler

from .. import client
from ..api.base import Discreet, Handler, Scope

TEMPLATES = Environment(
    loader=PackageLoader("era_hub.web"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
)
POLICY = (
    "default-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


class PageHandler(Handler):
    """A page: whoever is not logged in is sent to the hub and comes back."""

    async def prepare(self) -> None:
        await super().prepare()
        if self.principal is None:
            self.redirect(self.get_login_url())

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Security-Policy", POLICY)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        detail = getattr(error, "detail", None) or self._reason
        self.finish(TEMPLATES.get_template("error.html").render(**self._names(), detail=detail))

    def page(self, template: str, **names: Any) -> None:
        """Answer with a rendered template."""
        self.finish(TEMPLATES.get_template(template).render(**self._names(), **names))

    def _names(self) -> dict[str, Any]:
        return {
            "prefix": self.settings["prefix"],
            "hub": self.hub_auth.hub_prefix,
            "user": self.principal.name if self.principal else "",
            "admin": bool(self.principal and self.principal.may(Scope.ADMIN)),
        }


class HomeHandler(PageHandler):
    """The market as its user sees it."""

    async def get(self) -> None:
        if self.principal is None or not self.principal.may(Scope.BID):
            raise HTTPError(403, reason="Your account may not use the market")
        self.page(
            "home.html",
            xsrf=self.xsrf_token.decode("ascii"),
            simulated=self.services.cloud.simulated,
            gpus=self.services.market.size,
        )


class AdminPageHandler(PageHandler):
    """The market as its admins see and change it."""

    async def get(self) -> None:
        if self.principal is None or not self.principal.may(Scope.ADMIN):
            raise HTTPError(403, reason="Only admins of the market may see this page")
        self.page("admin.html", xsrf=self.xsrf_token.decode("ascii"))


class CallbackHandler(Discreet, HubOAuthCallbackHandler):
    """Where the hub sends who has logged in."""


class PublicStaticHandler(Discreet, StaticFileHandler):
    """Scripts and styles; they hold no secrets."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")


def page_routes(prefix: str) -> list[Any]:
    """The pages' routes below the service's prefix."""
    folder = str(Path(__file__).parent / "static")
    shared = str(Path(client.__file__).parent)
    modules = "|".join(map(re.escape, client.SHARED))
    return [
        (prefix, HomeHandler),
        (url_path_join(prefix, "admin"), AdminPageHandler),
        (url_path_join(prefix, "oauth_callback"), CallbackHandler),
        (url_path_join(prefix, f"static/({modules})"), PublicStaticHandler, {"path": shared}),
        (url_path_join(prefix, r"static/(.*)"), PublicStaticHandler, {"path": folder}),
    ]
