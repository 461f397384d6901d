"""Pods of EraKubeSpawner, sent to a small cluster."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest
from jupyterhub.utils import maybe_future
from jupyterhub_fancy_profiles import setup_ui
from kubernetes_asyncio.client import V1Container
from traitlets.config import Config

from era_spawner.kube import EraKubeSpawner
from era_spawner.refusals import SpawnException

from .kinds import KubeKind
from .service import account, dump, market, reservation

CLAIM = "POST reservations/r-1/claim"
RETURN = "DELETE reservations/r-1"
GPU = "nvidia.com/gpu"
RESOURCES = {GPU: "2", "cpu": "8", "memory": "64Gi"}


@pytest.fixture
def kind(small_cluster):
    return KubeKind(small_cluster)


@pytest.fixture
def accept(service):
    """Lets bids be accepted and claimed."""

    def now_with(**claimed):
        service.accept()
        values = {"state": "active", "gpus": [0, 3], "resources": RESOURCES, **claimed}
        service.answers[CLAIM] = 200, dump(reservation(**values))
        service.answers["GET market"] = 200, dump(market())
        service.answers["GET accounts"] = 200, [dump(account())]
        service.answers["GET reservations"] = 200, []

    now_with()
    return now_with


async def pod_of(one):
    await one.start()
    found = one._pod()
    await one.stop(now=True)
    return found


def notebook(pod):
    return pod["spec"]["containers"][0]


def env_of(container):
    return {each["name"]: each["value"] for each in container["env"]}


async def refusal_of(one, service, small_cluster):
    one.log = logging.getLogger("test-spawner")
    with pytest.raises(SpawnException) as caught:
        await one.start()
    assert "POST pods" not in small_cluster.requests and not small_cluster.pods
    assert caught.value.status_code < 500
    assert service.names().count(RETURN) == service.names().count(CLAIM)
    return caught.value


# -- a pod from its reservation ----------------------------------------------------


@pytest.mark.asyncio
async def test_the_pod_has_what_is_reserved(accept, start):
    accept(nodes=["gpu-node-1"])
    settings = {"pool": "a100", "pool_selector": {"gpu": "a100"}, "deadline_slack": 600}
    pod = await pod_of(start(priority_class_name="notebooks", **settings))
    spec, metadata = pod["spec"], pod["metadata"]
    limits = notebook(pod)["resources"]["limits"]
    assert limits == notebook(pod)["resources"]["requests"]
    assert (limits[GPU], limits["cpu"], limits["memory"]) == ("2", 8.0, 64 * 2**30)
    assert spec["nodeSelector"] == {"gpu": "a100"}
    assert spec["priorityClassName"] == "notebooks"
    assert 3600 < spec["activeDeadlineSeconds"] <= 4200
    assert {one["key"] for one in spec["tolerations"]} == {"era.jupyter.org/pool", GPU}
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert term["matchFields"] == [
        {"key": "metadata.name", "operator": "In", "values": ["gpu-node-1"]}
    ]
    labels = {"reservation": "r-1", "pool": "a100", "kind": "notebook"}
    assert (
        labels.items()
        <= {k.removeprefix("era.jupyter.org/"): v for k, v in metadata["labels"].items()}.items()
    )
    assert metadata["annotations"]["era.jupyter.org/user"] == "ann"
    end = datetime.fromisoformat(metadata["annotations"]["era.jupyter.org/end"])
    assert end.tzinfo and end > datetime.now(UTC)
    env = env_of(notebook(pod))
    assert (env["CPU_LIMIT"], env["MEM_LIMIT"]) == ("8.0", str(64 * 2**30))


@pytest.mark.asyncio
async def test_no_gpus_are_stated_and_hidden(accept, start):
    accept(units=0, gpus=[], resources={})
    pod = await pod_of(start(cpu_limit=3, init_containers=[{"name": "i", "image": "cuda"}]))
    limits = notebook(pod)["resources"]["limits"]
    # The market does not sell CPU here, so what is configured counts.
    assert limits == {GPU: "0", "cpu": 3.0}
    assert env_of(notebook(pod))["NVIDIA_VISIBLE_DEVICES"] == "none"
    assert env_of(pod["spec"]["initContainers"][0]) == {"NVIDIA_VISIBLE_DEVICES": "none"}


@pytest.mark.asyncio
async def test_other_containers_have_their_part(accept, start):
    sidecar = {"name": "s", "image": "s", "resources": {"requests": {"cpu": "500m"}}}
    pod = await pod_of(start(extra_containers=[sidecar]))
    assert notebook(pod)["resources"]["limits"]["cpu"] == 7.5
    assert env_of(pod["spec"]["containers"][1])["NVIDIA_VISIBLE_DEVICES"] == "none"
    assert "NVIDIA_VISIBLE_DEVICES" not in env_of(notebook(pod))


@pytest.mark.asyncio
async def test_affinities_of_the_site_are_kept(accept, start):
    accept(nodes=["n1"])
    purpose = {"key": "purpose", "operator": "In", "values": ["user"]}
    pod = await pod_of(start(node_affinity_required=[{"matchExpressions": [purpose]}]))
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["key"] == "purpose"
    assert term["matchFields"][0]["values"] == ["n1"]


@pytest.mark.asyncio
async def test_a_claim_after_a_lost_node_goes_to_the_new_one(accept, start):
    for node in ("n1", "n2"):
        accept(nodes=[node])
        pod = await pod_of(start(user_options={"reservation": "r-1"}))
        assert node in str(pod["spec"]["affinity"])


# -- profiles ---------------------------------------------------------------------

GREEDY = {
    "image": "pytorch:1",
    "environment": {"NVIDIA_VISIBLE_DEVICES": "all", "THEME": "dark"},
    "cpu_limit": 99,
    "mem_guarantee": "900G",
    "extra_resource_limits": {GPU: "8", "cpu": "99"},
    "extra_resource_guarantees": {GPU: "8"},
    "pool_selector": {},
    "gpu_resource": "x/y",
}
PROFILES = [
    {"display_name": "Small", "slug": "small"},
    {
        "display_name": "PyTorch",
        "slug": "pytorch",
        "kubespawner_override": GREEDY,
        "profile_options": {
            "image": {
                "display_name": "Image",
                "choices": {
                    "two": {
                        "display_name": "2",
                        "kubespawner_override": {"image": "pytorch:2"},
                    },
                    "three": {"display_name": "3", "kubespawner_override": {"image": "p:3"}},
                },
                "unlisted_choice": {
                    "enabled": True,
                    "display_name": "Other",
                    "validation_regex": "^[a-z:0-9]+$",
                    "kubespawner_override": {"image": "{value}"},
                },
            }
        },
    },
]


async def profiles_later(spawner):
    assert isinstance(spawner, EraKubeSpawner)
    return PROFILES


LISTS = {
    "list": PROFILES,
    "mapping": {str(at): each for at, each in enumerate(PROFILES)},
    "function": lambda spawner: PROFILES,
    "coroutine": profiles_later,
}


@pytest.mark.parametrize("profiles", LISTS.values(), ids=LISTS)
@pytest.mark.asyncio
async def test_profiles_and_the_market_share_a_form(accept, start, profiles):
    one = start(profile_list=profiles, pool_selector={"gpu": "a100"})
    form = await one.get_options_form()
    assert form.index('name="configuration"') < form.index('id="kubespawner-profiles-list"')
    assert form.count('name="profile"') == 2
    fields = {
        "configuration": ["gpu-2"],
        "hours": ["1"],
        "max_price": ["3"],
        "profile": ["pytorch"],
        "profile-option-pytorch--image": ["three"],
    }
    one.user_options = await maybe_future(one.run_options_from_form(fields))
    assert one.user_options == {
        **{"configuration": "gpu-2", "duration": "3600s", "max_price": "3"},
        **{"profile": "pytorch", "image": "three"},
    }
    pod = await pod_of(one)
    assert notebook(pod)["image"] == "p:3"
    limits = notebook(pod)["resources"]["limits"]
    assert (limits[GPU], limits["cpu"], limits["memory"]) == ("2", 8.0, 64 * 2**30)
    assert notebook(pod)["resources"]["requests"] == limits
    assert pod["spec"]["nodeSelector"] == {"gpu": "a100"}
    env = env_of(notebook(pod))
    assert env["THEME"] == "dark" and "NVIDIA_VISIBLE_DEVICES" not in env
    # The choices come back with the reservation alone, which is what the service starts it with.
    again = start(profile_list=profiles)
    again.load_state(one.get_state())
    again.user_options = {"reservation": "r-1"}
    assert notebook(await pod_of(again))["image"] == "p:3"


@pytest.mark.asyncio
async def test_fancy_profiles(accept, start):
    config = Config()
    config.JupyterHub.extra_handlers = []
    setup_ui(config)
    one = start(config=config, profile_list=PROFILES)
    form = await one.get_options_form()
    assert form.index('name="configuration"') < form.index("window.profileList = ")
    # What its script sends for an image that is in no list.
    fields = {
        "configuration": ["gpu-2"],
        "hours": ["1"],
        "max_price": ["3"],
        "profile": ["pytorch"],
        "profile-option-pytorch--image--unlisted-choice": ["mine:8"],
    }
    one.user_options = one.run_options_from_form(fields)
    pod = await pod_of(one)
    assert notebook(pod)["image"] == "mine:8"
    assert notebook(pod)["resources"]["limits"][GPU] == "2"


@pytest.mark.asyncio
async def test_an_image_of_the_users_own(accept, start):
    options = {**start().user_options, "profile": "pytorch", "image--unlisted-choice": "mine:7"}
    pod = await pod_of(start(profile_list=PROFILES, user_options=options))
    assert notebook(pod)["image"] == "mine:7"


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"profile": "huge"}, "No such profile: huge"),
        ({"profile": "pytorch", "image": "nine"}, "has no choice 'nine'"),
        ({"profile": "pytorch", "image": ["two"]}, "unhashable"),
        ({"profile": "pytorch", "image--unlisted-choice": "Ä"}, "failed validation"),
    ],
)
@pytest.mark.asyncio
async def test_nothing_is_bid_for_a_profile_that_does_not_exist(
    accept, start, service, small_cluster, chosen, words
):
    one = start(profile_list=PROFILES)
    one.user_options = {**one.user_options, **chosen}
    error = await refusal_of(one, service, small_cluster)
    assert error.reason == "bad-options" and words in error.message
    assert service.names() == []


@pytest.mark.asyncio
async def test_a_profile_option_with_a_name_of_the_market(accept, start, service, small_cluster):
    option = {"display_name": "Time", "choices": {"1h": {"display_name": "1 h"}}}
    profiles = [{"display_name": "P", "slug": "p", "profile_options": {"duration": option}}]
    error = await refusal_of(start(profile_list=profiles), service, small_cluster)
    assert "'duration' can't be used" in error.message


# -- the guard ---------------------------------------------------------------------


def more_gpus(spawner, pod):
    pod.spec.containers[0].resources.limits[GPU] = "8"
    return pod


async def another_container(spawner, pod):
    pod.spec.containers.append({"name": "x", "resources": {"limits": {GPU: 1}}})
    return pod


def all_devices(spawner, pod):
    pod.spec.containers.append(
        V1Container(name="x", env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}])
    )
    return pod


def elsewhere(spawner, pod):
    pod.spec.affinity = None
    return pod


def unmarked(spawner, pod):
    pod.metadata.labels = {}
    return pod


def for_ever(spawner, pod):
    pod.spec.active_deadline_seconds = None
    return pod


EVIL = {
    "hook": ({"modify_pod_hook": more_gpus}, "takes 8 of nvidia.com/gpu"),
    "hook's container": ({"modify_pod_hook": another_container}, "takes 3 of nvidia.com/gpu"),
    "environment": ({"modify_pod_hook": all_devices}, "NVIDIA_VISIBLE_DEVICES"),
    "affinity": ({"modify_pod_hook": elsewhere}, "reserved node n1"),
    "labels": ({"modify_pod_hook": unmarked}, "era.jupyter.org/reservation"),
    "deadline": ({"modify_pod_hook": for_ever}, "activeDeadlineSeconds"),
    "other GPUs": ({"extra_resource_limits": {"amd.com/gpu": 1}}, "takes 1 of amd.com/gpu"),
    "config": ({"extra_container_config": {"resources": {"limits": {GPU: 4}}}}, "takes 4 of"),
    "node": ({"extra_pod_config": {"nodeName": "n1"}}, "past the scheduler"),
    "claims": ({"extra_pod_config": {"resourceClaims": [{"name": "g"}]}}, "claims devices"),
    "init": (
        {"init_containers": [{"name": "i", "resources": {"limits": {GPU: 5}}}]},
        "takes 5 of nvidia.com/gpu",
    ),
    "sidecar": (
        {"extra_containers": [{"name": "s", "resources": {"requests": {"memory": "64Gi"}}}]},
        "other containers take all memory",
    ),
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.asyncio
async def test_no_other_pod_is_asked_for(accept, start, service, small_cluster, caplog, name):
    accept(nodes=["n1"])
    traits, words = EVIL[name]
    error = await refusal_of(start(**traits), service, small_cluster)
    assert error.reason == "unsafe-pod" and words in error.message
    assert service.names()[-1] == RETURN
    assert words in caplog.text


@pytest.mark.asyncio
async def test_the_same_by_a_profile(accept, start, service, small_cluster):
    override = {"extra_pod_config": {"affinity": {}}, "modify_pod_hook": lambda spawner: more_gpus}
    profiles = [{"display_name": "P", "slug": "p", "kubespawner_override": override}]
    error = await refusal_of(start(profile_list=profiles), service, small_cluster)
    assert "takes 8 of nvidia.com/gpu" in error.message


@pytest.mark.asyncio
async def test_there_is_no_pod_without_a_reservation(start, small_cluster):
    one = start()
    with pytest.raises(SpawnException, match="no reservation"):
        await one.get_pod_manifest()


# -- stop, and what is left --------------------------------------------------------


@pytest.mark.asyncio
async def test_a_pod_on_a_lost_node_is_gone_at_once(accept, start, small_cluster):
    one = start()
    await one.start()
    small_cluster.lose_node()
    while not one._is_stranded():
        await asyncio.sleep(0.01)
    await asyncio.wait_for(one.stop(), 5)
    assert not small_cluster.pods


@pytest.mark.asyncio
async def test_a_node_that_is_lost_while_the_pod_is_stopped(
    accept, start, small_cluster, monkeypatch
):
    monkeypatch.setattr("era_spawner.kube.PATIENCE", 0.05)
    one = start()
    await one.start()
    small_cluster.lost = True
    stopping = asyncio.ensure_future(one.stop())
    while "deletionTimestamp" not in small_cluster.pods[one.pod_name]["metadata"]:
        await asyncio.sleep(0.01)
    assert not stopping.done()
    small_cluster.lose_node()
    await asyncio.wait_for(stopping, 5)
    assert not small_cluster.pods


@pytest.mark.asyncio
async def test_a_failed_start_leaves_no_pod(accept, start, service, small_cluster):
    one = start()
    sent = one._make_create_pod_request

    async def cancelled(pod, timeout):
        await sent(pod, timeout)
        assert small_cluster.pods
        raise asyncio.CancelledError

    one._make_create_pod_request = cancelled
    with pytest.raises(asyncio.CancelledError):
        await one.start()
    assert not small_cluster.pods
    assert service.names()[-1] == RETURN


@pytest.mark.asyncio
async def test_a_hub_that_died_finds_the_reservation_on_the_pod(accept, start, service):
    await start().start()
    heir = start()
    heir.load_state({})
    service.answers["GET reservations/r-1"] = 200, dump(reservation(state="active"))
    assert await heir.poll() is None
    assert heir.get_state()["era_reservation"] == "r-1"
    await heir.stop()
    await heir.run_post_stop_hook()
    assert service.names()[-1] == RETURN


@pytest.mark.asyncio
async def test_a_server_that_is_not_there_yet_is_waited_for(accept, start, small_cluster):
    small_cluster.slow = True
    starting = asyncio.ensure_future(start().start())
    heir = start()
    await heir.poll()
    while heir._pod() is None:
        await asyncio.sleep(0.01)
    assert await heir.poll() is None
    finding = asyncio.ensure_future(heir.get_url())
    await asyncio.sleep(0)
    (pod,) = small_cluster.pods.values()
    small_cluster.run(pod)
    small_cluster.tell("MODIFIED", pod)
    assert await finding == await starting == "http://127.0.0.1:8888"


@pytest.mark.asyncio
async def test_pods_of_other_users_are_not_taken_for_ones_own(accept, start, small_cluster):
    await start().start()
    heir = start()
    (pod,) = small_cluster.pods.values()
    pod["metadata"]["annotations"]["era.jupyter.org/user"] = "anna"
    small_cluster.tell("MODIFIED", pod)
    while heir._pod()["metadata"]["annotations"]["era.jupyter.org/user"] == "ann":
        await asyncio.sleep(0.01)
    assert await heir.poll() is None
    assert "era_reservation" not in heir.get_state()


@pytest.mark.asyncio
async def test_while_kubernetes_is_away_servers_count_as_running(accept, start, small_cluster):
    small_cluster.away = True
    heir = start()
    assert await heir.poll() is None
    small_cluster.away = False
    # It is asked again, and there is no such pod.
    assert await heir.poll() == 1
    one = start()
    await one.start()
    assert await one.poll() is None
    # As when it was away for so long that nobody watches any more.
    watching = one.pod_reflector.watch_task
    watching.cancel()
    await asyncio.wait([watching])
    small_cluster.delete(one.pod_name, 0)
    assert await one.poll() == 1
