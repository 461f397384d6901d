"""What every cloud must do.

Real processes run here, on this machine or in pods. Times are checked against the
deadline itself, never against how long something took.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from era_hub.clouds.base import CloudError, JobStatus, Phase

from .worlds import World

pytestmark = pytest.mark.asyncio

SLEEP = "import time; print('started'); time.sleep(60)"

POLITE = """
    import signal, sys, time
    def on_term(*_):
        print("told", time.time())
        sys.exit(3)
    signal.signal(signal.SIGTERM, on_term)
    print("ready")
    time.sleep(60)
"""


# The life of a job


async def test_a_job_runs_in_a_directory_of_its_own_and_leaves_its_output(world: World) -> None:
    spec = world.script(
        """
        import os, pathlib, sys
        pathlib.Path("model.txt").write_bytes(pathlib.Path("data.txt").read_bytes() * 2)
        print(os.getcwd(), flush=True)
        print("to stderr", file=sys.stderr)
        """
    )
    spec.files["data.txt"] = "zwölf\r\n'\"$(HOME)`"
    assert (await world.status(spec)).phase is Phase.UNKNOWN
    directory = Path(await world.cloud.start(spec))
    assert await world.ended(spec) == JobStatus(Phase.ENDED, 0)
    assert directory == world.directory(spec)
    assert (directory / "model.txt").read_bytes() == spec.files["data.txt"].encode() * 2
    assert await world.log(spec) == f"{directory}\nto stderr\n"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {path.stat().st_uid for path in (directory, *directory.iterdir())} == {world.uid}


async def test_exit_codes_are_told(world: World) -> None:
    status = await world.run(world.script("raise SystemExit(7)"))
    assert status == JobStatus(Phase.ENDED, 7, message="ended with exit code 7")
    status = await world.run(world.script("import os; os.kill(os.getpid(), 9)"))
    assert status == JobStatus(
        Phase.ENDED, -9, message="killed by signal 9 (perhaps out of memory)"
    )
    status = await world.run(world.script("import os; os.abort()"))
    assert status == JobStatus(Phase.ENDED, -6, message="killed by signal 6 (SIGABRT)")


async def test_the_log_is_read_in_pieces(world: World) -> None:
    spec = world.script("print('0123456789' * 3, end='')")
    assert await world.cloud.read_log(spec.id, spec.user, 0, 10) == b""
    await world.run(spec)
    read = world.cloud.read_log
    assert await read(spec.id, spec.user, 0, 12) == b"012345678901"
    assert await read(spec.id, spec.user, 12, 100) == b"234567890123456789"
    for offset, limit in ((30, 10), (10**30, 10), (0, 0), (0, -1)):
        assert await read(spec.id, spec.user, offset, limit) == b""
    assert await read(spec.id, spec.user, -5, 100) == b"56789"
    assert await read(spec.id, spec.user, -5, 2) == b"56"
    assert await read(spec.id, spec.user, -(10**30), 2) == b"01"


async def test_the_log_can_be_read_while_the_job_runs(world: World) -> None:
    spec = world.script(
        """
        import pathlib, time
        print("step 1")
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
        print("step 2")
        time.sleep(60)
        """
    )
    await world.cloud.start(spec)
    assert await world.said(spec, "step 1") == "step 1\n"
    (world.directory(spec) / "go").touch()
    assert await world.said(spec, "step 2") == "step 1\nstep 2\n"
    assert await world.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)


async def test_nobody_reads_the_log_of_another(world: World) -> None:
    spec = world.script("print('mine')")
    await world.run(spec)
    for user in ("anna", "an", "../ann"):
        try:
            assert await world.cloud.read_log(spec.id, user, 0, 100) == b""
        except CloudError as error:
            assert "account" in str(error)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["no-such-program"], 127, "command not found: no-such-program"),
        (["./no-such-program"], 127, "command not found: ./no-such-program"),
        (["./plain"], 126, "permission denied: ./plain is not executable"),
    ],
)
async def test_a_command_that_cannot_run_says_why(
    world: World, command: list[str], code: int, message: str
) -> None:
    spec = world.script("", command=command, files={"plain": "text"})
    status = await world.run(spec)
    assert status.exit_code == code
    assert status.message.startswith(message.partition(":")[0])
    assert await world.log(spec) == f"{message}\n"


async def test_large_files_arrive_whole(world: World) -> None:
    text = "".join(f"{n} {n * n}\n" for n in range(60_000))
    source = "import hashlib; print(hashlib.sha256(open('data', 'rb').read()).hexdigest())"
    spec = world.script(source)
    spec.files["data"] = text[:1_000_000]
    assert (await world.run(spec)).exit_code == 0
    digest = hashlib.sha256(spec.files["data"].encode()).hexdigest()
    assert await world.log(spec) == f"{digest}\n"


# The environment of a job


async def test_a_job_sees_its_end_and_what_its_user_has_set(world: World) -> None:
    spec = world.script(
        "import json, os; print(json.dumps(dict(os.environ)))",
        environment={"EPOCHS": "5", "TEXT": "a 'b' $(HOME)\n", "ERA_JOB_ID": "x", "ERA_RUN": "9"},
    )
    await world.run(spec)
    seen = json.loads(await world.log(spec))
    assert (seen["EPOCHS"], seen["TEXT"]) == ("5", "a 'b' $(HOME)\n")
    assert (seen["ERA_JOB_ID"], seen["ERA_RUN"]) == (spec.id, "0")
    assert seen["ERA_DIRECTORY"] == str(world.directory(spec))
    assert seen["ERA_END_EPOCH"] == str(spec.end)
    assert seen["ERA_END"] == time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(spec.end))
    assert seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


async def test_a_job_without_gpus_sees_none(world: World) -> None:
    spec = world.script(
        """
        import os
        print([os.environ[f"{name}_VISIBLE_DEVICES"] for name in ("CUDA", "NVIDIA")])
        """
    )
    await world.run(spec)
    assert await world.log(spec) == "['', 'none']\n"


# The end


async def test_a_job_that_saves_its_work_in_time_ends_well(world: World) -> None:
    spec = world.script(
        """
        import pathlib, signal, sys, time
        def save(*_):
            pathlib.Path("told").write_text(f"{time.time()}\\n")
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print("ready")
        time.sleep(60)
        """,
        lasts=3,
    )
    status = await world.run(spec)
    assert world.had(status, 0)
    assert replace(status, exit_code=0) == JobStatus(
        Phase.ENDED, 0, timed_out=True, message="stopped at the end of its reservation"
    )
    assert spec.end - spec.grace - 1 <= float(await world.wrote(spec, "told")) < spec.end
    assert (await world.log(spec)).startswith("ready\n")


async def test_stop_ends_a_job_that_may_save_its_work(world: World) -> None:
    spec = world.script(POLITE)
    await world.cloud.start(spec)
    await world.said(spec, "ready")
    for _ in range(3):
        await world.cloud.stop(spec.id, spec.user)
    status = await world.ended(spec)
    assert world.had(status, 3)
    assert replace(status, exit_code=3) == JobStatus(Phase.ENDED, 3, message="stopped on request")
    await world.cloud.stop(spec.id, spec.user)
    assert await world.status(spec) == status
    assert (await world.log(spec)).startswith("ready\n")


async def test_stopping_what_never_ran_is_harmless(world: World) -> None:
    spec = world.script("")
    await world.cloud.stop(spec.id, spec.user)
    assert await world.status(spec) == JobStatus(Phase.UNKNOWN)


async def test_a_job_that_has_ended_stays_as_it_ended(world: World) -> None:
    spec = world.script("raise SystemExit(7)")
    status = await world.run(spec)
    await world.cloud.stop(spec.id, spec.user)
    cloud = await world.restarted()
    assert await cloud.status(spec.id, spec.user) == await world.status(spec) == status


# More time


async def test_a_running_job_is_given_more_time(world: World) -> None:
    spec = world.script(POLITE, lasts=4)
    await world.cloud.start(spec)
    assert (await world.status(spec)).end == spec.end
    end = spec.end + 3
    for _ in range(2):
        await world.cloud.extend(spec.id, spec.user, end)
    await world.knows(spec, end)
    status = await world.ended(spec)
    assert time.time() >= end - spec.grace - 1
    assert world.had(status, 3) and status.timed_out


async def test_more_time_reaches_a_job_that_outlived_the_service(world: World) -> None:
    spec = world.script(SLEEP)
    await world.cloud.start(spec)
    await world.said(spec, "started")
    await (await world.restarted()).extend(spec.id, spec.user, spec.end + 60)
    await world.knows(spec, spec.end + 60)
    await (await world.restarted()).stop(spec.id, spec.user)
    assert world.had(await world.ended(spec), -15)


async def test_no_job_is_given_less_time(world: World) -> None:
    spec = world.script(SLEEP)
    await world.cloud.start(spec)
    await world.cloud.extend(spec.id, spec.user, spec.end - 30)
    await world.cloud.extend(spec.id, spec.user, spec.end + 30)
    await world.knows(spec, spec.end + 30)
    await world.cloud.extend(spec.id, spec.user, spec.end + 10)
    assert (await world.status(spec)).end == spec.end + 30


async def test_what_has_ended_or_never_ran_is_given_no_time(world: World) -> None:
    spec = world.script("")
    await world.cloud.extend(spec.id, spec.user, spec.end + 60)
    assert not world.directory(spec).exists()
    status = await world.run(spec)
    await world.cloud.extend(spec.id, spec.user, spec.end + 60)
    assert await world.status(spec) == status


# Started once, found again


async def test_a_job_is_started_once(world: World) -> None:
    spec = world.script("import time; print('started'); time.sleep(0.2)")
    clouds = [world.cloud, await world.restarted()] * 3
    directories = await asyncio.gather(*(cloud.start(spec) for cloud in clouds))
    assert set(directories) == {str(world.directory(spec))}
    await world.ended(spec)
    for cloud in (world.cloud, await world.restarted()):
        assert await cloud.start(spec) == directories[0]
    assert await world.ended(spec) == JobStatus(Phase.ENDED, 0)
    assert await world.log(spec) == "started\n"
    names = {path.name for path in world.directory(spec).iterdir()}
    assert names - {".era", "log"} == {"script.py"}


async def test_a_restarted_service_finds_its_jobs(world: World) -> None:
    spec = world.script(
        """
        import pathlib, sys, time
        print("started")
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
        sys.exit(7)
        """
    )
    await world.cloud.start(spec)
    await world.said(spec, "started")
    await world.cloud.close()
    world.cloud = cloud = await world.restarted()
    assert await world.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)
    await cloud.start(spec)
    (world.directory(spec) / "go").touch()
    assert (await world.ended(spec)).exit_code == 7
    assert await world.log(spec) == "started\n"


async def test_close_leaves_jobs_running(world: World) -> None:
    spec = world.script(SLEEP)
    await world.cloud.start(spec)
    await world.said(spec, "started")
    await world.cloud.close()
    assert await world.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)
    cloud = await world.restarted()
    assert await cloud.status(spec.id, spec.user) == JobStatus(Phase.RUNNING, end=spec.end)


async def test_what_runs_for_jobs_is_found(world: World) -> None:
    spec = world.script(SLEEP)
    await world.cloud.start(spec)
    await world.said(spec, "started")
    assert spec.id in {each.id for each in await world.cloud.workloads()}
    await world.cloud.stop(spec.id, spec.user)
    await world.ended(spec)

    async def none_left() -> bool:
        return spec.id not in {each.id for each in await world.cloud.workloads()}

    assert await world.until(none_left)


async def test_what_the_market_has_settled_keeps_its_log(world: World) -> None:
    spec = world.script("print('done')")
    await world.run(spec)
    for _ in range(2):
        await world.cloud.forget(spec.id, spec.user)
    assert await world.log(spec) == "done\n"


# Several runs


COUNTING = """
    import pathlib, sys
    step = int(pathlib.Path("step.txt").read_text())
    pathlib.Path("step.txt").write_text(str(step + 1))
    print("step", step)
    sys.exit(step)
"""


async def test_a_later_run_goes_on_where_the_earlier_one_was(world: World) -> None:
    spec = world.script(COUNTING)
    spec.files["step.txt"] = "0"
    assert await world.run(spec) == JobStatus(Phase.ENDED, 0)
    for run in (1, 2):
        await world.cloud.start(replace(spec, run=run))
        status = await world.ended(spec)
        assert (status.run, status.exit_code) == (run, run)
    assert await world.log(spec) == "step 0\nstep 1\nstep 2\n"


async def test_each_run_is_started_once(world: World) -> None:
    spec = world.script("print('started')")
    await world.run(spec)
    clouds = [world.cloud, await world.restarted()] * 3
    await asyncio.gather(*(cloud.start(replace(spec, run=1)) for cloud in clouds))

    async def second() -> bool:
        return (await world.status(spec)).run == 1

    await world.until(second)
    assert (await world.ended(spec)).run == 1
    cloud = await world.restarted()
    for run in (0, 1):
        await cloud.start(replace(spec, run=run))
    assert await world.status(spec) == JobStatus(Phase.ENDED, 0, run=1)
    assert await world.log(spec) == "started\nstarted\n"


async def test_no_run_starts_while_the_job_still_runs(world: World) -> None:
    spec = world.script(SLEEP)
    await world.cloud.start(spec)
    for cloud in (world.cloud, await world.restarted()):
        with pytest.raises(CloudError, match="still runs"):
            await cloud.start(replace(spec, run=1))
    assert await world.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)


# What is refused


@pytest.mark.parametrize(
    "job_id", ["", "..", "../../etc", "a/b", f"{{{uuid.UUID(int=7)}}}", uuid.UUID(int=7).hex, "x\0"]
)
async def test_bad_ids_are_refused(world: World, job_id: str) -> None:
    spec = world.script("", id=job_id)
    cloud = world.cloud
    for call in (
        cloud.start(spec),
        cloud.status(job_id, spec.user),
        cloud.stop(job_id, spec.user),
        cloud.read_log(job_id, spec.user, 0, 10),
    ):
        with pytest.raises(CloudError):
            await call


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"command": []}, "no command"),
        ({"end": 1_000_000_000}, "ended already"),
        ({"files": {"../script.py": ""}}, "name of a job's file"),
        ({"files": {"/etc/passwd": ""}}, "name of a job's file"),
        ({"files": {"log": ""}}, "name of a job's file"),
        ({"files": {".era": ""}}, "name of a job's file"),
        ({"files": {".era-0": ""}}, "name of a job's file"),
    ],
)
async def test_bad_jobs_are_refused(world: World, change: dict[str, object], match: str) -> None:
    spec = world.script("", **change)
    with pytest.raises(CloudError, match=match):
        await world.cloud.start(spec)
    assert await world.status(spec) == JobStatus(Phase.UNKNOWN)
