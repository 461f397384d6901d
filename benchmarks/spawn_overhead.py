"""How much longer does a click take with EraKubeSpawner than with plain KubeSpawner?

    python -m benchmarks.spawn_overhead

Two hubs with the same configuration stand beside each other, one with EraKubeSpawner and
the market, and one with KubeSpawner. Servers are started alternately, first one hub then
the other, and each is stopped before the next: the seconds go from the request for a server
to the moment at which the hub says that it is ready. Both run a real jupyterhub-singleuser
in a pod with one GPU. The ratio is the median of all pairs, with a bootstrap interval.

Then many users click at once, without a GPU, on each of the hubs. What runs in those pods
is a stand-in of a few lines that answers every request: fifty real servers would measure
how fast the machine starts Python.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import click
import httpx
import numpy as np
from tqdm import tqdm

from era_hub.models import Kind, State
from tests.spawner.kube_hub import GPU, KubeHub

from .cluster_stage import ClusterStage, names, open_cluster, open_hub, open_stage, require_gpus
from .stage import heading, quantile, table

GOAL = 1.1
PATIENCE = 180.0
DRAWS = 10_000
RESOURCES = {"cpu": "500m", "memory": "1Gi"}
SOLD = [
    {"name": "cpu", "resources": {GPU: "0", **RESOURCES}},
    {"name": "gpu-1", "resources": {GPU: "1", **RESOURCES}},
]
STAND_IN = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

ThreadingHTTPServer(("0.0.0.0", 8888), Answer).serve_forever()
"""
# The first user has real servers with a GPU; the plain spawner is told what the market sells.
HUB = f"""
def equip(spawner):
    first = spawner.user.name == "user-00"
    if not first:
        spawner.cmd, spawner.args = [sys.executable, "-S", "-c", {STAND_IN!r}], []
    if not hasattr(spawner, "era_url"):
        spawner.cpu_limit = spawner.cpu_guarantee = 0.5
        spawner.mem_limit = spawner.mem_guarantee = "1G"
        spawner.extra_resource_limits = {{"{GPU}": "1" if first else "0"}}

c.Spawner.pre_spawn_hook = equip
c.Spawner.start_timeout = {PATIENCE:.0f}
c.Spawner.http_timeout = {PATIENCE:.0f}
"""


@dataclass
class Clicks:
    """A hub, and how its users ask for a server.

    Attributes
    ----------
    name : str
        Of the spawner.
    options : callable
        What is posted for a server with so many GPUs.
    """

    name: str
    hub: KubeHub
    options: Callable[[int], dict[str, Any]]

    def start(self, user: str, gpus: int) -> float | None:
        """Seconds from the click until the server is ready; None if it never is."""
        begin = time.perf_counter()
        with httpx.Client(
            base_url=f"{self.hub.url}hub/api",
            headers={"Authorization": f"token {self.hub.token}"},
            timeout=PATIENCE,
        ) as client:
            answer = client.post(f"/users/{user}/server", json=self.options(gpus))
            if answer.status_code == 201:
                return time.perf_counter() - begin
            if answer.status_code != 202:
                print(f"{self.name}, {user}: {answer.text[:300]}", file=sys.stderr)
                return None
            with client.stream("GET", f"/users/{user}/server/progress") as stream:
                for line in stream.iter_lines():
                    told = json.loads(line[6:]) if line.startswith("data: ") else {}
                    if told.get("ready"):
                        return time.perf_counter() - begin
                    if told.get("failed"):
                        print(f"{self.name}, {user}: {told['message']}", file=sys.stderr)
                        return None
        try:  # the stream broke off without a word
            self.hub.until_ready(user, timeout=PATIENCE)
        except AssertionError as error:
            print(f"{self.name}, {user}: {error}", file=sys.stderr)
            return None
        return time.perf_counter() - begin

    def stop(self, users: list[str]) -> None:
        """Stop servers, and wait until their pods are gone."""
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(self.hub.stop_server, users))
            list(pool.map(lambda user: self.hub.until_gone(user, timeout=PATIENCE), users))


def era(stage: ClusterStage) -> Clicks:
    """Bids for whatever it costs."""
    return Clicks(
        "EraKubeSpawner",
        stage.hub,
        lambda gpus: {
            "configuration": "gpu-1" if gpus else "cpu",
            "duration": "30m",
            "max_price": "1000",
        },
    )


def alternate(sides: list[Clicks], pairs: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds until ready, shape (pairs, sides); each pair begins with the other side."""
    (user,) = names(1)
    found = np.full((pairs, len(sides)), np.nan)
    for clicks in sides:  # what the first start makes and finds, such as caches of files
        clicks.start(user, 1)
        clicks.stop([user])
    for number in tqdm(range(pairs), "Starting in turns", unit=" pairs", leave=False):
        order = range(len(sides))
        for side in order if number % 2 == 0 else reversed(order):
            seconds = sides[side].start(user, 1)
            if seconds is None:
                raise click.ClickException(f"a server of {sides[side].name} did not start")
            found[number, side] = seconds
            sides[side].stop([user])
    return found


def ratio(found: np.ndarray[Any, Any], seed: int) -> dict[str, Any]:
    """The median ratio of the pairs, with its 95 % bootstrap interval."""
    ratios = found[:, 0] / found[:, 1]
    rng = np.random.default_rng(seed)
    drawn = np.median(rng.choice(ratios, (DRAWS, len(ratios))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "pairs": len(ratios),
        "era_p50": round(float(np.median(found[:, 0])), 3),
        "plain_p50": round(float(np.median(found[:, 1])), 3),
        "ratio": round(float(np.median(ratios)), 3),
        "ratio_low": round(float(low), 3),
        "ratio_high": round(float(high), 3),
        "seconds": np.round(found, 3).tolist(),
    }


def burst(clicks: Clicks, users: list[str]) -> dict[str, Any]:
    """All click at once."""
    begin, seconds = time.perf_counter(), []
    with ThreadPoolExecutor(len(users)) as pool:
        started = pool.map(lambda user: clicks.start(user, 0), users)
        for each in tqdm(started, clicks.name, len(users), unit=" servers", leave=False):
            seconds.append(each)
    took = time.perf_counter() - begin
    ready = [each for each in seconds if each is not None]
    pods = sum(pod["status"].get("phase") == "Running" for pod in clicks.hub.pods())
    return {
        "clicked": len(users),
        "ready": len(ready),
        "pods": pods,
        "all_ready": round(took, 1),
        "p50": round(quantile(ready, 0.5), 1),
    }


def report(result: dict[str, Any]) -> str:
    """A table for people."""
    rows: list[tuple[str, str]] = []
    if pairs := result.get("pairs"):
        rows += [
            ("pairs", f"{pairs['pairs']}"),
            ("click to ready, EraKubeSpawner, p50", f"{pairs['era_p50']:.2f} s"),
            ("click to ready, KubeSpawner, p50", f"{pairs['plain_p50']:.2f} s"),
            (
                "median ratio, 95 % interval",
                "{ratio:.3f}, {ratio_low:.3f} to {ratio_high:.3f}".format(**pairs)
                + f" (goal: at most {GOAL})",
            ),
        ]
    for name, some in result["bursts"].items():
        text = "{ready} of {clicked} ready, {pods} pods, all after {all_ready} s, p50 {p50} s"
        rows.append((f"at once, {name}", text.format(**some)))
    if "reserved" in result:
        rows.append(("reservations that ran then", str(result["reserved"])))
    return table(rows)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--pairs", default=15, show_default=True, type=click.IntRange(min=0))
@click.option("--burst", "many", default=50, show_default=True, help="Clicks at once; 0: none.")
@click.option("--seed", default=1, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(pairs: int, many: int, seed: int, as_json: bool) -> None:
    click.echo(f"seed {seed}", err=True)
    users = many + 1
    result: dict[str, Any] = {"command": heading(), "seed": seed, "bursts": {}}
    with ExitStack() as stack:
        cluster = stack.enter_context(open_cluster())
        require_gpus(cluster, 1, 1)
        settings = {"Pool.configurations": SOLD}
        stage = stack.enter_context(open_stage(cluster, users=users, settings=settings, hub=HUB))
        plain = stack.enter_context(open_hub(cluster, users, HUB, "kubespawner.KubeSpawner"))
        sides = [era(stage), Clicks("KubeSpawner", plain, lambda gpus: {})]
        for clicks in sides:
            for name in names(users):
                clicks.hub.http.post(f"/users/{name}")
        if pairs:
            result["pairs"] = ratio(alternate(sides, pairs), seed)
        for clicks in sides if many else ():
            others = names(users)[1:]
            result["bursts"][clicks.name] = burst(clicks, others)
            if clicks is sides[0]:
                market = stage.service.client_with(stage.hub.spawner_token)
                running = [
                    each
                    for name in others
                    for each in market.reservations(user=name, current=True, kind=Kind.NOTEBOOK)
                ]
                result["reserved"] = sum(each.state is State.ACTIVE for each in running)
            clicks.stop(others)
    print(json.dumps(result) if as_json else f"{heading()}\n\n{report(result)}")
    lost = any(each["ready"] < each["clicked"] for each in result["bursts"].values())
    raise SystemExit(int(lost or result.get("pairs", {"ratio": 0})["ratio"] > GOAL))


if __name__ == "__main__":
    main()
