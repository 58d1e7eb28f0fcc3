"""What late repeats and killed processes leave behind: it wedges nothing, and it is swept."""

import json
from pathlib import Path

from pipelines.blob_upload import put_blob
from pipelines.blobs import get_blob
from pipelines.broker import Broker
from pipelines.claims import claim_name
from pipelines.job_records import JobRecord
from pipelines.jobs import begin, cancel
from pipelines.publish import Publisher
from pipelines.sweep import sweep
from schemas.jobs import JobRef, JobState, Manifest, Priority
from schemas.parts import PartHeader
from schemas.results import Done
from schemas.settings import MIB, Settings
from schemas.subjects import HEADER_BLOB, HEADER_ID, HEADER_PART, HEADER_TYPE
from tests.integration.queues import a_fleet
from tests.integration.test_forged import a_result, collecting


async def send_result(broker: Broker, job: JobRef, message_id: str) -> None:
    body, meta = a_result(job)
    headers = {HEADER_TYPE: "part", HEADER_PART: PartHeader.of(meta).header()}
    assert await broker.publish(broker.names.results(job), body, message_id, headers)


async def collected(broker: Broker, publisher: Publisher, job: JobRef, folder: Path) -> Done:
    async with collecting(broker, publisher, job, out=folder) as collector:
        return await collector.wait(job.id)


def wanted(publisher: Publisher) -> Manifest:
    return Manifest(job=publisher.ref("film"), name="film.mp4")


async def left(broker: Broker) -> list[str]:
    return [stored.headers[HEADER_TYPE] async for stored in broker.read(broker.names.results_stream)]


async def test_a_repeat_that_comes_after_the_end_wedges_nothing(settings: Settings, tmp_path: Path) -> None:
    async with a_fleet(settings) as (broker, publisher):
        record = await begin(broker, wanted(publisher))
        await record.change(segments=1, total=1)
        first = record.manifest.job
        await send_result(broker, first, "result")
        await collected(broker, publisher, first, tmp_path)
        assert await left(broker) == ["done"]
        await send_result(broker, first, "a repeat after the duplicate window")
        for generation in (1, 2):
            again = (await begin(broker, wanted(publisher))).manifest.job
            assert again.generation == generation, "its results were collected, so it is started again"
            await send_result(broker, first, f"another repeat {generation}")
            await send_result(broker, again, f"result {generation}")
            assert (await collected(broker, publisher, again, tmp_path)).frames == 1
            assert await left(broker) == ["done"], "what is left of an earlier generation goes when it is met"


async def test_the_sweep_removes_leftovers_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    async with a_fleet(settings) as (broker, publisher):
        names = broker.names
        record = await begin(broker, wanted(publisher))
        job = record.manifest.job
        await send_result(broker, job, "result")
        await collected(broker, publisher, job, tmp_path)
        await send_result(broker, job, "a late repeat")
        going_on = publisher.ref("going-on")
        await JobRecord(broker, Manifest(job=going_on, name="other")).change(segments=1)
        await send_result(broker, going_on, "of a job that goes on")
        # attempts at a message that is gone, and at one that is there
        subject = names.work("p", "decode", Priority.BULK)
        await broker.publish(subject, b"settled", "settled")
        await broker.publish(subject, b"waits", "waits")
        await broker.delete_message(names.work_stream("p", "decode"), 1)
        await broker.put(names.attempts, "begun.dead", json.dumps([[names.work_stream("p", "decode"), 1, {}]]).encode())
        await broker.put(names.attempts, "begun.closed", b"[]")
        await broker.put(
            names.attempts, "begun.at-it", json.dumps([[names.work_stream("p", "decode"), 2, {}]]).encode()
        )
        await broker.put(names.attempts, f"failed.{names.work_stream('p', 'decode')}.1.3", b"{}")
        await broker.put(names.attempts, f"failed.{names.work_stream('p', 'decode')}.2.1", b"{}")
        await broker.put(names.attempts, "begun.odd", json.dumps([["no stream\r\n", 1, {}]]).encode())
        await broker.put(names.attempts, "begun.deep", b"[" * 100_000)
        # objects that a message names, and that none does: never named, and half uploaded
        result = names.results(going_on)
        await broker.publish(result, bytes(9 * MIB), "a large result", {HEADER_TYPE: "file"})
        await put_blob(broker, names.blobs, bytes(MIB), claim_name(result, "no such message", "1"), {"subject": result})
        await put_blob(broker, names.blobs, b"", "odd", {"subject": "rigflow.work.p x\r\n.decode.bulk"})
        await broker.store(f"$O.{names.blobs}.M.odd", b"[" * 100_000, {HEADER_ID: "no description"})
        await broker.store(f"$O.{names.blobs}.C.half", bytes(MIB), {HEADER_ID: "half/0"})
        # models that are published, and that are half published
        await put_blob(broker, names.models, bytes(MIB), "whole")
        await broker.store(f"$O.{names.models}.C.killed", bytes(MIB), {HEADER_ID: "killed/0"})
        assert (await sweep(broker, entire=True)).removed == 0, "all of it is young"
        swept = await sweep(broker, age_s=0.0)
        assert (swept.results, swept.attempts, swept.blobs) == (1, 5, 4)
        assert await left(broker) == ["done", "part", "file"]
        assert set(await broker.items(names.attempts)) == {
            "begun.at-it",
            f"failed.{names.work_stream('p', 'decode')}.2.1",
        }
        large = await broker.last(names.results_stream, result)
        assert large is not None
        assert [name for name in [large.headers[HEADER_BLOB]] if name in await _blobs(broker)]
        assert len(await _blobs(broker)) == 1
        assert (await sweep(broker, age_s=0.0)).removed == 0, "a worker's sweep leaves models alone"
        assert (await sweep(broker, age_s=0.0, entire=True)).blobs == 1
        assert bytes(await get_blob(broker, names.models, "whole")) == bytes(MIB)
        assert (await sweep(broker, age_s=0.0, entire=True)).removed == 0


async def _blobs(broker: Broker) -> list[str]:
    stream = f"OBJ_{broker.names.blobs}"
    found = broker.read(stream, f"$O.{broker.names.blobs}.M.>")
    return [json.loads(stored.body)["name"] async for stored in found]


async def test_cancelling_a_job_that_only_waits_to_be_collected_leaves_it_as_it_is(settings: Settings) -> None:
    async with a_fleet(settings) as (broker, publisher):
        job = publisher.ref("film")
        record = await begin(broker, Manifest(job=job, name="film.mp4"))
        await record.change(segments=1, total=1, state=JobState.PUBLISHED)
        await send_result(broker, job, "result")
        assert (await cancel(broker, record.manifest)).state is JobState.DONE
        assert await left(broker) == ["part"]
