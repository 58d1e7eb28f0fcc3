"""The messages at the end of parts and jobs: results, failures and Done."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue

from schemas.arrays import Arrays, check_arrays
from schemas.base import Message
from schemas.cards import Marks
from schemas.declared import Name
from schemas.fields import Count, Duration, GivenName, Label, Moment, Number, Seconds
from schemas.jobs import JobRef, JobState, Key
from schemas.parts import PartMeta
from schemas.wire import Buffer


class Result(Message):
    """The result of `encode` for one part; `meta.key` is its place, `facts` are those of the format."""

    type: Literal["result"] = "result"
    meta: PartMeta
    format: Name
    arrays: Arrays = Field(default_factory=dict)
    facts: dict[str, JsonValue] = Field(default_factory=dict)

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Check that each array fits its buffer. Raises MessageError."""
        self.meta.key.check()
        check_arrays(self.arrays, buffers)


class Delta(Message):
    """New text of an answer that is being written: for people who watch it grow. It is not stored.

    `row` is the place of the answer among those of its part, `name` that of its item. `number` counts the deltas of an
    answer from 0. If a worker dies, another one begins the answer again, with a higher `generation`. The part's result
    replaces all of its deltas.
    """

    type: Literal["delta"] = "delta"
    key: Key
    generation: Number
    row: Number
    name: GivenName = ""
    number: Number
    text: str


class Attempt(BaseModel):
    """A worker began with a message and did not finish it: the worker, its machine, and the start.

    `number` is the delivery's, counted by the broker. `ended` is the error that the worker reported; it is empty if the
    worker was killed or stuck. `at_s` is in seconds since 1970.
    """

    model_config = ConfigDict(frozen=True)
    number: Number
    worker: GivenName
    host: GivenName
    device: GivenName
    at_s: Moment
    ended: str = ""


class Failure(Message):
    """A part of a job that will have no result. `stage` is where it failed, `error` the reason in one line.

    `start_s` and `end_s` are the missing seconds of the media. `entire_segment`: the segment has no further parts; a
    `key.segment` of -1 means the entire job. `at_s` is when it failed, in seconds since 1970. `worker` published it,
    after these `attempts`; `deliveries` also counts those that were returned unprocessed. `cards`: as in `PartMeta`.
    """

    type: Literal["failure"] = "failure"
    key: Key
    stage: Name
    entire_segment: bool = False
    error: str
    detail: str = ""
    start_s: Seconds = 0.0
    end_s: Seconds = 0.0
    worker: GivenName = ""
    deliveries: Count = 1
    attempts: Annotated[tuple[Attempt, ...], FailFast()] = ()
    at_s: Moment = 0.0
    cards: Marks = ()


class Done(Message):
    """The job is over: its counts, and a digest over its ordered results.

    `failures` are the texts of the first failures, and `more_failures` counts the rest; `missing` are the first missing
    spans of the media, in seconds. `files` and `more_files` likewise. A job that was `cancelled` has no results.
    `duration_s` is that of its media, 0 of items; `computed_s` and `tokens` are the sums of its parts, see `PartMeta`.
    """

    type: Literal["done"] = "done"
    job: JobRef
    segments: Number
    frames: Count
    lost: Count
    failures: Annotated[tuple[str, ...], FailFast()] = ()
    more_failures: Count = 0
    missing: Annotated[tuple[tuple[Seconds, Seconds], ...], FailFast()] = ()
    cancelled: bool = False
    digest: Label = ""
    files: Annotated[tuple[GivenName, ...], FailFast()] = ()
    more_files: Count = 0
    notes: Annotated[tuple[str, ...], FailFast()] = ()
    duration_s: Duration = 0.0
    computed_s: Duration = 0.0
    tokens: Count = 0

    @property
    def failed(self) -> int:
        """The number of failures."""
        return len(self.failures) + self.more_failures

    @property
    def state(self) -> JobState:
        """The state in which the job is over."""
        return JobState.at_end(self.failed, self.cancelled)
