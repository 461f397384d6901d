"""The pod of a notebook server: what its reservation lets it have, and the check of the rest.

Everything here is pure. A pod is its manifest as it goes over the wire, and a quantity is in
Kubernetes notation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from era_hub.models import Reservation

PREFIX = "era.jupyter.org/"
SWITCH = "NVIDIA_VISIBLE_DEVICES"
"""Shows a container GPUs that it was not given, where the node's runtime heeds it."""
HIDDEN = ("none", "void")
NODE_NAME = "metadata.name"

Manifest = Mapping[str, Any]

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:[eE](?P<exponent>[+-]?[0-9]{1,2})|(?P<suffix>[numkMGTPE]|[KMGTPE]i)?)",
    re.ASCII,
)
_POWERS = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


@dataclass(frozen=True)
class Terms:
    """What a pod may have, and how it must be marked.

    Attributes
    ----------
    reservation, pool, user : str
    end : datetime
    seconds : int
        The pod must be over so long after its start.
    resources : mapping of str to str
        What the pod may have of everything that is sold.
    gpu : str
        The name of GPUs among them, where they always are, also if there are none.
    node : str
        Where the pod must run; empty for anywhere in the pool.
    selector : mapping of str to str
        Labels of the pool's nodes.
    unmetered : collection of str
        Extended resources that a pod may have although they are not sold.
    """

    reservation: str
    pool: str
    user: str
    end: datetime
    seconds: int
    resources: Mapping[str, str]
    gpu: str
    node: str = ""
    selector: Mapping[str, str] = field(default_factory=dict)
    unmetered: frozenset[str] = frozenset()

    @property
    def labels(self) -> dict[str, str]:
        """By which everybody tells the market's pods from others."""
        return {
            f"{PREFIX}reservation": self.reservation,
            f"{PREFIX}pool": self.pool,
            f"{PREFIX}kind": "notebook",
        }

    @property
    def annotations(self) -> dict[str, str]:
        """What would not fit a label."""
        end = self.end.astimezone(UTC).isoformat(timespec="seconds")
        return {f"{PREFIX}user": self.user, f"{PREFIX}end": end}


def quantity(value: object) -> Fraction:
    """The exact number that a quantity such as ``500m`` or ``6Gi`` stands for.

    The engine reads quantities too; it would bring NumPy into the hub's process.

    Raises
    ------
    ValueError
        If it is no quantity.
    """
    match = None if isinstance(value, bool) else _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a quantity")
    number, suffix = Fraction(match["number"]), match["suffix"] or ""
    if match["exponent"]:
        return number * Fraction(10) ** int(match["exponent"])
    if suffix.endswith("i"):
        return number * 1024 ** _POWERS[suffix[0].replace("K", "k")]
    return number * Fraction(1000) ** _POWERS[suffix]


def reserved(reservation: Reservation, gpu: str) -> dict[str, str]:
    """What a reservation's pod may have; its GPUs are always among it."""
    resources = dict(reservation.resources)
    if reservation.count > 1:
        for name, text in resources.items():
            milli = quantity(text) * reservation.count * 1000
            resources[name] = f"{int(milli)}m" if milli % 1000 else str(int(milli / 1000))
    resources[gpu] = str(reservation.units)
    return resources


def is_extended(name: str) -> bool:
    """Whether it is a device that some plug-in counts: a GPU, a part of one, or alike."""
    domain, slash, _ = name.partition("/")
    return bool(slash) and not f".{domain}".endswith(".kubernetes.io")


def on_node(terms: Sequence[Mapping[str, Any]], node: str) -> list[dict[str, Any]]:
    """The terms of a required node affinity, each of which allows nothing but one node.

    One of the terms is enough for the scheduler, so each has to say it.
    """
    here = {"key": NODE_NAME, "operator": "In", "values": [node]}
    pinned = []
    for term in terms or [{}]:
        mine = dict(term)
        # Both ways of writing it are understood by KubeSpawner.
        fields = mine.pop("match_fields", None) or mine.pop("matchFields", None) or ()
        pinned.append({**mine, "matchFields": [*fields, here]})
    return pinned


def demand(container: Manifest) -> dict[str, Fraction]:
    """What one container takes of each resource: the greater of request and limit.

    Raises
    ------
    ValueError
        If a quantity is none, or below zero.
    """
    resources = container.get("resources") or {}
    found: dict[str, Fraction] = {}
    for kind in ("requests", "limits"):
        for name, value in (resources.get(kind) or {}).items():
            number = quantity(value)
            if number < 0:
                raise ValueError(f"{value!r} is not a quantity")
            found[name] = max(found.get(name, number), number)
    return found


def total(spec: Manifest) -> dict[str, Fraction]:
    """What a whole pod takes of each resource, as Kubernetes counts.

    Containers run together, and with those init containers that go on running. Before
    them the other init containers run one by one.
    """
    together = _sum(demand(each) for each in spec.get("containers") or ())
    staying: dict[str, Fraction] = {}
    before: dict[str, Fraction] = {}
    for container in spec.get("initContainers") or ():
        mine = _sum([staying, demand(container)])
        before = _greatest([before, mine])
        if container.get("restartPolicy") == "Always":
            staying = mine
    whole = _greatest([before, _sum([together, staying])])
    whole = _sum([whole, demand({"resources": {"requests": spec.get("overhead")}})])
    return _greatest([whole, demand(spec)])


def _sum(amounts: Iterable[Mapping[str, Fraction]]) -> dict[str, Fraction]:
    found: dict[str, Fraction] = {}
    for each in amounts:
        for name, number in each.items():
            found[name] = found.get(name, Fraction(0)) + number
    return found


def _greatest(amounts: Iterable[Mapping[str, Fraction]]) -> dict[str, Fraction]:
    found: dict[str, Fraction] = {}
    for each in amounts:
        for name, number in each.items():
            found[name] = max(found.get(name, number), number)
    return found


def has_gpus(container: Manifest, gpu: str) -> bool:
    """Whether a container is given GPUs, of which a device plug-in then tells it."""
    names = [name for name, number in demand(container).items() if number]
    return any(name == gpu or name.startswith("nvidia.com/") for name in names)


def is_open(container: Manifest, gpu: str) -> bool:
    """Whether a container without GPUs could see some, because images made for CUDA ask so."""
    try:
        return not _switches(container) and not has_gpus(container, gpu)
    except ValueError:
        # `problems` says what is wrong with it.
        return False


def _switches(container: Manifest) -> list[Manifest]:
    return [each for each in container.get("env") or () if each.get("name") == SWITCH]


def problems(pod: Manifest, terms: Terms) -> list[str]:
    """Why a pod must not be created, each reason in words; none if it may be."""
    spec = pod.get("spec") or {}
    try:
        return [
            *_marks(pod.get("metadata") or {}, terms),
            *_place(spec, terms),
            *_amounts(spec, terms),
            *_devices(spec, terms),
            *_deadline(spec, terms),
        ]
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # Whatever can't be read can't be vouched for.
        return [f"it can't be understood ({error})"]


def _marks(metadata: Manifest, terms: Terms) -> Iterator[str]:
    given = metadata.get("labels") or {}
    for name, value in terms.labels.items():
        if given.get(name) != value:
            yield f"its label {name} is {given.get(name)!r}, not {value!r}"


def _place(spec: Manifest, terms: Terms) -> Iterator[str]:
    if spec.get("nodeName"):
        yield f"it names the node {spec['nodeName']} itself, past the scheduler"
    selector = spec.get("nodeSelector") or {}
    for name, value in terms.selector.items():
        if selector.get(name) != value:
            yield f"its node selector lacks {name}={value}, the mark of the pool"
    if terms.node and not _is_pinned(spec, terms.node):
        yield f"its node affinity lets it run elsewhere than on its reserved node {terms.node}"


def _is_pinned(spec: Manifest, node: str) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or []
    here = {"key": NODE_NAME, "operator": "In", "values": [node]}
    return bool(terms) and all(here in (term.get("matchFields") or ()) for term in terms)


def _amounts(spec: Manifest, terms: Terms) -> Iterator[str]:
    allowed = {name: quantity(text) for name, text in terms.resources.items()}
    for name, number in sorted(total(spec).items()):
        if name in allowed and number > allowed[name]:
            much = terms.resources[name]
            yield f"it takes {_text(number)} of {name}, and its reservation has {much}"
        elif name not in allowed and number and is_extended(name) and name not in terms.unmetered:
            yield f"it takes {_text(number)} of {name}, which its reservation does not have"
    containers = spec.get("containers") or [{}]
    limits = (containers[0].get("resources") or {}).get("limits") or {}
    for name in terms.resources:
        if name not in limits:
            yield f"its first container has no limit for {name}"


def _text(number: Fraction) -> str:
    return str(int(number)) if number.denominator == 1 else f"{float(number):g}"


def _containers(spec: Manifest) -> list[Manifest]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _devices(spec: Manifest, terms: Terms) -> Iterator[str]:
    """Ways to GPUs other than to be given them."""
    claims = [spec, *(each.get("resources") or {} for each in _containers(spec))]
    if any(each.get("resourceClaims") or each.get("claims") for each in claims):
        yield "it claims devices (resourceClaims), which reservations do not have"
    if spec.get("ephemeralContainers"):
        yield "it has ephemeral containers"
    for container in _containers(spec):
        values = _switches(container)
        hidden = [each.get("value") in HIDDEN for each in values]
        if values if has_gpus(container, terms.gpu) else not (hidden and all(hidden)):
            yield f"its container {container.get('name')} has {SWITCH} set in a way of its own"


def _deadline(spec: Manifest, terms: Terms) -> Iterator[str]:
    seconds = spec.get("activeDeadlineSeconds")
    if not isinstance(seconds, int) or not 0 < seconds <= terms.seconds:
        yield f"its activeDeadlineSeconds is {seconds}, not {terms.seconds}"


def is_stranded(pod: Manifest) -> bool:
    """Whether a pod's node is lost, so that nobody will say when its containers have ended.

    The control plane then takes the pod's readiness away, but can't know of its containers,
    which go on being listed as ready. A kubelet that is alive never says both at once.
    """
    if (pod.get("spec") or {}).get("readinessGates"):
        # Then it may be a controller that says it is not ready.
        return False
    status = pod.get("status") or {}
    ready = [each.get("status") for each in status.get("conditions") or () if _is_ready(each)]
    containers = status.get("containerStatuses") or ()
    return ready == ["False"] and bool(containers) and all(each["ready"] for each in containers)


def _is_ready(condition: Manifest) -> bool:
    return condition.get("type") == "Ready"
