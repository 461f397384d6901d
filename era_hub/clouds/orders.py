"""What all clouds ask of a job before they start it, and what they tell it."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime

from era_hub.clouds.base import CloudError, JobSpec
from era_hub.clouds.runner import LOG, STATE


def checked_id(job_id: str) -> str:
    """The id, which becomes part of names and paths, if it is a UUID in its usual form."""
    with suppress(ValueError, AttributeError, TypeError):
        if str(uuid.UUID(job_id)) == job_id:
            return job_id
    raise CloudError("this is not the id of a job")


def check(spec: JobSpec) -> None:
    """Raise CloudError if no cloud could run the job."""
    checked_id(spec.id)
    if not spec.command:
        raise CloudError("the job has no command")
    if spec.end <= time.time():
        raise CloudError("the reservation has ended already")
    for name in spec.files:
        reserved = name in ("", ".", "..", LOG) or name.startswith(STATE)
        if reserved or "/" in name or "\0" in name:
            raise CloudError(f"{name!r} can't be the name of a job's file")


def promise(spec: JobSpec) -> dict[str, str]:
    """Variables that tell a job which it is and when it ends."""
    return {
        "ERA_JOB_ID": spec.id,
        "ERA_RUN": str(spec.run),
        "ERA_END": datetime.fromtimestamp(spec.end, UTC).isoformat(),
        "ERA_END_EPOCH": str(spec.end),
    }
