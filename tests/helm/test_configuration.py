"""The configuration that the chart mounts, read by the service itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from era_hub.app import EraHub
from era_hub.clouds.kubernetes.cloud import KubernetesCloud
from era_hub.pool import Pool

from .charts import CHART, NAMESPACE, POSTGRES, merged, only, render

VALUES = {
    "config": {
        "EraHub": {"starting_grant": "7", "lease": 300},
        "Pool": {"slot": 60, "price_floor": "0.30", "algorithm_options": {"curvature": 2}},
    },
    "extraConfig": {
        "20-later": 'c.Pool.price_floor = "0.50"\n',
        "10-first": 'import os\nc.Pool.price_floor = "0.40"\n'
        'c.EraHub.burst = int(os.environ["N"])\n',
    },
}


@pytest.fixture(autouse=True)
def _pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_IP", "10.0.0.5")
    monkeypatch.setenv("N", "5")
    monkeypatch.delenv("ERA_DATABASE_URL", raising=False)


def start(chart: Any, folder: Path, values: dict[str, Any]) -> EraHub:
    """The service with the files of the ConfigMap, as far as reading them."""
    for name, text in only(render(chart, values), "ConfigMap")["data"].items():
        (folder / name).write_text(text)
    app = EraHub()
    app.initialize([f"--config={folder / 'era_hub_config.py'}"])
    return app


def test_jobs_are_where_the_roles_are(chart: Any, tmp_path: Path) -> None:
    made = {"jobNamespace": "jobs", "priorityClass": {"create": True, "name": "urgent"}}
    more = {"config": {"KubernetesCloud": {"share": 0.5}}}
    cloud = KubernetesCloud(parent=start(chart, tmp_path, merged(made, more)))
    assert (cloud.namespace, cloud.priority_class, cloud.share) == ("jobs", "urgent", 0.5)
    assert cloud.log_directory == "/var/lib/era-hub/logs"
    cloud = KubernetesCloud(parent=start(chart, tmp_path, {}))
    assert (cloud.namespace, cloud.priority_class) == (NAMESPACE, "")


def test_the_service_understands_it(chart: Any, tmp_path: Path) -> None:
    app = start(chart, tmp_path, VALUES)
    assert (app.starting_grant, app.lease, app.log_format) == ("7", 300, "json")
    assert app.cloud_class is KubernetesCloud
    pool = Pool(parent=app)
    assert (pool.slot, pool.algorithm_options) == (60, {"curvature": 2})
    assert pool.price_floor == "0.50", "the last snippet by name wins"
    assert app.burst == 5


def test_where_it_keeps_its_books(
    chart: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start(chart, tmp_path, {}).db_url == "sqlite:////var/lib/era-hub/era.sqlite"
    monkeypatch.setenv("ERA_DATABASE_URL", "postgresql://era@db/era")
    assert start(chart, tmp_path, POSTGRES).db_url == "postgresql://era@db/era"


@pytest.mark.parametrize(
    ("pod", "address"),
    [("10.0.0.5", "http://10.0.0.5:8080"), ("fd00::5", "http://[fd00::5]:8080")],
)
def test_where_other_replicas_find_it(
    chart: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pod: str, address: str
) -> None:
    monkeypatch.setenv("POD_IP", pod)
    assert start(chart, tmp_path, POSTGRES).address == address


def test_config_wins_over_what_the_chart_sets(chart: Any, tmp_path: Path) -> None:
    values = merged(VALUES, {"config": {"EraHub": {"address": "https://a.example.org:443"}}})
    assert start(chart, tmp_path, values).address == "https://a.example.org:443"


def test_the_file_is_the_charts(chart: Any) -> None:
    data = only(render(chart, {}), "ConfigMap")["data"]
    assert data["era_hub_config.py"] == (CHART / "files/era_hub_config.py").read_text("utf-8")
