"""The objects that make up a job on Kubernetes. Pure: dictionaries in, dictionaries out."""

from __future__ import annotations

import base64
import copy
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubespawner.slugs import escape_slug, safe_slug

from era_hub.clouds.base import GPU, CloudError, JobSpec
from era_hub.clouds.kubernetes import order
from era_hub.clouds.kubernetes.api import Json
from era_hub.clouds.kubernetes.views import (
    END,
    GRACE,
    INDEX,
    JOB,
    KIND,
    NODES,
    POOL,
    RANK,
    RESERVATION,
    RUN,
    USER,
    JobView,
    requests,
    units,
)
from era_hub.clouds.orders import promise

SLUG = 48  # letters of a user name in names, as KubeSpawner has it
PORT = 29500  # where torch looks for the first rank
UNSETTLED = 30 * 86400  # seconds until the control plane forgets what nobody settled


@dataclass(frozen=True)
class Template:
    """What the admin sets for all jobs; texts may hold `{username}` and the like."""

    image: str
    image_pull_policy: str = ""
    working_directory: str = "era-jobs/{job_id}"
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[Json] = ()
    volume_mounts: Sequence[Json] = ()
    service_account: str = ""
    tolerations: Sequence[Json] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    priority_class: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    job_template: Json = field(default_factory=dict)


def name_of(job_id: str, run: int, rank: int | None = None) -> str:
    """Name of what belongs to a run, from its numbers alone."""
    return f"era-{job_id}-{run}" + ("" if rank is None else f"-{rank}")


def expand(value: Any, spec: JobSpec, namespace: str, pool: str) -> Any:
    """Put the user, the job and so on in the place of their names in braces.

    Only these names are replaced, and once: no other brace and nothing in a user's name
    has a meaning.
    """
    words = {
        "username": safe_slug(spec.user, max_length=SLUG),
        "escaped_username": escape_slug(spec.user),
        "unescaped_username": spec.user,
        "job_id": spec.id,
        "configuration": spec.configuration,
        "namespace": namespace,
        "pool": pool,
    }
    # The server that a job is for is the user's default one.
    words["user_server"] = words["safe_username"] = words["username"]
    pattern = re.compile("{(" + "|".join(words) + ")}")

    def inside(part: Any) -> Any:
        if isinstance(part, str):
            return pattern.sub(lambda found: words[found[1]], part)
        if isinstance(part, Mapping):
            return {key: inside(each) for key, each in part.items()}
        if isinstance(part, Sequence):
            return [inside(each) for each in part]
        return part

    return inside(value)


def merged(base: Any, over: Any) -> Any:
    """Put one structure over another.

    Dictionaries are merged key by key, lists whose items have names (or mount paths) item
    by item; of everything else the upper one stays.
    """
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        both = {key: merged(base[key], over[key]) for key in base if key in over}
        return copy.deepcopy({**base, **over}) | both
    if isinstance(base, list) and isinstance(over, list) and (key := _key(base + over)):
        items = {each[key]: each for each in base}
        for each in over:
            items[each[key]] = merged(items.get(each[key], {}), each)
        return list(items.values())
    return copy.deepcopy(over)


def _key(items: list[Any]) -> str:
    """What tells the items of a list apart; empty if nothing does."""
    for key in ("mountPath", "name"):
        if all(isinstance(each, Mapping) and key in each for each in items):
            return key
    return ""


def spreads_evenly(nodes: Sequence[str]) -> bool:
    """Whether the scheduler can be told to place as many pods on each of the nodes."""
    return len(set(Counter(nodes).values())) <= 1


def directory(spec: JobSpec, template: Template, namespace: str, pool: str) -> str:
    """The job's directory, for people: one below the home is told with ``~``."""
    path = str(expand(template.working_directory, spec, namespace, pool))
    return path if path.startswith("/") else f"~/{path}"


def main_job(
    spec: JobSpec, template: Template, namespace: str, pool: str, now: float, *, indexed: bool
) -> tuple[Json, list[str]]:
    """The Job of a run: of all its ranks if indexed, else of the first one.

    Returns
    -------
    job : dict
        It makes no pod yet: `release` lets it.
    pieces : list of str
        What its pods will look for, see `secrets`.
    """
    size = max(1, len(spec.nodes))
    environment = _environment(spec, size, indexed)
    pieces = order.pieces(order.script(spec, {"ERA_DIRECTORY", *environment}))
    pod = _pod(spec, size, environment, len(pieces), indexed)
    asked = expand(merged(_admin(template), template.job_template), spec, namespace, pool)
    manifest: Json = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name_of(spec.id, spec.run),
            "namespace": namespace,
            "annotations": {
                END: datetime.fromtimestamp(spec.end, UTC).isoformat(),
                GRACE: str(spec.grace),
                NODES: json.dumps(list(spec.nodes)),
            },
        },
        "spec": {
            "parallelism": 0,
            "backoffLimit": 0,
            "activeDeadlineSeconds": allowed(spec.end, spec.grace, now),
            "ttlSecondsAfterFinished": UNSETTLED,
            "template": {"spec": pod},
        },
    }
    if indexed:
        manifest["spec"] |= {"completionMode": "Indexed", "completions": size}
    return marked(merged(asked, manifest), spec, pool), pieces


def marked(job: Json, spec: JobSpec, pool: str) -> Json:
    """Set what a Job and its pods are found by; no template or hook takes that away."""
    labels: Json = {RESERVATION: spec.id, POOL: pool, KIND: JOB, RUN: str(spec.run)}
    if job["spec"].get("completionMode") != "Indexed":
        labels[RANK] = "0"
    for part in (job, job["spec"]["template"]):
        meta = part.setdefault("metadata", {})
        meta["labels"] = (meta.get("labels") or {}) | labels
        meta["annotations"] = (meta.get("annotations") or {}) | {USER: spec.user}
    return job


def _admin(template: Template) -> Json:
    """The admin's single settings in the form of a template."""
    environment = {
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **template.environment,
        "ERA_DIRECTORY": template.working_directory,
    }
    container: Json = {
        "name": JOB,
        "image": template.image,
        "env": [{"name": name, "value": text} for name, text in environment.items()],
        "volumeMounts": list(template.volume_mounts),
    }
    pod: Json = {
        "containers": [container],
        "volumes": list(template.volumes),
        "tolerations": list(template.tolerations),
        "nodeSelector": dict(template.node_selector),
        "automountServiceAccountToken": bool(template.service_account),
        # The command is then not process 1: SIGTERM ends it, and its orphans are reaped.
        "shareProcessNamespace": True,
    }
    if template.image_pull_policy:
        container["imagePullPolicy"] = template.image_pull_policy
    if template.service_account:
        pod["serviceAccountName"] = template.service_account
    if template.priority_class:
        pod["priorityClassName"] = template.priority_class
    meta = {"labels": dict(template.labels), "annotations": dict(template.annotations)}
    return {"metadata": meta, "spec": {"template": {"metadata": meta, "spec": pod}}}


def _pod(spec: JobSpec, size: int, env: Mapping[str, Json], pieces: int, indexed: bool) -> Json:
    """What of a pod follows from the job, whatever the admin sets."""
    secret = name_of(spec.id, spec.run)
    ordered = [
        {
            "name": order.variable(i),
            "valueFrom": {
                "secretKeyRef": {
                    "name": f"{secret}-order-{i // order.PER_SECRET}",
                    "key": order.variable(i),
                }
            },
        }
        for i in range(pieces)
    ]
    resources = {GPU: "0", **spec.resources}
    pod: Json = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": max(1, spec.grace),
        "containers": [
            {
                "name": JOB,
                "command": ["sh", "-c", order.bootstrap(pieces), JOB],
                "env": [{"name": name} | value for name, value in env.items()] + ordered,
                "resources": {"requests": dict(resources), "limits": dict(resources)},
            }
        ],
    }
    nodes = spec.nodes if indexed else spec.nodes[:1]
    if nodes:
        pod["affinity"] = _affinity(nodes)
    if indexed and size > 1:
        pod["subdomain"] = name_of(spec.id, spec.run)
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {RESERVATION: spec.id, RUN: str(spec.run)}},
            }
        ]
    return pod


def _affinity(nodes: Sequence[str]) -> Json:
    """Keep pods on the planned nodes; by name, as the label of the host may differ."""
    terms = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
        for name in dict.fromkeys(nodes)
    ]
    required = {"nodeSelectorTerms": terms}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _environment(spec: JobSpec, size: int, indexed: bool) -> dict[str, Json]:
    """The cloud's own variables, by name: a value, or where it comes from."""
    gpus = units(GPU, spec.resources.get(GPU, "0"))
    own = {
        **promise(spec),
        "ERA_GPUS": ",".join(map(str, range(gpus))),  # as the container numbers them
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    if not gpus:
        # Images for GPUs ask for all of them; where no device is allocated, none is given.
        own |= {"NVIDIA_VISIBLE_DEVICES": "none", "CUDA_VISIBLE_DEVICES": ""}
    else:
        own["PET_NPROC_PER_NODE"] = str(gpus)
    env: dict[str, Json] = {name: {"value": text} for name, text in own.items()}
    rank: Json = {"value": "0"}
    if indexed:
        rank = _field(f"metadata.annotations['{INDEX}']")
    env["ERA_RANK"] = rank
    if size > 1:
        for name in ("NNODES", "WORLD_SIZE", "PET_NNODES"):
            env[name] = {"value": str(size)}
        for name in ("RANK", "NODE_RANK", "PET_NODE_RANK"):
            env[name] = rank
        name = name_of(spec.id, spec.run)
        address = {"value": f"{name}-0.{name}"} if indexed else _field("status.podIP")
        for name in ("MASTER_ADDR", "PET_MASTER_ADDR"):
            env[name] = address
        for name in ("MASTER_PORT", "PET_MASTER_PORT"):
            env[name] = {"value": str(PORT)}
    return env


def _field(path: str) -> Json:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def allowed(end: int, grace: int, begun: float) -> int:
    """Seconds after which the control plane stops a Job: its grace before the end.

    A Job out of time gets SIGTERM at once and SIGKILL after its grace, so this ends it
    in time even while the service is away.
    """
    return max(1, math.floor(end - grace - begun))


def release(job: JobView) -> Json:
    """The change that lets a Job make its pods."""
    return {"spec": {"parallelism": job.raw["spec"].get("completions") or 1}}


def secrets(job: JobView, pieces: list[str]) -> list[Json]:
    """What the pods of a run read their order from; goes with the Job."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": f"{job.name}-order-{number}",
                "labels": _own_labels(job),
                "ownerReferences": [_owner(job)],
            },
            "immutable": True,
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in part.items()},
        }
        for number, part in enumerate(order.secrets(pieces))
    ]


def secret_names(job: JobView) -> list[str]:
    """Names of the Secrets that the Job's pods refer to."""
    references = (
        each.get("valueFrom", {}).get("secretKeyRef", {}).get("name", "")
        for each in _main(job.raw)["env"]
        if each["name"].startswith(order.variable(0)[:-1])
    )
    return list(dict.fromkeys(references))


def service(job: JobView) -> Json:
    """A name for each pod of an indexed Job, so that the others find the first."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": job.name,
            "labels": _own_labels(job),
            "ownerReferences": [_owner(job)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # they look for each other before they are ready
            "selector": {RESERVATION: job.job_id, RUN: str(job.run)},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }


def follower(lead: JobView, rank: int, address: str, now: float) -> Json:
    """The Job of another rank, made from that of the first, whose pod has this address."""
    raw = lead.raw
    template = copy.deepcopy(raw["spec"]["template"])
    for labels in ("controller-uid", "job-name"):
        template["metadata"]["labels"].pop(labels, None)
        template["metadata"]["labels"].pop(f"batch.kubernetes.io/{labels}", None)
    template["metadata"]["labels"][RANK] = str(rank)
    template["spec"]["affinity"] = merged(
        template["spec"].get("affinity", {}), _affinity(lead.nodes[rank : rank + 1])
    )
    own = {name: str(rank) for name in ("ERA_RANK", "RANK", "NODE_RANK", "PET_NODE_RANK")}
    own |= dict.fromkeys(("MASTER_ADDR", "PET_MASTER_ADDR"), address)
    main = _main({"spec": {"template": template}})
    main["env"] = [
        {"name": each["name"], "value": own[each["name"]]} if each["name"] in own else each
        for each in main["env"]
    ]
    meta = raw["metadata"]
    notes = {key: meta["annotations"][key] for key in (END, GRACE, NODES, USER)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name_of(lead.job_id, lead.run, rank),
            "labels": meta["labels"] | {RANK: str(rank)},
            "annotations": notes,
            "ownerReferences": [_owner(lead)],
        },
        "spec": {
            "parallelism": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": allowed(lead.end, lead.grace, now),
            "ttlSecondsAfterFinished": UNSETTLED,
            "template": template,
        },
    }


def guard(job: Json, spec: JobSpec) -> None:
    """Raise CloudError if a Job would take more GPUs than its reservation has.

    Templates and hooks are the admin's; a slip in them must not take what others booked.
    """
    pod = job["spec"]["template"]["spec"]
    devices = {GPU, *(name for name in spec.resources if "/" in name)}
    for device in devices:
        promised = units(device, spec.resources.get(device, "0"))
        asked = requests(pod).get(device, 0)
        if asked != promised:
            raise CloudError(
                f"its pod would get {asked} {device} instead of the {promised} that are reserved: "
                "the admin's job_template or modify_job must leave them alone"
            )
    if _main(job).get("resources", {}).get("limits", {}).get(GPU) is None:
        raise CloudError(f"its container must say how many {GPU} it gets: modify_job removed that")


def _main(job: Json) -> Json:
    containers = job["spec"]["template"]["spec"]["containers"]
    return next(each for each in containers if each["name"] == JOB)


def _own_labels(job: JobView) -> dict[str, str]:
    labels = job.raw["metadata"]["labels"]
    return {key: labels[key] for key in (RESERVATION, POOL, KIND, RUN)}


def _owner(job: JobView) -> Json:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job.name,
        "uid": job.uid,
        "blockOwnerDeletion": False,
    }


def is_indexed(job: JobView) -> bool:
    """Whether one Job makes the pods of all ranks."""
    return job.raw["spec"].get("completionMode") == "Indexed"


def probe(namespace: str) -> Json:
    """A Job that is never made: what comes back of it tells what the server knows."""
    pod = {"restartPolicy": "Never", "containers": [{"name": JOB, "image": JOB}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": "era-probe-", "namespace": namespace},
        "spec": {
            "completionMode": "Indexed",
            "completions": 1,
            "parallelism": 0,
            "template": {"spec": pod},
        },
    }
