"""Homes and accounts of EraLocalSpawner."""

from __future__ import annotations

import logging
import os
import stat

import pytest

from era_spawner import EraLocalSpawner

from .kinds import LocalKind, spawner


def test_home_per_user(tmp_path):
    one = spawner("http://127.0.0.1:1", tmp_path)
    one.user.name = "../ann"
    assert one.home.parent == tmp_path
    env = one.user_env({})
    assert (env["USER"], env["HOME"]) == ("../ann", str(one.home))


@pytest.mark.asyncio
async def test_home_is_made_for_its_user_alone(tmp_path, service):
    service.accept()
    kind = LocalKind(tmp_path)
    one = kind.make(service.url)
    await one.start()
    try:
        assert (await kind.environment(one))["HOME"] == str(one.home)
        assert stat.S_IMODE(one.home.stat().st_mode) == 0o700
    finally:
        await one.stop(now=True)


@pytest.mark.parametrize(("euid", "arguments"), [(0, ["--x", "--allow-root"]), (1000, ["--x"])])
def test_root_must_be_allowed(tmp_path, monkeypatch, euid, arguments):
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    one = spawner("http://127.0.0.1:1", tmp_path, args=["--x"])
    assert one.get_args() == arguments
    assert one.args == ["--x"]
    assert spawner("http://127.0.0.1:1", tmp_path, args=["--x"], system_users=True).get_args() == [
        "--x"
    ]


@pytest.mark.parametrize("euid", [0, 1000])
def test_system_users_by_default_as_root(monkeypatch, euid):
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    assert EraLocalSpawner().system_users is (euid == 0)


@pytest.mark.asyncio
async def test_no_isolation_is_said_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(EraLocalSpawner, "_warned", False)
    for _ in range(2):
        one = spawner("http://127.0.0.1:1", tmp_path)
        one.log = logging.getLogger("test-spawner")
        with pytest.raises(Exception, match="unavailable"):
            await one.start()
    assert caplog.text.count("nothing isolates users") == 1
    assert await one.move_certs({"keyfile": "k"}) == {"keyfile": "k"}
