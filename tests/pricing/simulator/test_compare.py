"""Comparisons: the same requests for all, whoever computes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from era_pricing.simulator.cloud import CloudModel
from era_pricing.simulator.compare import Entry, compare, planned_tasks, thinned
from era_pricing.simulator.mechanism import Pool, SetupError
from era_pricing.simulator.metrics import Series
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.source import KINDS, Drawn, Given, Source
from era_pricing.simulator.workers import Workers, open_workers
from era_pricing.timegrid import DAY
from tests.pricing.simulator.small import ECON, GREEDY, demand

DEAR = replace(GREEDY, options={"algorithm.price": "1500000"})
SMALL = Drawn("poisson", capacity=8, load=2.0, span=DAY, history_span=2 * DAY)
TIMES = ("decision_us_p50", "decision_us_p99")


@pytest.fixture
def here() -> Iterator[Workers]:
    with open_workers(1) as workers:
        yield workers


def untimed(entries: list[Entry]) -> str:
    """All numbers but the measured times."""
    found = [entry.as_dict() for entry in entries]
    for entry in found:
        for part in (entry["mean"], entry["spread"], *entry["runs"]):
            for name in TIMES:
                del part[name]
    return json.dumps(found)


def run(workers: Workers, source: Source = SMALL, **more: bool) -> list[Entry]:
    return compare(source, [ECON, GREEDY, DEAR], [1, 2], Pool.of(8), workers, **more)


def test_every_mechanism_meets_the_same_requests(here: Workers) -> None:
    entries = run(here)
    assert [entry.mechanism for entry in entries] == [ECON, GREEDY, DEAR]
    for name in ("requests", "requested_value", "omniscient_bound"):
        first, *others = [entry.values(name) for entry in entries]
        assert others == [first, first] and first[0] != first[1]
    assert [trial.seed for trial in entries[0].trials] == [1, 2]
    assert entries[1].mean("revenue") != entries[2].mean("revenue")


def test_the_name_of_a_mechanism_says_all_its_options() -> None:
    options = {"algorithm.price": "3", "predictor.a": "4", "engine.chunk": "2", "replan": "false"}
    assert DEAR.label == "first-fit price=1500000 / prior"
    assert replace(GREEDY, options={"price": "3"}).label == "first-fit / prior / price=3"
    mixed = replace(GREEDY, options=options).label
    assert mixed == "first-fit price=3 / prior a=4 / chunk=2 replan=false"


def test_mean_and_spread(here: Workers) -> None:
    entry = run(here, with_bound=False)[0]
    one, two = entry.values("welfare")
    assert entry.mean("welfare") == pytest.approx((one + two) / 2)
    assert entry.spread("welfare") == pytest.approx(abs(one - two) / 2**0.5)
    assert entry.mean("welfare_ratio") is None and entry.spread("welfare_ratio") is None


def test_the_same_again_also_in_other_processes(here: Workers) -> None:
    first = untimed(run(here, with_bound=False))
    assert untimed(run(here, with_bound=False)) == first
    with open_workers(2) as workers:
        assert untimed(run(workers, with_bound=False)) == first


@pytest.mark.slow
def test_dask_gives_the_same(here: Workers) -> None:
    with open_workers(2, dask=True) as workers:
        found = untimed(run(workers, with_bound=False))
    assert found == untimed(run(here, with_bound=False))


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_said() -> None:
    with pytest.raises(OSError, match="127.0.0.1:9"), open_workers(scheduler="tcp://127.0.0.1:9"):
        pass


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_in_a_worker_is_the_callers(processes: int) -> None:
    nobody = replace(ECON, algorithm="nobody")
    with open_workers(processes) as workers, pytest.raises(SetupError, match="nobody"):
        compare(SMALL, [nobody], [1], Pool.of(8), workers)


def test_a_file_is_the_same_for_every_seed_but_the_cloud_is_not(here: Workers) -> None:
    source = Given(Requests(demand(rows=100)))
    plain = compare(source, [GREEDY], [1, 2], Pool.of(8), here)[0]
    assert plain.spread("welfare") == 0
    cloud = CloudModel(node_mtbf=5)
    broken = compare(source, [GREEDY], [1, 2], Pool.of(8), here, cloud=cloud)[0]
    assert broken.spread("welfare") != 0
    bounds = broken.values("omniscient_bound")
    assert all(w <= b for w, b in zip(broken.values("welfare"), bounds, strict=True))


def test_progress_counts_what_was_announced(here: Workers) -> None:
    seen: list[int] = []
    compare(SMALL, [ECON, GREEDY], [1, 2], Pool.of(8), here, progress=seen.append)
    assert sum(seen) == planned_tasks(2, 2, 1, True) == 6


# -- drawn demand -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_demand_comes_after_its_history(kind: str) -> None:
    source = replace(SMALL, kind=kind, capacity=64)
    requests, history = source.draw(3)
    assert history is not None and len(history) and len(requests)
    assert history.submitted.max() < requests.columns.submitted.min()
    again, _ = source.draw(3)
    other, _ = source.draw(4)
    assert np.array_equal(again.columns.value, requests.columns.value)
    assert not np.array_equal(other.columns.value, requests.columns.value)
    assert replace(source, history_span=0).draw(3)[1] is None


# -- curves ----------------------------------------------------------------------------------


def test_thinned_curves_keep_sums_and_means() -> None:
    n = 1001
    ramp = np.arange(n, dtype=np.float64)
    gaps = np.where(ramp % 2, np.nan, 1.0)
    curves = Series(
        np.arange(n) * 60, ramp, ramp, gaps, gaps, np.full(n, np.nan), ramp, ramp, ramp, ramp
    )
    thin = thinned(curves, 100)
    assert len(thin.times) <= 100 and thin.times[0] == 0
    assert thin.welfare[-1] == n - 1, "sums are those at the end"
    assert thin.load[0] == np.mean(ramp[:11])
    assert (thin.price_low == 1).all() and np.isnan(thin.price_high).all()
    assert thinned(curves, n) is curves
