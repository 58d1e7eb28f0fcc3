"""Raw media that is acknowledged is answered: by its own result, or by a failure that its publisher sees."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from cli.app import answer
from pipelines.attempts import Attempts
from pipelines.broker import Broker, Stored
from pipelines.claims import claim_name
from pipelines.client import Client, Files
from pipelines.dead import letters
from pipelines.job_end import end, publish_done
from pipelines.job_records import JobRecord, OtherInput, find_manifest
from pipelines.jobs import begin
from pipelines.publish import Publisher
from pipelines.pull import Pull
from pipelines.refusal import given_job, refuse_media, source_of
from pipelines.registry import load_pipeline
from schemas.declared import is_token
from schemas.errors import DeviceLost, PipelineError, UsageError
from schemas.jobs import JobRef, JobState, Manifest, Priority
from schemas.messages import CollectRequest, decode
from schemas.results import Done, Failure
from schemas.settings import Settings
from schemas.subjects import COLLECT, HEADER_BLOB, HEADER_ID, HEADER_JOB, HEADER_NAME, HEADER_TYPE, SPLIT
from tests.clips import real_clip
from tests.integration.queues import Taken, a_broker
from tests.integration.test_leftovers import a_fleet
from workers.failures import Failures, place_of_job
from workers.in_flight import InFlight, Queue
from workers.split import SplitHandler

MEDIA = "rigflow.media.main.p"


async def sent(broker: Broker, media: bytes, job: str) -> Stored:
    """Media as a worker takes it."""
    await broker.store(MEDIA, media, {HEADER_ID: f"{job}-{len(media)}", HEADER_JOB: job})
    stored = await broker.last(broker.names.media_stream("p"), MEDIA)
    assert stored is not None
    return stored


async def answers(broker: Broker, subject: str) -> list[tuple[str, str]]:
    found = []
    async for stored in broker.read(broker.names.results_stream, subject):
        message, _ = decode(stored.body)
        assert isinstance(message, Failure | Done)
        words = message.error if isinstance(message, Failure) else message.failures[0]
        found.append((stored.headers[HEADER_TYPE], words))
    return found


@pytest.mark.parametrize("given", ["no.token", "-dash", "x" * 65, "not a subject", "*", "Größe"])
async def test_an_id_that_is_none_is_answered_where_its_publisher_looks(settings: Settings, given: str) -> None:
    async with a_broker(settings) as broker:
        media = await sent(broker, b"media", given)
        with pytest.raises(UsageError, match=r"Rigflow-Job .* cannot be one of a job") as refused:
            given_job(media.subject, media.headers, media.sequence)
        for _ in range(2):  # delivered twice
            await refuse_media(broker, refused.value, media.body, media.subject, media.sequence, media.headers)
        here = await answers(broker, "rigflow.results.main.p.p-1")
        assert [kind for kind, _ in here] == ["failure", "done"]
        assert all("use letters, digits" in words for _, words in here)
        if given in ("no.token", "-dash", "x" * 65):
            assert len(await answers(broker, f"rigflow.results.main.p.{given}")) == 2
        [letter] = [letter async for letter in letters(broker)]
        assert (letter.stored.body, letter.queue) == (b"media", MEDIA)
        manifest = await find_manifest(broker, "p-1")
        assert manifest is not None
        assert manifest.state is JobState.FAILED


@pytest.mark.parametrize(
    ("pipeline", "revision", "source", "words"),
    [("p", "r", "two", "another input"), ("q", "r", "one", "another pipeline"), ("p", "s", "one", "another version")],
)
async def test_media_that_come_at_once_under_one_id_are_not_one_job(
    settings: Settings, pipeline: str, revision: str, source: str, words: str
) -> None:
    """Each looks before the other has written its manifest."""
    first = Manifest(job=JobRef(id="mine", pipeline="p", revision="r"), name="a", source="one", hosted=True)
    other = JobRef(id="mine", pipeline=pipeline, revision=revision)
    second = first.model_copy(update={"job": other, "source": source})
    async with a_broker(settings) as broker:
        records = [await begin(broker, wanted) for wanted in (first, first, second)]
        for record in records[:2]:
            await record.change(hosted=True)
        with pytest.raises(OtherInput, match=words):
            await records[2].change(total=3)
        with pytest.raises(OtherInput, match=words):  # as its publisher does, which notes that it failed
            await records[2].change(state=JobState.FAILED)
        assert await records[2].forget(), "it has none"
        manifest = await find_manifest(broker, "mine")
        assert manifest is not None
        assert (manifest.job, manifest.source, manifest.total) == (first.job, "one", None)
        assert manifest.state is JobState.PUBLISHING


async def test_of_files_that_come_at_once_under_one_id_nothing_is_sent_of_the_second(settings: Settings) -> None:
    async with a_fleet(settings) as (broker, publisher):
        client, sent = Client(broker), list[object]()
        client.on_sent = lambda *of: sent.append(of)
        files = [Files.of(publisher.spec, [real_clip(name)]) for name in ("bikes", "bigbuckbunny")]
        first, second = [await client.open(publisher.spec, each, job="mine") for each in files]
        await first.send()
        sent.clear()
        with pytest.raises(OtherInput, match="another input"):
            await second.send()
        assert (sent, second.is_known) == ([], False)
        manifest = await find_manifest(broker, "mine")
        assert manifest is not None
        assert (manifest.source, manifest.state) == (files[0].identity, JobState.PUBLISHED)


def test_media_without_an_id_has_one_of_its_pipeline() -> None:
    names = ("p", "scenes", "x" * 64, "x" * 64)
    ids = [given_job(f"rigflow.media.main.{name}", {}, 10**19 + at)[1] for at, name in enumerate(names)]
    assert ids[:2] == [f"p-{10**19}", f"scenes-{10**19 + 1}"]
    assert len({*ids, given_job("rigflow.media.main.q", {}, 1)[1]}) == 5
    assert all(map(is_token, ids))


async def test_media_for_streams_without_a_pipeline_is_answered(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        media = await sent(broker, b"media", "mine")
        assert given_job(media.subject, media.headers, media.sequence) == ("main", "mine")
        with pytest.raises(PipelineError) as refused:
            await load_pipeline(broker, "p")
        await refuse_media(broker, refused.value, media.body, media.subject, media.sequence, media.headers)
        here = await answers(broker, "rigflow.results.main.p.mine")
        assert [kind for kind, _ in here] == ["failure", "done"]
        assert "the broker knows no pipeline p" in here[0][1]


@asynccontextmanager
async def taken_media(broker: Broker) -> AsyncIterator[InFlight]:
    """The first media in the queue, as a worker has it in hand."""
    taken = Taken()
    pull = Pull(broker, broker.names.media_stream("p"), "interactive", taken.take)
    await pull.open()
    pull.request(1)
    await taken.until(1)
    yield InFlight(taken.deliveries[0], Queue("p", SPLIT, Priority.INTERACTIVE), lambda _: None)
    await pull.close()


async def test_media_whose_object_is_gone_is_answered(settings: Settings) -> None:
    async with a_fleet(settings) as (broker, _):
        claim = {HEADER_ID: "m", HEADER_BLOB: claim_name(MEDIA, "m", "x"), HEADER_JOB: "mine"}
        await broker.store(MEDIA, b"5", claim)
        failures = Failures(broker, Attempts(broker, "w", "h", "cpu"), "w")
        async with taken_media(broker) as message:
            await SplitHandler(broker, failures, lambda _: asyncio.sleep(0), lambda _: None).run(message)
            await message.ack()
        here = await answers(broker, "rigflow.results.main.p.mine")
        assert [kind for kind, _ in here] == ["failure", "done"]
        assert "is not in store rigflow_blobs" in here[0][1]


@pytest.mark.parametrize("headers", [{}, {HEADER_NAME: "street.mp4"}], ids=["no name", "a name"])
async def test_media_that_fails_before_its_job_is_written_is_collected_once(
    settings: Settings, headers: dict[str, str]
) -> None:
    """Its collector publishes the reason: it takes no job without a manifest."""

    async def end_early(_: object) -> None:
        raise DeviceLost("this worker ends")

    async with a_fleet(settings.model_copy(update={"max_deliver": 1})) as (broker, _):
        await broker.store(MEDIA, b"media", {HEADER_ID: "m", HEADER_JOB: "mine", **headers})
        failures = Failures(broker, Attempts(broker, "w", "h", "cpu"), "w")
        handler = SplitHandler(broker, failures, end_early, lambda _: None)
        async with taken_media(broker) as message:
            with pytest.raises(DeviceLost) as raised:
                await handler.run(message)
            assert await find_manifest(broker, "mine") is None
            for _ in range(2):  # it is delivered once more if it could not be acknowledged
                await failures.settle(message, raised.value, place_of_job, partial(handler.on_failure, message))
        [request] = [stored async for stored in broker.read(broker.names.work_stream("p", COLLECT), ">")]
        manifest = await find_manifest(broker, "mine")
        assert manifest is not None
        assert (manifest.job, manifest.name) == (message.job, headers.get(HEADER_NAME, "mine"))
        assert (manifest.hosted, manifest.state) == (True, JobState.PUBLISHING)
        asked, _ = decode(request.body)
        assert isinstance(asked, CollectRequest)
        assert asked.job == manifest.job
        assert await answers(broker, "rigflow.results.main.p.mine") == [("failure", "this worker ends")]


async def test_other_media_under_an_old_id_never_gets_the_old_answer(settings: Settings) -> None:
    async with a_fleet(settings) as (broker, publisher):
        job = publisher.ref("mine")

        def wanted(media: bytes) -> Manifest:
            return Manifest(job=job, name="film", source=source_of(media), hosted=True)

        record = await begin(broker, wanted(b"first"))
        await record.change(segments=1, total=1, state=JobState.PUBLISHED)
        await broker.publish(broker.names.work("p", "decode", Priority.BULK), b"its segment", "segment")
        assert (await begin(broker, wanted(b"first"))).manifest.job.generation == 0
        # while the job is not over, other media is refused, and the job goes on
        media = await sent(broker, b"second", "mine")
        with pytest.raises(OtherInput, match="is there already, of another input") as refused:
            await begin(broker, wanted(b"second"))
        await refuse_media(broker, refused.value, media.body, media.subject, media.sequence, media.headers)
        [(kind, words)] = await answers(broker, broker.names.results(job))
        assert (kind, "choose another id" in words) == ("failure", True)
        manifest = await find_manifest(broker, "mine")
        assert manifest is not None
        assert (manifest.state, manifest.failures, manifest.job.generation) == (JobState.PUBLISHED, 0, 0)
        await publish_done(broker, Done(job=job, segments=1, frames=1, lost=0), "1")
        assert (await begin(broker, wanted(b"second"))).manifest.job.generation == 1, "its Done is out"
        job = job.model_copy(update={"generation": 1})
        # when it is over, the same media has its answer, and other media begins the job anew
        await broker.publish(broker.names.results(job), b"the file", "file", {HEADER_TYPE: "file"})
        done = Done(job=job, segments=1, frames=1, lost=0, files=("film.npz",))
        await end(broker, await JobRecord.read(broker, job), done)
        assert (await begin(broker, wanted(b"second"))).manifest.state is JobState.DONE
        assert (await begin(broker, wanted(b"third"))).manifest.job.generation == 2
        assert await answers(broker, broker.names.results(job)) == []


async def test_an_id_that_another_pipeline_has_is_answered(settings: Settings) -> None:
    async with a_fleet(settings) as (broker, publisher):
        theirs = publisher.ref("mine").model_copy(update={"pipeline": "q"})
        await JobRecord(broker, Manifest(job=theirs, name="film", created_s=time.time())).change(segments=1)
        media = await sent(broker, b"media", "mine")
        with pytest.raises(OtherInput, match=r"is there already, of another pipeline \(q\)") as refused:
            await Publisher(broker, publisher.spec, "main", Priority.BULK, hosted=True).begin(
                publisher.ref("mine"), "film"
            )
        await refuse_media(broker, refused.value, media.body, media.subject, media.sequence, media.headers)
        here = await answers(broker, broker.names.results(publisher.ref("mine")))
        assert [kind for kind, _ in here] == ["failure", "done"]
        manifest = await find_manifest(broker, "mine")
        assert manifest is not None
        assert (manifest.state, manifest.job) == (JobState.PUBLISHING, theirs)


async def test_topology_apply_registers_the_pipelines_that_it_names(settings: Settings) -> None:
    assert await asyncio.to_thread(answer, ["topology", "apply", "fingerprint", "--nats", settings.nats]) in (0, 1)
    broker = await Broker.connect(settings)
    assert (await load_pipeline(broker, "fingerprint")).models
    await broker.close()
