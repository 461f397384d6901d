"""What has become of a run of a job: judged from its Jobs and its pods, nothing else."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from era_hub.clouds.base import JobStatus, Phase
from era_hub.clouds.kubernetes import words
from era_hub.clouds.kubernetes.views import JobView, PodView

UNBOUND = 10.0  # seconds after which it is told that no pod has appeared
CLOCKS = 1.0  # seconds: the API tells times in whole ones


@dataclass
class Run:
    """One run of a job.

    Attributes
    ----------
    jobs : dict
        Its Jobs by name: one, or one for each rank.
    pods : dict
        Its pods by uid, also those that are gone.
    begun : bool
        Whether there was a Job: pods may be seen before their Job is.
    """

    number: int
    jobs: dict[str, JobView] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    begun: bool = False

    @property
    def lead(self) -> JobView | None:
        """The Job of the first rank, or of all; what is decided is noted there."""
        return min(self.jobs.values(), key=lambda job: job.rank, default=None)

    @property
    def size(self) -> int:
        """Of how many pods it is made, as far as is known."""
        ranks = (pod.rank + 1 for pod in self.pods.values())
        return self.lead.size if self.lead else max(ranks, default=1)

    def first(self, rank: int) -> PodView | None:
        """The pod that a rank was started as.

        Older control planes put another in the place of a pod that somebody has
        deleted; what that one does is not the job's doing.
        """
        mine = [pod for pod in self.pods.values() if pod.rank == rank]
        return min(mine, key=lambda pod: (pod.created, pod.gone is False, pod.uid), default=None)


@dataclass(frozen=True)
class Verdict:
    """What is to be said and done about a run.

    Attributes
    ----------
    status : JobStatus
    cut : mapping or None
        Why the run is to be ended now, where nobody has decided so before.
    doubtful : bool
        Whether something is missing that may only not have been seen yet: the API should
        be asked before anything is done. `status` says that the job runs until then.
    """

    status: JobStatus
    cut: Mapping[str, Any] | None = None
    doubtful: bool = False


def note(
    message: str, *, lost: bool = False, timed_out: bool = False, exit_code: int | None = None
) -> dict[str, Any]:
    """A decision to end a run, as it is noted on its Jobs."""
    return {"message": message, "lost": lost, "timed_out": timed_out, "exit_code": exit_code}


def judge(run: Run, lost_nodes: Container[str], now: float, *, checked: bool = False) -> Verdict:
    """Judge a run.

    Parameters
    ----------
    lost_nodes : container of str
        Nodes of its pods that are gone, or have been unwell for too long.
    checked : bool
        Whether the API was asked about all of its objects just now.
    """
    lead = run.lead
    if lead is None:
        if any(pod.alive and pod.node not in lost_nodes for pod in run.pods.values()):
            return Verdict(JobStatus(Phase.RUNNING, message="its Job is gone", run=run.number))
        return Verdict(_ended(run, "somebody deleted its Job", lost=True))
    if lead.outcome is not None:
        return Verdict(_remembered(run, lead.outcome))
    pods = [run.first(rank) for rank in range(lead.size)]
    there = [pod for pod in pods if pod is not None]
    final = any(job.condition for job in run.jobs.values())
    timed_out = _timed_out(run, there)
    cut = lead.cut
    if cut is None and not timed_out and (cut := _trouble(there, lead, lost_nodes)):
        # A deletion comes before the deadline it serves is seen on the Job, and so on.
        doubtful = cut.pop("doubtful") and not checked
        if doubtful or not final:
            return Verdict(_running(run, lead, pods, now), None if doubtful else cut, doubtful)
    if any(pod.alive and pod.node not in lost_nodes for pod in run.pods.values()):
        return Verdict(_running(run, lead, pods, now))
    by_themselves = len(there) == lead.size and all(pod.ended_by_itself for pod in there)
    if by_themselves and not (cut and cut["lost"]):
        return Verdict(_own_end(run, there, lead))
    if timed_out and not (cut and cut["lost"]):
        return Verdict(_out_of_time(run, pods))
    if cut is not None:
        code = cut["exit_code"]
        if code is None and pods[0] is not None:
            code = words.exit_code(pods[0])
        return Verdict(_ended(run, cut["message"], code, lost=cut["lost"]))
    if not final:
        return Verdict(_running(run, lead, pods, now))
    if not checked:
        return Verdict(_running(run, lead, pods, now), doubtful=True)
    return Verdict(_without_pods(run, lead))


def _timed_out(run: Run, pods: list[PodView]) -> bool:
    if any(job.reason == "DeadlineExceeded" for job in run.jobs.values()):
        return True
    if any(job.cut and job.cut["timed_out"] for job in run.jobs.values()):
        return True
    deadlines = [job.deadline for job in run.jobs.values() if job.deadline is not None]
    cuts = [pod.deleted for pod in pods if pod.deleted is not None and not pod.ended_by_itself]
    return bool(deadlines and cuts) and min(cuts) >= min(deadlines) - CLOCKS


def _trouble(
    pods: list[PodView], lead: JobView, lost_nodes: Container[str]
) -> dict[str, Any] | None:
    """Why the run should end before all of it has ended by itself."""
    for pod in pods:
        name = f"rank {pod.rank}: " if lead.size > 1 else ""
        if pod.alive and pod.node in lost_nodes:
            return note(f"{name}its node {pod.node} was lost", lost=True) | {"doubtful": False}
        if (pod.deleted is not None or pod.gone) and not pod.ended_by_itself:
            told = note(name + words.deleted(pod), lost=True, exit_code=words.exit_code(pod))
            return told | {"doubtful": True}
        if pod.phase == "Failed" and words.blameless(pod):
            return note(name + words.ended(pod), lost=True) | {"doubtful": False}
        if pod.phase == "Failed" and lead.size > 1:
            told = note(name + words.ended(pod, _memory(lead)), exit_code=words.exit_code(pod))
            return told | {"doubtful": False}
    return None


def _running(run: Run, lead: JobView, pods: list[PodView | None], now: float) -> JobStatus:
    message = next((text for pod in pods if pod and (text := words.waiting(pod))), "")
    if pods[0] is None and now - lead.created > UNBOUND:
        message = "waits: Kubernetes has not made its pod yet; is there a quota in the namespace?"
    return JobStatus(Phase.RUNNING, message=message, end=lead.end, run=run.number)


def _ended(
    run: Run, message: str, exit_code: int | None = None, *, lost: bool = False
) -> JobStatus:
    return JobStatus(Phase.ENDED, exit_code, message=message, run=run.number, lost=lost)


def _own_end(run: Run, pods: list[PodView], lead: JobView) -> JobStatus:
    worst = next((pod for pod in pods if pod.phase == "Failed"), pods[0])
    name = f"rank {worst.rank}: " if lead.size > 1 and worst.phase == "Failed" else ""
    message = words.ended(worst, _memory(lead))
    return _ended(run, name + message, words.exit_code(worst), lost=words.blameless(worst))


def _out_of_time(run: Run, pods: list[PodView | None]) -> JobStatus:
    first = pods[0]
    never = not any(pod and (pod.container.started or pod.finished) for pod in pods)
    message = words.AT_ITS_END
    if never:
        why = words.waiting(first) if first else ""
        message += f" before it ran{f': it {why}' if why else ''}"
    code = words.exit_code(first) if first else None
    return JobStatus(Phase.ENDED, code, True, message, run=run.number, lost=never)


def _without_pods(run: Run, lead: JobView) -> JobStatus:
    """Judge by the Jobs alone, as when their pods were removed while nobody looked."""
    failed = [job for job in run.jobs.values() if job.condition != "Complete"]
    if not failed:
        return _ended(run, "", 0)
    return _ended(run, "it failed, and its pod was removed: nothing else is known of it")


def _remembered(run: Run, outcome: Mapping[str, Any]) -> JobStatus:
    return JobStatus(
        Phase.ENDED,
        outcome.get("exit_code"),
        bool(outcome.get("timed_out")),
        str(outcome.get("message", "")),
        run=run.number,
        lost=bool(outcome.get("lost")),
    )


def remember(status: JobStatus) -> dict[str, Any]:
    """An end as it is noted on the Job, for when its pods are gone."""
    return {
        "exit_code": status.exit_code,
        "timed_out": status.timed_out,
        "message": status.message,
        "lost": status.lost,
    }


def _memory(lead: JobView) -> str:
    for each in lead.raw["spec"]["template"]["spec"]["containers"]:
        limit = (each.get("resources", {}).get("limits") or {}).get("memory")
        if limit:
            return str(limit)
    return ""
