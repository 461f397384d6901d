"""What is done about jobs between their start and their end, whenever something changes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from weakref import WeakValueDictionary

from era_hub.clouds.base import Phase
from era_hub.clouds.kubernetes import objects, words
from era_hub.clouds.kubernetes.api import Api, ApiError, Json
from era_hub.clouds.kubernetes.book import Book
from era_hub.clouds.kubernetes.judging import Run, Verdict, judge, note, remember
from era_hub.clouds.kubernetes.logs import Logs
from era_hub.clouds.kubernetes.machines import Machines
from era_hub.clouds.kubernetes.views import (
    CUT,
    KIND,
    OUTCOME,
    RESERVATION,
    RUN,
    JobView,
    PodView,
)
from era_hub.clouds.kubernetes.watching import Copy
from era_hub.timing import Backoff

HANDS = 8  # jobs that are tended at once
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
ATTENTIVE = 3.0  # seconds before its end from which on a job's last words are waited for
LINGER = 10.0  # seconds after its end until which they are


class Keeper:
    """Tends jobs: each time something about one changes, it does what is to be done.

    It brings up the other ranks once the address of the first is known; takes the order
    away once it was read, so that no pod that takes the place of another runs it again;
    ends what has lost a part; and notes how a run has ended, for when its pods are gone.
    Every step may be repeated, by whoever does it.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        jobs: Copy[JobView],
        pods: Copy[PodView],
        machines: Machines,
        logs: Logs,
        log: logging.Logger,
    ) -> None:
        self.api = api
        self.namespace = namespace
        self.jobs = jobs
        self.pods = pods
        self.machines = machines
        self.logs = logs
        self.log = log
        self.book = Book(self.touch)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._dirty: set[str] = set()
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._pauses: dict[str, Backoff] = {}
        self._taken: set[str] = set()  # uids of leads whose order was taken away
        self._alarms: dict[str, asyncio.TimerHandle] = {}

    def touch(self, job_id: str) -> None:
        """Have a look at a job, soon."""
        if job_id not in self._dirty:
            self._dirty.add(job_id)
            self._queue.put_nowait(job_id)

    def touch_node(self, node: str) -> None:
        """Have a look at all jobs with pods on a node, which is lost."""
        for job_id in self.book:
            run = self.book.latest(job_id)
            if run and any(pod.node == node and pod.alive for pod in run.pods.values()):
                self.touch(job_id)

    def lock(self, job_id: str) -> asyncio.Lock:
        """Whoever changes a job holds it."""
        return self._locks.setdefault(job_id, asyncio.Lock())

    def judge(self, run: Run, *, checked: bool = False) -> Verdict:
        """What has become of a run, as far as is known."""
        return judge(run, self.machines, time.time(), checked=checked)

    async def run(self) -> None:
        """Tend jobs until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(HANDS):
                group.create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            job_id = await self._queue.get()
            self._dirty.discard(job_id)
            try:
                async with self.lock(job_id):
                    await self.tend(job_id)
                self._pauses.pop(job_id, None)
            except Exception as error:
                pause = self._pauses.setdefault(job_id, Backoff(FIRST_PAUSE, LONGEST_PAUSE))
                pause.fail(loop.time())
                known = isinstance(error, ApiError)
                self.log.warning(
                    "Job %s: next try in %g s: %s", job_id, pause.length, error, exc_info=not known
                )
                loop.call_later(pause.length, self.touch, job_id)

    async def tend(self, job_id: str) -> None:
        """Do what is to be done about a job; its lock is held."""
        run = self.book.latest(job_id)
        if run is None:
            return
        verdict = self.judge(run)
        if verdict.doubtful:
            await self.refresh(job_id, run)
            run = self.book.latest(job_id)
            if run is None:
                return
            verdict = self.judge(run, checked=True)
        if verdict.cut is not None:
            await self.cut(run, dict(verdict.cut))
        await self._give_up_lost_pods(run)
        if verdict.status.phase is Phase.ENDED:
            await self._conclude(run, verdict)
        elif verdict.cut is None and run.lead is not None and run.lead.cut is None:
            await self._bring_up(run, run.lead)
            await self._take_order(run, run.lead)
            await self._attend(run, run.lead)

    async def refresh(self, job_id: str, run: Run) -> None:
        """Ask the API about all objects of a run."""
        selector = f"{RESERVATION}={job_id},{RUN}={run.number}"

        def concerns(item: JobView | PodView) -> bool:
            return item.job_id == job_id and item.run == run.number

        await self.jobs.look(selector, concerns)
        await self.pods.look(f"{selector},{KIND}=job", concerns)

    async def cut(self, run: Run, why: Json) -> None:
        """End a run before its time, and say why on its Jobs: they make no more pods."""
        if not why["lost"]:  # else there may be nobody to ask
            await self.logs.catch_up(run)
        self.logs.last_words(run, self._grace(run) + LINGER)
        change = {"metadata": {"annotations": {CUT: json.dumps(why)}}, "spec": {"parallelism": 0}}
        # The lead comes last: once it is cut, all are.
        for job in sorted(run.jobs.values(), key=lambda job: -job.rank):
            if job.cut is None:
                await self.change(job, change)

    async def change(self, job: JobView, change: Json) -> None:
        """Change a Job; one that is gone is no matter."""
        try:
            self.jobs.put(await self.api.patch(self.path(job.name), change))
        except ApiError as error:
            if error.status != 404:
                raise
            await self.jobs.look(f"{RESERVATION}={job.job_id}", lambda item: item.uid == job.uid)

    async def undo(self, job: JobView) -> None:
        """Delete a Job that was never let go, and what was made for it."""
        for name in objects.secret_names(job):
            await self.api.delete(self.secret(name))
        await self.api.delete(self.path(job.name), preconditions={"uid": job.uid})

    async def kill(self, pod: PodView, grace: int) -> None:
        """Delete a pod with so many seconds of grace; 0 also where its node can't confirm it."""
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        try:
            await self.api.delete(path, gracePeriodSeconds=grace, preconditions={"uid": pod.uid})
        except ApiError as error:
            if error.status != 409:  # another pod of that name
                raise

    def path(self, name: str = "") -> str:
        """Of a Job, or of all."""
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs" + (f"/{name}" if name else "")

    def secret(self, name: str = "") -> str:
        """Path of a Secret, or of all."""
        return f"/api/v1/namespaces/{self.namespace}/secrets" + (f"/{name}" if name else "")

    def forget(self, job_id: str, runs: list[Run]) -> None:
        """A job's objects are gone; these were its runs."""
        for run in runs:
            self.logs.forget(job_id, run.pods.values())
            self._taken -= {job.uid for job in run.jobs.values()}
        if alarm := self._alarms.pop(job_id, None):
            alarm.cancel()
        self.book.drop(job_id)

    async def _give_up_lost_pods(self, run: Run) -> None:
        """Nobody is left on a lost node who could confirm that its pods have ended."""
        if run.lead is None or run.lead.cut is None:
            return
        for pod in list(run.pods.values()):
            if pod.alive and pod.node in self.machines:
                self.log.info("Pod %s is given up: its node %s is lost", pod.name, pod.node)
                await self.kill(pod, 0)

    async def _conclude(self, run: Run, verdict: Verdict) -> None:
        lead = run.lead
        if lead is None or lead.outcome is not None:
            return
        note = json.dumps(remember(verdict.status))
        # No pod may take the place of one that is gone.
        change = {"metadata": {"annotations": {OUTCOME: note}}, "spec": {"parallelism": 0}}
        await self.change(lead, change)
        await self._take_order(run, lead, now=True)
        if alarm := self._alarms.pop(lead.job_id, None):
            alarm.cancel()

    async def _bring_up(self, run: Run, lead: JobView) -> None:
        """Start the other ranks, which must know the address of the first."""
        first = run.first(0)
        if lead.size == 1 or objects.is_indexed(lead) or first is None or not first.ip:
            return
        there = {job.rank for job in run.jobs.values()}
        for rank in sorted(set(range(lead.size)) - there):
            body = objects.follower(lead, rank, first.ip, time.time())
            try:
                self.jobs.put(await self.api.create(self.path(), body))
            except ApiError as error:
                if error.status != 409:
                    raise
                await self.refresh(lead.job_id, run)

    async def _take_order(self, run: Run, lead: JobView, *, now: bool = False) -> None:
        """Delete the Secrets of a run whose pods have all read them."""
        if lead.uid in self._taken:
            return
        pods = (run.first(rank) for rank in range(lead.size))
        if now or all(pod is not None and pod.container.started for pod in pods):
            for name in objects.secret_names(lead):
                await self.api.delete(self.secret(name))
            self._taken.add(lead.uid)

    async def _attend(self, run: Run, lead: JobView) -> None:
        """Be there when a job's time is over.

        Its pod goes then, so that what it says must be read before. The control plane
        would end it as well, but may be busy, and old ones miss a deadline that was moved.
        """
        loop = asyncio.get_running_loop()
        over = lead.end - lead.grace
        due, now = over - ATTENTIVE, time.time()
        if now >= due:
            self.logs.last_words(run, lead.end - now + LINGER)
            due = over
        if now >= due:
            await self.cut(run, note(words.AT_ITS_END, timed_out=True))
            for pod in [each for each in run.pods.values() if each.alive]:
                await self.kill(pod, max(1, lead.grace))
            return
        if known := self._alarms.get(lead.job_id):
            known.cancel()
        self._alarms[lead.job_id] = loop.call_later(due - now, self.touch, lead.job_id)

    @staticmethod
    def _grace(run: Run) -> int:
        return run.lead.grace if run.lead else 0
