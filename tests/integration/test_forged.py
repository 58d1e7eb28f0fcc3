"""Results that no worker made: the collector ends such a job in words, and goes on with the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from pipelines.broker import Broker
from pipelines.collect import Collector
from pipelines.inventory import take_inventory
from pipelines.job_records import JobRecord
from pipelines.publish import Publisher
from schemas.arrays import ArraySpec
from schemas.errors import RigflowError
from schemas.jobs import JobRef, Key, Manifest
from schemas.media import Item, MediaInfo
from schemas.parts import PartHeader, PartMeta
from schemas.results import Result
from schemas.settings import Settings
from schemas.subjects import HEADER_BLOB, HEADER_PART, HEADER_TYPE
from schemas.wire import pack
from tests.integration.queues import a_fleet

MEDIA = MediaInfo(kind="video", time_base=(1, 25), last=100, width=64, height=64, frame_rate=(25, 1))
VALUES = np.arange(4, dtype="<f4").tobytes()
GOOD = {"descriptor": ArraySpec(dtype="<f4", shape=(1, 4), buffer=0)}


def a_result(job: JobRef, arrays: dict[str, ArraySpec] = GOOD, pts: Sequence[int] = (0,)) -> tuple[bytes, PartMeta]:
    meta = PartMeta(key=Key(job=job, segment=0, final=True), media=MEDIA, pts=tuple(pts), frames=1)
    return Result(meta=meta, format="npz", arrays=arrays).encode([VALUES, b"abcd"][: len(arrays)]), meta


@asynccontextmanager
async def collecting(broker: Broker, publisher: Publisher, *jobs: JobRef, out: Path) -> AsyncIterator[Collector]:
    """A collector of these jobs; the result of each is called as the job."""
    collector = Collector(broker, publisher.spec)
    await collector.open({job: out / job.id for job in jobs})
    try:
        yield collector
    finally:
        await collector.close()


WRONG: dict[str, dict[str, ArraySpec]] = {
    "more rows than windows": {"descriptor": ArraySpec(dtype="<f4", shape=(4, 1), buffer=0)},
    "no dimension": {
        "descriptor": ArraySpec(dtype="<f4", shape=(1, 4), buffer=0),
        "x": ArraySpec(dtype="<f4", shape=(), buffer=1),
    },
}


@pytest.mark.parametrize("arrays", WRONG.values(), ids=WRONG.keys())
async def test_a_result_with_wrong_content_ends_its_job_in_words(
    settings: Settings, tmp_path: Path, arrays: dict[str, ArraySpec]
) -> None:
    async with a_fleet(settings) as (broker, publisher):
        wrong, good = publisher.ref("wrong"), publisher.ref("good")
        async with collecting(broker, publisher, wrong, good, out=tmp_path) as collector:
            for job, body in ((wrong, a_result(wrong, arrays)[0]), (good, a_result(good)[0])):
                await broker.publish(broker.names.results(job), body, f"{job.id}/result", {HEADER_TYPE: "part"})
            async with asyncio.timeout(30):
                with pytest.raises(RigflowError):
                    await collector.wait("wrong")
                assert (await collector.wait("good")).frames == 1
    assert [path.name for path in tmp_path.iterdir()] == ["good.npz"]


async def test_what_is_no_message_is_skipped_and_reported(settings: Settings, tmp_path: Path) -> None:
    garbage = {
        "part": b"garbage",
        "fragment": pack({"type": "fragment", "version": 1}),
        "failure": pack({"type": "nonsense"}),
        "done": b"\xc1",
    }
    async with a_fleet(settings) as (broker, publisher):
        job = publisher.ref("job")
        subject, (body, meta) = broker.names.results(job), a_result(job)
        for kind, wrong in garbage.items():
            await broker.publish(subject, wrong, f"garbage-{kind}", {HEADER_TYPE: kind, HEADER_PART: "no header"})
        await broker.publish(subject, b"12", "a blob", {HEADER_TYPE: "part", HEADER_BLOB: "of another message"})
        inventory = await take_inventory(broker, Manifest(job=job, name="film"))
        assert (inventory.missing, inventory.complete) == ([], False)
        async with collecting(broker, publisher, job, out=tmp_path) as collector:
            header = PartHeader.of(meta).header()
            await broker.publish(subject, body, "result", {HEADER_TYPE: "part", HEADER_PART: header})
            async with asyncio.timeout(30):
                done = await collector.wait("job")
        assert done.frames == 1
        [note] = done.notes
        assert note.startswith("a message among the results cannot be decoded, and was skipped: ")
        record = await JobRecord.read(broker, job)
        assert record is not None
        assert record.manifest.state == "done"


async def test_the_done_of_a_job_with_very_many_failures_fits_into_a_message(
    settings: Settings, tmp_path: Path
) -> None:
    media, count = MediaInfo(kind="image", timed=False), 20_000
    async with a_fleet(settings) as (broker, publisher):
        job = publisher.ref("album")
        subject = broker.names.results(job)
        async with collecting(broker, publisher, job, out=tmp_path) as collector:
            for segment in range(20):
                items = tuple(Item(name=f"{number}.png", error="no picture " * 40) for number in range(count // 20))
                key = Key(job=job, segment=segment, final=segment == 19)
                meta = PartMeta(key=key, media=media, pts=(0,) * len(items), items=items, frames=len(items))
                rows = ArraySpec(dtype="<f4", shape=(len(items), 4), buffer=0)
                body = Result(meta=meta, format="npz", arrays={"descriptor": rows}).encode([bytes(16 * len(items))])
                headers = {HEADER_TYPE: "part", HEADER_PART: PartHeader.of(meta).header()}
                await broker.publish(subject, body, f"{segment}", headers)
            async with asyncio.timeout(120):
                done = await collector.wait("album")
        stored = await broker.last(broker.names.results_stream, subject)
        record = await JobRecord.read(broker, job)
    assert done.failed == count
    assert stored is not None
    assert HEADER_BLOB not in stored.headers
    assert len(stored.body) < 1 << 16
    assert record is not None
    assert (record.manifest.failures, len(record.manifest.reasons)) == (count, 16)
