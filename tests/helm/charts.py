"""The chart as tests use it: sets of values, and what Helm makes of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import Manifest

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/era-hub"
RELEASE, NAMESPACE = "era-hub", "jhub"

Values = dict[str, Any]

POSTGRES: Values = {
    "replicas": 2,
    "database": {
        "type": "postgresql",
        "postgresql": {"urlSecret": {"name": "era-database", "key": "url"}},
    },
}

EVERYTHING: Values = {
    **POSTGRES,
    "nameOverride": "market",
    "image": {
        "repository": "registry.example.org/era-hub/service",
        "digest": "sha256:" + "0" * 64,
        "pullPolicy": "Always",
    },
    "imagePullSecrets": ["registry"],
    "hub": {"url": "https://hub.example.org", "baseUrl": "/jupyter", "host": "https://example.org"},
    "config": {
        "Pool": {
            "name": "a100",
            "configurations": [
                {"name": "a100-2", "title": "Two A100", "resources": {"nvidia.com/gpu": "2"}}
            ],
        }
    },
    "extraConfig": {"10-prices": 'c.Pool.price_floor = "0.10"\n'},
    "env": {"TZ": "Europe/Berlin"},
    "envFromSecrets": ["era-extra"],
    "extraVolumes": [{"name": "ca", "secret": {"secretName": "database-ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/postgresql", "readOnly": True}],
    "service": {"type": "NodePort", "port": 80, "annotations": {"example.org/team": "hpc"}},
    "serviceAccount": {"name": "market", "annotations": {"example.org/role": "era"}},
    "networkPolicy": {
        "notebookNamespaces": ["users"],
        "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"], "ports": [6443]},
        "database": {"cidrs": ["10.1.0.0/16"], "port": 5433},
        "extraIngress": [{"from": [{"podSelector": {"matchLabels": {"app": "probe"}}}]}],
        "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}], "ports": [{"port": 4318}]}],
    },
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Jupyter"}},
    },
    "priorityClass": {"create": True, "name": "era-test", "value": 20},
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "podLabels": {"team": "hpc"},
    "podAnnotations": {"example.org/logs": "json"},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"hub.jupyter.org/node-purpose": "core"},
    "tolerations": [{"key": "hub.jupyter.org/dedicated", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}
                ]
            }
        }
    },
}

VALUES: dict[str, Values] = {
    "minimal": {},
    "sqlite": {
        "database": {"sqlite": {"size": "20Gi", "storageClassName": "fast", "keep": False}},
        "config": {"EraHub": {"starting_grant": "50"}},
    },
    "postgres": POSTGRES,
    "everything": EVERYTHING,
    # What YAML would take for something else, or Helm would write as 1e+06.
    "odd": {
        "nameOverride": "123",
        "imagePullSecrets": ["1"],
        "hub": {"baseUrl": "/@/space%20word/", "tokenSecret": {"name": "true", "key": "0x1"}},
        "jobNamespace": "7",
        "database": {"sqlite": {"size": 1000000000, "storageClassName": "1"}},
        "config": {"Pool": {"horizon": 1209600, "name": "<&>"}},
        "extraConfig": {"1": "\n  # indented\nx = 'a\tb'", "no": "y: {{ 1 }}"},
        "env": {"NO": "no", "N": "1", "y": ""},
        "envFromSecrets": ["0"],
        "serviceAccount": {"name": "off"},
        "metrics": {"dashboard": {"enabled": True, "labels": {"x": "1"}}},
        "priorityClass": {"create": True, "name": "1", "value": 1000000},
        "terminationGracePeriodSeconds": 1000000,
        "podSecurityContext": {"runAsUser": 1000700000},
        "nodeSelector": {"n": "1"},
        "priorityClassName": "no",
    },
    "nothing": {
        "replicas": 0,
        "database": {"sqlite": {"existingClaim": "books"}},
        "serviceAccount": {"create": False, "name": "theirs"},
        "rbac": {"create": False},
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
    },
}


def merged(base: Values, more: Values) -> Values:
    """`base` with `more` over it, as Helm merges values."""
    result = copy.deepcopy(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def manifests(text: str) -> Iterator[Manifest]:
    """The objects in what Helm has rendered."""
    return (each for each in yaml.safe_load_all(text) if each)


def render(chart: Any, values: Values, release: str = RELEASE) -> list[Manifest]:
    """The objects that a release of the chart consists of."""
    rendered = chart.render(values, name=release, namespace=NAMESPACE)
    texts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    return [each for text in texts for each in manifests(text)]


def notes(chart: Any, values: Values) -> str:
    """What Helm tells whoever installs the chart."""
    rendered: dict[str, str] = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    return rendered["era-hub/templates/NOTES.txt"]


def only(objects: list[Manifest], kind: str) -> Manifest:
    """The one object of a kind."""
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def container(objects: list[Manifest]) -> Manifest:
    """The service's container."""
    (found,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(objects: list[Manifest]) -> dict[str, str]:
    """Variables of the service that have a value of their own."""
    return {each["name"]: each["value"] for each in container(objects)["env"] if "value" in each}
