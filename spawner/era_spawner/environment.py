"""The environment variables of a server, from its claimed reservation alone."""

from __future__ import annotations

from datetime import UTC

from era_hub.models import Reservation

NAMES = (
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "ERA_END",
    "ERA_GPUS",
    "ERA_RESERVATION",
    "ERA_TOKEN",
    "ERA_URL",
)
"""The market's names, with which a server has what it has from here or not at all."""


def market_environment(reservation: Reservation | None, url: str) -> dict[str, str]:
    """Variables that tell a server of its reservation and show it its GPUs, and no others."""
    environment = {"ERA_URL": url, **_gpu_environment(reservation)}
    if reservation:
        environment["ERA_RESERVATION"] = reservation.id
        environment["ERA_END"] = reservation.end.astimezone(UTC).isoformat(timespec="seconds")
    return environment


def _gpu_environment(reservation: Reservation | None) -> dict[str, str]:
    if reservation and reservation.units and reservation.gpus is None:
        # The node numbers its GPUs, and shows those that are the server's.
        return {}
    gpus = ",".join(str(index) for index in (reservation.gpus or [] if reservation else []))
    return {
        # CUDA counts the fastest GPU first otherwise, and the indices would not match.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Without GPUs they are set too: left out, they would show every GPU.
        "CUDA_VISIBLE_DEVICES": gpus,
        "NVIDIA_VISIBLE_DEVICES": gpus or "none",
        "ERA_GPUS": gpus,
    }
