"""A spawner's dealings with the market: form, bid, claim, environment, giving back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from jupyterhub.utils import maybe_future, url_path_join
from pydantic import ValidationError
from traitlets import Float, Instance, Unicode, default, validate
from traitlets.config import LoggingConfigurable

from era_hub.client import AsyncEraClient, EraError
from era_hub.models import Kind, Reservation

from . import refusals
from .bargain import Bargain
from .environment import NAMES, market_environment
from .form import render_form, render_unavailable
from .options import FORM_FIELDS, OPTIONS, OptionsError, from_form
from .words import count, credits, when, when_html

FORM_TIMEOUT = 10.0
"""Seconds after which the spawn page says that the market does not answer."""

LOOK = 300.0
"""Seconds between questions whether a running server's reservation ends when it was said to."""

REMEMBERED = 20
"""Reservations of a server whose other options are remembered."""


if TYPE_CHECKING:
    from jupyterhub.spawner import LocalProcessSpawner as Base
else:
    # Not Spawner: that refuses subclasses without start, stop and poll of their own.
    Base = LoggingConfigurable


class EraSpawnerMixin(Base):
    """Put in front of a spawner, lets it launch servers on reserved GPUs only.

    ::

        class MySpawner(EraSpawnerMixin, SomeSpawner): ...
    """

    era_url = Unicode(
        help="""URL of the ERA Hub service, for the hub and for notebooks.

        Notebooks find it in their environment as ``ERA_URL``, so it must be
        reachable from them too. For example::

            c.EraSpawnerMixin.era_url = "http://127.0.0.1:8093/services/era"

        On a hub under a base URL of its own the path starts with that.
        """,
    ).tag(config=True)

    era_token = Unicode(
        help="""The spawner's own service token, to act for all users.

        A secret: it is neither logged nor given to notebooks. For example::

            c.EraSpawnerMixin.era_token = os.environ["ERA_SPAWNER_TOKEN"]
        """,
    ).tag(config=True)

    era_public_path = Unicode(
        help="""Where browsers find the service's pages: a path, or a URL with subdomains.

        Default: ``services/era/`` below the hub's base URL. For example::

            c.EraSpawnerMixin.era_public_path = "https://era.hub.example.org/services/era/"
        """,
    ).tag(config=True)

    release_timeout = Float(
        10.0,
        min=0.1,
        help="""Seconds to wait for the service when a reservation is given back.

        Stopping a server waits no longer than this. A reservation that could not
        be given back is ended by the service itself a little later. For example::

            c.EraSpawnerMixin.release_timeout = 5
        """,
    ).tag(config=True)

    overdue_grace = Float(
        120.0,
        min=0,
        help="""Seconds after the end of its reservation at which the hub stops a server itself.

        The service stops servers when their time is over. Where it can't, because it is
        down, the hub does so when it next looks at the server (`Spawner.poll_interval`);
        if it can't ask for the end, it goes by the one it was last told. For example::

            c.EraSpawnerMixin.overdue_grace = 300
        """,
    ).tag(config=True)

    # Set when the GPUs are claimed; progress() waits for it.
    _era_claimed = Instance(asyncio.Event, args=())
    _era: Reservation | None = None
    _era_id = ""
    # Apart from the state: LocalProcessSpawner.poll() clears that when it finds the
    # process dead, which is before the hub runs the post-stop hook.
    _era_release = ""
    # When the reservation ends, and the monotonic time at which that is asked again.
    _era_end: datetime | None = None
    _era_look = 0.0
    _era_stopping = False
    # The other options (a profile, say) that came with a reservation, by its id: whoever
    # starts a server on it later, as the service does, names nothing but the reservation.
    _era_choices = Instance(dict, args=())

    @default("era_public_path")
    def _default_public_path(self) -> str:
        base = self.hub.base_url.removesuffix("hub/")
        return url_path_join(base, "services/era/")

    def _era_client(self) -> AsyncEraClient:
        if not (self.era_url and self.era_token):
            raise EraError("EraSpawnerMixin.era_url and era_token must be configured")
        return AsyncEraClient(self.era_url, self.era_token)

    # -- options ------------------------------------------------------------

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        # The hub warns of options that nothing seems to read; reserve() does.
        return _leave_to_reserve

    @validate("user_options")
    def _complete_user_options(self, proposal: Any) -> Any:
        options = proposal["value"]
        return {**self._era_choices.get(str(options.get("reservation")), {}), **options}

    async def get_options_form(self) -> str:
        """The market's form, and below it the one that is configured, if any."""
        forms = [await self.era_options_form(), await super().get_options_form()]
        return "\n".join(form for form in forms if form)

    def run_options_from_form(self, form_data: Mapping[str, Any]) -> Any:
        """`user_options`: the market's, and those of a configured form."""
        return self._with_configured(super().run_options_from_form, form_data)

    def options_from_query(self, query_data: Mapping[str, Any]) -> Any:
        """The same from the query of a link."""
        return self._with_configured(super().options_from_query, query_data)

    def _with_configured(self, interpret: Callable[[Any], Any], data: Mapping[str, Any]) -> Any:
        own = self.era_options_from_form(data)
        if not self.options_form:
            return own
        others = interpret({key: data[key] for key in data if key not in FORM_FIELDS})
        return _merge(others, own) if isawaitable(others) else {**others, **own}

    async def era_options_form(self) -> str:
        """The form with the prices of this moment, or a word that there are none."""
        user = self.user.name
        try:
            async with asyncio.timeout(FORM_TIMEOUT), self._era_client() as client:
                market, accounts, reservations = await asyncio.gather(
                    client.market(hours=48),
                    client.accounts(user=user),
                    client.reservations(user=user, current=True, kind=Kind.NOTEBOOK),
                )
        except (EraError, ValidationError, TimeoutError) as error:
            self.log.error("No spawn form for %s: %s", user, _brief(error))
            return render_unavailable()
        own = [one for one in reservations if one.server_name == self.name]
        last = self.user_options or getattr(self.orm_spawner, "user_options", None)
        return render_form(market, accounts, own, self.era_public_path, last)

    def era_options_from_form(self, form_data: Mapping[str, Any]) -> dict[str, Any]:
        """`user_options` from the form, and from the query of a link."""
        try:
            return dict(from_form(form_data))
        except OptionsError as error:
            raise refusals.refusal("bad-options", str(error)) from None

    def era_options(self) -> Any:
        """The market's part of `user_options`.

        What is unknown is refused, unless a form is configured that may know it.
        """
        options = self.user_options
        if self.options_form and isinstance(options, Mapping):
            return {key: options[key] for key in options if key in OPTIONS}
        return options

    # -- start --------------------------------------------------------------

    async def start(self) -> Any:
        """Reserve and claim GPUs, then start the server on them."""
        self._era_claimed.clear()
        self._era, self._era_id, self._era_end, self._era_release = None, "", None, ""
        try:
            self._era = await self.reserve()
            self._era_id, self._era_end = self._era.id, self._era.end
            self._era_claimed.set()
            return await super().start()
        except BaseException:
            # A cancelled spawn arrives here as CancelledError and might never be
            # stopped, so its GPUs go back now.
            await self.clear_away()
            await self._give_back()
            raise

    async def clear_away(self) -> None:
        """Remove what a failed start has made, if anything; its GPUs go back after that."""

    async def reserve(self) -> Reservation:
        """The claimed reservation to run on.

        Raises
        ------
        SpawnException
            If the server can't start now: declined, or reserved for later, when
            the service starts it by itself. Never waits for GPUs.
        """
        try:
            async with self._era_client() as client:
                bargain = Bargain(
                    client, self.user.name, self.name, self.era_public_path, self.release_timeout
                )
                try:
                    return await bargain.strike(self.era_options())
                finally:
                    self._era_release = bargain.owed
                    self._remember_choices(bargain.found)
        except OptionsError as error:
            raise refusals.refusal("bad-options", str(error)) from None
        except (EraError, ValidationError) as error:
            status = getattr(error, "status", 0)
            if 400 <= status < 500 and status not in (401, 403):
                raise refusals.refusal("refused", str(error)) from None
            self.log.error("The market failed a spawn of %s: %s", self.user.name, _brief(error))
            raise refusals.unavailable() from None

    def get_env(self) -> dict[str, str]:
        """The spawner's environment, with exactly the reserved GPUs."""
        env: dict[str, str] = super().get_env()
        # Last, so that neither Spawner.environment nor the hub's own environment wins.
        for name in NAMES:
            env.pop(name, None)
        env.update(market_environment(self._era, self.era_url))
        return env

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """The spawner's own events after those of the market."""
        yield {"progress": 5, "message": "Asking the market for GPUs..."}
        await self._era_claimed.wait()
        if self._era:
            yield _claimed_event(self._era)
        async for event in super().progress():
            yield event

    # -- state and stop -----------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """The spawner's own state, the reservation's id and its end as far as known."""
        state: dict[str, Any] = super().get_state()
        if self._era_id:
            state["era_reservation"] = self._era_id
        if self._era_end:
            state["era_end"] = self._era_end.isoformat()
        if self._era_choices:
            state["era_choices"] = self._era_choices
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a server that runs since before the hub started."""
        super().load_state(state)
        self._era_id = self._era_release = state.get("era_reservation", "")
        end = state.get("era_end")
        self._era_end = datetime.fromisoformat(end) if end else None
        self._era_choices = dict(state.get("era_choices", {}))

    def clear_state(self) -> None:
        """Forget the server that has stopped."""
        super().clear_state()
        self._era, self._era_id, self._era_end = None, "", None

    def _remember_choices(self, reservation_id: str) -> None:
        choices = {key: self.user_options[key] for key in self.user_options if key not in OPTIONS}
        if reservation_id and choices:
            kept = {**self._era_choices, reservation_id: choices}
            self._era_choices = dict(list(kept.items())[-REMEMBERED:])

    async def poll(self) -> int | None:
        """The spawner's own answer; a server whose time has long been over is stopped first."""
        status: int | None = await super().poll()
        if status is not None or self._era_stopping:
            return status
        if not self._era_id:
            self._era_id = self._era_release = self.reservation_of_server()
        if not (self._era_id and await self._is_overdue()):
            return None
        self.log.warning(
            "Reservation %s of %s was over at %s, and its server still runs: stopped",
            self._era_id,
            self.user.name,
            self._era_end,
        )
        # Some spawners ask themselves, when they stop a server, whether it runs.
        self._era_stopping = True
        try:
            await self.stop()
        finally:
            self._era_stopping = False
        return 0

    def reservation_of_server(self) -> str:
        """The id of the reservation that a server runs on which this hub did not start.

        A hub that dies in the middle of a start leaves no word of it.
        """
        return ""

    async def _is_overdue(self) -> bool:
        await self._ask_for_end()
        limit = datetime.now(UTC) - timedelta(seconds=self.overdue_grace)
        return self._era_end is not None and self._era_end < limit

    async def _ask_for_end(self) -> None:
        """Learn when the reservation ends: it may have been extended, or ended early."""
        known = self._era_end is not None and self._era_end > datetime.now(UTC)
        if known and time.monotonic() < self._era_look:
            return
        try:
            async with asyncio.timeout(self.release_timeout), self._era_client() as client:
                reservation = await client.reservation(self._era_id)
        except (EraError, ValidationError, TimeoutError) as error:
            self.log.info("No word yet on reservation %s: %s", self._era_id, _brief(error))
            return
        self._era_look = time.monotonic() + LOOK
        end = reservation.ended if reservation.state.final else None
        end = min(end, reservation.end) if end else reservation.end
        if end != self._era_end:
            # The hub takes the state only when a server starts and stops; this goes into
            # the database with whatever it stores next.
            self._era_end = end
            self.orm_spawner.state = self.get_state()

    async def run_post_stop_hook(self) -> None:
        """Run the configured hook, then give the reservation back."""
        try:
            await maybe_future(super().run_post_stop_hook())
        finally:
            await self._give_back()

    async def _give_back(self) -> None:
        reservation_id = self._era_release
        if not reservation_id:
            return
        try:
            async with asyncio.timeout(self.release_timeout), self._era_client() as client:
                await client.give_back(reservation_id)
        except (EraError, ValidationError, TimeoutError) as error:
            self.log.warning(
                "Reservation %s of %s could not be given back (%s); the service ends it by itself",
                reservation_id,
                self.user.name,
                _brief(error),
            )
        else:
            self._era_release = ""


async def _merge(others: Awaitable[dict[str, Any]], own: dict[str, Any]) -> dict[str, Any]:
    return {**await others, **own}


def _leave_to_reserve(spawner: Any, user_options: Any) -> None:
    """Apply nothing: what runs comes from the reservation, never from the options."""


def _claimed_event(reservation: Reservation) -> dict[str, Any]:
    gpus = count(reservation.units)
    if reservation.gpus:
        gpus += f" ({', '.join(map(str, reservation.gpus))})"
    if reservation.nodes:
        gpus += f" on {', '.join(reservation.nodes)}"
    text = f"Reserved {gpus} until {{}} for {credits(reservation.price)} credits"
    return {
        "progress": 20,
        "message": text.format(when(reservation.end)),
        "html_message": text.format(when_html(reservation.end)),
    }


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"it answered with something that is no {error.title}"
    return str(error) or type(error).__name__
