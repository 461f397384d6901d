"""Pairs of strings that are looked up together: users and their servers, callers and their keys.

With ``(a, b) IN (...)`` SQLite reads the whole table; joined to a list, it takes the index.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import CTE, String, bindparam, column, values


def wanted(count: int) -> CTE:
    """A list of so many pairs to join, with the columns `first` and `second`."""
    rows = [
        tuple(bindparam(f"{name}_{row}", type_=String) for name in ("first", "second"))
        for row in range(count)
    ]
    columns = (column("first", String), column("second", String))
    return values(*columns, name="wanted").data(rows).cte("wanted")


def parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The pairs, for a statement with a list of as many."""
    found = {}
    for row, (first, second) in enumerate(pairs):
        found[f"first_{row}"], found[f"second_{row}"] = first, second
    return found
