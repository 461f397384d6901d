"""Names for the two kinds of array the engine computes with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
"""Times, slots, units and money: always 64-bit integers."""

FloatArray = npt.NDArray[np.float64]
"""Predicted demand and prices before they are rounded to money."""
