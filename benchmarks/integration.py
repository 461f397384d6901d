"""Does a cluster do what the simulator says it will?

    python -m benchmarks.integration --page integration.html --image integration.png

The ERA paper's integration experiment: 815 jobs arrive within an hour, each for about 3
GPUs and 60 seconds (sigma 6 seconds), on three nodes of 80 GPUs. Each is bid for through
the service's REST API and run as a Job of Kubernetes, which sleeps for as long as it was
drawn. The simulator then plays the same requests with the same core code.

Time runs faster: with --speed 4 all seconds are a quarter, so that the hour takes fifteen
minutes. What starting a pod costs is not: it weighs four times as much.

Compared are the GPU-seconds allocated: for each job its GPUs times the time from the start
to the end of its container, as its node reports them to the control plane, against the GPUs
times the time from start to end in the simulator. Starts late do not count, therefore, but
what a pod takes longer than its job does. Beside it stands what the market promised: each
job reserves --allowance more seconds than it needs, for its pod to start in, and gives back
what it does not use.

The cluster of KUBECONFIG needs the nodes, which for the defaults is a test control plane
started with NODES=3 GPUS=80. A short run on two nodes of 8 GPUs:

    python -m benchmarks.integration --nodes 2 --gpus 8 --jobs 30 --hour 600
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from era_hub.client import EraClient
from era_hub.client.admin import AdminClient
from era_hub.models import Commitment, JobRequest, JobState, Reservation
from era_pricing import Bid, Configuration, ResourceRequest
from era_pricing import Commitment as Flexibility
from era_pricing.arrays import IntArray
from era_pricing.simulator.mechanism import Mechanism, Pool
from era_pricing.simulator.page import BLUE, ORANGE, Figure, card, render
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.run import ACCEPTED, Run, simulate
from era_pricing.workload import Workload
from tests.spawner.kube_hub import GPU

from .cluster_stage import ClusterStage, PodTimes, PodWatch, open_cluster, open_stage, require_gpus
from .stage import heading, quantile, table

MOST_GPUS = 5
HORIZON = 7200
PATIENCE = 120.0
"""Real seconds, after the last reservation's end, for stragglers."""
GOAL = 0.5
"""Per cent."""

# What the market expects, told in the same way to the service and to the simulator.
PRICE_FLOOR, MOST_PRICE, PEAK_LOAD, LEAD = 200_000, 5_000_000, 1.5, 600
VALUE = 1_000_000_000


@dataclass(frozen=True)
class Demand:
    """What is asked for, in compressed seconds from the beginning; shape (jobs,)."""

    submitted: IntArray
    gpus: IntArray
    needed: IntArray
    reserved: IntArray
    wait: int

    @classmethod
    def draw(cls, jobs: int, hour: float, speed: float, allowance: int, seed: int) -> Demand:
        """Arrivals at any second alike, 1 to 5 GPUs, normally distributed whole seconds."""
        rng = np.random.default_rng(seed)
        submitted = np.sort(rng.integers(0, max(1, round(hour / speed)), jobs))
        gpus = rng.integers(1, MOST_GPUS + 1, jobs)
        needed = np.maximum(1, np.rint(rng.normal(60 / speed, 6 / speed, jobs))).astype(np.int64)
        return cls(submitted, gpus, needed, needed + allowance, round(300 / speed))

    def __len__(self) -> int:
        return len(self.submitted)

    @property
    def span(self) -> int:
        """Seconds until the last reservation must be over."""
        return int((self.submitted + self.reserved).max()) + self.wait


@dataclass
class Played:
    """What became of one job on the cluster."""

    promised: Reservation
    settled: Reservation
    state: JobState
    pod: PodTimes | None


def configurations() -> list[Configuration]:
    """One for each number of GPUs: a job is one pod."""
    return [Configuration(f"gpu-{n}", {GPU: str(n)}) for n in range(1, MOST_GPUS + 1)]


def simulated(demand: Demand, nodes: dict[str, int], begin: int) -> Run:
    """The simulator's run, with the same mechanism and the same nodes."""
    submitted = demand.submitted + begin
    deadline = submitted + demand.reserved + demand.wait
    value = np.full(len(demand), VALUE)
    columns = Workload(submitted, submitted, deadline, demand.gpus, demand.reserved, value)
    bids = [
        Bid.of(ResourceRequest({f"gpu-{gpus}": 1}, length, at, end), VALUE, Flexibility.FLEXIBLE)
        for gpus, length, at, end in zip(
            *(each.tolist() for each in (demand.gpus, demand.reserved, submitted, deadline)),
            strict=True,
        )
    ]
    total = sum(nodes.values())
    mechanism = Mechanism(
        "basic-econ",
        "prior",
        slot=1,
        horizon=HORIZON,
        price_floor=PRICE_FLOOR,
        options={
            "predictor.max_price": str(MOST_PRICE),
            "predictor.peak_demand": str(PEAK_LOAD * total),
            "predictor.profile": "null",
            "predictor.lead_time": str(LEAD),
        },
    )
    pool = Pool({name: {GPU: gpus} for name, gpus in nodes.items()}, tuple(configurations()))
    requests = Requests(columns, bids, {GPU: columns}, demand.needed)
    with tqdm(total=len(demand), desc="Simulating", unit=" jobs", leave=False) as bar:
        return simulate(requests, mechanism, pool, progress=bar.update)


def settings() -> dict[str, Any]:
    """Those of the service which `simulated` repeats."""
    return {
        "EraHub.grace": 1,
        "Pool.slot": 1,
        "Pool.horizon": HORIZON,
        "Pool.algorithm": "basic-econ",
        "Pool.predictor": "prior",
        "Pool.price_floor": str(PRICE_FLOOR / 1e6),
        "Pool.max_price": str(MOST_PRICE / 1e6),
        "Pool.peak_load": PEAK_LOAD,
        "Pool.profile": [1.0] * 24,
        "Pool.lead_time": LEAD,
        "Pool.configurations": [
            {"name": each.name, "resources": {GPU: each.name.removeprefix("gpu-")}}
            for each in configurations()
        ],
    }


class Players:
    """Submits the jobs when they are due, and follows them to their end."""

    def __init__(self, stage: ClusterStage, demand: Demand) -> None:
        self.demand = demand
        self.clients = [stage.service.client(name) for name in stage.users]
        self.promised: dict[int, Reservation] = {}
        self.refused: dict[int, str] = {}
        self._lock = threading.Lock()

    def client(self, row: int) -> EraClient:
        """The one of the user whose job it is."""
        return self.clients[row % len(self.clients)]

    def submit(self, begin: int) -> None:
        """Submit all, each within the second in which it is due."""
        rows = tqdm(range(len(self.demand)), "Bidding", unit=" jobs", leave=False)
        with ThreadPoolExecutor(16) as pool:
            for row in rows:
                due = begin + int(self.demand.submitted[row]) + 0.02
                time.sleep(max(0.0, due - time.time()))
                pool.submit(self._submit, row)

    def _submit(self, row: int) -> None:
        length = int(self.demand.reserved[row])
        # The service's clock decides when it is now, so the deadline begins there too.
        now = int(time.time())
        request = JobRequest(
            configuration=f"gpu-{self.demand.gpus[row]}",
            duration=length,
            deadline=datetime.fromtimestamp(now + length + self.demand.wait, UTC),
            value=VALUE,
            name=f"job-{row}",
            command=["sleep", str(self.demand.needed[row])],
            commitment=Commitment.FLEXIBLE,
        )
        try:
            outcome = self.client(row).submit(request, uuid.uuid4().hex)
            made, reason = outcome.reservation, outcome.reason or ""
        except Exception as error:
            made, reason = None, str(error)
        with self._lock:
            if made is None:
                self.refused[row] = reason
            else:
                self.promised[row] = made

    def until_over(self, pods: PodWatch, end: float) -> None:
        """Wait until all pods have ended and all jobs are settled."""
        total = len(self.promised)
        with tqdm(total=total, desc="Running", unit=" jobs", leave=False) as bar:
            while bar.n < total and time.time() < end:
                bar.update(min(pods.finished, total) - bar.n)
                time.sleep(0.5)
        while time.time() < end and any(each.jobs(current=True) for each in self.clients):
            time.sleep(0.5)

    def played(self, pods: PodWatch) -> dict[int, Played]:
        """What became of each job; the last of its pods counts, if there were several."""
        last = {each.reservation: each for each in pods.pods.values()}
        found = {}
        for row, promised in self.promised.items():
            job = self.client(row).job(promised.id)
            pod = last.get(promised.id)
            found[row] = Played(promised, job.reservation, job.state, pod)
        return found


def play(
    stage: ClusterStage, demand: Demand
) -> tuple[int, dict[int, Played], dict[int, str], int, list[str]]:
    """Run it on the cluster: its beginning, the jobs, refusals, pods, findings in the books."""
    players = Players(stage, demand)
    with PodWatch(stage) as pods:
        begin = int(time.time()) + 3
        players.submit(begin)
        players.until_over(pods, begin + demand.span + PATIENCE)
        found = players.played(pods)
    admin = AdminClient(stage.service.url, stage.hub.user_token("admin"))
    findings = [str(each) for each in admin.books().findings]
    return begin, found, players.refused, len(pods.pods), findings


def figures(demand: Demand, run: Run, found: dict[int, Played], begin: int) -> dict[str, Any]:
    """The numbers of the report, and the columns of the plot."""
    gpus = demand.gpus
    by_row = run.stints
    held_sim = int(((by_row[:, 2] - by_row[:, 1]) * by_row[:, 3]).sum())
    whole = {
        row: each
        for row, each in found.items()
        if each.pod is not None and each.pod.started is not None and each.pod.finished is not None
    }
    rows = sorted(whole)
    times = {
        name: np.array([getattr(whole[row].pod, name) for row in rows], dtype=float)
        for name in ("started", "finished", "told_started", "told_finished")
    }
    taken = times["finished"] - times["started"]
    told = times["told_finished"] - times["told_started"]
    held = float((taken * gpus[rows]).sum())
    planned = np.array([int(found[row].promised.start.timestamp()) for row in rows])
    kept = sum(
        int(gpus[row])
        * ((each.settled.ended or each.settled.end) - each.settled.start).total_seconds()
        for row, each in found.items()
    )
    lags = times["told_started"] - run.start[rows]
    return {
        "jobs": len(demand),
        "accepted": len(found),
        "accepted_simulated": int((run.answer == ACCEPTED).sum()),
        "succeeded": sum(each.state is JobState.SUCCEEDED for each in found.values()),
        "simulated": held_sim,
        "real": round(held),
        "difference_percent": round(100 * (held - held_sim) / held_sim, 3),
        "told": round(float((told * gpus[rows]).sum())),
        "promised_simulated": int((demand.reserved * gpus)[run.answer == ACCEPTED].sum()),
        "promised": sum(
            int(gpus[row]) * int((each.promised.end - each.promised.start).total_seconds())
            for row, each in found.items()
        ),
        "until_settled": round(kept),
        "same_start": int((planned == run.promised_start[rows]).sum()),
        "lag_p50": round(quantile(lags.tolist(), 0.5), 2),
        "lag_p90": round(quantile(lags.tolist(), 0.9), 2),
        "lag_most": round(float(lags.max()), 2) if len(lags) else None,
        "longer_p50": round(quantile((told - demand.needed[rows]).tolist(), 0.5), 2),
        "columns": {
            "simulated_start": (run.start[rows] - begin).tolist(),
            "real_start": np.round(times["told_started"] - begin, 2).tolist(),
            "simulated_seconds": demand.needed[rows].tolist(),
            "real_seconds": np.round(told, 2).tolist(),
        },
    }


def page(result: dict[str, Any], note: str) -> str:
    """Start times and durations, simulated and real, beside each other."""
    columns = result["columns"]
    axes = {"legend": {"orientation": "h", "y": 1.12}, "height": 420, "showlegend": True}
    starts = _points("Starts", columns["simulated_start"], columns["real_start"], BLUE)
    seconds = _points("Durations", columns["simulated_seconds"], columns["real_seconds"], ORANGE)
    plots: list[Figure] = []
    for name, points in (("starts", starts), ("durations", seconds)):
        ends = [min(points["x"], default=0), max(points["x"], default=0)]
        same = {
            "type": "scatter", "mode": "lines", "x": ends, "y": ends, "name": "as simulated",
            "line": {"color": "#8a929b", "dash": "dot", "width": 1.5},
        }  # fmt: skip
        layout = axes | {
            "margin": {"l": 70, "r": 20, "t": 30, "b": 50},
            "xaxis": {"title": {"text": "simulated, seconds"}},
            "yaxis": {"title": {"text": "on the cluster, seconds"}},
        }
        plots.append({"id": name, "data": [points, same], "layout": layout})
    cards = "".join(
        (
            card("GPU-seconds simulated", f"{result['simulated']:,}"),
            card("on the cluster", f"{result['real']:,}", f"{result['difference_percent']:+.2f} %"),
            card("Jobs that finished", f"{result['succeeded']} of {result['jobs']}"),
            card("Pod running after its start", f"{result['lag_p50']} s", "median"),
        )
    )
    body = (
        f'<h1>The cluster beside the simulator</h1><p class="quiet">{note}</p>'
        f'<dl class="cards">{cards}</dl>'
        '<h2>Starts</h2><div id="starts" class="plot"></div>'
        '<h2>Durations</h2><div id="durations" class="plot"></div>'
    )
    return render("The cluster beside the simulator", body, plots)


def _points(name: str, x: list[float], y: list[float], color: str) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "x": x, "y": y, "name": name,
        "marker": {"color": color, "size": 5, "opacity": 0.5},
    }  # fmt: skip


def picture(html: Path, image: Path) -> None:
    """A picture of the page, taken by Chromium."""
    from playwright.sync_api import sync_playwright

    from tests.conftest import find_chromium

    path = find_chromium()
    if path is None:
        raise click.ClickException("no Chromium for --image: set ERA_CHROMIUM, or leave it out")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1000, "height": 1200})
        shown.goto(html.absolute().as_uri())
        shown.wait_for_selector("#durations .main-svg")
        shown.screenshot(path=image, full_page=True)
        browser.close()


def report(result: dict[str, Any]) -> str:
    """A table for people."""
    both = "{promised_simulated:,}, {promised:,}"
    rows = [
        ("jobs, accepted simulated and real", "{jobs}, {accepted_simulated}, {accepted}"),
        ("finished", "{succeeded}"),
        ("GPU-seconds allocated, simulated", "{simulated:,}"),
        ("GPU-seconds allocated, by the nodes' reports", "{real:,}"),
        ("difference", f"{{difference_percent:+.2f}} % (goal: within {GOAL} %)"),
        ("the same by when the watch told it", "{told:,}"),
        ("GPU-seconds promised, simulated and real", both),
        ("GPU-seconds from start until the market settled", "{until_settled:,}"),
        ("promised the same start, to the second", "{same_start}"),
        ("pod seen running after the simulated start, p50, p90, longest",
         "{lag_p50} s, {lag_p90} s, {lag_most} s"),
        ("pod ran longer than its job was drawn, p50", "{longer_p50} s"),
        ("pods", "{pods}"),
        ("findings of the audit", "{findings}"),
    ]  # fmt: skip
    return table([(name, text.format(**result)) for name, text in rows])


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--jobs", default=815, show_default=True, type=click.IntRange(min=1))
@click.option("--hour", default=3600.0, show_default=True, help="Seconds in which they arrive.")
@click.option("--speed", default=4.0, show_default=True, help="By how much time runs faster.")
@click.option("--allowance", default=15, show_default=True, help="Seconds reserved for starting.")
@click.option("--nodes", default=3, show_default=True, help="Needed of the cluster.")
@click.option("--gpus", default=80, show_default=True, help="Of each.")
@click.option("--seed", default=1, show_default=True)
@click.option("--page", "html", type=click.Path(path_type=Path), help="Write the plots as HTML.")
@click.option("--image", type=click.Path(path_type=Path), help="And as PNG; needs Chromium.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(
    jobs: int,
    hour: float,
    speed: float,
    allowance: int,
    nodes: int,
    gpus: int,
    seed: int,
    html: Path | None,
    image: Path | None,
    as_json: bool,
) -> None:
    demand = Demand.draw(jobs, hour, speed, allowance, seed)
    click.echo(f"seed {seed}: {jobs} jobs, {(demand.gpus * demand.needed).sum():,} GPU-s", err=True)
    with open_cluster() as cluster:
        require_gpus(cluster, nodes, gpus)
        with open_stage(cluster, settings=settings()) as stage:
            there = {f"node-{number}": gpus for number in range(nodes)}
            begin, found, refused, pods, findings = play(stage, demand)
    run = simulated(demand, there, begin)
    result = figures(demand, run, found, begin)
    result |= {"seed": seed, "speed": speed, "pods": pods, "findings": len(findings)}
    result |= {"refused": refused, "command": heading()}
    if html or image:
        html = html or (image or Path()).with_suffix(".html")
        html.write_text(page(result, heading()))
    if html and image:
        picture(html, image)
    if as_json:
        print(json.dumps(result))
    else:
        print(heading(), report(result), sep="\n\n")
    for row, why in list(refused.items())[:10]:
        click.echo(f"refused: job {row}: {why}", err=True)
    good = abs(result["difference_percent"]) <= GOAL and result["succeeded"] == jobs
    raise SystemExit(0 if good and not findings else 1)


if __name__ == "__main__":
    main()
