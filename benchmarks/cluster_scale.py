"""How many nodes, users and reservations does one pool's writer carry, and what ends it?

    python -m benchmarks.cluster_scale --programs FOLDER

FOLDER holds etcd and kube-apiserver, where they are not on PATH. An API server of its own is
started, without a scheduler or controllers, so KUBECONFIG does not count. Into it go a
thousand nodes with 8 GPUs each, and pods on them that are made, run and are deleted: all
that is measured of `KubernetesCloud` is its real code at the end of real watches. The pods
belong half to the market and half to other tenants.

Then a market of as many nodes, with its store on SQLite, takes reservations of many users
as the service does, and its nodes are lost and come back: the busiest 1, 10 and 100. It
decides on the writer's thread, on a plan of the default slots and horizon (5 minutes, 14
days).

    python -m benchmarks.cluster_scale --nodes 100 --pods 500 --reservations 200

is over in a minute. `--part watch` and `--part market` do one half.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import click
import psutil
from tqdm import tqdm
from traitlets.config import Config

from era_hub.clouds.base import GPU, Node
from era_hub.clouds.kubernetes.api import MERGE_PATCH, Api
from era_hub.clouds.kubernetes.cloud import KubernetesCloud
from era_hub.clouds.kubernetes.views import KIND, POOL, PodView
from era_hub.market import Coming, Market
from era_hub.models import Commitment, JobRequest, QuoteRequest
from era_hub.nodes import Nodes
from era_hub.pool import Pool
from era_hub.store.database import Database

from .api_server import open_api_server
from .stage import heading, quantile, table

T = TypeVar("T")

NAME = "scale"
PODS = "/api/v1/namespaces/default/pods"
NODE = {"cpu": "64", "memory": "512Gi", GPU: "8"}
CONNECTIONS = 32
TELL = 100
"""Changes after which a writing process says how far it is: it costs this one time."""
LOST = (1, 10, 100)
DECISIONS = 100
VALUE = 10**12
SOLD = [
    {"name": "cpu", "resources": {GPU: "0", "cpu": "500m", "memory": "1Gi"}},
    *(
        {"name": f"gpu-{n}", "resources": {GPU: f"{n}", "cpu": f"{8 * n}", "memory": f"{60 * n}Gi"}}
        for n in (1, 2, 4, 8)
    ),
]


class Clock:
    """UTC seconds, and now and then a slot more."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return int(time.time()) + self.ahead


def memory() -> float:
    """MiB of this process."""
    return float(psutil.Process().memory_info().rss) / 2**20


def node_name(number: int) -> str:
    """A name whose order is that of the numbers."""
    return f"node-{number:05d}"


# -- what writes into the API server, in a process of its own --------------------------


def write(config: str, what: str, count: int, nodes: int, told: Any) -> None:
    """Write nodes or pods; puts when each was sent into `told`, some at a time, and None last."""
    asyncio.run(_write(config, what, count, nodes, told))


async def _write(config: str, what: str, count: int, nodes: int, told: Any) -> None:
    api, _ = await Api.connect(config, "")
    numbers, sent = iter(range(count)), {}

    async def some() -> None:
        for number in numbers:
            sent[number] = time.time()
            await CHANGES[what](api, number, nodes)
            if number % TELL == TELL - 1:
                told.put(dict(sent))
                sent.clear()

    await asyncio.gather(*(some() for _ in range(CONNECTIONS)))
    await api.close()
    told.put(sent)
    told.put(None)


async def _make_node(api: Api, number: int, nodes: int) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    status = {"capacity": NODE, "allocatable": NODE, "conditions": [ready]}
    labels = {"nvidia.com/gpu.product": "NONE"}
    body = {"metadata": {"name": node_name(number), "labels": labels}, "status": status}
    await api.create("/api/v1/nodes", body)


async def _cordon(api: Api, number: int, nodes: int) -> None:
    path = f"/api/v1/nodes/{node_name(number)}"
    await api.patch(path, {"spec": {"unschedulable": True}})


async def _make_pod(api: Api, number: int, nodes: int) -> None:
    ours = {POOL: NAME, KIND: "notebook"} if number % 2 else {}
    container = {
        "name": "notebook",
        "image": "none",
        "resources": {"limits": {"cpu": "1", "memory": "2Gi", GPU: "0"}},
    }
    spec = {"nodeName": node_name(number % nodes), "containers": [container]}
    await api.create(PODS, {"metadata": {"name": f"pod-{number}", "labels": ours}, "spec": spec})


async def _run_pod(api: Api, number: int, nodes: int) -> None:
    status = {"status": {"phase": "Running", "podIP": "10.0.0.1"}}
    await api.call("PATCH", f"{PODS}/pod-{number}/status", status, content_type=MERGE_PATCH)


async def _delete_pod(api: Api, number: int, nodes: int) -> None:
    await api.delete(f"{PODS}/pod-{number}", gracePeriodSeconds=0)


CHANGES: dict[str, Callable[[Api, int, int], Awaitable[None]]] = {
    "nodes": _make_node,
    "cordoned": _cordon,
    "made": _make_pod,
    "run": _run_pod,
    "deleted": _delete_pod,
}


class Writing:
    """A process that writes. Use it as ``async with Writing(...) as writing``."""

    def __init__(self, config: str, what: str, count: int, nodes: int) -> None:
        self.what, self.count = what, count
        self.sent: dict[int, float] = {}
        spawned = multiprocessing.get_context("spawn")
        self._told = spawned.Queue()
        arguments = (config, what, count, nodes, self._told)
        self._process = spawned.Process(target=write, args=arguments, daemon=True)

    async def finish(self) -> None:
        """Run it to its end."""
        self._process.start()
        with tqdm(total=self.count, desc=self.what, leave=False) as bar:
            while (told := await asyncio.to_thread(self._told.get)) is not None:
                self.sent |= told
                bar.update(len(told))
        await asyncio.to_thread(self._process.join)
        if self._process.exitcode:
            raise click.ClickException(f"the process that writes {self.what} has failed")


# -- the cloud at the end of its watches ------------------------------------------------


class Watched(KubernetesCloud):
    """Notes down when it has seen each pod change."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: dict[int, float] = {}

    def _pod_seen(self, old: PodView | None, new: PodView | None) -> None:
        super()._pod_seen(old, new)
        pod = new or old
        assert pod is not None
        self.seen[int(pod.name.removeprefix("pod-"))] = time.time()


async def opened(config: str, folder: Path) -> tuple[Watched, dict[str, float]]:
    """A cloud that has just been opened, and what that took."""
    before, cpu, begin = memory(), time.process_time(), time.perf_counter()
    cloud = Watched(
        config=Config({"Pool": {"name": NAME}}),
        kubeconfig=config,
        namespace="default",
        log_directory=str(folder / "logs"),
    )
    await cloud.open()
    assert cloud.nodes, "no inventory"
    took = time.perf_counter() - begin
    cpu = time.process_time() - cpu
    return cloud, {
        "nodes": len(cloud.nodes),
        "pods": len(cloud._pod_copy.items),
        "seconds": round(took, 2),
        "cpu": round(cpu, 2),
        "mib": round(memory() - before, 1),
    }


async def watch(config: str, nodes: int, pods: int, folder: Path) -> dict[str, Any]:
    """Nodes and pods through the API server and the cloud's watches."""
    await Writing(config, "nodes", nodes, nodes).finish()
    cloud, first = await opened(config, folder)
    result: dict[str, Any] = {"empty": first, "events": []}
    for what in ("made", "run", "deleted"):
        if what == "deleted":
            await cloud.close()
            cloud, result["full"] = await opened(config, folder)
        result["events"].append(await _changed(config, cloud, what, pods, nodes))
    result["cordoned"] = await _cordoned(config, cloud, nodes, folder)
    await cloud.close()
    return result


async def _changed(config: str, cloud: Watched, what: str, pods: int, nodes: int) -> dict[str, Any]:
    """One change of every pod, seen by the cloud."""
    calls: Counter[str] = Counter()
    cloud.changed = lambda: calls.update(["changed"])
    cloud.seen.clear()
    writing, cpu = Writing(config, what, pods, nodes), time.process_time()
    await writing.finish()
    while len(cloud.seen) < pods:
        await asyncio.sleep(0.01)
    cpu = time.process_time() - cpu
    took = max(cloud.seen.values()) - min(writing.sent.values())
    late = [cloud.seen[number] - sent for number, sent in writing.sent.items()]
    return {
        "what": what,
        "pods": pods,
        "per_second": round(pods / took),
        "cpu_ms": round(1000 * cpu / pods, 3),
        "p50_ms": round(1000 * quantile(late, 0.5), 1),
        "p99_ms": round(1000 * quantile(late, 0.99), 1),
        "told": calls["changed"],
    }


async def _cordoned(config: str, cloud: Watched, nodes: int, folder: Path) -> dict[str, Any]:
    """A tenth of the nodes cordoned one by one: until the market knows, and in how many steps."""
    count = max(1, nodes // 10)
    market = open_market(cloud.nodes, folder / "cordoned", Clock())
    market.rebuild()
    steps = 0
    take = market.take_nodes

    def counted(there: Sequence[Node]) -> Any:
        nonlocal steps
        steps += 1
        return take(there)

    market.take_nodes = counted
    listening = asyncio.create_task(
        Nodes(market, cloud, SimpleNamespace(wake=lambda: None)).run()  # type: ignore[arg-type]
    )
    writing = Writing(config, "cordoned", count, nodes)
    await writing.finish()
    while sum(not each.open for each in market.nodes) < count:
        await asyncio.sleep(0.01)
    late = time.time() - max(writing.sent.values())
    listening.cancel()
    market.database.close()
    return {"nodes": count, "steps": steps, "after_last": round(late, 2)}


# -- the market ---------------------------------------------------------------------------


def machines(count: int) -> tuple[Node, ...]:
    """The nodes of a market without a cluster."""
    return tuple(Node(node_name(number), NODE) for number in range(count))


def open_market(nodes: Sequence[Node], folder: Path, clock: Clock) -> Market:
    """A market as the service opens it, with an empty store."""
    folder.mkdir()
    database = Database(f"sqlite:///{folder / 'era.sqlite'}")
    database.migrate()
    pool = Pool(config=Config({"Pool": {"name": NAME, "configurations": SOLD}}))
    for_sale = pool.for_sale(nodes)
    return Market(
        database=database,
        era=pool.build(nodes, for_sale, clock),
        configurations=for_sale,
        pool=NAME,
        gpus=None,
        nodes=nodes,
        grant=10**15,
        clock=clock,
    )


def bid(dice: random.Random) -> JobRequest:
    """For 1 to 8 GPUs and 1 to 8 hours in the coming two days, a third of them without slack."""
    # Slots that have passed faster than time are behind it.
    begin = datetime.now(UTC) + timedelta(seconds=3600 + dice.randrange(2 * 86_400))
    hours = dice.choice([1, 2, 4, 8])
    return JobRequest(
        configuration=f"gpu-{dice.choice([1, 1, 2, 4, 8])}",
        duration=3600 * hours,
        arrival=begin,
        deadline=begin + timedelta(hours=hours + dice.choice([0, 2, 8])),
        value=VALUE,
        command=["true"],
        commitment=dice.choice(list(Commitment)),
    )


async def fill(market: Market, wanted: int, users: int, dice: random.Random) -> float:
    """Reservations of many users, decided as the service does; seconds for each."""
    begin, made = time.perf_counter(), 0

    async def one() -> None:
        nonlocal made
        user = f"user-{dice.randrange(users)}"
        verdict = await market.together(Coming(user), market.reserve, user, bid(dice))
        made += verdict.accepted
        bar.update()

    with tqdm(total=wanted, desc="reserving", leave=False) as bar:
        for low in range(0, wanted, 200):
            await asyncio.gather(*(one() for _ in range(min(200, wanted - low))))
    if made < 0.9 * wanted:
        raise click.ClickException(f"only {made} of {wanted} bids fit: fewer, or more nodes")
    return (time.perf_counter() - begin) / max(1, wanted)


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """What a function returns, and the seconds it took."""
    begin = time.perf_counter()
    return function(), time.perf_counter() - begin


def decide(market: Market, users: int, dice: random.Random) -> dict[str, str]:
    """Milliseconds of quotes and reservations, one by one: p50 and p99."""
    now = datetime.now(UTC)
    hour = QuoteRequest(configuration="gpu-2", duration=3600)
    week = hour.model_copy(update={"deadline": now + timedelta(days=7)})
    calls: dict[str, Callable[[], Any]] = {
        "quote_now": lambda: market.quote(hour),
        "quote_week": lambda: market.quote(week),
        "reserve": lambda: market.reserve(f"user-{dice.randrange(users)}", bid(dice)),
    }
    found = {}
    for name, call in calls.items():
        took = [1000 * timed(call)[1] for _ in range(DECISIONS)]
        found[name] = f"{quantile(took, 0.5):.1f}, {quantile(took, 0.99):.1f}"
    return found


def busiest(market: Market, count: int) -> set[str]:
    """The nodes with most reservations."""
    on = Counter(
        name
        for reservation in market.era.reservations()
        for placement in reservation.placements
        for name in placement.nodes
    )
    return {name for name, _ in on.most_common(count)}


def lose(market: Market, count: int) -> dict[str, Any]:
    """Lose nodes, and get them back."""
    all_nodes, gone = market.nodes, busiest(market, count)
    left = [each for each in all_nodes if each.name not in gone]
    effects, took = timed(lambda: market.take_nodes(left))
    _, back = timed(lambda: market.take_nodes(all_nodes))
    return {
        "lost": count,
        "seconds": round(took, 2),
        "moved": len(effects.moved),
        "broken": len(effects.losses),
        "back": round(back, 2),
    }


async def sell(
    nodes: int, users: int, reservations: Sequence[int], seed: int, folder: Path
) -> list[dict[str, Any]]:
    """The market with more and more reservations."""
    dice, rows, made = random.Random(seed), [], 0
    before, now = memory(), Clock()
    market, opened_in = timed(lambda: open_market(machines(nodes), folder / "market", now))
    market.rebuild()
    for wanted in reservations:
        each = await fill(market, wanted - made, users, dice)
        made = wanted
        row: dict[str, Any] = {"reservations": wanted, "opened": round(opened_in, 2)}
        row |= {"together_ms": round(1000 * each, 1), **decide(market, users, dice)}
        row["lost"] = [lose(market, count) for count in LOST if count < nodes]
        now.ahead += market.era.grid.slot
        row["slot"] = round(timed(market.pass_time)[1], 2)
        row["rebuild"] = round(timed(market.rebuild)[1] + timed(market.honour)[1], 2)
        rows.append(row | {"mib": round(memory() - before)})
    market.database.close()
    return rows


# -- the report ---------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """Tables for people."""
    rows: list[tuple[str, Any]] = []
    if seen := result.get("watch"):
        for name in ("empty", "full"):
            text = "{seconds} s, {cpu} s of CPU, {mib} MiB more"
            what = "first inventory, {nodes:,} nodes and {pods:,} pods"
            rows.append((what.format(**seen[name]), text.format(**seen[name])))
        for each in seen["events"]:
            text = "{pods:,} at {per_second} a second; CPU {cpu_ms} ms each; from request to "
            text += "seen p50 {p50_ms} ms, p99 {p99_ms} ms; told {told} times"
            rows.append((f"pods {each['what']}", text.format(**each)))
        text = "the market knew {after_last} s after the last, in {steps} steps"
        rows.append(("{nodes} nodes cordoned".format(**seen["cordoned"]),
                     text.format(**seen["cordoned"])))  # fmt: skip
    for row in result.get("market", ()):
        name = f"{row['reservations']:,} reservations: "
        rows += [
            (name + "decided together, each", f"{row['together_ms']} ms"),
            (name + "quote of an hour now, p50, p99", f"{row['quote_now']} ms"),
            (name + "quote within a week, p50, p99", f"{row['quote_week']} ms"),
            (name + "reserve, alone, p50, p99", f"{row['reserve']} ms"),
        ]
        for each in row["lost"]:
            text = "{seconds} s, {moved} moved, {broken} broken; back: {back} s"
            rows.append((f"{name}{each['lost']} busiest nodes lost", text.format(**each)))
        rows += [
            (name + "a slot begins", f"{row['slot']} s"),
            (name + "plan rebuilt at a start", f"{row['rebuild']} s"),
            (name + "memory of the market", f"{row['mib']} MiB"),
        ]
    return table(rows)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--programs", default="", envvar="KUBERNETES_BIN", help="Folder of etcd and so on.")
@click.option("--nodes", default=1000, show_default=True, type=click.IntRange(min=2))
@click.option("--pods", default=10_000, show_default=True, type=click.IntRange(min=1))
@click.option("--users", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option("--reservations", default="1000,10000", show_default=True, help="One after another.")
@click.option("--part", type=click.Choice(["all", "watch", "market"]), default="all")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(
    programs: str,
    nodes: int,
    pods: int,
    users: int,
    reservations: str,
    part: str,
    seed: int,
    as_json: bool,
) -> None:
    click.echo(f"seed {seed}", err=True)
    logging.basicConfig(level=logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="era-scale-"))
    result: dict[str, Any] = {"command": heading(), "seed": seed}
    try:
        if part != "market":
            with open_api_server(programs) as config:
                result["watch"] = asyncio.run(watch(config, nodes, pods, folder))
        if part != "watch":
            counts = sorted(int(each) for each in reservations.split(","))
            result["market"] = asyncio.run(sell(nodes, users, counts, seed, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result) if as_json else f"{heading()}\n\n{report(result)}")


if __name__ == "__main__":
    main()
