"""A small market over a real store, and its clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from era_hub.market import Market
from tests.era_hub.small_market import Clock, open_market


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def market(tmp_path: Path, clock: Clock) -> Iterator[Market]:
    opened = open_market(tmp_path, clock)
    yield opened
    opened.database.close()
