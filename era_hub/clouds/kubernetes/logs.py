"""What jobs print: read through the API, and kept on disk so that it can be read in pieces.

The API can't be asked for the log from some byte on. What was read is therefore kept,
and only what comes after it is added: as one file per job, to which the pods of all its
runs write. Where a run has several pods, lines begin with their rank in brackets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from era_hub.clouds.kubernetes.api import Api, ApiError
from era_hub.clouds.kubernetes.judging import Run
from era_hub.clouds.kubernetes.views import JOB, PodView

MOST_READ = 1 << 20  # bytes a single call reads at most, whatever it asks for
FOLLOWED = 200  # logs that are followed at once
IDLE = 120.0  # seconds until a log is no longer followed that nobody reads
FRESH = 0.5  # seconds for which what was read is good enough, where logs can't be followed
PATIENCE = 10.0  # seconds for a log to be read; a node that is lost answers nothing
ASK_AGAIN = 0.3  # seconds between looks at the last words of a pod whose log can't be followed


class Spool:
    """The file of one job's log, and how far each of its pods was read into it.

    What is written first counts only once the second file says so: after a crash what is
    too much is cut off, and nothing is in it twice.
    """

    def __init__(self, folder: Path, job_id: str) -> None:
        self.path = folder / f"{job_id}.log"
        self._marks_path = folder / f"{job_id}.json"
        self.marks: dict[str, int] = {}
        self.size = 0
        with suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(self._marks_path.read_text())
            self.marks = {str(key): int(value) for key, value in found["marks"].items()}
            self.size = int(found["size"])
        if self.path.exists():
            os.truncate(self.path, min(self.size, self.path.stat().st_size))

    def add(self, source: str, taken: int, text: bytes) -> None:
        """Append text that is so many bytes of a source's log."""
        with self.path.open("ab") as file:
            file.write(text)
        self.size += len(text)
        self.marks[source] = self.marks.get(source, 0) + taken
        new = self._marks_path.with_suffix(".new")
        new.write_text(json.dumps({"marks": self.marks, "size": self.size}))
        new.replace(self._marks_path)

    def read(self, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset` on; a negative one counts from the end."""
        begin = offset if offset >= 0 else max(0, self.size + offset)
        if begin >= self.size or limit <= 0:
            return b""
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), min(limit, self.size - begin), begin)


class Logs:
    """The logs of a pool's jobs.

    Parameters
    ----------
    folder : Path
    now : callable
        The pod as it is known now.
    """

    def __init__(
        self,
        api: Api,
        folder: Path,
        now: Callable[[PodView], PodView | None],
        log: logging.Logger,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.api = api
        self.folder = folder
        self.now = now
        self.log = log
        self._spools: dict[str, Spool] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}  # followed, by uid
        self._wanted: dict[str, float] = {}  # until when, by uid
        self._whole: set[str] = set()  # read to their end, by uid
        self._read_at: dict[str, float] = {}  # by uid
        self._locks: dict[str, asyncio.Lock] = {}  # by uid

    async def read(self, job_id: str, runs: Iterable[Run], offset: int, limit: int) -> bytes:
        """Some of a job's log, with all that its pods have said by now."""
        for run in runs:
            await self.catch_up(run)
        limit = max(0, min(limit, MOST_READ))
        spool = self._spool(job_id)
        return b"" if spool is None else spool.read(offset, limit)

    async def catch_up(self, run: Run) -> None:
        """Read what has been said since the last time, and follow what goes on."""
        now = asyncio.get_running_loop().time()
        for pod in _readable(run):
            if pod.uid in self._tasks or now - self._read_at.get(pod.uid, -FRESH) < FRESH:
                self._wanted[pod.uid] = max(now + IDLE, self._wanted.get(pod.uid, 0))
            elif pod.uid not in self._whole:
                self._read_at[pod.uid] = now
                with suppress(ApiError, TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        await self._take(pod, run, follow=False)
                if pod.alive:
                    self.follow(pod, run, IDLE)

    def follow(self, pod: PodView, run: Run, seconds: float) -> None:
        """Read the log of a running pod as it is written, for so long."""
        until = asyncio.get_running_loop().time() + seconds
        self._wanted[pod.uid] = max(until, self._wanted.get(pod.uid, 0))
        if pod.uid not in self._tasks and len(self._tasks) < FOLLOWED:
            self._tasks[pod.uid] = asyncio.create_task(self._follow(pod, run))

    def last_words(self, run: Run, seconds: float) -> None:
        """Follow a run that is about to be stopped: its pods go, and their logs with them."""
        for pod in _readable(run):
            if pod.alive and pod.uid not in self._whole:
                self.follow(pod, run, seconds)

    def forget(self, job_id: str, pods: Iterable[PodView]) -> None:
        """The job's pods are gone; its file stays."""
        self._spools.pop(job_id, None)
        for pod in pods:
            self._read_at.pop(pod.uid, None)
            self._whole.discard(pod.uid)
            self._wanted.pop(pod.uid, None)
            self._locks.pop(pod.uid, None)

    def clean(self, older: float) -> None:
        """Stop following what nobody reads; delete files that were not added to for so long."""
        now = asyncio.get_running_loop().time()
        for uid, task in list(self._tasks.items()):
            if now >= self._wanted.get(uid, 0):
                task.cancel()
        limit = time.time() - older
        for path in self.folder.iterdir():
            with suppress(OSError):
                if path.stat().st_mtime < limit:
                    path.unlink()

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spool(self, job_id: str, *, make: bool = False) -> Spool | None:
        found = self._spools.get(job_id)
        if found is None and (make or (self.folder / f"{job_id}.log").exists()):
            found = self._spools[job_id] = Spool(self.folder, job_id)
        return found

    async def _follow(self, pod: PodView, run: Run) -> None:
        loop = asyncio.get_running_loop()
        try:
            while loop.time() < self._wanted.get(pod.uid, 0):
                await self._take(pod, run, follow=True)
                known = self.now(pod)
                if pod.uid in self._whole or known is None or known.gone:
                    return
                # Some kubelets answer with what there is instead of following.
                await asyncio.sleep(ASK_AGAIN)
        except ApiError as error:
            self.log.debug("The log of pod %s is not followed any more: %s", pod.name, error)
        finally:
            del self._tasks[pod.uid]

    async def _take(self, pod: PodView, run: Run, *, follow: bool) -> None:
        """Add what a pod's log holds beyond what was taken of it."""
        async with self._locks.setdefault(pod.uid, asyncio.Lock()):
            known = self.now(pod) or pod
            complete = known.finished
            source = f"{run.number}/{pod.uid}"
            spool = self._spool(pod.job_id, make=True)
            assert spool is not None
            prefix = f"[{pod.rank}] ".encode() if run.size > 1 else b""
            rest = b""
            async for piece in self._beyond(pod, spool.marks.get(source, 0), follow):
                text, rest = _whole_lines(rest + piece) if prefix else (piece, b"")
                if text:
                    spool.add(source, len(text), _prefixed(text, prefix))
            if rest and complete:
                spool.add(source, len(rest), _prefixed(rest, prefix))
            if complete:
                self._whole.add(pod.uid)

    async def _beyond(self, pod: PodView, taken: int, follow: bool) -> AsyncIterator[bytes]:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/log"
        options = {"container": JOB, "follow": "true" if follow else None}
        async for piece in self.api.stream(path, silence=None, **options):
            if taken < len(piece):
                yield piece[taken:]
            taken = max(0, taken - len(piece))


def _readable(run: Run) -> list[PodView]:
    """The first pod of each rank, where it may have said something."""
    found = (run.first(rank) for rank in range(run.size))
    return [pod for pod in found if pod and not pod.gone and pod.container.started]


def _whole_lines(text: bytes) -> tuple[bytes, bytes]:
    """The text up to its last line break, and what comes after it."""
    head, mark, rest = text.rpartition(b"\n")
    return head + mark, rest


def _prefixed(text: bytes, prefix: bytes) -> bytes:
    if not prefix:
        return text
    lines = text.removesuffix(b"\n").split(b"\n")
    return b"".join(prefix + line + b"\n" for line in lines)
