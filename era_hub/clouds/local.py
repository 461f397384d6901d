"""Jobs as processes of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import psutil
from traitlets import Bool, Integer, Unicode, default

from era_hub.client.paths import user_home
from era_hub.clouds import runner
from era_hub.clouds.base import (
    GPU,
    Cloud,
    CloudError,
    Gpu,
    JobSpec,
    JobStatus,
    Node,
    Phase,
    Workload,
)
from era_hub.clouds.gpus import Detected, detect
from era_hub.clouds.orders import check, checked_id, promise
from era_pricing.inventory import POOL

JOBS = "era-jobs"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_LOG_READ = 1 << 20  # bytes a single call reads at most, whatever it asks for
START_SECONDS = 30  # for the runner to answer; a home on a dead network disk never would
CLOSE_SECONDS = 15.0  # for jobs to end after SIGTERM when the service stops
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Account:
    """Who runs a job. `switch` holds the arguments of Popen that change the identity."""

    name: str
    uid: int
    home: Path
    shell: str = "/bin/sh"
    switch: dict[str, Any] = field(default_factory=dict)


class Started(NamedTuple):
    """A job that runs here as far as is known: what `close` may have to stop."""

    user: str
    run: int


class LocalCloud(Cloud):
    """Runs jobs on this machine, as processes of their users.

    Each job has a supervisor, `era_hub.clouds.runner`, that outlives the service and
    ends the job on its own. A service manager must therefore leave the service's
    children alone when it restarts the service (systemd: ``KillMode=process``).

    The end of a reservation stops runaway jobs, not hostile ones: a user may kill the
    supervisor of their own job and hide its processes from this search by changing
    their environment.
    """

    system_users = Bool(
        help="""Run jobs as the system accounts of the same names, in their home directories.

        Needs root, and is the default then. Otherwise all jobs run as the service's own
        account with homes under `home_root`: fit for trying out and for users who trust
        each other, as nothing separates them. Example: ``c.LocalCloud.system_users = True``
        """
    ).tag(config=True)

    home_root = Unicode(
        "era-homes",
        help="""Directory of the users' homes where jobs don't run as system accounts.

        A relative path counts from the directory in which the service starts. The spawner
        must be given the same. Example: ``c.LocalCloud.home_root = "/srv/era/homes"``
        """,
    ).tag(config=True)

    simulated_gpus = Integer(
        None,
        allow_none=True,
        min=1,
        help="""Simulate this many GPUs. By default real ones are looked for, and 8 are
        simulated where there are none. Example: ``c.LocalCloud.simulated_gpus = 4``""",
    ).tag(config=True)

    stop_on_exit = Bool(
        False,
        help="""Stop all running jobs when the service stops. By default they go on, so that
        a restart costs nobody anything. Example: ``c.LocalCloud.stop_on_exit = True``""",
    ).tag(config=True)

    python = Unicode(
        sys.executable,
        help="""Python that supervises jobs, and the first that jobs find as ``python``.

        All users must be able to run it: one below ``/root`` won't do.
        Example: ``c.LocalCloud.python = "/opt/tljh/user/bin/python3"``
        """,
    ).tag(config=True)

    @default("system_users")
    def _default_system_users(self) -> bool:
        return os.geteuid() == 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._running: dict[str, Started] = {}  # by job

    @cached_property
    def _detected(self) -> Detected:
        detected = detect(self.simulated_gpus)
        if detected.reason:
            kind = "simulated" if detected.simulated else "real"
            self.log.warning("%d %s GPUs: %s", len(detected.gpus), kind, detected.reason)
        return detected

    @property
    def nodes(self) -> tuple[Node, ...]:
        """This machine, which is all of the pool."""
        return (Node(POOL, {GPU: str(len(self.gpus))}),)

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs of this machine."""
        return self._detected.gpus

    @property
    def simulated(self) -> bool:
        """Whether the GPUs are simulated."""
        return self._detected.simulated

    async def start(self, spec: JobSpec) -> str:
        """Start a job unless it was started before; return its directory."""
        async with self._locks.setdefault(spec.id, asyncio.Lock()):
            return await asyncio.to_thread(self._start, spec)

    async def status(self, job_id: str, user: str) -> JobStatus:
        """What has become of the job.

        Before it is said to have ended, what a killed supervisor left behind is killed.
        """
        return await asyncio.to_thread(self._status, job_id, user)

    async def extend(self, job_id: str, user: str, end: int) -> None:
        """Let a running job run until `end`."""
        async with self._locks.setdefault(job_id, asyncio.Lock()):
            await asyncio.to_thread(self._extend, job_id, user, end)

    async def workloads(self) -> list[Workload]:
        """The processes of jobs on this machine, as far as this account may look at them."""
        return await asyncio.to_thread(_processes_of_jobs)

    async def stop(self, job_id: str, user: str) -> None:
        """End a job and everything it started."""
        # Under the lock, as a stop must not overtake the start it is meant for.
        async with self._locks.setdefault(job_id, asyncio.Lock()):
            await asyncio.to_thread(self._signal, job_id, user, signal.SIGTERM)

    async def read_log(self, job_id: str, user: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes (and 1 MiB) of the job's log from byte `offset` on."""
        return await asyncio.to_thread(self._read_log, job_id, user, offset, limit)

    async def close(self) -> None:
        """Leave jobs running, or stop them all and wait if `stop_on_exit` is set."""
        if not self.stop_on_exit:
            return
        for number, seconds in ((signal.SIGTERM, CLOSE_SECONDS), (signal.SIGINT, 5.0)):
            for job_id, (user, _) in list(self._running.items()):
                with suppress(CloudError):
                    await asyncio.to_thread(self._signal, job_id, user, number)
            give_up = time.monotonic() + seconds
            while await self._any_running() and time.monotonic() < give_up:
                await asyncio.sleep(POLL_SECONDS)

    async def _any_running(self) -> bool:
        for job_id, (user, _) in list(self._running.items()):
            with suppress(CloudError):  # an account that is gone has nothing to stop
                if (await self.status(job_id, user)).phase is Phase.RUNNING:
                    return True
            self._running.pop(job_id, None)
        return False

    # What follows runs in threads: it waits for disks, accounts and processes.

    def _account(self, user: str) -> Account:
        if not self.system_users:
            try:
                return Account(user, os.geteuid(), user_home(Path(self.home_root).absolute(), user))
            except ValueError as error:
                raise CloudError(f"{user!r} can't have a home directory: {error}") from None
        try:
            entry = pwd.getpwnam(user)
        except (KeyError, ValueError):
            raise CloudError(f"there is no account named {user!r} on this machine") from None
        if entry.pw_uid == 0:
            raise CloudError("jobs are not run as the superuser")
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        switch = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}
        return Account(user, entry.pw_uid, Path(entry.pw_dir), entry.pw_shell, switch)

    def _start(self, spec: JobSpec) -> str:
        account = self._account(spec.user)
        directory = account.home / JOBS / checked_id(spec.id)
        record = _read_record(account, spec.id)
        # Remembered besides, as a user may delete the directory of a running job.
        known = self._running.get(spec.id)
        latest = max(record.run if record else -1, known.run if known else -1)
        if latest < spec.run:
            self._check(spec)
            if record and record.phase == Phase.RUNNING and _alive(record, account.uid):
                raise CloudError("the job still runs")
            if latest >= 0:
                _kill_leftovers(spec.id, account.uid)
            self._launch(account, spec, directory)
            latest = spec.run
        self._running[spec.id] = Started(spec.user, latest)
        return str(directory)

    def _check(self, spec: JobSpec) -> None:
        check(spec)
        if missing := set(spec.gpus) - {gpu.index for gpu in self.gpus}:
            raise CloudError(f"this machine has no GPU {min(missing)}")

    def _launch(self, account: Account, spec: JobSpec, directory: Path) -> None:
        """Start a runner, hand it the order and wait for its answer."""
        order = runner.Order(
            directory=str(directory),
            command=list(spec.command),
            files=spec.files,
            environment=self._environment(account, spec, directory),
            end=spec.end,
            grace=spec.grace,
            run=spec.run,
        )
        self._run(account, [spec.id], asdict(order))

    def _run(self, account: Account, arguments: list[str], order: dict[str, Any]) -> None:
        """Hand an order to a runner of the account; raise its complaint."""
        try:
            # By path and isolated: nothing else of this package is loaded, and no file of
            # the user changes what is. The id is only there to be seen in `ps`.
            process = subprocess.Popen(
                [self.python, "-I", runner.__file__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
                start_new_session=True,
                **account.switch,
            )
        except OSError as error:
            raise CloudError(f"{self.python} can't be run as {account.name}: {error}") from None
        answer = _converse(process, json.dumps(order).encode())
        # The runner outlives this object or is outlived by it; either way, no zombie stays.
        threading.Thread(target=process.wait, daemon=True).start()
        if answer:
            raise CloudError(answer)

    def _extend(self, job_id: str, user: str, end: int) -> None:
        account = self._account(user)
        record = _read_record(account, job_id)
        if record is None or record.phase != Phase.RUNNING or not _alive(record, account.uid):
            return
        if record.end is not None and record.end >= end:
            return
        # As the user: the service, which may be root, writes nothing where users can.
        directory = account.home / JOBS / job_id
        self._run(account, [runner.EXTEND, job_id], {"directory": str(directory), "end": end})
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGCHLD)  # only to wake it up

    def _environment(self, account: Account, spec: JobSpec, directory: Path) -> dict[str, str]:
        """All that a job gets to see: nothing of the service's own environment."""
        gpus = ",".join(map(str, spec.gpus))
        return {
            "PATH": f"{Path(self.python).parent}:{SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "HOME": str(account.home),
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": account.shell,
            "PYTHONUNBUFFERED": "1",
            **spec.environment,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": gpus,
            "NVIDIA_VISIBLE_DEVICES": gpus or "none",
            **promise(spec),
            "ERA_GPUS": gpus,
            "ERA_DIRECTORY": str(directory),
        }

    def _status(self, job_id: str, user: str) -> JobStatus:
        account = self._account(user)
        record = _read_record(account, job_id)
        if record is None:
            return JobStatus(Phase.UNKNOWN)
        if record.phase == Phase.RUNNING:
            if _alive(record, account.uid):
                self._running[job_id] = Started(user, record.run)
                return JobStatus(Phase.RUNNING, end=record.end, run=record.run)
            # It may have written the end between the look at the file and at the process.
            record = _read_record(account, job_id) or record
        _kill_leftovers(job_id, account.uid)
        self._running.pop(job_id, None)
        if record.phase == Phase.RUNNING and _before_boot(account, job_id):
            message = "this machine was restarted"
            return JobStatus(Phase.ENDED, message=message, run=record.run, lost=True)
        if record.phase == Phase.RUNNING:
            message = "the job's supervisor was killed"
            return JobStatus(Phase.ENDED, message=message, run=record.run)
        return JobStatus(
            Phase.ENDED, record.exit_code, record.timed_out, record.message, run=record.run
        )

    def _signal(self, job_id: str, user: str, number: signal.Signals) -> None:
        account = self._account(user)
        record = _read_record(account, job_id)
        if record is None or not _alive(record, account.uid):
            _kill_leftovers(job_id, account.uid)
            return
        with suppress(ProcessLookupError):
            os.kill(record.pid, number)
            os.kill(record.pid, signal.SIGCONT)  # a user may have suspended it

    def _read_log(self, job_id: str, user: str, offset: int, limit: int) -> bytes:
        limit = max(0, min(limit, MAX_LOG_READ))
        return _read_owned(self._account(user), job_id, (runner.LOG,), offset, limit) or b""


def _converse(process: subprocess.Popen[bytes], order: bytes) -> str:
    """Hand the order to the runner; return its complaint, empty if the job runs."""
    assert process.stdin and process.stdout
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(order)
        with process.stdout:
            text = process.stdout.read(1 << 16).decode(errors="replace").strip()
    finally:
        timer.cancel()
    last = text.rpartition("\n")[2]  # of a traceback, the line that says what happened
    try:
        return str(json.loads(last)["error"])
    except (ValueError, TypeError, KeyError):
        return f"the job's supervisor did not start: {last[:300] or 'no answer'}"


@contextmanager
def _owned(account: Account, job_id: str, path: tuple[str, ...]) -> Iterator[int]:
    """Open a file of a job for reading; OSError if it is missing or not what it should be.

    The user can put anything there while the service, perhaps as root, looks at it. No
    link is followed on the way, opening waits for nobody, and what is read is a file
    that belongs to the user: a hard link to someone else's does not.
    """
    parts = (JOBS, checked_id(job_id), *path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with ExitStack() as stack:
        handle = os.open(account.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, handle)
        for part in parts:
            handle = os.open(part, flags, dir_fd=handle)
            stack.callback(os.close, handle)
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != account.uid:
            raise PermissionError("not a file of the user")
        yield handle


def _read_owned(
    account: Account, job_id: str, path: tuple[str, ...], offset: int, limit: int
) -> bytes | None:
    """Read a file of a job; None if it is missing or not what it should be."""
    try:
        with _owned(account, job_id, path) as handle:
            size = os.fstat(handle).st_size
            begin = offset if offset >= 0 else max(0, size + offset)
            return os.pread(handle, limit, min(begin, size))
    except OSError:
        return None


def _before_boot(account: Account, job_id: str) -> bool:
    """Whether the record of a job was last written before this machine started.

    That time is the file system's, which users can't set; the record itself they can.
    """
    try:
        with _owned(account, job_id, (runner.STATE, runner.STATUS)) as handle:
            return os.fstat(handle).st_ctime < psutil.boot_time()
    except OSError:
        return False


def _read_record(account: Account, job_id: str) -> runner.Record | None:
    """What the runner wrote; a damaged file counts as the end of the job."""
    data = _read_owned(account, job_id, (runner.STATE, runner.STATUS), 0, runner.STATUS_SIZE)
    if data is None:
        return None
    try:
        record = runner.Record(**json.loads(data))
        if _plausible(record):
            return record
    except (ValueError, TypeError, RecursionError):
        pass
    return runner.Record(0, "", "ended", message="the job's status file was damaged")


def _plausible(record: runner.Record) -> bool:
    """Whether the fields have their types and ranges; the user can write the file."""
    code, end = record.exit_code, record.end
    fields = (record.pid, record.birth, record.phase, record.timed_out, record.message)
    return (
        [type(value) for value in fields] == [int, str, str, bool, str]
        and 1 < record.pid < 1 << 31
        and record.phase in (Phase.RUNNING, Phase.ENDED)
        and (code is None or (type(code) is int and -128 < code < 256))
        and record.message.isprintable()
        and (end is None or type(end) is int)
        and type(record.run) is int
        and record.run >= 0
    )


def _alive(record: runner.Record, uid: int) -> bool:
    """Whether the recorded process still is the one that wrote the record, as `uid`."""
    try:
        owner = psutil.Process(record.pid).uids().real
    except (psutil.Error, OverflowError):
        return False
    return owner == uid and runner.process_birth(record.pid) == record.birth


def _processes_of_jobs() -> list[Workload]:
    """Supervisors by their command line, and what they have started by its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            words = process.cmdline()
            supervises = len(words) == 4 and words[2] == runner.__file__
            job_id = words[3] if supervises else process.environ().get("ERA_JOB_ID", "")
            with suppress(CloudError):
                found.append(Workload(checked_id(job_id), f"process {process.pid}"))
    return found


def _kill_leftovers(job_id: str, uid: int) -> None:
    """Kill the job's processes that no supervisor watches over any more."""
    give_up = time.monotonic() + 2
    found = True
    # Again and again, as one of them may start another while the first is killed.
    while found and time.monotonic() < give_up:
        found = False
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.uids().real == uid and process.environ().get("ERA_JOB_ID") == job_id:
                    process.kill()
                    found = True
