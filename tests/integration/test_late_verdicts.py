"""Verdicts on cards that come while a job is collected, at moments that a fleet seldom meets."""

import asyncio
import itertools
from hashlib import sha256
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
from schemas.results import Done, Result
from schemas.settings import Settings
from schemas.subjects import HEADER_PART, HEADER_TYPE
from tests.integration.queues import a_fleet
from tests.integration.test_forged import GOOD, VALUES, a_result
from tests.integration.test_one_done import Moments, heard
from tests.integration.test_one_done import marked as marked  # it has Moments count

WAIT_S = 60.0
LATER_MS = 4_000_000_000_000
AGAIN = bytes(len(VALUES))  # what the part is when another card does it


def digest(values: bytes) -> str:
    return sha256(values).hexdigest()


async def send_marked(
    broker: Broker, job: JobRef, good_ms: int = 2_000, card: str = "c", values: bytes = VALUES
) -> None:
    """The only part of a job, by a card."""
    meta = a_result(job)[1].model_copy(update={"cards": (mark_of(card, good_ms),)})
    headers = {HEADER_TYPE: "part", HEADER_PART: PartHeader.of(meta).header()}
    body = Result(meta=meta, format="npz", arrays=GOOD).encode([values])
    await broker.publish(broker.names.results(job), body, f"{job.id}/{good_ms}", headers)


async def begun(broker: Broker, job: JobRef) -> JobRecord:
    record = await begin(broker, Manifest(job=job, name=job.id))
    await record.change(segments=1, total=1, state=JobState.PUBLISHED)
    return record


@pytest.mark.parametrize("delivers", [False, True])
async def test_a_verdict_at_any_moment_of_the_end_has_parts_done_again_or_is_in_the_done(
    settings: Settings, tmp_path: Path, delivers: bool
) -> None:
    """The verdict comes before each request that the end of a job makes, and the card `d` does the part again then."""
    ends = list[str]()
    async with a_fleet(settings) as (other, publisher):
        while "later" not in ends:
            number = len(ends)
            card, job = f"c{number}", (await begun(other, publisher.ref(f"film-{delivers}-{number}"))).manifest.job
            before = list[Done]()
            async with heard(other, job) as dones, Broker.connected(settings, name="collector") as collecting:

                async def at(job: JobRef = job, dones: list[Done] = dones, before: list[Done] = before) -> None:
                    await other.connection.flush()
                    before += dones
                    await quarantine(other, f"c{len(ends)}", Reason.ORDER, "by an order", 1_000)
                    await send_marked(other, job, 3_000, "d", AGAIN)

                async def deliver(*_: object, collecting: Broker = collecting) -> None:
                    await collecting.read_clock()  # a request, as the files are

                moments = Moments(collecting, number, at)
                collector = Collector(collecting, publisher.spec, deliver=deliver if delivers else None)
                await collector.open({job: tmp_path / job.id / "film"})
                await send_marked(other, job, 2_000, card)
                async with asyncio.timeout(WAIT_S):
                    done = await collector.wait(job.id)
                await collector.close()
            record = await JobRecord.current(other, job)
            assert record is not None
            said = f"card {card} was found to answer wrongly after it computed parts of this job"
            if done.digest == digest(AGAIN):
                ends.append("done again")
                assert (done.notes, record.manifest.doubt, dones) == ((), "", [done]), number
            elif done.notes:
                ends.append("said" if len(dones) == 1 else "said at once")
                assert (done.notes, record.manifest.doubt, dones[-1]) == ((said,), said, done), number
            else:
                ends.append("later")
                assert before or moments.count <= number, "it came after the Done, or not at all"
                assert (done.digest, dones) == (digest(VALUES), [done]), number
            assert record.manifest.state is JobState.DONE
    kinds = [kind for kind, _ in itertools.groupby(ends)]
    assert kinds == ["done again", "said", "said at once", "later"]
    assert ends.count("said at once") == 2, "while the broker stores the Done, and before the look behind it"


async def test_the_done_of_a_collector_that_died_says_a_verdict_that_came_since(
    settings: Settings, tmp_path: Path
) -> None:
    """It had written the end of the job, so no worker does its parts again."""
    async with a_fleet(settings) as (broker, publisher):
        record = await begun(broker, publisher.ref("film"))
        await record.change(state=JobState.DONE)
        await quarantine(broker, "c", Reason.ORDER, "by an order", 1_000)
        job = record.manifest.job
        collector = Collector(broker, publisher.spec)
        await collector.open({job: tmp_path / "film"})
        await send_marked(broker, job)
        async with asyncio.timeout(WAIT_S):
            done = await collector.wait(job.id)
        await collector.close()
    assert done.notes == ("card c was found to answer wrongly after it computed parts of this job",)


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
