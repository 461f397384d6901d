"""Demand from history, taken naively: each request in equal parts over its window."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from era_pricing.arrays import FloatArray
from era_pricing.predictors.history import History
from era_pricing.predictors.record import Pieces, spread_evenly
from era_pricing.workload import Workload


class Spread(History):
    """Demand as if every request used all of its window, equally thinly.

    The naive way to use a history, from M. Babaioff et al., "ERA: A Framework for
    Economic Resource Allocation for the Cloud", WWW'17 Companion, pp. 635-642. It
    takes flexible requests to be in the way at the busiest hour, from which they
    would make room, so it overrates peaks. Parameters as in `History`.
    """

    name: ClassVar[str] = "spread"

    def _cut(self, requests: Workload, weights: FloatArray) -> Iterable[Pieces]:
        return spread_evenly(requests, weights, self._slot, self.resolution)
