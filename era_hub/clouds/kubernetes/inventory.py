"""What the market may sell of each node."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from era_hub.clouds.base import Node
from era_hub.clouds.kubernetes.api import Json
from era_hub.clouds.kubernetes.views import NodeView, PodView, Units


@dataclass(frozen=True)
class Rules:
    """Which nodes make up a pool, and what of them is ERA's.

    Attributes
    ----------
    pool : str
        Pods with this label are ERA's own.
    selector : mapping
        Labels that the nodes of the pool have.
    share : float
        ERA's part of each node, in (0, 1].
    preemptible : bool
        Whether ERA owns nothing for good: the share is then one of what others leave.
    tolerations : sequence
        As in a pod: taints that don't keep ERA's pods away.
    """

    pool: str
    selector: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    preemptible: bool = False
    tolerations: tuple[Json, ...] = ()


class Usage:
    """What the pods of other tenants take of each node, kept up to date by differences."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self._taken: dict[str, dict[str, int]] = {}

    def seen(self, old: PodView | None, new: PodView | None) -> bool:
        """A pod has come, changed or gone; returns whether that makes a difference."""
        before, after = self._counts(old), self._counts(new)
        if before == after:
            return False
        for (node, units), sign in ((before, -1), (after, 1)):
            taken = self._taken.setdefault(node, {})
            for name, amount in units.items():
                taken[name] = taken.get(name, 0) + sign * amount
        return True

    def of(self, node: str) -> Units:
        """What is taken of a node."""
        return self._taken.get(node, {})

    def _counts(self, pod: PodView | None) -> tuple[str, Units]:
        if pod is None or pod.finished or not pod.node or pod.pool == self.pool:
            return "", {}
        return pod.node, pod.requests


def belongs(node: NodeView, rules: Rules) -> bool:
    """Whether a node is one of the pool."""
    return all(node.labels.get(key) == value for key, value in rules.selector.items())


def sold(resource: str) -> bool:
    """Whether a resource of nodes is counted: CPU, memory, and devices of all kinds."""
    return resource in ("cpu", "memory") or (
        "/" in resource and not resource.startswith("attachable-volumes")
    )


def sellable(node: NodeView, taken: Units, rules: Rules) -> dict[str, int]:
    """What the market may sell of a node, in base units.

    With a share that is owned, others' pods count only where they take more than the rest.
    """
    found = {}
    share = Fraction(str(rules.share))
    for name, there in node.allocatable.items():
        if sold(name):
            left = max(0, there - taken.get(name, 0))
            part = left if rules.preemptible else there
            found[name] = min(left, math.floor(part * share))
    return found


def is_open(node: NodeView, rules: Rules) -> bool:
    """Whether a pod of ERA's may start on a node."""
    if node.unschedulable or node.deleting:
        return False
    return all(
        effect == "PreferNoSchedule" or _tolerated((key, value, effect), rules.tolerations)
        for key, value, effect in node.taints
    )


def _tolerated(taint: tuple[str, str, str], tolerations: Iterable[Json]) -> bool:
    key, value, effect = taint
    for each in tolerations:
        same_effect = each.get("effect") in (None, "", effect)
        exists = each.get("operator") == "Exists"
        same_key = each.get("key") == key or (exists and not each.get("key"))
        if same_effect and same_key and (exists or (each.get("value") or "") == value):
            return True
    return False


def offer(node: NodeView, taken: Units, rules: Rules, *, well: bool = True) -> Node:
    """A node as the market sees it; one that is not well may not start anything."""
    resources = {name: write(name, n) for name, n in sellable(node, taken, rules).items()}
    return Node(node.name, resources, open=well and is_open(node, rules))


def write(resource: str, amount: int) -> str:
    """A quantity in Kubernetes notation."""
    if resource == "cpu" and amount % 1000:
        return f"{amount}m"
    return str(amount // 1000 if resource == "cpu" else amount)
