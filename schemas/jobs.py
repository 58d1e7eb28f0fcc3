"""Jobs: the reference to a job in a message, the place of a part in it, and its manifest."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.declared import Name
from schemas.errors import MessageError
from schemas.fields import Count, Duration, GivenName, Moment, Number, Seconds

ENTIRE_JOB = -1  # the `segment` of a failure of the entire job


class Priority(StrEnum):
    """Priority of a job: a person waits for it (`interactive`), or it runs when capacity is free (`bulk`)."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class JobRef(BaseModel):
    """The job of a message, with the pipeline revision and models that it uses.

    `generation` counts how often the job was started again under its id: messages of an earlier generation are ignored.
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

        It contains the tenant, because all tenants share a stream's window of duplicates.
        """
        return f"{self.tenant}/{self.id}/"

    @property
    def identity(self) -> str:
        """Prefix of the ids of the messages of this generation."""
        return f"{self.id_prefix}{self.revision}" + (f".{self.generation}" if self.generation else "")


class Key(BaseModel):
    """The place of a part in its job: `last` marks the last part of a segment, `final` the job's last segment."""

    model_config = ConfigDict(frozen=True)
    job: JobRef
    segment: Annotated[int, Field(ge=ENTIRE_JOB, lt=1 << 31)]
    final: bool = False
    part: Number = 0
    last: bool = True

    def message_id(self, stage: str, again: str = "") -> str:
        """The `Nats-Msg-Id` of a message for `stage`: `tenant/job/revision[.generation]/segment/part/stage[/again]`.

        `again`: why it is done again.
        """
        return f"{self.job.identity}/{self.segment}/{self.part}/{stage}" + (f"/{again}" if again else "")

    def check(self) -> None:
        """Check that it is the place of a part, not of an entire job. Raises MessageError."""
        if self.segment < 0:
            raise MessageError(f"key.segment is {self.segment}, and segments count from 0")


class JobState(StrEnum):
    """The state of a job; in the last three states it has ended. `at_end` decides between these."""

    PUBLISHING = "publishing"  # or its publisher stopped before the end: the same command continues
    PUBLISHED = "published"
    DONE = "done"
    FAILED = "failed"  # it ended, and a part or an item of it has no result
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)

    @classmethod
    def at_end(cls, failures: int, cancelled: bool = False) -> "JobState":
        """The state of a job that is over: failed if a part or an item of it has no result."""
        return cls.CANCELLED if cancelled else cls.FAILED if failures else cls.DONE


class Manifest(BaseModel):
    """A job in KV `rigflow_jobs`: its description and its progress.

    `source` identifies its input. The broker has `segments`, which cover the first `sent_s` of `duration_s` seconds;
    `total` is their number, once all are sent. `segments_done`, `frames` and `lost` are the counts of its collector.
    `failures` is their number, `reasons` the text of the first few, `missing` their seconds. `notes` are the first
    of its notes. `hosted`: a worker
    collects it, for a publisher that does not. `gathers`: a stage takes its entire media as one part, and the job is
    over once that part has a result or a failure, too. `results_evicted`: its collector removed results from a full
    stream. `submitter` is the name of the API key that it came with, `nbytes` the size of its input, `computed_s` and
    `tokens` what it took, see `PartMeta`. `trace` is the header `traceparent` that its media came with.
    `doubt`: it was done when a card that computed parts of it was found to answer wrongly.
    """

    model_config = ConfigDict(frozen=True)
    job: JobRef
    name: GivenName
    source: str = ""
    hosted: bool = False
    gathers: bool = False
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
    notes: tuple[str, ...] = ()
    files: tuple[GivenName, ...] = ()
    results_evicted: bool = False
    submitter: Name | None = None
    nbytes: Count = 0
    computed_s: Duration = 0.0
    tokens: Count = 0
    trace: Annotated[str, Field(max_length=64)] = ""
    doubt: GivenName = ""
    created_s: Moment = 0.0
    updated_s: Moment = 0.0
    ended_s: Moment = 0.0

    @property
    def share(self) -> float | None:
        """How much of the job is done, 0 to 1: of the seconds of its media while the number of segments is not known.

        None where neither is known yet.
        """
        if self.state is JobState.DONE:
            return 1.0
        if self.total:
            return min(1.0, self.segments_done / self.total)
        if self.total is None and self.segments and self.duration_s:
            return min(1.0, self.segments_done / self.segments) * min(1.0, self.sent_s / self.duration_s)
        return None
