"""How long revisions of pipelines stay: those that no job needs are deleted, and those in use are written again.

A revision is needed while it is the newest of its name, while a job of it may go on or be retried, while a dead letter
is of it, and while an upload is to become a job. Requests that are no jobs, and processes that submit jobs of one
revision for days, write it again before they use it, so that it never grows `AGE_S` old.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

from pipelines.broker import DELETED, Broker
from pipelines.follow import follow
from pipelines.job_records import entries_of_jobs
from pipelines.upload_record import Upload
from pipelines.values import decoded
from schemas.errors import RigflowError
from schemas.jobs import JobState, Manifest
from schemas.pipeline import PipelineSpec
from schemas.results import Failure
from schemas.subjects import HEADER_FAILURE

AGE_S = 86400.0
FRESH_S = AGE_S / 4  # a younger one is not written again
EVERY_S = 900.0
_PREFIX = "revision."


async def is_kept(broker: Broker, revision: str) -> bool:
    """Whether the broker has a revision and keeps it for hours, whatever jobs there are; it is written again if old."""
    bucket = broker.names.pipelines
    entry = await broker.last(f"KV_{bucket}", f"$KV.{bucket}.{_PREFIX}{revision}")
    if entry is None or DELETED in entry.headers:
        return False
    if broker.now_s() - entry.stored_s > FRESH_S:
        await broker.put(bucket, f"{_PREFIX}{revision}", entry.body)
    return True


async def keep(broker: Broker, spec: PipelineSpec) -> None:
    """Have the broker keep a revision that was published before a job of it is begun."""
    if not await is_kept(broker, spec.revision):
        await broker.put(broker.names.pipelines, f"{_PREFIX}{spec.revision}", spec.model_dump_json().encode())


async def needed_revisions(broker: Broker, retried: bool = True) -> set[str]:
    """Revisions of jobs that are not over, of all tenants, and of uploads; `retried`: also of jobs that have failed."""
    over = {JobState.DONE, JobState.CANCELLED} if retried else {state for state in JobState if state.ended}
    found = (await entries_of_jobs(broker, "*.*")).items()
    manifests = (decoded(Manifest, body, f"the manifest of job {key}") for key, body in found)
    needed = {each.job.revision for each in manifests if each is not None and each.state not in over}
    uploads = (await entries_of_jobs(broker, "upload.*.*")).items()
    begun = (decoded(Upload, body, f"the upload {key}") for key, body in uploads)
    return needed | {each.revision for each in begun if each is not None and not each.published}


async def sweep_revisions(broker: Broker, before_s: float) -> int:
    """Delete revisions that were written before a time and that nothing needs; how many. Raises BrokerError.

    The entries are read before the jobs: a job that begins meanwhile has written its revision again.
    """
    bucket = broker.names.pipelines
    old = [entry async for entry in _entries(broker) if 0 < entry[1] < before_s]
    if not old:
        return 0
    named = await broker.items(bucket, "name.*") | await broker.items(bucket, "variant.*")
    needed = {revision.decode(errors="replace") for revision in named.values()} | await needed_revisions(broker)
    needed |= await _of_dead_letters(broker)
    removed = 0
    for key, _, sequence in old:
        if key.removeprefix(_PREFIX) not in needed:
            removed += await broker.delete_key(bucket, key, sequence)
    return removed


async def sweep_regularly(broker: Broker) -> None:
    """Sweep revisions every 15 minutes until cancelled."""
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.0) * EVERY_S)
        with suppress(RigflowError):  # the broker is away, or forbids it: the next sweep tries again
            await sweep_revisions(broker, broker.now_s() - AGE_S)


async def _of_dead_letters(broker: Broker) -> set[str]:
    """Revisions of all dead letters, by their headers: they may be older than what is known of their jobs."""
    found: set[str] = set()
    for stream in map(broker.names.dead_of, ("", *broker.names.tenants)):
        async with aclosing(follow(broker, stream, [f"{broker.names.prefix}.dead.>"], True)) as letters:
            async for stored in letters:
                if stored is None:
                    break
                with suppress(ValueError):  # the letter of another version
                    found.add(Failure.model_validate_json(stored.headers.get(HEADER_FAILURE, "")).key.job.revision)
    return found


async def _entries(broker: Broker) -> AsyncIterator[tuple[str, float, int]]:
    """Key, time and sequence of each revision."""
    bucket = broker.names.pipelines
    prefix = f"$KV.{bucket}."
    async for stored in broker.read(f"KV_{bucket}", f"{prefix}{_PREFIX}*"):
        if DELETED not in stored.headers:
            yield stored.subject.removeprefix(prefix), stored.stored_s, stored.sequence
