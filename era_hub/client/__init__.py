"""What callers of the service share: HTTP clients, errors and browser code.

Spawners and the notebook extension import from era_hub only this package and
:mod:`era_hub.models`.
"""

from .calls import EraError
from .http import AsyncEraClient, EraClient, discover
from .scripts import SHARED, bundle, shared_scripts

__all__ = [
    "SHARED",
    "AsyncEraClient",
    "EraClient",
    "EraError",
    "bundle",
    "discover",
    "shared_scripts",
]
