"""Verdicts on cards that come while a job is collected, at moments that a fleet seldom meets."""

import asyncio
from pathlib import Path

import pytest

from pipelines.broker import Broker
from pipelines.cards import ask_to_readmit, doubts, quarantine, readmit
from pipelines.collect import Collector
from pipelines.job_records import JobRecord
from pipelines.jobs import ResultsEvicted, begin
from schemas.cards import Doubts, Reason, mark_of
from schemas.jobs import JobRef, JobState, Manifest
from schemas.parts import PartHeader
from schemas.results import Result
from schemas.settings import Settings
from schemas.subjects import HEADER_PART, HEADER_TYPE
from tests.integration.queues import a_fleet
from tests.integration.test_forged import GOOD, VALUES, a_result

WAIT_S = 60.0
LATER_MS = 4_000_000_000_000


async def send_marked(broker: Broker, job: JobRef, good_ms: int = 2_000) -> None:
    """The only part of a job, by the card `c`."""
    meta = a_result(job)[1].model_copy(update={"cards": (mark_of("c", good_ms),)})
    headers = {HEADER_TYPE: "part", HEADER_PART: PartHeader.of(meta).header()}
    body = Result(meta=meta, format="npz", arrays=GOOD).encode([VALUES])
    await broker.publish(broker.names.results(job), body, f"{job.id}/{good_ms}", headers)


async def begun(broker: Broker, job: JobRef) -> JobRecord:
    record = await begin(broker, Manifest(job=job, name=job.id))
    await record.change(segments=1, total=1, state=JobState.PUBLISHED)
    return record


async def test_a_verdict_that_comes_while_files_are_delivered_is_in_the_record(
    settings: Settings, tmp_path: Path
) -> None:
    async with a_fleet(settings) as (broker, publisher):

        async def deliver(*_: object) -> None:
            await quarantine(broker, "c", Reason.ORDER, "by an order", 1_000)

        job = (await begun(broker, publisher.ref("film"))).manifest.job
        collector = Collector(broker, publisher.spec, deliver=deliver)
        await collector.open({job: tmp_path / "film"})
        await send_marked(broker, job)
        async with asyncio.timeout(WAIT_S):
            await collector.wait(job.id)
        await collector.close()
        record = await JobRecord.read(broker, job)
    assert record is not None
    assert record.manifest.state is JobState.DONE
    assert record.manifest.doubt == "card c was found to answer wrongly after it computed parts of this job"


async def test_what_a_card_made_after_it_works_again_is_kept(settings: Settings, tmp_path: Path) -> None:
    """Also by a collector that began while the card was out of work."""
    async with a_fleet(settings) as (broker, publisher):
        await quarantine(broker, "c", Reason.ORDER, "by an order", 1_000)
        job = (await begun(broker, publisher.ref("film"))).manifest.job
        doubted: Doubts = await doubts(broker)
        await ask_to_readmit(broker, "c")
        assert await readmit(broker, "c")
        collector = Collector(broker, publisher.spec, doubted=doubted)
        await collector.open({job: tmp_path / "film"})
        await send_marked(broker, job)  # from before, which is deleted
        await send_marked(broker, job, LATER_MS)
        async with asyncio.timeout(WAIT_S):
            done = await collector.wait(job.id)
        await collector.close()
    assert (done.frames, done.failures) == (1, ())


async def test_a_job_whose_results_were_deleted_meanwhile_is_not_begun_anew(settings: Settings, tmp_path: Path) -> None:
    async with a_fleet(settings) as (broker, publisher):
        await quarantine(broker, "c", Reason.ORDER, "by an order", 1_000)
        record = await begun(broker, publisher.ref("film"))
        await record.change(results_evicted=True)
        job = record.manifest.job
        collector = Collector(broker, publisher.spec)
        await collector.open({job: tmp_path / "film"})
        await send_marked(broker, job)
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(ResultsEvicted, match="others were in doubt because of a card"):
                await collector.wait(job.id)
        await collector.close()
    assert not list(tmp_path.iterdir())
