"""The guide's snippets: the chart takes its own, and the hub does what the others say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jupyterhub.app import JupyterHub
from jupyterhub.scopes import scope_definitions
from traitlets.config import Config

from era_hub.app import EraHub
from era_hub.clouds.kubernetes.cloud import KubernetesCloud
from era_hub.pool import Pool
from era_hub.wiring import ACCESS, CUSTOM_SCOPES
from era_spawner.kube import EraKubeSpawner

from .charts import CHART, RELEASE, ROOT, Values, container, environment, notes, only, render

GUIDE = (ROOT / "docs/guides/deploy-on-kubernetes.md").read_text("utf-8")
SNIPPETS: list[Values] = [
    yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.M | re.S)
]
FOR_THE_HUB = [each for each in SNIPPETS if "hub" in each]
FOR_THE_CHART = [each for each in SNIPPETS if "hub" not in each]
(WIRING,) = [each for each in FOR_THE_HUB if "extraConfig" in each["hub"]]


def hub_config(values: Values) -> Config:
    """What Zero to JupyterHub makes of its values: tokens, lists, then the snippets."""
    hub = values["hub"]
    c = Config(hub.get("config", {}))
    c.JupyterHub.services = [
        {"name": name, "api_token": f"token of {name}", **each}
        for name, each in hub.get("services", {}).items()
    ]
    c.JupyterHub.load_roles = [
        {"name": name, **each} for name, each in hub.get("loadRoles", {}).items()
    ]
    for _, snippet in sorted(hub.get("extraConfig", {}).items()):
        exec(snippet, {"c": c, "get_config": lambda: c})
    return c


@pytest.fixture
def wired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    return hub_config(WIRING)


# -- the chart's --------------------------------------------------------------------


@pytest.mark.parametrize("values", FOR_THE_CHART, ids=lambda values: "+".join(values))
def test_the_chart_takes_its_values(chart: Any, values: Values) -> None:
    assert render(chart, values)


def test_there_are_some() -> None:
    assert len(FOR_THE_CHART) == 3 and len(FOR_THE_HUB) == 3


def test_what_it_sells_is_in_the_service(chart: Any) -> None:
    (first, *_) = FOR_THE_CHART
    text = only(render(chart, first), "ConfigMap")["data"]["config.json"]
    found = yaml.safe_load(text)
    assert found["Pool"]["name"] == WIRING["hub"]["config"]["EraKubeSpawner"]["pool"]
    names = [each["name"] for each in found["Pool"]["configurations"]]
    assert names == ["cpu", "a100-1", "a100-4"]


def test_the_service_has_the_settings() -> None:
    known = {each.__name__: each for each in (EraHub, KubernetesCloud, Pool)}
    for values in FOR_THE_CHART:
        for section, settings in values.get("config", {}).items():
            assert settings.keys() <= set(known[section].class_trait_names(config=True))


def test_jobs_and_notebooks_are_on_the_same_nodes() -> None:
    spawner = WIRING["hub"]["config"]["EraKubeSpawner"]
    cloud = FOR_THE_CHART[0]["config"]["KubernetesCloud"]
    assert spawner["pool_selector"] == cloud["node_selector"]


# -- the hub's ----------------------------------------------------------------------


def test_the_notes_say_what_the_guide_says(chart: Any) -> None:
    text = notes(chart, {})
    begin, end = text.index("     hub:"), text.index("   The service waits")
    found = yaml.safe_load(text[begin:end])
    hub, own = WIRING["hub"], found["hub"]
    assert own["services"] == hub["services"]
    assert own["extraConfig"] == hub["extraConfig"]
    assert own["loadRoles"].keys() == hub["loadRoles"].keys()
    assert found["singleuser"]["networkPolicy"] == WIRING["singleuser"]["networkPolicy"]


def test_the_address_is_the_charts(chart: Any) -> None:
    service = only(render(chart, {}), "Service")
    url = WIRING["hub"]["services"]["era"]["url"]
    assert url == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_notebooks_reach_it(chart: Any) -> None:
    objects = render(chart, {})
    (rule,) = WIRING["singleuser"]["networkPolicy"]["egress"]
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert rule["to"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert rule["ports"][0]["port"] == container(objects)["ports"][0]["containerPort"]


def test_the_token_is_the_one_that_the_hub_makes(chart: Any) -> None:
    (token,) = [
        each["valueFrom"]["secretKeyRef"]
        for each in container(render(chart, {}))["env"]
        if each["name"] == "JUPYTERHUB_API_TOKEN"
    ]
    assert token["key"].split(".")[2] in WIRING["hub"]["services"]


def test_the_hub_takes_the_snippet(wired: Config, chart: Any) -> None:
    hub = JupyterHub(config=wired)
    (service,) = [each for each in hub.services if each["name"] == "era"]
    assert "command" not in service
    assert service["api_token"] == "token of era"
    assert hub.spawner_class.__name__ == "EraKubeSpawner"
    prefix = environment(render(chart, {}))["JUPYTERHUB_SERVICE_PREFIX"]
    assert f"{wired.EraSpawnerMixin.era_url}/" == f"http://{RELEASE}:8080{prefix}"


def test_the_spawner_has_the_settings() -> None:
    for values in FOR_THE_HUB:
        for section, settings in values["hub"].get("config", {}).items():
            (found,) = [each for each in EraKubeSpawner.mro() if each.__name__ == section]
            assert settings.keys() <= set(found.class_trait_names(config=True))


def known(scope: str) -> bool:
    base = scope.partition("!")[0]
    return base in scope_definitions or base in CUSTOM_SCOPES


def test_roles_have_scopes_that_there_are(wired: Config) -> None:
    roles = {each["name"]: each for each in wired.JupyterHub.load_roles}
    assert roles["era-admin"]["users"] == ["admin"]
    assert "custom:era:admin" in roles["era-admin"]["scopes"]
    assert roles["era-service"]["services"] == ["era"]
    for each in roles.values():
        assert each["scopes"] and all(known(scope) for scope in each["scopes"]), each


def test_prometheus_has_the_token_that_the_monitor_uses(chart: Any) -> None:
    (values,) = [
        each["hub"] for each in FOR_THE_HUB if "prometheus" in each["hub"].get("services", {})
    ]
    (monitored,) = [each for each in FOR_THE_CHART if "metrics" in each]
    monitor = only(render(chart, monitored), "ServiceMonitor")
    key = monitor["spec"]["endpoints"][0]["authorization"]["credentials"]["key"]
    assert key.split(".")[2] in values["services"]
    role = values["loadRoles"]["prometheus"]
    assert role["services"] == ["prometheus"]
    assert set(role["scopes"]) == {ACCESS, "custom:era:metrics"}
    assert all(known(scope) for scope in role["scopes"])


def test_files_that_it_names_are_there() -> None:
    for name in re.findall(r"\bhelm/[\w./-]+", GUIDE):
        assert (ROOT / name).exists(), name
    assert CHART == ROOT / "helm/era-hub"
