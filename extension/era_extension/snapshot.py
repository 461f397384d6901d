"""The market's answers as the plain values that the widget shows.

Times are milliseconds since 1970, as browsers count them; amounts micro-credits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from era_hub.models import (
    OWN,
    Account,
    AccountSummary,
    ConfigurationPrices,
    Job,
    Kind,
    Notice,
    Reservation,
    State,
)
from era_hub.models import Market as MarketAnswer

MAX_JOBS = 50
MAX_FILES = 100


def milliseconds(moment: datetime) -> int:
    """As a browser counts time."""
    return round(moment.timestamp() * 1000)


def market_state(market: MarketAnswer) -> dict[str, Any]:
    """Prices. Without the time, so that it changes only when a price does."""
    return {
        "slot": market.slot,
        "firstSlot": milliseconds(market.first_slot),
        "simulated": market.simulated,
        "configurations": [_configuration(c) for c in market.configurations],
    }


def _configuration(configuration: ConfigurationPrices) -> dict[str, Any]:
    return {
        "name": configuration.name,
        "title": configuration.title,
        "description": configuration.description,
        "gpus": configuration.gpus,
        "perHour": configuration.price_per_hour,
        "prices": configuration.prices,
        "forecast": configuration.forecast and configuration.forecast.model_dump(),
    }


def account_state(account: Account) -> dict[str, Any]:
    """What there is to spend."""
    return {"name": account.name, "balance": account.balance, "held": account.held}


def accounts_state(accounts: Sequence[AccountSummary]) -> list[dict[str, Any]]:
    """Who may pay, and with how much."""
    return [
        {
            "account": each.account,
            "title": "You" if each.account == OWN else f"Group {each.account.partition(':')[2]}",
            "balance": each.balance,
            "usual": each.default,
        }
        for each in accounts
    ]


def jobs_state(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The newest jobs."""
    return [_job(job) for job in jobs[:MAX_JOBS]]


def _job(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state.value,
        "final": job.state.final,
        "progress": job.progress,
        "exitCode": job.exit_code,
        "message": job.message,
        "directory": job.directory,
        "price": job.reservation.price,
        "configuration": job.reservation.configuration,
        "start": milliseconds(job.reservation.start),
        "end": milliseconds(job.reservation.end),
    }


def notebook_state(
    reservations: Sequence[Reservation], environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The reservation that this notebook runs on; empty if there is none."""
    environ = os.environ if environ is None else environ
    server = environ.get("JUPYTERHUB_SERVER_NAME", "")
    own = [
        r
        for r in reservations
        if r.kind is Kind.NOTEBOOK and r.state is State.ACTIVE and r.server_name == server
    ]
    if not own:
        return {}
    # The spawner names the reservation; without it, the server's last to end.
    last = max(own, key=lambda r: (r.id == environ.get("ERA_RESERVATION"), r.end))
    return {"id": last.id, "configuration": last.configuration, "end": milliseconds(last.end)}


def notices_state(notices: Sequence[Notice]) -> list[dict[str, str]]:
    """What the user should know now."""
    return [{"id": n.id, "level": n.level, "text": n.text} for n in notices]


def scripts(folder: Path) -> list[str]:
    """Scripts in a folder, to choose from."""
    try:
        found = [path.name for path in folder.iterdir() if path.suffix in (".py", ".sh")]
    except OSError:
        return []
    return sorted(found)[:MAX_FILES]
