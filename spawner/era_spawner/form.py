"""The part of the spawn page that shows the market; the hub puts its form around it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from era_hub.client import bundle, shared_scripts
from era_hub.models import MICRO, OWN, AccountSummary, ConfigurationPrices, Market, Reservation

from . import words
from .options import SKEW, NewServer, OptionsError, parse
from .refusals import UNAVAILABLE

HERE = Path(__file__).parent
QUICK_HOURS = (1, 2, 4, 8, 24)
MARGIN = 1.25
"""The suggested limit over the price shown, as prices move until the form is sent."""


def render_form(
    market: Market,
    accounts: Sequence[AccountSummary],
    reservations: Sequence[Reservation],
    pages: str,
    last: Any = None,
) -> str:
    """HTML of the spawn form.

    Parameters
    ----------
    market : Market
        Prices now and for the coming hours.
    accounts : sequence of AccountSummary
        Those that the user may pay with.
    reservations : sequence of Reservation
        The user's open ones for this server.
    pages : str
        Path of the service's pages.
    last : object, optional
        The `user_options` of the last start, to begin with.
    """
    soon = market.now + SKEW
    chosen, hours, latest = _begin(market, last)
    return _template("spawn_form.html").render(
        market=market,
        accounts=accounts,
        account=_usual(accounts),
        pages=pages,
        cards=[_card(market, one) for one in market.configurations],
        chosen=chosen,
        hours=hours,
        latest=latest,
        quick_hours=QUICK_HOURS,
        suggestion=_suggestion(market, chosen, hours),
        startable=[one for one in reservations if one.start <= soon],
        upcoming=sorted((one for one in reservations if one.start > soon), key=_start),
        simulated=f"these {words.count(max(market.capacity, default=0))} are simulated",
        data=_embed(_data(market, accounts, latest)),
    )


def render_unavailable() -> str:
    """HTML for when the service does not answer: says so, and offers no start."""
    return _template("unavailable.html").render(message=UNAVAILABLE)


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(HERE / "templates")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        credits=words.credits,
        when=words.when_html,
        gpus=words.count,
        hours=_hours_text,
        payer=_payer,
    )
    environment.globals.update(style=_static("spawn_form.css"), script=_script())
    return environment


def _template(name: str) -> Any:
    return _environment().get_template(name)


def _static(name: str) -> Markup:
    return Markup((HERE / "static" / name).read_text(encoding="utf-8"))


def _script() -> Markup:
    return Markup(bundle(_static("spawn_form.js"), *shared_scripts()))


def _start(reservation: Reservation) -> datetime:
    return reservation.start


def _card(market: Market, configuration: ConfigurationPrices) -> dict[str, Any]:
    resources = words.resources(configuration.resources)
    return {
        "name": configuration.name,
        "title": configuration.title,
        "description": configuration.description,
        # A title such as "2 GPUs" says it all.
        "resources": "" if resources == configuration.title else resources,
        "price": configuration.price_per_hour,
        "free": None if configuration.price_per_hour is not None else _free(market, configuration),
    }


def _free(market: Market, configuration: ConfigurationPrices) -> datetime | None:
    """When a configuration that is sold out now is free again."""
    for index, price in enumerate(configuration.prices):
        start = market.first_slot + timedelta(seconds=index * market.slot)
        if price is not None and start > market.now:
            return start
    return None


def _begin(market: Market, last: Any) -> tuple[str, float, datetime | None]:
    """What the form starts with: the choices of last time as far as they still make sense."""
    names = [one.name for one in market.configurations]
    # Who comes to a market for GPUs wants one.
    with_gpus = [one.name for one in market.configurations if one.gpus]
    chosen, hours, latest = next(iter(with_gpus or names), ""), 1.0, None
    try:
        before = parse(last)
    except OptionsError:
        return chosen, hours, latest
    if isinstance(before, NewServer):
        chosen = before.configuration if before.configuration in names else chosen
        hours = max(0.25, round(before.duration / 900) / 4)
        if before.latest_start and market.now < before.latest_start < market.horizon:
            latest = before.latest_start
    return chosen, hours, latest


def _suggestion(market: Market, chosen: str, hours: float) -> str:
    """A limit to begin with, for browsers without scripts."""
    for one in market.configurations:
        if one.name == chosen:
            per_hour = one.price_per_hour
            if per_hour is None:
                known: Iterable[int] = (price for price in one.prices if price is not None)
                per_hour = round(max(known, default=MICRO) * 3600 / market.slot)
            return f"{max(0.1, per_hour / MICRO * hours * MARGIN):.2f}"
    return "1.00"


def _usual(accounts: Sequence[AccountSummary]) -> AccountSummary:
    """The account that pays where nobody chooses."""
    return next((one for one in accounts if one.default), accounts[0])


def _payer(account: AccountSummary) -> str:
    return "You" if account.account == OWN else f"Group {account.account.removeprefix('group:')}"


def _data(
    market: Market, accounts: Sequence[AccountSummary], latest: datetime | None
) -> dict[str, Any]:
    return {
        "now": _ms(market.now),
        "firstSlot": _ms(market.first_slot),
        "slot": market.slot,
        "horizon": _ms(market.horizon),
        "usual": _usual(accounts).account,
        "balances": {one.account: one.balance for one in accounts},
        "margin": MARGIN,
        "latest": _ms(latest) if latest else None,
        "configurations": {
            one.name: {
                "title": one.title,
                "prices": one.prices,
                "forecast": one.forecast and one.forecast.model_dump(),
            }
            for one in market.configurations
        },
    }


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _embed(data: dict[str, Any]) -> Markup:
    """JSON that can't end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _hours_text(hours: float) -> str:
    return f"{hours:g}"
