"""What is kept of nodes, pods and Jobs: the few fields that matter here, read once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from era_hub.clouds.kubernetes.api import Json
from era_pricing.configurations import parse_quantity

PREFIX = "era.jupyter.org/"
RESERVATION, POOL, KIND, RUN, RANK = (
    PREFIX + name for name in ("reservation", "pool", "kind", "run", "rank")
)
USER, END, GRACE, NODES, CUT, OUTCOME, SETTLED = (
    PREFIX + name for name in ("user", "end", "grace", "nodes", "cut", "outcome", "settled")
)
INDEX = "batch.kubernetes.io/job-completion-index"  # of a pod of an indexed Job
JOB = "job"  # kind of what runs a job; also the name of its container
FINISHED = ("Succeeded", "Failed")

Units = Mapping[str, int]
"""Quantities by resource: thousandths of a core, bytes, whole GPUs."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node. `taints` are (key, value, effect)."""

    uid: str
    version: int
    name: str
    labels: Mapping[str, str]
    allocatable: Units
    ready: bool
    unschedulable: bool
    deleting: bool
    taints: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Container:
    """What has become of a job's container."""

    waiting: str = ""
    message: str = ""
    started: bool = False
    exit_code: int | None = None
    reason: str = ""
    finished: float | None = None


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod. Of others' pods only what they take is of interest.

    Attributes
    ----------
    deleted : float or None
        When its deletion was asked for, UTC seconds.
    gone : bool
        Whether it is deleted for good; the rest is what was seen last.
    """

    uid: str
    version: int
    namespace: str
    name: str
    node: str
    phase: str
    requests: Units
    pool: str = ""
    kind: str = ""
    job_id: str = ""
    run: int = 0
    rank: int = 0
    created: float = 0.0
    deleted: float | None = None
    ip: str = ""
    reason: str = ""
    message: str = ""
    unschedulable: str = ""
    disruption: str = ""
    container: Container = field(default_factory=Container)
    gone: bool = False

    @property
    def finished(self) -> bool:
        """Whether its command has ended."""
        return self.phase in FINISHED

    @property
    def alive(self) -> bool:
        """Whether anything of it may still run."""
        return not self.gone and not self.finished

    @property
    def ended_by_itself(self) -> bool:
        """Whether its command had ended before anybody deleted the pod."""
        end = self.container.finished
        cut = self.deleted is not None and (end is None or end >= self.deleted)
        return self.finished and not cut

    def without(self) -> PodView:
        """The same when it is deleted for good."""
        return replace(self, gone=True)


@dataclass(frozen=True, slots=True)
class JobView:
    """A Job of this pool: one run of a job, or one of its ranks.

    Attributes
    ----------
    deadline : float or None
        When the control plane ends it, UTC seconds.
    raw : dict
        The object itself: other ranks are made from it.
    """

    uid: str
    version: int
    name: str
    job_id: str
    run: int
    rank: int
    user: str
    nodes: tuple[str, ...]
    end: int
    grace: int
    created: float
    deadline: float | None
    begun: float | None
    released: bool
    condition: str
    reason: str
    cut: Mapping[str, Any] | None
    outcome: Mapping[str, Any] | None
    settled: float | None
    raw: Json

    @property
    def size(self) -> int:
        """Of how many pods the run is made."""
        return max(1, len(self.nodes))


def seconds(text: str | None) -> float | None:
    """UTC seconds of a time as the API writes it."""
    return datetime.fromisoformat(text).timestamp() if text else None


def number(text: object, otherwise: int = 0) -> int:
    """A whole number from a label or a version."""
    try:
        return int(str(text))
    except ValueError:
        return otherwise


@lru_cache(maxsize=4096)
def units(resource: str, quantity: str, up: bool = True) -> int:
    """A quantity in base units, rounded up (what is taken) or down (what there is)."""
    try:
        exact = parse_quantity(quantity) * (1000 if resource == "cpu" else 1)
    except ValueError:
        return 0
    return math.ceil(exact) if up else math.floor(exact)


def node(raw: Json) -> NodeView:
    """Read a node."""
    meta, spec, status = raw["metadata"], raw.get("spec", {}), raw.get("status", {})
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    return NodeView(
        uid=meta["uid"],
        version=number(meta.get("resourceVersion")),
        name=meta["name"],
        labels=meta.get("labels") or {},
        allocatable={
            name: units(name, text, up=False)
            for name, text in (status.get("allocatable") or {}).items()
        },
        ready=conditions.get("Ready") == "True",
        unschedulable=bool(spec.get("unschedulable")),
        deleting="deletionTimestamp" in meta,
        taints=tuple(
            (each["key"], each.get("value") or "", each["effect"])
            for each in spec.get("taints") or ()
        ),
    )


def pod(raw: Json) -> PodView:
    """Read a pod."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    labels = meta.get("labels") or {}
    found = PodView(
        uid=meta["uid"],
        version=number(meta.get("resourceVersion")),
        namespace=meta["namespace"],
        name=meta["name"],
        # The scheduler has made room there by preempting others, who are leaving.
        node=spec.get("nodeName") or status.get("nominatedNodeName") or "",
        phase=status.get("phase") or "Pending",
        requests=requests(spec),
        pool=labels.get(POOL, ""),
        kind=labels.get(KIND, ""),
        job_id=labels.get(RESERVATION, ""),
    )
    if found.kind != JOB:
        return found
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    scheduled, disrupted = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget")
    annotations = meta.get("annotations") or {}
    return replace(
        found,
        run=number(labels.get(RUN)),
        rank=number(labels.get(RANK) or annotations.get(INDEX)),
        created=seconds(meta.get("creationTimestamp")) or 0.0,
        deleted=_deletion(meta),
        ip=status.get("podIP") or "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        unschedulable=scheduled.get("message") or "" if scheduled.get("status") == "False" else "",
        disruption=disrupted.get("reason") or "" if disrupted else "",
        container=_container(status),
    )


def _deletion(meta: Json) -> float | None:
    due = seconds(meta.get("deletionTimestamp"))
    return None if due is None else due - (meta.get("deletionGracePeriodSeconds") or 0)


def _container(status: Json) -> Container:
    main = [each for each in status.get("containerStatuses") or () if each["name"] == JOB]
    begun = status.get("initContainerStatuses") or ()
    # Until the job's own container does something, trouble of those before it is told.
    for each in (*begun, *main):
        waiting = each.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating", None):
            return Container(waiting=waiting["reason"], message=waiting.get("message") or "")
    for each in main:
        state = each.get("state", {})
        if "running" in state:
            return Container(started=True)
        if ended := state.get("terminated"):
            return Container(
                message=ended.get("message") or "",
                started=True,
                exit_code=ended.get("exitCode"),
                reason=ended.get("reason") or "",
                finished=seconds(ended.get("finishedAt")),
            )
    return Container()


def requests(spec: Json) -> dict[str, int]:
    """What the scheduler counts for a pod: init containers run before the others do."""
    taken: dict[str, int] = {}
    running = _sum(_asked(each) for each in spec.get("containers") or ())
    sidecars: dict[str, int] = {}
    for each in spec.get("initContainers") or ():
        asked = _asked(each)
        if each.get("restartPolicy") == "Always":
            sidecars = _sum((sidecars, asked))
            asked = sidecars
        else:
            asked = _sum((sidecars, asked))
        taken = _most(taken, asked)
    taken = _most(taken, _sum((running, sidecars)))
    # What a pod asks for as a whole holds in place of what its containers ask for.
    taken |= _asked(spec)
    overhead = {name: units(name, text) for name, text in (spec.get("overhead") or {}).items()}
    return _sum((taken, overhead))


def _asked(part: Json) -> dict[str, int]:
    resources = part.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: units(name, text) for name, text in asked.items()}


def _sum(parts: Iterable[Units]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0) + amount
    return total


def _most(one: Units, other: Units) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def job(raw: Json) -> JobView:
    """Read a Job that this cloud has made."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    begun = seconds(status.get("startTime"))
    allowed = spec.get("activeDeadlineSeconds")
    conditions = [each for each in status.get("conditions") or () if each["status"] == "True"]
    final = [each for each in conditions if each["type"] in ("Complete", "Failed", "FailureTarget")]
    last = final[-1] if final else {}
    cut, outcome = _note(notes, CUT), _note(notes, OUTCOME)
    return JobView(
        uid=meta["uid"],
        version=number(meta.get("resourceVersion")),
        name=meta["name"],
        job_id=labels.get(RESERVATION, ""),
        run=number(labels.get(RUN)),
        rank=number(labels.get(RANK)),
        user=notes.get(USER, ""),
        nodes=tuple(_note(notes, NODES) or ()),
        end=int(seconds(notes.get(END)) or 0),
        grace=number(notes.get(GRACE)),
        created=seconds(meta.get("creationTimestamp")) or 0.0,
        begun=begun,
        deadline=None if begun is None or allowed is None else begun + allowed,
        released=bool(spec.get("parallelism", 1) or cut or outcome),
        condition=last.get("type", ""),
        reason=last.get("reason") or "",
        cut=cut,
        outcome=outcome,
        settled=seconds(notes.get(SETTLED)),
        raw=raw,
    )


def _note(notes: Mapping[str, str], name: str) -> Any:
    try:
        return json.loads(notes[name])
    except (KeyError, ValueError):
        return None
