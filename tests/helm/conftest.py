"""A real Helm, without its command: `helm_python` is Helm's own library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import skip_or_fail

from .charts import CHART


def require_helm() -> Any:
    """Helm's library. Without it: skip, or fail under continuous integration."""
    try:
        import helm_python
    except ImportError:
        skip_or_fail("no Helm: helm-python-sdk is not installed, or not made for this machine")
    return helm_python


@pytest.fixture(scope="session")
def helm() -> Any:
    return require_helm()


@pytest.fixture(scope="session")
def chart(helm: Any) -> Iterator[Any]:
    """The chart, loaded as Helm does."""
    with helm.Chart.load(CHART) as loaded:
        yield loaded
