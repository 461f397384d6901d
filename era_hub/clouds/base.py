"""The cloud seam: what the reconciler asks of whatever runs the jobs.

A cloud knows nodes and processes, not money: it says what there is, is told what
to start and when to end it, and says what has become of it. `EraHub.cloud_class`
names the implementation; each passes ``tests/era_hub/clouds/test_contract.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from traitlets.config import LoggingConfigurable

GPU = "nvidia.com/gpu"
"""Name of the resource in Kubernetes notation."""


@dataclass(frozen=True)
class Gpu:
    """One GPU of the pool: its index on this machine and a name for people."""

    index: int
    name: str


@dataclass(frozen=True)
class Node:
    """A machine of the pool, and what the market may sell of it.

    Attributes
    ----------
    name : str
    resources : mapping of str to str
        In Kubernetes notation; what others take of it is not in there.
    open : bool
        Whether anything may start on it. What runs on a node that is closed (cordoned)
        goes on to its end.
    """

    name: str
    resources: Mapping[str, str]
    open: bool = True


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
        Indices of the GPUs the job owns; empty for none, and where the cloud's nodes
        number theirs themselves.
    end : int
        UTC seconds at which this run ends and the job is killed.
    grace : int
        Seconds before `end` at which the job gets SIGTERM.
    run : int
        How often the job was started before. A job that goes on in a later run finds
        what it has written in the earlier ones.
    nodes : tuple of str
        The node of each of the job's bundles; as many processes or pods make up the job.
    resources : mapping of str to str
        What each bundle is promised, in Kubernetes notation.
    configuration : str
        Name of the bundle.
    """

    id: str
    user: str
    command: Sequence[str]
    gpus: tuple[int, ...]
    end: int
    grace: int
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    run: int = 0
    nodes: tuple[str, ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
    configuration: str = ""


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
        Whether it was stopped because its time was over.
    message : str
        In plain words, e.g. ``killed by signal 9 (out of memory?)``. Of a running job:
        what it waits for, empty for nothing.
    end : int or None
        When a running job will be ended, UTC seconds; None if it can't be told.
    run : int
        Which run this is about: the latest one.
    lost : bool
        Whether it has ended through no fault of its own: its node died, or somebody
        else deleted it.
    """

    phase: Phase
    exit_code: int | None = None
    timed_out: bool = False
    message: str = ""
    end: int | None = None
    run: int = 0
    lost: bool = False


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
    """Runs jobs. Every method is idempotent: the reconciler may repeat any call.

    Attributes
    ----------
    changed : callable
        Called, on the event loop, when nodes or jobs may have changed. Whoever uses the
        cloud sets it; clouds that can't tell leave it alone, and are asked.
    """

    changed: Callable[[], None] = staticmethod(lambda: None)

    async def open(self) -> None:
        """Find out what there is; awaited before anything else is asked.

        Raises
        ------
        CloudError
            If that can't be found out.
        """

    @property
    @abstractmethod
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are well, by name; those that are lost are left out."""

    @property
    def gpus(self) -> tuple[Gpu, ...] | None:
        """The GPUs of the pool by index; None where each node numbers its own."""
        return None

    @property
    @abstractmethod
    def simulated(self) -> bool:
        """Whether the GPUs are simulated."""

    @abstractmethod
    async def start(self, spec: JobSpec) -> str:
        """Start a run of a job unless it was started before; return the job's directory.

        Raises
        ------
        CloudError
            If the job can't be started, in words for its owner; also while an earlier
            run has not ended.
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

    async def forget(self, job_id: str, user: str) -> None:
        """The market has settled the job: what is kept to remember its end may go.

        Its log stays for as long as the cloud keeps logs.
        """

    async def close(self) -> None:
        """The service stops. Jobs go on, unless the cloud is configured otherwise."""


class CloudError(Exception):
    """A job could not be started or reached; the text is for its owner."""


class CloudUnavailable(CloudError):
    """The cloud can't be asked at present; the same call may well work later."""
