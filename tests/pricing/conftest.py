"""What the tests of the engine share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from era_pricing import Era
from tests.pricing.small_pool import build


@pytest.fixture(scope="session")
def make_era() -> Callable[..., Era]:
    return build
