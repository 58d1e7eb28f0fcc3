"""Ends a job whose results are all there: its files, its Done, and what is deleted then.

The fleet's verdicts on cards are looked at before the end is written into the job's record: if parts are in doubt, it
is collected anew without them, and those that are done again take their places. After that no worker does its parts
again: a verdict that comes before the Done is said in the Done.
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
from pipelines.reasons import shortened
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
    done = job.done([*equal] or files)
    try:
        doubted = await _to_do_again(broker, job)
        if deliver is not None and not doubted.any(job.cards):
            await deliver(job.ref, files)
            doubted = await _to_do_again(broker, job)  # it takes minutes where files are large
        if not doubted.any(job.cards):
            await end(broker, job.record, done, job.complete_s)  # it decides how the job ended
            done = await _publish(broker, job, done)
    except (JobCancelled, asyncio.CancelledError) as error:
        if isinstance(error, JobCancelled) or job.finished.done():  # its cancelled Done came meanwhile
            await asyncio.to_thread(delete_files, files, job.target)
        raise
    if doubted.any(job.cards):
        await asyncio.to_thread(delete_files, files, job.target)
        await _collect_anew(broker, job, anew, doubted)
        return
    if equal:
        await asyncio.to_thread(delete_files, files, job.target)
    if not done.failures:  # what was taken here is of no use any more; its newer Done and files stay
        await job.forget_results(broker)
    if done.failures or deliver is not None:
        await retention.free_space(job.ref.tenant)
    job.finished.set_result(done)


async def _to_do_again(broker: Broker, job: CollectedJob) -> Doubts:
    """What is in doubt; nothing where a collector that died has written the end of the job: none is done again then."""
    found = await doubts(broker)
    known = await JobRecord.current(broker, job.ref) if found.any(job.cards) else None
    return Doubts() if known is not None and known.manifest.state.ended else found


async def _publish(broker: Broker, job: CollectedJob, done: Done) -> Done:
    """Publish the Done, with what is in doubt by now; returns it.

    A verdict that comes while the broker stores the Done is not in it: another one follows at once, which has it.
    """
    said: Done | None = None
    while True:
        cards = (await doubts(broker)).cards(job.cards)
        notes = (*done.notes, shortened(doubt_text(cards))) if cards else done.notes
        noted = done.model_copy(update={"notes": notes})
        if noted == said:
            return noted
        if cards:
            await _note_doubt(broker, job, cards)
        if not job.is_published(noted):
            await publish_done(broker, noted, f"{job.last_seq}/{len(cards)}" if cards else str(job.last_seq))
        said = noted


async def _note_doubt(broker: Broker, job: CollectedJob, cards: list[str]) -> None:
    with suppress(JobCancelled):
        if (record := await JobRecord.current(broker, job.ref)) is not None:
            await record.change(doubt=doubt_text(cards))


async def _collect_anew(broker: Broker, job: CollectedJob, anew: Anew, doubted: Doubts) -> None:
    known = await JobRecord.current(broker, job.ref)
    if known is not None and known.manifest.results_evicted:
        raise ResultsEvicted(job.ref, "then others were in doubt because of a card")
    await _wait_for(job, anew(job, doubted))


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
