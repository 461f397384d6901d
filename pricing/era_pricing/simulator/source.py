"""Where the requests of a comparison come from: a file, or a generator for each seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from era_pricing.simulator.generate import (
    PHILLY_SCENARIO,
    YAHOO_SCENARIO,
    philly_like,
    poisson,
    split,
    yahoo,
)
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.scenario import Scenario
from era_pricing.timegrid import DAY
from era_pricing.workload import Workload

KINDS: Final = ("poisson", "yahoo", "philly-like")
"""Names of the generators."""

_OTHER_SEED: Final = 1_000_003
"""Set apart the seeds of histories, where these are drawn separately."""


@dataclass(frozen=True)
class Drawn:
    """Requests drawn anew for each seed, with the past that came before them.

    Parameters
    ----------
    kind
        One of `KINDS`.
    capacity
        Units that `load` is relative to.
    load
        Unit-hours asked for, over those that there are. The kind "yahoo" has
        a fixed number of jobs instead.
    span, history_span
        Seconds of submissions to play, and before that.
    """

    kind: str
    capacity: int
    load: float = 2.0
    span: int = 7 * DAY
    history_span: int = 14 * DAY

    def draw(self, seed: int) -> tuple[Requests, Workload | None]:
        """The requests of a seed, and their history; None if it has no length.

        Raises
        ------
        WorkloadError
            If a parameter makes no sense.
        """
        if self.kind == "yahoo":
            return self._draw_yahoo(seed)
        philly = self.kind == "philly-like"
        base = PHILLY_SCENARIO if philly else Scenario(longest=2 * DAY)
        scenario = replace(
            base, capacity=self.capacity, load=self.load, span=self.span + self.history_span
        )
        drawn = philly_like(seed, scenario) if philly else poisson(seed, scenario)
        past, played = split(drawn, scenario.start + self.history_span)
        return Requests(played).sorted(), past if self.history_span else None

    def _draw_yahoo(self, seed: int) -> tuple[Requests, Workload | None]:
        scenario = replace(YAHOO_SCENARIO, capacity=self.capacity, span=self.span)
        played = Requests(yahoo(seed, scenario)).sorted()
        if not self.history_span:
            return played, None
        parts = []
        for back in range(1, -(-self.history_span // self.span) + 1):
            past = yahoo(seed + back * _OTHER_SEED, scenario).shifted(-back * self.span)
            parts.append(past)
        return played, Workload.concatenate(parts).sorted()


@dataclass(frozen=True, eq=False)
class Given:
    """The same requests for every seed; only the cloud differs."""

    requests: Requests
    history: Workload | None = None

    def draw(self, seed: int) -> tuple[Requests, Workload | None]:
        """The requests and their history."""
        return self.requests, self.history


Source = Drawn | Given
