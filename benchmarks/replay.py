"""How fast whole workloads are played: a million requests, and a trace beside AccaSim."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from accasim_replay import peak_memory

from era_pricing.bids import Commitment
from era_pricing.configurations import Configuration
from era_pricing.simulator.generate import PHILLY, PHILLY_SCENARIO, from_classes, poisson
from era_pricing.simulator.mechanism import GPU, UNIT, Mechanism, Pool
from era_pricing.simulator.run import ACCEPTED, Run, simulate
from era_pricing.simulator.scenario import MONDAY, Scenario
from era_pricing.simulator.traces import Jobs, read_swf, read_trace
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

ACCASIM = "accasim==1.1.3"
"""The last of its 1.1 versions on PyPI."""

MOST_VALUE = 10**15
PATIENCE = 60 * DAY
"""How long a job of a trace may wait, so that none is turned away."""

MILLION_POOL = 10_240
POLICIES = {"fcfs": Commitment.FIXED, "backfill": Commitment.FLEXIBLE}


Figures = dict[str, Any]
"""Jobs, how many were done, seconds of CPU and wall time, peak memory, mean hours of waiting."""


@dataclass(frozen=True)
class Row:
    """What one process did."""

    table: str
    name: str
    jobs: int
    done: int
    cpu: float
    wall: float
    memory_mb: float
    wait: float

    @property
    def rate(self) -> float:
        """Jobs per second of CPU time."""
        return self.jobs / self.cpu


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--requests",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Requests of the first table; 0 leaves it out.",
)
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Jobs to replay: Philly's CSV or Standard Workload Format, perhaps .gz.",
)
@click.option(
    "--jobs",
    default=20_000,
    show_default=True,
    type=click.IntRange(min=0),
    help="The first so many jobs of the trace; 0 leaves the second table out.",
)
@click.option("--gpus", default=512, show_default=True, help="Pool of the second table.")
@click.option("--nodes", default=1, show_default=True, help="Nodes that these are on.")
@click.option("--slot", default=1800, show_default=True, help="Slot of ours, seconds.")
@click.option("--accasim/--no-accasim", default=True, help="Whether to run AccaSim too.")
@click.option(
    "--algorithm",
    "algorithms",
    multiple=True,
    default=("first-fit", "basic-econ"),
    show_default=True,
    help="Who sells in the first table; may be repeated.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of what is generated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--worker", hidden=True, help="What a process of its own does.")
def main(
    requests: int,
    trace: Path | None,
    jobs: int,
    gpus: int,
    nodes: int,
    slot: int,
    accasim: bool,
    algorithms: tuple[str, ...],
    seed: int,
    as_json: bool,
    worker: str | None,
) -> None:
    """Time era-sim's `simulate`, each run in a process of its own.

    \b
    million   made-up requests on 10,240 GPUs, their starts fixed, prices of the
              predictor `prior`; a tenth of them first, to show what memory grows by
    trace     a trace of jobs by AccaSim and by era-sim: same jobs, same pool

    How the two simulators are compared. AccaSim has a queue; era-sim has a market,
    which promises a time at submission. Nobody is priced out here: first-fit sells
    at the floor, values are as high as can be, windows so long that every job is
    done, which `done` shows.

    \b
    fcfs      AccaSim starts jobs in the order of their submission (FIFO, FirstFit).
              era-sim gives each job, at its submission, the earliest start at which
              it fits beside all before it, for good (commitment `fixed`). That is
              no less: to promise, it has to plan ahead where a queue just waits.
    backfill  AccaSim lets jobs overtake where they do not delay the first in the
              queue (EASY, FirstFit). era-sim plans as before, but moves jobs that
              have not begun: to the front where units are idle, aside for others
              (commitment `flexible`). `wait` shows what use each makes of that.

    Durations are known to both. AccaSim plays to the second; era-sim plans in slots
    and so rounds durations up, which makes its jobs wait longer. Both read the same
    SWF file within the time measured; neither writes anything. Rates are jobs per
    second of CPU time, in which other work on the machine counts less than in wall
    time; it still slows the two down unequally, so compare on an idle machine.
    AccaSim 1.1.3 is fetched from PyPI into a temporary environment.
    """
    if worker is not None:
        click.echo(json.dumps(work(**json.loads(worker))))
        return
    rows: list[Row] = []
    where = {"seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        if requests:
            rows += million(requests, algorithms, seed)
        if jobs:
            rows += replay(Path(folder), trace, jobs, gpus, nodes, slot, accasim, seed)
            where |= {"gpus": gpus, "nodes": nodes, "slot": slot}
    report(rows, where, as_json)


# The million.


def million(requests: int, algorithms: tuple[str, ...], seed: int) -> list[Row]:
    """Requests per second and peak memory of ever larger workloads."""
    rows = []
    for algorithm in algorithms:
        for count in (requests // 10, requests):
            figures = alone(task="million", count=count, algorithm=algorithm, seed=seed)
            rows.append(Row("million", algorithm, **figures))
    return rows


def play_million(count: int, algorithm: str, seed: int) -> Figures:
    """The generated workload, cut to `count` requests, played against an algorithm."""
    # A request takes about ten unit-hours.
    span = (count * 11 * 10 // (12 * MILLION_POOL) + 24) * HOUR
    scenario = Scenario(start=MONDAY, span=span, capacity=MILLION_POOL, load=1.2, longest=2 * DAY)
    workload = poisson(seed, scenario)
    workload = workload.select(np.arange(min(count, len(workload))))
    mechanism = Mechanism(algorithm, "prior", slot=1800, commitment=Commitment.FIXED)
    # What generating them took does not count: the peak begins with what is there now.
    Path("/proc/self/clear_refs").write_text("5")
    return timed(lambda: simulate(workload, mechanism, Pool.of(MILLION_POOL)))


# The trace.


def replay(
    folder: Path,
    trace: Path | None,
    count: int,
    gpus: int,
    nodes: int,
    slot: int,
    accasim: bool,
    seed: int,
) -> list[Row]:
    """The same jobs on the same pool by both simulators."""
    swf = folder / "trace.swf"
    write_swf(swf, read_trace(trace) if trace else philly_jobs(gpus, count, seed), count, gpus)
    rows = []
    for policy in POLICIES:
        task = {"task": "trace", "swf": str(swf), "policy": policy, "slot": slot}
        figures = alone(gpus=gpus, nodes=nodes, **task)
        rows.append(Row(policy, "era-sim", **figures))
    if accasim:
        python = environment(folder)
        system = folder / "system.json"
        system.write_text(json.dumps(accasim_system(gpus, nodes)))
        script = Path(__file__).with_name("accasim_replay.py")
        for policy in POLICIES:
            results = folder / policy
            command = [str(python), str(script), str(swf), str(system), policy, f"{results}/"]
            figures = run(command)
            rows.append(Row(policy, "AccaSim", **figures))
    return sorted(rows, key=lambda row: [*POLICIES].index(row.table))


def philly_jobs(gpus: int, count: int, seed: int) -> Jobs:
    """Jobs with the sizes, durations and cycles of the Philly trace, load 1."""
    scenario = PHILLY_SCENARIO
    span = 4 * DAY
    while True:
        asked = Scenario(
            capacity=gpus, load=1.0, span=span, cycle=scenario.cycle, longest=7 * DAY, align=None
        )
        made = from_classes(seed, PHILLY, asked)
        if len(made) >= count:
            return Jobs(made.submitted, made.units, made.duration, made.classes)
        span *= 2


def write_swf(path: Path, jobs: Jobs, count: int, most_units: int) -> None:
    """The first `count` jobs in Standard Workload Format; too large ones are cut."""
    origin = int(jobs.submitted[0])
    columns = (jobs.submitted - origin, jobs.duration, np.minimum(jobs.units, most_units))
    lines = [f"; UnixStartTime: {origin}"]
    for number, (submitted, duration, units) in enumerate(
        zip(*(column[:count].tolist() for column in columns), strict=True), start=1
    ):
        known = f"{number} {submitted} -1 {duration} {units} -1 -1 {units} {duration}"
        lines.append(f"{known} -1 1 1 1 1 1 1 -1 -1")
    path.write_text("\n".join(lines) + "\n")


def play_trace(swf: str, policy: str, gpus: int, nodes: int, slot: int) -> Figures:
    """The trace by era-sim."""
    each = {f"node-{n}": {GPU: gpus // nodes} for n in range(nodes)}
    pool = Pool(each, (Configuration(UNIT, {GPU: "1"}),))
    mechanism = Mechanism("first-fit", "prior", slot=slot, commitment=POLICIES[policy])

    def play() -> Run:
        jobs = read_swf(swf)
        deadline = jobs.submitted + jobs.duration + PATIENCE
        value = np.full(len(jobs), MOST_VALUE)
        workload = Workload(
            jobs.submitted, jobs.submitted, deadline, jobs.units, jobs.duration, value
        )
        return simulate(workload, mechanism, pool)

    return timed(play)


def accasim_system(gpus: int, nodes: int) -> dict[str, object]:
    return {
        "groups": {"group": {"core": gpus // nodes}},
        "resources": {"group": nodes},
        "equivalence": {"processor": {"core": 1}},
        "start_time": 0,
    }


def environment(folder: Path) -> Path:
    """The Python of a new environment that has AccaSim."""
    home = folder / "accasim"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", ACCASIM]
    if subprocess.run(install, check=False, capture_output=True).returncode:
        raise SystemExit(f"{ACCASIM} cannot be installed; --no-accasim leaves it out")
    return python


# Processes.


def work(task: str, **arguments: object) -> Figures:
    """What a process of its own is started for."""
    play: Callable[..., Figures] = play_million if task == "million" else play_trace
    return play(**arguments)


def timed(play: Callable[[], Run]) -> Figures:
    """Run a simulation; its figures."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = play()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    done = result.start >= 0
    waits = (result.start - result.requests.columns.arrival)[done]
    return {
        "jobs": len(done),
        "done": int((result.answer == ACCEPTED).sum()),
        "cpu": cpu,
        "wall": wall,
        "memory_mb": peak_memory(),
        "wait": float(waits.mean()) / HOUR if len(waits) else 0.0,
    }


def alone(**task: object) -> Figures:
    """The figures of a task in a process of its own."""
    return run([sys.executable, __file__, "--worker", json.dumps(task)])


def run(command: list[str]) -> Figures:
    """The JSON that a command prints."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n{done.stderr}")
    # AccaSim's log may come first.
    figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def report(rows: list[Row], where: dict[str, int], as_json: bool) -> None:
    """Tables, or the same as JSON."""
    about = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **where,
    }
    ratios: dict[str, float] = {}
    rates = {(row.table, row.name): row.rate for row in rows}
    for policy in POLICIES:
        if (policy, "AccaSim") in rates:
            ratios[policy] = rates[policy, "era-sim"] / rates[policy, "AccaSim"]
    if as_json:
        found = [{**asdict(row), "rate": row.rate} for row in rows]
        click.echo(json.dumps({**about, "rows": found, "ratios": ratios}, indent=2))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in about.items()))
    click.echo(
        f"{'table':9} {'by':11} {'jobs':>9} {'done':>9} {'CPU s':>8} {'wall s':>8} "
        f"{'jobs/s':>8} {'peak MB':>8} {'wait h':>7}"
    )
    for row in rows:
        click.echo(
            f"{row.table:9} {row.name:11} {row.jobs:9} {row.done:9} {row.cpu:8.1f} "
            f"{row.wall:8.1f} {row.rate:8.0f} {row.memory_mb:8.0f} {row.wait:7.2f}"
        )
    for policy, ratio in ratios.items():
        click.echo(f"{policy}: era-sim does {ratio:.1f} times as many jobs per second as AccaSim")


if __name__ == "__main__":
    main()
