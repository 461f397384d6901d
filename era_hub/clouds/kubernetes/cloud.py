"""Jobs on a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from traitlets import Bool, Dict, Float, Integer, List, Unicode, default
from traitlets import Callable as CallableTrait

from era_hub.clouds.base import (
    Cloud,
    CloudError,
    CloudUnavailable,
    JobSpec,
    JobStatus,
    Node,
    Phase,
    Workload,
)
from era_hub.clouds.kubernetes import objects, views, words
from era_hub.clouds.kubernetes.api import Api, ApiError, Json
from era_hub.clouds.kubernetes.inventory import Rules, Usage
from era_hub.clouds.kubernetes.judging import Run, note
from era_hub.clouds.kubernetes.keeper import Keeper
from era_hub.clouds.kubernetes.logs import Logs
from era_hub.clouds.kubernetes.machines import Machines
from era_hub.clouds.kubernetes.views import END, JOB, KIND, SETTLED, JobView, NodeView, PodView
from era_hub.clouds.kubernetes.watching import Copy
from era_hub.clouds.orders import check, checked_id
from era_hub.pool import Pool

FORGET_EVERY = 30.0  # seconds between looks at what is to be forgotten
STIR = 0.05  # seconds in which changes are told together
BEGIN_SECONDS = 5.0  # for the control plane to see a new Job


class KubernetesCloud(Cloud):
    """Runs jobs as Jobs of a Kubernetes cluster, on the nodes that the market has planned.

    Nodes, pods and Jobs are watched. The Job is what is remembered of a run: who it is
    for, when it ends, and how it has ended, in its annotations. It is deleted some time
    after the market has settled the job.

    The end of a reservation is the Job's ``activeDeadlineSeconds``: the control plane
    keeps it even if the service is away, and sends SIGTERM a job's grace before.
    """

    kubeconfig = Unicode(
        help="""Kubeconfig file of the cluster. By default ``KUBECONFIG`` names it; without
        that, the service's own pod is where the cluster is, and else ``~/.kube/config``.
        Example: ``c.KubernetesCloud.kubeconfig = "/etc/era/kubeconfig"``"""
    ).tag(config=True)

    context = Unicode(
        help="Context of the kubeconfig; its current one by default. Example: ``gpu-cluster``"
    ).tag(config=True)

    namespace = Unicode(
        help="""Namespace of jobs; by default the one of the kubeconfig's context or of the
        service's own pod. Example: ``c.KubernetesCloud.namespace = "era-jobs"``"""
    ).tag(config=True)

    pool = Unicode(
        help="""Label of what belongs to this pool, ``era.jupyter.org/pool``; by default
        `Pool.name`. Pods without it are those of other tenants."""
    ).tag(config=True)

    node_selector = Dict(
        help="""Labels of the pool's nodes; all nodes of the cluster by default.
        Example: ``c.KubernetesCloud.node_selector = {"nvidia.com/gpu.product": "A100-SXM4"}``
        """
    ).tag(config=True)

    share = Float(
        1.0,
        help="""Part of each node that is ERA's, above 0 and at most 1. Whole devices are
        counted on each node: of 8 GPUs, 0.2 are 1. What other tenants' pods take counts
        only where it exceeds the rest. Example: ``c.KubernetesCloud.share = 0.2``""",
    ).tag(config=True)

    preemptible = Bool(
        False,
        help="""Whether ERA owns nothing for good. `share` is then a part of what other tenants
        leave free at the moment, and shrinks when they come. Give ERA's pods a
        `priority_class` below that of the others, so that they give way.""",
    ).tag(config=True)

    node_patience = Float(
        10.0,
        min=0.0,
        help="""Seconds for which a node may be not ready before it counts as lost, and what
        runs on it is ended and planned anew. Nothing starts on it meanwhile.""",
    ).tag(config=True)

    image = Unicode(
        "quay.io/jupyterhub/singleuser:latest",
        help="""Image of jobs; best that of the notebooks. It needs ``sh``, ``base64`` and
        ``gzip``. Example: ``c.KubernetesCloud.image = "quay.io/jupyter/pytorch-notebook:cuda12"``
        """,
    ).tag(config=True)

    image_pull_policy = Unicode(
        help="``Always``, ``IfNotPresent`` or ``Never``; Kubernetes decides by default."
    ).tag(config=True)

    working_directory = Unicode(
        "era-jobs/{job_id}",
        help="""Directory in which a job starts and its files are; made if need be. A relative
        path counts from the image's ``HOME``. Put it on a volume that outlives the pod if
        later runs are to find what earlier ones wrote.
        Example: ``c.KubernetesCloud.working_directory = "/home/jovyan/era-jobs/{job_id}"``""",
    ).tag(config=True)

    environment = Dict(
        help="""Variables of all jobs; users' own win over them.
        Example: ``c.KubernetesCloud.environment = {"NCCL_SOCKET_IFNAME": "eth0"}``"""
    ).tag(config=True)

    volumes: List = List(
        help="""Volumes, as in a pod. Example: ``c.KubernetesCloud.volumes = [{"name": "home",
        "persistentVolumeClaim": {"claimName": "claim-{username}"}}]``"""
    ).tag(config=True)

    volume_mounts: List = List(
        help="""Where the volumes are mounted, as in a container. Example:
        ``c.KubernetesCloud.volume_mounts = [{"name": "home", "mountPath": "/home/jovyan"}]``"""
    ).tag(config=True)

    service_account = Unicode(
        help="Service account of jobs. Without one they get no token for the Kubernetes API."
    ).tag(config=True)

    tolerations = List(
        [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        help="""Tolerations, as in a pod. Nodes with other taints are not sold; give the
        notebooks the same.""",
    ).tag(config=True)

    priority_class = Unicode(help="Priority class of jobs.").tag(config=True)

    labels = Dict(help="Labels of jobs and their pods.").tag(config=True)

    annotations = Dict(help="Annotations of jobs and their pods.").tag(config=True)

    job_template = Dict(
        help="""A ``batch/v1`` Job, or any part of one, into which each job is put. The job's
        container is called ``job``. What the reservation promises wins over it: resources,
        planned nodes, deadline. In this and all other settings ``{username}``,
        ``{escaped_username}`` and ``{unescaped_username}`` (as KubeSpawner has them),
        ``{job_id}``, ``{configuration}``, ``{pool}`` and ``{namespace}`` are replaced.
        Example: ``c.KubernetesCloud.job_template = {"spec": {"template": {"spec":
        {"securityContext": {"runAsUser": 1000}}}}}``"""
    ).tag(config=True)

    modify_job = CallableTrait(
        None,
        allow_none=True,
        help="""Called with the `JobSpec` and the Job (a dict) before it is created; returns
        the Job to create, or None for the one it was given, changed in place. May be async.
        A Job that would take other GPUs than are reserved is refused.""",
    ).tag(config=True)

    keep_jobs = Integer(
        3600,
        min=0,
        help="Seconds for which a Job and its pods stay after the market has settled it.",
    ).tag(config=True)

    log_directory = Unicode(
        "era-logs",
        help="""Where the logs of jobs are kept that were read through the API. A relative path
        counts from the directory in which the service starts.""",
    ).tag(config=True)

    keep_logs = Integer(
        30 * 86400, min=60, help="Seconds for which a log is kept after its last line."
    ).tag(config=True)

    @default("pool")
    def _default_pool(self) -> str:
        return Pool(parent=self.parent, config=self.config).name

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < self.share <= 1:
            raise ValueError(f"KubernetesCloud.share must be above 0 and at most 1: {self.share}")
        self._api: Api | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stirred: asyncio.TimerHandle | None = None
        self._jobs_changed = False
        self._offered: tuple[Node, ...] | None = None
        self._indexed = False

    async def open(self) -> None:
        """Connect, list everything, and go on watching."""
        try:
            self._api, namespace = await Api.connect(self.kubeconfig, self.context)
            self.namespace = self.namespace or namespace
            self._make(self._api)
            for copy in (self._node_copy, self._job_copy, self._pod_copy):
                await copy.refresh()
            self._indexed = await self._knows_indexed_jobs()
        except ApiError as error:
            if self._api is not None:
                await self._api.close()
            raise CloudError(f"the Kubernetes cluster can't be used: {error}") from None
        runners = (self._node_copy, self._job_copy, self._pod_copy, self._keeper)
        self._tasks = [asyncio.create_task(each.run()) for each in runners]
        self._tasks.append(asyncio.create_task(self._forget_in_time()))

    def _make(self, api: Api) -> None:
        rules = Rules(
            self.pool, self.node_selector, self.share, self.preemptible, tuple(self.tolerations)
        )
        self._usage = Usage(self.pool)
        self._machines = Machines(rules, self._usage, self.node_patience, self._node_stirred)
        ours = f"{views.POOL}={self.pool},{KIND}={JOB}"
        jobs = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        self._node_copy: Copy[NodeView] = Copy(
            api, "/api/v1/nodes", views.node, self._machines.seen, self.log
        )
        self._job_copy: Copy[JobView] = Copy(api, jobs, views.job, self._job_seen, self.log, ours)
        self._pod_copy: Copy[PodView] = Copy(
            api, "/api/v1/pods", views.pod, self._pod_seen, self.log
        )
        self._logs = Logs(
            api,
            Path(self.log_directory).absolute(),
            lambda pod: self._pod_copy.items.get(pod.uid),
            self.log,
        )
        self._keeper = Keeper(
            api,
            self.namespace,
            self._job_copy,
            self._pod_copy,
            self._machines,
            self._logs,
            self.log,
        )

    async def _knows_indexed_jobs(self) -> bool:
        """Whether the server keeps what makes a Job an indexed one; before 1.22 it drops it."""
        assert self._api is not None
        made = await self._api.create(
            self._keeper.path(), objects.probe(self.namespace), dryRun="All"
        )
        return made["spec"].get("completionMode") == "Indexed"

    # What changes

    def _node_stirred(self, node: str) -> None:
        if node in self._machines:
            self._keeper.touch_node(node)
        self._stir()

    def _job_seen(self, old: JobView | None, new: JobView | None) -> None:
        self._keeper.book.job_seen(old, new)
        self._jobs_changed = True
        self._stir()

    def _pod_seen(self, old: PodView | None, new: PodView | None) -> None:
        pod = new or old
        assert pod is not None
        if self._usage.seen(old, new):
            for each in filter(None, (old, new)):
                self._machines.refresh(each.node)
        ours = pod.pool == self.pool
        if ours and pod.kind == JOB and pod.namespace == self.namespace:
            self._keeper.book.pod_seen(old, new)
        self._jobs_changed |= ours
        if ours:
            self._stir()

    def _stir(self) -> None:
        if self._stirred is None:
            self._stirred = asyncio.get_running_loop().call_later(STIR, self._tell)

    def _tell(self) -> None:
        self._stirred = None
        offered = self._machines.offers()
        if offered != self._offered or self._jobs_changed:
            self._offered, self._jobs_changed = offered, False
            self.changed()

    # What there is

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the pool that are well, with what ERA may sell of each."""
        return self._machines.offers()

    @property
    def simulated(self) -> bool:
        """Never: what Kubernetes says there is counts as real."""
        return False

    # Jobs

    async def start(self, spec: JobSpec) -> str:
        """Make the Job of a run unless it was made before; return the job's directory."""
        check(spec)
        if not spec.user:
            raise CloudError("the job has no owner")
        directory = objects.directory(spec, self._template, self.namespace, self.pool)
        async with self._keeper.lock(spec.id), self._told():
            latest = self._keeper.book.latest(spec.id)
            if latest is not None and latest.number >= spec.run:
                return directory
            if latest is not None and self._status(latest).phase is not Phase.ENDED:
                raise CloudError("the job still runs")
            await self._make_job(spec)
        return directory

    @property
    def _template(self) -> objects.Template:
        names = objects.Template.__dataclass_fields__
        return objects.Template(**{name: getattr(self, name) for name in names})

    async def _make_job(self, spec: JobSpec) -> None:
        """Make the Job, then what its pods need, then let it make them.

        In this order nothing is left over wherever it breaks off, and all of it can be
        done again.
        """
        assert self._api is not None
        indexed = self._indexed and len(spec.nodes) > 1 and objects.spreads_evenly(spec.nodes)
        body, pieces = objects.main_job(
            spec, self._template, self.namespace, self.pool, time.time(), indexed=indexed
        )
        if self.modify_job is not None:
            answer = self.modify_job(spec, body)
            if inspect.isawaitable(answer):
                answer = await answer
            body = objects.marked(answer or body, spec, self.pool)
        objects.guard(body, spec)
        job = self._job_copy.put(await self._created(self._keeper.path(), body))
        if not job.released and (job.nodes, job.end) != (tuple(spec.nodes), spec.end):
            await self._keeper.undo(job)  # planned otherwise when its making broke off
            job = self._job_copy.put(await self._created(self._keeper.path(), body))
        if job.released:
            return
        for secret in objects.secrets(job, pieces):
            await self._created(self._keeper.secret(), secret)
        if indexed:
            path = f"/api/v1/namespaces/{self.namespace}/services"
            await self._created(path, objects.service(job))
        await self._keeper.change(job, objects.release(job))

    async def _created(self, path: str, body: Json) -> Json:
        """Create an object, or get the one that was created before."""
        assert self._api is not None
        try:
            return await self._api.create(path, body)
        except ApiError as error:
            if error.status != 409:
                raise
            return await self._api.get(f"{path}/{body['metadata']['name']}")

    async def status(self, job_id: str, user: str) -> JobStatus:
        """What has become of the job, as far as the watches have told."""
        run = self._latest(job_id, user)
        return JobStatus(Phase.UNKNOWN) if run is None else self._status(run)

    def _latest(self, job_id: str, user: str) -> Run | None:
        run = self._keeper.book.latest(checked_id(job_id))
        if run is not None and run.lead is not None and run.lead.user != user:
            return None
        return run

    def _status(self, run: Run) -> JobStatus:
        return self._keeper.judge(run).status

    async def extend(self, job_id: str, user: str, end: int) -> None:
        """Let a running job run until `end`."""
        run = self._latest(job_id, user)
        if run is None:
            return
        async with self._keeper.lock(job_id), self._told():
            await self._until_begun(run)
            lead = run.lead
            if lead is None or lead.cut or lead.outcome:
                return
            told = {END: datetime.fromtimestamp(end, UTC).isoformat()}
            for job in list(run.jobs.values()):
                if not job.condition and job.end < end:
                    begun = job.created if job.begun is None else job.begun
                    allowed = objects.allowed(end, job.grace, begun)
                    change: Json = {"spec": {"activeDeadlineSeconds": allowed}}
                    await self._keeper.change(job, change | {"metadata": {"annotations": told}})

    async def _until_begun(self, run: Run) -> None:
        """Wait until the control plane counts a run's time: it misses changes made before."""
        give_up = time.monotonic() + BEGIN_SECONDS
        while any(job.begun is None for job in run.jobs.values()):
            if time.monotonic() > give_up:
                return
            await asyncio.sleep(STIR)

    async def workloads(self) -> list[Workload]:
        """The pods of this pool's jobs that have not ended, whoever has made them."""
        return [
            Workload(pod.job_id, f"pod {pod.namespace}/{pod.name}")
            for pod in self._pod_copy
            if pod.kind == JOB and pod.pool == self.pool and pod.alive
        ]

    async def stop(self, job_id: str, user: str) -> None:
        """End a job's pods with their grace, at once where its time is over."""
        checked_id(job_id)
        async with self._keeper.lock(job_id), self._told():
            run = self._latest(job_id, user)
            if run is None:
                return
            lead = run.lead
            over = lead is None or time.time() >= lead.end
            if lead is not None and not lead.outcome and not lead.cut:
                await self._keeper.cut(run, note(words.ON_REQUEST))
            if over:
                for pod in [each for each in run.pods.values() if each.alive]:
                    await self._keeper.kill(pod, 1)

    async def read_log(self, job_id: str, user: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes (and 1 MiB) of the job's log from byte `offset` on."""
        runs = [] if self._latest(job_id, user) is None else self._keeper.book.runs(job_id)
        return await self._logs.read(job_id, runs, offset, limit)

    async def forget(self, job_id: str, user: str) -> None:
        """Note on its Jobs that they may go."""
        checked_id(job_id)
        now = datetime.fromtimestamp(int(time.time()), UTC).isoformat()
        async with self._keeper.lock(job_id), self._told():
            for run in self._keeper.book.runs(job_id):
                for job in list(run.jobs.values()):
                    if job.settled is None:
                        change = {"metadata": {"annotations": {SETTLED: now}}}
                        await self._keeper.change(job, change)

    async def _forget_in_time(self) -> None:
        while True:
            try:
                await self._forget_old()
            except ApiError as error:
                self.log.warning("Old Jobs stay for now: %s", error)
            await asyncio.sleep(FORGET_EVERY)

    async def _forget_old(self) -> None:
        """Delete Jobs that were settled long ago, when their logs are read."""
        assert self._api is not None
        self._logs.clean(self.keep_logs)
        now = time.time()
        for job_id in self._keeper.book:
            runs = self._keeper.book.runs(job_id)
            jobs = [job for run in runs for job in run.jobs.values()]
            settled = [job.settled for job in jobs]
            if not jobs or None in settled or max(filter(None, settled)) + self.keep_jobs > now:
                continue
            async with self._keeper.lock(job_id):
                for run in runs:
                    await self._logs.catch_up(run)
                for job in jobs:
                    await self._api.delete(self._keeper.path(job.name))
                self._keeper.forget(job_id, runs)

    async def close(self) -> None:
        """Watch no longer. Jobs go on; what was known last can still be asked."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._stirred is not None:
            self._stirred.cancel()
        if self._api is not None:
            await self._logs.close()
            await self._api.close()

    @asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        """Say in words for the job's owner what the API says."""
        try:
            yield
        except ApiError as error:
            if error.transient:
                raise CloudUnavailable(str(error)) from None
            raise CloudError(f"Kubernetes refuses it: {error}") from None
