"""The nodes of the cluster: what they offer, and which of them are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from era_hub.clouds.base import Node
from era_hub.clouds.kubernetes.inventory import Rules, Usage, belongs, offer
from era_hub.clouds.kubernetes.views import NodeView


class Machines:
    """Nodes by name. A name is ``in`` it while its node is lost: gone, or unwell for too long.

    Parameters
    ----------
    rules : Rules
    usage : Usage
    patience : float
        Seconds for which a node may be unwell: nothing starts on it, and nothing is lost.
    stir : callable
        Called with the name of a node of which something has changed.
    """

    def __init__(
        self, rules: Rules, usage: Usage, patience: float, stir: Callable[[str], None]
    ) -> None:
        self.rules = rules
        self.usage = usage
        self.patience = patience
        self.stir = stir
        self._nodes: dict[str, NodeView] = {}
        self._unwell: dict[str, float] = {}
        self._offers: dict[str, Node] = {}  # made before, and still right

    def __contains__(self, name: object) -> bool:
        return bool(name) and (name not in self._nodes or self._lost(str(name)))

    def _lost(self, name: str) -> bool:
        since = self._unwell.get(name)
        now = asyncio.get_running_loop().time()
        return since is not None and now - since >= self.patience

    def refresh(self, name: str) -> None:
        """Something about a node has changed, or what its pods take."""
        self._offers.pop(name, None)
        self.stir(name)

    def seen(self, old: NodeView | None, new: NodeView | None) -> None:
        """A node has come, changed or gone."""
        node = new or old
        assert node is not None
        if new is None:
            self._nodes.pop(node.name, None)
            self._unwell.pop(node.name, None)
        else:
            self._nodes[node.name] = new
            self._watch_over(new)
        self.refresh(node.name)

    def _watch_over(self, node: NodeView) -> None:
        if node.ready:
            self._unwell.pop(node.name, None)
        elif node.name not in self._unwell:
            loop = asyncio.get_running_loop()
            self._unwell[node.name] = loop.time()
            # Nothing else tells that its time is over.
            loop.call_later(self.patience + 0.1, self.refresh, node.name)

    def offers(self) -> tuple[Node, ...]:
        """The nodes of the pool that are not lost, by name."""
        return tuple(
            self._offers.get(name) or self._offer(node)
            for name, node in sorted(self._nodes.items())
            if belongs(node, self.rules) and not self._lost(name)
        )

    def _offer(self, node: NodeView) -> Node:
        well = node.name not in self._unwell
        made = offer(node, self.usage.of(node.name), self.rules, well=well)
        self._offers[node.name] = made
        return made
