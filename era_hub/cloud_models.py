"""Public models of the cloud's side: what a foreign scheduler reads, and what it reports."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field, model_validator

from .models import Kind, MicroCredits, Model, State

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
Said = Annotated[str, Field(max_length=500)]


class Allocated(Model):
    """A reservation whose time it is, as far as a scheduler needs to know it."""

    id: str
    kind: Kind
    user: str
    server_name: str = Field(description="of a notebook: the named server; empty for the default")
    configuration: str
    count: int = Field(description="how many of the configuration")
    units: int = Field(description="of the pool's resource, such as GPUs, all together")
    gpus: list[int] | None = Field(description="their indices, once the workload was started")
    state: State = Field(description="accepted until its workload is started, then active")
    start: datetime
    end: datetime = Field(description="later than before if it was extended")
    preemptible: bool = Field(
        description="whether it goes on after the end of its reservation, at lower priority"
    )


class Allocation(Model):
    """What must run right now, and nothing else."""

    pool: str
    resource: str = Field(description="what `units` are, in Kubernetes notation")
    capacity: int = Field(description="units for sale right now")
    running: list[Allocated] = Field(description="by start and id")


class Reported(Model):
    """What is said to the service; unknown fields are errors, so that typos are found."""

    model_config = ConfigDict(extra="forbid")


class CapacitySpan(Reported):
    """How many units of the pool there are for some time."""

    units: int = Field(ge=0, le=1_000_000_000)
    start: AwareDatetime | None = Field(None, description="default: at once")
    end: AwareDatetime | None = Field(None, description="default: for good")

    @model_validator(mode="after")
    def _forward(self) -> CapacitySpan:
        if self.start and self.end and self.end <= self.start:
            raise ValueError("the end must be later than the start")
        return self


class EndedWorkload(Reported):
    """A workload that has ended by itself."""

    id: Id
    exit_code: int | None = Field(None, ge=-128, le=255, description="of a job; default: success")
    message: Said = ""


class FailedWorkload(Reported):
    """A workload that the cloud could not run, or lost."""

    id: Id
    reason: Said = Field("", description="for its owner")


class Feedback(Reported):
    """What a scheduler has observed. Said twice, it changes nothing the second time."""

    capacity: list[CapacitySpan] | None = Field(
        None,
        max_length=1000,
        description="all that is known; where spans overlap the last one counts, and where "
        "there is none all units are there. Default: as it was reported before",
    )
    ended: list[EndedWorkload] = Field(
        [], max_length=10_000, description="refunded by the slots that have not begun"
    )
    failed: list[FailedWorkload] = Field([], max_length=10_000, description="refunded in full")

    @model_validator(mode="after")
    def _one_word_for_each(self) -> Feedback:
        both = {each.id for each in self.ended} & {each.id for each in self.failed}
        if both:
            raise ValueError(f"{min(both)} can't have ended and failed")
        return self


class Settled(Model):
    """A reservation that is over, and what came back for it."""

    id: str
    state: State
    price: MicroCredits
    refunded: MicroCredits


class Moved(Model):
    """A reservation that runs at another time now."""

    id: str
    start: datetime
    end: datetime


class FeedbackResult(Model):
    """What became of the reservations."""

    settled: list[Settled] = Field(description="what has ended or failed, as it was said")
    broken: list[Settled] = Field(
        description="what there is no capacity left for: stop it; it was refunded in full"
    )
    moved: list[Moved] = Field(description="what was moved to make room")
    unknown: list[str] = Field(description="ids that are none of this pool's")
