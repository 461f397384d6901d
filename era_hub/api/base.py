"""What every endpoint shares: who is calling, validation, answers and problems."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from jupyterhub.services.auth import HubOAuthenticated
from pydantic import BaseModel, TypeAdapter, ValidationError
from tornado.log import app_log
from tornado.web import HTTPError, RequestHandler, stream_request_body

from era_pricing import BidError

from .. import models
from ..answers import MarketError, NotFound
from ..logs import request_id
from ..replicas import asking
from ..replicas.forwarding import NOT_LEADING
from ..store.database import Unavailable
from ..store.election import NotLeading
from . import bodies
from .login import Auth
from .passing import passed_on

if TYPE_CHECKING:
    from ..app import Services
    from ..market import Coming

T = TypeVar("T")

BODY_LIMIT = 4 << 20
"""Bytes in the body of a request."""

JSON = "application/json"
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,1000}")


class Scope(StrEnum):
    """Our custom scopes, each a role in the market."""

    BID = "custom:era:bid"  # bid and see one's own
    ADMIN = "custom:era:admin"  # see everybody's
    SPAWN = "custom:era:spawn"  # reserve and claim on behalf of users: the spawner
    METRICS = "custom:era:metrics"  # read the metrics and nothing else: Prometheus
    CLOUD = "custom:era:cloud"  # what must run, and what has become of it: a scheduler


class Problem(HTTPError):
    """An error whose one sentence is meant for the caller.

    Parameters
    ----------
    status : int
    detail : str
    retry_after : float, optional
        Seconds until it is worth another try.
    """

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(status, detail.replace("%", "%%"))
        self.detail = detail
        self.retry_after = retry_after


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
    writes: bool
    media: str = JSON


def endpoint(
    summary: str,
    answer: Any,
    *,
    body: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    scopes: tuple[Scope, ...] = (Scope.BID, Scope.ADMIN, Scope.SPAWN),
    media: str = JSON,
    fresh: bool = False,
    writes: bool | None = None,
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[None]]]:
    """Make a method an endpoint: authorise, validate, call, answer.

    The method gets the validated `body` and `query` as keyword arguments, and the
    parts of the path as positional ones; what it returns is the answer. With
    ``scopes=()`` an endpoint needs no login. With ``fresh`` the hub is asked once more
    who is calling: for what admins change. An answer of another `media` type than JSON
    is bytes, or None if the method has written it itself. What `writes` is passed on where
    another service of the pool is its writer; default: all but GET.
    """
    adapter = TypeAdapter(answer)

    def decorate(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
        changes = method.__name__ != "get" if writes is None else writes

        @wraps(method)
        async def handle(self: ApiHandler, *path: str) -> None:
            if self.refusal is not None:
                raise self.refusal
            if scopes:
                self.require(*scopes)
            if changes and await self.pass_on():
                return
            if fresh:
                self.principal = await self.fresh_principal()
                self.require(*scopes)
            inputs: dict[str, BaseModel] = {}
            if body is not None:
                inputs["body"] = self.parse_body(body)
            if query is not None:
                inputs["query"] = self.parse_query(query)
            asking.set(not changes)
            try:
                result = await method(self, *path, **inputs)
            except NotLeading:
                # Nothing has been done: a question that turned out to need the writer, or
                # the lead was lost meanwhile.
                if not await self.pass_on():
                    raise
                return
            if media == JSON:
                self._count(inputs.get("body"), result)
                # Long answers may come written out: a model of each line takes its time.
                self.finish(result if type(result) is bytes else adapter.dump_json(result))
            elif result is not None:
                self.set_header("Content-Type", media)
                self.finish(result)

        handle.endpoint = Endpoint(summary, answer, body, query, scopes, changes, media)  # type: ignore[attr-defined]
        return handle

    return decorate


class Discreet(RequestHandler):
    """Logs no query, and says which request an answer belongs to."""

    def set_default_headers(self) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.clear_header("Server")
        if name := request_id():
            self.set_header("X-Request-ID", name)

    def _request_summary(self) -> str:
        # Tornado logs this; a query may hold what nobody should find in a log.
        return f"{self.request.method} {self.request.path}"

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        # Not as Tornado does, with the whole URL. What was the caller's mistake is told
        # to the caller, in words that may repeat what they sent.
        expected = (HTTPError, MarketError, BidError, Unavailable, NotLeading)
        if not isinstance(value, expected) or (isinstance(value, HTTPError) and _ours(value)):
            app_log.error("%s failed", self._request_summary(), exc_info=value)


class Handler(HubOAuthenticated, Discreet):
    """Knows the caller without blocking the event loop on the Hub."""

    hub_auth_class = Auth

    @property
    def services(self) -> Services:
        """The running service's parts."""
        return self.settings["services"]

    async def prepare(self) -> None:
        self.principal = await self._identify()

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call the market on its writer thread."""
        timed = self.services.metrics.timed(function)
        return await self.services.database.run(timed, *args, **kwargs)

    async def ask(self, function: Callable[..., T], *args: Any) -> T:
        """Ask the market what its plan alone answers, in no time."""
        timed = self.services.metrics.timed(function)
        return await self.services.database.ask(timed, *args)

    async def run_together(self, coming: Coming, function: Callable[..., T], *args: Any) -> T:
        """The same in one transaction with other such calls: for bids, of which many come."""
        timed = self.services.metrics.timed(function)
        return await self.services.market.together(coming, timed, *args)

    async def read(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call what only reads the database, on a reader thread."""
        return await self.services.database.read(function, *args, **kwargs)

    async def fresh_principal(self) -> Principal:
        """Who is calling, as the hub says now: not as it said a minute ago.

        Raises
        ------
        Problem
            If the login has ended (401), or the user may no longer use the service (403).
        """
        token = self.hub_auth.get_token(self)
        session = self.hub_auth.get_session_id(self)
        found = self._principal(
            token
            and await self._ask_hub(
                self.hub_auth.user_for_token(token, use_cache=False, session_id=session, sync=False)
            )
        )
        if found is None:
            raise Problem(401, "your login has ended; log in again")
        return found

    async def _identify(self) -> Principal | None:
        header = self.request.headers.get("Authorization", "")
        if header and not _TOKEN.fullmatch(header.partition(" ")[2].strip()):
            return None  # no token of the hub, and nothing that could be sent on to it
        # The asynchronous look-up: get_current_user would block on a cache miss.
        model = await self._ask_hub(self.hub_auth.get_user(self, sync=False))
        self._hub_auth_user_cache = model
        return self._principal(model)

    def _principal(self, model: dict[str, Any] | None) -> Principal | None:
        if not model:
            return None
        if self.hub_scopes and not self.hub_auth.check_scopes(self.hub_scopes, model):
            raise Problem(403, f"{model['name']} may not use this service")
        return Principal(model["name"], model.get("kind", "user"), frozenset(model["scopes"]))

    async def _ask_hub(self, question: Awaitable[T]) -> T:
        try:
            return await question
        except HTTPError as error:
            # It is logged by what asked, in more detail than a caller should see.
            detail = "the hub can't be asked who is calling; try again in a moment"
            raise Problem(503, detail, retry_after=5) from error


@stream_request_body
class ApiHandler(Handler):
    """An endpoint of the REST API: JSON in, JSON or problem details out.

    Bodies are read piece by piece, after it is known who is calling: nothing is kept of
    one that is too long, or of one whose sender is refused. It is read to its end all
    the same, since a connection that is closed before takes the answer with it.
    """

    refusal: HTTPError | None
    """Why the request is not taken, to be raised when its body has been read."""

    replayed = False
    """Whether the answer was given before, to a call with the same key."""

    def initialize(self) -> None:
        self.principal = None
        self.refusal = None
        self._body = bytearray()
        self._size = 0

    async def prepare(self) -> None:
        try:
            await super().prepare()
            self._admit()
        except HTTPError as refusal:
            self.refusal = refusal

    def _admit(self) -> None:
        """Refuse who asks too fast, and headers that make no sense."""
        caller = self.principal
        if caller is not None and caller.kind == "user":
            wait = self.services.limits.take(caller.name)
            if wait:
                self.services.metrics.limited.inc()
                raise Problem(429, f"too many requests; try again in {wait:.2g} s", wait)
        key = self.request.headers.get("Idempotency-Key")
        if key is not None and not _KEY.fullmatch(key):
            raise Problem(
                422, "Idempotency-Key: 1 to 200 letters, digits and signs, without blanks"
            )

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self.refusal is None and self._size <= BODY_LIMIT:
            self._body += chunk
        else:
            self._body.clear()

    async def head(self, *path: str) -> None:
        """As GET; Tornado leaves the body out."""
        await self.get(*path)  # type: ignore[misc]

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Type", JSON)
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")

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
        if caller.may(Scope.ADMIN) and self.settings["admins_see_bids"]:
            return reservation
        return reservation.model_copy(update={"value": None})

    async def own(self, reservation_id: str) -> models.Reservation:
        """A reservation the caller may end: their own, or any for admins and the spawner."""
        return self.may_see(await self.run(self.services.market.reservation, reservation_id))

    async def pass_on(self) -> bool:
        """Have the pool's writer answer, if that is another service; whether it has."""
        # What is too long has not been kept; it is refused here.
        return self._size <= BODY_LIMIT and await passed_on(self, bytes(self._body))

    # -- validation -----------------------------------------------------------

    def parse_body(self, model: type[BaseModel]) -> BaseModel:
        if self._size > BODY_LIMIT:
            raise Problem(
                413,
                f"the body has {self._size:,} bytes, more than {BODY_LIMIT:,}; "
                "leave large files where the job can read them",
            )
        try:
            if self._size:
                bodies.check_headers(self.request.headers)
            return bodies.parse(bytes(self._body), model)
        except bodies.BadBody as error:
            raise Problem(error.status, str(error)) from None

    def parse_query(self, model: type[BaseModel]) -> BaseModel:
        arguments = {}
        for name in self.request.query_arguments:
            values = self.get_query_arguments(name, strip=False)
            if len(values) > 1:
                raise Problem(422, f"{name[:100]}: given more than once")
            arguments[name] = values[0]
        if self.refusal is not None:
            raise self.refusal
        arguments.pop("_xsrf", None)
        try:
            return model.model_validate(arguments)
        except ValidationError as error:
            raise Problem(422, bodies.explain(error)) from None

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        # Refused later, like everything else, when the body has been read.
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            self.refusal = Problem(400, "path and query must be UTF-8")
            return ""
        # No name or id holds one, and some databases take offence.
        if "\0" in text:
            self.refusal = Problem(400, "path and query may not hold NUL characters")
        return text

    # -- metrics ----------------------------------------------------------------

    def _count(self, body: BaseModel | None, result: Any) -> None:
        if isinstance(result, models.Outcome) and not self.replayed:
            kind = models.Kind.JOB if isinstance(body, models.JobRequest) else models.Kind.NOTEBOOK
            self.services.metrics.bid(kind, result.accepted, getattr(body, "value", 0))

    # -- problems ---------------------------------------------------------------

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        status, detail = _problem(status_code, error)
        self.set_status(status)
        self.set_header("Content-Type", "application/problem+json")
        wait = getattr(error, "retry_after", 5 if status == 503 else None)
        if wait is not None:
            self.set_header("Retry-After", str(math.ceil(wait)))
        if isinstance(error, NotLeading):
            self.set_header(NOT_LEADING, "1")
        if status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        if status == 405:
            self.set_header("Allow", ", ".join(_allowed(type(self))))
        if self.request.method not in self.SUPPORTED_METHODS:
            # Tornado answers before the body is read, and hangs up.
            self.set_header("Connection", "close")
        title = HTTPStatus(status).phrase
        problem = models.Problem(
            title=title, status=status, detail=detail, instance=request_id() or ""
        )
        self.finish(problem.model_dump_json())


class NotFoundHandler(ApiHandler):
    """Any other path below the API."""

    async def prepare(self) -> None:
        """Not a word about who is calling: there is nothing to find here for anybody."""

    def _missing(self, *path: str) -> NoReturn:
        raise Problem(404, f"there is no endpoint {self.request.path[:200]}; see openapi.json")

    get = head = post = put = patch = delete = options = _missing


def methods(handler: type[ApiHandler]) -> dict[str, Endpoint]:
    """A handler's endpoints by method of HTTP."""
    found = {name: getattr(handler, name) for name in ("get", "post", "put", "patch", "delete")}
    return {name: each.endpoint for name, each in found.items() if hasattr(each, "endpoint")}


def _allowed(handler: type[ApiHandler]) -> list[str]:
    own = [name.upper() for name in methods(handler)]
    return [*own, "HEAD"] if "GET" in own else own


def _ours(error: HTTPError) -> bool:
    """Whether it is the service's fault, or nobody's, and not the caller's."""
    return error.status_code >= 500 and not isinstance(error, Problem)


def _problem(status: int, error: BaseException | None) -> tuple[int, str]:
    if isinstance(error, Problem):
        return error.status_code, error.detail
    if isinstance(error, BidError):
        return 422, str(error)
    if isinstance(error, MarketError):
        return error.status, str(error)
    if isinstance(error, (Unavailable, NotLeading)):
        return 503, str(error)
    if isinstance(error, HTTPError):
        return status, error.reason or HTTPStatus(status).phrase
    return 500, "something went wrong in the service; its log says what"
