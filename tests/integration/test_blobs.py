"""Claim checks: bodies that are too large for a message."""

import asyncio
import hashlib
import io
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from pipelines.blob_upload import put_blob
from pipelines.blobs import blob_info, discard_claims, get_blob, get_blob_to, load
from pipelines.broker import Broker
from pipelines.claims import claim_of
from pipelines.connection import MessageTooLarge
from pipelines.server import EmbeddedServer
from schemas.errors import BrokerError, Disposition, StoreError, UsageError
from schemas.settings import Settings
from schemas.subjects import HEADER_BLOB, HEADER_ID
from tests.integration.queues import MIB, a_broker, a_pull, eventually, queue_is_empty, queue_subject


async def test_a_delivery_has_the_bytes_that_its_stream_counts(settings: Settings) -> None:
    """A backlog's bytes are compared with those of messages that are done: also of a claim check, and of small ones."""
    async with a_broker(settings) as broker, a_pull(broker, requests=3) as taken:
        for number, nbytes in enumerate((93, 500_000, 12 * MIB)):
            await broker.publish(queue_subject(broker), bytes(nbytes), str(number), {"Rigflow-Name": "picture.jpg"})
        await taken.until(3)
        counted = await broker.stream_bytes(taken.deliveries[0].stream)
        assert sum(delivery.stored_bytes for delivery in taken.deliveries) == pytest.approx(counted, abs=3 * 20)


async def test_a_body_that_is_too_large_travels_as_a_claim_check(settings: Settings) -> None:
    body = bytes(range(256)) * (12 * MIB // 256) + b"odd"
    async with a_broker(settings) as broker, a_pull(broker, requests=3) as taken:
        blobs = f"OBJ_{broker.names.blobs}"
        assert await broker.publish(queue_subject(broker), body, "large")
        stored_bytes = await broker.stream_bytes(blobs)
        assert stored_bytes > len(body)
        assert not await broker.publish(queue_subject(broker), body, "large")
        assert await broker.stream_bytes(blobs) == stored_bytes, "a repeat leaves nothing behind"
        await taken.until(1)
        assert taken.deliveries[0].nbytes == len(body)
        assert await taken.deliveries[0].load() == body
        await taken.deliveries[0].retry(0.01)
        await taken.until(2)
        assert await taken.deliveries[1].load() == body, "it is there until the message is settled for good"
        await taken.deliveries[1].ack()
        assert await broker.stream_bytes(blobs) == 0
        await eventually(lambda: queue_is_empty(broker))


async def test_the_largest_body_with_headers_goes_as_one_message(settings: Settings) -> None:
    async with a_broker(settings.model_copy(update={"queue_bytes": 32 * MIB})) as broker, a_pull(broker, 1) as taken:
        headers = {"Rigflow-Failure": "x" * 3000}
        await broker.publish(queue_subject(broker), bytes(broker.max_body), "largest", headers)
        await taken.until(1)
        assert HEADER_BLOB not in taken.deliveries[0].headers
        assert len(taken.bodies[0]) == broker.max_body
        await taken.deliveries[0].ack()


async def test_a_claim_check_has_metadata_and_any_length(settings: Settings) -> None:
    body = bytes(3 * MIB + 5)
    async with a_broker(settings) as broker:
        name = await put_blob(broker, broker.names.blobs, body, metadata={"of": "a test"})
        assert await get_blob(broker, broker.names.blobs, name) == body
        info = await blob_info(broker, broker.names.blobs, name)
        assert info is not None
        assert info.metadata == {"of": "a test"}


async def test_any_nats_client_can_read_a_claim_check_and_we_read_it_faster(settings: Settings) -> None:
    body = bytes(16 * MIB)
    async with a_broker(settings) as broker:
        started = time.perf_counter()
        name = await put_blob(broker, broker.names.blobs, body)
        put_s = time.perf_counter() - started
        started = time.perf_counter()
        assert await get_blob(broker, broker.names.blobs, name) == body
        got_s = time.perf_counter() - started
        client = await nats.connect(settings.nats)
        store = await client.jetstream().object_store(broker.names.blobs)
        started = time.perf_counter()
        assert (await store.get(name)).data == body
        theirs_s = time.perf_counter() - started
        await client.close()
    rates = [f"{len(body) / seconds / 1e6:.0f} MB/s" for seconds in (put_s, got_s, theirs_s)]
    print("put {}, get {}, the same by nats-py {}".format(*rates))


async def test_a_claim_check_that_is_gone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.blobs.LOOKS", 2)
    async with a_broker(settings) as broker:
        with pytest.raises(StoreError, match="nowhere is not in store"):
            await get_blob(broker, broker.names.blobs, "nowhere")
        name = await put_blob(broker, broker.names.blobs, bytes(MIB + 1))
        info = await blob_info(broker, broker.names.blobs, name)
        assert info is not None
        await broker.purge(f"OBJ_{broker.names.blobs}", f"$O.{broker.names.blobs}.C.{info.chunks_id}", up_to=1)
        with pytest.raises(StoreError, match="damaged"):
            await get_blob(broker, broker.names.blobs, name)


@pytest.fixture(params=[1 << 20, 256 << 10, 8192])
def small_payload(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A broker whose max_payload is nats-server's own default, or less."""
    monkeypatch.setattr("pipelines.server.MAX_PAYLOAD", request.param)
    server = EmbeddedServer()
    server.start()
    yield Settings(nats=server.url, queue_bytes=4 * MIB, results_bytes=64 * MIB, ack_wait_s=300.0)
    server.stop()


async def test_bodies_of_any_size_travel_whatever_max_payload_is(small_payload: Settings) -> None:
    async with a_broker(small_payload) as broker, a_pull(broker, 3) as taken:
        limit = broker.connection.max_payload
        bodies = [bytes(3 * MIB + 1), b"x" * limit, b"y" * broker.max_body]
        for number, body in enumerate(bodies):
            await broker.publish(queue_subject(broker), body, f"body-{number}", {"Rigflow-Failure": "x" * 3000})
        await taken.until(3)
        assert [await delivery.load() for delivery in taken.deliveries] == bodies
        with pytest.raises(MessageTooLarge, match="raise the broker's max_payload"):
            await broker.put(broker.names.jobs, "main.large", bytes(limit + 1))
        assert broker.connection.connected, "the server would have closed it"


async def test_a_broker_that_takes_next_to_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.server.MAX_PAYLOAD", 4096)
    server = EmbeddedServer()
    server.start()
    try:
        with pytest.raises(UsageError, match="max_payload to 8192"):
            await Broker.connect(Settings(nats=server.url))
    finally:
        server.stop()


async def test_what_can_never_fit_is_refused_at_once_and_leaves_nothing(settings: Settings) -> None:
    async with a_broker(settings.model_copy(update={"results_bytes": 16 * MIB})) as broker:
        blobs = f"OBJ_{broker.names.blobs}"
        with pytest.raises(
            StoreError, match=r"17\.8 MB never fit into OBJ_rigflow_blobs.*raise results_bytes"
        ) as refused:
            await broker.publish(queue_subject(broker), bytes(17 * MIB), "huge")
        assert refused.value.disposition is Disposition.REJECT
        assert await broker.last(blobs, ">") is None
        with pytest.raises(StoreError, match="never fit"):
            await broker.publish(queue_subject(broker), bytes(16 * MIB), "just too large")


async def test_uploads_that_fit_one_by_one_all_end_in_a_store_that_others_fill(settings: Settings) -> None:
    """Three publishers of 9 MiB each and room for 16: one after the other, and never two halves that wait for ever."""
    settings = settings.model_copy(update={"results_bytes": 16 * MIB, "queue_bytes": MIB})
    async with a_broker(settings) as broker, a_pull(broker, 3) as taken:
        others = [await Broker.connect(settings) for _ in range(3)]
        publishing = [
            asyncio.create_task(other.publish(queue_subject(broker), bytes([number]) * (9 * MIB), f"large-{number}"))
            for number, other in enumerate(others)
        ]
        seen = set()
        for number in range(3):
            await taken.until(number + 1)
            body = await taken.deliveries[number].load()
            await taken.deliveries[number].ack()
            assert len(body) == 9 * MIB
            seen.add(body[0])
        assert all(await asyncio.gather(*publishing))
        assert seen == {0, 1, 2}
        assert await broker.last(f"OBJ_{broker.names.blobs}", ">") is None
        for other in others:
            await other.close()


async def test_a_cancelled_upload_leaves_nothing(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        blobs = f"OBJ_{broker.names.blobs}"
        uploading = asyncio.create_task(put_blob(broker, broker.names.blobs, bytes(48 * MIB)))
        while await broker.stream_bytes(blobs) == 0:
            await asyncio.sleep(0)
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
        assert await broker.stream_bytes(blobs) == 0


async def test_a_message_that_no_stream_takes_leaves_no_blob(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.message_store.ATTEMPTS", 1)
    async with a_broker(settings) as broker:
        with pytest.raises(BrokerError, match="no stream takes"):
            await broker.publish("rigflow.work.nowhere.decode.bulk", bytes(12 * MIB), "lost")
        assert await broker.stream_bytes(f"OBJ_{broker.names.blobs}") == 0


async def test_a_message_reads_and_deletes_only_its_own_object(settings: Settings) -> None:
    """A client that may publish media names the object of somebody's result, with that message's id."""
    async with a_broker(settings) as broker:
        secret, media = bytes(12 * MIB), broker.names.media("main", "p")
        subject = "rigflow.results.main.p.job"
        await broker.publish(subject, secret, "theirs")
        theirs = await broker.last(broker.names.results_stream, subject)
        assert theirs is not None
        blob = theirs.headers[HEADER_BLOB]
        assert claim_of(theirs.subject, theirs.headers) == blob
        await broker.store(media, b"12", {HEADER_ID: "theirs", HEADER_BLOB: blob})
        forged = await broker.last(broker.names.media_stream("p"), media)
        assert forged is not None
        assert await load(broker, forged) == b"12", "its own body, as of any message"
        await discard_claims(broker, broker.names.blobs, [claim_of(forged.subject, forged.headers)])
        assert await load(broker, theirs) == secret


STREAM_A_FILE = r"""
import asyncio, re, sys
from pathlib import Path
from pipelines.blob_upload import put_blob
from pipelines.blobs import get_blob_to
from pipelines.broker import Broker
from schemas.settings import Settings

async def main():
    broker = await Broker.connect(Settings(nats=sys.argv[1]))
    name = await put_blob(broker, broker.names.models, Path(sys.argv[2]))
    with open(sys.argv[3], "wb") as file:
        await get_blob_to(broker, broker.names.models, name, file)
    await broker.close()
    print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) // 1024)

asyncio.run(main())
"""


async def test_a_file_streams_to_and_from_disk(settings: Settings, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(b"rigflow!" * (150 * MIB // 8))
    async with a_broker(settings):
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", STREAM_A_FILE, settings.nats, str(source), str(copy)],
            capture_output=True,
            text=True,
            check=True,
        )
    assert int(ran.stdout) < 120, "MiB of memory at most"
    assert _sha256(copy) == _sha256(source)


async def test_a_published_file_is_a_message_or_a_claim_check(settings: Settings, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"small")
    large.write_bytes(bytes(9 * MIB))
    async with a_broker(settings) as broker:
        subject = "rigflow.results.main.p.job"
        await broker.publish(subject, small, "small")
        await broker.publish(subject, large, "large")
        first, second = [stored async for stored in broker.read(broker.names.results_stream, subject)]
        assert (first.body, second.body) == (b"small", str(9 * MIB).encode())
        file = io.BytesIO()
        await get_blob_to(broker, broker.names.blobs, second.headers[HEADER_BLOB], file)
        assert file.getvalue() == bytes(9 * MIB)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
