"""How answers of the market look to people, as text and as HTML.

A view wraps a model of the API; every attribute of the model is there (amounts
there are integers of micro-credits), and the view says it in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, Generic, TypeVar

from era_hub import models
from era_hub.models import format_credits

from .times import format_span, format_when

ModelT = TypeVar("ModelT")

LEVELS = "▁▂▃▄▅▆▇█"
SOLD_OUT = "·"
NOTHING = "-"

PRICES = "Credits per hour."
EXPECTED = (
    "Expected later: the mean over these hours if you reserve later, and in brackets "
    "where it is 8 times in 10."
)
SIMULATED = "simulated GPUs: nothing runs on real hardware"


def credits(micro: int | None) -> str:
    """An amount for people, or a dash."""
    return NOTHING if micro is None else format_credits(micro)


def blocks(prices: Sequence[int | None], width: int = 48) -> str:
    """A chart in one line of text: a block per bucket of slots, a dot where sold out.

    Examples
    --------
    >>> blocks([1, 2, 4, None])
    '▃▅█·'
    """
    width = min(width, len(prices))
    means: list[float | None] = []
    for i in range(width):
        bucket = prices[i * len(prices) // width : (i + 1) * len(prices) // width]
        known = [price for price in bucket if price is not None]
        means.append(sum(known) / len(known) if known else None)
    top = max((mean for mean in means if mean is not None), default=0) or 1
    # From zero, so that a nearly flat price looks flat.
    return "".join(
        SOLD_OUT if mean is None else LEVELS[round(mean / top * (len(LEVELS) - 1))]
        for mean in means
    )


def expected(forecast: models.PriceForecast | None, slot: int) -> str:
    """Mean price per hour to expect of the coming hours, and what holds it 8 times in 10.

    Examples
    --------
    >>> quarter = models.PriceForecast(expected=[250_000], low=[50_000], high=[300_000])
    >>> expected(quarter, 900)
    '1.00 (0.20–1.20)'
    """
    if forecast is None:
        return NOTHING
    means = []
    for prices in (forecast.expected, forecast.low, forecast.high):
        known = [price for price in prices if price is not None]
        if not known:
            return NOTHING
        per_hour = sum(known) / len(known) * 3600 / slot / models.MICRO
        means.append(f"{per_hour:.2f}")
    return f"{means[0]} ({means[1]}–{means[2]})"


class Table:
    """Rows of cells with a head; plain text or HTML."""

    def __init__(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self.head = list(head)
        self.rows = [list(row) for row in rows]

    def __str__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def html(self) -> str:
        """The table with every cell escaped."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.head)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class View(Generic[ModelT]):
    """A model with words; unknown attributes are the model's."""

    def __init__(self, model: ModelT) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # asked for by copy and pickle before __init__ has run
            raise AttributeError(name)
        return getattr(self.model, name)

    def headline(self) -> str:
        """The gist in a sentence."""
        return ""

    def table(self) -> Table | None:
        """The details, if there are any."""
        return None

    def note(self) -> str:
        """What explains the details, if they need it."""
        return ""

    def __repr__(self) -> str:
        parts = (self.headline(), self.table(), self.note())
        return "\n".join(str(part) for part in parts if part)

    def _repr_html_(self) -> str:
        table = self.table()
        note = f"<p>{escape(self.note())}</p>" if self.note() else ""
        return f"<p>{escape(self.headline())}</p>{table.html() if table else ''}{note}"


class MarketView(View[models.Market]):
    """Prices now and for the coming hours."""

    def headline(self) -> str:
        market = self.model
        free = market.capacity[0] - market.promised[0] if market.capacity else 0
        text = f"{free} of {sum(market.capacity[:1])} GPUs are free now"
        return f"{text} ({SIMULATED})." if market.simulated else f"{text}."

    def note(self) -> str:
        known = any(each.forecast for each in self.model.configurations)
        return f"{PRICES} {EXPECTED}" if known else PRICES

    def table(self) -> Table:
        return Table(
            ["configuration", "GPUs", "now", "expected later", "the coming hours"],
            (
                [
                    c.name,
                    str(c.gpus),
                    credits(c.price_per_hour),
                    expected(c.forecast, self.model.slot),
                    blocks(c.prices, 24),
                ]
                for c in self.model.configurations
            ),
        )


class QuoteView(View[models.Quote]):
    """The cheapest start in the window."""

    def headline(self) -> str:
        what = f"{self.model.configuration} for {format_span(self.model.duration)}"
        if self.model.best:
            return f"{what}: {_offer(self.model.best)}."
        other = self.model.alternative
        hint = f" The cheapest other start: {_offer(other)}." if other else ""
        return f"{what}: nothing fits the window.{hint}"

    @property
    def price(self) -> str | None:
        """Credits at the cheapest start; None if nothing fits."""
        return format_credits(self.model.best.price) if self.model.best else None


def _offer(start: models.Start) -> str:
    return f"{credits(start.price)} credits, from {format_when(start.start)}"


class AccountView(View[models.Account]):
    """Credits and their latest movements."""

    SHOWN = 20

    def headline(self) -> str:
        account = self.model
        return (
            f"{account.name}: {credits(account.balance)} credits to spend, "
            f"{credits(account.held)} held for reservations."
        )

    def table(self) -> Table | None:
        entries = self.model.entries[: self.SHOWN]
        if not entries:
            return None
        return Table(
            ["when", "amount", "balance", "what"],
            (
                [format_when(e.at), _signed(e.amount), credits(e.balance), _meaning(e)]
                for e in entries
            ),
        )


def accounts_table(accounts: Sequence[models.AccountSummary]) -> Table:
    """Accounts that may pay."""
    return Table(
        ["account", "to spend", "held", ""],
        (
            [a.account, credits(a.balance), credits(a.held), "pays by default" * a.default]
            for a in accounts
        ),
    )


def _signed(amount: int) -> str:
    return credits(amount) if amount < 0 else f"+{credits(amount)}"


def _meaning(entry: models.LedgerEntry) -> str:
    lapse = f"; lapses {format_when(entry.expires)}" if entry.expires and entry.amount > 0 else ""
    return (entry.text or entry.memo) + lapse


class Listing(list[Any]):
    """A list that shows itself as a table."""

    def __init__(self, items: Iterable[Any], table: Callable[[list[Any]], Table], empty: str):
        super().__init__(items)
        self._table = table
        self._empty = empty

    def __repr__(self) -> str:
        return str(self._table(self)) if self else self._empty

    def _repr_html_(self) -> str:
        return self._table(self).html() if self else f"<p>{escape(self._empty)}</p>"


def jobs_table(jobs: Iterable[models.Job]) -> Table:
    """Jobs, one a line."""
    return Table(
        ["id", "name", "state", "progress", "price", "start", "end"],
        (
            [
                job.id,
                job.name,
                job.state.value,
                progress(job),
                credits(job.reservation.price),
                format_when(job.reservation.start),
                format_when(job.reservation.end),
            ]
            for job in jobs
        ),
    )


def progress(job: models.Job) -> str:
    """How far a job is, in percent as its log says it."""
    return NOTHING if job.progress is None else f"{job.progress:.0%}"


def reservations_table(reservations: Iterable[models.Reservation]) -> Table:
    """Reservations, one a line."""
    return Table(
        ["id", "kind", "configuration", "state", "price", "start", "end"],
        (
            [
                r.id,
                r.kind.value,
                r.configuration,
                r.state.value,
                credits(r.price),
                format_when(r.start),
                format_when(r.end),
            ]
            for r in reservations
        ),
    )
