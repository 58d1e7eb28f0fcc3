"""Answers raw media that cannot become a job: a failure and a Done on the results subject that its publisher reads."""

import contextlib
import hashlib
import re
from collections.abc import Mapping

from pipelines.broker import Broker
from pipelines.dead import dead_letter
from pipelines.job_end import end_with_done, publish_done
from pipelines.job_records import JobCancelled, OtherInput
from pipelines.reasons import describe
from schemas.declared import TOKEN, TOKEN_HINT
from schemas.errors import RigflowError, UsageError
from schemas.jobs import JobRef, Key
from schemas.results import Done, Failure
from schemas.subjects import HEADER_JOB, HEADER_TYPE, SPLIT, given_by, made_id
from schemas.wire import Buffer

NO_REVISION = "unknown"  # of a job that no pipeline was found for
SUBJECT_CHARACTERS = 256


def given_job(subject: str, headers: Mapping[str, str], sequence: int) -> tuple[str, str]:
    """Tenant and id of the job of raw media; without an id, `made_id`. Raises UsageError."""
    tenant, pipeline, _ = given_by(subject)
    given = headers.get(HEADER_JOB, made_id(pipeline, sequence))
    for token, what in ((tenant, "tenant"), (given, HEADER_JOB)):
        if not re.fullmatch(TOKEN, token):
            raise UsageError(f"{what} {token[:100]!a} cannot be one of a job", TOKEN_HINT)
    return tenant, given


def source_of(media: Buffer) -> str:
    """The identity of media: its digest."""
    return f"sha256:{hashlib.sha256(media).hexdigest()}"


async def refuse_media(
    broker: Broker, error: RigflowError, media: Buffer, subject: str, sequence: int, headers: Mapping[str, str]
) -> None:
    """Publish a failure and a dead letter for media that cannot become a job; then its message can be acked.

    The failure and a Done are published on the results subject of the id that the publisher gave, if that id makes a
    subject, and on that of `made_id`. The one exception is an id whose job is not over: that
    job goes on, and the failure is published on its subject as one of the next generation, without a Done.
    """
    tenant, pipeline, _ = given_by(subject)
    known_tenant = tenant if re.fullmatch(TOKEN, tenant) else broker.settings.tenant
    job = JobRef(id=made_id(pipeline, sequence), tenant=known_tenant, pipeline=pipeline, revision=NO_REVISION)
    given = headers.get(HEADER_JOB, job.id)
    results = f"{broker.names.prefix}.results.{tenant}.{pipeline}.{given}"
    if isinstance(error, OtherInput):
        job = error.known.model_copy(update={"pipeline": pipeline, "generation": error.known.generation + 1})
    failure = Failure(key=Key(job=job, segment=-1, final=True), stage=SPLIT, entire_segment=True, error=str(error))
    await dead_letter(broker, failure, media, subject, sequence, headers)
    if isinstance(error, OtherInput) and error.known.pipeline == pipeline:
        return
    done = Done(job=job, segments=0, frames=0, lost=0, failures=(describe(failure),))
    if results != broker.names.results(job) and _is_subject(results):
        identity = f"{subject}/{sequence}/refused"
        await broker.publish(results, failure.encode(), identity, {HEADER_TYPE: "failure"})
        await broker.publish(results, done.encode(), f"{identity}/done", {HEADER_TYPE: "done"})
    reason = f"refused-{sequence}"
    if isinstance(error, OtherInput):
        await publish_done(broker, done, reason)
        return
    with contextlib.suppress(JobCancelled):
        await end_with_done(broker, None, done, reason)


def _is_subject(text: str) -> bool:
    """Whether a text is one subject that the broker takes, without wildcards."""
    printable = text.isascii() and text.isprintable() and not set(text) & set(" *>")
    return printable and len(text) <= SUBJECT_CHARACTERS and all(text.split("."))
