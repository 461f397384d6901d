"""The pure parts of the Kubernetes cloud: manifests, inventory, verdicts."""

from __future__ import annotations

import base64
import gzip
import json
import random
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from era_hub.clouds.base import CloudError, JobSpec, JobStatus, Node, Phase
from era_hub.clouds.kubernetes import objects, order, views
from era_hub.clouds.kubernetes.inventory import Rules, Usage, offer
from era_hub.clouds.kubernetes.judging import Run, judge, note

GPU = "nvidia.com/gpu"
NOW = 1_000_000_000.0


def spec(**options: Any) -> JobSpec:
    return JobSpec(
        **{
            "id": str(uuid.UUID(int=7)),
            "user": "ann",
            "command": ["python", "train.py"],
            "gpus": (),
            "end": int(NOW) + 600,
            "grace": 30,
            "files": {"train.py": "pass"},
            "nodes": ("n1",),
            "resources": {"cpu": "4", "memory": "8Gi", GPU: "2"},
        }
        | options
    )


def made(job: JobSpec, *, indexed: bool = False, **settings: Any) -> dict[str, Any]:
    template = objects.Template(**({"image": "jobs:1"} | settings))
    body, _ = objects.main_job(job, template, "ns", "a100", NOW, indexed=indexed)
    return body


def main(job: Mapping[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def variables(job: Mapping[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in main(job)["env"]}


def stored(job: dict[str, Any], **status: Any) -> views.JobView:
    """A Job as the API server gives it back."""
    job["metadata"] |= {
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": "2001-09-09T01:46:40Z",
    }
    job["status"] = {"startTime": "2001-09-09T01:46:40Z"} | status
    job["spec"]["parallelism"] = 1
    return views.job(job)


# Manifests


def test_a_job_is_what_its_reservation_says() -> None:
    job = made(spec())
    assert job["spec"]["backoffLimit"] == job["spec"]["parallelism"] == 0
    assert job["spec"]["activeDeadlineSeconds"] == 570
    pod = job["spec"]["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 30)
    assert main(job)["resources"]["limits"] == {"cpu": "4", "memory": "8Gi", GPU: "2"}
    assert main(job)["resources"]["requests"] == main(job)["resources"]["limits"]
    assert "NVIDIA_VISIBLE_DEVICES" not in variables(job)
    assert (variables(job)["ERA_GPUS"], variables(job)["PET_NPROC_PER_NODE"]) == ("0,1", "2")
    assert job["metadata"]["labels"] == {
        "era.jupyter.org/reservation": str(uuid.UUID(int=7)),
        "era.jupyter.org/pool": "a100",
        "era.jupyter.org/kind": "job",
        "era.jupyter.org/run": "0",
        "era.jupyter.org/rank": "0",
    }
    kubernetes_validate.validate(job, "1.33", strict=True)


def test_a_job_without_gpus_says_so() -> None:
    job = made(spec(resources={"cpu": "1"}))
    assert main(job)["resources"]["limits"][GPU] == "0"
    assert variables(job)["NVIDIA_VISIBLE_DEVICES"] == "none"


def test_several_pods_make_up_an_indexed_job_where_the_server_knows_them() -> None:
    job = made(spec(nodes=("n1", "n2")), indexed=True)
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", 2)
    pod = job["spec"]["template"]["spec"]
    affinity = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    fields = [each["matchFields"][0]["values"] for each in affinity["nodeSelectorTerms"]]
    assert fields == [["n1"], ["n2"]]
    assert pod["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"
    name = job["metadata"]["name"]
    seen = variables(job)
    assert seen["MASTER_ADDR"] == seen["PET_MASTER_ADDR"] == f"{name}-0.{name}"
    assert (seen["WORLD_SIZE"], seen["PET_NNODES"], seen["MASTER_PORT"]) == ("2", "2", "29500")
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert seen["RANK"] == seen["PET_NODE_RANK"] == {"fieldRef": {"fieldPath": index}}
    view = stored(job)
    assert objects.release(view) == {"spec": {"parallelism": 2}}
    service = objects.service(view)
    assert service["metadata"]["name"] == pod["subdomain"] == name
    assert service["spec"]["clusterIP"] == "None"
    for body in (job, service):
        kubernetes_validate.validate(body | {"status": {}}, "1.33", strict=True)


@pytest.mark.parametrize(
    ("nodes", "even"),
    [(("a", "b"), True), (("a", "a", "b", "b"), True), (("a", "a", "b"), False), ((), True)],
)
def test_uneven_plans_are_not_left_to_the_scheduler(nodes: tuple[str, ...], even: bool) -> None:
    assert objects.spreads_evenly(nodes) is even


def test_the_other_ranks_are_told_where_the_first_one_is() -> None:
    lead = stored(made(spec(nodes=("n1", "n2", "n2"))))
    job = objects.follower(lead, 2, "10.0.0.7", NOW + 100)
    seen = variables(job)
    assert (seen["MASTER_ADDR"], seen["RANK"], seen["ERA_RANK"]) == ("10.0.0.7", "2", "2")
    assert variables(made(spec(nodes=("n1", "n2"))))["MASTER_ADDR"] == {
        "fieldRef": {"fieldPath": "status.podIP"}
    }
    assert job["spec"]["activeDeadlineSeconds"] == 470
    assert job["metadata"]["labels"]["era.jupyter.org/rank"] == "2"
    affinity = job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    assert "n2" in str(affinity) and "n1" not in str(affinity)
    kubernetes_validate.validate(job, "1.33", strict=True)


def test_templates_are_merged_and_what_is_reserved_wins() -> None:
    template = {
        "metadata": {"labels": {"team": "x", "era.jupyter.org/pool": "mine"}},
        "spec": {
            "backoffLimit": 5,
            "template": {
                "spec": {
                    "restartPolicy": "OnFailure",
                    "imagePullSecrets": [{"name": "registry"}],
                    "securityContext": {"runAsUser": 1000},
                    "containers": [
                        {
                            "name": "job",
                            "securityContext": {"runAsNonRoot": True},
                            "env": [{"name": "TEAM", "value": "{username}"}],
                            "volumeMounts": [{"name": "home", "mountPath": "/data"}],
                            "resources": {"limits": {GPU: "8"}},
                        }
                    ],
                }
            },
        },
    }
    home = {"name": "home", "mountPath": "/home/jovyan"}
    job = made(spec(user="Ann"), job_template=template, volume_mounts=[home])
    assert job["metadata"]["labels"] | {"team": "x"} == job["metadata"]["labels"]
    assert job["metadata"]["labels"]["era.jupyter.org/pool"] == "a100"
    pod = job["spec"]["template"]["spec"]
    assert (job["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert pod["securityContext"] == {"runAsUser": 1000}
    assert [each["mountPath"] for each in main(job)["volumeMounts"]] == ["/home/jovyan", "/data"]
    assert main(job)["resources"]["limits"][GPU] == "2"
    assert variables(job)["TEAM"].startswith("ann---")
    objects.guard(job, spec())


def test_another_container_may_take_no_gpus() -> None:
    extra = {"name": "more", "image": "x", "resources": {"limits": {GPU: "1"}}}
    job = made(spec(), job_template={"spec": {"template": {"spec": {"containers": [extra]}}}})
    with pytest.raises(CloudError, match="3 nvidia.com/gpu instead of the 2"):
        objects.guard(job, spec())


# The order


def run_order(folder: Path, job: JobSpec, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    pieces = order.pieces(order.script(job, {"ERA_RUN", "ERA_RANK"}))
    env = {order.variable(i): piece for i, piece in enumerate(pieces)}
    env |= {"PATH": "/usr/bin:/bin", "ERA_DIRECTORY": "work", "HOME": str(folder)}
    env |= {"ERA_RUN": str(job.run), "ERA_RANK": "0"}
    command = [shell, "-c", order.bootstrap(len(pieces)), "job"]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd="/")


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_an_order_says_all_that_can_be_said(tmp_path: Path, shell: str) -> None:
    odd = '\'; exit 1 #\n$(id) `id` \\ "%s" ü \t -n'
    job = spec(
        command=["printf", "%s|", odd, "", "-e", "$HOME"],
        files={odd.replace("\n", "")[:50].replace("/", ""): odd, "plain": "", "-n": "\r\n"},
        environment={"ODD": odd, "ERA_RUN": "5"},
    )
    ran = run_order(tmp_path, job, shell)
    assert (ran.stdout, ran.stderr) == (f"{odd}||-e|$HOME|", "")
    for name, text in job.files.items():
        assert (tmp_path / "work" / name).read_bytes().decode() == text
    seen = run_order(tmp_path, spec(command=["env"], environment=job.environment), shell).stdout
    assert f"ODD={odd}" in seen and "ERA_RUN=0" in seen and "ERA_ORDER" not in seen


def test_a_later_run_keeps_the_files_that_are_there(tmp_path: Path) -> None:
    job = spec(files={"state": "old"}, command=["sh", "-c", "cat state; echo new >state"])
    assert run_order(tmp_path, job).stdout == "old"
    assert run_order(tmp_path, spec(files=job.files, command=job.command, run=1)).stdout == "new\n"


def test_orders_that_are_too_large_are_refused() -> None:
    letters = random.Random(1)
    text = "".join(letters.choices("0123456789abcdef", k=1_000_000))
    pieces = order.pieces(order.script(spec(files={"data": text}), ()))
    assert max(map(len, pieces)) <= order.PIECE
    assert text in gzip.decompress(base64.b64decode("".join(pieces))).decode()
    assert [len(each) for each in order.secrets(pieces)] == [len(pieces)]
    chinese = "".join(chr(letters.randrange(0x4E00, 0x9FFF)) for _ in range(1_000_000))
    with pytest.raises(CloudError, match="too large: .* when compressed, at most"):
        order.pieces(chinese)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"environment": {"A B": "1"}}, "not a name"),
        ({"command": ["a\0"]}, "NUL"),
        ({"files": {"x": "\ud800"}}, "not valid text"),
    ],
)
def test_what_cannot_be_said_is_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(CloudError, match=match):
        order.pieces(order.script(spec(**change), ()))


# The inventory


def node(**options: Any) -> views.NodeView:
    fields: dict[str, Any] = {
        "uid": "n",
        "version": 1,
        "name": "n1",
        "labels": {},
        "allocatable": {"cpu": 7_900, "memory": 1 << 30, GPU: 8, "pods": 110},
        "ready": True,
        "unschedulable": False,
        "deleting": False,
        "taints": (),
    }
    return views.NodeView(**(fields | options))


def pod(rank: int = 0, **options: Any) -> views.PodView:
    fields: dict[str, Any] = {
        "uid": f"p{rank}",
        "version": 1,
        "namespace": "ns",
        "name": f"pod-{rank}",
        "node": "n1",
        "phase": "Running",
        "requests": {GPU: 2, "cpu": 500},
        "rank": rank,
        "created": NOW,
        "container": views.Container(started=True),
    }
    return views.PodView(**(fields | options))


@pytest.mark.parametrize(
    ("share", "preemptible", "taken", "gpus"),
    [
        (1.0, False, 0, "8"),
        (1.0, False, 3, "5"),
        (1.0, False, 9, "0"),
        (0.2, False, 0, "1"),
        (0.5, False, 3, "4"),  # within what is not ERA's
        (0.5, False, 6, "2"),
        (0.5, True, 3, "2"),
        (0.2, True, 3, "1"),
        (0.7, False, 0, "5"),
    ],
)
def test_shares_of_a_node(share: float, preemptible: bool, taken: int, gpus: str) -> None:
    rules = Rules("a100", share=share, preemptible=preemptible)
    assert offer(node(), {GPU: taken}, rules).resources[GPU] == gpus


def test_what_counts_of_other_pods() -> None:
    usage = Usage("a100")
    other = pod()
    assert usage.seen(None, other)
    assert usage.of("n1") == {GPU: 2, "cpu": 500}
    assert not usage.seen(other, other)
    for ignored in (pod(pool="a100"), pod(phase="Succeeded"), pod(node="")):
        assert not usage.seen(None, ignored)
    assert usage.seen(other, pod(phase="Failed"))
    assert not any(usage.of("n1").values())
    assert offer(node(), usage.of("n1"), Rules("a100")) == Node(
        "n1", {"cpu": "7900m", "memory": str(1 << 30), GPU: "8"}
    )


@pytest.mark.parametrize(
    ("change", "tolerations", "open"),
    [
        ({"unschedulable": True}, (), False),
        ({"deleting": True}, (), False),
        ({"taints": (("gpu", "", "NoSchedule"),)}, (), False),
        ({"taints": (("gpu", "", "NoExecute"),)}, (), False),
        ({"taints": (("gpu", "", "PreferNoSchedule"),)}, (), True),
        ({"taints": (("gpu", "a", "NoSchedule"),)}, ({"key": "gpu", "value": "a"},), True),
        ({"taints": (("gpu", "a", "NoSchedule"),)}, ({"key": "gpu", "value": "b"},), False),
        ({"taints": (("gpu", "a", "NoSchedule"),)}, ({"operator": "Exists"},), True),
    ],
)
def test_what_closes_a_node(change: dict[str, Any], tolerations: Any, open: bool) -> None:
    assert offer(node(**change), {}, Rules("a100", tolerations=tolerations)).open is open


def test_what_a_pod_takes() -> None:
    def part(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    assert views.requests({"containers": [part("1"), part("250m")]}) == {"cpu": 1250}
    init = [part("3"), part("1", restartPolicy="Always"), part("2")]
    assert views.requests({"containers": [part("1")], "initContainers": init}) == {"cpu": 3000}
    limits = {"containers": [{"resources": {"limits": {GPU: "2"}}}], "overhead": {"cpu": "100m"}}
    assert views.requests(limits) == {GPU: 2, "cpu": 100}
    whole = {"containers": [part("1")], "resources": {"requests": {"cpu": "4"}}}
    assert views.requests(whole) == {"cpu": 4000}


# Verdicts


def ended(code: int, **options: Any) -> views.PodView:
    container = views.Container(started=True, exit_code=code, finished=NOW + 50)
    phase = "Failed" if code else "Succeeded"
    return pod(**({"phase": phase, "container": container} | options))


def verdict(
    *pods: views.PodView, lost: tuple[str, ...] = (), checked: bool = True, **job: Any
) -> Any:
    nodes = job.pop("nodes", ("n1",))
    cut = job.pop("cut", None)
    body = made(spec(nodes=nodes))
    if cut is not None:
        body["metadata"]["annotations"][views.CUT] = json.dumps(cut)
    lead = stored(body, **job)
    run = Run(0, {lead.name: lead}, {each.uid: each for each in pods}, begun=True)
    return judge(run, lost, NOW + 60, checked=checked)


DEADLINE = {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}
ALL_OVER = {"conditions": [{"type": "Complete", "status": "True"}]}


@pytest.mark.parametrize(
    ("pods", "job", "expected"),
    [
        ([ended(0)], {}, JobStatus(Phase.ENDED, 0)),
        ([ended(3)], {}, JobStatus(Phase.ENDED, 3, message="ended with exit code 3")),
        (
            [ended(143, deleted=NOW + 40, gone=True)],
            DEADLINE,
            JobStatus(
                Phase.ENDED, -15, timed_out=True, message="stopped at the end of its reservation"
            ),
        ),
        (
            [pod(gone=True, deleted=NOW + 570)],  # its Job does not say so yet
            {},
            JobStatus(Phase.ENDED, timed_out=True, message="stopped at the end of its reservation"),
        ),
        (
            [pod(phase="Pending", container=views.Container("ErrImagePull"), gone=True)],
            DEADLINE,
            JobStatus(
                Phase.ENDED,
                timed_out=True,
                message="stopped at the end of its reservation before it ran: "
                "it waits: its image can't be fetched",
                lost=True,
            ),
        ),
        ([], ALL_OVER, JobStatus(Phase.ENDED, 0)),
        (
            [ended(143, deleted=NOW + 40)],
            {"cut": note("stopped on request")},
            JobStatus(Phase.ENDED, -15, message="stopped on request"),
        ),
        ([ended(0)], {"cut": note("stopped on request")}, JobStatus(Phase.ENDED, 0)),
    ],
)
def test_how_a_job_has_ended(
    pods: list[views.PodView], job: dict[str, Any], expected: JobStatus
) -> None:
    assert verdict(*pods, **job).status == expected


@pytest.mark.parametrize(
    ("disruption", "message"),
    [
        ("", "somebody deleted its pod"),
        ("PreemptionByScheduler", "it had to give way to a pod of higher priority"),
        ("EvictionByEvictionAPI", "it was evicted, as when a node is drained"),
    ],
)
def test_a_pod_that_others_end_is_lost(disruption: str, message: str) -> None:
    found = verdict(pod(deleted=NOW + 40, disruption=disruption))
    assert found.status.phase is Phase.RUNNING
    assert found.cut == note(message, lost=True)


def test_what_may_only_not_have_been_seen_is_doubtful() -> None:
    for found in (
        verdict(pod(gone=True), checked=False),
        verdict(checked=False, **ALL_OVER),
    ):
        assert (found.doubtful, found.status.phase, found.cut) == (True, Phase.RUNNING, None)


def test_a_lost_node_ends_all_ranks_at_once() -> None:
    found = verdict(pod(0), pod(1, node="n2"), nodes=("n1", "n2"), lost=("n2",))
    assert found.cut == note("rank 1: its node n2 was lost", lost=True)
    found = verdict(
        pod(0, gone=True, deleted=NOW),
        pod(1, node="n2"),
        nodes=("n1", "n2"),
        cut=found.cut,
        lost=("n2",),
    )
    assert found.status == JobStatus(Phase.ENDED, message="rank 1: its node n2 was lost", lost=True)


def test_what_takes_the_place_of_a_pod_does_not_count() -> None:
    first = pod(deleted=NOW + 40, gone=True)
    other = ended(128, uid="other", created=NOW + 41)
    found = verdict(first, other, cut=note("somebody deleted its pod", lost=True))
    assert found.status == JobStatus(Phase.ENDED, message="somebody deleted its pod", lost=True)


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("The node was low on resource: memory.", True),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.", False),
    ],
)
def test_who_is_to_blame_for_an_eviction(message: str, lost: bool) -> None:
    evicted = pod(phase="Failed", reason="Evicted", message=message)
    found = verdict(evicted)
    assert (found.cut or {}).get("lost", found.status.lost) is lost
