"""The two benchmarks that repeat the ERA paper's experiments: what they draw and conclude."""

from __future__ import annotations

import numpy as np

from benchmarks import azure, yahoo
from era_pricing.simulator.compare import compare
from era_pricing.simulator.mechanism import Pool
from era_pricing.simulator.workers import open_workers
from era_pricing.timegrid import HOUR


def test_yahoo_draws_the_classes_of_the_paper_and_a_past_before_them() -> None:
    drawn = yahoo.draw(yahoo.USUAL, seed=3, days=7)
    jobs, past = drawn.requests.columns, drawn.history
    labels, counts = np.unique(jobs.classes, return_counts=True)
    assert list(labels) == [f"class-{number}" for number in range(6)]
    assert ((counts >= 1400) & (counts <= 1500)).all()
    largest = np.array(jobs.classes) == "class-5"
    per_hour = jobs.value / jobs.unit_hours / 1e6
    np.testing.assert_allclose(per_hour[largest], 1, rtol=1e-3)
    np.testing.assert_allclose(per_hour[~largest], 10, rtol=1e-3)
    assert jobs.unit_hours.sum() > 8 * yahoo.USUAL.capacity * 7 * 24
    assert past is not None
    assert past.submitted.max() < jobs.submitted.min()
    assert list(past.units[:50]) != list(jobs.units[:50])


def test_yahoo_shows_what_prices_do_for_the_value() -> None:
    trials = []
    chosen = [yahoo.MECHANISMS[name] for name in ("greedy", "basic-econ / prior")]
    nobody_waits = next(each for each in yahoo.OTHERS if each.name == "at once or never")
    pool = Pool.of(nobody_waits.capacity)
    with open_workers(1) as workers:
        for seed in (1, 2):
            source = yahoo.draw(nobody_waits, seed, days=0.4)
            entries = compare(source, chosen, [seed], pool, workers, tolerance=1e-2)
            trials.append({entry.mechanism.label: entry for entry in entries})
    greedy, econ = (yahoo.joined(trials, mechanism) for mechanism in chosen)
    assert [trial.seed for trial in econ.trials] == [1, 2]
    assert yahoo.value_share(econ) > yahoo.value_share(greedy) > 0
    assert yahoo.value_share(econ) < yahoo.bound_share(econ)
    of_greedy, of_econ = yahoo.accepted_shares(greedy), yahoo.accepted_shares(econ)
    assert of_econ["class-5"] < of_greedy["class-5"]
    assert of_econ["class-4"] > of_greedy["class-4"]


def test_yahoo_tells_its_mechanisms_apart_by_their_labels() -> None:
    labels = [mechanism.label for mechanism in yahoo.MECHANISMS.values()]
    assert len(set(labels)) == len(labels)


def test_azure_windows_begin_at_submission_to_the_half_hour() -> None:
    drawn = azure.draw(azure.SETTINGS[0], seed=1)
    jobs, past = drawn.requests.columns, drawn.history
    assert len(jobs) > 500
    assert (jobs.arrival - jobs.submitted < HOUR // 2).all()
    assert past is not None
    assert past.submitted.max() < jobs.submitted.min()


def point(accepted: float, late: float, era: bool = False) -> azure.Point:
    """One with a single seed."""
    return azure.Point(
        f"{accepted}/{late}",
        era,
        0.0,
        accepted=[accepted],
        kept=[accepted],
        late=[late],
        jobs=[1],
        utilization=[0.5],
    )


def test_a_point_is_dominated_where_another_earns_more_with_fewer_late_jobs() -> None:
    ours = [point(0.5, 0.1, era=True), point(0.6, 0.2, era=True)]
    assert azure.beaten_by(point(0.4, 0.15), ours) == ["0.5/0.1"]
    assert azure.beaten_by(point(0.5, 0.2), ours) == ["0.5/0.1", "0.6/0.2"]
    assert azure.beaten_by(point(0.4, 0.05), ours) == []
    assert azure.beaten_by(point(0.7, 0.3), ours) == []
    assert azure.beaten_by(ours[1], [ours[0], point(0.6, 0.2)]) == ["0.6/0.2"]


def test_points_of_a_setting_share_their_seeds_and_stand_on_a_page() -> None:
    small = azure.Setting("small <demand>", 0.2, 1.0, 1.0)
    with open_workers(1) as workers:
        these = azure.points(small, range(1, 3), 0.02, workers, lambda ended: None)
    assert [one.name for one in these[::4]] == ["on-demand", "on-demand, late penalty"]
    assert all(len(one.late) == 2 and min(one.late) >= 0 for one in these)
    assert any(max(one.late) > 0 for one in these)
    for one in these:
        assert all(0 < kept <= all_ for kept, all_ in zip(one.kept, one.accepted, strict=True))
    text = azure.scatter_page({small.name: these}, 2)
    assert "Small &lt;demand&gt;" in text
    assert text.count('"id":"plot0"') == 1
    assert "<demand>" not in text
