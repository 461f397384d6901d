"""The spawners that all tests of the mixin run with: of local processes, and of pods."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from era_spawner import EraLocalSpawner
from era_spawner.kube import EraKubeSpawner

from .service import TOKEN
from .small_cluster import SmallCluster

CODE = """
import json, os, time
json.dump(dict(os.environ), open("new", "w"))
os.rename("new", "env.json")
time.sleep(60)
"""


def _traits(url: str, server_name: str = "", **traits: Any) -> dict[str, Any]:
    user = SimpleNamespace(name="ann", url="/user/ann/", escaped_name="ann", id=1)
    hub = SimpleNamespace(
        base_url="/@/space%20word/hub/", public_host="", api_url="http://127.0.0.1:8081/hub/api"
    )
    row = SimpleNamespace(name=server_name, server=None, user_options=None, state=None)
    return {
        "user": user,
        "hub": hub,
        "orm_spawner": row,
        "era_url": url,
        "era_token": TOKEN,
        "release_timeout": 5.0,
        "user_options": {"configuration": "gpu-2", "duration": "1h", "max_price": "3"},
        **traits,
    }


def spawner(url: str, home_root: Path, **traits: Any) -> EraLocalSpawner:
    """One of local processes."""
    values = {
        "system_users": False,
        "home_root": str(home_root),
        "cmd": [sys.executable, "-c", CODE],
        "interrupt_timeout": 1,
    }
    return EraLocalSpawner(**_traits(url, **{**values, **traits}))


class LocalKind:
    """Servers as processes of this machine."""

    numbered = True
    """Whether the market's numbers of GPUs are those of the machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, url: str, **traits: Any) -> EraLocalSpawner:
        return spawner(url, self.folder / "homes", **traits)

    def breaks(self) -> dict[str, Any]:
        """Traits with which a start fails after the claim."""
        return {"cmd": ["/no/such/program"]}

    def runs(self, one: EraLocalSpawner) -> bool:
        return one.proc is not None and one.proc.poll() is None

    async def environment(self, one: EraLocalSpawner) -> dict[str, str]:
        """Environment of the running server."""
        path = one.home / "env.json"
        for _ in range(200):
            if path.exists():
                found: dict[str, str] = json.loads(path.read_text())
                return found
            await asyncio.sleep(0.05)
        raise AssertionError("the server did not start")


class KubeKind:
    """Servers as pods of a small cluster."""

    numbered = False

    def __init__(self, cluster: SmallCluster) -> None:
        self.cluster = cluster

    def make(self, url: str, **traits: Any) -> EraKubeSpawner:
        values = {
            "k8s_api_host": self.cluster.url,
            "image": "notebook:1",
            "start_timeout": 20,
            "k8s_api_request_retry_timeout": 5,
        }
        return EraKubeSpawner(**_traits(url, **{**values, **traits}))

    def breaks(self) -> dict[str, Any]:
        self.cluster.refuses = 403
        return {}

    def runs(self, one: EraKubeSpawner) -> bool:
        return one.pod_name in self.cluster.pods

    async def environment(self, one: EraKubeSpawner) -> dict[str, str]:
        container = self.cluster.pods[one.pod_name]["spec"]["containers"][0]
        return {each["name"]: each.get("value", "") for each in container["env"]}
