"""EraKubeSpawner: servers as pods of a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from aiohttp import ClientError
from jupyterhub.utils import exponential_backoff, maybe_future
from kubernetes_asyncio.client import ApiException, V1EnvVar, V1Pod
from kubespawner import KubeSpawner
from kubespawner.reflector import ResourceReflector
from traitlets import Dict, Integer, List, Unicode, default

from era_hub.models import Reservation

from . import pods, refusals
from .mixin import EraSpawnerMixin
from .options import OPTIONS

PATIENCE = 5.0
"""Seconds between looks whether the node of a pod that is to go has been lost meanwhile."""


class EraKubeSpawner(EraSpawnerMixin, KubeSpawner):
    """Launches servers on reserved GPUs as pods of a Kubernetes cluster.

    All of KubeSpawner's configuration counts. What the market sells of a pod comes from
    its reservation, however: GPUs, CPU and memory, and the node that it runs on.
    """

    pool = Unicode(
        "local",
        help="""Name of the market's pool; must be the same as ``Pool.name`` of the service.

        Pods carry it as the label ``era.jupyter.org/pool``, by which the service tells
        its own from those of others. For example::

            c.EraKubeSpawner.pool = "a100"
        """,
    ).tag(config=True)

    pool_selector = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="""Labels of the pool's nodes; servers run on these nodes only.

        Where the service plans nodes, a server runs on the planned one besides. A profile
        can add to `KubeSpawner.node_selector`, but can't take away from this. For example::

            c.EraKubeSpawner.pool_selector = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
        """,
    ).tag(config=True)

    pool_tolerations = List(
        Dict(),
        help="""Tolerations of the pool's taints, besides `KubeSpawner.tolerations`.

        Default: the taint ``era.jupyter.org/pool`` with the pool's name, with which admins
        keep other pods off the market's nodes, and the usual one of GPU nodes, called as
        `gpu_resource`. For example::

            c.EraKubeSpawner.pool_tolerations = [
                {"key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoSchedule"},
            ]
        """,
    ).tag(config=True)

    gpu_resource = Unicode(
        "nvidia.com/gpu",
        help="""The resource that counts as GPU; must be the same as ``Pool.resource``.

        Every server's pod states how many it has, also where it has none. For example::

            c.EraKubeSpawner.gpu_resource = "amd.com/gpu"
        """,
    ).tag(config=True)

    unmetered_resources = List(
        Unicode(),
        help="""Extended resources that a pod may have although the market does not sell them.

        A pod that has others, such as GPUs by another name, is not created. For example::

            c.EraKubeSpawner.unmetered_resources = ["smarter-devices/fuse", "rdma/hca"]
        """,
    ).tag(config=True)

    deadline_slack = Integer(
        86_400,
        min=0,
        help="""Seconds after the end of its reservation at which Kubernetes itself ends a pod.

        The last line of defence, for when neither the service nor the hub can stop a
        server in time: the pod's ``activeDeadlineSeconds`` is what is left of the
        reservation, and this. Kubernetes does not let it grow, while a running server's
        reservation can be extended; whoever extends a running server by more than this in
        all loses it then, and starts it again on the rest. The default is a day. Where
        servers are not extended, a few minutes will do::

            c.EraKubeSpawner.deadline_slack = 600
        """,
    ).tag(config=True)

    # What the pod of this start may have; fixed before a profile is applied.
    _era_terms: pods.Terms | None = None
    # Whether this start has asked for a pod.
    _era_pod_sent = False

    @default("pool_tolerations")
    def _default_pool_tolerations(self) -> list[dict[str, str]]:
        mark = {"key": f"{pods.PREFIX}pool", "operator": "Equal", "value": self.pool}
        gpu = {"key": self.gpu_resource, "operator": "Exists"}
        return [{**each, "effect": "NoSchedule"} for each in (mark, gpu)]

    # -- profiles -----------------------------------------------------------------

    async def reserve(self) -> Reservation:
        """The claimed reservation; nothing is bid for a profile that does not exist."""
        self._era_terms, self._era_pod_sent = None, False
        await self._check_profile()
        reservation = await super().reserve()
        self._era_terms = self._terms_of(reservation)
        # The node's device plug-in numbers the GPUs, whatever the market thinks of them.
        return reservation.model_copy(update={"gpus": None})

    async def _check_profile(self) -> None:
        profiles = self._sorted_dict_values(self.profile_list)
        if callable(profiles):
            profiles = await maybe_future(profiles(self))
        profiles = self._get_initialized_profile_list(profiles)
        if not profiles:
            return
        try:
            self._validate_user_options(profiles)
            profile = self._get_profile(self.user_options.get("profile"), profiles)
            for name, option in profile.get("profile_options", {}).items():
                self._check_choice(name, option)
        except (ValueError, TypeError) as error:
            raise refusals.refusal("bad-options", f"{error}") from None

    def _check_choice(self, name: str, option: Mapping[str, Any]) -> None:
        if name in OPTIONS:
            self.log.error("Profile option %r has the name of an option of the market", name)
            raise ValueError(f"The profile's option {name!r} can't be used: the market has it too.")
        choice = self.user_options.get(name)
        unlisted = self.user_options.get(f"{name}--unlisted-choice")
        if choice and not unlisted and choice not in option.get("choices", {}):
            raise ValueError(f"The profile's option {name!r} has no choice {choice!r}.")

    async def load_user_options(self) -> None:
        """Apply the profile, and after it the reservation: a profile can't change that."""
        await super().load_user_options()
        for trait, value in {**self._reserved_amounts(), **self._reserved_place()}.items():
            setattr(self, trait, value)

    def _reserved_amounts(self) -> dict[str, Any]:
        terms = self._terms
        share = self._share(terms)
        traits: dict[str, Any] = {}
        if "cpu" in share:
            traits["cpu_guarantee"] = traits["cpu_limit"] = float(share.pop("cpu"))
        if "memory" in share:
            traits["mem_guarantee"] = traits["mem_limit"] = int(share.pop("memory"))
        devices = {name: terms.resources[name] for name in share}
        for trait in ("extra_resource_limits", "extra_resource_guarantees"):
            others = getattr(self, trait)
            kept = {name: others[name] for name in others if name not in terms.resources}
            traits[trait] = {**kept, **devices}
        return traits

    def _reserved_place(self) -> dict[str, Any]:
        terms = self._terms
        tolerations = self._sorted_dict_values(self.tolerations)
        traits: dict[str, Any] = {
            "node_selector": {**self.node_selector, **terms.selector},
            "tolerations": [*tolerations, *self.pool_tolerations],
        }
        if terms.node:
            required = self._sorted_dict_values(self.node_affinity_required)
            traits["node_affinity_required"] = pods.on_node(required, terms.node)
        return traits

    def _share(self, terms: pods.Terms) -> dict[str, Any]:
        """What of the reservation is the notebook's; other containers have their part of it."""
        others = self._as_manifest(self._sorted_dict_values(self.extra_containers) or [])
        taken = pods.total({"containers": others})
        share = {}
        for name, text in terms.resources.items():
            share[name] = pods.quantity(text)
            if name in ("cpu", "memory"):
                share[name] -= taken.get(name, 0)
                if share[name] <= 0:
                    raise self._unsafe([f"its other containers take all {name} of its reservation"])
        return share

    # -- the pod ------------------------------------------------------------------

    async def get_pod_manifest(self) -> V1Pod:
        """The pod, marked as the reservation's and bound to end."""
        pod = await super().get_pod_manifest()
        terms = self._terms
        pod.metadata.labels.update(terms.labels)
        pod.metadata.annotations.update(terms.annotations)
        pod.spec.active_deadline_seconds = terms.seconds
        return pod

    async def _make_create_pod_request(self, pod: V1Pod, request_timeout: float) -> bool:
        # All hooks have run, and the next step is the request: whatever they have made of
        # the pod, what is looked at here is what is sent.
        self._hide_gpus(pod)
        reasons = pods.problems(self._as_manifest(pod), self._terms)
        if reasons:
            raise self._unsafe(reasons)
        self._era_pod_sent = True
        sent: bool = await super()._make_create_pod_request(pod, request_timeout)
        return sent

    def _hide_gpus(self, pod: V1Pod) -> None:
        hidden = V1EnvVar(name=pods.SWITCH, value=pods.HIDDEN[0])
        for container in [*(pod.spec.init_containers or ()), *pod.spec.containers]:
            if not pods.is_open(self._as_manifest(container), self._terms.gpu):
                continue
            # A hook may have added a container as a mapping.
            if isinstance(container, dict):
                container["env"] = [*(container.get("env") or ()), hidden]
            else:
                container.env = [*(container.env or ()), hidden]

    @property
    def _terms(self) -> pods.Terms:
        if self._era_terms is None:
            raise self._unsafe(["it has no reservation"])
        return self._era_terms

    def _terms_of(self, reservation: Reservation) -> pods.Terms:
        left = (reservation.end - datetime.now(UTC)).total_seconds()
        return pods.Terms(
            reservation=reservation.id,
            pool=self.pool,
            user=self.user.name,
            end=reservation.end,
            seconds=max(1, math.ceil(left)) + self.deadline_slack,
            resources=pods.reserved(reservation, self.gpu_resource),
            gpu=self.gpu_resource,
            node=reservation.nodes[0] if reservation.nodes else "",
            selector=dict(self.pool_selector),
            unmetered=frozenset(self.unmetered_resources),
        )

    def _as_manifest(self, model: Any) -> Any:
        return self.api.api_client.sanitize_for_serialization(model)

    def _unsafe(self, reasons: list[str]) -> Any:
        name = self._log_name
        self.log.error("The pod of %s was not created: %s", name, "; ".join(reasons))
        return refusals.unsafe_pod(reasons)

    # -- after the start ----------------------------------------------------------

    async def poll(self) -> int | None:
        """Whether the server has ended; while Kubernetes does not answer it counts as running."""
        try:
            return await super().poll()
        except (ApiException, ClientError, TimeoutError) as error:
            self.log.warning("No word on pod %s: %s", self.pod_name, error or type(error).__name__)
            return None

    async def get_url(self) -> str:
        """Where the server is, also if it was not there yet when the hub went away."""
        with suppress(TimeoutError):
            await exponential_backoff(
                lambda: self.is_pod_running(self._pod()), "", timeout=self.start_timeout
            )
            return str(self._get_pod_url(self._pod()))
        return str(await super().get_url())

    async def _start_reflector(self, kind: str, *args: Any, **options: Any) -> Any:
        # When Kubernetes is away for a minute a reflector gives up, or does not even begin,
        # and what it knew last would count for ever. All servers share it: the first one
        # that asks for a forgotten one makes it anew, and the others wait for that.
        key = self._get_reflector_key(kind)
        known = self.reflectors.get(key)
        if known is not None and _has_given_up(known):
            del self.reflectors[key]
        return await super()._start_reflector(kind, *args, **options)

    def reservation_of_server(self) -> str:
        """The id on the pod's label."""
        metadata = (self._pod() or {}).get("metadata", {})
        owner = (metadata.get("annotations") or {}).get(f"{pods.PREFIX}user")
        if owner != self.user.name:
            return ""
        return str((metadata.get("labels") or {}).get(f"{pods.PREFIX}reservation", ""))

    def _pod(self) -> Mapping[str, Any] | None:
        """The pod as last heard of."""
        if self.pod_reflector is None:
            return None
        pod: Mapping[str, Any] | None = self.pod_reflector.pods.get(
            f"{self.namespace}/{self.pod_name}"
        )
        return pod

    async def clear_away(self) -> None:
        """Delete the pod of a start that has failed."""
        if self._era_pod_sent:
            self._era_pod_sent = False
            try:
                await self._delete_at_once()
            except Exception:
                # The hub stops the server as well, as far as it gets to it.
                self.log.exception("The pod of %s could not be deleted yet", self._log_name)

    async def _delete_at_once(self) -> None:
        await self._make_delete_pod_request(self.pod_name, None, 0, self.k8s_api_request_timeout)

    async def stop(self, now: bool = False) -> None:
        """Delete the pod, at once if its node is lost: nobody there would say it has ended."""
        await self._start_watching_pods()
        stopping = asyncio.ensure_future(super().stop(now or self._is_stranded()))
        try:
            while not (await asyncio.wait([stopping], timeout=PATIENCE))[0]:
                if self._is_stranded():
                    await self._delete_at_once()
            await stopping
        finally:
            stopping.cancel()

    def _is_stranded(self) -> bool:
        pod = self._pod()
        if pod is None or not pods.is_stranded(pod):
            return False
        self.log.warning("The node of pod %s is lost: the pod is deleted at once", self.pod_name)
        return True


def _has_given_up(reflector: ResourceReflector) -> bool:
    loaded, watching = reflector.first_load_future, reflector.watch_task
    if loaded.done() and (loaded.cancelled() or loaded.exception()):
        return True
    return watching is not None and watching.done()
