"""The chart's values: each is explained, and what is mistyped is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
import yaml

from .charts import CHART, POSTGRES, Values, render

TEXT = (CHART / "values.yaml").read_text("utf-8")
DEFAULTS: Values = yaml.safe_load(TEXT)
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
HELMS_OWN = "global"
"""Set by a chart around this one, and anything: nothing of it is used here."""

Path = tuple[str, ...]


def mappings(values: Values, path: Path = ()) -> Iterator[Path]:
    """Where the values have mappings."""
    yield path
    for key, value in values.items():
        if isinstance(value, dict):
            yield from mappings(value, (*path, key))


def nested(path: Path, value: Any) -> Values:
    """Values with one of them set."""
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def objects(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object within a schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from objects(each, where)
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            yield where, schema
        for key, each in schema.items():
            yield from objects(each, f"{where}/{key}")


# -- the schema ----------------------------------------------------------------------


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_no_object_takes_names_it_does_not_know() -> None:
    found = dict(objects(SCHEMA))
    open_ones = [where for where, each in found.items() if each.get("additionalProperties", True)]
    assert open_ones == [f"/properties/{HELMS_OWN}"]
    assert len(found) > 40


def test_every_value_there_is_has_its_default() -> None:
    """And so its explanation; what is Kubernetes' own is explained there."""
    foreign = {"affinity", "podSecurityContext", "securityContext", HELMS_OWN}

    def missing(schema: dict[str, Any], values: Values, path: Path = ()) -> Iterator[Path]:
        for name, each in schema.get("properties", {}).items():
            if not path and name in foreign:
                continue
            if name not in values:
                yield (*path, name)
                continue
            if "$ref" in each:
                each = SCHEMA["definitions"][each["$ref"].rpartition("/")[2]]
            yield from missing(each, values[name], (*path, name))

    assert list(missing(SCHEMA, DEFAULTS)) == []


@pytest.mark.parametrize("path", list(mappings(DEFAULTS)), ids=".".join)
def test_a_mistyped_name_is_refused(helm: Any, chart: Any, path: Path) -> None:
    chart.validate_schema(DEFAULTS)
    with pytest.raises(helm.HelmValuesError, match="no such name"):
        chart.validate_schema(nested((*path, "no such name"), "x"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": "two"}, "replicas"),
        ({"replicas": -1}, "replicas"),
        ({"database": {"type": "mysql"}}, "database/type"),
        ({"database": {"sqlite": {"size": "much"}}}, "database/sqlite/size"),
        ({"hub": {"url": "hub:8081"}}, "hub/url"),
        ({"hub": {"baseUrl": "jupyter"}}, "hub/baseUrl"),
        ({"hub": {"baseUrl": "/space word/"}}, "hub/baseUrl"),
        ({"image": {"digest": "latest"}}, "image/digest"),
        ({"jobNamespace": "Users"}, "jobNamespace"),
        ({"config": {"pool": {"slot": 60}}}, "config"),
        ({"config": {"Pool": 60}}, "config/Pool"),
        ({"env": {"TZ": 1}}, "env/TZ"),
        ({"extraConfig": {"../x": ""}}, "extraConfig"),
        ({"service": {"port": 0}}, "service/port"),
        ({"tolerations": [{"effect": "NoRun"}]}, "tolerations/0/effect"),
        ({"affinity": {"nodeAfinity": {}}}, "affinity"),
        ({"networkPolicy": {"extraIngress": [{"form": []}]}}, "networkPolicy/extraIngress/0"),
        ({"extraVolumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "extraVolumes/0"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "serviceMonitor/interval"),
        ({"priorityClass": {"value": 2_000_000_000}}, "priorityClass/value"),
        ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "maxUnavailable"),
        ({"securityContext": {"runasuser": 0}}, "securityContext"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    helm: Any, chart: Any, values: Values, named: str
) -> None:
    with pytest.raises(helm.HelmValuesError, match=named):
        render(chart, values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replicas": 2}, "replicas: a SQLite database belongs to one service"),
        ({"database": {"type": "postgresql"}}, "name the Secret that holds the database's URL"),
        ({"config": {"KubernetesCloud": {"namespace": "jobs"}}}, "set jobNamespace instead"),
    ],
)
def test_values_that_do_not_go_together_are_refused(
    helm: Any, chart: Any, values: Values, words: str
) -> None:
    with pytest.raises(helm.HelmRenderError, match=words):
        render(chart, values)


def test_it_can_be_part_of_another_chart(helm: Any, tmp_path: Any) -> None:
    """Helm passes `global` on to it, whatever is in there."""
    outer = tmp_path / "site"
    (outer / "charts").mkdir(parents=True)
    (outer / "Chart.yaml").write_text("apiVersion: v2\nname: site\nversion: 1.0.0\n")
    (outer / "values.yaml").write_text("global: {site: here}\nera-hub: {replicas: 0}\n")
    (outer / "charts/era-hub").symlink_to(CHART)
    with helm.Chart.load(outer) as chart:
        rendered = chart.render({}, name="site", namespace="jhub")
    assert "replicas: 0" in rendered["site/charts/era-hub/templates/deployment.yaml"]


# -- values.yaml ---------------------------------------------------------------------

KEY = re.compile(r"^( *)([\w./-]+):")


def test_every_value_is_explained() -> None:
    lines = TEXT.splitlines()
    silent = [
        line
        for before, line in pairwise(lines)
        if KEY.match(line) and not before.lstrip().startswith("#")
    ]
    assert silent == []


def test_every_default_does_something(chart: Any) -> None:
    """A value that no template reads would be a promise that is not kept."""
    files = sorted((CHART / "templates").iterdir())
    templates = "".join(path.read_text("utf-8") for path in files)
    unused = [name for name in DEFAULTS if not re.search(rf"\.Values\.{name}\b", templates)]
    assert unused == []
    assert render(chart, POSTGRES) != render(chart, {})
