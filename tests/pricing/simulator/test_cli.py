"""`era-sim` as people use it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from era_pricing.simulator.bidfiles import bids_of, write_bids
from era_pricing.simulator.cli import main
from era_pricing.simulator.cloud import CloudModel
from era_pricing.simulator.formats import read_workload
from era_pricing.simulator.metrics import Summary
from tests.pricing.simulator.small import DAY, demand, write

NUMBERS = {
    "requested_value", "welfare", "omniscient_bound", "welfare_ratio", "revenue", "utilization",
    "accepted", "rejected", "late_jobs", "unit_hours", "decision_us_p50", "decision_us_p99",
}  # fmt: skip


def sim(*arguments: str, code: int = 0) -> Result:
    """Run a command; whatever its outcome, there is no traceback."""
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def answer(*arguments: str) -> Any:
    return json.loads(sim(*arguments, "--json").stdout)


@pytest.fixture
def week(tmp_path: Path) -> str:
    return write(demand(rows=120, begin=14 * DAY), tmp_path / "week.csv")


@pytest.fixture
def past(tmp_path: Path) -> str:
    return write(demand(1, rows=240, days=10), tmp_path / "past.csv")


@pytest.mark.parametrize("command", ["run", "bound", "compare", "plan"])
def test_help_teaches(command: str) -> None:
    text = sim(command, "--help").output
    assert f"era-sim {command}" in text and "Example" in text


def test_version() -> None:
    assert sim("--version").output.startswith("era-sim, version ")


# -- run ---------------------------------------------------------------------------------


def test_run_prints_the_numbers(week: str, past: str) -> None:
    found = answer(
        "run", "--workload", week, "--history", past, "--capacity", "6", "--slot", "30min",
        "--algorithm", "basic-econ", "--predictor", "lp",
    )  # fmt: skip
    assert found.keys() >= NUMBERS
    assert found["accepted"] + found["rejected"] == 120
    assert 0 < found["welfare"] <= found["omniscient_bound"] <= found["requested_value"]
    assert found["welfare_ratio"] == found["welfare"] / found["omniscient_bound"]


def test_run_in_a_process_of_its_own(week: str) -> None:
    code = "from era_pricing.simulator.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "-w", week, "--capacity", "6", "--no-bound"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, same = json.loads(done.stdout), answer(*command[3:])
    assert found["omniscient_bound"] is None
    for name in NUMBERS - {"decision_us_p50", "decision_us_p99"}:
        assert found[name] == same[name]


def test_run_shows_a_table(week: str) -> None:
    text = sim("run", "-w", week, "--capacity", "6", "--no-bound").output
    assert "welfare" in text and "unit-hour" in text and "bid-price" in text


def test_run_writes_a_page(week: str, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    sim("run", "-w", week, "--capacity", "6", "--no-bound", "--page", str(page))
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_run_says_what_a_prior_starts_from(week: str, past: str) -> None:
    arguments = (
        "run",
        "-w",
        week,
        "--capacity",
        "6",
        "--no-bound",
        "--algorithm",
        "basic-econ/prior",
    )
    assert "without a history, prior" in sim(*arguments).stderr
    assert sim(*arguments, "--quiet").stderr == ""
    assert sim(*arguments, "--history", past).stderr == ""


def test_a_workload_is_played_after_its_history(past: str, tmp_path: Path) -> None:
    early = write(demand(rows=120), tmp_path / "early.csv")
    late = write(demand(rows=120, begin=14 * DAY), tmp_path / "late.csv")
    options = ("--history", past, "--capacity", "6", "--no-bound", "--algorithm", "basic-econ/lp")
    moved = sim("run", "-w", early, *options, "--json")
    assert "2 weeks later" in moved.stderr
    same = answer("run", "-w", late, *options)
    assert json.loads(moved.stdout)["welfare"] == same["welfare"]


def test_options_of_plug_ins(week: str) -> None:
    base = ("run", "-w", week, "--capacity", "6", "--no-bound")
    by_set = answer(*base, "--algorithm", "first-fit", "--set", "price=800000")
    by_name = answer(*base, "--algorithm", "first-fit:price=800000/prior")
    floor = answer(*base, "--algorithm", "first-fit", "--price-floor", "0.8")
    assert by_set["revenue"] == by_name["revenue"] == floor["revenue"] > 0


def test_a_cloud_goes_wrong(week: str) -> None:
    arguments = ("run", "-w", week, "--capacity", "6", "--no-bound", "--cloud", "job_mtbf=2")
    arguments += ("--algorithm", "basic-econ")
    one, two = answer(*arguments), answer(*arguments, "--seed", "1")
    assert one["late_jobs"] > 0 and one["failed"] == one["late_jobs"]
    assert one["welfare"] != two["welfare"]


POOL = """\
nodes:
  node-[1-2]: {nvidia.com/gpu: 4, cpu: 32}
configurations:
  gpu-4: {nvidia.com/gpu: 4, cpu: 16}
priced: {nvidia.com/gpu: "0.05", cpu: "0.001"}
"""


def test_bids_on_a_pool_of_nodes(tmp_path: Path) -> None:
    (tmp_path / "pool.yaml").write_text(POOL)
    pool, bids = str(tmp_path / "pool.yaml"), str(tmp_path / "bids.jsonl")
    write_bids(bids_of(demand(rows=60)), bids)
    found = answer("run", "-w", bids, "--pool", pool)
    assert found["accepted"] > 0 and found["welfare"] <= found["omniscient_bound"]
    bound = answer("bound", "-w", bids, "--pool", pool)
    assert bound["omniscient_bound"] == found["omniscient_bound"]


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ("nodes: [", "must be YAML"),
        ("[]", "the pool must be a mapping"),
        ("nodes: {a: {nvidia.com/gpu: 1}}\ncolor: red", "'color' is unknown"),
        ("nodes: {a: {nvidia.com/gpu: many}}", "nodes.a.nvidia.com/gpu"),
        ("nodes: {'a[1-2]': {nvidia.com/gpu: 1}, a2: {}}", "two nodes named 'a2'"),
        ("nodes: {'a[2-1]': {nvidia.com/gpu: 1}}", "the range must rise"),
        ("nodes: {a: {cpu: 1}}", "no node has any nvidia.com/gpu"),
        ("nodes: {a: {cpu: 1}}\npriced: {cpu: '0.0001'}", "multiple of 0.001 credits"),
    ],
)
def test_a_pool_that_makes_no_sense(pool: str, says: str, week: str, tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(pool)
    text = sim("run", "-w", week, "--pool", str(file), code=2).stderr
    assert text.startswith(f"Error: {file}: ") and says in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--capacity", "6", "--slot", "soon"), "--slot"),
        (("--capacity", "6", "--price-floor", "0"), "--price-floor"),
        (("--capacity", "6", "--price-floor", "2", "--price-ceiling", "1"), "--price-ceiling"),
        (("--capacity", "6", "--set", "price"), "must be name=value"),
        (("--capacity", "6", "--set", "color=1"), "option 'color'"),
        (("--capacity", "6", "--cloud", "rain=1"), "--cloud has no setting 'rain'"),
        (("--capacity", "6", "--cloud", "poll=often"), "--cloud poll must be a number"),
        (("--capacity", "6", "--cloud", "poll=-1"), "--cloud poll must be"),
        (("--capacity", "6", "--algorithm", "nobody"), "'nobody'"),
        (("--capacity", "6", "--algorithm", "first-fit:price"), "first-fit:option=value"),
        (("--capacity", "6", "--predictor", "lp"), "--history"),
        (("--capacity", "6", "--history", "none.csv"), "none.csv"),
        ((), "either --capacity or --pool"),
    ],
)
def test_mistakes_get_one_sentence(arguments: tuple[str, ...], says: str, week: str) -> None:
    text = sim("run", "-w", week, *arguments, code=2).stderr
    assert says in text and "Traceback" not in text


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("submitted,arrival,deadline,units,duration,value\n0,0,60,1,-5,1\n")
    for command in ("run", "bound", "plan"):
        text = sim(command, "-w", str(file), "--capacity", "6", code=2).stderr
        assert text.startswith(f"Error: {file}, line 2, column duration")


# -- the others -------------------------------------------------------------------------------


def test_bound(week: str) -> None:
    found = answer("bound", "-w", week, "--capacity", "6")
    assert 0 < found["omniscient_bound"] <= found["requested_value"]
    more = answer("bound", "-w", week, "--capacity", "12")
    assert more["omniscient_bound"] > found["omniscient_bound"]
    assert "omniscient bound" in sim("bound", "-w", week, "--capacity", "6").output


def test_compare_files(week: str, past: str, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    found = answer(
        "compare", "-w", week, "--history", past, "--capacity", "6", "-a", "basic-econ",
        "-a", "first-fit:price=500000/prior", "-p", "prior", "-p", "spread", "-j", "1",
        "--page", str(page),
    )  # fmt: skip
    pairs = [(each["algorithm"], each["predictor"]) for each in found]
    assert pairs == [("basic-econ", "prior"), ("basic-econ", "spread"), ("first-fit", "prior")]
    assert all(len(each["runs"]) == 1 for each in found)
    assert all(0 < each["mean"]["welfare_ratio"] <= 1 for each in found)
    assert "first-fit price=500000" in page.read_text("utf-8")


def test_compare_drawn_demand() -> None:
    arguments = (
        "compare", "--generate", "poisson", "--capacity", "8", "--days", "1", "--history-days",
        "1", "--seeds", "2", "-a", "first-fit", "-a", "basic-econ", "-p", "prior", "-j", "1",
        "--no-bound",
    )  # fmt: skip
    found = answer(*arguments)
    assert [run["seed"] for run in found[0]["runs"]] == [0, 1]
    assert found[0]["spread"]["welfare"] > 0
    text = sim(*arguments).output
    assert "2 seeds" in text and "±" in text and "first-fit / prior" in text


def test_compare_gives_an_option_to_those_that_take_it(week: str) -> None:
    found = answer(
        "compare", "-w", week, "--capacity", "6", "-a", "basic-econ/prior", "-a", "first-fit/prior",
        "--set", "price=300000", "--no-bound", "-j", "1",
    )  # fmt: skip
    assert [each["options"] for each in found] == [{}, {"price": "300000"}]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-a", "basic-econ"), "either --workload or --generate"),
        (("-a", "basic-econ", "--generate", "poisson", "--history", "x.csv"), "--history goes"),
        (("--generate", "poisson"), "--algorithm"),
    ],
)
def test_comparisons_that_cannot_be_made(arguments: tuple[str, ...], says: str) -> None:
    result = sim("compare", "--capacity", "6", "--seeds", "1", *arguments, code=2)
    assert says in result.stderr


def test_plan(week: str, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    arguments = ("plan", "-w", week, "--capacity", "4", "--add", "4", "--step", "2", "-j", "1")
    found = answer(*arguments, "--algorithm", "basic-econ", "--page", str(page))
    assert [size["capacity"] for size in found["sizes"]] == [4, 6, 8]
    assert all(size["run"]["welfare"] <= size["omniscient_bound"] for size in found["sizes"])
    assert found["peaks"] and page.exists()
    assert "worth per GPU added" in sim(*arguments).output


def test_plan_takes_bids(week: str, tmp_path: Path) -> None:
    """A bid for units says what a row of a CSV file says."""
    bids = str(tmp_path / "week.jsonl")
    write_bids(bids_of(read_workload(week)), bids)
    options = (
        "--capacity",
        "4",
        "--add",
        "4",
        "--step",
        "4",
        "-j",
        "1",
        "--algorithm",
        "first-fit",
    )
    columns, same = (answer("plan", "-w", name, *options) for name in (week, bids))
    assert [size["run"]["accepted"] for size in same["sizes"]] == [
        size["run"]["accepted"] for size in columns["sizes"]
    ]
    assert same["requested_value"] == columns["requested_value"]
    for mine, theirs in zip(same["sizes"], columns["sizes"], strict=True):
        # Of bids less is known of what they take at least, so their bound is not as tight.
        assert mine["omniscient_bound"] >= theirs["omniscient_bound"] * (1 - 1e-3)
        assert mine["run"]["welfare"] <= mine["omniscient_bound"]


# -- the reference -------------------------------------------------------------------------------

REFERENCE = Path(__file__).parents[3] / "docs/reference/era-sim.md"


def test_every_number_and_setting_is_explained() -> None:
    named = set(re.findall(r"`([a-z0-9_]+)`", REFERENCE.read_text("utf-8")))
    assert set(Summary.__dataclass_fields__) <= named
    assert set(CloudModel.__dataclass_fields__) <= named
