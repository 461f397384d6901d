"""The rights that the chart gives are enough: jobs run with them, and with no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from era_hub.models import JobRequest, JobState, micro_credits
from tests.cluster import Cluster
from tests.running_hub import FAST, until
from tests.running_service import HubBeside, RunningService

from .charts import CHART, RELEASE

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

NOWHERE = {"era.jupyter.org/no-such-node": "true"}


@pytest.fixture
def kubeconfig(cluster: Cluster, releases: Any, namespace: str, tmp_path: Path) -> Path:
    """That of the service's account."""
    releases.install(str(CHART), RELEASE, {"nodeSelector": NOWHERE})
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{RELEASE}/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = cluster.request("POST", path, json=asked)["status"]["token"]
    found = yaml.safe_load(Path(cluster.path).read_text())
    (context,) = [
        each["context"] for each in found["contexts"] if each["name"] == found["current-context"]
    ]
    context |= {"user": RELEASE, "namespace": namespace}
    found["users"] = [{"name": RELEASE, "user": {"token": token}}]
    file = tmp_path / "kubeconfig"
    file.touch(mode=0o600)
    file.write_text(json.dumps(found))
    return file


@pytest.fixture
def service(
    place: dict[str, str], kubeconfig: Path, namespace: str, tmp_path: Path
) -> Iterator[RunningService]:
    options = FAST | {
        "EraHub.cloud_class": "era_hub.clouds.kubernetes.cloud.KubernetesCloud",
        "KubernetesCloud.kubeconfig": str(kubeconfig),
        "KubernetesCloud.node_selector": place,
        "KubernetesCloud.log_directory": str(tmp_path / "logs"),
        "Pool.name": namespace,
    }
    with HubBeside(tmp_path / "hub") as hub, RunningService(hub, options=options) as running:
        yield running


def test_jobs_are_started_watched_read_and_stopped(
    cluster: Cluster, service: RunningService, namespace: str
) -> None:
    ann = service.client("ann")

    def submit(command: str) -> str:
        outcome = ann.submit(
            JobRequest(
                configuration="gpu-1",
                duration="2m",
                value=micro_credits("50"),
                command=["sh", "-c", command],
            )
        )
        assert outcome.job is not None, outcome.reason
        return str(outcome.job.id)

    def state(job_id: str) -> Any:
        return ann.job(job_id).state

    short = submit("echo $((6 * 7))")
    until(lambda: state(short) is JobState.SUCCEEDED, 60, f"the job; {service.log()}")
    assert "42" in ann.log(short).text

    long = submit("echo begun; sleep 100")
    until(lambda: "begun" in ann.log(long).text, 60, "the second job to say something")
    ann.cancel_job(long)
    until(lambda: state(long) is JobState.CANCELLED, 60, "the second job to end")

    # What they were to do is read, and gone.
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    left = [each["metadata"]["name"] for each in cluster.request("GET", secrets)["items"]]
    assert not [name for name in left if short in name or long in name]
    assert "forbidden" not in service.log()
