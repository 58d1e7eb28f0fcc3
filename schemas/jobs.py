"""Jobs: how a message refers to one, where in it a piece belongs, and its manifest."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import MessageError
from schemas.fields import Count, GivenName, Moment, Number, Seconds
from schemas.pipeline import Name

ENTIRE_JOB = -1  # the `segment` of a failure that stands for all of its job


class Priority(StrEnum):
    """Priority of a job: a person waits for it (`interactive`), or it runs when there is room (`bulk`)."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class JobRef(BaseModel):
    """Which job a message belongs to, and what the job is pinned to.

    `generation` counts how often the job was begun anew under its id: messages of an earlier generation are ignored.
    """

    model_config = ConfigDict(frozen=True)
    id: Name
    tenant: Name = "main"
    pipeline: Name
    revision: Name
    priority: Priority = Priority.BULK
    generation: Number = 0

    @property
    def id_prefix(self) -> str:
        """Prefix of the ids of the job's messages, in any generation.

        It has the tenant, because all tenants share a stream's window of duplicates.
        """
        return f"{self.tenant}/{self.id}/"

    @property
    def identity(self) -> str:
        """Prefix of the ids of the messages of this generation."""
        return f"{self.id_prefix}{self.revision}" + (f".{self.generation}" if self.generation else "")


class Key(BaseModel):
    """Where in its job a piece belongs: `last` marks the last part of a segment, `final` the job's last segment."""

    model_config = ConfigDict(frozen=True)
    job: JobRef
    segment: Annotated[int, Field(ge=ENTIRE_JOB, lt=1 << 31)]
    final: bool = False
    part: Number = 0
    last: bool = True

    def message_id(self, stage: str) -> str:
        """The `Nats-Msg-Id` of a message for `stage`: `tenant/job/revision[.generation]/segment/part/stage`."""
        return f"{self.job.identity}/{self.segment}/{self.part}/{stage}"

    def check(self) -> None:
        """Check that it is the place of a piece, not of a whole job. Raises MessageError."""
        if self.segment < 0:
            raise MessageError(f"key.segment is {self.segment}, and segments count from 0")


class JobState(StrEnum):
    """How far a job is; the last three are ends."""

    PUBLISHING = "publishing"  # or its publisher stopped half-way: the same command goes on
    PUBLISHED = "published"
    DONE = "done"
    FAILED = "failed"  # it ended, with failures
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class Manifest(BaseModel):
    """A job in KV `rigflow_jobs`: what it is, and how far it is.

    `source` identifies its input. `segments` are with the broker, the first `sent_s` of `duration_s` seconds;
    `total` is how many there are, once all are. `segments_done`, `frames` and `lost` are what its collector has seen.
    `failures` is their number, `reasons` the text of the first few, `missing` the seconds they took. `hosted`: a worker
    collects it, for a publisher that has only NATS. `results_evicted`: its collector took results off a full stream.
    """

    model_config = ConfigDict(frozen=True)
    job: JobRef
    name: GivenName
    source: str = ""
    hosted: bool = False
    state: JobState = JobState.PUBLISHING
    segments: Number = 0
    total: Number | None = None
    sent_s: Seconds = 0.0
    duration_s: Seconds = 0.0
    segments_done: Number = 0
    frames: Count = 0
    lost: Count = 0
    failures: Count = 0
    reasons: tuple[str, ...] = ()
    missing: tuple[tuple[Seconds, Seconds], ...] = ()
    files: tuple[GivenName, ...] = ()
    results_evicted: bool = False
    created_s: Moment = 0.0
    updated_s: Moment = 0.0
    ended_s: Moment = 0.0
