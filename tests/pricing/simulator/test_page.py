"""Pages: what was computed is in them, and they need nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from era_pricing.simulator.compare import compare
from era_pricing.simulator.mechanism import Pool
from era_pricing.simulator.metrics import bound_of, classes, series, summarise
from era_pricing.simulator.page import POINTS, run_page
from era_pricing.simulator.page_compare import compare_page
from era_pricing.simulator.page_plan import plan_page
from era_pricing.simulator.planning import plan
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.run import Run, simulate
from era_pricing.simulator.source import Given
from era_pricing.simulator.workers import open_workers
from era_pricing.workload import Workload
from tests.pricing.simulator.small import DAY, ECON, GREEDY, demand

YEAR_2024 = 1_704_067_200


def figures(page: str) -> dict[str, Any]:
    """What the page shows, by the id of its element."""
    found = re.search(r'<script id="figures" type="application/json">(.*?)</script>', page, re.S)
    assert found
    plots = {figure["id"]: figure for figure in json.loads(found[1])}
    for name in plots:
        assert f'<div id="{name}" class="plot"></div>' in page
    return plots


def curve(figure: dict[str, Any], name: str) -> dict[str, Any]:
    return next(trace for trace in figure["data"] if trace.get("name") == name)


def page_of(workload: Workload, title: str = "") -> tuple[str, Run]:
    found = simulate(workload, ECON, Pool.of(6))
    bound = bound_of(found, 1e-3)
    return run_page(
        found, summarise(found, bound), series(found, bound), classes(found), title
    ), found


def test_a_run_is_all_there() -> None:
    page, found = page_of(demand(rows=150))
    curves, course = series(found), figures(page)["course"]
    assert curve(course, "load")["y"] == pytest.approx(curves.load, rel=1e-4)
    assert curve(course, "welfare")["y"] == pytest.approx(curves.welfare, rel=1e-4)
    assert curve(course, "revenue")["y"][-1] == pytest.approx(summarise(found).revenue, rel=1e-4)
    assert curve(course, "omniscient bound")["y"][-1] > 0
    assert len(curve(course, "price of a unit-hour")["y"]) == len(curves.times)
    assert f"{summarise(found).accepted:,}" in page
    for each in classes(found):
        assert each.label in page


def test_it_needs_no_network() -> None:
    page, _ = page_of(demand(rows=20))
    outside = page[: page.index("plotly.js v")] + page[page.rindex("</script>") :]
    assert "Plotly.react" in page and len(page) > 1_000_000
    assert not re.search(r'(?:src|href)\s*=\s*["\']?(?:https?:)?//', outside)


def test_days_without_a_date_and_dates_with_one() -> None:
    page, _ = page_of(demand(rows=20))
    assert curve(figures(page)["course"], "load")["x"][0] == 0
    page, _ = page_of(demand(rows=20, begin=YEAR_2024))
    assert curve(figures(page)["course"], "load")["x"][0].startswith("2024-01-01 ")
    assert figures(page)["course"]["layout"]["xaxis"]["type"] == "date"


def test_a_long_run_is_thinned() -> None:
    workload = demand(rows=60, days=200)
    page, found = page_of(workload)
    shown = curve(figures(page)["course"], "welfare")["y"]
    assert len(series(found).times) > 5000 and len(shown) <= POINTS
    assert shown[-1] == pytest.approx(summarise(found).welfare, rel=1e-4)


def test_names_are_texts_and_no_markup() -> None:
    name = "</script><b>&"
    page, _ = page_of(replace(demand(rows=20), classes=(name,) * 20), title=name)
    assert name not in page and "&lt;/script&gt;&lt;b&gt;&amp;" in page
    assert figures(page)


def test_an_empty_run_has_a_page() -> None:
    page, _ = page_of(Workload.empty())
    assert figures(page)["course"]["data"]


def test_a_comparison_is_all_there() -> None:
    dear = replace(GREEDY, options={"algorithm.price": "900000"})
    source = Given(Requests(demand(rows=100)))
    with open_workers(1) as workers:
        entries = compare(source, [ECON, GREEDY, dear], [1, 2], Pool.of(6), workers)
    page = compare_page(entries, "Three mechanisms", "They met.")
    plots = figures(page)
    for entry in entries:
        label = entry.mechanism.label
        assert label in page
        assert len([t for t in plots["course"]["data"] if t["name"] == label]) == 4
        assert curve(plots["classes"], label)["y"]
    bars = plots["bars"]["data"][0]
    assert bars["y"] == [entry.mechanism.label for entry in entries]
    assert bars["x"] == pytest.approx([entry.mean("welfare_ratio") for entry in entries], rel=1e-4)
    assert "They met." in page


def test_a_plan_is_all_there() -> None:
    with open_workers(1) as workers:
        found = plan(Requests(demand(rows=100)), 3, [2, 4], 1800, workers, mechanism=ECON)
    plots = figures(plan_page(found, "week.csv", ECON.label))
    assert curve(plots["sizes"], "bound")["x"] == [3, 5, 7]
    assert curve(plots["sizes"], "per GPU added")["y"] == pytest.approx(found.gains()[1:], rel=1e-4)
    assert curve(plots["sizes"], ECON.label)["y"][0] > 0
    assert len(curve(plots["times"], "one GPU more")["y"]) == len(found.prices)
    heat = np.array(plots["week"]["data"][0]["z"], dtype=float)
    assert heat.shape == (7, 24) and np.nanmax(heat) > 0
    assert found.days * DAY == pytest.approx(len(found.times) * 1800)
