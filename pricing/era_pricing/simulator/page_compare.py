"""The page of a comparison: a table, bars with spread, and each mechanism over time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np

from era_pricing.arrays import FloatArray
from era_pricing.simulator.compare import CURVE_POINTS, Entry
from era_pricing.simulator.metrics import Series
from era_pricing.simulator.page import (
    COLORS,
    LEGEND,
    Figure,
    amount,
    line,
    numbers,
    render,
    share,
    stacked,
    table,
)
from era_pricing.timegrid import DAY

_BARS: Final = (
    ("welfare_ratio", "welfare / bound", 1.0),
    ("welfare", "welfare, credits", 1.0),
    ("revenue", "revenue, credits", 1.0),
    ("utilization", "utilization, %", 100.0),
)


def compare_page(entries: Sequence[Entry], title: str, remark: str) -> str:
    """The page of a comparison.

    Parameters
    ----------
    entries
        The mechanisms, each with all its trials.
    title, remark
        Above it, and one sentence on what was run.
    """
    seeds = len(entries[0].trials)
    over = f"the mean over {seeds} seeds" if seeds > 1 else "one seed"
    whiskers = "; the whisker is one standard deviation, the dots are the single seeds"
    whiskers = whiskers if seeds > 1 else ""
    body = "\n".join(
        (
            f"<h1>{escape(title)}</h1>",
            f"<p>{escape(remark)}</p>",
            _overview(entries),
            "<h2>Side by side</h2>",
            f'<p class="quiet">Each bar is {over}{whiskers}.</p>',
            '<div id="bars" class="plot"></div>',
            "<h2>Over time</h2>",
            f'<p class="quiet">Load, price of a GPU-hour of the coming day (median of the slots '
            f"for sale), welfare and revenue so far; {over}.</p>",
            '<div id="course" class="plot"></div>',
            "<h2>Who was served</h2>",
            '<p class="quiet">Share of the requests of each class that was accepted.</p>',
            '<div id="classes" class="plot"></div>',
        )
    )
    return render(f"{title} · era-sim", body, [_bars(entries), _course(entries), _classes(entries)])


def color(number: int) -> str:
    """Of the mechanism with this number."""
    return COLORS[number % len(COLORS)]


def _overview(entries: Sequence[Entry]) -> str:
    head = ["mechanism", "welfare / bound", "welfare", "revenue"]
    head += ["utilization", "accepted", "late jobs", "decision, µs"]
    best = max(range(len(entries)), key=lambda number: entries[number].mean("welfare") or 0.0)
    rows = []
    for number, entry in enumerate(entries):
        name = f'<span class="swatch" style="background:{color(number)}"></span>'
        asked = entry.mean("requests") or 1.0
        rows.append(
            (
                name + escape(entry.mechanism.label),
                _spread(entry, "welfare_ratio", 3),
                _spread(entry, "welfare"),
                _spread(entry, "revenue"),
                share(entry.mean("utilization")),
                share((entry.mean("accepted") or 0.0) / asked),
                _spread(entry, "late_jobs"),
                amount(entry.mean("decision_us_p50")),
            )
        )
    return table(head, rows, {best: "best"} if len(entries) > 1 else None)


def _spread(entry: Entry, name: str, digits: int = 0) -> str:
    mean, spread = entry.mean(name), entry.spread(name)
    if not spread:
        return amount(mean, digits)
    return f'{amount(mean, digits)} <span class="spread">± {amount(spread, digits)}</span>'


def _bars(entries: Sequence[Entry]) -> Figure:
    """Small plots side by side, one for each number."""
    shown = [bar for bar in _BARS if entries[0].mean(bar[0]) is not None]
    layout: Figure = {
        "height": 70 + 44 * len(entries),
        "margin": {"l": 10, "r": 20, "t": 10, "b": 50},
        "showlegend": False,
        "bargap": 0.35,
    }
    data: list[Figure] = []
    gap, left = 0.04, 0.2
    width = (1 - left - gap * (len(shown) - 1)) / len(shown)
    for number, (name, title, scale) in enumerate(shown):
        suffix = str(number + 1) if number else ""
        low = left + number * (width + gap)
        layout["xaxis" + suffix] = {
            "domain": [low, low + width],
            "anchor": "y" + suffix,
            "title": {"text": title},
            "rangemode": "tozero",
            "nticks": 5,
        }
        layout["yaxis" + suffix] = {
            "anchor": "x" + suffix,
            "autorange": "reversed",
            "showticklabels": number == 0,
            "automargin": False,
            "type": "category",
            "ticks": "",
            "showgrid": False,
        }
        data += _bar_traces(entries, name, scale, {"xaxis": "x" + suffix, "yaxis": "y" + suffix})
    return {"id": "bars", "data": data, "layout": layout, "bar": False}


def _bar_traces(
    entries: Sequence[Entry], name: str, scale: float, axes: dict[str, str]
) -> list[Figure]:
    """Means and spreads of one number, and the single seeds if there are several."""
    many = len(entries[0].trials) > 1
    means = np.array([(entry.mean(name) or 0.0) * scale for entry in entries])
    spreads = np.array([(entry.spread(name) or 0.0) * scale for entry in entries])
    bars: Figure = {
        "type": "bar",
        "orientation": "h",
        "x": numbers(means),
        "y": [entry.mechanism.label for entry in entries],
        "marker": {"color": [color(number) for number in range(len(entries))]},
        "error_x": {
            "type": "data",
            "array": numbers(spreads),
            "thickness": 1.5,
            "visible": many,
        },
        "hovertemplate": "%{y}: %{x:,.4~g}<extra></extra>",
        **axes,
    }
    if not many:
        return [bars]
    dots = [
        (value * scale, each.mechanism.label) for each in entries for value in each.values(name)
    ]
    singles: Figure = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers(np.array([value for value, _ in dots])),
        "y": [label for _, label in dots],
        "marker": {"color": "ink", "size": 5, "opacity": 0.6},
        "hoverinfo": "skip",
        **axes,
    }
    return [bars, singles]


def _course(entries: Sequence[Entry]) -> Figure:
    longest = max(_length(trial.series) for entry in entries for trial in entry.trials)
    grid = np.linspace(0, longest, CURVE_POINTS)
    x = [float(f"{day:.5g}") for day in grid]
    data: list[Figure] = []
    capacity = _mean_curve([trial.series for trial in entries[0].trials], "capacity", grid)
    ink: Figure = {"width": 1.5, "dash": "dot"}
    data.append(line(x, capacity, "capacity", "ink", **ink))
    for number, entry in enumerate(entries):
        all_curves = [trial.series for trial in entry.trials]
        group: Figure = {"legendgroup": str(number), "width": 1.8}
        for row, name in enumerate(("load", "price", "welfare", "revenue"), start=1):
            values = _mean_curve(all_curves, name, grid)
            label = entry.mechanism.label
            data.append(line(x, values, label, color(number), row, showlegend=row == 1, **group))
    asked = _mean_curve([trial.series for trial in entries[0].trials], "requested", grid)
    data.append(line(x, asked, "requested value", "quiet", 3, **ink))
    rows = (("GPUs", 1.0), ("credits / GPU-hour", 1.0), ("welfare", 1.1), ("revenue", 1.1))
    return {"id": "course", "data": data, "layout": stacked(rows, x, "days", 900)}


def _length(curves: Series) -> float:
    return float(curves.times[-1] - curves.times[0]) / DAY if len(curves.times) else 0.0


def _mean_curve(all_curves: Sequence[Series], name: str, grid: FloatArray) -> FloatArray:
    """Mean of the curves at days since the beginning; after its end one keeps its last sum."""
    sums = name in ("requested", "welfare", "revenue", "capacity")
    rows = []
    for curves in all_curves:
        if not len(curves.times):
            continue
        days = (curves.times - curves.times[0]) / DAY
        values = getattr(curves, name)
        rows.append(np.interp(grid, days, values, right=values[-1] if sums else np.nan))
    if not rows:
        return np.full(len(grid), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a moment without any value
        mean: FloatArray = np.nanmean(np.array(rows), axis=0)
    return mean


def _classes(entries: Sequence[Entry]) -> Figure:
    labels = list(
        dict.fromkeys(c.label for e in entries for trial in e.trials for c in trial.classes)
    )
    data: list[Figure] = []
    for number, entry in enumerate(entries):
        accepted = dict.fromkeys(labels, 0)
        asked = dict.fromkeys(labels, 0)
        for trial in entry.trials:
            for each in trial.classes:
                accepted[each.label] += each.accepted
                asked[each.label] += each.requests
        parts = [100 * accepted[label] / asked[label] if asked[label] else 0.0 for label in labels]
        data.append(
            {
                "type": "bar",
                "x": labels,
                "y": numbers(np.array(parts)),
                "name": entry.mechanism.label,
                "marker": {"color": color(number)},
                "hovertemplate": "%{x}: %{y:.1f} %<extra>"
                + escape(entry.mechanism.label)
                + "</extra>",
            }
        )
    layout = {
        "height": 340,
        "margin": {"l": 70, "r": 20, "t": 10, "b": 60},
        "barmode": "group",
        "showlegend": True,
        "legend": LEGEND,
        "xaxis": {"type": "category", "automargin": True, "showgrid": False},
        "yaxis": {"title": {"text": "accepted, %"}, "range": [0, 100]},
    }
    return {"id": "classes", "data": data, "layout": layout, "bar": False}
