"""What a pod takes, and which pods are not created: as Kubernetes itself would count."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_spawner import pods

from .service import reservation

GPU = "nvidia.com/gpu"
TERMS = pods.Terms(
    reservation="r-1",
    pool="a100",
    user="ann",
    end=datetime(2030, 1, 1, tzinfo=UTC),
    seconds=3600,
    resources={GPU: "2", "cpu": "8", "memory": "64Gi"},
    gpu=GPU,
    node="n1",
    selector={"pool": "a100"},
    unmetered=frozenset({"smarter-devices/fuse"}),
)
RESERVED = {GPU: 2, "cpu": 8, "memory": 64 * 2**30}


def container(name="notebook", requests=None, limits=None, **others):
    return {"name": name, "resources": {"requests": requests, "limits": limits}, **others}


def sidecar(**resources):
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "none"}]
    return container("sidecar", resources, resources, env=env)


def good_pod(terms=TERMS):
    """A pod that is all right."""
    here = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": here}}
    return {
        "metadata": {"labels": {**terms.labels, "app": "jupyterhub"}},
        "spec": {
            "activeDeadlineSeconds": terms.seconds,
            "affinity": {"nodeAffinity": required},
            "nodeSelector": {"pool": "a100", "zone": "b"},
            "containers": [container(requests=dict(terms.resources), limits=dict(terms.resources))],
        },
    }


def spec_with(**changes):
    pod = good_pod()
    pod["spec"].update(changes)
    return pod


def notebook_with(**changes):
    pod = good_pod()
    pod["spec"]["containers"][0].update(changes)
    return pod


def limits_with(**changes):
    limits = {**TERMS.resources, **changes}
    return notebook_with(resources={"requests": limits, "limits": limits})


def affinity(*terms):
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"nodeAffinity": required}


def test_a_pod_of_its_reservation_is_created():
    assert pods.problems(good_pod(), TERMS) == []


HERE = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
BAD = {
    "more GPUs": (limits_with(**{GPU: "3"}), "takes 3 of nvidia.com/gpu, and its reservation"),
    "a GPU of another name": (limits_with(**{"amd.com/gpu": 1}), "takes 1 of amd.com/gpu, which"),
    "a part of a GPU": (limits_with(**{"nvidia.com/mig-1g.5gb": "1"}), "mig-1g.5gb, which"),
    "more memory": (limits_with(memory="64.5Gi"), "of memory, and its reservation has 64Gi"),
    "more CPU": (limits_with(cpu="8001m"), "takes 8.001 of cpu"),
    "less than none": (limits_with(cpu="-1"), "can't be understood"),
    "no quantity": (limits_with(memory="much"), "can't be understood"),
    "true GPUs": (limits_with(**{GPU: True}), "can't be understood"),
    "no limits": (notebook_with(resources={"requests": {"cpu": "1"}}), "no limit for memory"),
    "limits by the back door": (notebook_with(resources={}), "no limit for nvidia.com/gpu"),
    "GPUs of a sidecar": (
        spec_with(containers=[*good_pod()["spec"]["containers"], sidecar(**{GPU: "1"})]),
        "takes 3 of nvidia.com/gpu",
    ),
    "GPUs while it begins": (
        spec_with(initContainers=[container("init", limits={GPU: "8"})]),
        "takes 8 of nvidia.com/gpu",
    ),
    "a sidecar among the init containers": (
        spec_with(initContainers=[{**sidecar(cpu="1"), "restartPolicy": "Always"}]),
        "takes 9 of cpu",
    ),
    "resources of the pod": (spec_with(resources={"limits": {"cpu": "9"}}), "takes 9 of cpu"),
    "overhead": (spec_with(overhead={"memory": "1Mi"}), "of memory"),
    "claims": (spec_with(resourceClaims=[{"name": "gpu"}]), "claims devices"),
    "claims of a container": (
        notebook_with(resources={"limits": TERMS.resources, "claims": [{"name": "gpu"}]}),
        "claims devices",
    ),
    "ephemeral containers": (spec_with(ephemeralContainers=[{"name": "x"}]), "ephemeral"),
    "all GPUs by environment": (
        notebook_with(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]),
        "NVIDIA_VISIBLE_DEVICES",
    ),
    "all GPUs of a sidecar": (
        spec_with(
            containers=[
                container(limits={**TERMS.resources, "cpu": "1"}),
                container("s", env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]),
            ]
        ),
        "container s has NVIDIA_VISIBLE_DEVICES",
    ),
    "a sidecar that says nothing": (
        spec_with(containers=[*good_pod()["spec"]["containers"], container("s")]),
        "container s has NVIDIA_VISIBLE_DEVICES",
    ),
    "a node of its own": (spec_with(nodeName="n1"), "past the scheduler"),
    "no affinity": (spec_with(affinity=None), "its reserved node n1"),
    "another node too": (spec_with(affinity=affinity({"matchFields": [HERE]}, {})), "node n1"),
    "one of two nodes": (
        spec_with(affinity=affinity({"matchFields": [{**HERE, "values": ["n1", "n2"]}]})),
        "its reserved node n1",
    ),
    "another pool": (spec_with(nodeSelector={"pool": "v100"}), "lacks pool=a100"),
    "no end": (spec_with(activeDeadlineSeconds=None), "activeDeadlineSeconds is None"),
    "a late end": (spec_with(activeDeadlineSeconds=3601), "activeDeadlineSeconds is 3601"),
    "no labels": ({**good_pod(), "metadata": {"labels": None}}, "its label era.jupyter.org/"),
    "nothing": ({}, "its label era.jupyter.org/"),
    "nonsense": (spec_with(containers=[None]), "can't be understood"),
}


@pytest.mark.parametrize("name", BAD)
def test_other_pods_are_not(name):
    pod, words = BAD[name]
    assert words in "; ".join(pods.problems(pod, TERMS))


GOOD = {
    "a sidecar that has its part": spec_with(
        containers=[
            container(requests={"cpu": "7"}, limits={**TERMS.resources, "cpu": "7"}),
            sidecar(cpu="1000m"),
        ]
    ),
    "others before it": spec_with(initContainers=[sidecar(cpu="8", memory="64Gi")]),
    "another way to say it": limits_with(cpu="8000m", memory=str(64 * 2**30), **{GPU: 2}),
    "what is not sold": limits_with(**{"smarter-devices/fuse": "1", "ephemeral-storage": "9Gi"}),
    "no more than none": limits_with(**{"amd.com/gpu": "0"}),
    "an earlier end": spec_with(activeDeadlineSeconds=60),
    "other conditions on its node": spec_with(
        affinity=affinity({"matchExpressions": [{"key": "x"}], "matchFields": [HERE]})
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_fits_is_created(name):
    assert pods.problems(GOOD[name], TERMS) == []


def test_without_gpus_every_container_is_told_so():
    terms = pods.Terms(**{**vars(TERMS), "resources": {**TERMS.resources, GPU: "0"}})
    pod = good_pod(terms)
    assert "NVIDIA_VISIBLE_DEVICES" in "; ".join(pods.problems(pod, terms))
    assert pods.is_open(pod["spec"]["containers"][0], GPU)
    pod["spec"]["containers"][0]["env"] = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "none"}]
    assert pods.problems(pod, terms) == []
    twice = [*pod["spec"]["containers"][0]["env"], {"name": "NVIDIA_VISIBLE_DEVICES", "value": "0"}]
    pod["spec"]["containers"][0]["env"] = twice
    assert pods.problems(pod, terms) != []


@pytest.mark.parametrize("at_most", [1, 8, 16, 1000])
def test_a_reservation_of_several(at_most):
    several = reservation(
        units=2 * at_most, count=at_most, resources={GPU: "2", "cpu": "500m", "memory": "1Gi"}
    )
    found = pods.reserved(several, GPU)
    assert pods.quantity(found[GPU]) == 2 * at_most
    assert pods.quantity(found["cpu"]) == Fraction(at_most, 2)
    assert pods.quantity(found["memory"]) == at_most * 2**30
    assert pods.reserved(reservation(units=0), GPU) == {GPU: "0"}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", 2),
        (3, 3),
        ("500m", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("100n", Fraction(1, 10**7)),
        ("1.5k", 1500),
        ("1e3", 1000),
        ("1E", 10**18),
        ("2Ki", 2048),
        ("6Gi", 6 * 2**30),
    ],
)
def test_quantities(text, number):
    assert pods.quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "Gi", "1 Gi", "1Kii", "0x2", "1e", None, True, "\u0661", "nan"]
)
def test_no_quantities(text):
    with pytest.raises(ValueError, match="not a quantity"):
        pods.quantity(text)


# -- whatever hooks and profiles make of a pod -------------------------------------

amounts = st.one_of(
    st.integers(0, 12), st.sampled_from(["0", "1", "2", "500m", "3000m", "1Gi", "70Gi", "2e0"])
)
names = st.sampled_from([GPU, "cpu", "memory", "amd.com/gpu", "smarter-devices/fuse"])
resources = st.dictionaries(names, amounts, max_size=4)
switches = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["NVIDIA_VISIBLE_DEVICES", "HOME"]),
            "value": st.sampled_from(["all", "none", "0"]),
        }
    ),
    max_size=2,
)
containers = st.builds(
    container,
    name=st.sampled_from(["a", "b"]),
    requests=st.none() | resources,
    limits=st.none() | resources,
    env=st.none() | switches,
    restartPolicy=st.sampled_from([None, "Always"]),
)
affinities = st.none() | st.lists(
    st.sampled_from([{}, {"matchFields": [HERE]}, {"matchExpressions": [{"key": "x"}]}])
).map(lambda terms: affinity(*terms))


@st.composite
def changed_pods(draw):
    """A good pod after some hooks."""
    pod = copy.deepcopy(good_pod())
    spec = pod["spec"]
    if draw(st.booleans()):
        spec["containers"][0]["resources"]["limits"] = draw(resources)
    if draw(st.booleans()):
        spec["containers"][0]["env"] = draw(switches)
    spec["containers"] += draw(st.lists(containers, max_size=2))
    spec["initContainers"] = draw(st.none() | st.lists(containers, max_size=2))
    if draw(st.booleans()):
        spec["affinity"] = draw(affinities)
    spec["nodeName"] = draw(st.sampled_from([None, None, "n2"]))
    return pod


def most_at_once(pod, name):
    """What runs together at its greatest, found the long way round: by going through its life."""
    spec = pod["spec"]

    def of(each):
        given = each["resources"]
        found = [(given.get(part) or {}).get(name, 0) for part in ("requests", "limits")]
        return max(pods.quantity(amount) for amount in found)

    staying, most = Fraction(0), Fraction(0)
    for each in spec["initContainers"] or ():
        most = max(most, staying + of(each))
        staying += of(each) if each["restartPolicy"] == "Always" else 0
    return max(most, staying + sum(of(each) for each in spec["containers"]))


@given(changed_pods())
def test_no_pod_that_is_created_has_more_than_its_reservation(pod):
    if pods.problems(pod, TERMS):
        return
    for name, number in RESERVED.items():
        assert most_at_once(pod, name) <= number
    assert most_at_once(pod, "amd.com/gpu") == 0
    assert not pod["spec"]["nodeName"]
    required = pod["spec"]["affinity"]["nodeAffinity"]
    terms = required["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms and all(HERE in term["matchFields"] for term in terms)
    for each in [*(pod["spec"]["initContainers"] or ()), *pod["spec"]["containers"]]:
        values = [e["value"] for e in each.get("env") or () if e["name"] == pods.SWITCH]
        assert "all" not in values and "0" not in values


@given(changed_pods())
def test_a_pod_that_takes_too_much_is_named_so(pod):
    too_much = any(most_at_once(pod, name) > number for name, number in RESERVED.items())
    reasons = "; ".join(pods.problems(pod, TERMS))
    assert ("and its reservation has" in reasons) is too_much


@given(
    st.lists(st.sampled_from([{}, {"matchExpressions": [{"key": "x"}]}, {"match_fields": [HERE]}]))
)
def test_every_way_to_a_node_leads_to_the_planned_one(terms):
    pinned = pods.on_node(terms, "n7")
    assert len(pinned) == max(1, len(terms))
    for before, after in zip(terms or [{}], pinned, strict=True):
        assert after["matchFields"][-1]["values"] == ["n7"]
        assert after.get("matchExpressions") == before.get("matchExpressions")
        assert "match_fields" not in after


@pytest.mark.parametrize(
    ("ready", "containers", "gates", "stranded"),
    [
        ("False", [True, True], [], True),
        ("True", [True, True], [], False),
        # A kubelet says both.
        ("False", [True, False], [], False),
        ("False", [], [], False),
        # A controller may have said so.
        ("False", [True], [{"conditionType": "x"}], False),
    ],
)
def test_pods_whose_node_is_lost(ready, containers, gates, stranded):
    pod = {
        "spec": {"readinessGates": gates},
        "status": {
            "conditions": [
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", "status": ready},
            ],
            "containerStatuses": [{"name": "c", "ready": each} for each in containers],
        },
    }
    assert pods.is_stranded(pod) is stranded
