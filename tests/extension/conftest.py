"""Fixtures of the notebook side: a service, and an environment that leads to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.extension.fake_service import TOKEN, FakeService


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """A service on loopback; ERA_URL and ERA_TOKEN lead to it."""
    fake = FakeService()
    monkeypatch.setenv("ERA_URL", fake.url)
    monkeypatch.setenv("ERA_TOKEN", TOKEN)
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between looks take no time; returns those asked for."""
    from era_extension import AsyncEra, Era

    pauses: list[float] = []

    async def soon(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(Era, "_pause", lambda _, seconds: pauses.append(seconds))
    monkeypatch.setattr(AsyncEra, "_pause", lambda _, seconds: soon(seconds))
    return pauses
