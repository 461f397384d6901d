"""Where requests run at given prices: in the cheapest slots of their windows."""

from __future__ import annotations

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.workload import Workload

_HALVINGS = 30


def allocate(
    windows: Workload, prices: FloatArray, width: float, first: int, resolution: int
) -> tuple[IntArray, IntArray, FloatArray]:
    """Part of each slot that each request takes at the dual prices: the cheapest ones.

    With u the part of a slot, ``u = (level - price) / width`` between 0 and the
    part of the slot inside the window; the level is where the parts add up to the
    slots needed. So slots that cost nearly the same share a request.

    Returns
    -------
    row, slot : IntArray, shape (k,)
        Request and absolute slot; only pairs with a part above 0.
    part : FloatArray, shape (k,)
    """
    begin = windows.arrival // resolution
    count = (windows.deadline - 1) // resolution - begin + 1
    starts = np.cumsum(count) - count
    row = np.repeat(np.arange(len(windows)), count)
    slot = np.arange(len(row)) - starts[row] + begin[row]
    inside = np.minimum((slot + 1) * resolution, windows.deadline[row])
    inside -= np.maximum(slot * resolution, windows.arrival[row])
    room = inside / resolution
    needed = windows.duration / resolution
    scaled = prices[slot - first] / width
    low = np.minimum.reduceat(scaled, starts)
    high = np.maximum.reduceat(scaled, starts) + 1
    for _ in range(_HALVINGS):
        level = (low + high) / 2
        taken = np.add.reduceat(room * np.clip(level[row] - scaled, 0, 1), starts)
        enough = taken >= needed
        high = np.where(enough, level, high)
        low = np.where(enough, low, level)
    part = room * np.clip(high[row] - scaled, 0, 1)
    some = part > 1e-6
    return row[some], slot[some], part[some]
