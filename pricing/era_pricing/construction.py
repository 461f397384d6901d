"""Making plug-ins: what is known is matched to their parameters by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Final, TypeAlias, TypeVar

T = TypeVar("T")

HISTORY: Final = "history"
"""Parameter by which a plug-in asks for the requests of the past, as a `Workload`."""

GIVEN: Final = frozenset({HISTORY, "grid", "prior", "learned"})
"""Parameters that are objects, which no option can stand for."""

Facts: TypeAlias = Mapping[str, Callable[[], Any]]
"""What plug-ins may ask for by the names of their parameters; made when asked for."""


class MissingParameter(ValueError):
    """A plug-in needs something that is neither known nor given as an option.

    Attributes
    ----------
    name : str
        The parameter.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is missing")
        self.name = name


def parameters(plugin: type[Any]) -> dict[str, inspect.Parameter]:
    """What a plug-in's constructor takes by name, in order."""
    if plugin.__init__ is object.__init__:
        return {}
    found = inspect.signature(plugin).parameters
    collected = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: each for name, each in found.items() if each.kind not in collected}


def options_of(plugin: type[Any]) -> list[str]:
    """Names of the parameters that can be given as options, sorted."""
    return sorted(parameters(plugin).keys() - GIVEN)


def construct(plugin: type[T], facts: Facts, options: Mapping[str, Any]) -> T:
    """A plug-in with its options, and what it asks for of the facts.

    Parameters
    ----------
    plugin
        Its class.
    facts
        Passed where a parameter has that name; an option of the name wins.
    options
        Passed as they are.

    Raises
    ------
    MissingParameter
        If a parameter without a default is in neither of them; if several are, the
        history is named first, since no option can stand for it.
    ValueError, TypeError
        If an option is no number, or neither true nor false, where its parameter is
        annotated so, or if the plug-in refuses what it is given.
    """
    wanted = parameters(plugin)
    for name, option in options.items():
        if name in wanted:
            _check_kind(name, wanted[name].annotation, option)
    missing = [
        name
        for name, parameter in wanted.items()
        if parameter.default is inspect.Parameter.empty and name not in {*facts, *options}
    ]
    if missing:
        raise MissingParameter(HISTORY if HISTORY in missing else missing[0])
    given = {name: facts[name]() for name in wanted if name in facts and name not in options}
    return plugin(**given, **options)


def _check_kind(name: str, annotation: Any, option: Any) -> None:
    """Raise ValueError if an option has another type than a plain annotation asks for."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    kinds = {kind.strip() for kind in text.split("|")}
    plain = kinds - {"None"}
    if option is None and "None" in kinds:
        return
    if plain == {"bool"} and not isinstance(option, bool):
        raise ValueError(f"{name} must be true or false, got {option!r}")
    number = isinstance(option, Real) and not isinstance(option, bool)
    if plain and plain <= {"int", "float"} and not number:
        raise ValueError(f"{name} must be a number, got {option!r}")
