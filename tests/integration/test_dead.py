"""Dead letters: what failed comes back with its input and its reason, and a retry makes the job whole."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import av
import nats
import numpy as np
import pytest
from nats.aio.subscription import Subscription

import pipelines.message_store
from cli.app import app
from engines.media.medium import Input
from engines.models.catalogue import builtin_model
from pipelines.blob_upload import put_blob
from pipelines.blobs import delete_blob
from pipelines.broker import Broker
from pipelines.dead import HEADER_BYTES, dead_letter, drop, find_letter, input_of, letters, retry
from pipelines.delivery import Delivery
from pipelines.inventory import take_inventory
from pipelines.publish import Publisher
from pipelines.pull import Pull
from pipelines.registry import builtin_pipeline
from schemas.errors import UsageError
from schemas.jobs import JobRef, Key, Manifest, Priority
from schemas.messages import decode
from schemas.results import Failure
from schemas.settings import Settings
from schemas.subjects import HEADER_BLOB, HEADER_FAILURE, HEADER_JOB, HEADER_NAME, HEADER_TYPE
from tests.clips import real_clip, still
from tests.fleet import ONE_WORKER, Fleet
from workers.definitions import find_models, register, register_builtin

JOB = JobRef(id="j", pipeline="fingerprint", revision="r")


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Broker]:
    broker = await Broker.connect(settings)
    spec = builtin_pipeline("fingerprint")
    await register(broker, settings, spec, find_models(spec, None))
    try:
        yield broker
    finally:
        await broker.close()


def failure_of(segment: int, error: str = "bad", detail: str = "") -> Failure:
    return Failure(key=Key(job=JOB, segment=segment), stage="decode", entire_segment=True, error=error, detail=detail)


def rigflow(*arguments: str | Path) -> int:
    """Run a command of the command line in this process; its exit code."""
    return int(app([str(argument) for argument in arguments], standalone_mode=False) or 0)


async def test_a_letter_has_its_reason_its_input_and_what_its_publisher_said(settings: Settings) -> None:
    async with connected(settings) as broker:
        subject = broker.names.work("fingerprint", "decode", Priority.BULK)
        failure = failure_of(3, "Schlüssel [bold] fehlt", "line 1\nline 2")
        await dead_letter(broker, failure, b"input", subject, 7, {HEADER_JOB: "j", "Nats-Msg-Id": "x"})
        await dead_letter(
            broker, failure, b"input", subject, 7, {HEADER_JOB: "j", "Nats-Msg-Id": "x"}
        )  # delivered twice
        [letter] = [letter async for letter in letters(broker)]
        assert letter.failure.error == failure.error
        assert letter.failure.detail == failure.detail
        assert letter.failure.at_s > 0
        assert (letter.queue, letter.nbytes) == (subject, 5)
        assert await input_of(broker, letter) == b"input"
        assert letter.stored.headers[HEADER_JOB] == "j"
        assert [letter async for letter in letters(broker, "another")] == []


async def test_a_letter_larger_than_a_message_comes_back_whole(settings: Settings) -> None:
    async with connected(settings) as broker:
        body = np.random.default_rng(1).bytes(10 << 20)
        subject = broker.names.work("fingerprint", "decode", Priority.BULK)
        await dead_letter(broker, failure_of(0), body, subject, 1, {})
        [letter] = [letter async for letter in letters(broker)]
        assert letter.nbytes == len(body)
        assert await input_of(broker, letter) == body
        await drop(broker, letter)
        assert [letter async for letter in letters(broker)] == []
        assert await broker.last(f"OBJ_{broker.names.blobs}", ">") is None


async def test_a_long_reason_does_not_break_the_connection(settings: Settings) -> None:
    async with connected(settings) as broker:
        subject = broker.names.work("fingerprint", "decode", Priority.BULK)
        body = bytes(broker.max_body)
        await dead_letter(broker, failure_of(0, "ü" * 5000, "x" * 50_000), body, subject, 1, {})
        [letter] = [letter async for letter in letters(broker)]
        assert len(letter.stored.headers[HEADER_FAILURE]) <= HEADER_BYTES
        assert letter.failure.error.startswith("üüü")


async def test_retry_sends_the_input_again_and_takes_the_failure_back(settings: Settings) -> None:
    async with connected(settings) as broker:
        subject = broker.names.work("fingerprint", "decode", Priority.BULK)
        stream = broker.names.work_stream("fingerprint", "decode")
        await broker.publish(subject, b"first", "main/j/r/3/0/decode")
        for segment in (3, 4):
            await dead_letter(broker, failure_of(segment), b"first", subject, segment, {})
        three, four = [letter async for letter in letters(broker)]
        await retry(broker, three)
        assert [stored.body async for stored in broker.read(stream)] == [b"first", b"first"]
        left = [decode(stored.body)[0] async for stored in broker.read(broker.names.results_stream)]
        assert [failure.key.segment for failure in left if isinstance(failure, Failure)] == [4]
        assert [letter.number async for letter in letters(broker)] == [four.number]
        await dead_letter(
            broker, failure_of(3), b"first", subject, 9, {}
        )  # the second attempt fails too, and that counts
        assert len([letter async for letter in letters(broker)]) == 2


async def test_a_letter_that_cannot_be_sent_again_keeps_no_other_from_it(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.message_store, "ATTEMPTS", 2)  # to publish to a queue that is not there
    async with connected(settings) as broker:
        subject = broker.names.work("fingerprint", "decode", Priority.BULK)
        await dead_letter(broker, failure_of(1), b"a", broker.names.work("gone", "decode", Priority.BULK), 1, {})
        await dead_letter(broker, failure_of(2), b"b", subject, 2, {})
        await dead_letter(broker, failure_of(3), b"c" * (1 << 24), subject, 3, {})
        stored = await broker.message(broker.names.dead_stream, 3)
        assert stored is not None
        await delete_blob(broker, broker.names.blobs, stored.headers[HEADER_BLOB])
        await dead_letter(broker, failure_of(4), b"d", subject, 4, {})
        assert await asyncio.to_thread(rigflow, "dead", "retry", "--all", "--nats", settings.nats) == 1
        assert [letter.number async for letter in letters(broker)] == [1, 3]
        queued = [each.body async for each in broker.read(broker.names.work_stream("fingerprint", "decode"))]
        assert queued == [b"b", b"d"]
    output = capsys.readouterr().out
    assert "no stream takes rigflow.work.gone.decode.bulk" in output
    assert "is not in store rigflow_blobs" in output


async def test_a_letter_that_is_not_there_is_a_usage_error(settings: Settings) -> None:
    async with connected(settings) as broker:
        with pytest.raises(UsageError, match="there is no dead letter 12: see `rigflow dead list`"):
            await find_letter(broker, 12)


def test_after_a_retry_the_job_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model is gone from the store: every segment fails. It comes back, all are retried: equal to a plain run."""
    spec = builtin_pipeline("fingerprint")
    clip = real_clip("bikes")
    with Fleet((), tmp_path / "cache", ack_wait_s=60.0) as fleet:
        asyncio.run(_fail_all(fleet, clip))
        where = ("--nats", fleet.settings.nats)
        out = tmp_path / "out"
        assert rigflow("results", "broken", "--follow", "--out", out, *where) == 1
        assert not list(out.glob("*.npz"))
        rigflow("dead", "list", *where)
        listed = capsys.readouterr().out
        assert "broken" in listed
        number = next(line.split()[0] for line in listed.splitlines() if "broken" in line)
        rigflow("dead", "show", number, "--save", tmp_path / "segment.mp4", *where)
        shown = capsys.readouterr().out
        assert "stage     decode" in shown
        assert f"attempt 1 test-0 on {socket.gethostname()} (cpu)" in shown
        with av.open(str(tmp_path / "segment.mp4")) as segment:
            assert next(segment.decode(video=0)).width
        asyncio.run(_bring_back(fleet.settings))
        assert rigflow("dead", "retry", "--all", "--job", "broken", *where) == 0
        assert "an input that fails again is itself at fault" in capsys.readouterr().err
        assert rigflow("results", "broken", "--follow", "--out", out, *where) == 0
        assert rigflow("dead", "list", *where) == 0
        assert "no dead letters" in capsys.readouterr().out
        fleet.run(spec, [clip], tmp_path / "plain")
        ours, plain = np.load(out / "bikes.fingerprint.npz"), np.load(tmp_path / "plain" / "bikes.fingerprint.npz")
        for name in plain.files:
            np.testing.assert_array_equal(ours[name], plain[name])


async def _fail_all(fleet: Fleet, clip: Path) -> None:
    async with connected(fleet.settings) as broker:
        card, _ = builtin_model("fingerprint")
        spec = builtin_pipeline("fingerprint")
        pinned = await register(broker, fleet.settings, spec, find_models(spec, None))
        await delete_blob(broker, broker.names.models, card.sha256)
        fleet.add()  # not before, for workers load what they will need
        publisher = Publisher(broker, pinned, "main", Priority.INTERACTIVE)
        job = publisher.ref("broken")
        await publisher.publish(job, "video", [Input(clip, clip.name)])
        inventory = None
        while inventory is None or not inventory.complete:
            await asyncio.sleep(0.1)
            inventory = await take_inventory(broker, Manifest(job=job, name=clip.name))
        assert inventory.failed
        assert "model" in inventory.failures[0].error


async def _bring_back(settings: Settings) -> None:
    async with connected(settings) as broker:
        card, model = builtin_model("fingerprint")
        await put_blob(broker, broker.names.models, model, card.sha256)


async def test_after_a_retry_a_client_with_only_nats_gets_its_file(tmp_path: Path) -> None:
    with Fleet((), tmp_path / "cache", ack_wait_s=60.0) as fleet:
        await register_builtin(fleet.settings)
        async with connected(fleet.settings) as broker:
            card, model = builtin_model("lanczos2x")
            await delete_blob(broker, broker.names.models, card.sha256)
            fleet.add()
            client = await nats.connect(fleet.settings.nats)
            results = await client.subscribe("rigflow.results.main.upscale2x.raw")
            headers = {HEADER_JOB: "raw", HEADER_NAME: "photo.png"}
            await client.jetstream().publish("rigflow.media.main.upscale2x", still("png"), headers=headers)
            assert await _kinds_until_done(results) == ["failure"]
            await put_blob(broker, broker.names.models, model, card.sha256)
            [letter] = [letter async for letter in letters(broker)]
            await retry(broker, letter)
            assert await _kinds_until_done(results) == ["part", "file"]
            await client.close()
            left = []
            while len(left) != 2:  # the results go right after done is told
                await asyncio.sleep(0.05)
                left = [stored async for stored in broker.read(broker.names.results_stream)]
            file, done = left
            assert file.headers[HEADER_NAME] == "photo.upscale2x.png"
            assert done.headers[HEADER_TYPE] == "done"


async def _kinds_until_done(results: Subscription) -> list[str]:
    kinds = []
    while (kind := (await results.next_msg(60)).headers[HEADER_TYPE]) != "done":
        kinds.append(kind)
    return kinds


async def test_what_is_not_media_is_a_dead_letter_of_its_publisher(tmp_path: Path) -> None:
    with Fleet(ONE_WORKER, tmp_path / "cache", ack_wait_s=60.0) as fleet:
        await register_builtin(fleet.settings)
        async with connected(fleet.settings) as broker:
            client = await nats.connect(fleet.settings.nats)
            results = await client.subscribe("rigflow.results.main.upscale2x.text")
            media = "rigflow.media.main.upscale2x"
            await client.jetstream().publish(media, b"not media", headers={HEADER_JOB: "text"})
            assert await _kinds_until_done(results) == ["failure"]
            [letter] = [letter async for letter in letters(broker)]
            await retry(broker, letter)
            assert await _kinds_until_done(results) == ["failure"]  # told again, for somebody may wait for it
            await client.close()
            [letter] = [letter async for letter in letters(broker)]
            assert (letter.failure.stage, letter.queue, letter.failure.key.segment) == ("split", media, -1)
            assert "no video, sound or picture" in letter.failure.error
            assert await input_of(broker, letter) == b"not media"


async def test_what_is_handed_back_however_often_is_no_failure(tmp_path: Path) -> None:
    """Taken and released, as by workers that are told to stop; then a worker comes that may stay."""
    clip, spec = real_clip("bikes"), builtin_pipeline("fingerprint")
    with Fleet((), tmp_path / "cache", max_deliver=2) as fleet:
        async with connected(fleet.settings) as broker:
            pinned = await register(broker, fleet.settings, spec, find_models(spec, None))
            publisher = Publisher(broker, pinned, "main", Priority.BULK)
            await publisher.publish(publisher.ref("often"), "video", [Input(clip, clip.name)])
            back: list[int] = []

            async def hand_back(delivery: Delivery) -> None:
                back.append(delivery.deliveries)
                await delivery.release()

            pull = Pull(broker, broker.names.work_stream("fingerprint", "decode"), "bulk", hand_back)
            await pull.open()
            async with asyncio.timeout(120):
                while max(back, default=0) < 10 * fleet.settings.max_deliver:
                    pull.request(1 - pull.outstanding)
                    await asyncio.sleep(0.005)
            await pull.close()
        fleet.add(ONE_WORKER[0])
        where = ("--nats", fleet.settings.nats)
        assert await asyncio.to_thread(rigflow, "results", "often", "--follow", "--out", tmp_path, *where) == 0


def test_dead_letters_are_named_or_all() -> None:
    assert rigflow("dead", "retry") == 2
    assert rigflow("dead", "drop", "3", "--all") == 2
