"""The market inside notebooks: sessions, the widget, the magic and the command line.

Jobs need no call to report progress: print a tqdm bar (to stderr, as tqdm does) and
the market shows it wherever the job is shown.

Examples
--------
>>> from era_extension import Era
>>> job = Era().submit("train.py", duration="30m", deadline="18:00", value=5)  # doctest: +SKIP

In a notebook, ``%load_ext era_extension`` brings the cell magic ``%%era_job``, and
``era_extension.Market()`` shows the market.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from era_hub.client import EraError

from .bids import Declined
from .jobs import AsyncJobHandle, JobHandle
from .session import AsyncEra, Era

if TYPE_CHECKING:
    from .widget import Market

__all__ = [
    "AsyncEra",
    "AsyncJobHandle",
    "Declined",
    "Era",
    "EraError",
    "JobHandle",
    "Market",
    "load_ipython_extension",
]


def __getattr__(name: str) -> Any:
    # The widget's libraries are an extra and slow to import; the command line and
    # scripts do without.
    if name == "Market":
        from .widget import Market

        return Market
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_ipython_extension(shell: Any) -> None:
    """Register ``%%era_job``; called by ``%load_ext era_extension``."""
    from .magic import register

    register(shell)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    # Jupyter alone calls this, so its server is there to import then.
    from .lab.server import EraExtension

    return [{"module": "era_extension.lab.server", "app": EraExtension}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    from .lab import LABEXTENSION

    return [{"src": "lab/labextension", "dest": LABEXTENSION}]
