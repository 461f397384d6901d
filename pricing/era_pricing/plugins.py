"""Finding algorithms and predictors by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

T = TypeVar("T")


def find(group: str, name: str, base: type[T], builtin: Mapping[str, type[T]]) -> type[T]:
    """Look a plug-in class up.

    Parameters
    ----------
    group
        Entry-point group in which other distributions announce theirs.
    name
        Name of the plug-in.
    base
        Class it must derive from.
    builtin
        The classes that come with this package, by name; they take precedence.

    Raises
    ------
    ValueError
        If no plug-in has that name.
    TypeError
        If the one that has it does not derive from `base`.
    """
    if name in builtin:
        return builtin[name]
    others = {entry.name: entry for entry in entry_points(group=group)}
    if name not in others:
        known = ", ".join(sorted({*builtin, *others}))
        raise ValueError(f"{group} has no plug-in named {name!r}; known are {known}")
    found = others[name].load()
    if not (isinstance(found, type) and issubclass(found, base)):
        raise TypeError(f"{group} plug-in {name!r} must be a subclass of {base.__name__}")
    return found
