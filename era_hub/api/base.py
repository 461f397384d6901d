"""What every endpoint shares: who is calling, validation, answers and problems."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from jupyterhub.services.auth import HubOAuthenticated
from pydantic import BaseModel, TypeAdapter, ValidationError
from tornado.web import HTTPError, RequestHandler

from era_pricing import BidError

from .. import models
from ..answers import Conflict, MarketError, NotFound

if TYPE_CHECKING:
    from ..app import Services

T = TypeVar("T")

BODY_LIMIT = 4 << 20
"""Bytes in the body of a request."""


class Scope(StrEnum):
    """Our custom scopes, each a role in the market."""

    BID = "custom:era:bid"  # bid and see one's own
    ADMIN = "custom:era:admin"  # see everybody's
    SPAWN = "custom:era:spawn"  # reserve and claim on behalf of users: the spawner


class Problem(HTTPError):
    """An error whose one sentence is meant for the caller."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail.replace("%", "%%"))
        self.detail = detail


@dataclass(frozen=True)
class Principal:
    """Who is calling, and what they may do."""

    name: str
    kind: str
    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    @property
    def sees_everybody(self) -> bool:
        return self.may(Scope.ADMIN) or self.may(Scope.SPAWN)


@dataclass(frozen=True)
class Endpoint:
    """What OpenAPI says of one endpoint, and what its requests are validated by."""

    summary: str
    answer: Any
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    scopes: tuple[Scope, ...]


def endpoint(
    summary: str,
    answer: Any,
    *,
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    scopes: tuple[Scope, ...] = (Scope.BID, Scope.ADMIN, Scope.SPAWN),
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[None]]]:
    """Make a method an endpoint: authorise, validate, call, answer.

    The method gets the validated `body` and `query` as keyword arguments, and the
    parts of the path as positional ones; what it returns is the answer. With
    ``scopes=()`` an endpoint needs no login.
    """

    def decorate(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
        @wraps(method)
        async def handle(self: ApiHandler, *path: str) -> None:
            if scopes:
                self.require(*scopes)
            inputs: dict[str, BaseModel] = {}
            if body is not None:
                inputs["body"] = self.parse_body(body)
            if query is not None:
                inputs["query"] = self.parse_query(query)
            result = await method(self, *path, **inputs)
            self.finish(TypeAdapter(answer).dump_json(result))

        handle.endpoint = Endpoint(summary, answer, body, query, scopes)  # type: ignore[attr-defined]
        return handle

    return decorate


class Handler(HubOAuthenticated, RequestHandler):
    """Knows the caller without blocking the event loop on the Hub."""

    @property
    def services(self) -> Services:
        """The running service's parts."""
        return self.settings["services"]

    async def prepare(self) -> None:
        self.principal = await self._identify()

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call the market on its writer thread."""
        return await self.services.database.run(function, *args, **kwargs)

    def set_default_headers(self) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")
        self.clear_header("Server")

    def _request_summary(self) -> str:
        # Tornado logs this; a query may hold what nobody should find in a log.
        return f"{self.request.method} {self.request.path} ({self.request.remote_ip})"

    async def _identify(self) -> Principal | None:
        # The asynchronous look-up: get_current_user would block on a cache miss.
        model = await self.hub_auth.get_user(self, sync=False)
        self._hub_auth_user_cache = model
        if not model:
            return None
        if self.hub_scopes and not self.hub_auth.check_scopes(self.hub_scopes, model):
            raise Problem(403, f"{model['name']} may not use this service")
        return Principal(model["name"], model.get("kind", "user"), frozenset(model["scopes"]))


class ApiHandler(Handler):
    """An endpoint of the REST API: JSON in, JSON or problem details out."""

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Type", "application/json")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

    def require(self, *scopes: Scope) -> Principal:
        """The caller, if they hold one of the scopes."""
        if self.principal is None:
            raise Problem(401, "log in, or send the header 'Authorization: token <your token>'")
        if not any(self.principal.may(scope) for scope in scopes):
            raise Problem(403, f"your token lacks the scope {' or '.join(scopes)}")
        return self.principal

    def acting_for(self, user: str | None) -> str:
        """Whose account is bid with: one's own, or any for the spawner."""
        caller = self.require(Scope.BID, Scope.SPAWN)
        if user is None:
            if caller.kind != "user":
                raise Problem(422, "user: say on whose behalf")
            return caller.name
        if user != caller.name and not caller.may(Scope.SPAWN):
            raise Problem(403, f"you may not act for {user}")
        return user

    def looking_at(self, user: str | None, everybody: bool = False) -> str | None:
        """Whose things are listed: one's own; for admins and the spawner any, or everybody's.

        Returns a user's name, or None for everybody.
        """
        caller = self.require(Scope.BID, Scope.ADMIN, Scope.SPAWN)
        if everybody or (user is not None and user != caller.name):
            if not caller.sees_everybody:
                raise Problem(403, "you may only look at what is yours")
            return None if everybody else user
        return caller.name if caller.kind == "user" else user

    def may_see(self, reservation: models.Reservation) -> models.Reservation:
        """The reservation as the caller may see it: others' bids stay sealed.

        A stranger gets the same answer as for a reservation that does not exist.
        """
        caller = self.principal
        if caller is not None and caller.kind == "user" and caller.name == reservation.user:
            return reservation
        if caller is None or not caller.sees_everybody:
            raise NotFound(f"there is no reservation {reservation.id!r}")
        return reservation.model_copy(update={"value": None})

    async def own(self, reservation_id: str) -> models.Reservation:
        """A reservation the caller may end: their own, or any for admins and the spawner."""
        return self.may_see(await self.run(self.services.market.reservation, reservation_id))

    # -- validation -----------------------------------------------------------

    def parse_body(self, model: type[BaseModel]) -> BaseModel:
        if len(self.request.body) > BODY_LIMIT:
            raise Problem(
                413,
                f"the body has {len(self.request.body):,} bytes, more than {BODY_LIMIT:,}; "
                "leave large files where the job can read them",
            )
        try:
            return model.model_validate_json(self.request.body or b"{}")
        except ValidationError as error:
            raise Problem(422, explain(error)) from None

    def parse_query(self, model: type[BaseModel]) -> BaseModel:
        arguments = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        arguments.pop("_xsrf", None)
        try:
            return model.model_validate(arguments)
        except ValidationError as error:
            raise Problem(422, explain(error)) from None

    # -- problems ---------------------------------------------------------------

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        status, detail = _problem(status_code, error)
        self.set_status(status)
        self.set_header("Content-Type", "application/problem+json")
        title = HTTPStatus(status).phrase
        self.finish(models.Problem(title=title, status=status, detail=detail).model_dump_json())

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if not isinstance(value, (MarketError, BidError)):
            super().log_exception(typ, value, tb)


class NotFoundHandler(ApiHandler):
    """Any other path below the API."""

    async def prepare(self) -> None:
        raise Problem(404, f"there is no endpoint {self.request.path}; see openapi.json")


def explain(error: ValidationError) -> str:
    """One sentence from pydantic's findings: which field, and what is wrong with it."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def _problem(status: int, error: BaseException | None) -> tuple[int, str]:
    if isinstance(error, Problem):
        return error.status_code, error.detail
    if isinstance(error, BidError):
        return 422, str(error)
    if isinstance(error, NotFound):
        return 404, str(error)
    if isinstance(error, Conflict):
        return 409, str(error)
    if isinstance(error, MarketError):
        return 422, str(error)
    if isinstance(error, HTTPError):
        return status, error.reason or HTTPStatus(status).phrase
    return 500, "something went wrong in the service; its log says what"
