"""How much of the omniscient bound the best policy has that doesn't know the future."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

import click
import numpy as np
from scipy.special import ndtr

from era_pricing.algorithms import BasicEcon, BidPrice
from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors import LP, Prior
from era_pricing.simulator.commands.terminal import show
from era_pricing.simulator.metrics import omniscient
from era_pricing.simulator.requests import Requests
from era_pricing.simulator.scenario import MONDAY, Cycle
from era_pricing.timegrid import DAY, HOUR
from era_pricing.workload import Workload

# The market is that of the benchmark beside this one, wherever both are called from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shapes import CAPACITY, SLOT, TOLERANCE, OraclePrices, served_by

TURN: Final = 4 * HOUR
"""Jobs begin every four hours,"""

LAST: Final = 3
"""and take three times that."""

LOAD: Final = 2.0
CYCLE: Final = Cycle(daily=0.8, weekly=0)
PAST: Final = 14
LOOKS: Final = 8
"""Times in a turn for which the optimal policy's prices are kept."""

CHANCE: Final = 0.1
"""Greatest probability that a request comes in one step of the recursion."""

SIZES: Final[Mapping[str, Mapping[int, float]]] = {
    "small": {1: 0.5, 2: 0.2, 4: 0.2, 8: 0.1},
    "large": {1: 0.4, 8: 0.3, 32: 0.3},
}
"""Shares of the requests by units, as on the shapes `tight` and `large`."""


@dataclass(frozen=True)
class Setting:
    """Requests that cannot wait, all of the same duration.

    They come at any moment of a turn, each for the three turns after it. The value of a
    unit and hour is lognormal with median 1 and deviation 1 of its logarithm.
    """

    sizes: Mapping[int, float]
    days: int = 7

    def arrivals(self, turns: IntArray) -> FloatArray:
        """Requests expected in each turn, counted from a Monday."""
        middle = MONDAY + turns * TURN + TURN // 2
        mean = LOAD * CAPACITY / LAST / sum(units * share for units, share in self.sizes.items())
        return mean * CYCLE.factor(middle)

    @property
    def turns(self) -> int:
        """How many are played."""
        return self.days * DAY // TURN

    def draw(self, seed: int) -> tuple[Workload, Workload]:
        """The requests that are played, and those of the two weeks before."""
        random = np.random.default_rng(seed)
        before = PAST * DAY // TURN
        turns = np.arange(-before, self.turns)
        turn = np.repeat(turns, random.poisson(self.arrivals(turns)))
        submitted = MONDAY + turn * TURN + random.integers(0, TURN, len(turn))
        units = random.choice(list(self.sizes), len(turn), p=list(self.sizes.values()))
        arrival = MONDAY + (turn + 1) * TURN
        duration = np.full(len(turn), LAST * TURN)
        rate = random.lognormal(0.0, 1.0, len(turn))
        value = np.rint(1e6 * rate * units * (LAST * TURN / HOUR)).astype(np.int64)
        drawn = Workload(submitted, arrival, arrival + duration, units, duration, value).sorted()
        played = drawn.submitted >= MONDAY
        return drawn.select(played), drawn.select(~played)


class Optimum:
    """The policy with the greatest expected welfare, by dynamic programming.

    What is known at a moment are the units that began one turn ago, two turns ago, and
    those promised for the next turn; nothing else matters for what is still to come.
    Between two requests the expected welfare `W` still to come obeys

        dW(s) / dt = -rate * sum over sizes u of share_u * E max(0, value - (W(s) - W(s + u)))

    which is stepped back from the end. So the best that any mechanism can do is to post
    W(s) - W(s + u) as the price of u units; parts then cost what the whole does.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        n = CAPACITY + 1
        grid = np.indices((n, n, n)).reshape(3, -1)
        self._states = grid[:, grid.sum(axis=0) <= CAPACITY]
        self._index = np.full((n, n, n), -1, dtype=np.int64)
        self._index[tuple(self._states)] = np.arange(self._states.shape[1])
        # Where a state goes when a request is accepted, and when a turn begins.
        self._more: dict[int, tuple[IntArray, IntArray]] = {}
        for units in setting.sizes:
            rows = np.flatnonzero(self._states.sum(axis=0) + units <= CAPACITY)
            one, two, promised = self._states[:, rows]
            self._more[units] = rows, self._index[one, two, promised + units]
        one, _, promised = self._states
        self._next = self._index[promised, one, 0]
        self._prices = np.concatenate(([0.0], np.geomspace(1e-4, 1e3, 4000)))
        self._gains = surplus(self._prices)
        self._kept: list[FloatArray] = []
        self.welfare = self._solve()

    def price(self, look: int, one: int, two: int, promised: int, units: int) -> float:
        """Credits for so many units at a look, counted from the first."""
        worth, here = self._kept[look], self._index[one, two, promised]
        return float(worth[here] - worth[self._index[one, two, promised + units]])

    def _solve(self) -> float:
        setting = self._setting
        arrivals = setting.arrivals(np.arange(setting.turns))
        worth = np.zeros(self._states.shape[1])
        for turn in reversed(range(setting.turns)):
            worth = worth[self._next]
            steps = math.ceil(arrivals[turn] / LOOKS / CHANCE)
            for _ in range(LOOKS):
                for _ in range(steps):
                    worth = worth + arrivals[turn] / LOOKS / steps * self._gain(worth)
                self._kept.append(worth.astype(np.float32))
        self._kept.reverse()
        return float(worth[self._index[0, 0, 0]])

    def _gain(self, worth: FloatArray) -> FloatArray:
        """What the next request is expected to add, in each state."""
        gain = np.zeros(len(worth))
        for units, share in self._setting.sizes.items():
            rows, after = self._more[units]
            work = units * LAST * TURN / HOUR
            price = (worth[rows] - worth[after]) / work
            gain[rows] += share * work * np.interp(price, self._prices, self._gains)
        return gain

    def play(self, requests: Workload) -> float:
        """Welfare of the policy on a draw, credits."""
        one = two = promised = turn = 0
        welfare = 0
        for submitted, units, value in zip(
            requests.submitted.tolist(),
            requests.units.tolist(),
            requests.value.tolist(),
            strict=True,
        ):
            while turn < (submitted - MONDAY) // TURN:
                one, two, promised, turn = promised, one, 0, turn + 1
            if one + two + promised + units > CAPACITY:
                continue
            look = (submitted - MONDAY) * LOOKS // TURN
            if value / 1e6 >= self.price(look, one, two, promised, units):
                promised += units
                welfare += value
        return welfare / 1e6


def surplus(price: FloatArray) -> FloatArray:
    """Mean of max(0, value - price), for the value of a unit and hour."""
    safe = np.log(np.maximum(price, 1e-300))
    found: FloatArray = math.exp(0.5) * ndtr(1 - safe) - price * ndtr(-safe)
    return found


@dataclass(frozen=True)
class Row:
    """One setting; lists have a share of the bound for each seed.

    Attributes
    ----------
    ratios
        By mechanism, the optimal policy among them.
    """

    setting: str
    ratios: dict[str, list[float]]


def row_of(name: str, setting: Setting, seeds: range) -> Row:
    """Solve a setting, and play its draws."""
    optimum = Optimum(setting)
    ratios: dict[str, list[float]] = {
        "oracle prices": [],
        "optimum": [],
        "bid-price": [],
        "basic-econ": [],
    }
    for seed in seeds:
        played, past = setting.draw(seed)
        bound = omniscient(played, CAPACITY, SLOT, TOLERANCE)
        oracle = OraclePrices(bound.first_slot, bound.prices * (1e6 * HOUR / SLOT))
        learned = [LP(past, CAPACITY, SLOT, seed=seed) for _ in range(2)]
        requests = Requests(played)
        found = (
            served_by(oracle, Prior(1, 0.0), requests, past),
            optimum.play(played),
            served_by(BidPrice(seed=seed), learned[0], requests, past),
            served_by(BasicEcon(), learned[1], requests, past),
        )
        for each, welfare in zip(ratios, found, strict=True):
            ratios[each].append(welfare / bound.value)
    return Row(name, ratios)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="The first of them.")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 28))
@click.option(
    "--sizes", "names", multiple=True, type=click.Choice(list(SIZES)), help="Only these settings."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(seeds: int, seed: int, days: int, names: tuple[str, ...], as_json: bool) -> None:
    """Compare mechanisms with the best policy that doesn't know the future.

    The omniscient bound knows all requests beforehand. How much of it is out of reach for
    whoever does not? That can be computed where the state of the pool is small: 64 GPUs,
    requests for twice that with a daily cycle and lognormal values, none of which can
    wait, all for 12 hours that begin at the next of six moments of a day. The optimal
    policy knows the distribution that requests are drawn from; the mechanisms have two
    weeks of history. Its prices rise with what is promised and with the units asked for,
    so it is the best that could be posted, too. Two settings:

    \b
    small   1 to 8 GPUs, as on the shape `tight` of welfare.py
    large   1, 8 or 32 GPUs, as on the shape `large`

    Shares of the bound: means over the seeds ± standard errors.
    """
    chosen = range(seed, seed + seeds)
    rows = [row_of(name, Setting(SIZES[name], days), chosen) for name in names or SIZES]
    if as_json:
        where = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "cores": os.cpu_count(),
            "platform": platform.platform(),
        }
        click.echo(json.dumps({**where, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    head = ("", *rows[0].ratios)
    show(
        head,
        [(row.setting, *map(_spread, row.ratios.values())) for row in rows],
    )


def _spread(values: list[float]) -> str:
    error = f" ± {stdev(values) / math.sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{error}"


if __name__ == "__main__":
    main()
