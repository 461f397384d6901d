"""A real Helm, without its command: `helm_python` is Helm's own library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import Cluster
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


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace for one test."""
    name = cluster.new_namespace()
    yield name
    cluster.delete_namespace(name)


@pytest.fixture
def releases(helm: Any, cluster: Cluster, namespace: str) -> Iterator[Any]:
    """Helm, for the namespace of the test; what it has installed is uninstalled in the end."""
    with helm.Config(kubeconfig_path=cluster.path, namespace=namespace) as found:
        yield found
        for each in found.list(all_states=True):
            found.uninstall(each["name"])


@pytest.fixture
def place(process_cluster: Cluster) -> dict[str, str]:
    """A node selector; pods there need no image."""
    labels = process_cluster.process_nodes()[0]["metadata"]["labels"]
    return {"kubernetes.io/hostname": labels["kubernetes.io/hostname"]}
