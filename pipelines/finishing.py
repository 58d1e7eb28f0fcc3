"""Ends a job whose results are all there: its files, its Done, and what is deleted then.

Before the Done, the fleet's verdicts on cards are looked at: if parts of the job are in doubt, it is collected anew
without them, and those that are done again take their places.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from engines.files import delete_files
from pipelines.broker import Broker
from pipelines.cards import doubt_text, doubts
from pipelines.collecting import CollectedJob, Compare, Deliver
from pipelines.job_end import end, publish_done
from pipelines.job_records import JobCancelled, JobRecord
from pipelines.jobs import ResultsEvicted
from pipelines.retention import Retention
from schemas.cards import Doubts
from schemas.results import Done

Anew = Callable[[CollectedJob, Doubts], Awaitable[Done]]


async def finish(
    broker: Broker, job: CollectedJob, compare: Compare, deliver: Deliver | None, retention: Retention, anew: Anew
) -> None:
    """Finish a job; `anew` collects it once more, without what is in doubt. Raises what ends it."""
    files, equal = await job.closed(compare)
    if job.finished.done():  # cancelled or abandoned meanwhile
        await asyncio.to_thread(delete_files, files, job.target)
        return
    if (doubted := await doubts(broker)).any(job.cards):
        await asyncio.to_thread(delete_files, files, job.target)
        known = await JobRecord.current(broker, job.ref)
        if known is not None and known.manifest.results_evicted:
            raise ResultsEvicted(job.ref, "then others were in doubt because of a card")
        await _wait_for(job, anew(job, doubted))
        return
    done = job.done([*equal] or files)
    try:
        if deliver is not None:
            await deliver(job.ref, files)
        await end(broker, job.record, done, job.complete_s)  # it decides how the job ended
        await _note_doubt(broker, job)
        if not job.is_published(done):
            await publish_done(broker, done, str(job.last_seq))
    except (JobCancelled, asyncio.CancelledError) as error:
        if isinstance(error, JobCancelled) or job.finished.done():  # its cancelled Done came meanwhile
            await asyncio.to_thread(delete_files, files, job.target)
        raise
    if equal:
        await asyncio.to_thread(delete_files, files, job.target)
    if not done.failures:  # what was taken here is of no use any more; its newer Done and files stay
        await job.forget_results(broker)
    if done.failures or deliver is not None:
        await retention.free_space(job.ref.tenant)
    job.finished.set_result(done)


async def _note_doubt(broker: Broker, job: CollectedJob) -> None:
    """Note verdicts that came while files were delivered: a worker finds the job unfinished then, and notes nothing."""
    if cards := (await doubts(broker)).cards(job.cards):
        with suppress(JobCancelled):
            if (record := await JobRecord.current(broker, job.ref)) is not None:
                await record.change(doubt=doubt_text(cards))


async def _wait_for(job: CollectedJob, collecting: Awaitable[Done]) -> None:
    """Take the end of another collector as that of a job, unless the job ends first."""
    task = asyncio.ensure_future(collecting)
    try:
        await asyncio.wait([task, job.finished], return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not job.finished.done():
            job.finished.set_result(task.result())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
