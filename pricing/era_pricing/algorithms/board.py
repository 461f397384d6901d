"""The prices that bid-price has posted, what they were worked out for, and how they are kept."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from era_pricing.algorithms.base import Outlook
from era_pricing.algorithms.worth import Worth
from era_pricing.arrays import FloatArray, IntArray
from era_pricing.timegrid import DAY

_FORMAT = 1
"""Raise it when boards mean something else than before: old ones are then left aside."""

_REMEMBERED = 0.9
"""Share of what bookings were ahead by that still counts at the next solution."""


@dataclass(frozen=True, eq=False)
class Room:
    """Mean units, in slots of `step` seconds from `first` on, that are not promised for good."""

    step: int
    first: int
    free: FloatArray

    @classmethod
    def of(cls, outlook: Outlook, step: int, most: int) -> Self:
        """At most `most` slots; of the running one only what is left of it."""
        per = step // outlook.grid.slot
        first = outlook.now // step
        gone = outlook.first - first * per
        count = min(most, -(-(len(outlook.capacity) + gone) // per))
        left = np.maximum(outlook.capacity - outlook.firm, 0)[: count * per - gone]
        free = np.zeros(count * per)
        free[gone : gone + len(left)] = left
        return cls(step, first, free.reshape(count, per).mean(axis=1))

    @property
    def end(self) -> int:
        """UTC seconds."""
        return (self.first + len(self.free)) * self.step


@dataclass(frozen=True, eq=False)
class Board:
    """The prices posted, by slot of `step` seconds from `first` on, micro-credits per hour.

    Parameters
    ----------
    step, first
        Seconds, and the absolute index of the first slot.
    duals, posted : FloatArray
        As solved, and as corrected by bookings ahead or behind.
    highest : float
        Most that a unit costs.
    stiffness
        How little demand gives way to dearer prices, 1 for widely spread values: prices
        rise in proportion as units are promised.
    ahead, soon : FloatArray
        By what share of the capacity bookings are ahead of those foreseen, and the
        units foreseen to be booked before the next solution.
    since, slot, promised_then : int, int, IntArray
        What was promised when it was posted, by slots of the pool of `slot` seconds, the
        first of which begins at `since`, UTC seconds.
    sizes, worth : float, Worth or None
        How much the sizes of requests matter, 0 to 1, and what they make units worth.
    """

    step: int
    first: int
    duals: FloatArray
    posted: FloatArray
    highest: float
    stiffness: float
    ahead: FloatArray
    soon: FloatArray
    since: int
    slot: int
    promised_then: IntArray
    sizes: float = 0.0
    worth: Worth | None = None

    def of_slots(self, prices: FloatArray, index: IntArray) -> FloatArray:
        """Prices of slots by absolute index; beyond the last ones those of the last day again."""
        return prices[self.rows(index, len(prices))]

    def rows(self, index: IntArray, n: int) -> IntArray:
        """Where slots are, by absolute index, in a list of n that begins with `first`."""
        day = max(min(DAY // self.step, n), 1)
        at = np.maximum(index - self.first, 0)
        return np.where(at < n, at, n - day + (at - n) % day)

    def promised(self, times: IntArray) -> IntArray:
        """Units promised at these times, UTC seconds, that the prices take into account."""
        units = np.zeros(len(times), dtype=np.int64)
        at = (times - self.since) // self.slot
        known = (at >= 0) & (at < len(self.promised_then))
        units[known] = self.promised_then[at[known]]
        return units

    def ahead_by(self, index: IntArray, outlook: Outlook) -> FloatArray:
        """`ahead` for the next board, which has the slots of these absolute indices."""
        slot = outlook.grid.slot
        per = self.step // slot
        slots = np.arange(index[0] * per, (index[-1] + 1) * per)
        at = np.clip(slots - outlook.first, 0, len(outlook.promised) - 1)
        booked = (outlook.promised[at] - self.promised(slots * slot)).reshape(-1, per).mean(axis=1)
        capacity = np.maximum(outlook.capacity[at].reshape(-1, per).mean(axis=1), 1)
        # What came into view since has no past.
        row = index - self.first
        seen = row < len(self.soon)
        row = np.where(seen, row, 0)
        surplus = _REMEMBERED * self.ahead[row] + (booked - self.soon[row]) / capacity
        return np.where(seen, surplus, 0.0)


def pack(boards: Mapping[str, Board], kind: str) -> bytes:
    """Boards by resource as a file of NumPy arrays; `kind` says who can go on from them."""
    arrays: dict[str, Any] = {"kind": f"{_FORMAT} {kind}", "resources": list(boards)}
    for number, board in enumerate(boards.values()):
        for name in _PLAIN:
            arrays[f"{number}.{name}"] = getattr(board, name)
        if board.worth is not None:
            arrays[f"{number}.table"] = board.worth.table
            arrays[f"{number}.portion"] = board.worth.portion
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def unpack(state: bytes, kind: str) -> dict[str, Board]:
    """The boards of `pack`; none if the state is of another kind, or not to be read."""
    try:
        with np.load(io.BytesIO(state), allow_pickle=False) as file:
            if str(file["kind"]) != f"{_FORMAT} {kind}":
                return {}
            names = file["resources"].tolist()
            return {name: _unpacked(file, number) for number, name in enumerate(names)}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return {}


_PLAIN = tuple(each.name for each in fields(Board) if each.name != "worth")


def _unpacked(file: Mapping[str, Any], number: int) -> Board:
    found = {name: file[f"{number}.{name}"] for name in _PLAIN}
    plain = {name: each if each.ndim else each.item() for name, each in found.items()}
    if f"{number}.table" not in file:
        return Board(**plain)
    worth = Worth(file[f"{number}.table"], file[f"{number}.portion"].item())
    return Board(**plain, worth=worth)
