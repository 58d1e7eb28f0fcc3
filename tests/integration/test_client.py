"""The client: jobs from files, bytes and streams; any process follows them; what ends early leaves nothing."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from benchmarks.fleet import simulated
from pipelines.blob_upload import put_blob
from pipelines.blobs import read_blob_range
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.job import Job
from pipelines.job_events import Ended, FileMade, PartMade, Progress
from pipelines.job_records import JobRecord, OtherInput, all_manifests
from pipelines.message_store import FleetFull, NeverFits
from schemas.errors import MediaError, UsageError
from schemas.jobs import JobState
from schemas.pipeline import PipelineSpec
from schemas.results import Done
from schemas.settings import MIB, Settings
from schemas.subjects import HEADER_TYPE
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.simulated import models_of
from workers.definitions import register


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache"), pace_ms=0.0) as fleet:
        asyncio.run(_registered(fleet.settings))
        yield fleet


async def _registered(settings: Settings) -> PipelineSpec:
    async with Broker.connected(settings, "test") as broker:
        return await register(broker, settings, simulated(), models_of(simulated()))


async def pieces(body: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]
        await asyncio.sleep(0)


async def stored(broker: Broker) -> tuple[int, int]:
    """Messages in the store of media, and jobs that the broker knows."""
    info = await broker.api(f"STREAM.INFO.OBJ_{broker.names.blobs}")
    return info["state"]["messages"], len(await all_manifests(broker))


async def content(job: Job) -> dict[str, bytes]:
    return {file.name: b"".join([chunk async for chunk in file.chunks()]) async for file in job.files()}


async def test_files_bytes_and_streams_give_the_same_answer(fleet: Fleet, tmp_path: Path) -> None:
    clip = real_clip("bikes")
    body = clip.read_bytes()
    async with Client.connected(fleet.settings) as client:
        of_files = await client.submit(await _registered(fleet.settings), [clip])
        collected = await of_files.collect(tmp_path / "bikes")
        of_bytes = await client.submit("simulated", body, job="bytes", name="bikes ü.mp4")
        of_stream = await client.submit("simulated", pieces(body), job="stream", name="bikes ü.mp4", size=len(body))
        digests = {(await job.done()).digest for job in (of_bytes, of_stream)}
        assert digests == {collected.digest}
        async with Client.connected(fleet.settings) as other:  # another process
            found = await other.find("stream")
            events = [event async for event in found.events()]
            assert isinstance(events[0], Progress)
            assert isinstance(events[-1], Ended)
            [file] = [event.file for event in events if isinstance(event, FileMade)]
            later = [event async for event in found.events(after=file.sequence)]
            assert not [each for each in later if isinstance(each, PartMade | FileMade)]
            assert isinstance(later[-1], Ended)
            assert await content(found) == await content(of_bytes) != {}
            whole = (await content(found))[file.name]
            for start, end in ((0, 1), (5, 17), (file.size - 1, file.size)):
                assert b"".join([each async for each in file.chunks(start, end)]) == whole[start:end]
            await found.delete()
            with pytest.raises(UsageError, match="knows no job"):
                await other.find("stream")
        again = await client.submit("simulated", body, job="stream")
        assert again.ref.generation == 1
        done = await again.done()
        assert done.digest == collected.digest, done


async def test_the_same_id_is_the_same_job_and_no_other_input(fleet: Fleet) -> None:
    body = real_clip("bikes").read_bytes()
    async with Client.connected(fleet.settings) as client:
        first = await client.submit("simulated", body, job="mine")
        done = await first.done()
        before = await stored(client.broker)
        again = await client.submit("simulated", pieces(body), job="mine")
        assert again.ref == first.ref
        assert await again.done() == done
        with pytest.raises(OtherInput, match="another input"):
            await client.submit("simulated", pieces(body + bytes(2 * MIB)), job="mine")
        assert await stored(client.broker) == before
        with pytest.raises(UsageError, match="letters, digits"):
            await client.submit("simulated", body, job="a.b")


async def test_a_job_can_be_cancelled_and_submitted_again(settings: Settings) -> None:
    body = real_clip("bikes").read_bytes()
    await _registered(settings)
    async with Client.connected(settings) as client:
        job = await client.submit("simulated", body, job="mine")
        assert (await job.progress()).state is JobState.PUBLISHING
        assert (await job.cancel()).state is JobState.CANCELLED
        assert (await job.done()).cancelled
        again = await client.submit("simulated", body, job="mine")
        assert again.ref.generation == 1
        queue = await client.broker.api(f"STREAM.INFO.{client.broker.names.media_stream('simulated')}")
        assert queue["state"]["messages"] == 1


async def test_an_upload_that_ends_early_leaves_nothing(settings: Settings) -> None:
    await _registered(settings)

    async def broken() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(MIB)
        raise ConnectionError("the client is gone")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MIB)
            await asyncio.sleep(0)

    async with Client.connected(settings) as client:
        with pytest.raises(ConnectionError):
            await client.submit("simulated", broken())
        with pytest.raises(MediaError, match="0 bytes came of 5"):
            await client.submit("simulated", pieces(b""), size=5)
        with pytest.raises(MediaError, match=r"bytes came of 20,971,520"):
            await client.submit("simulated", pieces(bytes(MIB)), size=20 * MIB)
        with pytest.raises(NeverFits):  # 64 MiB of media are kept here
            await client.submit("simulated", endless(), patience_s=0.2)
        uploading = asyncio.create_task(client.submit("simulated", endless()))
        while (await stored(client.broker))[0] < 5:
            await asyncio.sleep(0.01)
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
        assert await stored(client.broker) == (0, 0)


async def test_a_full_queue_of_media_refuses_and_leaves_nothing(settings: Settings) -> None:
    await _registered(settings)
    async with Client.connected(settings) as client:  # its queue takes 4 MiB
        for number in itertools.count():
            try:
                await client.submit("simulated", bytes([number]) * MIB, patience_s=0.1)
            except FleetFull as error:
                jobs, reason = number, str(error)
                break
        assert "queue of media" in reason
        assert 0 < jobs < 5
        assert await stored(client.broker) == (0, jobs)


async def test_any_range_of_an_object_is_read_whatever_lies_between_its_chunks(settings: Settings) -> None:
    await _registered(settings)
    async with Broker.connected(settings, "test") as broker:
        bucket = broker.names.blobs
        body = bytes(number % 251 for number in range(9 * MIB // 2))
        names = await asyncio.gather(*(put_blob(broker, bucket, body, f"object-{number}") for number in range(6)))
        for start in (0, 1, MIB - 1, MIB, 3 * MIB + 7, 4 * MIB, len(body) - 1):
            for length in (1, 2 * MIB):
                end = min(start + length, len(body))
                read = [each async for each in read_blob_range(broker, bucket, names[3], start, end)]
                assert b"".join(read) == body[start:end]


@pytest.mark.parametrize("wrong_s", [0.0, 3600.0, -3600.0], ids=["right", "ahead", "behind"])
async def test_events_end_with_the_done_that_comes_later_than_the_state(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, wrong_s: float
) -> None:
    """By a clock of any rig: what is made of a manifest has no digest."""
    monkeypatch.setattr("pipelines.job_events.LAST_S", 0.2)
    await _registered(settings)
    async with Client.connected(settings) as client:
        broker, job = client.broker, await client.submit("simulated", b"x", job="slow")
        results, ref = broker.names.results(job.ref), job.ref
        part = Done(job=ref, segments=1, frames=1, lost=0)
        await broker.publish(results, part.encode(), "a part", {HEADER_TYPE: "file"})  # what is kept before the Done

        def follow(found_now: bool = False) -> asyncio.Task[Ended]:
            async def last() -> Ended:
                return [each async for each in job.events(found_now=found_now)][-1]  # type: ignore[return-value]

            return asyncio.create_task(last())

        following = [follow()]
        record = await JobRecord.read(broker, ref)
        assert record is not None
        await asyncio.sleep(0.2)
        ended_s = time.time() + wrong_s
        await record.write(record.manifest.model_copy(update={"state": JobState.DONE, "ended_s": ended_s}))
        following += [follow(), follow(found_now=True)]  # the second knows the state before its end
        await asyncio.sleep(0.8)
        assert not any(each.done() for each in following), "its Done is on its way"
        await broker.publish(results, part.model_copy(update={"digest": "d"}).encode(), "done", {HEADER_TYPE: "done"})
        for each in following:
            assert (await asyncio.wait_for(each, 10)).done.digest == "d"
