"""Names for the two kinds of array the engine computes with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
"""Times, slots, units and money: always 64-bit integers."""

FloatArray = npt.NDArray[np.float64]
"""Predicted demand and prices before they are rounded to money."""


def rounded_up(amounts: FloatArray) -> IntArray:
    """Amounts rounded up to integers, but for the error of floating point.

    Rounding up keeps what a sum costs at or below the sum of what its parts cost.
    """
    return np.ceil(np.round(amounts, 6)).astype(np.int64)
