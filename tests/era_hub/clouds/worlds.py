"""Clouds with a user each, as the tests of clouds meet them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import textwrap
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from era_hub.clouds import runner
from era_hub.clouds.base import Cloud, JobSpec, JobStatus, Phase
from era_hub.clouds.kubernetes.cloud import KubernetesCloud
from era_hub.clouds.local import LocalCloud
from tests.cluster import Cluster

PATIENCE = 30.0  # seconds until a test that waits has failed

# Notes SIGTERM and goes on, and so does a process of its own that has detached itself.
STUBBORN = """
    import os, pathlib, signal, subprocess, sys, time
    def on_term(*_):
        with open("term", "a") as file:
            print(time.time(), file=file)
    signal.signal(signal.SIGTERM, on_term)
    daemon = "import os, signal, time; os.fork() and os._exit(0); "
    daemon += "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); "
    child = subprocess.Popen(
        [sys.executable, "-c", daemon + "time.sleep(60)"],
        start_new_session=True, stdout=open("daemon", "w"),
    )
    child.wait()
    while True:
        time.sleep(60)
"""


class World:
    """A cloud with a user, and what a test needs to know of both."""

    user: str
    python: str
    cloud: Cloud
    forgetful = False
    """Whether the exit code of a job that was stopped may not be told."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    @abstractmethod
    def directory(self, spec: JobSpec) -> Path:
        """Where the job's files are."""

    @abstractmethod
    async def restarted(self, **options: Any) -> Any:
        """The cloud as a restarted service sees it."""

    @abstractmethod
    async def close(self) -> None:
        """Leave nothing behind."""

    def script(self, source: str, *, lasts: float = 60, **options: Any) -> JobSpec:
        """A job that runs Python source and is entitled to `lasts` seconds."""
        return JobSpec(
            **{
                "id": str(uuid.uuid4()),
                "user": self.user,
                "command": [self.python, "script.py"],
                "gpus": (),
                "end": math.ceil(time.time() + lasts),
                "grace": 1,
                "files": {"script.py": textwrap.dedent(source)},
            }
            | options
        )

    async def status(self, spec: JobSpec) -> JobStatus:
        return await self.cloud.status(spec.id, spec.user)

    async def log(self, spec: JobSpec) -> str:
        return (await self.cloud.read_log(spec.id, spec.user, 0, 1 << 20)).decode()

    async def said(self, spec: JobSpec, text: str) -> str:
        """The log, once it holds a text."""

        async def there() -> str | None:
            log = await self.log(spec)
            return log if text in log else None

        return await self.until(there)

    async def ended(self, spec: JobSpec) -> JobStatus:
        async def over() -> JobStatus | None:
            status = await self.status(spec)
            return status if status.phase is Phase.ENDED else None

        return await self.until(over)

    async def run(self, spec: JobSpec) -> JobStatus:
        await self.cloud.start(spec)
        return await self.ended(spec)

    def had(self, status: JobStatus, code: int) -> bool:
        """Whether a job that was stopped ended with an exit code."""
        return status.exit_code == code or (self.forgetful and status.exit_code is None)

    async def knows(self, spec: JobSpec, end: int) -> None:
        """Wait until the cloud says that it ends the job then."""

        async def told() -> bool:
            return (await self.status(spec)).end == end

        await self.until(told)

    async def wrote(self, spec: JobSpec, name: str) -> str:
        """Content of a file once the job has written it (a line, to its end)."""
        path = self.directory(spec) / name

        async def line() -> str | None:
            text = path.read_text() if path.exists() else ""
            return text if text.endswith("\n") else None

        return await self.until(line)

    async def until(self, question: Callable[[], Any]) -> Any:
        """The first answer of an async function that is true; asked when something changes."""
        return await until(question, self._changed)


async def until(question: Callable[[], Any], changed: asyncio.Event | None = None) -> Any:
    """The first answer of an async function that is true."""
    changed = changed or asyncio.Event()
    give_up = time.monotonic() + PATIENCE
    while not (answer := await question()):
        assert time.monotonic() < give_up, "waited too long"
        with suppress(TimeoutError):  # files change without telling
            await asyncio.wait_for(changed.wait(), 0.02)
        changed.clear()
    return answer


async def gone(pid: int) -> None:
    async def dead() -> bool:
        return runner.process_birth(pid) is None

    await until(dead)


class LocalWorld(World):
    """Jobs as processes of this machine, of one account or another."""

    cloud: LocalCloud

    def __init__(self, options: dict[str, Any], user: str, uid: int, home: Path) -> None:
        super().__init__()
        self.options, self.user, self.uid, self.home = options, user, uid, home
        self.cloud = self.another()
        self.python = self.cloud.python

    @classmethod
    def own(cls, folder: Path) -> LocalWorld:
        """Jobs of this account."""
        options = {"system_users": False, "home_root": str(folder), "simulated_gpus": 4}
        return cls(options, "ann", os.geteuid(), folder / "ann")

    def directory(self, spec: JobSpec) -> Path:
        return self.home / "era-jobs" / spec.id

    def another(self, **options: Any) -> LocalCloud:
        return LocalCloud(**(self.options | options))

    async def restarted(self, **options: Any) -> LocalCloud:
        return self.another(**options)

    async def close(self) -> None:
        self.cloud.stop_on_exit = True
        await self.cloud.close()

    def record(self, spec: JobSpec) -> dict[str, Any]:
        return json.loads((self.directory(spec) / ".era/status.json").read_text())


class KubernetesWorld(World):
    """Jobs of a cluster whose pods are processes of this machine, in a pool of their own."""

    cloud: KubernetesCloud
    forgetful = True  # this kubelet may delete a pod before it has told how it ended

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        super().__init__()
        self.cluster, self.namespace, self.folder = cluster, namespace, folder
        self.user, self.python, self.uid = "ann", "python3", os.geteuid()
        self.pool = f"pool-{uuid.uuid4().hex[:8]}"
        self._open: list[KubernetesCloud] = []

    @property
    def options(self) -> dict[str, Any]:
        return {
            "kubeconfig": self.cluster.path,
            "namespace": self.namespace,
            "pool": self.pool,
            "working_directory": str(self.folder / "jobs/{job_id}"),
            "log_directory": str(self.folder / "logs"),
            "node_patience": 1.0,
        }

    async def open(self) -> KubernetesWorld:
        self.cloud = await self.restarted()
        self.cloud.changed = self._changed.set
        return self

    def directory(self, spec: JobSpec) -> Path:
        return self.folder / "jobs" / spec.id

    async def restarted(self, **options: Any) -> KubernetesCloud:
        cloud = KubernetesCloud(**(self.options | options))
        await cloud.open()
        self._open.append(cloud)
        return cloud

    async def close(self) -> None:
        for cloud in self._open:
            await cloud.close()
        for path in (self.jobs_path, self.pods_path):
            await self.ask(
                "DELETE",
                path,
                params={
                    "labelSelector": f"era.jupyter.org/pool={self.pool}",
                    "propagationPolicy": "Background",
                    "gracePeriodSeconds": "1",
                },
            )

    @property
    def jobs_path(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def pods_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    async def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """A request of somebody else to the API."""
        return await asyncio.to_thread(self.cluster.request, method, path, **options)

    async def objects(self, path: str, spec: JobSpec) -> list[dict[str, Any]]:
        """What there is of a job."""
        selector = {"labelSelector": f"era.jupyter.org/reservation={spec.id}"}
        found: list[dict[str, Any]] = (await self.ask("GET", path, params=selector))["items"]
        return found

    async def pods(self, spec: JobSpec) -> list[dict[str, Any]]:
        return await self.objects(self.pods_path, spec)


class Proxy:
    """A way to the API server that can be cut."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        config = yaml.safe_load(Path(cluster.path).read_text())
        self.target = httpx.URL(config["clusters"][0]["cluster"]["server"])
        self.config, self.path = config, folder / "proxied"
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self._port}"
        self.path.write_text(yaml.safe_dump(self.config))

    async def down(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self.target.host, self.target.port)
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            pass
        finally:
            self._writers -= {writer, back}
            writer.close()
            back.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
