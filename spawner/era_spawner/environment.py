"""The environment variables of a server, from its claimed reservation alone."""

from __future__ import annotations

from datetime import UTC

from era_hub.models import Reservation


def gpu_environment(reservation: Reservation | None, url: str) -> dict[str, str]:
    """Variables that show a server its GPUs, and no others.

    Without GPUs they are set too: a variable left out would show every GPU.
    """
    gpus = ",".join(str(index) for index in (reservation.gpus or [] if reservation else []))
    environment = {
        # CUDA counts the fastest GPU first otherwise, and the indices would not match.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": gpus,
        "NVIDIA_VISIBLE_DEVICES": gpus or "none",
        "ERA_URL": url,
        "ERA_GPUS": gpus,
    }
    if reservation:
        environment["ERA_RESERVATION"] = reservation.id
        environment["ERA_END"] = reservation.end.astimezone(UTC).isoformat(timespec="seconds")
    return environment
