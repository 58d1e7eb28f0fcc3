"""Writes the ends of jobs, and takes them back."""

from pipelines.broker import Broker
from pipelines.inventory import ended
from pipelines.job_records import JobCancelled, JobRecord
from pipelines.result_index import result_index
from pipelines.tracing import trace_job
from pipelines.usage import record_usage
from schemas.jobs import JobRef, JobState, Manifest
from schemas.results import Done
from schemas.subjects import HEADER_TYPE


async def end_with_done(broker: Broker, record: JobRecord | None, done: Done, reason: str) -> None:
    """Write the end of a job into its manifest, then publish its Done: the manifest decides how a job ended, once.

    A process that dies between the two leaves all results in place, so that the next collector of the job publishes the
    Done. Raises JobCancelled, without a Done, when the job was cancelled or started again.
    """
    await end(broker, record, done)
    await publish_done(broker, done, reason)


async def publish_done(broker: Broker, done: Done, reason: str) -> None:
    """Publish that a job is over. It is stored once for each `reason`."""
    await broker.publish(
        broker.names.results(done.job), done.encode(), f"{done.job.identity}/done/{reason}", {HEADER_TYPE: "done"}
    )


async def end(broker: Broker, record: JobRecord | None, done: Done, end_s: float = 0.0) -> None:
    """Write the end of a job into its manifest, and what it used. `end_s`: when it ended, if that was not now.

    Raises JobCancelled when it was cancelled or started again.
    """
    if record is not None:
        await record.refresh()  # its publisher may have written to it since
    record = record or await JobRecord.current(broker, done.job)
    record = record or JobRecord(broker, Manifest(job=done.job, name="", created_s=broker.now_s()))
    end_s = end_s or broker.now_s()
    await record_usage(broker, record.manifest.model_copy(update=ended(done) | {"ended_s": end_s}))
    await record.change(**ended(done), ended_s=end_s)
    trace_job(broker.tracer, record.manifest)


async def reopen(broker: Broker, job: JobRef) -> None:
    """Set a job back to unfinished, and delete its Done: a failed message of it was sent again."""
    stream = broker.names.results_of(job.tenant)
    async for stored in result_index(broker, [broker.names.results(job)]):
        if stored.headers.get(HEADER_TYPE) == "done":
            await broker.delete_message(stream, stored.sequence)
    record = await JobRecord.read(broker, job)
    while record is not None and record.manifest.job == job and record.manifest.state is JobState.FAILED:
        state = JobState.PUBLISHING if record.manifest.total is None else JobState.PUBLISHED
        if await record.write(record.manifest.model_copy(update={"state": state, "ended_s": 0.0})):
            return
        try:
            await record.refresh()
        except JobCancelled:
            return  # the message was raw media, and the worker that took it began the job anew
