"""What the API says of jobs and their files."""

from pathlib import Path
from typing import Self
from urllib.parse import quote

from pydantic import BaseModel, Field

from pipelines.job_files import JobFile
from schemas.jobs import JobState, Manifest, Priority
from schemas.results import Done

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp"))
FILMS = frozenset((".mp4", ".webm", ".mkv"))


class JobView(BaseModel):
    """A job and how far it is. Times are in seconds since 1970; those that end with `_s` beside are of the media."""

    id: str
    tenant: str
    pipeline: str
    revision: str
    priority: Priority
    generation: int = Field(description="how often it was started again")
    name: str
    state: JobState
    progress: float | None = Field(description="0 to 1; null until its first segment is at the broker")
    segments: int = Field(description="segments that are at the broker")
    segments_total: int | None
    segments_done: int
    duration_s: float
    frames: int
    frames_lost: int
    failures: int
    reasons: list[str] = Field(description="of the first failures")
    missing_s: list[tuple[float, float]] = Field(description="seconds of the media without a result")
    notes: list[str] = Field(description="the first of what is unusual about the media, such as that it is truncated")
    doubt: str = Field(description="set if a card that computed parts of it was found to answer wrongly after its end")
    input_bytes: int
    thumbnail: str | None = Field(description="URL of a small picture; null where no file is a picture or a film")
    created_at: float
    updated_at: float
    ended_at: float | None

    @classmethod
    def of(cls, known: Manifest) -> Self:
        """The view of a manifest."""
        job = known.job
        return cls(
            id=job.id,
            tenant=job.tenant,
            pipeline=job.pipeline,
            revision=job.revision,
            priority=job.priority,
            generation=job.generation,
            name=known.name,
            state=known.state,
            progress=known.share,
            segments=known.segments,
            segments_total=known.total,
            segments_done=known.segments_done,
            duration_s=known.duration_s,
            frames=known.frames,
            frames_lost=known.lost,
            failures=known.failures,
            reasons=list(known.reasons),
            missing_s=list(known.missing),
            notes=list(known.notes),
            doubt=known.doubt,
            input_bytes=known.nbytes,
            thumbnail=_thumbnail(known),
            created_at=known.created_s,
            updated_at=known.updated_s,
            ended_at=known.ended_s or None,
        )


def has_picture(name: str) -> bool:
    """Whether a small picture can be made of a file of this name."""
    return Path(name).suffix.lower() in PICTURES | FILMS


def _thumbnail(known: Manifest) -> str | None:
    """With a number that changes when the job is done again."""
    if not any(map(has_picture, known.files)):
        return None
    return f"/api/v1/jobs/{known.job.id}/thumbnail?v={known.job.generation}.{int(known.updated_s)}"


class JobPage(BaseModel):
    """Some jobs, the newest first; `next` is the cursor of the following page, `total` how many there are."""

    jobs: list[JobView]
    next: str | None = None
    total: int = Field(description="jobs that are listed, on all pages together")


class FileView(BaseModel):
    """A finished file of a job; `thumbnail` is the URL of a small picture of it, or null."""

    name: str
    content_type: str
    size: int
    etag: str
    url: str
    thumbnail: str | None

    @classmethod
    def of(cls, job: str, file: JobFile) -> Self:
        """The view of a file."""
        name = quote(file.name, safe="")
        url = f"/api/v1/jobs/{job}/results/{name}?at={file.sequence}"
        small = f"/api/v1/jobs/{job}/thumbnail?file={name}&at={file.sequence}" if has_picture(file.name) else None
        about = {"name": file.name, "content_type": file.content_type, "size": file.size, "etag": file.tag}
        return cls(**about, url=url, thumbnail=small)


class DoneView(BaseModel):
    """How a job ended. `digest` is the same for any fleet."""

    state: JobState
    segments: int
    frames: int
    frames_lost: int
    failures: list[str]
    more_failures: int
    missing_s: list[tuple[float, float]]
    files: list[str]
    notes: list[str]
    digest: str

    @classmethod
    def of(cls, done: Done) -> Self:
        """The view of a Done."""
        return cls(
            state=done.state,
            segments=done.segments,
            frames=done.frames,
            frames_lost=done.lost,
            failures=list(done.failures),
            more_failures=done.more_failures,
            missing_s=list(done.missing),
            files=list(done.files),
            notes=list(done.notes),
            digest=done.digest,
        )
