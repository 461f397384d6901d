"""Tables and progress bars in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from era_pricing.simulator.compare import Entry
from era_pricing.simulator.mechanism import Mechanism
from era_pricing.simulator.metrics import ClassCount, Summary

# Wide enough for any row: in a file or a pipe nothing need fold.
PIPED_WIDTH = 200


@contextmanager
def progress_bar(total: int, unit: str, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; none where stderr is no terminal."""
    from tqdm import tqdm

    hidden = quiet or not sys.stderr.isatty()
    with tqdm(total=total, unit=f" {unit}", disable=hidden, leave=False, file=sys.stderr) as bar:
        yield bar.update


def show(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str | None = None,
    texts: Collection[int] = (0,),
) -> None:
    """Print a table; columns are numbers but for those in `texts`."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number in texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def amount(number: float | None, digits: int = 0) -> str:
    """A number with thin thousands; a dash for None."""
    return "–" if number is None else f"{number:,.{digits}f}"


def share(number: float | None) -> str:
    """A share in percent; a dash for None."""
    return "–" if number is None else f"{number:.1%}"


def show_summary(summary: Summary, mechanism: Mechanism, counts: Sequence[ClassCount]) -> None:
    """Print what one run came to."""
    value = summary.requested_value
    rows = [
        ("requested value", amount(value), "credits, all requests"),
        (
            "welfare",
            amount(summary.welfare),
            f"{share(summary.welfare / value if value else None)} of it",
        ),
        ("omniscient bound", amount(summary.omniscient_bound), "nobody could exceed it"),
        ("welfare ratio", amount(summary.welfare_ratio, 3), "welfare / bound"),
        ("revenue", amount(summary.revenue), f"after {amount(summary.refunds)} refunded"),
        (
            "utilization",
            share(summary.utilization),
            f"{amount(summary.unit_hours)} GPU-hours promised",
        ),
        ("accepted", amount(summary.accepted), f"of {amount(summary.requests)}"),
        (
            "rejected",
            amount(summary.rejected),
            f"{amount(summary.too_dear)} too dear, {amount(summary.no_room)} without room, "
            f"{amount(summary.refused)} never possible",
        ),
        (
            "late jobs",
            amount(summary.late_jobs),
            f"{summary.broken} lost capacity, {summary.failed} crashed, {summary.overdue} overdue",
        ),
        (
            "decision",
            amount(summary.decision_us_p50),
            f"µs; 99 %: {amount(summary.decision_us_p99)}",
        ),
    ]
    show(("", mechanism.label, ""), rows, texts=(0, 2))
    show(
        ("class", "requests", "accepted", "late", "value", "welfare", "revenue"),
        [
            (
                each.label,
                amount(each.requests),
                share(each.accepted / each.requests if each.requests else None),
                amount(each.late),
                amount(each.requested_value),
                amount(each.welfare),
                amount(each.revenue),
            )
            for each in counts
        ],
    )


def show_comparison(entries: Sequence[Entry]) -> None:
    """Print mechanisms side by side: means over the seeds, and standard deviations."""
    best = max(entries, key=lambda entry: entry.mean("welfare") or 0.0)
    rows = []
    for entry in entries:
        asked = entry.mean("requests") or 1.0
        mark = " *" if entry is best and len(entries) > 1 else ""
        rows.append(
            (
                entry.mechanism.label + mark,
                _spread(entry, "welfare_ratio", 3),
                _spread(entry, "welfare"),
                _spread(entry, "revenue"),
                share(entry.mean("utilization")),
                share((entry.mean("accepted") or 0.0) / asked),
                _spread(entry, "late_jobs"),
                amount(entry.mean("decision_us_p50")),
                amount(entry.mean("decision_us_p99")),
            )
        )
    head = (
        "",
        "welfare/bound",
        "welfare",
        "revenue",
        "utilization",
        "accepted",
        "late",
        "µs",
        "99 %",
    )
    seeds = len(entries[0].trials)
    show(head, rows, f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else None)


def _spread(entry: Entry, name: str, digits: int = 0) -> str:
    spread = entry.spread(name)
    more = f" ± {amount(spread, digits)}" if spread else ""
    return amount(entry.mean(name), digits) + more
