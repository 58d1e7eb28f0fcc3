"""What a job used, and sums of it."""

import time
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from schemas.declared import Name
from schemas.fields import Count, Duration
from schemas.jobs import JobState, Manifest

NO_KEY = "-"  # the submitter of jobs that came without an API key


class Used(BaseModel):
    """What jobs used: `media_s` seconds of media, `nbytes` of input, `computed_s` seconds of workers' devices.

    `failed` are those of the `jobs` that ended with failures. `tokens` were read and written by language models.
    """

    model_config = ConfigDict(frozen=True)
    jobs: Count = 0
    failed: Count = 0
    frames: Count = 0
    media_s: Duration = 0.0
    computed_s: Duration = 0.0
    nbytes: Count = 0
    tokens: Count = 0

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What one job used, from the manifest of its end."""
        return cls(
            jobs=1,
            failed=manifest.state is JobState.FAILED,
            frames=manifest.frames,
            media_s=max(0.0, manifest.duration_s),
            computed_s=manifest.computed_s,
            nbytes=manifest.nbytes,
            tokens=manifest.tokens,
        )

    def __add__(self, other: "Used") -> "Used":
        return Used(**{name: getattr(self, name) + getattr(other, name) for name in Used.model_fields})


class EndedJob(Used):
    """What one job used, as it is stored; `took_s` are the seconds from its arrival to its end."""

    took_s: Duration = 0.0

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What one job used, from the manifest of its end."""
        job = super().of(manifest)
        return job.model_copy(update={"took_s": max(0.0, manifest.ended_s - manifest.created_s)})


class UsageOf(BaseModel):
    """Whose use it is: a tenant, an API key (`-`: none), a pipeline and a day of UTC. None: of all together."""

    model_config = ConfigDict(frozen=True)
    tenant: Name
    key: Name | Annotated[str, Field(pattern="^-$")] | None = None
    pipeline: Name | None = None
    day: str | None = None


def day_of(at_s: float) -> str:
    """The day of UTC of a moment, as 2026-11-28."""
    return time.strftime("%Y-%m-%d", time.gmtime(at_s))
