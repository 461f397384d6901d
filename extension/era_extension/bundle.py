"""The browser code of the widget as the one ES module that anywidget takes."""

from __future__ import annotations

from importlib.resources import files

from era_hub.client import bundle, shared_scripts

PARTS = ("dom.js", "bid_form.js", "job_list.js")
MAIN = "market_widget.js"


def script() -> str:
    """Source of the widget's module, with the market's own code inside."""
    return bundle(static(MAIN), *shared_scripts(), *map(static, PARTS))


def static(name: str) -> str:
    """The text of a file that comes with this package."""
    return files(__package__).joinpath("static", name).read_text(encoding="utf-8")
