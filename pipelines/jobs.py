"""Begins, continues, cancels and deletes jobs."""

import asyncio
import math
from contextlib import suppress

from pipelines.blobs import discard_claims, load
from pipelines.broker import Broker
from pipelines.cancelled import cancelled_key, drop_queued
from pipelines.claims import claim_of
from pipelines.connection import Forbidden
from pipelines.inventory import take_inventory
from pipelines.job_end import publish_done
from pipelines.job_records import JobCancelled, JobRecord, OtherInput, check_same, was_deleted
from pipelines.lost_jobs import why_lost
from pipelines.queued import delete_queued
from pipelines.result_index import result_index
from pipelines.tracing import trace_job
from pipelines.usage import record_usage
from pipelines.values import decoded
from schemas.errors import NotFound, RigflowError
from schemas.jobs import JobRef, JobState, Manifest
from schemas.messages import decode
from schemas.results import Done
from schemas.subjects import HEADER_TYPE
from schemas.text import size


class ResultsEvicted(RigflowError):
    """A collector deleted results of a job from a full stream, and ended before it had written them.

    No other collector can complete the job.
    """

    def __init__(self, job: JobRef, then: str = "ended before it had written them") -> None:
        gone = f"a collector deleted some of its results from a full stream and {then}"
        super().__init__(f"job {job.id} cannot be completed: {gone}", "publish it again; it is started again then")


async def begin(broker: Broker, wanted: Manifest, again: bool = False) -> JobRecord:
    """The job to publish and collect under the id of `wanted`: a new one, or a known one that continues.

    A job that is not over continues, unless its messages were lost with a queue. A job that is over is returned as it
    is while its results are at the broker. It is started again, as its next generation, when its results are gone, when
    it was cancelled or could not be published, and when raw media (`hosted`) under its id is other media or is for
    another revision of the pipeline. With `again` it is also started again when it has failures, and when a worker
    collects it, but not for the caller. Raises OtherInput when the id belongs to a job with another input or another
    pipeline.
    """
    wanted = wanted.model_copy(update={"created_s": broker.now_s()})
    while True:
        found = await JobRecord.read(broker, wanted.job)
        if found is None:
            return JobRecord(broker, await _after_its_end(broker, wanted))  # the first change writes it
        if found.manifest.state is JobState.CANCELLED and wanted.hosted:
            raise JobCancelled(found.manifest.job)  # its media was queued when it was cancelled
        if await _goes_on(broker, found.manifest, wanted, again):
            return found
        before = found.manifest
        next_generation = wanted.job.model_copy(update={"generation": before.job.generation + 1})
        if await found.write(wanted.model_copy(update={"job": next_generation})):
            found.before = before
            if before.state is not JobState.DONE:
                await drop_queued(broker, before.job)
                found.note = _why_anew(broker, before)
            await _forget_results(broker, before.job)
            return found


async def _after_its_end(broker: Broker, wanted: Manifest) -> Manifest:
    """`wanted`; its next generation if the job has a Done in the results but no manifest, or was deleted."""
    results = broker.names.results(wanted.job)
    last = broker.last(broker.names.results_for(results), results)
    mark = broker.get(broker.names.jobs_of(wanted.job.tenant), cancelled_key(wanted.job))
    cancelled, stored = await asyncio.gather(mark, last)
    before = None if cancelled is None else decoded(JobRef, cancelled, f"the cancelled job {wanted.job.id}")
    if before is not None:  # it was deleted: workers drop messages of that generation
        wanted = wanted.model_copy(update={"job": wanted.job.model_copy(update={"generation": before.generation + 1})})
    if stored is None or stored.headers.get(HEADER_TYPE) != "done":
        return wanted
    done = None
    with suppress(ValueError):  # no message of rigflow
        done, _ = decode(await load(broker, stored))
    if not isinstance(done, Done):
        return wanted
    await _forget_results(broker, wanted.job)
    generation = max(wanted.job.generation, done.job.generation + 1)
    return wanted.model_copy(update={"job": wanted.job.model_copy(update={"generation": generation})})


async def _goes_on(broker: Broker, known: Manifest, wanted: Manifest, again: bool) -> bool:
    """Whether a known job continues or still has its results; False: it has to be started again."""
    if known.state is JobState.CANCELLED:
        return False
    if again and known.hosted and not wanted.hosted:  # a worker collects it, and this process needs its results itself
        check_same(known, wanted)
        return False
    stale = known.results_evicted or _is_too_old(broker, known)
    is_other_media = wanted.hosted and known.job.pipeline == wanted.job.pipeline and not _is_same(known, wanted)
    if not known.state.ended:
        if is_other_media and (await take_inventory(broker, known)).done is not None:
            return False  # its Done is published, and its manifest is about to be written
        if stale:
            return False
        check_same(known, wanted)
        return await why_lost(broker, known) is None
    if known.state is JobState.FAILED and (again or known.total is None):
        return False
    inventory = await take_inventory(broker, known)
    # without a Done its collector died before it published one; parts beside the Done of a job without failures are
    # repeats that came after its end
    uncollected = inventory.complete and (known.state is JobState.FAILED or inventory.done is None)
    if not (inventory.files or uncollected):
        return False
    if is_other_media:
        return False
    check_same(known, wanted)
    return True


def _is_too_old(broker: Broker, known: Manifest) -> bool:
    """Whether its first results may be deleted already."""
    return broker.now_s() - known.created_s > broker.settings.results_age_s


def _why_anew(broker: Broker, known: Manifest) -> str:
    """Why a job that was not over is begun anew, if a setting is the cause."""
    settings = broker.settings
    if known.results_evicted:
        kept = f"results_bytes = {size(settings.results_bytes)}"
        return f"its results were more than half of what is kept, {kept}: more of them lets such a job go on"
    if _is_too_old(broker, known):
        return f"it is older than results are kept, results_age_s = {settings.results_age_s:.0f}"
    return ""


def _is_same(known: Manifest, wanted: Manifest) -> bool:
    """Whether two manifests have the same input, pipeline and revision."""
    try:
        check_same(known, wanted)
    except OtherInput:
        return False
    return True


async def cancel(broker: Broker, manifest: Manifest, queued: bool = True) -> Manifest:
    """Cancel a job: publish its Done, have workers drop its messages, and delete its queued messages and its results.

    Without `queued`, messages stay in the queues until workers drop them: a worker may not read queues.

    Returns the job's manifest afterwards; a job that was over is not changed. If this is interrupted, call it again; if
    that was before the Done, the job's collector does so too. Raises NotFound when the job was deleted meanwhile.
    """
    record = await JobRecord.read(broker, manifest.job)
    if record is None and manifest.updated_s:
        raise was_deleted(manifest.job)
    record = record or JobRecord(broker, manifest)
    if not record.manifest.state.ended:
        inventory = await take_inventory(broker, record.manifest)
        if inventory.over:  # nothing is left to do but to collect it
            return inventory.progress
        await record.settle_as_cancelled()
        if record.manifest.state is JobState.CANCELLED:
            trace_job(broker.tracer, record.manifest)
    if record.manifest.state is not JobState.CANCELLED:
        return record.manifest
    await _carry_out_cancel(broker, record.manifest, queued)
    return record.manifest


async def finish_cancel(broker: Broker, job: JobRef, again: bool = False) -> None:
    """Publish the Done of a job that is cancelled and has none, because the process that cancelled it died.

    `again`: also where there is one: this process may have published results since.
    """
    record = await JobRecord.read(broker, job)
    if record is None or record.manifest.state is not JobState.CANCELLED:
        return
    if again or (await take_inventory(broker, record.manifest)).done is None:
        await _carry_out_cancel(broker, record.manifest, queued=False)


async def _carry_out_cancel(broker: Broker, cancelled: Manifest, queued: bool) -> None:
    """What follows the manifest. The Done is before the queues: a worker that has a request to collect the job does
    this again, and one whose request is deleted cannot. Messages that stay in queues, because this process may not
    read them, are dropped by workers.
    """
    job, stream = cancelled.job, broker.names.results_of(cancelled.job.tenant)
    last_seq = (await broker.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"]
    inventory = await take_inventory(broker, cancelled)
    if inventory.done is None and inventory.computed_s:  # its limit of seconds a day counts what was computed for it
        used = {"frames": inventory.frames, "lost": inventory.lost, "computed_s": inventory.computed_s}
        await record_usage(broker, cancelled.model_copy(update=used))
    # not what came later: another process may cancel the job, too, and its Done is not published again by its id
    await _forget_results(broker, job, inventory.done_seq, last_seq)
    if inventory.done is None:
        done = Done(job=job, segments=0, frames=0, lost=0, failures=("cancelled",), cancelled=True)
        await publish_done(broker, done, "cancelled")
    await drop_queued(broker, job)
    if queued:
        with suppress(Forbidden):  # of a role that may not
            await delete_queued(broker, job)
    await _forget_results(broker, job, (await take_inventory(broker, cancelled)).done_seq)


async def delete(broker: Broker, manifest: Manifest) -> None:
    """Cancel a job if it is not over, and delete its results, its files and its manifest; its dead letters stay.

    If this is interrupted, call it again.
    """
    with suppress(NotFound):  # another process deletes it at the same time
        await cancel(broker, manifest)
    await drop_queued(broker, manifest.job)  # also where all results were there and a collector was at work
    await _forget_results(broker, manifest.job)
    while (record := await JobRecord.read(broker, manifest.job)) is not None:
        if record.manifest.job.generation > manifest.job.generation:  # begun anew meanwhile: that is not deleted
            return
        if await record.forget():
            return


async def _forget_results(broker: Broker, job: JobRef, kept: int = 0, last_seq: float = math.inf) -> None:
    """Delete the results of a job up to `last_seq`, with their claim checks; that at the sequence `kept` stays."""
    stream, subject = broker.names.results_of(job.tenant), broker.names.results(job)
    found = [
        stored
        async for stored in result_index(broker, [subject])
        if stored.sequence != kept and stored.sequence <= last_seq
    ]
    before = [stored.sequence for stored in found if stored.sequence < kept or not kept]
    if before:
        await broker.purge(stream, subject, before[-1])
    for stored in found[len(before) :]:
        await broker.delete_message(stream, stored.sequence)
    claims = [claim_of(stored.subject, stored.headers) for stored in found]
    await discard_claims(broker, broker.names.blobs_of(job.tenant), claims)
