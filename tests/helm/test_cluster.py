"""The chart on a real cluster: tried, installed, upgraded and uninstalled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import Cluster

from .charts import (
    CHART,
    EVERYTHING,
    POSTGRES,
    RELEASE,
    VALUES,
    Manifest,
    Values,
    manifests,
    merged,
    only,
)

pytestmark = pytest.mark.kubernetes


def own(values: Values, namespace: str) -> Values:
    """Values of which the cluster as a whole has nothing twice, and only what it knows.

    No pod runs: there is no image, and what is tried here needs none.
    """
    nowhere = {"nodeSelector": {"era.jupyter.org/no-such-node": "true"}}
    mine = {
        "priorityClass": {"name": namespace},
        "metrics": {"serviceMonitor": {"enabled": False}},
    }
    if "jobNamespace" in values:
        mine["jobNamespace"] = namespace
    return merged(merged(values, nowhere), mine)


def objects(release: Any) -> list[Manifest]:
    return list(manifests(release["manifest"]))


def missing(sent: Any, kept: Any, where: str = "") -> Iterator[str]:
    """What the API server has dropped or changed, such as a field that it does not know."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key, value in sent.items():
            yield from missing(value, kept.get(key), f"{where}.{key}")
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for index, (one, other) in enumerate(zip(sent, kept, strict=True)):
            yield from missing(one, other, f"{where}[{index}]")
    # An empty value may be left out.
    elif sent != kept and (sent or kept):
        yield f"{where}: {sent!r} is {kept!r}"


# -- a trial -------------------------------------------------------------------------


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_server_takes_every_object_as_it_is(
    cluster: Cluster, releases: Any, namespace: str, values: Values
) -> None:
    trial = releases.install(str(CHART), RELEASE, own(values, namespace), dry_run="server")
    for each in objects(trial):
        kept = cluster.try_out(each)
        assert list(missing(each, kept)) == []
    assert releases.list(all_states=True) == []


def test_the_server_would_not_take_what_it_does_not_know() -> None:
    """The check above finds something."""
    sent = {"spec": {"known": 1, "list": [{"a": 1}], "empty": ""}}
    assert list(missing(sent, {"spec": {"known": 1, "list": [{"a": 1}]}})) == []
    assert list(missing(sent, {"spec": {"known": 1, "list": [{}]}})) == [
        ".spec.list[0].a: 1 is None"
    ]


# -- a life --------------------------------------------------------------------------


def test_installed_upgraded_and_uninstalled(
    helm: Any, cluster: Cluster, releases: Any, namespace: str, tmp_path: Any
) -> None:
    before = helm.package(str(CHART), destination=tmp_path, version="0.0.9", app_version="0.0.9")
    first = releases.install(before, RELEASE, own({"config": {"Pool": {"slot": 60}}}, namespace))
    assert first["status"] == "deployed"
    old = objects(first)
    assert all(cluster.live(each) for each in old)
    deployment = cluster.live(only(old, "Deployment"))
    assert deployment is not None
    assert deployment["metadata"]["labels"]["app.kubernetes.io/version"] == "0.0.9"
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}

    # From the chart before to this one, and from a file to PostgreSQL with two replicas.
    values = own(merged(EVERYTHING, {"nameOverride": ""}), namespace)
    second = releases.upgrade(str(CHART), RELEASE, values, reset_values=True)
    assert (second["status"], second["revision"]) == ("deployed", 2)
    new = objects(second)
    for each in new:
        kept = cluster.live(each)
        assert kept is not None
        assert list(missing(each.get("spec", {}), kept.get("spec"))) == []
    upgraded = cluster.live(only(new, "Deployment"))
    assert upgraded is not None
    assert upgraded["metadata"]["uid"] == deployment["metadata"]["uid"]
    assert upgraded["spec"]["replicas"] == 2
    claim = only(old, "PersistentVolumeClaim")
    assert cluster.live(claim), "the books stay when they are no longer used"

    # And back.
    releases.rollback(RELEASE, version=1)
    again = cluster.live(only(old, "Deployment"))
    assert again is not None
    assert again["spec"]["strategy"] == {"type": "Recreate"}
    budget = only(new, "PodDisruptionBudget")
    assert cluster.live(budget) is None, "with one replica there is none"

    releases.uninstall(RELEASE)
    left = [each for each in [*old, *new] if cluster.live(each)]
    assert {each["kind"] for each in left} == {"PersistentVolumeClaim"}

    # The same release finds its books again.
    third = releases.install(str(CHART), RELEASE, own({}, namespace))
    assert third["status"] == "deployed"
    found = cluster.live(claim)
    assert found is not None
    assert found["metadata"]["labels"]["app.kubernetes.io/version"] != "0.0.9"


def test_a_release_may_throw_its_books_away(
    cluster: Cluster, releases: Any, namespace: str
) -> None:
    values = {"database": {"sqlite": {"keep": False}}}
    made = releases.install(str(CHART), RELEASE, own(values, namespace))
    claim = only(objects(made), "PersistentVolumeClaim")
    assert cluster.live(claim)
    releases.uninstall(RELEASE)
    gone = cluster.live(claim)
    assert gone is None or gone["metadata"]["deletionTimestamp"]


# -- rights --------------------------------------------------------------------------

WORK = {
    "batch/jobs": {"create", "get", "list", "watch", "patch", "delete"},
    "pods": {"list", "watch", "delete"},
    "pods/log": {"get"},
    "secrets": {"create", "get", "delete"},
    "services": {"create", "get"},
}
EVERYWHERE = {"nodes": {"list", "watch"}, "pods": {"list", "watch"}}
VERBS = ("create", "get", "list", "watch", "update", "patch", "delete", "deletecollection")
OTHERS = (
    "configmaps",
    "serviceaccounts",
    "persistentvolumeclaims",
    "pods/exec",
    "namespaces",
    "apps/deployments",
    "rbac.authorization.k8s.io/roles",
    "rbac.authorization.k8s.io/clusterrolebindings",
)


def test_its_account_may_do_that_and_nothing_else(
    cluster: Cluster, releases: Any, namespace: str
) -> None:
    elsewhere = cluster.new_namespace()
    jobs = cluster.new_namespace()
    try:
        releases.install(str(CHART), RELEASE, {**own({}, namespace), "jobNamespace": jobs})
        account = f"system:serviceaccount:{namespace}:{RELEASE}"

        def rights(where: str) -> dict[str, set[str]]:
            kinds = {*WORK, *EVERYWHERE, *OTHERS}
            found = {
                kind: {verb for verb in VERBS if cluster.may(account, verb, where, kind)}
                for kind in kinds
            }
            return {kind: verbs for kind, verbs in found.items() if verbs}

        assert rights(jobs) == {**EVERYWHERE, **WORK}
        assert rights(elsewhere) == EVERYWHERE
        assert rights(namespace) == EVERYWHERE, "not even its own token, unless jobs run there"
    finally:
        cluster.delete_namespace(elsewhere)
        cluster.delete_namespace(jobs)


def test_nobody_else_gains_anything(cluster: Cluster, releases: Any, namespace: str) -> None:
    releases.install(str(CHART), RELEASE, own(POSTGRES, namespace))
    for user in (f"system:serviceaccount:{namespace}:default", "somebody"):
        assert not cluster.may(user, "create", namespace, "batch/jobs")
        assert not cluster.may(user, "list", "", "nodes")
    assert json.dumps(rbac_subjects(cluster, namespace)).count(RELEASE) == 2


def rbac_subjects(cluster: Cluster, namespace: str) -> list[Any]:
    root = "/apis/rbac.authorization.k8s.io/v1"
    bindings = cluster.request("GET", f"{root}/namespaces/{namespace}/rolebindings")["items"]
    everywhere = cluster.request("GET", f"{root}/clusterrolebindings")["items"]
    mine = [each for each in everywhere if each["metadata"]["name"].startswith(namespace)]
    return [each["subjects"] for each in [*bindings, *mine]]
