"""Claim checks: bodies that are too large for a message."""

import time

import nats
import pytest

from pipelines.blobs import blob_info, get_blob, put_blob
from schemas.errors import StoreError
from schemas.settings import Settings
from schemas.subjects import HEADER_BLOB
from tests.integration.hops import MIB, a_broker, a_pull, eventually, hop, hop_is_empty


async def test_a_body_that_is_too_large_travels_as_a_claim_check(settings: Settings) -> None:
    body = bytes(range(256)) * (12 * MIB // 256) + b"odd"
    async with a_broker(settings) as broker, a_pull(broker, requests=3) as taken:
        blobs = f"OBJ_{broker.names.blobs}"
        assert await broker.publish(hop(broker), body, "large")
        stored_bytes = await broker.stream_bytes(blobs)
        assert stored_bytes > len(body)
        assert not await broker.publish(hop(broker), body, "large")
        assert await broker.stream_bytes(blobs) == stored_bytes, "a repeat leaves nothing behind"
        await taken.until(1)
        assert taken.deliveries[0].nbytes == len(body)
        assert await taken.deliveries[0].load() == body
        await taken.deliveries[0].retry(0.01)
        await taken.until(2)
        assert await taken.deliveries[1].load() == body, "it is there until the message is settled for good"
        await taken.deliveries[1].ack()
        assert await broker.stream_bytes(blobs) == 0
        await eventually(lambda: hop_is_empty(broker))


async def test_the_largest_body_with_headers_goes_as_one_message(settings: Settings) -> None:
    async with a_broker(settings.model_copy(update={"hop_bytes": 32 * MIB})) as broker, a_pull(broker, 1) as taken:
        headers = {"Rigflow-Failure": "x" * 3000}
        await broker.publish(hop(broker), bytes(broker.max_body), "largest", headers)
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
