"""What all tests share: a browser, a database server, a cluster for those marked so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from era_hub.store.database import Database
from tests.cluster import Cluster
from tests.postgres import TEMPLATE, PostgresServer, find_postgres
from tests.running_hub import FAST, RunningHub

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The path of Chromium: ``ERA_CHROMIUM``, or what is on PATH."""
    named = os.environ.get("ERA_CHROMIUM")
    candidates = (named,) if named else BROWSERS
    return next((path for path in map(shutil.which, candidates) if path), None)


def require_chromium() -> str:
    """The path of Chromium. Without one: skip, or fail under continuous integration."""
    missing = f"no Chromium: set ERA_CHROMIUM, or install one of {', '.join(BROWSERS)}"
    return find_chromium() or skip_or_fail(missing)


def require_postgres() -> Path:
    """The folder of PostgreSQL's programs. Without: skip, or fail under continuous integration."""
    return find_postgres() or skip_or_fail("no PostgreSQL server: install the package postgresql")


def require_kubernetes() -> str:
    """The path of the kubeconfig of a cluster made for tests, such as one of kind. Without: skip.

    A cluster can't be had everywhere, so continuous integration says with KUBECONFIG that
    it has one.
    """
    return os.environ.get("KUBECONFIG") or pytest.skip(
        "no Kubernetes cluster: set KUBECONFIG to that of one made for tests"
    )


def skip_or_fail(reason: str) -> NoReturn:
    """Skip a test; where CI is set, what it needs must be there."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{reason} (required where CI is set)", pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files are shared out among processes as wholes; all that use the cluster stay together.

    They would take each other's GPUs, as tenants of one cluster do.
    """
    for item in items:
        alone = item.get_closest_marker("kubernetes") is not None
        group = "kubernetes" if alone else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser"):
        require_chromium()
    if item.get_closest_marker("postgres"):
        require_postgres()
    if item.get_closest_marker("kubernetes"):
        require_kubernetes()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, with a template database whose tables are up to date."""
    server = PostgresServer(require_postgres())
    try:
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        database = Database(server.url(TEMPLATE))
        database.migrate()
        database.close()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that KUBECONFIG names; one that does not answer is a failure."""
    connection = Cluster(require_kubernetes())
    connection.request("GET", "/version")
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def process_cluster(cluster: Cluster) -> Cluster:
    """The same, for tests whose pods have no images: they are processes of this machine."""
    if not cluster.process_nodes():
        pytest.skip("pods here need images: no node's runtime is process://")
    return cluster


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
