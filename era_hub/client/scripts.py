"""Browser code that the spawn page, the widget and the service's pages share.

Pages of the service load these modules as they are. The spawn page and the widget take
one text each, so their modules are joined here, without a build step.
"""

from __future__ import annotations

import re
from importlib.resources import files

SHARED = ("market.js", "svg.js", "chart.js")

_IMPORT = re.compile(r"^import\s[^;]*?\sfrom\s+\"\.[^\"]*\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export\s+((?:async\s+)?(?:function|const|class)\s+(\w+))", re.MULTILINE)


def shared_scripts() -> tuple[str, ...]:
    """Sources of the ES modules that all pages share, each after those it imports from.

    ``market.js`` exports ``cheapestStart`` (the engine's choice of start, from embedded
    slot prices), ``formatCredits``, ``formatTime`` and ``formatForInput``; ``svg.js`` the
    elements of charts; ``chart.js`` exports ``priceChart``, a chart of prices over time.
    """
    folder = files(__package__)
    return tuple(folder.joinpath(name).read_text(encoding="utf-8") for name in SHARED)


def bundle(main: str, *parts: str) -> str:
    """One ES module of several.

    Parameters
    ----------
    main : str
        Source of the module that uses the others.
    parts : str
        Sources of the others, each after those it imports from. They may export
        functions, constants and classes where these are declared, and import from
        each other by relative paths.

    Returns
    -------
    str
        `main` after its parts, of which it sees the exports alone.
    """
    return "".join(map(_scoped, parts)) + _IMPORT.sub("", main)


def _scoped(module: str) -> str:
    """A module as a function called once, whose exports become constants."""
    names = ", ".join(match[2] for match in _EXPORT.finditer(module))
    body = _EXPORT.sub(r"\1", _IMPORT.sub("", module))
    return f"const {{ {names} }} = (() => {{\n{body}return {{ {names} }};\n}})();\n"
