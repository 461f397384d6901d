"""What Helm makes of the chart, for several sets of values."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest

import era_hub

from .charts import (
    CHART,
    EVERYTHING,
    NAMESPACE,
    POSTGRES,
    ROOT,
    VALUES,
    Manifest,
    container,
    environment,
    merged,
    notes,
    only,
    render,
)

KUBERNETES = ("1.25", "1.37")
FOREIGN = {"ServiceMonitor"}
"""Kinds that Kubernetes itself does not know."""

each_set = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


def pod(objects: list[Manifest]) -> Manifest:
    return dict(only(objects, "Deployment")["spec"]["template"])


# -- the chart --------------------------------------------------------------------


@each_set
def test_helm_finds_nothing_wrong(helm: Any, values: dict[str, Any]) -> None:
    report = helm.lint(CHART, values, strict=True)
    assert report["errors"] == []
    assert {each["error"] for each in report["messages"]} <= {"icon is recommended"}


def test_it_has_the_version_of_what_it_installs(chart: Any) -> None:
    assert chart.version == chart.metadata["appVersion"] == era_hub.__version__


@each_set
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_would_take_it(chart: Any, values: dict[str, Any], version: str) -> None:
    objects = render(chart, values)
    for each in objects:
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, version, strict=True)


@each_set
def test_everything_is_labelled_and_in_its_place(chart: Any, values: dict[str, Any]) -> None:
    for each in render(chart, values):
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "era-hub"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        outside = {"ClusterRole", "ClusterRoleBinding", "PriorityClass"}
        assert (each["kind"] in outside) != ("namespace" in each["metadata"])


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("era-hub", {}, "era-hub"),
        ("prod", {}, "prod-era-hub"),
        ("prod", {"nameOverride": "market"}, "prod-market"),
        ("prod", {"fullnameOverride": "market"}, "market"),
        ("a" * 53, {}, "a" * 53 + "-era-hub"),
    ],
)
def test_its_name(chart: Any, release: str, values: dict[str, Any], name: str) -> None:
    objects = render(chart, values, release)
    assert only(objects, "Service")["metadata"]["name"] == name
    assert only(objects, "Deployment")["metadata"]["name"] == name


# -- the service -------------------------------------------------------------------


@each_set
def test_the_service_runs_without_rights(chart: Any, values: dict[str, Any]) -> None:
    objects = render(chart, values)
    inner = container(objects)["securityContext"]
    assert inner["allowPrivilegeEscalation"] is False
    assert inner["readOnlyRootFilesystem"] is True
    assert inner["capabilities"] == {"drop": ["ALL"]}
    outer = pod(objects)["spec"]["securityContext"]
    assert outer["runAsNonRoot"] is True
    assert outer["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in pod(objects)["spec"]


@each_set
def test_its_addresses_fit_together(chart: Any, values: dict[str, Any]) -> None:
    objects = render(chart, values)
    service, spec = only(objects, "Service")["spec"], container(objects)
    labels = pod(objects)["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert only(objects, "Deployment")["spec"]["selector"]["matchLabels"] == service["selector"]
    (port,) = service["ports"]
    assert port["targetPort"] == spec["ports"][0]["name"]
    variables = environment(objects)
    assert variables["JUPYTERHUB_SERVICE_URL"].endswith(f":{spec['ports'][0]['containerPort']}")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        path = spec[probe]["httpGet"]["path"]
        assert path.startswith(variables["JUPYTERHUB_SERVICE_PREFIX"] + "api/v1/")
    mounts = {each["name"] for each in spec["volumeMounts"]}
    assert mounts == {each["name"] for each in pod(objects)["spec"]["volumes"]}


@pytest.mark.parametrize("base", ["/jupyter", "/jupyter/"])
def test_below_a_base_url(chart: Any, base: str) -> None:
    found = environment(render(chart, {"hub": {"baseUrl": base, "url": "http://hub:8081/"}}))
    assert found["JUPYTERHUB_SERVICE_PREFIX"] == "/jupyter/services/era/"
    assert found["JUPYTERHUB_API_URL"] == "http://hub:8081/jupyter/hub/api"
    assert found["JUPYTERHUB_BASE_URL"] == "/jupyter/"


def test_with_sqlite_one_stops_before_the_next_starts(chart: Any) -> None:
    objects = render(chart, {})
    assert only(objects, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    claim = only(objects, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (state,) = [each for each in pod(objects)["spec"]["volumes"] if each["name"] == "state"]
    assert state["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert "PodDisruptionBudget" not in {each["kind"] for each in objects}


def test_with_postgres_one_starts_before_the_other_stops(chart: Any) -> None:
    objects = render(chart, POSTGRES)
    strategy = only(objects, "Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "PersistentVolumeClaim" not in {each["kind"] for each in objects}
    assert only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@each_set
def test_secrets_are_named_and_never_written_down(chart: Any, values: dict[str, Any]) -> None:
    objects = render(chart, values)
    assert not [each for each in objects if each["kind"] == "Secret"]
    secret = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in container(objects)["env"]
        if "secretKeyRef" in each.get("valueFrom", {})
    }
    named = values.get("hub", {}).get("tokenSecret")
    zero_to_jupyterhubs = {"name": "hub", "key": "hub.services.era.apiToken"}
    assert secret["JUPYTERHUB_API_TOKEN"] == (named or zero_to_jupyterhubs)
    on_postgres = values.get("database", {}).get("type") == "postgresql"
    assert ("ERA_DATABASE_URL" in secret) == on_postgres


def test_a_changed_configuration_starts_the_service_anew(chart: Any) -> None:
    def checksum(values: dict[str, Any]) -> str:
        return str(pod(render(chart, values))["metadata"]["annotations"]["checksum/config"])

    assert checksum({}) == checksum({"resources": {"limits": {"memory": "2Gi"}}})
    assert checksum({}) != checksum({"config": {"Pool": {"slot": 60}}})
    assert checksum({}) != checksum({"extraConfig": {"slots": "c.Pool.slot = 60"}})


# -- who may do what ---------------------------------------------------------------


def test_it_may_do_what_it_must_where_it_must(chart: Any) -> None:
    objects = render(chart, {"jobNamespace": "jobs"})
    for kind in ("Role", "RoleBinding"):
        assert only(objects, kind)["metadata"]["namespace"] == "jobs"
    everywhere = only(objects, "ClusterRole")["rules"]
    assert {verb for rule in everywhere for verb in rule["verbs"]} == {"list", "watch"}
    rules = [rule for each in objects if "rules" in each for rule in each["rules"]]
    assert not [rule for rule in rules if "*" in json.dumps(rule)]
    account = {"kind": "ServiceAccount", "name": "era-hub", "namespace": NAMESPACE}
    bindings = [each for each in objects if each["kind"].endswith("Binding")]
    roles = {(e["kind"], e["metadata"]["name"]) for e in objects if e["kind"].endswith("Role")}
    for each in bindings:
        assert each["subjects"] == [account]
        assert (each["roleRef"]["kind"], each["roleRef"]["name"]) in roles


def test_the_hub_lets_it_in(chart: Any) -> None:
    labels = pod(render(chart, {}))["metadata"]["labels"]
    assert labels["hub.jupyter.org/network-access-hub"] == "true"


def sources(policy: Manifest) -> list[dict[str, Any]]:
    return [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]


def test_the_network_lets_in_hub_proxy_and_notebooks(chart: Any) -> None:
    policy = only(
        render(chart, {"networkPolicy": {"notebookNamespaces": ["users"]}}), "NetworkPolicy"
    )
    found = [
        (peer["podSelector"]["matchLabels"]["component"], peer.get("namespaceSelector"))
        for peer in sources(policy)
    ]
    users = {"matchLabels": {"kubernetes.io/metadata.name": "users"}}
    own = [(name, None) for name in ("hub", "proxy", "singleuser-server")]
    assert found == [*own, ("singleuser-server", users)]


def test_and_replicas_and_prometheus_where_there_are_any(chart: Any) -> None:
    values = merged(POSTGRES, {"metrics": {"serviceMonitor": {"enabled": True}}})
    objects = render(chart, values)
    policy = only(objects, "NetworkPolicy")
    replicas, prometheus = sources(policy)[3:]
    assert replicas["podSelector"] == policy["spec"]["podSelector"]
    assert prometheus["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}
    assert "monitoring" in prometheus["namespaceSelector"]["matchLabels"].values()


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://hub:8081", 8081),
        ("http://hub", 80),
        ("https://hub", 443),
        ("http://[fd00::1]:8081", 8081),
        ("http://[fd00::1]", 80),
    ],
)
def test_the_network_lets_it_reach_what_it_needs(chart: Any, url: str, port: int) -> None:
    policy = only(render(chart, merged(POSTGRES, {"hub": {"url": url}})), "NetworkPolicy")
    ports = [each["port"] for rule in policy["spec"]["egress"] for each in rule["ports"]]
    assert ports == [53, 53, port, 443, 6443, 5432, "http"]


def test_places_can_be_narrowed_down(chart: Any) -> None:
    policy = only(render(chart, EVERYTHING), "NetworkPolicy")
    ranges = {
        rule["ports"][0]["port"]: [peer["ipBlock"]["cidr"] for peer in rule["to"]]
        for rule in policy["spec"]["egress"]
        if "ipBlock" in json.dumps(rule)
    }
    assert ranges == {
        6443: ["10.0.0.1/32", "fd00::1/128"],
        5433: ["10.1.0.0/16"],
        4318: ["10.2.0.0/16"],
    }


# -- metrics -----------------------------------------------------------------------


def test_prometheus_reads_with_a_token(chart: Any) -> None:
    objects = render(chart, EVERYTHING)
    monitor, service = only(objects, "ServiceMonitor"), only(objects, "Service")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/jupyter/services/era/api/v1/metrics"
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected.items() <= service["metadata"]["labels"].items()
    credentials = endpoint["authorization"]["credentials"]
    assert credentials == {"name": "hub", "key": "hub.services.prometheus.apiToken"}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_the_dashboard_is_the_one_there_is(chart: Any) -> None:
    (found,) = [
        each
        for each in render(chart, EVERYTHING)
        if each["kind"] == "ConfigMap" and "era-hub.json" in each["data"]
    ]
    dashboards = [p for p in ROOT.glob("helm/**/*.json") if '"panels"' in p.read_text("utf-8")]
    assert dashboards == [CHART / "dashboards/era-hub.json"]
    assert json.loads(found["data"]["era-hub.json"]) == json.loads(dashboards[0].read_text())
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


# -- what it says ------------------------------------------------------------------


def test_the_notes_say_where_the_books_are_and_whether_they_stay(chart: Any) -> None:
    assert "which stays when the release is uninstalled" in notes(chart, {})
    gone = notes(chart, {"database": {"sqlite": {"keep": False}}})
    assert "which is DELETED when the release is uninstalled" in gone
    assert "PersistentVolumeClaim" not in notes(chart, POSTGRES)


def test_prometheus_needs_a_word(chart: Any) -> None:
    assert "custom:era:metrics" in notes(chart, EVERYTHING)
    assert "custom:era:metrics" not in notes(chart, {})
