"""What all tests share: a browser for those that are marked ``browser``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.running_hub import FAST, RunningHub

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The path of Chromium: ``ERA_CHROMIUM``, or what is on PATH."""
    named = os.environ.get("ERA_CHROMIUM")
    candidates = (named,) if named else BROWSERS
    return next((path for path in map(shutil.which, candidates) if path), None)


def require_chromium() -> str:
    """The path of Chromium. Without one: skip, or fail under continuous integration."""
    path = find_chromium()
    if path:
        return path
    reason = f"no Chromium: set ERA_CHROMIUM, or install one of {', '.join(BROWSERS)}"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{reason} (required where CI is set)", pytrace=False)
    pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser"):
        require_chromium()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium, for Playwright's ``executable_path``."""
    return require_chromium()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A real hub with the market, 8 simulated GPUs and slots of ten seconds."""
    folder = tmp_path_factory.mktemp("hub")
    with RunningHub(folder, options=FAST) as running:
        yield running
