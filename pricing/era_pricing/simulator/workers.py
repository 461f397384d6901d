"""Many runs at once: in processes of this machine, or on Dask where one is too small."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Workers(Protocol):
    """Something that runs calls elsewhere."""

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin a call; arguments from `share` may be among them."""

    def share(self, value: Any) -> Any:
        """Send a large argument once, for many calls."""


class _Inline:
    """Runs each call at once, in this process."""

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def share(self, value: Any) -> Any:
        return value


class _Pool:
    """Calls through an executor of `concurrent.futures`."""

    def __init__(self, executor: Executor, share: Callable[[Any], Any] = lambda value: value):
        self._executor = executor
        self._share = share

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        return self._executor.submit(call, *arguments)

    def share(self, value: Any) -> Any:
        return self._share(value)


@contextmanager
def open_workers(
    jobs: int | None = None, scheduler: str | None = None, dask: bool = False
) -> Iterator[Workers]:
    """Workers for as long as the context lasts.

    Parameters
    ----------
    jobs
        Processes on this machine; as many as it has cores if None, none but this
        one if 1.
    scheduler
        Address of a running Dask scheduler, such as ``tcp://host:8786``.
    dask
        Start a Dask cluster of `jobs` processes on this machine.

    Raises
    ------
    OSError
        If no scheduler answers at the address.
    """
    jobs = jobs or available_cores()
    if scheduler is not None or dask:
        with _dask(jobs, scheduler) as workers:
            yield workers
    elif jobs == 1:
        yield _Inline()
    else:
        with ProcessPoolExecutor(jobs) as executor:
            yield _Pool(executor)


@contextmanager
def _dask(jobs: int, scheduler: str | None) -> Iterator[Workers]:
    import distributed

    start: Any = distributed.LocalCluster
    connect: Any = distributed.Client
    local = None
    if scheduler is None:
        local = start(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    try:
        with connect(local if local is not None else scheduler, timeout="10s") as client:
            yield _Pool(client.get_executor(), lambda value: client.scatter(value, broadcast=True))
    finally:
        if local is not None:
            local.close()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gather(futures: Sequence[Future[T]], progress: Callable[[int], None]) -> list[T]:
    """The results in the order of the futures; the first error ends the others.

    Parameters
    ----------
    futures
        Calls that were submitted.
    progress
        Called with 1 whenever one has ended.
    """
    try:
        for future in as_completed(futures):
            future.result()
            progress(1)
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    return [future.result() for future in futures]
