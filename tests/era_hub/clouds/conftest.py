"""The clouds under test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from era_hub.clouds import runner
from tests.cluster import Cluster

from .worlds import KubernetesWorld, LocalWorld, World


@pytest.fixture(scope="session")
def account() -> Iterator[tuple[pwd.struct_passwd, str]]:
    """A system account made for the tests, and a Python that it may run."""
    if os.geteuid() != 0 or not shutil.which("useradd"):
        pytest.skip("needs root and useradd to run jobs as another account")
    name = f"era-test-{os.getpid()}"
    base = Path(tempfile.mkdtemp(prefix="era-test-"))
    base.chmod(0o755)  # the home lies below
    home = base / "home"
    subprocess.run(["useradd", "--create-home", "--home-dir", home, name], check=True)
    try:
        entry = pwd.getpwnam(name)
        yield entry, usable_python(entry)
    finally:
        for process in psutil.process_iter():
            if process.uids().real == entry.pw_uid:
                process.kill()
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)
        shutil.rmtree(base)


def usable_python(entry: pwd.struct_passwd) -> str:
    """A Python that the account may run and that can read this checkout."""
    probe = f"import sys; assert sys.version_info >= (3, 11); open({runner.__file__!r})"
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if python:
            try:
                subprocess.run(
                    [python, "-I", "-c", probe],
                    user=entry.pw_uid,
                    group=entry.pw_gid,
                    cwd="/",
                    check=True,
                    capture_output=True,
                )
                return python
            except (OSError, subprocess.CalledProcessError):
                continue
    pytest.skip("no Python 3.11 or this checkout can be used by another account")


@pytest.fixture(scope="session")
def kube_place(process_cluster: Cluster) -> Iterator[tuple[Cluster, str]]:
    """A cluster, and a namespace there."""
    namespace = process_cluster.new_namespace()
    yield process_cluster, namespace
    process_cluster.delete_namespace(namespace)


def local_world(kind: str, request: pytest.FixtureRequest, folder: Path) -> LocalWorld:
    """The local cloud, with system accounts or without."""
    if kind == "own-account":
        return LocalWorld.own(folder)
    entry, python = request.getfixturevalue("account")
    options = {"system_users": True, "python": python, "simulated_gpus": 4}
    return LocalWorld(options, entry.pw_name, entry.pw_uid, Path(entry.pw_dir))


@pytest_asyncio.fixture(params=["own-account", "system-users"])
async def local(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalWorld]:
    """The local cloud, both ways; jobs that a test left running are stopped."""
    made = local_world(request.param, request, tmp_path)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def own(tmp_path: Path) -> AsyncIterator[LocalWorld]:
    """The local cloud without system accounts, for what does not depend on them."""
    made = LocalWorld.own(tmp_path)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def kube(kube_place: tuple[Cluster, str], tmp_path: Path) -> AsyncIterator[KubernetesWorld]:
    """The cluster."""
    made = await KubernetesWorld(*kube_place, tmp_path).open()
    yield made
    await made.close()


@pytest.fixture(
    params=[
        "own-account",
        "system-users",
        pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    """Of a cloud, with what it needs at hand."""
    if request.param == "kubernetes":
        request.getfixturevalue("kube_place")  # has an event loop of its own
    return request.param


@pytest_asyncio.fixture
async def world(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> AsyncIterator[World]:
    """Each cloud in turn."""
    made: World
    if kind == "kubernetes":
        made = await KubernetesWorld(*request.getfixturevalue("kube_place"), tmp_path).open()
    else:
        made = local_world(kind, request, tmp_path)
    yield made
    await made.close()
