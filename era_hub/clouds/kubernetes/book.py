"""What is known of jobs: their runs, with the Jobs and pods of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from era_hub.clouds.kubernetes.judging import Run
from era_hub.clouds.kubernetes.views import JobView, PodView


class Book:
    """The runs of all jobs of a pool.

    Pods stay in it when they are gone, for as long as their run does: what became of a
    job is judged by them.

    Parameters
    ----------
    touched : callable
        Called with the id of a job about which something new is known.
    """

    def __init__(self, touched: Callable[[str], None]) -> None:
        self.touched = touched
        self._runs: dict[str, dict[int, Run]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._runs))

    def runs(self, job_id: str) -> list[Run]:
        """All runs of a job, the first one first."""
        return [run for _, run in sorted(self._runs.get(job_id, {}).items())]

    def latest(self, job_id: str) -> Run | None:
        """The latest run that was let go: one whose Job may not make pods yet does not count."""
        for run in reversed(self.runs(job_id)):
            if run.begun and (run.lead is None or run.lead.released):
                return run
        return None

    def drop(self, job_id: str) -> None:
        """Forget a job."""
        self._runs.pop(job_id, None)

    def job_seen(self, old: JobView | None, new: JobView | None) -> None:
        """A Job has come, changed or gone."""
        job = new or old
        assert job is not None
        run = self._run(job.job_id, job.run)
        known = run.jobs.get(job.name)
        if known is not None and known.uid != job.uid and known.version > job.version:
            return  # an earlier one of that name
        if new is not None:
            run.jobs[new.name] = new
            run.begun = True
        elif job.settled is not None:
            self._discard(job.job_id, job.run)
        elif job.outcome is None:  # else it is still needed
            run.jobs.pop(job.name, None)
        self.touched(job.job_id)

    def pod_seen(self, old: PodView | None, new: PodView | None) -> None:
        """A pod of a job has come, changed or gone."""
        pod = new or old
        assert pod is not None
        run = self._run(pod.job_id, pod.run)
        run.pods[pod.uid] = pod if new is not None else pod.without()
        if not run.begun and all(each.gone for each in run.pods.values()):
            self._discard(pod.job_id, pod.run)
        self.touched(pod.job_id)

    def _run(self, job_id: str, number: int) -> Run:
        runs = self._runs.setdefault(job_id, {})
        if number not in runs:
            runs[number] = Run(number)
        return runs[number]

    def _discard(self, job_id: str, number: int) -> None:
        runs = self._runs.get(job_id, {})
        runs.pop(number, None)
        if not runs:
            self.drop(job_id)
