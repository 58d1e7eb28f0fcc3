"""Removes data that no job needs and no other process removes: late repeats, and leftovers of killed processes.

- Results of jobs that are done or cancelled: a part may be published, or published again, after its job ended.
- Messages of a queue that were acknowledged: a broker that is killed may keep some, which no consumer gives out again.
- Attempts at messages that are settled, once all older ones of their queue are settled too.
- Objects of the blob store whose message is gone or never came.
- Revisions of pipelines that no job needs, see `pipelines.revisions`.
- Chunks of uploads to the stores of blobs and models that were not finished.

Only what is `age_s` old is removed, because the message of a younger object may still be on its way. Of streams only
counts and headers are read; bodies are read only of the attempts, which are small.
"""

import asyncio
import json
import random
import re
from contextlib import suppress
from dataclasses import dataclass

from pipelines.blobs import BlobInfo, delete_blob, discard_claims, parse_info
from pipelines.broker import Broker
from pipelines.claims import SUBJECT, claim_of
from pipelines.job_records import entries_of_jobs
from pipelines.result_index import result_index
from pipelines.revisions import sweep_revisions
from schemas.errors import RigflowError
from schemas.jobs import JobState, Manifest
from schemas.subjects import HEADER_TYPE

EVERY_S = 900.0  # one sweep of the whole fleet
AGE_S = 3600.0
SWEPT = "swept"  # key of the bucket of attempts: when the fleet was swept last
FULL = 0.9  # of a stream's limit: a publisher may wait there with its object stored and its message not yet
NAME = re.compile("[A-Za-z0-9_@-]+")
NO_STREAM = 1 << 64
KEPT = frozenset({"file", "done"})  # of the results of a job that is done


@dataclass(frozen=True, slots=True)
class Swept:
    """How many results, messages of queues, attempts, objects and revisions of pipelines were removed."""

    results: int = 0
    queued: int = 0
    attempts: int = 0
    blobs: int = 0
    revisions: int = 0

    @property
    def removed(self) -> int:
        """All of them."""
        return self.results + self.queued + self.attempts + self.blobs + self.revisions


async def sweep_regularly(broker: Broker) -> None:
    """Sweep every 15 minutes until cancelled: of all processes that call this, one sweeps each time."""
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.0) * EVERY_S)
        with suppress(RigflowError):  # the broker is away, or forbids it: the next sweep tries again
            if await _is_our_turn(broker):
                await sweep(broker)


async def _is_our_turn(broker: Broker) -> bool:
    names = broker.names
    last = await broker.last(f"KV_{names.attempts}", f"$KV.{names.attempts}.{SWEPT}")
    await broker.read_clock()
    if last is not None and broker.now_s() - last.stored_s < EVERY_S / 2:
        return False
    sequence = 0 if last is None else last.sequence
    return await broker.replace(names.attempts, SWEPT, b"", sequence) is not None


async def sweep(broker: Broker, age_s: float = AGE_S, entire: bool = False) -> Swept:
    """Remove what is left over and `age_s` old. Raises BrokerError.

    `entire`: in queues, models and pipelines too, which the role of a worker may not.
    """
    names = broker.names
    await broker.read_clock()
    before_s = broker.now_s() - age_s
    buckets = {of(tenant) for tenant in ("", *names.tenants) for of in (names.blobs_of, names.uploads_of)}
    return Swept(
        await _sweep_results(broker, before_s),
        await _sweep_queues(broker, before_s) if entire else 0,
        await _sweep_attempts(broker, before_s),
        sum([await _sweep_blobs(broker, bucket, before_s) for bucket in sorted(buckets)])
        + (await _sweep_models(broker, before_s) if entire else 0),
        await sweep_revisions(broker, before_s) if entire else 0,
    )


async def _sweep_results(broker: Broker, before_s: float) -> int:
    """Remove pieces of jobs that are done or cancelled."""
    names, removed = broker.names, 0
    counts: dict[str, int] = {}
    for tenant in ("", *sorted(names.tenants)):
        counts |= await _counts(broker, names.results_of(tenant), f"{names.prefix}.results.>")
    for body in (await entries_of_jobs(broker, "*.*")).values():
        manifest = _without_pieces(body)
        if manifest is None or not 0 < manifest.ended_s < before_s:
            continue
        subject = names.results(manifest.job)
        if counts.get(subject, 0) <= 1:  # its Done
            continue
        pieces = [
            stored async for stored in result_index(broker, [subject]) if stored.headers.get(HEADER_TYPE) not in KEPT
        ]
        for piece in pieces:
            await broker.delete_message(names.results_for(subject), piece.sequence)
        await discard_claims(broker, names.blobs_for(subject), [claim_of(subject, piece.headers) for piece in pieces])
        removed += len(pieces)
    return removed


def _without_pieces(body: bytes) -> Manifest | None:
    """The manifest of a job whose pieces are no longer needed; None for other jobs."""
    with suppress(ValueError):
        manifest = Manifest.model_validate_json(body)
        return manifest if manifest.state in (JobState.DONE, JobState.CANCELLED) else None
    return None


async def _sweep_queues(broker: Broker, before_s: float) -> int:
    """Remove messages of work queues that their consumer counts as acknowledged."""
    names, removed = broker.names, 0
    for pattern in (f"{names.prefix}.work.>", f"{names.prefix}.media.>"):
        streams = (await broker.api("STREAM.NAMES", {"subject": pattern}))["streams"] or []
        for stream in streams:
            consumers = (await broker.api(f"CONSUMER.LIST.{stream}"))["consumers"] or []
            for consumer in consumers:
                floor, subject = int(consumer["ack_floor"]["stream_seq"]), consumer["config"].get("filter_subject", ">")
                while (stored := await broker.first(stream, subject)) is not None:
                    if stored.sequence > floor or not 0 < stored.stored_s < before_s:
                        break
                    await broker.delete_message(stream, stored.sequence)
                    blob = claim_of(stored.subject, stored.headers)
                    await discard_claims(broker, names.blobs_for(stored.subject), [blob])
                    removed += 1
    return removed


async def _sweep_attempts(broker: Broker, before_s: float) -> int:
    """Remove entries of attempts whose messages are all settled."""
    bucket, removed = broker.names.attempts, 0
    stream, prefix = f"KV_{bucket}", f"$KV.{bucket}."
    entries = [stored async for stored in broker.read(stream) if 0 < stored.stored_s < before_s]
    firsts: dict[str, int] = {}  # of each queue, the sequence of the oldest message that is not settled
    for entry in entries:
        places = _places(entry.subject.removeprefix(prefix), entry.body)
        if places is None:
            continue
        for stream_of, _ in places:
            if stream_of not in firsts:
                firsts[stream_of] = await _first(broker, stream_of)
        if all(sequence < firsts[stream_of] for stream_of, sequence in places):
            await broker.purge(stream, entry.subject, entry.sequence)  # a newer entry of this subject stays
            removed += 1
    return removed


async def _first(broker: Broker, stream: str) -> int:
    """Sequence of the oldest message of a queue that may be unsettled, or a larger one where all are settled."""
    info = await broker.api_unless_gone(f"STREAM.INFO.{stream}") if NAME.fullmatch(stream) else None
    if info is None or info["state"]["messages"] == 0:
        return NO_STREAM
    # a queue's first message may be one that was acknowledged, and that a killed broker kept
    consumers = (await broker.api(f"CONSUMER.LIST.{stream}"))["consumers"] or []
    at_work = [each for each in consumers if each["num_pending"] or each["num_ack_pending"]]
    acked = min((int(each["ack_floor"]["stream_seq"]) for each in at_work), default=NO_STREAM)
    return max(int(info["state"]["first_seq"]), acked + 1)


def _places(key: str, body: bytes) -> list[tuple[str, int]] | None:
    """Stream and sequence of each message that an entry of the attempts is about; None when it is no such entry."""
    try:
        kind, *rest = key.split(".")
        if kind == "failed":
            return [(rest[0], int(rest[1]))]
        if kind == "begun":
            return [(str(stream), int(sequence)) for stream, sequence, _ in json.loads(body)]
    except (ValueError, TypeError, IndexError, RecursionError):
        return []  # no reader understands it: it may be removed
    return None


async def _sweep_blobs(broker: Broker, bucket: str, before_s: float) -> int:
    """Remove objects of messages that no message names, and chunks that no object has."""
    removed = 0
    stream = f"OBJ_{bucket}"
    described: set[str] = set()
    by_subject: dict[str, list[BlobInfo]] = {}
    async for stored in broker.read(stream, f"$O.{bucket}.M.>"):
        info, is_old = parse_info(stored.body), 0 < stored.stored_s < before_s
        if info is not None:
            described.add(info.chunks_id)
            if is_old:
                by_subject.setdefault(info.metadata.get(SUBJECT, ""), []).append(info)
        elif is_old:
            await broker.purge(stream, stored.subject, stored.sequence)
            removed += 1
    for subject, infos in by_subject.items():
        named = await _named_blobs(broker, subject)
        for info in infos:
            if named is not None and info.name not in named:
                await delete_blob(broker, bucket, info.name)
                removed += 1
    return removed + await _sweep_chunks(broker, bucket, described, before_s)


async def _sweep_models(broker: Broker, before_s: float) -> int:
    """Remove chunks of models that no object has: those of a publisher that was killed."""
    bucket = broker.names.models
    found = [parse_info(stored.body) async for stored in broker.read(f"OBJ_{bucket}", f"$O.{bucket}.M.>")]
    return await _sweep_chunks(broker, bucket, {info.chunks_id for info in found if info is not None}, before_s)


async def _sweep_chunks(broker: Broker, bucket: str, described: set[str], before_s: float) -> int:
    """Remove old chunks of a bucket whose objects are not among those described."""
    stream, removed = f"OBJ_{bucket}", 0
    for chunks in await _counts(broker, stream, f"$O.{bucket}.C.>"):
        if chunks.rpartition(".")[2] not in described:
            newest = await broker.last(stream, chunks)
            if newest is not None and 0 < newest.stored_s < before_s:
                await broker.purge(stream, chunks)
                removed += 1
    return removed


async def _named_blobs(broker: Broker, subject: str) -> set[str] | None:
    """Objects that the messages on a subject name; None when that is not known without reading their bodies.

    Queues and dead letters are not read: an object is left alone as long as its stream holds anything.
    """
    stream = _stream_of(broker, subject)
    if stream == broker.names.dead_for(subject) and await _counts(broker, broker.names.dead_stream, subject):
        return None  # those of a tenant from before it had a stream of its own
    info = None if not stream else await broker.api_unless_gone(f"STREAM.INFO.{stream}")
    if info is None:
        return set()
    state, limit = info["state"], info["config"]["max_bytes"]
    if state["messages"] == 0:
        return set()
    if stream != broker.names.results_for(subject) or 0 < FULL * limit < state["bytes"]:
        return None
    found = result_index(broker, [subject])
    return {claim async for stored in found if (claim := claim_of(stored.subject, stored.headers))}


def _stream_of(broker: Broker, subject: str) -> str:
    names, tokens = broker.names, subject.split(".")
    if not all(map(NAME.fullmatch, tokens)):  # it becomes part of a request's subject
        return ""
    match tokens[1:]:
        case ["results", tenant, _, _]:
            return names.results_of(tenant)
        case ["dead", *_]:
            return names.dead_for(subject)
        case ["work", pipeline, stage, _] | ["work", pipeline, stage, _, _]:
            return names.work_stream(pipeline, stage)
        case ["media", tenant, pipeline] | ["media", tenant, pipeline, _]:
            return names.media_stream(pipeline, tenant)
    return ""


async def _counts(broker: Broker, stream: str, pattern: str) -> dict[str, int]:
    """Messages of a stream by subject."""
    found: dict[str, int] = {}
    while True:
        arguments = {"subjects_filter": pattern, "offset": len(found)}
        info = await broker.api_unless_gone(f"STREAM.INFO.{stream}", arguments)
        page = {} if info is None else info["state"].get("subjects") or {}
        found |= page
        if info is None or not page or len(found) >= info["total"]:
            return found
