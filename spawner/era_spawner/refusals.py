"""Why a server does not start now, in words, as exceptions the hub shows.

JupyterHub has four places for such a text: above the form, on the page of a
server that is not running, on error pages and in its REST API. Only some take
HTML, and the first takes none (its template and handler name it differently), so
the plain text itself carries its HTML for templates; see `Message`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from markupsafe import Markup
from tornado import web

from era_hub.models import Outcome, Reservation

from .words import count, credits, when, when_html

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub 5

    class SpawnException(web.HTTPError):  # type: ignore[no-redef]
        """JupyterHub 6's exception for spawns refused by policy, as far as 5 knows it."""

        def __init__(
            self, message: str, *, reason: str, message_html: str = "", status_code: int = 400
        ) -> None:
            super().__init__(status_code, message, reason=reason)
            self.message = message
            self.message_html = message_html


# A label in the hub's metrics: a few fixed words, never a text.
Reason = Literal[
    "bad-options",
    "price-too-low",
    "no-capacity",
    "refused",
    "scheduled",
    "starting",
    "unavailable",
    "unsafe-pod",
]

STATUS: dict[Reason, int] = {
    "bad-options": 400,
    "price-too-low": 402,
    "no-capacity": 409,
    "refused": 409,
    "scheduled": 409,
    "starting": 409,
    # Not a 5xx: the hub counts those, up to Spawner.consecutive_failure_limit.
    "unavailable": 424,
    "unsafe-pod": 409,
}
LOOK: dict[Reason, str] = {
    "scheduled": "success",
    "starting": "success",
    "unavailable": "danger",
    "unsafe-pod": "danger",
}

# The notice brings its own look, because the hub's pages show it where failures go:
# the red frame and the words around it are taken away where the news is good.
STYLE = Markup("""<style>
.spawn-error-msg:has(.era-notice) { all: unset; display: block; font-size: 0; }
.era-notice { font-size: 1rem; max-width: 46rem; margin-inline: auto; }
.era-good {
  --bs-alert-color: var(--bs-body-color);
  --bs-alert-bg: color-mix(in srgb, #198754 15%, transparent);
  --bs-alert-border-color: #198754;
}
.era-notice a { color: inherit; font-weight: 600; }
.row:has(.era-notice) p:has(+ p .era-notice) { display: none; }
.row:has(.era-good) :is(h1, #start, .progress, #progress-details),
.row:has(.era-good) p:has(.era-notice) ~ p,
.row:has(.era-good) p:has(~ .progress),
.error:has(.era-notice) h1 { display: none; }
</style>""")
SCRIPT = Markup("""<script>
for (const time of document.querySelectorAll(".era-notice time")) {
  const date = new Date(time.dateTime);
  const far = Math.abs(date - Date.now()) > 6 * 864e5 ? { day: "numeric", month: "short" } : {};
  time.textContent = date.toLocaleString("en-GB",
    { weekday: "short", hour: "2-digit", minute: "2-digit", ...far }).replace(",", "");
}
for (const notice of document.querySelectorAll(".spawn-error-msg > .era-notice")) {
  if (notice.previousSibling) notice.previousSibling.textContent = "";
}
</script>""")


class Message(str):
    """Plain text in logs and JSON that a template renders as its HTML."""

    html: Markup

    def __new__(cls, text: str, html: Markup) -> Message:
        message = super().__new__(cls, text)
        message.html = html
        return message

    def __html__(self) -> str:
        return str(self.html)


def refusal(reason: Reason, text: str, html: Markup | None = None) -> Any:
    """The exception to raise from `Spawner.start`.

    Parameters
    ----------
    reason : str
        One of the fixed words.
    text : str
        For logs and the REST API.
    html : Markup, optional
        The same for pages; default: the text, escaped.
    """
    page = notice(LOOK.get(reason, "warning"), html or Markup.escape(text))
    error = SpawnException(text, reason=reason, message_html=page, status_code=STATUS[reason])
    # The names that handlers look for, on JupyterHub 5 as well.
    error.jupyterhub_message = Message(text, page)
    error.jupyterhub_html_message = page
    return error


def notice(look: str, body: Markup) -> Markup:
    """A box with its style, of elements that may stand inside a paragraph."""
    good = " era-good" if look == "success" else ""
    box = Markup('<span class="era-notice{} alert alert-{} d-block text-start" role="{}">{}</span>')
    role = "status" if good else "alert"
    return box.format(good, look, role, body) + STYLE + SCRIPT


def scheduled(reservation: Reservation, pages: str) -> Any:
    """Good news: reserved for later, and the service starts the server then."""
    link = f"{pages}#reservation-{reservation.id}"
    gpus, price = count(reservation.units), credits(reservation.price)
    text = (
        f"Reserved: {gpus} from {when(reservation.start)} until {when(reservation.end)} "
        f"for {price} credits. Your server starts by itself then. Details: {link}"
    )
    html = Markup(
        "<strong>Reserved: {} from {} until {} for {} credits.</strong><br>"
        "Your server starts by itself then; there is nothing more to do. "
        '<a href="{}">See or cancel the reservation</a>'
    ).format(gpus, when_html(reservation.start), when_html(reservation.end), price, link)
    return refusal("scheduled", text, html)


def starting(reservation: Reservation, pages: str) -> Any:
    """Good news: the GPUs are being freed, and the service starts the server then."""
    link = f"{pages}#reservation-{reservation.id}"
    gpus, price = count(reservation.units), credits(reservation.price)
    text = (
        f"Reserved: {gpus} until {when(reservation.end)} for {price} credits. They are being "
        f"made ready; your server starts by itself within moments. Details: {link}"
    )
    html = Markup(
        "<strong>Reserved: {} until {} for {} credits.</strong><br>"
        "They are being made ready; your server starts by itself within moments. "
        '<a href="{}">See the reservation</a>'
    ).format(gpus, when_html(reservation.end), price, link)
    return refusal("starting", text, html)


def declined(outcome: Outcome, value: int, latest_start: datetime | None) -> Any:
    """The market did not take the bid: what it costs, and the cheapest way out."""
    if outcome.price is None:
        reason: Reason = "no-capacity"
        window = f"by {when(latest_start)}" if latest_start else "now"
        text = f"Nothing that fits is free to start {window}."
    elif outcome.price > value:
        reason = "price-too-low"
        text = (
            f"The price is {credits(outcome.price)} credits, above your limit of {credits(value)}."
        )
    else:
        reason = "refused"
        text = outcome.reason or "The market declined the request."
    html = Markup("<strong>{}</strong>").format(text)
    other = outcome.alternative
    if other:
        price = credits(other.price)
        text += f" The cheapest other start is {when(other.start)}, for {price} credits."
        html += Markup("<br>The cheapest other start is {}, for {} credits.").format(
            when_html(other.start), price
        )
    return refusal(reason, text, html)


def unavailable() -> Any:
    """The service does not answer, or not in a way that makes sense."""
    return refusal("unavailable", UNAVAILABLE)


def unsafe_pod(reasons: Sequence[str]) -> Any:
    """A pod would have had more than its reservation: an admin has to look at it."""
    text = (
        "The server was not started, because its pod does not fit its reservation: "
        f"{'; '.join(reasons)}. Choose other options, or tell the administrator of this hub."
    )
    return refusal("unsafe-pod", text)


UNAVAILABLE = (
    "The market for GPU time can't be reached right now, so no server can be started. "
    "Try again in a minute; if it lasts, tell the administrator of this hub."
)
