"""What is special about the local cloud: processes, accounts, files that users can write.

Real processes run here. Times are checked against the deadline itself, never
against how long something took.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from era_hub.clouds import runner
from era_hub.clouds.base import CloudError, JobStatus, Node, Phase
from era_hub.clouds.local import CLOSE_SECONDS, LocalCloud
from era_pricing.inventory import POOL

from .worlds import PATIENCE, STUBBORN, LocalWorld, gone, until

ROOT = Path(__file__).parents[3]


# What there is


def test_a_machine_is_one_node_with_all_its_gpus(tmp_path: Path) -> None:
    cloud = LocalCloud(home_root=str(tmp_path), simulated_gpus=4)
    assert cloud.nodes == (Node(POOL, {"nvidia.com/gpu": "4"}),)
    assert [gpu.index for gpu in cloud.gpus] == [0, 1, 2, 3]


# The life of a job


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["no-such-program"], 127, "command not found: no-such-program"),
        (["./no-such-program"], 127, "command not found: ./no-such-program"),
        (["./plain"], 126, "permission denied: ./plain is not executable"),
        (["echo", "nul\0"], 126, "echo can't be run: embedded null byte"),
    ],
)
async def test_a_command_that_cannot_run_says_why(
    local: LocalWorld, command: list[str], code: int, message: str
) -> None:
    spec = local.script("", command=command, files={"plain": "text"})
    assert await local.run(spec) == JobStatus(Phase.ENDED, code, message=message)
    assert await local.log(spec) == f"{message}\n"


@pytest.mark.asyncio
async def test_a_script_with_a_missing_interpreter_says_so(own: LocalWorld) -> None:
    spec = own.script("", command=["./tool"])
    own.directory(spec).mkdir(parents=True)
    tool = own.directory(spec) / "tool"
    tool.write_text("#!/no/such/python\n")
    tool.chmod(0o755)
    status = await own.run(spec)
    assert status.exit_code == 127
    assert status.message == "the interpreter in the first line of ./tool does not exist"


@pytest.mark.asyncio
async def test_what_the_command_leaves_behind_is_killed(local: LocalWorld) -> None:
    spec = local.script(
        """
        import subprocess
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        print(child.pid)
        """
    )
    assert await local.run(spec) == JobStatus(Phase.ENDED, 0)
    assert not psutil.pid_exists(int(await local.log(spec)))


# The environment of a job


@pytest.mark.asyncio
async def test_a_job_sees_its_gpus_and_its_end(local: LocalWorld) -> None:
    spec = local.script(
        "import json, os; print(json.dumps(dict(os.environ)))",
        gpus=(0, 3),
        environment={"EPOCHS": "5", "CUDA_VISIBLE_DEVICES": "0,1,2,3", "ERA_JOB_ID": "x"},
    )
    await local.run(spec)
    seen = json.loads(await local.log(spec))
    assert seen["EPOCHS"] == "5"
    assert seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert seen["CUDA_VISIBLE_DEVICES"] == seen["NVIDIA_VISIBLE_DEVICES"] == "0,3"
    assert seen["ERA_GPUS"] == "0,3"
    assert seen["ERA_JOB_ID"] == spec.id
    assert seen["ERA_RUN"] == "0"
    assert seen["ERA_DIRECTORY"] == str(local.directory(spec))
    assert seen["ERA_END_EPOCH"] == str(spec.end)
    assert seen["ERA_END"] == time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(spec.end))
    assert seen["HOME"] == str(local.home)
    assert seen["USER"] == seen["LOGNAME"] == local.user


@pytest.mark.asyncio
async def test_nothing_of_the_service_reaches_a_job(
    local: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "a-secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/the/service")
    spec = local.script(
        """
        import os
        print(dict(os.environ))
        print(open(f"/proc/{os.getppid()}/environ").read())
        for name in sorted(os.listdir("/proc/self/fd"), key=int):
            try:
                print("open:", name, os.readlink(f"/proc/self/fd/{name}"))
            except FileNotFoundError:
                pass  # the listing itself
        """
    )
    await local.run(spec)
    text = await local.log(spec)
    assert "ERA_JOB_ID" in text
    for word in ("JUPYTERHUB", "a-secret", "/of/the/service", "PYTEST"):
        assert word not in text
    files = [line.split()[1:] for line in text.splitlines() if line.startswith("open:")]
    log = str(local.directory(spec) / "log")
    assert files == [["0", "/dev/null"], ["1", log], ["2", log]]


@pytest.mark.asyncio
async def test_python_is_the_one_of_the_cloud(own: LocalWorld) -> None:
    spec = own.script("import sys; print(sys.prefix)", command=["python", "script.py"])
    await own.run(spec)
    assert await own.log(spec) == f"{sys.prefix}\n"


@pytest.mark.asyncio
async def test_signals_that_the_service_ignores_or_blocks_work_in_a_job(own: LocalWorld) -> None:
    spec = own.script(
        """
        import os, signal
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        os.kill(os.getpid(), signal.SIGINT)
        """
    )
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        await own.cloud.start(spec)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    await own.ended(spec)
    log = await own.log(spec)
    assert log.startswith("set()\n")
    assert "KeyboardInterrupt" in log


# The end


@pytest.mark.asyncio
async def test_the_end_of_the_reservation_is_enforced(local: LocalWorld) -> None:
    spec = local.script(STUBBORN, lasts=2)
    status = await local.run(spec)
    assert time.time() >= spec.end
    assert status == JobStatus(
        Phase.ENDED, -9, timed_out=True, message="stopped at the end of its reservation"
    )
    told = [float(line) for line in (await local.wrote(spec, "term")).split()]
    assert len(told) == 1
    assert spec.end - spec.grace <= told[0] < spec.end
    assert not psutil.pid_exists(int(await local.wrote(spec, "daemon")))


@pytest.mark.asyncio
async def test_stop_ends_a_job_with_its_grace(local: LocalWorld) -> None:
    spec = local.script(STUBBORN, grace=1)
    await local.cloud.start(spec)
    daemon = int(await local.wrote(spec, "daemon"))
    asked = time.monotonic()
    for _ in range(3):
        await local.cloud.stop(spec.id, spec.user)
    status = await local.ended(spec)
    assert time.monotonic() - asked >= spec.grace
    assert status == JobStatus(Phase.ENDED, -9, message="stopped on request")
    told = (await local.wrote(spec, "term")).split()
    assert len(told) == 1
    assert not psutil.pid_exists(daemon)
    await local.cloud.stop(spec.id, spec.user)
    assert await local.status(spec) == status


# More time


@pytest.mark.asyncio
async def test_a_running_job_is_given_more_time(local: LocalWorld) -> None:
    spec = local.script(STUBBORN, lasts=3)
    await local.cloud.start(spec)
    assert (await local.status(spec)).end == spec.end
    end = spec.end + 2
    for _ in range(2):
        await local.cloud.extend(spec.id, spec.user, end)
    await local.knows(spec, end)

    async def past_its_first_end() -> bool:
        return time.time() > spec.end

    await until(past_its_first_end)
    assert await local.status(spec) == JobStatus(Phase.RUNNING, end=end)
    status = await local.ended(spec)
    assert time.time() >= end
    assert status.timed_out
    told = [float(line) for line in (await local.wrote(spec, "term")).split()]
    assert len(told) == 1
    assert end - spec.grace <= told[0] < end
    assert not psutil.pid_exists(int(await local.wrote(spec, "daemon")))


@pytest.mark.asyncio
async def test_a_job_that_is_being_stopped_gets_no_more_time(own: LocalWorld) -> None:
    spec = own.script(STUBBORN, lasts=60, grace=2)
    await own.cloud.start(spec)
    await own.wrote(spec, "daemon")
    await own.cloud.stop(spec.id, spec.user)
    await own.wrote(spec, "term")
    await own.cloud.extend(spec.id, spec.user, spec.end + 60)
    assert (await own.ended(spec)).message == "stopped on request"


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["", "soon", "-1", "9" * 30, "\0"])
async def test_an_end_that_makes_no_sense_is_none(own: LocalWorld, text: str) -> None:
    spec = own.script("import time; time.sleep(60)")
    await own.cloud.start(spec)
    (own.directory(spec) / ".era/end").write_text(text)
    os.kill(own.record(spec)["pid"], signal.SIGCHLD)
    assert await own.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)
    await own.cloud.extend(spec.id, spec.user, spec.end + 60)
    await own.knows(spec, spec.end + 60)


@pytest.mark.asyncio
async def test_a_job_that_cannot_be_told_says_so(own: LocalWorld) -> None:
    spec = own.script("import time; time.sleep(60)")
    await own.cloud.start(spec)
    (own.directory(spec) / ".era/end").mkdir()
    with pytest.raises(CloudError, match="can't be told of its new end"):
        await own.cloud.extend(spec.id, spec.user, spec.end + 60)


# What runs


@pytest.mark.asyncio
async def test_everything_that_runs_for_jobs_is_found(local: LocalWorld) -> None:
    spec = local.script(STUBBORN)
    await local.cloud.start(spec)
    daemon = await local.wrote(spec, "daemon")
    supervisor = local.record(spec)["pid"]
    found = [each.what for each in await local.cloud.workloads() if each.id == spec.id]
    # A child may come and go; the two that stay are among them.
    assert {f"process {daemon.strip()}", f"process {supervisor}"} <= set(found)
    await local.cloud.stop(spec.id, spec.user)
    await local.ended(spec)

    async def none_left() -> bool:
        return spec.id not in {each.id for each in await local.cloud.workloads()}

    # The supervisor says that the job has ended just before it ends itself.
    assert await until(none_left)


@pytest.mark.asyncio
async def test_a_suspended_supervisor_can_be_stopped(local: LocalWorld) -> None:
    spec = local.script("import time; time.sleep(60)")
    await local.cloud.start(spec)
    os.kill(local.record(spec)["pid"], signal.SIGSTOP)
    await local.cloud.stop(spec.id, spec.user)
    assert (await local.ended(spec)).exit_code == -15


@pytest.mark.asyncio
async def test_no_zombies_are_left(own: LocalWorld) -> None:
    spec = own.script("")
    await own.run(spec)

    async def reaped() -> bool:
        return not any("runner.py" in str(process) for process in psutil.Process().children())

    await gone(own.record(spec)["pid"])
    await until(reaped)
    states = [process.status() for process in psutil.Process().children()]
    assert psutil.STATUS_ZOMBIE not in states


@pytest.mark.asyncio
async def test_close_stops_jobs_if_so_configured(local: LocalWorld) -> None:
    specs = [local.script("import time; time.sleep(60)") for _ in range(3)]
    cloud = local.another(stop_on_exit=True)
    for spec in specs:
        await cloud.start(spec)
    before = time.monotonic()
    await cloud.close()
    assert time.monotonic() - before < CLOSE_SECONDS
    for spec in specs:
        assert (await local.status(spec)).phase is Phase.ENDED


@pytest.mark.asyncio
async def test_close_does_not_wait_for_a_long_grace(
    own: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("era_hub.clouds.local.CLOSE_SECONDS", 0.2)
    spec = own.script(STUBBORN, lasts=10_000, grace=1_000)
    await own.cloud.start(spec)
    await own.wrote(spec, "daemon")
    own.cloud.stop_on_exit = True
    await own.cloud.close()
    status = await own.status(spec)
    assert status == JobStatus(Phase.ENDED, -9, message="stopped on request")


# Started once, found again


SERVICE = """
import asyncio, json, sys
from era_hub.clouds.base import JobSpec
from era_hub.clouds.local import LocalCloud

async def main():
    options, spec = json.load(sys.stdin)
    print(await LocalCloud(**options).start(JobSpec(**spec)), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_a_restarted_service_finds_its_jobs(local: LocalWorld) -> None:
    spec = local.script(
        """
        import pathlib, sys, time
        print("started")
        while not pathlib.Path("go").exists():
            time.sleep(0.02)
        sys.exit(7)
        """
    )
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert service.stdin and service.stdout
    with service.stdin, service.stdout:
        service.stdin.write(json.dumps([local.options, asdict(spec)]).encode())
        service.stdin.close()
        answer = await asyncio.to_thread(service.stdout.readline)
        service.kill()
        service.wait()
    assert answer.decode().strip() == str(local.directory(spec))
    assert await local.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)
    await local.cloud.start(spec)
    (local.directory(spec) / "go").touch()
    assert (await local.ended(spec)).exit_code == 7
    assert await local.log(spec) == "started\n"


# Several runs


@pytest.mark.asyncio
async def test_more_time_is_for_the_run_that_gets_it(own: LocalWorld) -> None:
    spec = own.script("import sys, time; time.sleep(60)")
    await own.cloud.start(spec)
    await own.cloud.extend(spec.id, spec.user, spec.end + 60)
    await own.knows(spec, spec.end + 60)
    await own.cloud.stop(spec.id, spec.user)
    await own.ended(spec)
    await own.cloud.start(replace(spec, run=1))
    assert await own.status(spec) == JobStatus(Phase.RUNNING, end=spec.end, run=1)


@pytest.mark.asyncio
async def test_what_is_in_the_way_of_a_later_run_is_told(own: LocalWorld) -> None:
    spec = own.script("")
    await own.run(spec)
    (own.directory(spec) / ".era-0/mine").mkdir(parents=True)
    with pytest.raises(CloudError, match=r"is in the way: .*\.era"):
        await own.cloud.start(replace(spec, run=1))
    assert await own.status(spec) == JobStatus(Phase.ENDED, 0)


@pytest.mark.asyncio
async def test_a_restart_of_the_machine_is_not_the_jobs_fault(
    own: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = own.script("import time; time.sleep(60)")
    await own.cloud.start(spec)
    os.kill(supervisor := own.record(spec)["pid"], signal.SIGKILL)
    await gone(supervisor)
    monkeypatch.setattr(psutil, "boot_time", lambda: time.time() + 1)
    status = await own.status(spec)
    assert status == JobStatus(Phase.ENDED, message="this machine was restarted", lost=True)


@pytest.mark.asyncio
async def test_a_killed_supervisor_leaves_nothing_behind(local: LocalWorld) -> None:
    spec = local.script(STUBBORN)
    await local.cloud.start(spec)
    daemon = int(await local.wrote(spec, "daemon"))
    os.kill(supervisor := local.record(spec)["pid"], signal.SIGKILL)
    await gone(supervisor)
    status = await local.status(spec)
    assert status == JobStatus(Phase.ENDED, message="the job's supervisor was killed")
    await gone(daemon)


@pytest.mark.asyncio
async def test_a_job_that_ends_while_looked_at_keeps_its_exit_code(
    own: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = own.script("import time; time.sleep(0.2); raise SystemExit(7)")
    await own.cloud.start(spec)

    def too_late(record: runner.Record, uid: int) -> bool:
        psutil.Process(record.pid).wait(PATIENCE)
        return False

    monkeypatch.setattr("era_hub.clouds.local._alive", too_late)
    assert (await own.status(spec)).exit_code == 7


@pytest.mark.asyncio
async def test_an_order_that_breaks_off_starts_nothing(own: LocalWorld) -> None:
    spec = own.script("")
    order = json.dumps({"directory": str(own.directory(spec)), "command": ["touch", "x"]})
    for part in (order[:-5], order, "[]", ""):
        ran = subprocess.run(
            [sys.executable, "-I", runner.__file__], input=part.encode(), capture_output=True
        )
        assert json.loads(ran.stdout) == {"error": "the order was not understood"}
    assert not own.directory(spec).exists()
