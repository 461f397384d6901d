"""What Kubernetes says of a pod, in plain words."""

from __future__ import annotations

import re
import signal

from era_hub.clouds import runner
from era_hub.clouds.kubernetes.views import PodView

AT_ITS_END = "stopped at the end of its reservation"
ON_REQUEST = "stopped on request"

IMAGE_TROUBLE = {
    "ErrImagePull": "its image can't be fetched",
    "ImagePullBackOff": "its image can't be fetched",
    "RegistryUnavailable": "the registry of its image does not answer",
    "InvalidImageName": "the name of its image is not valid",
    "ErrImageNeverPull": "its image is not on the node and may not be fetched",
    "ImageInspectError": "its image is damaged",
}
START_TROUBLE = {
    "CreateContainerConfigError": "its container lacks something it refers to",
    "CreateContainerError": "its container can't be made",
    "RunContainerError": "its container can't be started",
    "CrashLoopBackOff": "what runs before it fails again and again",
}
DISRUPTIONS = {
    "PreemptionByScheduler": "it had to give way to a pod of higher priority",
    "DeletionByTaintManager": "its node does not tolerate it any more",
    "EvictionByEvictionAPI": "it was evicted, as when a node is drained",
    "DeletionByPodGC": "its node is gone",
    "TerminationByKubelet": "its node shut down or ran short of resources",
}


def exit_code(pod: PodView) -> int | None:
    """The command's exit code; negative for a signal."""
    code = pod.container.exit_code
    if code is None or not 128 < code < 128 + signal.NSIG:
        return code
    return 128 - code


def ended(pod: PodView, memory: str = "") -> str:
    """Why a pod has ended that nobody deleted; empty for success."""
    container, code = pod.container, exit_code(pod)
    if pod.reason == "Evicted":
        return f"evicted from its node: {_clean(pod.message) or 'no reason given'}"
    if container.reason == "OOMKilled":
        limit = f", {memory}" if memory else ""
        return f"killed as it used more memory than it was promised{limit}"
    if container.reason in ("ContainerCannotRun", "StartError"):
        return f"its container can't be started: {_clean(container.message)}"
    if code is None:
        text = _clean(pod.message) or pod.reason or "no reason given"
        return "" if pod.phase == "Succeeded" else f"its pod failed: {text}"
    if code == runner.NOT_FOUND:
        return "command not found"
    if code == runner.NOT_EXECUTABLE:
        return "permission denied: the command is not executable"
    return runner.describe(code)


def blameless(pod: PodView) -> bool:
    """Whether a pod has failed through no fault of its command."""
    if pod.reason == "Evicted":
        # What fills the disk beyond its own limit is told so: it exceeds, it exceeded.
        return not re.search(r"\bexceed(s|ed)\b.*\blimit\b", pod.message)
    refused = bool(pod.reason) and not pod.container.started  # by its node, on arrival
    return refused or pod.reason in ("NodeLost", "NodeShutdown", "Shutdown", "Terminated")


def deleted(pod: PodView) -> str:
    """Why a pod is gone that was not stopped from here."""
    return DISRUPTIONS.get(pod.disruption, "somebody deleted its pod")


def waiting(pod: PodView) -> str:
    """What a pod waits for; empty if it runs, or only takes the time that starting takes."""
    if pod.unschedulable:
        return f"waits for a node: {_clean(pod.unschedulable)}"
    reason, message = pod.container.waiting, _clean(pod.container.message)
    if not reason:
        return ""
    text = IMAGE_TROUBLE.get(reason) or START_TROUBLE.get(reason) or f"its container is {reason}"
    return f"waits: {text}" + (f": {message}" if message else "")


def _clean(text: str) -> str:
    """One printable line of bearable length."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:300]
