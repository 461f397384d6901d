"""What the local cloud believes of files that users can write, and whom it runs jobs as."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from era_hub.client.paths import user_home
from era_hub.clouds import runner
from era_hub.clouds.base import CloudError, JobStatus, Phase

from .worlds import STUBBORN, LocalWorld, gone


@pytest.mark.asyncio
async def test_what_is_not_a_plain_log_is_not_read(local: LocalWorld, tmp_path: Path) -> None:
    spec = local.script("print('mine')")
    await local.run(spec)
    log = local.directory(spec) / "log"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    log.unlink()
    log.symlink_to(secret)
    assert await local.log(spec) == ""
    log.unlink()
    os.mkfifo(log)
    os.chown(log, local.uid, -1)
    assert await local.log(spec) == ""
    log.unlink()
    log.mkdir()
    assert await local.log(spec) == ""
    if local.uid != os.geteuid():
        log.rmdir()
        secret = local.home / "secret"
        secret.write_text("secret")  # belongs to root
        log.hardlink_to(secret)
        assert await local.log(spec) == ""


@pytest.mark.asyncio
async def test_no_link_is_followed_on_the_way(local: LocalWorld, tmp_path: Path) -> None:
    spec = local.script("print('mine')")
    await local.run(spec)
    directory = local.directory(spec)
    elsewhere = directory.rename(directory.with_name("elsewhere"))
    directory.symlink_to(elsewhere)
    assert await local.log(spec) == ""
    assert await local.status(spec) == JobStatus(Phase.UNKNOWN)


@pytest.mark.asyncio
async def test_jobs_may_not_lie_behind_a_link(own: LocalWorld, tmp_path: Path) -> None:
    own.home.mkdir()
    (own.home / "era-jobs").symlink_to(tmp_path)
    with pytest.raises(CloudError, match="may not be a symbolic link"):
        await own.cloud.start(own.script(""))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "change",
    [
        {"pid": 1.5},
        {"pid": -1},
        {"pid": True},
        {"birth": None},
        {"phase": "unknown"},
        {"phase": ["ended"]},
        {"exit_code": "0"},
        {"exit_code": 1 << 70},
        {"timed_out": 1},
        {"message": "\ud800"},
        {"message": None},
        {"end": "0"},
        {"run": -1},
        {"run": None},
        {"surplus": 1},
    ],
)
async def test_a_forged_status_is_not_believed(own: LocalWorld, change: dict[str, Any]) -> None:
    spec = own.script("")
    await own.run(spec)
    path = own.directory(spec) / ".era/status.json"
    path.write_text(json.dumps(own.record(spec) | change))
    status = await own.status(spec)
    assert status == JobStatus(Phase.ENDED, message="the job's status file was damaged")


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["", "{", "null", "[" * 4096, '{"pid": 1}', "\xff"])
async def test_a_damaged_status_is_the_end(own: LocalWorld, text: str) -> None:
    spec = own.script("import time; time.sleep(60)")
    await own.cloud.start(spec)
    (own.directory(spec) / ".era/status.json").write_bytes(text.encode("latin-1"))
    status = await own.status(spec)
    assert status == JobStatus(Phase.ENDED, message="the job's status file was damaged")


@pytest.mark.asyncio
async def test_no_other_process_is_taken_for_the_supervisor(own: LocalWorld) -> None:
    spec = own.script("")
    await own.run(spec)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        forged = own.record(spec) | {"phase": "running", "pid": bystander.pid}
        (own.directory(spec) / ".era/status.json").write_text(json.dumps(forged))
        await own.cloud.stop(spec.id, spec.user)
        status = await own.status(spec)
        assert bystander.poll() is None
        assert status == JobStatus(Phase.ENDED, message="the job's supervisor was killed")
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.asyncio
async def test_a_job_that_claims_to_have_ended_is_ended(local: LocalWorld) -> None:
    spec = local.script(STUBBORN)
    await local.cloud.start(spec)
    daemon = int(await local.wrote(spec, "daemon"))
    forged = local.record(spec) | {"phase": "ended", "exit_code": 0}
    (local.directory(spec) / ".era/status.json").write_text(json.dumps(forged))
    assert (await local.status(spec)).phase is Phase.ENDED
    await gone(daemon)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"command": []}, "no command"),
        ({"end": 1_000_000_000}, "ended already"),
        ({"gpus": (1, 4)}, "no GPU 4"),
        ({"files": {"../script.py": ""}}, "name of a job's file"),
        ({"files": {"/etc/passwd": ""}}, "name of a job's file"),
        ({"files": {"log": ""}}, "name of a job's file"),
        ({"files": {".era": ""}}, "name of a job's file"),
        ({"files": {".era-0": ""}}, "name of a job's file"),
        ({"user": ""}, "home directory"),
    ],
)
async def test_bad_jobs_are_refused(own: LocalWorld, change: dict[str, Any], match: str) -> None:
    with pytest.raises(CloudError, match=match):
        await own.cloud.start(own.script("", **change))
    assert not own.home.exists()


@pytest.mark.asyncio
async def test_a_home_that_cannot_be_made_is_told(own: LocalWorld) -> None:
    own.home.write_text("a file in the way")
    with pytest.raises(CloudError, match="the job's directory can't be made: Not a directory"):
        await own.cloud.start(own.script(""))


@pytest.mark.asyncio
async def test_a_python_that_cannot_run_is_told(own: LocalWorld) -> None:
    with pytest.raises(CloudError, match="/no/such/python can't be run as ann"):
        await own.another(python="/no/such/python").start(own.script(""))
    with pytest.raises(CloudError, match="supervisor did not start: no answer"):
        await own.another(python="/bin/true").start(own.script(""))


# Accounts, paths and the status file


@pytest.mark.asyncio
async def test_jobs_run_with_the_identity_of_their_account(
    account: tuple[pwd.struct_passwd, str],
) -> None:
    entry, python = account
    options = {"system_users": True, "python": python}
    local = LocalWorld(options, entry.pw_name, entry.pw_uid, Path(entry.pw_dir))
    spec = local.script("import os; print(os.getresuid(), os.getresgid(), os.getgroups())")
    await local.run(spec)
    uid, gid = entry.pw_uid, entry.pw_gid
    assert await local.log(spec) == f"{(uid,) * 3} {(gid,) * 3} {[gid]}\n"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["root", "no-such-account", "../root", "nul\0", ""])
async def test_only_ordinary_accounts_run_jobs(own: LocalWorld, name: str) -> None:
    cloud = own.another(system_users=True)
    with pytest.raises(CloudError, match="superuser|no account named"):
        await cloud.start(own.script("", user=name))


def test_homes_neither_collide_nor_leave_their_root(tmp_path: Path) -> None:
    names = ["ann", "Ann", ".", "..", "%2E", "%2E%2E", "a/b", "a%2Fb", "../ann", "/etc", "ä", "\0"]
    homes = [user_home(tmp_path, name) for name in names]
    assert len(set(homes)) == len(names)
    assert all(home.parent == tmp_path and home.resolve() == home for home in homes)
    assert homes[0] == tmp_path / "ann"


@pytest.mark.parametrize("name", ["", "\ud800"])
def test_names_without_a_home(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        user_home(tmp_path, name)


def test_the_end_is_written_even_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.save(tmp_path, runner.Record(2, "then"))

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    record = runner.Record(2, "then", "ended", 1)
    runner.save(tmp_path, record)
    text = (tmp_path / runner.STATUS).read_text()
    assert runner.Record(**json.loads(text)) == record
    assert len(text) == runner.STATUS_SIZE


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (None, ""),
        (0, ""),
        (3, "ended with exit code 3"),
        (137, "ended with exit code 137 (perhaps out of memory)"),
        (-9, "killed by signal 9 (perhaps out of memory)"),
        (-15, "killed by signal 15 (SIGTERM)"),
        (-45, "killed by signal 45"),
    ],
)
def test_exit_codes_in_words(code: int | None, text: str) -> None:
    assert runner.describe(code) == text


def test_the_supervisor_needs_only_the_standard_library() -> None:
    ran = subprocess.run(
        [sys.executable, "-I", "-S", runner.__file__], input=b"", capture_output=True
    )
    assert json.loads(ran.stdout) == {"error": "the order was not understood"}
    assert ran.stderr == b""
