"""The small service, and spawners of every kind that go to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from kubernetes_asyncio.config import kube_config
from kubespawner.clients import load_config

from era_spawner.kube import EraKubeSpawner

from .kinds import KubeKind, LocalKind
from .service import Service
from .small_cluster import SmallCluster


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    one = Service()
    server = one.listen()
    yield one
    server.stop()
    await server.close_all_connections()


@pytest_asyncio.fixture
async def small_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SmallCluster]:
    cluster = SmallCluster()
    server, kubeconfig = cluster.listen(tmp_path)
    # It remembers the addresses it has been told, and would keep the last cluster's for a port
    # that an earlier one had.
    load_config.cache_clear()
    # KUBECONFIG is looked at once, when this is imported.
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    yield cluster
    await EraKubeSpawner._stop_all_reflectors()
    cluster.hang_up()
    server.stop()
    await server.close_all_connections()


@pytest.fixture(params=["local", "kube"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> LocalKind | KubeKind:
    if request.param == "local":
        return LocalKind(tmp_path)
    return KubeKind(request.getfixturevalue("small_cluster"))


@pytest_asyncio.fixture
async def start(service: Service, kind: LocalKind | KubeKind) -> AsyncIterator[Callable[..., Any]]:
    """Makes spawners; stops whatever still runs after the test."""
    made = []

    def make(**traits: Any) -> Any:
        made.append(kind.make(traits.pop("url", service.url), **traits))
        return made[-1]

    yield make
    for one in made:
        if kind.runs(one):
            await one.stop(now=True)
