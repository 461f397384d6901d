"""What becomes of notebooks, jobs and credits when a full node is lost for good, and how fast.

    KUBECONFIG=... python -m benchmarks.failure_drill

fills two nodes of eight GPUs each with notebooks, flexible and preemptible jobs, and has
more jobs wait. Then one node fails, as when its machine loses power, and stays away. What
is awaited: that no promise is left on the lost node, that what is promised fits what is
left, that what was broken is refunded in full and its owners told, and that the books add
up. With --mend the node comes back, and the jobs that are left run to their end.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from benchmarks.cluster_stage import ClusterStage, gpus_of, open_cluster, open_stage, require_gpus
from era_hub.client.admin import AdminClient
from era_hub.models import Commitment, JobRequest, Kind, Reservation, ReservationRequest, State

NODES, GPUS, EACH = 2, 8, 2
NOTEBOOKS, RUNNING, WAITING = 4, 4, 4
DEADLINE = 60.0
"""Seconds in which all of it shall have happened."""
VALUE = 10**12
SOLD = [{"name": "gpu-2", "resources": {"nvidia.com/gpu": str(EACH), "cpu": "1"}}]
SLEEP = ["sh", "-c", "trap 'exit 143' TERM; sleep {seconds} & wait"]


@dataclass
class Drill:
    """What was reserved, and what came of it when."""

    stage: ClusterStage
    admin: AdminClient
    notebooks: list[Reservation] = field(default_factory=list)
    jobs: list[Reservation] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)

    def all(self) -> dict[str, Reservation]:
        """Every reservation as it is now."""
        found: dict[str, Reservation] = {
            each.id: each for each in self.admin.reservations(everybody=True, limit=500)
        }
        return found

    # -- before -------------------------------------------------------------------

    def fill(self) -> None:
        """Notebooks and jobs on every GPU, and jobs that wait for one."""
        # In turns, so that each node gets some of all.
        for number in tqdm(range(RUNNING + WAITING), desc="reservations", leave=False):
            if number < NOTEBOOKS:
                request = ReservationRequest(configuration="gpu-2", duration="30m", value=VALUE)
                user = self.stage.users[number]
                made = self.stage.service.client(user).reserve(request).reservation
                assert made is not None
                self.notebooks.append(made)
            self.jobs.append(self._job(number))
        self._until("every GPU in use", self._full, 180)

    def _job(self, number: int) -> Reservation:
        commitment = Commitment.PREEMPTIBLE if number % 2 else Commitment.FLEXIBLE
        minutes = 20 if number < RUNNING else 2
        request = JobRequest(
            configuration="gpu-2",
            duration=minutes * 60,
            deadline=datetime.now(UTC) + timedelta(hours=6),
            value=VALUE,
            name=f"{commitment}-{number}",
            command=[part.format(seconds=minutes * 60) for part in SLEEP],
            commitment=commitment,
        )
        user = self.stage.users[number % len(self.stage.users)]
        outcome = self.stage.service.client(user).submit(request)
        assert outcome.job is not None, outcome.reason
        return outcome.job.reservation

    def _full(self) -> bool:
        return sum(self.held().values()) == NODES * GPUS

    def held(self) -> Counter[str]:
        """GPUs of each node that running pods of this market hold."""
        count: Counter[str] = Counter()
        for pod in self.stage.cluster.request("GET", self.stage.pods_path)["items"]:
            if pod["status"].get("phase") == "Running" and "nodeName" in pod["spec"]:
                for container in pod["spec"]["containers"]:
                    limits = container["resources"].get("limits", {})
                    count[pod["spec"]["nodeName"]] += int(limits.get("nvidia.com/gpu", 0))
        return count

    # -- after --------------------------------------------------------------------

    def lose(self, node: str, fail: str) -> dict[str, Any]:
        """Let a node fail, and wait until everything is settled."""
        before = self.all()
        there = {key for key, each in before.items() if node in each.nodes and not each.state.final}
        begin = time.monotonic()
        subprocess.run(fail, shell=True, check=True)
        marks: list[tuple[str, Callable[[], bool]]] = [
            ("the control plane knows", lambda: node not in gpus_of(self.stage.cluster)),
            ("no promise is left on the node", lambda: self._left(node)),
            ("nothing runs there any more", lambda: not self.held()[node]),
        ]
        for what, question in marks:
            self._until(what, question, 3 * DEADLINE)
            self.times[what] = time.monotonic() - begin
        after = self.all()
        return self._report(node, {key: (before[key], after[key]) for key in there})

    def _left(self, node: str) -> bool:
        now = datetime.now(UTC)
        return not any(
            node in each.nodes and each.end > now and not each.state.final
            for each in self.all().values()
        )

    def _report(
        self, node: str, there: dict[str, tuple[Reservation, Reservation]]
    ) -> dict[str, Any]:
        broken = [new for _, new in there.values() if new.state is State.FAILED]
        kept = [(old, new) for old, new in there.values() if not new.state.final]
        allocation = self.admin.allocation()
        promised = sum(each.units for each in allocation.running)
        said = {
            each.id: self.stage.service.client(each.user).reservation(each.id).message
            for each in broken
        }
        return {
            "node": node,
            "seconds": {what: round(seconds, 1) for what, seconds in self.times.items()},
            "reservations on it": len(there),
            "notebooks broken": sum(each.kind is Kind.NOTEBOOK for each in broken),
            "jobs broken": sum(each.kind is Kind.JOB for each in broken),
            "moved elsewhere or later": len(kept),
            "refunded in full": sum(each.refunded == each.price for each in broken),
            "owners told": sum(bool(text) for text in said.values()),
            "message": next(iter(said.values()), ""),
            "GPUs promised now": promised,
            "GPUs left": sum(gpus_of(self.stage.cluster).values()),
            "findings in the books": len(self.admin.books().findings),
        }

    def mend(self, mend: str) -> dict[str, Any]:
        """Let the node come back, give the notebooks back, and wait for the jobs."""
        subprocess.run(mend, shell=True, check=True)
        begin = time.monotonic()
        self._until("the node's return", lambda: len(gpus_of(self.stage.cluster)) == NODES, 120)
        for each in self.all().values():
            if each.kind is Kind.NOTEBOOK and not each.state.final:
                self.stage.service.client(each.user).give_back(each.id)
            elif each.state is State.ACTIVE:
                self.stage.service.client(each.user).cancel_job(each.id)
        short = [each.id for each in self.jobs[RUNNING:]]
        jobs = {each.id: each for each in self.jobs}

        def over() -> bool:
            now = self.all()
            return all(now[each].state.final for each in short)

        self._until("the end of the jobs that had waited", over, 600)
        states = Counter(
            self.stage.service.client(jobs[each].user).job(each).state for each in short
        )
        return {
            "seconds to the end of the jobs that had waited": round(time.monotonic() - begin, 1),
            "their states": {str(state): count for state, count in states.items()},
            "findings in the books": len(self.admin.books().findings),
        }

    def _until(self, what: str, question: Callable[[], bool], limit: float) -> None:
        begin = time.monotonic()
        with tqdm(desc=what, bar_format="{desc} {elapsed}", leave=False) as bar:
            while not question():
                if time.monotonic() - begin > limit:
                    log = self.stage.service.log()[-4000:]
                    raise click.ClickException(f"waited {limit:g} s for {what}\n{log}")
                time.sleep(0.25)
                bar.refresh()


def switch(node: str) -> Path:
    """The file that lets a node of the test control plane fail while it is there."""
    return Path(os.environ.get("KUBECONFIG", "")).parent / "pods" / f"{node}.down"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--node", help="Which node to lose. [default: the one with most notebooks]")
@click.option(
    "--fail",
    help="A shell command that lets it fail, with {node}. [default: the switch of a test "
    "control plane whose kubeconfig lies beside its folder `pods`]",
)
@click.option("--mend", is_flag=True, help="Let it come back, and wait for the jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(node: str | None, fail: str | None, mend: bool, as_json: bool) -> None:
    settings = {"Pool.configurations": SOLD, "EraHub.grace": 3, "EraHub.lease": 60}
    with open_cluster() as cluster:
        require_gpus(cluster, NODES, GPUS)
        with open_stage(cluster, users=NOTEBOOKS, settings=settings) as stage:
            admin = AdminClient(stage.service.url, stage.hub.user_token("admin"))
            drill = Drill(stage, admin)
            drill.fill()
            used = Counter(each.nodes[0] for each in drill.all().values()
                           if each.kind is Kind.NOTEBOOK and each.nodes)  # fmt: skip
            lost = node or used.most_common(1)[0][0]
            command = (fail or f"touch {switch('{node}')}").format(node=lost)
            found = {}
            try:
                found = drill.lose(lost, command)
                if mend:
                    back = f"rm -f {switch(lost)}"
                    found["after its return"] = drill.mend(back)
            finally:
                switch(lost).unlink(missing_ok=True)
    found["in time"] = max(found["seconds"].values()) <= DEADLINE
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for what, value in found.items():
        click.echo(f"{what:28} {value}")


if __name__ == "__main__":
    main()
