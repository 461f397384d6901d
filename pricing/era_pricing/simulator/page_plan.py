"""The page of a plan: what each size of pool is worth, and when GPUs are missing."""

from __future__ import annotations

from html import escape

import numpy as np

from era_pricing.simulator.page import (
    BLUE,
    GREEN,
    ORANGE,
    Figure,
    amount,
    card,
    line,
    numbers,
    render,
    share,
    stacked,
)
from era_pricing.simulator.planning import Plan, by_hour
from era_pricing.timegrid import DAY, HOUR

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def plan_page(found: Plan, name: str, mechanism: str | None) -> str:
    """The page of a plan.

    Parameters
    ----------
    found
        The plan.
    name
        Of the workload.
    mechanism
        Name of the mechanism that was run at each size; None if none was.
    """
    now, gains = found.sizes[0], found.gains()
    lost = found.requested_value - now.bound
    title = f"More GPUs for {name}"
    said = (
        f"{amount(now.capacity)} GPUs could have earned at most {amount(now.bound)} of the "
        f"{amount(found.requested_value)} credits that were asked for in {found.days:.1f} days; "
        f"{amount(lost)} had to be turned away."
    )
    cards = card("GPUs now", amount(now.capacity), f"bound: {amount(now.bound)} credits")
    cards += card(
        "Turned away", share(lost / found.requested_value if found.requested_value else 0.0),
        f"{amount(lost)} credits",
    )  # fmt: skip
    if len(found.sizes) > 1:
        per_hour = gains[1] / (found.days * DAY / HOUR) if found.days else 0.0
        cards += card("The next GPU", amount(gains[1]), f"credits; {amount(per_hour, 3)} an hour")
        last = found.sizes[-1]
        added = last.capacity - now.capacity
        cards += card(f"{added} GPUs more", amount(last.bound - now.bound), "credits in all")
    body = "\n".join(
        (
            f"<h1>{escape(title)}</h1>",
            f"<p>{escape(said)}</p>",
            f'<dl class="cards">{cards}</dl>',
            "<h2>What each size is worth</h2>",
            '<p class="quiet">Above, what nobody could exceed with so many GPUs'
            + (f", and what {escape(mechanism)} reached" if mechanism else "")
            + ". Below, what each GPU added.</p>",
            '<div id="sizes" class="plot"></div>',
            "<h2>When they are missing</h2>",
            '<p class="quiet">What one GPU more would have earned at each hour, in the pool as it '
            "is; and the value that was turned away, by the time at which it was submitted.</p>",
            '<div id="times" class="plot"></div>',
            '<p class="quiet">By day of the week and hour, UTC:</p>',
            '<div id="week" class="plot"></div>',
        )
    )
    return render(
        f"{title} · era-sim", body, [_sizes(found, mechanism), _times(found), _week(found)]
    )


def _sizes(found: Plan, mechanism: str | None) -> Figure:
    x = [size.capacity for size in found.sizes]
    bounds = np.array([size.bound for size in found.sizes])
    data = [line(x, bounds, "bound", BLUE) | {"mode": "lines+markers"}]
    if mechanism is not None:
        runs = np.array([np.nan if s.summary is None else s.summary.welfare for s in found.sizes])
        data.append(line(x, runs, mechanism, GREEN) | {"mode": "lines+markers"})
    gains = np.array(found.gains())[1:]
    data.append(
        {
            "type": "bar",
            "x": x[1:],
            "y": numbers(gains),
            "yaxis": "y2",
            "name": "per GPU added",
            "marker": {"color": ORANGE},
        }
    )
    layout = stacked((("credits", 1.2), ("credits / GPU", 1.0)), x, "GPUs", 520)
    layout["yaxis"]["rangemode"] = "normal"
    layout["xaxis"] |= {"hoverformat": "d", "tickformat": "d"}
    return {"id": "sizes", "data": data, "layout": layout, "bar": False}


def _times(found: Plan) -> Figure:
    x = [round(float(t - found.times[0]) / DAY, 5) for t in found.times] if len(found.times) else []
    per_hour = found.prices * (HOUR / found.slot)
    data = [
        line(x, per_hour, "one GPU more", ORANGE, shape="hv", width=1.5)
        | {"fill": "tozeroy", "fillcolor": "rgba(217,104,15,.2)"},
        line(x, np.cumsum(found.turned_away), "turned away so far", BLUE, 2),
    ]
    rows = (("credits / hour", 1.2), ("credits", 1.0))
    return {"id": "times", "data": data, "layout": stacked(rows, x, "days", 460)}


def _week(found: Plan) -> Figure:
    means = by_hour(found.times, found.prices * (HOUR / found.slot))
    data = [
        {
            "type": "heatmap",
            "x": [f"{hour:02}:00" for hour in range(24)],
            "y": list(_DAYS),
            "z": [numbers(row, 4) for row in means],
            "colorscale": [[0, "rgba(217,104,15,.05)"], [1, ORANGE]],
            "xgap": 2,
            "ygap": 2,
            "hovertemplate": "%{y} %{x}: %{z:.3f} credits an hour<extra></extra>",
            "colorbar": {"title": {"text": "credits<br>an hour"}, "thickness": 12},
        }
    ]
    layout = {
        "height": 280,
        "margin": {"l": 70, "r": 20, "t": 10, "b": 40},
        "xaxis": {"showgrid": False, "nticks": 12, "tickangle": 0},
        "yaxis": {"autorange": "reversed", "showgrid": False},
    }
    return {"id": "week", "data": data, "layout": layout, "bar": False}
