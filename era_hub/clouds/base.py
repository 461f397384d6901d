"""The cloud seam: what the reconciler asks of whatever runs the jobs.

A cloud knows GPUs and processes, not money: it is told what to start and when
to end it, and says what has become of it. `EraHub.cloud_class` names the
implementation; each passes ``tests/era_hub/test_clouds.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from traitlets.config import LoggingConfigurable


@dataclass(frozen=True)
class Gpu:
    """One GPU of the pool: its index on this machine and a name for people."""

    index: int
    name: str


@dataclass(frozen=True)
class JobSpec:
    """Everything a cloud needs to run one job.

    Attributes
    ----------
    id : str
        UUID of the job and its reservation.
    user : str
        JupyterHub user name of the owner.
    command : sequence of str
        Program and arguments, run in the job's own directory.
    files : mapping of str to str
        Plain file names and their text, written to the job's directory first.
    environment : mapping of str to str
        Set by the user; the cloud's own variables win.
    gpus : tuple of int
        Indices of the GPUs the job owns; empty for none.
    end : int
        UTC seconds at which the reservation ends and the job is killed.
    grace : int
        Seconds before `end` at which the job gets SIGTERM.
    """

    id: str
    user: str
    command: Sequence[str]
    gpus: tuple[int, ...]
    end: int
    grace: int
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


class Phase(StrEnum):
    """What a cloud says of a job."""

    UNKNOWN = "unknown"  # never started here, or every trace of it is gone
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class JobStatus:
    """What has become of a job.

    Attributes
    ----------
    phase : Phase
    exit_code : int or None
        Of the command; negative for a signal; None while running or if unknown.
    timed_out : bool
        Whether it was stopped because its reservation ended.
    message : str
        In plain words, e.g. ``killed by signal 9 (out of memory?)``.
    end : int or None
        When a running job will be ended, UTC seconds; None if it can't be told.
    """

    phase: Phase
    exit_code: int | None = None
    timed_out: bool = False
    message: str = ""
    end: int | None = None


@dataclass(frozen=True)
class Workload:
    """Something that runs for a job, whether it should or not.

    Attributes
    ----------
    id : str
        Of the job, as the process itself says.
    what : str
        For the log, such as ``process 4711``.
    """

    id: str
    what: str


class Cloud(LoggingConfigurable):
    """Runs jobs. Every method is idempotent: the reconciler may repeat any call."""

    @property
    @abstractmethod
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs of the pool."""

    @property
    @abstractmethod
    def simulated(self) -> bool:
        """Whether the GPUs are simulated."""

    @abstractmethod
    async def start(self, spec: JobSpec) -> str:
        """Start a job unless it was started before; return its directory.

        Raises
        ------
        CloudError
            If the job can't be started, in words for its owner.
        """

    @abstractmethod
    async def status(self, job_id: str, user: str) -> JobStatus:
        """What has become of the job."""

    @abstractmethod
    async def extend(self, job_id: str, user: str, end: int) -> None:
        """Let a running job run until `end`; `status` tells when it has been understood.

        A job that is being stopped already, or has ended, is left alone, and so is one
        that runs longer anyway.

        Raises
        ------
        CloudError
            If the job can't be told, in words for its owner.
        """

    @abstractmethod
    async def workloads(self) -> list[Workload]:
        """Everything that runs here for jobs, whoever has started it."""

    @abstractmethod
    async def stop(self, job_id: str, user: str) -> None:
        """End a job and everything it started: SIGTERM, the job's grace, SIGKILL.

        Returns when the signal is sent; `status` tells when it has ended.
        """

    @abstractmethod
    async def read_log(self, job_id: str, user: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of the job's log from byte `offset` on; empty if none.

        A negative offset counts from the end of the log.
        """

    async def close(self) -> None:
        """The service stops. Jobs go on, unless the cloud is configured otherwise."""


class CloudError(Exception):
    """A job could not be started or reached; the text is for its owner."""
