"""The contract of the clouds, and what is special about the local one.

Real processes run here. Times are checked against the deadline itself, never
against how long something took.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from era_hub.client.paths import user_home
from era_hub.clouds import runner
from era_hub.clouds.base import CloudError, JobSpec, JobStatus, Node, Phase
from era_hub.clouds.local import CLOSE_SECONDS, LocalCloud
from era_pricing.inventory import POOL

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds until a test that waits has failed


@dataclass
class World:
    """A cloud with a user, and what a test needs to know of both."""

    options: dict[str, Any]
    user: str
    uid: int
    home: Path
    cloud: LocalCloud = field(init=False)

    def __post_init__(self) -> None:
        self.cloud = self.restarted()

    def restarted(self, **options: Any) -> LocalCloud:
        """The cloud as a restarted service sees it."""
        return LocalCloud(**(self.options | options))

    def script(self, source: str, *, lasts: float = 60, **options: Any) -> JobSpec:
        """A job that runs Python source and is entitled to `lasts` seconds."""
        return JobSpec(
            **{
                "id": str(uuid.uuid4()),
                "user": self.user,
                "command": [self.cloud.python, "script.py"],
                "gpus": (),
                "end": math.ceil(time.time() + lasts),
                "grace": 1,
                "files": {"script.py": textwrap.dedent(source)},
            }
            | options
        )

    def directory(self, spec: JobSpec) -> Path:
        return self.home / "era-jobs" / spec.id

    async def status(self, spec: JobSpec) -> JobStatus:
        return await self.cloud.status(spec.id, spec.user)

    async def log(self, spec: JobSpec) -> str:
        return (await self.cloud.read_log(spec.id, spec.user, 0, 1 << 20)).decode()

    async def ended(self, spec: JobSpec) -> JobStatus:
        async def over() -> JobStatus | None:
            status = await self.status(spec)
            return status if status.phase is Phase.ENDED else None

        return await until(over)

    async def run(self, spec: JobSpec) -> JobStatus:
        await self.cloud.start(spec)
        return await self.ended(spec)

    async def wrote(self, spec: JobSpec, name: str) -> str:
        """Content of a file once the job has written it (a line, to its end)."""
        path = self.directory(spec) / name

        async def line() -> str | None:
            text = path.read_text() if path.exists() else ""
            return text if text.endswith("\n") else None

        return await until(line)

    def record(self, spec: JobSpec) -> dict[str, Any]:
        return json.loads((self.directory(spec) / ".era/status.json").read_text())


async def until(question: Callable[[], Any]) -> Any:
    """The first answer of an async function that is true."""
    give_up = time.monotonic() + PATIENCE
    while not (answer := await question()):
        assert time.monotonic() < give_up, "waited too long"
        await asyncio.sleep(0.02)
    return answer


async def gone(pid: int) -> None:
    async def dead() -> bool:
        return runner.process_birth(pid) is None

    await until(dead)


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


@pytest_asyncio.fixture(params=["own-account", "system-users"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Each cloud in turn; jobs that a test left running are stopped."""
    if request.param == "own-account":
        options = {"system_users": False, "home_root": str(tmp_path), "simulated_gpus": 4}
        made = World(options, "ann", os.geteuid(), tmp_path / "ann")
    else:
        entry, python = request.getfixturevalue("account")
        options = {"system_users": True, "python": python, "simulated_gpus": 4}
        made = World(options, entry.pw_name, entry.pw_uid, Path(entry.pw_dir))
    yield made
    made.cloud.stop_on_exit = True
    await made.cloud.close()


@pytest_asyncio.fixture
async def own(tmp_path: Path) -> AsyncIterator[World]:
    """The local cloud without system accounts, for what does not depend on them."""
    options = {"system_users": False, "home_root": str(tmp_path), "simulated_gpus": 4}
    made = World(options, "ann", os.geteuid(), tmp_path / "ann")
    yield made
    made.cloud.stop_on_exit = True
    await made.cloud.close()


# What there is


def test_a_machine_is_one_node_with_all_its_gpus(tmp_path: Path) -> None:
    cloud = LocalCloud(home_root=str(tmp_path), simulated_gpus=4)
    assert cloud.nodes == (Node(POOL, {"nvidia.com/gpu": "4"}),)
    assert [gpu.index for gpu in cloud.gpus] == [0, 1, 2, 3]


# The life of a job


@pytest.mark.asyncio
async def test_a_job_runs_in_a_directory_of_its_own_and_leaves_its_output(world: World) -> None:
    spec = world.script(
        """
        import os, pathlib, sys
        pathlib.Path("model.txt").write_bytes(pathlib.Path("data.txt").read_bytes() * 2)
        print(os.getcwd(), flush=True)
        print("to stderr", file=sys.stderr)
        """
    )
    spec.files["data.txt"] = "zwölf\r\n"
    assert (await world.status(spec)).phase is Phase.UNKNOWN
    directory = Path(await world.cloud.start(spec))
    assert await world.ended(spec) == JobStatus(Phase.ENDED, 0)
    assert directory == world.directory(spec)
    assert (directory / "model.txt").read_bytes() == "zwölf\r\n".encode() * 2
    assert await world.log(spec) == f"{directory}\nto stderr\n"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {path.stat().st_uid for path in (directory, *directory.iterdir())} == {world.uid}


@pytest.mark.asyncio
async def test_exit_codes_are_told(world: World) -> None:
    status = await world.run(world.script("raise SystemExit(7)"))
    assert status == JobStatus(Phase.ENDED, 7, message="ended with exit code 7")
    status = await world.run(world.script("import os; os.kill(os.getpid(), 9)"))
    assert status == JobStatus(
        Phase.ENDED, -9, message="killed by signal 9 (perhaps out of memory)"
    )
    status = await world.run(world.script("import os; os.abort()"))
    assert status == JobStatus(Phase.ENDED, -6, message="killed by signal 6 (SIGABRT)")


@pytest.mark.asyncio
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


@pytest.mark.asyncio
async def test_the_log_can_be_read_while_the_job_runs(world: World) -> None:
    spec = world.script("import time; print('step 1'); time.sleep(60)")
    await world.cloud.start(spec)
    await until(lambda: world.log(spec))
    assert await world.log(spec) == "step 1\n"
    assert await world.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)


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
    world: World, command: list[str], code: int, message: str
) -> None:
    spec = world.script("", command=command, files={"plain": "text"})
    assert await world.run(spec) == JobStatus(Phase.ENDED, code, message=message)
    assert await world.log(spec) == f"{message}\n"


@pytest.mark.asyncio
async def test_a_script_with_a_missing_interpreter_says_so(own: World) -> None:
    spec = own.script("", command=["./tool"])
    own.directory(spec).mkdir(parents=True)
    tool = own.directory(spec) / "tool"
    tool.write_text("#!/no/such/python\n")
    tool.chmod(0o755)
    status = await own.run(spec)
    assert status.exit_code == 127
    assert status.message == "the interpreter in the first line of ./tool does not exist"


@pytest.mark.asyncio
async def test_what_the_command_leaves_behind_is_killed(world: World) -> None:
    spec = world.script(
        """
        import subprocess
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        print(child.pid)
        """
    )
    assert await world.run(spec) == JobStatus(Phase.ENDED, 0)
    assert not psutil.pid_exists(int(await world.log(spec)))


# The environment of a job


@pytest.mark.asyncio
async def test_a_job_sees_its_gpus_and_its_end(world: World) -> None:
    spec = world.script(
        "import json, os; print(json.dumps(dict(os.environ)))",
        gpus=(0, 3),
        environment={"EPOCHS": "5", "CUDA_VISIBLE_DEVICES": "0,1,2,3", "ERA_JOB_ID": "x"},
    )
    await world.run(spec)
    seen = json.loads(await world.log(spec))
    assert seen["EPOCHS"] == "5"
    assert seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert seen["CUDA_VISIBLE_DEVICES"] == seen["NVIDIA_VISIBLE_DEVICES"] == "0,3"
    assert seen["ERA_GPUS"] == "0,3"
    assert seen["ERA_JOB_ID"] == spec.id
    assert seen["ERA_RUN"] == "0"
    assert seen["ERA_DIRECTORY"] == str(world.directory(spec))
    assert seen["ERA_END_EPOCH"] == str(spec.end)
    assert seen["ERA_END"] == time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(spec.end))
    assert seen["HOME"] == str(world.home)
    assert seen["USER"] == seen["LOGNAME"] == world.user


@pytest.mark.asyncio
async def test_a_job_without_gpus_sees_none(world: World) -> None:
    spec = world.script(
        """
        import os
        print([os.environ[f"{name}_VISIBLE_DEVICES"] for name in ("CUDA", "NVIDIA")])
        """
    )
    await world.run(spec)
    assert await world.log(spec) == "['', 'none']\n"


@pytest.mark.asyncio
async def test_nothing_of_the_service_reaches_a_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "a-secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/the/service")
    spec = world.script(
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
    await world.run(spec)
    text = await world.log(spec)
    assert "ERA_JOB_ID" in text
    for word in ("JUPYTERHUB", "a-secret", "/of/the/service", "PYTEST"):
        assert word not in text
    files = [line.split()[1:] for line in text.splitlines() if line.startswith("open:")]
    log = str(world.directory(spec) / "log")
    assert files == [["0", "/dev/null"], ["1", log], ["2", log]]


@pytest.mark.asyncio
async def test_python_is_the_one_of_the_cloud(own: World) -> None:
    spec = own.script("import sys; print(sys.prefix)", command=["python", "script.py"])
    await own.run(spec)
    assert await own.log(spec) == f"{sys.prefix}\n"


@pytest.mark.asyncio
async def test_signals_that_the_service_ignores_or_blocks_work_in_a_job(own: World) -> None:
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


@pytest.mark.asyncio
async def test_the_end_of_the_reservation_is_enforced(world: World) -> None:
    spec = world.script(STUBBORN, lasts=2)
    status = await world.run(spec)
    assert time.time() >= spec.end
    assert status == JobStatus(
        Phase.ENDED, -9, timed_out=True, message="stopped at the end of its reservation"
    )
    told = [float(line) for line in (await world.wrote(spec, "term")).split()]
    assert len(told) == 1
    assert spec.end - spec.grace <= told[0] < spec.end
    assert not psutil.pid_exists(int(await world.wrote(spec, "daemon")))


@pytest.mark.asyncio
async def test_a_job_that_saves_its_work_in_time_ends_well(world: World) -> None:
    spec = world.script(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(0)))
        print("ready")
        time.sleep(60)
        """,
        lasts=3,
    )
    status = await world.run(spec)
    assert (status.exit_code, status.timed_out) == (0, True)
    assert await world.log(spec) == "ready\nsaved\n"


@pytest.mark.asyncio
async def test_stop_ends_a_job_with_its_grace(world: World) -> None:
    spec = world.script(STUBBORN, grace=1)
    await world.cloud.start(spec)
    daemon = int(await world.wrote(spec, "daemon"))
    for _ in range(3):
        await world.cloud.stop(spec.id, spec.user)
    status = await world.ended(spec)
    assert status == JobStatus(Phase.ENDED, -9, message="stopped on request")
    told = (await world.wrote(spec, "term")).split()
    assert len(told) == 1
    assert time.time() - float(told[0]) >= spec.grace
    assert not psutil.pid_exists(daemon)
    await world.cloud.stop(spec.id, spec.user)
    assert await world.status(spec) == status


# More time


async def knows(world: World, spec: JobSpec, end: int) -> None:
    """Wait until the job's supervisor says that it ends the job then."""

    async def told() -> bool:
        return (await world.status(spec)).end == end

    await until(told)


@pytest.mark.asyncio
async def test_a_running_job_is_given_more_time(world: World) -> None:
    spec = world.script(STUBBORN, lasts=3)
    await world.cloud.start(spec)
    assert (await world.status(spec)).end == spec.end
    end = spec.end + 2
    for _ in range(2):
        await world.cloud.extend(spec.id, spec.user, end)
    await knows(world, spec, end)

    async def past_its_first_end() -> bool:
        return time.time() > spec.end

    await until(past_its_first_end)
    assert await world.status(spec) == JobStatus(Phase.RUNNING, end=end)
    status = await world.ended(spec)
    assert time.time() >= end
    assert status.timed_out
    told = [float(line) for line in (await world.wrote(spec, "term")).split()]
    assert len(told) == 1
    assert end - spec.grace <= told[0] < end
    assert not psutil.pid_exists(int(await world.wrote(spec, "daemon")))


@pytest.mark.asyncio
async def test_more_time_reaches_a_job_that_outlived_the_service(world: World) -> None:
    spec = world.script("import time; time.sleep(60)")
    await world.cloud.start(spec)
    await world.restarted().extend(spec.id, spec.user, spec.end + 60)
    await knows(world, spec, spec.end + 60)
    await world.restarted().stop(spec.id, spec.user)
    assert (await world.ended(spec)).exit_code == -15


@pytest.mark.asyncio
async def test_no_job_is_given_less_time(world: World) -> None:
    spec = world.script("import time; time.sleep(60)")
    await world.cloud.start(spec)
    await world.cloud.extend(spec.id, spec.user, spec.end - 30)
    await world.cloud.extend(spec.id, spec.user, spec.end + 30)
    await knows(world, spec, spec.end + 30)
    await world.cloud.extend(spec.id, spec.user, spec.end + 10)
    assert (await world.status(spec)).end == spec.end + 30


@pytest.mark.asyncio
async def test_what_has_ended_or_never_ran_is_given_no_time(world: World) -> None:
    spec = world.script("")
    await world.cloud.extend(spec.id, spec.user, spec.end + 60)
    assert not world.directory(spec).exists()
    status = await world.run(spec)
    await world.cloud.extend(spec.id, spec.user, spec.end + 60)
    assert await world.status(spec) == status


@pytest.mark.asyncio
async def test_a_job_that_is_being_stopped_gets_no_more_time(own: World) -> None:
    spec = own.script(STUBBORN, lasts=60, grace=2)
    await own.cloud.start(spec)
    await own.wrote(spec, "daemon")
    await own.cloud.stop(spec.id, spec.user)
    await own.wrote(spec, "term")
    await own.cloud.extend(spec.id, spec.user, spec.end + 60)
    assert (await own.ended(spec)).message == "stopped on request"


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["", "soon", "-1", "9" * 30, "\0"])
async def test_an_end_that_makes_no_sense_is_none(own: World, text: str) -> None:
    spec = own.script("import time; time.sleep(60)")
    await own.cloud.start(spec)
    (own.directory(spec) / ".era/end").write_text(text)
    os.kill(own.record(spec)["pid"], signal.SIGCHLD)
    assert await own.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)
    await own.cloud.extend(spec.id, spec.user, spec.end + 60)
    await knows(own, spec, spec.end + 60)


@pytest.mark.asyncio
async def test_a_job_that_cannot_be_told_says_so(own: World) -> None:
    spec = own.script("import time; time.sleep(60)")
    await own.cloud.start(spec)
    (own.directory(spec) / ".era/end").mkdir()
    with pytest.raises(CloudError, match="can't be told of its new end"):
        await own.cloud.extend(spec.id, spec.user, spec.end + 60)


# What runs


@pytest.mark.asyncio
async def test_everything_that_runs_for_jobs_is_found(world: World) -> None:
    spec = world.script(STUBBORN)
    await world.cloud.start(spec)
    daemon = await world.wrote(spec, "daemon")
    supervisor = world.record(spec)["pid"]
    found = [each.what for each in await world.cloud.workloads() if each.id == spec.id]
    # A child may come and go; the two that stay are among them.
    assert {f"process {daemon.strip()}", f"process {supervisor}"} <= set(found)
    await world.cloud.stop(spec.id, spec.user)
    await world.ended(spec)

    async def none_left() -> bool:
        return spec.id not in {each.id for each in await world.cloud.workloads()}

    # The supervisor says that the job has ended just before it ends itself.
    assert await until(none_left)


@pytest.mark.asyncio
async def test_a_suspended_supervisor_can_be_stopped(world: World) -> None:
    spec = world.script("import time; time.sleep(60)")
    await world.cloud.start(spec)
    os.kill(world.record(spec)["pid"], signal.SIGSTOP)
    await world.cloud.stop(spec.id, spec.user)
    assert (await world.ended(spec)).exit_code == -15


@pytest.mark.asyncio
async def test_stopping_what_never_ran_is_harmless(world: World) -> None:
    spec = world.script("")
    await world.cloud.stop(spec.id, spec.user)
    assert await world.status(spec) == JobStatus(Phase.UNKNOWN)


@pytest.mark.asyncio
async def test_no_zombies_are_left(own: World) -> None:
    spec = own.script("")
    await own.run(spec)

    async def reaped() -> bool:
        return not any("runner.py" in str(process) for process in psutil.Process().children())

    await gone(own.record(spec)["pid"])
    await until(reaped)
    states = [process.status() for process in psutil.Process().children()]
    assert psutil.STATUS_ZOMBIE not in states


@pytest.mark.asyncio
async def test_close_leaves_jobs_running(world: World) -> None:
    spec = world.script("import time; time.sleep(60)")
    await world.cloud.start(spec)
    await world.cloud.close()
    assert await world.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)


@pytest.mark.asyncio
async def test_close_stops_jobs_if_so_configured(world: World) -> None:
    specs = [world.script("import time; time.sleep(60)") for _ in range(3)]
    cloud = world.restarted(stop_on_exit=True)
    for spec in specs:
        await cloud.start(spec)
    before = time.monotonic()
    await cloud.close()
    assert time.monotonic() - before < CLOSE_SECONDS
    for spec in specs:
        assert (await world.status(spec)).phase is Phase.ENDED


@pytest.mark.asyncio
async def test_close_does_not_wait_for_a_long_grace(
    own: World, monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.asyncio
async def test_a_job_is_started_once(world: World) -> None:
    spec = world.script("import time; print('started'); time.sleep(0.2)")
    clouds = [world.cloud, world.restarted()] * 3
    directories = await asyncio.gather(*(cloud.start(spec) for cloud in clouds))
    assert set(directories) == {str(world.directory(spec))}
    await world.ended(spec)
    for cloud in (world.cloud, world.restarted()):
        assert await cloud.start(spec) == directories[0]
    assert await world.ended(spec) == JobStatus(Phase.ENDED, 0)
    assert await world.log(spec) == "started\n"
    names = {path.name for path in world.directory(spec).iterdir()}
    assert names == {".era", "log", "script.py"}


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
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert service.stdin and service.stdout
    with service.stdin, service.stdout:
        service.stdin.write(json.dumps([world.options, asdict(spec)]).encode())
        service.stdin.close()
        answer = await asyncio.to_thread(service.stdout.readline)
        service.kill()
        service.wait()
    assert answer.decode().strip() == str(world.directory(spec))
    assert await world.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)
    await world.cloud.start(spec)
    (world.directory(spec) / "go").touch()
    assert (await world.ended(spec)).exit_code == 7
    assert await world.log(spec) == "started\n"


# Several runs


COUNTING = """
    import pathlib, sys
    step = int(pathlib.Path("step.txt").read_text())
    pathlib.Path("step.txt").write_text(str(step + 1))
    print("step", step)
    sys.exit(step)
"""


def later(spec: JobSpec, run: int) -> JobSpec:
    return replace(spec, run=run)


@pytest.mark.asyncio
async def test_a_later_run_goes_on_where_the_earlier_one_was(world: World) -> None:
    spec = world.script(COUNTING)
    spec.files["step.txt"] = "0"
    assert await world.run(spec) == JobStatus(Phase.ENDED, 0)
    for run in (1, 2):
        await world.cloud.start(later(spec, run))
        status = await world.ended(spec)
        assert (status.run, status.exit_code) == (run, run)
    assert await world.log(spec) == "step 0\nstep 1\nstep 2\n"


@pytest.mark.asyncio
async def test_each_run_is_started_once(world: World) -> None:
    spec = world.script("print('started')")
    await world.run(spec)
    clouds = [world.cloud, world.restarted()] * 3
    await asyncio.gather(*(cloud.start(later(spec, 1)) for cloud in clouds))
    assert (await world.ended(spec)).run == 1
    for run in (0, 1):
        await world.restarted().start(later(spec, run))
    assert await world.status(spec) == JobStatus(Phase.ENDED, 0, run=1)
    assert await world.log(spec) == "started\nstarted\n"


@pytest.mark.asyncio
async def test_no_run_starts_while_the_job_still_runs(world: World) -> None:
    spec = world.script("import time; print('started'); time.sleep(60)")
    await world.cloud.start(spec)
    for cloud in (world.cloud, world.restarted()):
        with pytest.raises(CloudError, match="still runs"):
            await cloud.start(later(spec, 1))
    assert await world.status(spec) == JobStatus(Phase.RUNNING, end=spec.end)


@pytest.mark.asyncio
async def test_more_time_is_for_the_run_that_gets_it(own: World) -> None:
    spec = own.script("import sys, time; time.sleep(60)")
    await own.cloud.start(spec)
    await own.cloud.extend(spec.id, spec.user, spec.end + 60)
    await knows(own, spec, spec.end + 60)
    await own.cloud.stop(spec.id, spec.user)
    await own.ended(spec)
    await own.cloud.start(later(spec, 1))
    assert await own.status(spec) == JobStatus(Phase.RUNNING, end=spec.end, run=1)


@pytest.mark.asyncio
async def test_what_is_in_the_way_of_a_later_run_is_told(own: World) -> None:
    spec = own.script("")
    await own.run(spec)
    (own.directory(spec) / ".era-0/mine").mkdir(parents=True)
    with pytest.raises(CloudError, match=r"is in the way: .*\.era"):
        await own.cloud.start(later(spec, 1))
    assert await own.status(spec) == JobStatus(Phase.ENDED, 0)


@pytest.mark.asyncio
async def test_a_restart_of_the_machine_is_not_the_jobs_fault(
    own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = own.script("import time; time.sleep(60)")
    await own.cloud.start(spec)
    os.kill(supervisor := own.record(spec)["pid"], signal.SIGKILL)
    await gone(supervisor)
    monkeypatch.setattr(psutil, "boot_time", lambda: time.time() + 1)
    status = await own.status(spec)
    assert status == JobStatus(Phase.ENDED, message="this machine was restarted", lost=True)


@pytest.mark.asyncio
async def test_a_killed_supervisor_leaves_nothing_behind(world: World) -> None:
    spec = world.script(STUBBORN)
    await world.cloud.start(spec)
    daemon = int(await world.wrote(spec, "daemon"))
    os.kill(supervisor := world.record(spec)["pid"], signal.SIGKILL)
    await gone(supervisor)
    status = await world.status(spec)
    assert status == JobStatus(Phase.ENDED, message="the job's supervisor was killed")
    await gone(daemon)


@pytest.mark.asyncio
async def test_a_job_that_ends_while_looked_at_keeps_its_exit_code(
    own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = own.script("import time; time.sleep(0.2); raise SystemExit(7)")
    await own.cloud.start(spec)

    def too_late(record: runner.Record, uid: int) -> bool:
        psutil.Process(record.pid).wait(PATIENCE)
        return False

    monkeypatch.setattr("era_hub.clouds.local._alive", too_late)
    assert (await own.status(spec)).exit_code == 7


@pytest.mark.asyncio
async def test_an_order_that_breaks_off_starts_nothing(own: World) -> None:
    spec = own.script("")
    order = json.dumps({"directory": str(own.directory(spec)), "command": ["touch", "x"]})
    for part in (order[:-5], order, "[]", ""):
        ran = subprocess.run(
            [sys.executable, "-I", runner.__file__], input=part.encode(), capture_output=True
        )
        assert json.loads(ran.stdout) == {"error": "the order was not understood"}
    assert not own.directory(spec).exists()


# What a user may try


@pytest.mark.asyncio
async def test_what_is_not_a_plain_log_is_not_read(world: World, tmp_path: Path) -> None:
    spec = world.script("print('mine')")
    await world.run(spec)
    log = world.directory(spec) / "log"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    log.unlink()
    log.symlink_to(secret)
    assert await world.log(spec) == ""
    log.unlink()
    os.mkfifo(log)
    os.chown(log, world.uid, -1)
    assert await world.log(spec) == ""
    log.unlink()
    log.mkdir()
    assert await world.log(spec) == ""
    if world.uid != os.geteuid():
        log.rmdir()
        secret = world.home / "secret"
        secret.write_text("secret")  # belongs to root
        log.hardlink_to(secret)
        assert await world.log(spec) == ""


@pytest.mark.asyncio
async def test_no_link_is_followed_on_the_way(world: World, tmp_path: Path) -> None:
    spec = world.script("print('mine')")
    await world.run(spec)
    directory = world.directory(spec)
    elsewhere = directory.rename(directory.with_name("elsewhere"))
    directory.symlink_to(elsewhere)
    assert await world.log(spec) == ""
    assert await world.status(spec) == JobStatus(Phase.UNKNOWN)


@pytest.mark.asyncio
async def test_jobs_may_not_lie_behind_a_link(own: World, tmp_path: Path) -> None:
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
async def test_a_forged_status_is_not_believed(own: World, change: dict[str, Any]) -> None:
    spec = own.script("")
    await own.run(spec)
    path = own.directory(spec) / ".era/status.json"
    path.write_text(json.dumps(own.record(spec) | change))
    status = await own.status(spec)
    assert status == JobStatus(Phase.ENDED, message="the job's status file was damaged")


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["", "{", "null", "[" * 4096, '{"pid": 1}', "\xff"])
async def test_a_damaged_status_is_the_end(own: World, text: str) -> None:
    spec = own.script("import time; time.sleep(60)")
    await own.cloud.start(spec)
    (own.directory(spec) / ".era/status.json").write_bytes(text.encode("latin-1"))
    status = await own.status(spec)
    assert status == JobStatus(Phase.ENDED, message="the job's status file was damaged")


@pytest.mark.asyncio
async def test_no_other_process_is_taken_for_the_supervisor(own: World) -> None:
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
async def test_a_job_that_claims_to_have_ended_is_ended(world: World) -> None:
    spec = world.script(STUBBORN)
    await world.cloud.start(spec)
    daemon = int(await world.wrote(spec, "daemon"))
    forged = world.record(spec) | {"phase": "ended", "exit_code": 0}
    (world.directory(spec) / ".era/status.json").write_text(json.dumps(forged))
    assert (await world.status(spec)).phase is Phase.ENDED
    await gone(daemon)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "job_id", ["", "..", "../../etc", "a/b", f"{{{uuid.UUID(int=7)}}}", uuid.UUID(int=7).hex, "x\0"]
)
async def test_bad_ids_are_refused(own: World, job_id: str) -> None:
    spec = own.script("", id=job_id)
    with pytest.raises(CloudError):
        await own.cloud.start(spec)
    with pytest.raises(CloudError):
        await own.cloud.status(job_id, "ann")
    with pytest.raises(CloudError):
        await own.cloud.stop(job_id, "ann")
    with pytest.raises(CloudError):
        await own.cloud.read_log(job_id, "ann", 0, 10)
    assert not own.home.exists()


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
async def test_bad_jobs_are_refused(own: World, change: dict[str, Any], match: str) -> None:
    with pytest.raises(CloudError, match=match):
        await own.cloud.start(own.script("", **change))
    assert not own.home.exists()


@pytest.mark.asyncio
async def test_a_home_that_cannot_be_made_is_told(own: World) -> None:
    own.home.write_text("a file in the way")
    with pytest.raises(CloudError, match="the job's directory can't be made: Not a directory"):
        await own.cloud.start(own.script(""))


@pytest.mark.asyncio
async def test_a_python_that_cannot_run_is_told(own: World) -> None:
    with pytest.raises(CloudError, match="/no/such/python can't be run as ann"):
        await own.restarted(python="/no/such/python").start(own.script(""))
    with pytest.raises(CloudError, match="supervisor did not start: no answer"):
        await own.restarted(python="/bin/true").start(own.script(""))


# Accounts, paths and the status file


@pytest.mark.asyncio
async def test_jobs_run_with_the_identity_of_their_account(
    account: tuple[pwd.struct_passwd, str],
) -> None:
    entry, python = account
    options = {"system_users": True, "python": python}
    world = World(options, entry.pw_name, entry.pw_uid, Path(entry.pw_dir))
    spec = world.script("import os; print(os.getresuid(), os.getresgid(), os.getgroups())")
    await world.run(spec)
    uid, gid = entry.pw_uid, entry.pw_gid
    assert await world.log(spec) == f"{(uid,) * 3} {(gid,) * 3} {[gid]}\n"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["root", "no-such-account", "../root", "nul\0", ""])
async def test_only_ordinary_accounts_run_jobs(own: World, name: str) -> None:
    cloud = own.restarted(system_users=True)
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
