"""Pages with plots that open in any browser, without a network.

What a page shows is in it as JSON (the element `figures`), so that it can be read back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any, Final

import numpy as np

from era_pricing.arrays import FloatArray
from era_pricing.simulator.compare import thinned
from era_pricing.simulator.metrics import ClassCount, Series, Summary
from era_pricing.simulator.run import Run
from era_pricing.timegrid import DAY

POINTS: Final = 1500
"""Most points of a curve on a page; longer ones are averaged."""

BLUE, GREEN, ORANGE, GREY = "#2f6fde", "#1a8f6a", "#d9680f", "#8a929b"
COLORS: Final = (BLUE, ORANGE, GREEN, "#8e44ad", "#c0392b", "#b8860b", "#16a0b8", "#6b7280")
"""One for each mechanism of a comparison, from the first again after the last."""

LEGEND: Final = {
    "orientation": "h",
    "x": 0,
    "y": 1.02,
    "yanchor": "bottom",
    "traceorder": "normal",
}

_REAL_DATES: Final = 365 * DAY
Figure = dict[str, Any]


def render(title: str, body: str, figures: Sequence[Figure]) -> str:
    """A whole page.

    Parameters
    ----------
    title
        Plain text.
    body
        HTML with an element for the id of each figure.
    figures
        Each with `id`, and `data` and `layout` as Plotly has them.
    """
    from plotly.offline import get_plotlyjs

    page = files("era_pricing.simulator").joinpath("static/page.html").read_text("utf-8")
    data = json.dumps(figures, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    parts = {"title": escape(title), "body": body, "figures": data}
    for name, text in parts.items():
        page = page.replace("{{" + name + "}}", text, 1)
    head, tail = page.split("{{plotly}}")
    return head + str(get_plotlyjs()) + tail


def numbers(values: FloatArray, digits: int = 6) -> list[float | None]:
    """Values for JSON: few digits, and null in the place of NaN."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values]


def times_of(curves: Series) -> tuple[list[str] | list[float], str]:
    """Positions on the axis of time, and its title.

    Dates where the times are real ones; else days since the beginning.
    """
    if len(curves.times) and int(curves.times[0]) >= _REAL_DATES:
        moments = [datetime.fromtimestamp(int(t), UTC) for t in curves.times]
        return [moment.strftime("%Y-%m-%d %H:%M") for moment in moments], "UTC"
    begin = int(curves.times[0]) if len(curves.times) else 0
    return [round((int(t) - begin) / DAY, 5) for t in curves.times], "days"


def amount(number: float | None, digits: int = 0) -> str:
    """A number with thousands separated; a dash for None."""
    return "–" if number is None else f"{number:,.{digits}f}"


def share(number: float | None, digits: int = 0) -> str:
    """A share in percent; a dash for None."""
    return "–" if number is None else f"{100 * number:.{digits}f} %"


def card(name: str, number: str, more: str = "", bad: bool = False) -> str:
    """One number with its name and a remark."""
    kind = "card bad" if bad else "card"
    return (
        f'<div class="{kind}"><dt>{escape(name)}</dt><dd><div class="number">{escape(number)}'
        f'</div><div class="more">{escape(more)}</div></dd></div>'
    )


def stacked(rows: Sequence[tuple[str, float]], x: Any, x_title: str, height: int) -> Figure:
    """A layout of plots above each other that share the axis of time.

    Parameters
    ----------
    rows
        Title of each y axis, from the top, and its share of the height.
    x
        The positions; only their type is looked at.
    x_title
        Below the lowest plot.
    height
        Pixels.
    """
    gap, top = 0.05, 1.0
    free = 1 - gap * (len(rows) - 1)
    whole = sum(part for _, part in rows)
    layout: Figure = {
        "height": height,
        "margin": {"l": 70, "r": 20, "t": 10, "b": 45},
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "showlegend": True,
        "legend": LEGEND,
        "xaxis": {
            "anchor": f"y{len(rows)}" if len(rows) > 1 else "y",
            "title": {"text": x_title},
            "type": "date" if x and isinstance(x[0], str) else "linear",
            "hoverformat": "%a %d %b %H:%M" if x and isinstance(x[0], str) else ".2f",
            "showgrid": False,
        },
    }
    for number, (title, part) in enumerate(rows):
        height_of = free * part / whole
        layout["yaxis" + (str(number + 1) if number else "")] = {
            "domain": [max(0.0, top - height_of), top],
            "title": {"text": title},
            "rangemode": "tozero",
        }
        top -= height_of + gap
    return layout


def line(x: Any, y: FloatArray, name: str, color: str, row: int = 1, **more: Any) -> Figure:
    """A curve in one of the stacked plots."""
    style = {"color": color, "width": more.pop("width", 2), "dash": more.pop("dash", "solid")}
    style["shape"] = more.pop("shape", "linear")
    axis = {} if row == 1 else {"yaxis": f"y{row}"}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": numbers(y),
        "name": name,
        "line": style,
        **axis,
        **more,
    }


def run_page(
    run: Run, summary: Summary, curves: Series, counts: Sequence[ClassCount], title: str = ""
) -> str:
    """The page of one run: numbers, then load, prices and money over time, then classes.

    Parameters
    ----------
    run, summary, curves, counts
        The run, and `summarise`, `series` and `classes` of it.
    title
        Above it; the mechanism's name if empty.
    """
    title = title or run.mechanism.label
    days = len(curves.times) * run.grid.slot / DAY
    body = "\n".join(
        (
            f"<h1>{escape(title)}</h1>",
            f"<p>{escape(_in_words(summary, run, days))}</p>",
            f'<dl class="cards">{_run_cards(summary)}</dl>',
            "<h2>Load, prices, welfare and revenue</h2>",
            '<p class="quiet">Load is what is promised, against what is there. The price is that '
            "of one unit for an hour in the coming day: the median of the slots for sale, and the "
            "range from the 10 % to the 90 % quantile. Money is summed over the requests submitted "
            "so far.</p>",
            '<div id="course" class="plot"></div>',
            "<h2>Who was served</h2>",
            _class_table(counts),
        )
    )
    return render(f"{title} · era-sim", body, [_course(thinned(curves, POINTS), run.pool.unit)])


def _in_words(summary: Summary, run: Run, days: float) -> str:
    units = run.pool.capacity(run.pool.priced[0])
    asked = (
        f"{amount(summary.requests)} requests, worth {amount(summary.requested_value)} credits, "
        f"met a pool of {amount(units)} {run.pool.unit} for {days:.1f} days. "
    )
    done = (
        f"The market accepted {amount(summary.accepted)} of them; those it kept are worth "
        f"{amount(summary.welfare)} credits"
    )
    if summary.welfare_ratio is not None:
        done += f", {share(summary.welfare_ratio, 1)} of what nobody could have exceeded"
    return f"{asked}{done}."


def _run_cards(summary: Summary) -> str:
    value, bound = summary.requested_value, summary.omniscient_bound
    of_value = share(summary.welfare / value if value else None)
    cards = [card("Welfare, credits", amount(summary.welfare), f"{of_value} of all that was asked")]
    if bound is not None:
        cards.append(
            card("Welfare / bound", amount(summary.welfare_ratio, 3), f"bound: {amount(bound)}")
        )
    refunded = f"{amount(summary.refunds)} refunded" if summary.refunds else "nothing refunded"
    accepted = share(summary.accepted / summary.requests if summary.requests else None)
    late = share(summary.late_jobs / summary.accepted if summary.accepted else None, 1)
    speed = f"99 %: {amount(summary.decision_us_p99)} µs"
    cards += [
        card("Revenue, credits", amount(summary.revenue), refunded),
        card("Utilization", share(summary.utilization), f"{amount(summary.unit_hours)} GPU-hours"),
        card("Accepted", amount(summary.accepted), f"{accepted} of the requests"),
        card(
            "Late jobs", amount(summary.late_jobs), f"{late} of the accepted", summary.late_jobs > 0
        ),
        card("Decision", f"{amount(summary.decision_us_p50)} µs", speed),
    ]
    return "".join(cards)


def _course(curves: Series, unit: str) -> Figure:
    """Like Figure 2 of the ERA paper: load, prices and money above one axis of time."""
    x, x_title = times_of(curves)
    band = {"showlegend": False, "hoverinfo": "skip", "width": 0}
    data = [
        line(x, curves.capacity, "capacity", "ink", width=1.5, dash="dot", shape="hv"),
        line(x, curves.load, "load", BLUE, width=1.5, shape="hv")
        | {"fill": "tozeroy", "fillcolor": "rgba(47,111,222,.18)"},
        line(x, curves.price_low, "10 %", ORANGE, 2, **band),
        line(x, curves.price_high, "90 %", ORANGE, 2, **band)
        | {"fill": "tonexty", "fillcolor": "rgba(217,104,15,.2)"},
        line(x, curves.price, "price of a unit-hour", ORANGE, 2),
        line(x, curves.requested, "requested value", GREY, 3, dash="dot", width=1.5),
    ]
    if np.isfinite(curves.bound).any():
        data.append(line(x, curves.bound, "omniscient bound", "ink", 3, dash="dash", width=1.5))
    data += [
        line(x, curves.welfare, "welfare", BLUE, 3, width=2.5),
        line(x, curves.revenue, "revenue", GREEN, 3, width=2.5),
    ]
    rows = ((unit, 1.0), ("credits / unit-hour", 1.0), ("credits", 1.35))
    return {"id": "course", "data": data, "layout": stacked(rows, x, x_title, 760)}


def _class_table(counts: Sequence[ClassCount]) -> str:
    late = any(each.late for each in counts)
    head = ["class", "accepted", "requests", "value", "welfare", "revenue", *(["late"] * late)]
    rows = []
    for each in counts:
        part = each.accepted / each.requests if each.requests else 0.0
        cells = [
            escape(each.label),
            f'{share(part)}<span class="bar"><i style="width:{100 * part:.1f}%"></i></span>',
            amount(each.requests),
            amount(each.requested_value),
            amount(each.welfare),
            amount(each.revenue),
            *([amount(each.late)] * late),
        ]
        rows.append(cells)
    return table(head, rows)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], marks: Mapping[int, str] | None = None
) -> str:
    """An HTML table; the cells are HTML, `marks` gives rows a class by their number."""
    marks = marks or {}
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f'<tr class="{marks.get(number, "")}">'
        + "".join(f"<td>{cell}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'
