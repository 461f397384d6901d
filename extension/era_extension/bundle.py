"""The browser code of the widget as the one ES module that anywidget takes."""

from __future__ import annotations

import re
from importlib.resources import files

from era_hub.client import market_script

PARTS = ("dom.js", "bid_form.js", "job_list.js")
MAIN = "market_widget.js"

_IMPORT = re.compile(r"^import\s[^;]*?\sfrom\s+\"\.[^\"]*\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export\s+((?:async\s+)?(?:function|const|class)\s+(\w+))", re.MULTILINE)


def scoped(module: str) -> str:
    """A module as a function called once, whose exports become constants.

    The modules then share one file without sharing their private names.

    Examples
    --------
    >>> print(scoped("const a = 1;\\nexport function f() { return a; }\\n"))
    const { f } = (() => {
    const a = 1;
    function f() { return a; }
    return { f };
    })();
    <BLANKLINE>
    """
    names = ", ".join(match[2] for match in _EXPORT.finditer(module))
    body = _EXPORT.sub(r"\1", _IMPORT.sub("", module))
    return f"const {{ {names} }} = (() => {{\n{body}return {{ {names} }};\n}})();\n"


def script() -> str:
    """Source of the widget's module, with the market's own code inside."""
    parts = [market_script(), *(static(name) for name in PARTS)]
    return "".join(scoped(part) for part in parts) + _IMPORT.sub("", static(MAIN))


def static(name: str) -> str:
    """The text of a file that comes with this package."""
    return files(__package__).joinpath("static", name).read_text(encoding="utf-8")
