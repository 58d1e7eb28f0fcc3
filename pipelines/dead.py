"""Dead letters: failures with their reason and their input. They can be listed, sent again, or dropped."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.audit import audit
from pipelines.blobs import discard_claims, load
from pipelines.broker import Broker, Stored
from pipelines.claims import claim_of
from pipelines.collect_requests import request_collect
from pipelines.job_end import reopen
from pipelines.job_records import find_manifest
from pipelines.quotas import StorageFull
from pipelines.values import decoded
from schemas.declared import is_token
from schemas.errors import NotFound, RigflowError, UsageError
from schemas.jobs import JobRef, Key
from schemas.messages import decode
from schemas.parts import PartMessage
from schemas.results import Failure
from schemas.segments import Segment
from schemas.subjects import (
    HEADER_CONTENT_TYPE,
    HEADER_FAILURE,
    HEADER_JOB,
    HEADER_NAME,
    HEADER_REVISION,
    HEADER_SUBJECT,
    HEADER_TYPE,
    SPLIT,
)
from schemas.wire import Buffer

GIVEN = (HEADER_JOB, HEADER_NAME, HEADER_CONTENT_TYPE, HEADER_REVISION)  # headers of raw media that its publisher set
HEADERS = (*GIVEN, HEADER_SUBJECT, HEADER_FAILURE)  # of a dead letter
GIVEN_CHARS = 1000  # of each of them: all headers of a message have 64 KiB at most

ALL = ">"  # subjects of a stream
HEADER_BYTES = 3000
ATTEMPTS, ENDED_CHARACTERS = 6, 60  # so many fit into a header beside a long error


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: its stream, its number there, its failure, and the subject of its input (`queue`)."""

    stream: str
    number: int
    failure: Failure
    queue: str
    stored: Stored

    @property
    def nbytes(self) -> int:
        """Size of the input."""
        claimed = claim_of(self.stored.subject, self.stored.headers) and self.stored.body.isdigit()
        return int(self.stored.body) if claimed else len(self.stored.body)


async def dead_letter(
    broker: Broker, failure: Failure, body: Buffer, subject: str, sequence: int, headers: Mapping[str, str]
) -> None:
    """Publish a failure: as a dead letter with its input, then as the piece's result, after which the job may be done.

    `subject`, `sequence` and `headers` are those of the input. They make the id, so that the failure counts once
    however often the input is delivered, and once more when the input is sent again.
    """
    dated = failure.model_copy(update={"at_s": broker.now_s()})
    result, identity = broker.names.results(failure.key.job), _identity(failure, subject, sequence)
    dated = await dead_letter_unread(broker, dated, body, subject, sequence, headers)
    await broker.publish_soon(result, dated.encode(), identity, {HEADER_TYPE: "failure"})


async def dead_letter_unread(
    broker: Broker, failure: Failure, body: Buffer, subject: str, sequence: int, headers: Mapping[str, str]
) -> Failure:
    """Publish a dead letter, but no failure: no job waits for the result of an input that cannot be read.

    Returns the failure in it, which says so if the tenant's storage has no room for the input.
    """
    given = {name: headers[name][:GIVEN_CHARS] for name in GIVEN if name in headers} | {HEADER_SUBJECT: subject}
    job, identity = failure.key.job, _identity(failure, subject, sequence)
    dead = broker.names.dead(job.pipeline, failure.stage, job.tenant)
    try:
        await broker.publish_soon(dead, body, identity, given | {HEADER_FAILURE: failure_header(failure)})
    except StorageFull as full:
        failure = without_input(failure, full)
        await broker.publish_soon(dead, b"", identity, given | {HEADER_FAILURE: failure_header(failure)})
    return failure


def without_input(failure: Failure, why: RigflowError) -> Failure:
    """A failure that says why its dead letter has no input."""
    return failure.model_copy(update={"error": f"{failure.error}; its input is not kept: {why}"})


def _identity(failure: Failure, subject: str, sequence: int) -> str:
    key = failure.key
    return f"{subject}/{sequence}/{key.segment}/{key.part}/failure-{failure.stage}"


async def letters(broker: Broker, job: str = "", after: int = 0, tenant: str = "") -> AsyncIterator[Letter]:
    """The dead letters of a tenant behind the number `after`, oldest first; those of one job when it is named.

    All tenants that are not listed share one stream, with numbers of its own, as each listed one has.
    """
    stream, subjects = await _place(broker, tenant)
    async for stored in broker.read(stream, subjects, after + 1):
        letter = _letter(stream, stored)
        if not job or letter.failure.key.job.id == job:
            yield letter


async def find_letter(broker: Broker, number: int, tenant: str = "") -> Letter:
    """The dead letter of a tenant with this number. Raises NotFound when there is none."""
    stream, subjects = await _place(broker, tenant)
    stored = await broker.message(stream, number)
    if stored is None or (subjects != ALL and broker.names.listed_tenant(stored.subject) != tenant):
        raise no_letter(number)
    return _letter(stream, stored)


async def _place(broker: Broker, tenant: str) -> tuple[str, str]:
    """Stream and subjects of a tenant's letters: of the shared stream, until `topology apply` gives it one."""
    names = broker.names
    own = names.dead_of(tenant)
    if own == names.dead_stream or await broker.api_unless_gone(f"STREAM.INFO.{own}") is not None:
        return own, ALL
    return names.dead_stream, names.dead("*", "*", tenant)


def no_letter(number: int) -> NotFound:
    """The error about a dead letter that is not there."""
    return NotFound(f"there is no dead letter {number}", "see `rigflow dead list`")


async def input_of(broker: Broker, letter: Letter) -> Buffer:
    """The body of the input that failed. Raises StoreError when its object is too old."""
    return await load(broker, letter.stored)


async def media_of(broker: Broker, letter: Letter) -> dict[str, Buffer]:
    """What failed, as files: name -> content. Raises StoreError when it is too old, UsageError when it is no media."""
    from engines.media.extract import files_of

    body = await input_of(broker, letter)
    if letter.failure.stage == SPLIT:  # as its publisher sent it
        return {Path(letter.stored.headers.get(HEADER_NAME, letter.failure.key.job.id)).name: body}
    message, buffers = decode(body)
    if not isinstance(message, Segment | PartMessage):
        raise UsageError(f"dead letter {letter.number} is a request to {message.type}: it carries no media")
    files = files_of(message, buffers)
    if not files:
        paths = ", ".join(item.path for item in message.items) if isinstance(message, Segment) else ""
        raise UsageError(f"dead letter {letter.number} carries no media, only paths", paths)
    return files


async def retry(broker: Broker, letter: Letter) -> None:
    """Send the input again to the queue it came from, and take the failure back from the job's results.

    The job is unfinished then, until a result or another failure comes. If this is interrupted, call it again. Raises
    UsageError for a dead letter that rigflow did not write.
    """
    kinds = (f"{broker.names.prefix}.work.", f"{broker.names.prefix}.media.")
    if not letter.queue.startswith(kinds) or not all(map(is_token, letter.queue.split("."))):
        hint = f"see it with `rigflow dead show {letter.number} --save FILE`, or drop it"
        raise UsageError(f"dead letter {letter.number} does not say which queue its input came from", hint)
    job = letter.failure.key.job
    await audit(broker, "dead-letter-retried", str(letter.number), job=job.id, tenant=job.tenant)
    taken_back = [sequence async for sequence in _failures(broker, letter.failure)]
    again = f"{job.identity}/{letter.queue}/{letter.stream}-{letter.number}"  # a new id, since the broker drops repeats
    given = {name: letter.stored.headers[name] for name in GIVEN if name in letter.stored.headers}
    await broker.publish(letter.queue, await input_of(broker, letter), again, given)
    for sequence in taken_back:
        await broker.delete_message(broker.names.results_of(job.tenant), sequence)
    await reopen(broker, job)
    manifest = await find_manifest(broker, job.id, job.tenant)
    splits = letter.failure.stage == SPLIT  # asks for its own collector
    if manifest is not None and manifest.hosted and manifest.job == job and not splits:
        await request_collect(broker, manifest, again)
    await delete_letter(broker, letter)


async def drop(broker: Broker, letter: Letter) -> None:
    """Delete a dead letter and its input; the failure stays in the job's results."""
    job = letter.failure.key.job
    await audit(broker, "dead-letter-dropped", str(letter.number), job=job.id, tenant=job.tenant)
    await delete_letter(broker, letter)


async def delete_letter(broker: Broker, letter: Letter) -> None:
    """Delete a dead letter, and its input if that is an object."""
    stored = letter.stored
    await broker.delete_message(letter.stream, letter.number)
    await discard_claims(broker, broker.names.blobs_for(stored.subject), [claim_of(stored.subject, stored.headers)])


async def _failures(broker: Broker, failure: Failure) -> AsyncIterator[int]:
    """Sequences of a failure in the stream of results."""
    subject = broker.names.results(failure.key.job)
    async for stored in broker.read(broker.names.results_for(subject), subject):
        if stored.headers.get(HEADER_TYPE) == "failure":
            try:
                message, _ = decode(stored.body)
            except ValueError:
                continue
            if isinstance(message, Failure) and (message.key, message.stage) == (failure.key, failure.stage):
                yield stored.sequence


def failure_header(failure: Failure) -> str:
    """A failure as a header: ASCII, and at most `HEADER_BYTES` long."""
    no_detail = failure.model_copy(update={"detail": "", "cards": ()})
    short = [attempt.model_copy(update={"ended": attempt.ended[:ENDED_CHARACTERS]}) for attempt in failure.attempts]
    no_detail_short = no_detail.model_copy(update={"attempts": tuple(short[-ATTEMPTS:])})
    for described in (failure, no_detail, no_detail_short):
        text = json.dumps(described.model_dump(mode="json"))
        if len(text) <= HEADER_BYTES:
            return text
    return json.dumps(no_detail_short.model_copy(update={"error": failure.error[:200]}).model_dump(mode="json"))


def _letter(stream: str, stored: Stored) -> Letter:
    described = stored.headers.get(HEADER_FAILURE, "").encode()
    failure = decoded(Failure, described, f"the failure in dead letter {stored.sequence}")
    queue = stored.headers.get(HEADER_SUBJECT, "")
    return Letter(stream, stored.sequence, failure or _unknown(stored.subject), queue, stored)


def _unknown(subject: str) -> Failure:
    """A failure in place of one that cannot be read: such a dead letter can only be shown and dropped."""
    pipeline, stage = (token if is_token(token) else "unknown" for token in subject.split(".")[2:4])
    job = JobRef(id="unknown", pipeline=pipeline, revision="unknown")
    return Failure(key=Key(job=job, segment=-1), stage=stage, entire_segment=True, error="it does not say what failed")
