"""Supervise one job, as its user and in a process of its own.

The cloud starts ``runner.py`` with an order in JSON on its standard input. The
runner claims the job's directory, starts the command, and ends it in time even
if the service is dead by then. What became of the job is in
``<directory>/.era/status.json``. A job may be started again when it has ended: the
later run claims the same directory, and ``.era-0`` and so on keep what was there.

The cloud speaks to a runner by signals: SIGTERM asks it to stop the job with its
grace, SIGINT to kill it at once. A later end is written to ``<directory>/.era/end``
by ``runner.py extend``, as the user as well; SIGCHLD has the runner look at it.

Only the standard library is imported (and psutil where there is no ``/proc``):
any Python that the user may run will do, and it starts fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

LOG = "log"
STATE = ".era"
STATUS = "status.json"
END = "end"
EXTEND = "extend"

STATUS_SIZE = 4096  # a padded file can be overwritten in place when the disk is full
LEFTOVER_GRACE = 5.0  # seconds for what still runs when the command has ended
KILL_AGAIN = 0.1  # seconds until what SIGKILL did not reach is looked for again
NAP = 5.0  # longest sleep: the wall clock may jump, and stands still in suspended machines
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes as in a shell
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)  # what renaming a folder to a name in use says


@dataclass(frozen=True)
class Order:
    """What to run. `end` is in UTC seconds, `grace` in seconds.

    In a later `run` than 0, files that are still there are left as they are.
    """

    directory: str
    command: list[str]
    files: dict[str, str]
    environment: dict[str, str]
    end: int
    grace: int
    run: int = 0


@dataclass(frozen=True)
class Record:
    """The content of the status file. `pid` and `birth` identify the runner.

    `end` is when it will end the job, in UTC seconds.
    """

    pid: int
    birth: str
    phase: str = "running"
    exit_code: int | None = None
    timed_out: bool = False
    message: str = ""
    end: int | None = None
    run: int = 0


def process_birth(pid: int) -> str | None:
    """When a process was created, as a text to compare; None if it is dead.

    On Linux it counts from boot: a wall-clock time would shift when the clock is set.
    """
    if sys.platform == "linux":
        fields = _stat(pid)
        if fields is None or fields[0] in (b"Z", b"X"):
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{int(fields[19])}"
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return None


def _stat(pid: int) -> list[bytes] | None:
    """Fields of ``/proc/<pid>/stat`` from the state on; None without such a process."""
    try:
        data = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name before is free text in parentheses and may hold spaces and parentheses.
    return data[data.rindex(b")") + 1 :].split()


def _descendants() -> list[int]:
    """Processes below this one."""
    if sys.platform != "linux":
        import psutil

        return [child.pid for child in psutil.Process().children(recursive=True)]
    children: dict[int, list[int]] = defaultdict(list)
    for pid in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        fields = _stat(pid)
        if fields is not None:
            children[int(fields[1])].append(pid)
    found: list[int] = []
    parents = [os.getpid()]
    while parents:
        below = children.pop(parents.pop(), [])
        found += below
        parents += below
    return found


def _signal_all(*signals: signal.Signals) -> None:
    for pid in _descendants():
        for number in signals:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def save(folder: Path, record: Record) -> None:
    """Write the status file: atomically, and if need be without taking more disk space."""
    data = json.dumps(asdict(record)).encode().ljust(STATUS_SIZE)
    target, new = folder / STATUS, folder / f"{STATUS}.new"
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
    except OSError:
        # A job often ends because it filled the disk; its exit code should not be lost.
        with target.open("r+b") as file:
            file.write(data)


def write_end(folder: Path, end: int) -> None:
    """Leave a later end for the runner of the job; at once, never by halves."""
    new = folder / f"{END}-{os.getpid()}"
    new.write_text(str(end))
    new.replace(folder / END)


def read_end(folder: Path) -> int:
    """The end that was left; 0 if there is none, or none that makes sense."""
    try:
        with (folder / END).open("rb") as file:
            return int(file.read(20))
    except (OSError, ValueError):
        return 0


def claim(directory: Path, end: int, run: int = 0) -> bool:
    """Take the job's directory for a run; False if another runner did so before.

    The state folder is made under another name and moved: whoever comes second finds
    it with a status inside, however early the first one died.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for path in (directory.parent, directory):
        if path.is_symlink():
            # The service, which may be root, follows no links; it would lose the job.
            raise OSError(errno.ELOOP, "may not be a symbolic link", str(path))
    directory.chmod(0o700)
    pid = os.getpid()
    new = directory / f"{STATE}-new-{pid}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        save(new, Record(pid, process_birth(pid) or "", end=end, run=run))
        _set_aside(directory, run)
        new.rename(directory / STATE)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if error.errno not in TAKEN:
            raise
        if _recorded_run(directory) < run:
            # It is no runner that took this name: the job can't be started again.
            raise OSError(errno.EEXIST, "is in the way", str(directory / STATE)) from None
        return False
    return True


def _set_aside(directory: Path, run: int) -> None:
    """Keep the state of an earlier run under another name, unless somebody did so before.

    Only one of several runners can move it: the name it gets is taken from then on.
    """
    earlier = _recorded_run(directory)
    if 0 <= earlier < run:
        try:
            (directory / STATE).rename(directory / f"{STATE}-{earlier}")
        except OSError as error:
            if error.errno not in (*TAKEN, errno.ENOENT):
                raise


def _recorded_run(directory: Path) -> int:
    """The run whose state is in the directory; -1 if there is none."""
    state = directory / STATE
    if not state.is_dir():
        return -1
    try:
        with (state / STATUS).open("rb") as file:
            return max(0, int(json.loads(file.read(STATUS_SIZE))["run"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return 0  # damaged, but of a run all the same


class Supervisor:
    """Starts the command, ends it in time and reaps everything it started."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.directory = Path(order.directory)
        self.process: subprocess.Popen[bytes] | None = None
        self.exit_code: int | None = None
        self.timed_out = False
        self.message = ""
        self._stop_asked = False
        self._terminated = False
        self._kill_at = math.inf  # on the monotonic clock; `order.end` holds besides
        self._waker, writer = os.pipe()
        for end in (self._waker, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake up
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_kill)

    def _on_stop(self, *_: object) -> None:
        self._stop_asked = True

    def _on_kill(self, *_: object) -> None:
        self._stop_asked = True
        self._kill_at = time.monotonic()

    def launch(self) -> None:
        """Write the files and start the command; what fails becomes the job's end."""
        try:
            for name, text in self.order.files.items():
                path = self.directory / name
                if not (self.order.run and path.exists()):
                    path.write_text(text, encoding="utf-8", newline="")
            log = os.open(self.directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except (OSError, ValueError) as error:
            self.message = f"the job's files could not be written: {error}"
            return
        try:
            self.process = subprocess.Popen(
                self.order.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.order.environment,
                start_new_session=True,
                umask=0o022,
            )
        except (OSError, ValueError) as error:
            self.exit_code, self.message = self._explain(error)
            with contextlib.suppress(OSError):
                os.write(log, f"{self.message}\n".encode(errors="replace"))
        finally:
            os.close(log)

    def _explain(self, error: Exception) -> tuple[int, str]:
        """Exit code and message for a command that can't be run."""
        command = self.order.command[0]
        path = self.order.environment.get("PATH", os.defpath)
        # Python also says "permission denied" if a folder of PATH is closed to the user.
        if "/" not in command and not shutil.which(command, mode=os.F_OK, path=path):
            return NOT_FOUND, f"command not found: {command}"
        if isinstance(error, FileNotFoundError):
            if (self.directory / command).exists():
                return NOT_FOUND, f"the interpreter in the first line of {command} does not exist"
            return NOT_FOUND, f"command not found: {command}"
        if isinstance(error, PermissionError):
            return NOT_EXECUTABLE, f"permission denied: {command} is not executable"
        return NOT_EXECUTABLE, f"{command} can't be run: {error}"

    def run(self) -> None:
        """Return when the command and everything it started are gone."""
        while self._reap():
            self._advance()
            select.select([self._waker], [], [], self._pause())
            with contextlib.suppress(BlockingIOError):
                os.read(self._waker, 4096)

    def _reap(self) -> bool:
        """Collect ended processes; whether any is left.

        As orphans become children of a subreaper, the kernel knows this for certain.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if self.process is not None and pid == self.process.pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
                self.process.returncode = self.exit_code

    def _advance(self) -> None:
        """Send the signals that are due."""
        now = time.time()
        if not self._terminated:
            self._look_for_more_time()
            if self.exit_code is not None:
                self._terminate(min(LEFTOVER_GRACE, self.order.grace))
            elif self._stop_asked:
                self.message = "stopped on request"
                self._terminate(self.order.grace)
            elif now >= self.order.end - self.order.grace:
                self.timed_out = True
                self.message = "stopped at the end of its reservation"
                self._terminate(math.inf)
        if self._kill_due(now):
            _signal_all(signal.SIGKILL)

    def _look_for_more_time(self) -> None:
        """Go on until a later end, and say so in the status file."""
        folder = self.directory / STATE
        end = read_end(folder)
        if self.order.end < end < 1 << 53:
            self.order = replace(self.order, end=end)
            # Without its directory nobody can be told; the time is the job's all the same.
            with contextlib.suppress(OSError):
                save(folder, self._record(end=end))

    def _terminate(self, grace: float) -> None:
        self._terminated = True
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        _signal_all(signal.SIGTERM, signal.SIGCONT)  # the stopped ones should hear it too

    def _kill_due(self, now: float) -> bool:
        return now >= self.order.end or time.monotonic() >= self._kill_at

    def _pause(self) -> float:
        """Seconds until something is due."""
        now = time.time()
        if self._kill_due(now):
            return KILL_AGAIN
        due = self.order.end - (0 if self._terminated else self.order.grace) - now
        return max(0.0, min(due, self._kill_at - time.monotonic(), NAP))

    def finish(self) -> None:
        """Write how the job ended."""
        message = (self.message or describe(self.exit_code))[:300]
        message = "".join(letter if letter.isprintable() else "?" for letter in message)
        record = self._record(
            phase="ended", exit_code=self.exit_code, timed_out=self.timed_out, message=message
        )
        # Without its directory the job has lost its status too: nothing is left to do.
        with contextlib.suppress(OSError):
            save(self.directory / STATE, record)

    def _record(self, **fields: Any) -> Record:
        pid = os.getpid()
        return Record(pid, process_birth(pid) or "", run=self.order.run, **fields)


def describe(exit_code: int | None) -> str:
    """An exit code in words; empty for success."""
    if not exit_code:
        return ""
    memory = " (perhaps out of memory)"
    if exit_code > 0:
        # A shell answers 128 + 9 for a command of its own that was killed.
        return f"ended with exit code {exit_code}{memory if exit_code == 137 else ''}"
    if -exit_code == signal.SIGKILL:
        return f"killed by signal 9{memory}"
    try:
        return f"killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    except ValueError:
        return f"killed by signal {-exit_code}"


def _prepare() -> None:
    """Undo what was inherited from the service, and adopt orphans."""
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # a service started with nohup ignores them
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0)


def _answer(error: str = "") -> None:
    print(json.dumps({"error": error}), flush=True)


def _detach(directory: Path) -> None:
    """Let go of the service's pipes; trouble of the runner itself goes to a file."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        trouble = os.open(directory / STATE / "supervisor.log", os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError:
        trouble = null
    for target, source in ((0, null), (1, null), (2, trouble)):
        os.dup2(source, target)


def extend() -> int:
    """Leave the end that is ordered on standard input for the runner of that job."""
    try:
        order = json.load(sys.stdin.buffer)
        folder, end = Path(order["directory"]) / STATE, int(order["end"])
    except (ValueError, TypeError, KeyError):
        _answer("the order was not understood")
        return 1
    try:
        write_end(folder, end)
    except OSError as error:
        _answer(f"the job can't be told of its new end: {error.strerror}: {folder}")
        return 1
    _answer()
    return 0


def main() -> int:
    """Run the job ordered on standard input; answer on standard output once it runs."""
    try:
        # A service that dies while writing leaves half an order: nothing is started.
        order = Order(**json.load(sys.stdin.buffer))
    except (ValueError, TypeError):
        _answer("the order was not understood")
        return 1
    _prepare()
    supervisor = Supervisor(order)
    try:
        won = claim(supervisor.directory, order.end, order.run)
    except OSError as error:
        where = error.filename or supervisor.directory
        _answer(f"the job's directory can't be made: {error.strerror}: {where}")
        return 1
    if won:
        supervisor.launch()
    with contextlib.suppress(BrokenPipeError):  # the service may be gone; the job goes on
        _answer()
    if not won:
        return 0
    _detach(supervisor.directory)
    try:
        supervisor.run()
    except Exception as error:
        # Never leave a job behind that nobody ends.
        while supervisor._reap():
            _signal_all(signal.SIGKILL)
            time.sleep(KILL_AGAIN)
        supervisor.message = f"the job's supervisor failed: {error}"
        raise
    finally:
        supervisor.finish()
    return 0


if __name__ == "__main__":
    sys.exit(extend() if sys.argv[1:2] == [EXTEND] else main())
