"""Jobs: their progress outlives everything, they are done once, and cancelling reaches what is queued."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import numpy as np
import pytest

from benchmarks.fleet import simulated
from benchmarks.workloads import looped
from cli.app import answer
from engines.media.medium import Input
from pipelines.broker import Broker
from pipelines.collect import Collector
from pipelines.inventory import take_inventory
from pipelines.job_end import end
from pipelines.job_records import JobCancelled, JobRecord, all_manifests, find_manifest
from pipelines.jobs import begin, cancel
from pipelines.publish import Publisher
from pipelines.registry import builtin_pipeline
from pipelines.result_index import result_index
from pipelines.status import fleet_status
from schemas.errors import UsageError
from schemas.jobs import JobState, Manifest, Priority
from schemas.messages import decode
from schemas.results import Done
from schemas.segments import Segment
from schemas.settings import MIB, Settings
from tests.clips import real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.poison import poisoned_clip
from tests.simulated import models_of
from workers.definitions import find_models, register

CLIP_S = 30


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute in 8 segments."""
    return looped(tmp_path_factory.mktemp("clip") / "clip.mp4", CLIP_S, "carphone_pristine")


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[tuple[Broker, Publisher]]:
    """A broker that knows `fingerprint`, and a publisher of it."""
    broker = await Broker.connect(settings)
    try:
        spec = builtin_pipeline("fingerprint")
        spec = await register(broker, settings, spec, find_models(spec, None))
        yield broker, Publisher(broker, spec, "main", Priority.BULK)
    finally:
        await broker.close()


async def queued(broker: Broker) -> int:
    """Messages in front of decode."""
    info = await broker.api(f"STREAM.INFO.{broker.names.work_stream('fingerprint', 'decode')}")
    return int(info["state"]["messages"])


def rigflow(*arguments: str | Path) -> int:
    """Run a command of the command line in this process; its exit code."""
    return answer([str(argument) for argument in arguments])


@pytest.mark.parametrize("action", ["PURGE", "DELETE"])
def test_a_job_whose_work_was_lost_with_a_queue_is_begun_anew(clip: Path, tmp_path: Path, action: str) -> None:
    """Nothing would ever bring its results: it would wait for ever, however often it is published again."""

    async def lose(settings: Settings) -> None:
        async with publishing(settings) as (broker, publisher):
            await publisher.publish(publisher.ref("mine"), "video", [Input(clip, "clip.mp4")], await begun(publisher))
            assert (await begun(publisher)).manifest.job.generation == 0, "queued: it goes on"
            await broker.api(f"STREAM.{action}.{broker.names.work_stream('fingerprint', 'decode')}")
            assert (await begun(publisher)).manifest.job.generation == 1

    async def begun(publisher: Publisher) -> JobRecord:
        return await publisher.begin(publisher.ref("mine"), "clip.mp4", "source")

    with Fleet((), tmp_path / "cache") as fleet:
        asyncio.run(lose(fleet.settings))


def test_progress_outlives_the_broker_and_is_counted_without_a_collector(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fleet((), tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        assert rigflow("jobs", "list", *where) == 0
        assert capsys.readouterr().out == "no jobs\n"
        assert rigflow("publish", "fingerprint", clip, "--job", "mine", *where) == 0
        capsys.readouterr()
        assert rigflow("jobs", "wait", "mine", "--timeout", "0.2", *where) == 1
        assert capsys.readouterr().out == "mine: not over within 0.2 s\n"
        assert rigflow("publish", "fingerprint", real_clip("bikes"), "--job", "unwanted", *where) == 0
        fleet.server.kill()
        fleet.server.restart()
        assert rigflow("jobs", "cancel", "unwanted", *where) == 0
        fleet.server.kill()
        fleet.server.restart()
        reported, other = listed(where, capsys)
        assert (other["name"], other["state"]) == (real_clip("bikes").name, "cancelled")
        assert (reported["state"], reported["segments_done"], reported["name"]) == ("published", 0, "clip.mp4")
        assert reported["segments"] == reported["total"] > 5
        assert reported["sent_s"] == pytest.approx(CLIP_S, abs=6)
        fleet.add()
        assert rigflow("jobs", "wait", "mine", *where) == 0
        assert capsys.readouterr().out.startswith("mine: done, ")
        over_s = time.time()
        reported, _ = listed(where, capsys)
        assert (reported["state"], reported["segments_done"]) == ("done", reported["total"])
        assert rigflow("jobs", "show", "mine", *where) == 0
        shown = capsys.readouterr().out
        assert "ended     its results are complete and not collected" in shown
        assert "files     `rigflow results mine` writes them" in shown
        time.sleep(max(0.0, over_s + 1.0 - time.time()))
        assert rigflow("results", "mine", "--out", tmp_path, *where) == 0
        assert listed(where, capsys)[0]["ended_s"] < over_s, "when the last result was there, not when it was collected"
        assert rigflow("jobs", "show", "mine", *where) == 0
        shown = capsys.readouterr().out
        assert "state     done" in shown
        assert f"frames    {reported['frames']:,}" in shown
        assert "files     clip.fingerprint.npz" in shown
        assert rigflow("jobs", "wait", "mine", *where) == 0
        assert rigflow("jobs", "show", "other", *where) == 2
        assert rigflow("jobs", "wait", "unwanted", *where) == 1
        assert "unwanted: cancelled" in capsys.readouterr().out


def listed(where: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert rigflow("jobs", "list", "--json", *where) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_cancelling_drops_what_is_queued_and_the_job_can_be_begun_anew(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fleet((), tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        assert rigflow("publish", "fingerprint", clip, "--job", "mine", *where) == 0
        assert rigflow("publish", "fingerprint", real_clip("bikes"), "--job", "other", *where) == 0
        capsys.readouterr()
        assert rigflow("jobs", "cancel", "mine", *where) == 0
        assert capsys.readouterr().out == "mine: cancelled\n"
        assert rigflow("results", "mine", "--follow", *where) == 1
        assert "job mine was cancelled" in capsys.readouterr().err
        fleet.add()
        assert rigflow("jobs", "wait", "mine", "other", *where) == 1
        assert rigflow("jobs", "wait", "other", *where) == 0
        assert asyncio.run(_is_dropped(fleet.settings))
        assert rigflow("publish", "fingerprint", clip, "--job", "mine", *where) == 0
        assert rigflow("results", "mine", "--follow", "--out", tmp_path / "again", *where) == 0
        fleet.run(builtin_pipeline("fingerprint"), [clip], tmp_path / "plain")
        assert rigflow("jobs", "cancel", "mine", *where) == 1
    name = "clip.fingerprint.npz"
    with np.load(tmp_path / "again" / name) as ours, np.load(tmp_path / "plain" / name) as plain:
        np.testing.assert_array_equal(ours["descriptor"], plain["descriptor"])
        np.testing.assert_array_equal(ours["times"], plain["times"])


async def _is_dropped(settings: Settings) -> bool:
    """Whether the queue empties, and nothing was made of the cancelled job but its Done."""
    async with publishing(settings) as (broker, publisher):
        async with asyncio.timeout(60):
            while await queued(broker):
                await asyncio.sleep(0.05)
        subject = broker.names.results(publisher.ref("mine"))
        return [stored.headers["Rigflow-Type"] async for stored in result_index(broker, [subject])] == ["done"]


async def test_cancelling_ends_a_publisher_that_waits_and_a_collector(clip: Path, settings: Settings) -> None:
    async with publishing(settings.model_copy(update={"queue_bytes": MIB})) as (broker, publisher):
        job = publisher.ref("j")
        collector = Collector(broker, builtin_pipeline("fingerprint"))
        await collector.open({job: clip.with_suffix("")})
        sending = asyncio.create_task(publisher.publish(job, "video", [Input(clip, clip.name)]))
        async with asyncio.timeout(60):
            while (manifest := await find_manifest(broker, "j")) is None or broker.waiting != "the fleet":
                await asyncio.sleep(0.05)
        assert manifest.state is JobState.PUBLISHING
        await cancel(broker, manifest)
        for ended in (sending, asyncio.ensure_future(collector.wait("j"))):
            with pytest.raises(JobCancelled):
                await asyncio.wait_for(ended, 60)
        await collector.close()
        again = await cancel(broker, manifest)
        assert again.state is JobState.CANCELLED


async def test_a_worker_drops_what_it_has_in_hand_of_a_cancelled_job(clip: Path, tmp_path: Path) -> None:
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        async with publishing(fleet.settings) as (broker, publisher):
            await publisher.publish(publisher.ref("j"), "video", [Input(clip, clip.name)])
            manifest = await find_manifest(broker, "j")
            assert manifest is not None
            async with asyncio.timeout(60):
                while not (await take_inventory(broker, manifest)).frames:
                    await asyncio.sleep(0.02)
            await cancel(broker, manifest)
            async with asyncio.timeout(60):
                while await queued(broker):
                    await asyncio.sleep(0.02)
            await publisher.publish(publisher.ref("next"), "video", [Input(real_clip("bikes"), "bikes.mp4")])
            manifest = await find_manifest(broker, "next")
            assert manifest is not None
            async with asyncio.timeout(60):
                while not (await take_inventory(broker, manifest)).complete:
                    await asyncio.sleep(0.05)


async def test_the_same_id_twice_is_done_once(settings: Settings) -> None:
    clip = real_clip("bikes")
    async with publishing(settings) as (broker, publisher):
        job = publisher.ref("j")
        first = await publisher.begin(job, clip.name, "a")
        assert await publisher.publish(job, "video", [Input(clip, clip.name)], first) == await queued(broker)
        before = (await broker.api(f"STREAM.INFO.{broker.names.work_stream('fingerprint', 'decode')}"))["state"]
        second = await publisher.begin(job, clip.name, "a")
        assert second.manifest.total == await publisher.publish(job, "video", [Input(clip, clip.name)], second)
        after = (await broker.api(f"STREAM.INFO.{broker.names.work_stream('fingerprint', 'decode')}"))["state"]
        assert before["last_seq"] == after["last_seq"]
        with pytest.raises(UsageError, match=r"job j is there already, of another input \(bikes.mp4\)"):
            await publisher.begin(job, "b.mp4", "b")
        other = job.model_copy(update={"revision": "other"})
        with pytest.raises(UsageError, match="job j is there already, with other options or another version of"):
            await begin(broker, Manifest(job=other, name=clip.name, source="a"))


async def test_a_job_whose_results_are_gone_is_begun_anew(settings: Settings) -> None:
    async with publishing(settings) as (broker, publisher):
        wanted = Manifest(job=publisher.ref("j"), name="a.mp4", source="a")
        first = await begin(broker, wanted)
        await first.change(state=JobState.PUBLISHED, segments=1, total=1)
        await end(broker, None, Done(job=first.manifest.job, segments=1, frames=9, lost=0))
        again = await begin(broker, wanted)
        assert (again.manifest.job.generation, again.manifest.state, again.manifest.segments) == (
            1,
            JobState.PUBLISHING,
            0,
        )
        with pytest.raises(JobCancelled):  # who works on the first generation is told
            await first.change(segments=5)
        assert again.manifest.job.identity != first.manifest.job.identity
        assert [manifest.job.generation for manifest in await all_manifests(broker)] == [1]


async def test_an_unfinished_job_goes_on_for_seven_days_and_then_names_the_setting(settings: Settings) -> None:
    async with publishing(settings) as (broker, publisher):
        clip = real_clip("bikes")
        job = publisher.ref("film")
        first = await publisher.begin(job, clip.name, "a")
        await publisher.publish(job, "video", [Input(clip, clip.name)], first)
        for days, generation, note in ((2, 0, ""), (6.9, 0, ""), (7.1, 1, "results_age_s = 604800")):
            record = await JobRecord.read(broker, job)
            assert record is not None
            await record.change(created_s=time.time() - days * 86400)
            again = await publisher.begin(job, clip.name, "a")
            assert again.manifest.job.generation == generation, days
            assert again.note.endswith(note)
            assert bool(again.note) == bool(note)
        await again.change(results_evicted=True)
        assert "results_bytes = " in (await publisher.begin(job, clip.name, "a")).note


async def test_changes_from_two_sides_are_both_kept_and_a_job_never_goes_back(settings: Settings) -> None:
    async with publishing(settings) as (broker, publisher):
        job = publisher.ref("j")
        publishers = await publisher.begin(job, "a.mp4", "a")
        await end(broker, None, Done(job=job, segments=3, frames=9, lost=0, failures=("x",), missing=((1.0, 2.0),)))
        await publishers.change(state=JobState.PUBLISHED, segments=3, total=3, sent_s=7.0)
        manifest = await find_manifest(broker, "j")
        assert manifest is not None
        assert (manifest.name, manifest.source, manifest.sent_s) == ("a.mp4", "a", 7.0)
        assert (manifest.state, manifest.frames, manifest.missing) == (JobState.FAILED, 9, ((1.0, 2.0),))
        both = [await JobRecord.read(broker, job) for _ in range(2)]
        await asyncio.gather(*(record.change(segments_done=3, files=("f",)) for record in both if record))


def test_a_job_with_failures_says_which_seconds_are_missing(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fleet((), tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        assert rigflow("publish", "fingerprint", clip, "--job", "hurt", *where) == 0
        spans = asyncio.run(_damage(fleet.settings, [2, 3, 5]))
        fleet.add()
        assert rigflow("jobs", "wait", "hurt", *where) == 1
        missing = f"missing {spans[2][0]:.2f}-{spans[3][1]:.2f} s, {spans[5][0]:.2f}-{spans[5][1]:.2f} s"
        assert missing in capsys.readouterr().out
        assert rigflow("results", "hurt", "--out", tmp_path, *where) == 1
        capsys.readouterr()
        assert rigflow("jobs", "show", "hurt", *where) == 0
        shown = capsys.readouterr().out
        assert "state     failed" in shown
        assert missing.replace("missing ", "missing   ") in shown
        assert shown.count("failed    ") == 3
        # published again it is not done again: what is there is only collected again
        assert rigflow("publish", "fingerprint", clip, "--job", "hurt", *where) == 0
        assert "failed before" in capsys.readouterr().err
        assert rigflow("results", "hurt", "--out", tmp_path / "again", *where) == 1


async def _damage(settings: Settings, numbers: list[int]) -> dict[int, tuple[float, float]]:
    """Cut the media of some queued segments short; the seconds of all of them."""
    spans = {}
    async with publishing(settings) as (broker, _):
        stream = broker.names.work_stream("fingerprint", "decode")
        async for stored in broker.read(stream):
            message, (table, media) = decode(stored.body)
            assert isinstance(message, Segment)
            spans[message.key.segment] = message.span_s
            if message.key.segment in numbers:
                await broker.delete_message(stream, stored.sequence)
                short = message.encode([table, media[:-1]])
                await broker.publish(stored.subject, short, f"short-{message.key.segment}")
    return spans


async def test_a_client_with_only_nats_gets_the_end_of_a_cancelled_job_and_its_collector_is_free(
    tmp_path: Path,
) -> None:
    with Fleet((("split", "collect"),), tmp_path / "cache") as fleet:
        async with publishing(fleet.settings) as (broker, _):
            client = await nats.connect(fleet.settings.nats)
            results = await client.subscribe("rigflow.results.main.fingerprint.raw")
            media, headers = real_clip("bikes").read_bytes(), {"Rigflow-Job": "raw"}
            await client.jetstream().publish("rigflow.media.main.fingerprint", media, headers=headers)
            manifest = None
            async with asyncio.timeout(60):
                while manifest is None or manifest.state is not JobState.PUBLISHED:
                    await asyncio.sleep(0.05)
                    manifest = await find_manifest(broker, "raw")
            assert manifest.hosted
            await cancel(broker, manifest)
            done, _ = decode((await results.next_msg(60)).data)
            assert isinstance(done, Done)
            assert done.cancelled
            await client.jetstream().publish("rigflow.media.main.fingerprint", media, headers=headers)  # dropped
            async with asyncio.timeout(60):
                for stream in (
                    broker.names.work_stream("fingerprint", "collect"),
                    broker.names.media_stream("fingerprint"),
                ):
                    while (await broker.api(f"STREAM.INFO.{stream}"))["state"]["messages"]:
                        await asyncio.sleep(0.05)
            await client.close()


def test_a_cancelled_job_leaves_the_queues_without_a_worker(clip: Path, tmp_path: Path) -> None:
    with Fleet((), tmp_path / "cache") as fleet:
        where = ("--nats", fleet.settings.nats)
        assert rigflow("publish", "fingerprint", clip, "--job", "mine", *where) == 0
        before = asyncio.run(_queued_now(fleet.settings))
        assert rigflow("publish", "fingerprint", real_clip("bikes"), "--job", "other", *where) == 0
        others = asyncio.run(_queued_now(fleet.settings)) - before
        assert min(before, others) > 0
        assert rigflow("jobs", "cancel", "mine", *where) == 0
        assert asyncio.run(_queued_now(fleet.settings)) == others
        assert rigflow("jobs", "cancel", "mine", *where) == 0
        assert asyncio.run(_queued_now(fleet.settings)) == others


async def _queued_now(settings: Settings) -> int:
    async with publishing(settings) as (broker, _):
        return await queued(broker)


@pytest.mark.slow
async def test_what_is_computed_when_its_job_is_cancelled_is_not_handed_on(tmp_path: Path) -> None:
    """A step of a second is at work: it ends, and nothing comes of it."""
    clip = poisoned_clip(tmp_path / "clip.mp4", groups=4, gop=10, poison=())
    with Fleet(ONE_WORKER, tmp_path / "cache", (100.0,)) as fleet:
        broker = await Broker.connect(fleet.settings)
        spec = await register(broker, fleet.settings, simulated(), models_of(simulated()))
        publisher = Publisher(broker, spec, "main", Priority.BULK)
        job = publisher.ref("j")
        await publisher.publish(job, "video", [Input(clip, clip.name)])
        manifest = await find_manifest(broker, "j")
        assert manifest is not None
        async with asyncio.timeout(60):
            while not [each for each in (await fleet_status(broker)).workers if each["in_flight"]]:
                await asyncio.sleep(0.05)
        await cancel(broker, manifest)
        async with asyncio.timeout(60):
            while [each for each in (await fleet_status(broker)).workers if each["in_flight"]]:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.2)  # longer than any step
        left = [stored.headers["Rigflow-Type"] async for stored in result_index(broker, [broker.names.results(job)])]
        assert left == ["done"]
        await broker.close()
