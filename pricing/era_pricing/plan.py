"""The plan: who is promised how many units in which slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from era_pricing.arrays import IntArray


@dataclass(frozen=True)
class Span:
    """`units` units in the slots first, ..., end - 1."""

    first: int
    end: int
    units: int


class Plan:
    """Units promised per slot, in a window of slots that moves with time.

    Parameters
    ----------
    size
        Slots to keep from the running one on. The window grows only while a
        span reaches beyond it.

    Notes
    -----
    `promised` is derived from the spans: adding the same spans to an empty plan
    that was advanced as far gives an equal plan.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._base = 0
        self._promised: IntArray = np.zeros(size, dtype=np.int64)
        self._spans: dict[str, Span] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._spans

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return (
            self._base == other._base
            and self._spans == other._spans
            and np.array_equal(self._promised, other._promised)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def base(self) -> int:
        """The first slot that is kept."""
        return self._base

    @property
    def length(self) -> int:
        """Number of slots that are kept."""
        return len(self._promised)

    @property
    def spans(self) -> Mapping[str, Span]:
        """The spans by key, oldest first."""
        return self._spans

    def advance(self, slot: int) -> None:
        """Drop the slots before `slot`, and the spans that end by then."""
        if slot <= self._base:
            return
        self._spans = {key: span for key, span in self._spans.items() if span.end > slot}
        reach = max((span.end - slot for span in self._spans.values()), default=0)
        promised = np.zeros(max(self._size, reach), dtype=np.int64)
        kept = self._promised[slot - self._base :][: len(promised)]
        promised[: len(kept)] = kept
        self._base, self._promised = slot, promised

    def promised(self, first: int, count: int) -> IntArray:
        """Units promised in each of `count` slots from `first` on.

        Slots outside the window have no promises.
        """
        out = np.zeros(count, dtype=np.int64)
        low = max(first, self._base)
        high = min(first + count, self._base + len(self._promised))
        if low < high:
            out[low - first : high - first] = self._promised[low - self._base : high - self._base]
        return out

    def add(self, key: str, span: Span) -> None:
        """Promise a span; `key` must be new."""
        if key in self._spans:
            raise KeyError(key)
        missing = span.end - self._base - len(self._promised)
        if missing > 0:
            self._promised = np.concatenate((self._promised, np.zeros(missing, dtype=np.int64)))
        self._spans[key] = span
        self._count(span.first, span.end, span.units)

    def remove(self, key: str) -> None:
        """Take a promise back as if it had never been made."""
        span = self._spans.pop(key)
        self._count(span.first, span.end, -span.units)

    def shed(self, capacity: IntArray, order: Sequence[str]) -> list[str]:
        """Drop spans where more is promised than there is.

        Parameters
        ----------
        capacity : IntArray, shape (length,)
            Units per slot kept, from `base` on.
        order
            Keys of the promises that bind, those to keep first in front. Other
            spans in the way go first.

        Returns
        -------
        list of str
            The keys in `order` that were dropped. Each of them would not fit
            besides what is kept.
        """
        lost = self._promised > capacity
        hit = {
            key: span
            for key, span in self._spans.items()
            if lost[max(span.first - self._base, 0) : span.end - self._base].any()
        }
        for key in hit:
            self.remove(key)
        dropped = []
        for key in order:
            if key not in hit:
                continue
            span = hit[key]
            part = slice(max(span.first - self._base, 0), span.end - self._base)
            if (self._promised[part] + span.units <= capacity[part]).all():
                self.add(key, span)
            else:
                dropped.append(key)
        return dropped

    def _count(self, first: int, end: int, units: int) -> None:
        low, high = max(first - self._base, 0), max(end - self._base, 0)
        self._promised[low:high] += units
