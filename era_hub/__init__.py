"""ERA Hub: a market for GPU time inside JupyterHub.

``import era_hub`` is light: it pulls in neither a database nor a web server, so
that notebooks can use :mod:`era_hub.client` and :mod:`era_hub.models`.
"""

from ._version import __version__
from .wiring import setup

__all__ = ["__version__", "setup"]
