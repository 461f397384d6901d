"""Finding the spans that lie where another one does, without going through all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from era_pricing.plan import Span


def overlap(one: Span, other: Span) -> bool:
    """Whether two spans share a slot of a node."""
    if one.end <= other.first or other.end <= one.first:
        return False
    if len(one.loads) == len(other.loads) == 1:
        return one.loads[0][0] == other.loads[0][0]
    nodes = {node for node, _ in one.loads}
    return any(node in nodes for node, _ in other.loads)


class Nearby:
    """Keys by where their spans lie in time.

    Notes
    -----
    A span of up to 2**k slots is in the one or two cells of 2**k slots that it touches.
    So there are a few cells to look at for each k, and what is in them is near.
    """

    def __init__(self) -> None:
        self._cells: dict[int, dict[int, dict[str, None]]] = {}

    def copy(self) -> Nearby:
        """The same, to be changed by itself."""
        other = Nearby()
        for level, cells in self._cells.items():
            other._cells[level] = {cell: dict(keys) for cell, keys in cells.items()}
        return other

    def add(self, key: str, span: Span) -> None:
        """Note down a span."""
        level, low, high = _place(span)
        cells = self._cells.setdefault(level, {})
        for cell in range(low, high + 1):
            cells.setdefault(cell, {})[key] = None

    def remove(self, key: str, span: Span) -> None:
        """Forget a span."""
        level, low, high = _place(span)
        cells = self._cells[level]
        for cell in range(low, high + 1):
            keys = cells.get(cell)
            if keys is not None:
                keys.pop(key, None)
                if not keys:
                    del cells[cell]

    def cells(self, span: Span) -> Iterator[Iterable[str]]:
        """Keys of all spans that may overlap with this one, cell by cell; some come twice."""
        for level, cells in self._cells.items():
            low, high = span.first >> level, (span.end - 1) >> level
            if high - low < len(cells):
                for cell in range(low, high + 1):
                    keys = cells.get(cell)
                    if keys:
                        yield keys
            else:
                for cell, keys in cells.items():
                    if low <= cell <= high:
                        yield keys


def _place(span: Span) -> tuple[int, int, int]:
    """Level, and the first and last cell."""
    level = max(span.end - span.first - 1, 0).bit_length()
    return level, span.first >> level, (span.end - 1) >> level
