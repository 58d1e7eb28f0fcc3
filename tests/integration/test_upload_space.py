"""Space in the store of media: what uploads reserve, what they have filled, and what is left for workers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pipelines.blob_upload import put_blob, send_stream
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.message_store import FleetFull, NeverFits
from pipelines.registry import publish_pipeline
from pipelines.resumable import UploadMoved, Uploads
from schemas.jobs import Priority
from schemas.settings import Settings
from tests.integration.queues import MIB, SPEC, a_broker, a_fleet, eventually


async def _pieces(count: int, *waits: asyncio.Event) -> AsyncIterator[bytes]:
    """So many MiB; before the second, it waits for the events."""
    for number in range(count):
        for wait in waits if number == 1 else ():
            await wait.wait()
        yield bytes(MIB)


async def _holds(broker: Broker, nbytes: int) -> None:
    """Wait until the store of media holds so many bytes."""

    async def enough() -> bool:
        return await broker.stream_bytes(f"OBJ_{broker.names.blobs}") >= nbytes

    await eventually(enough)


async def test_space_that_an_upload_has_filled_is_not_reserved_as_well(settings: Settings) -> None:
    async with a_broker(settings.model_copy(update={"results_bytes": 64 * MIB})) as broker:  # 48 for media
        bucket, last = broker.names.blobs, asyncio.Event()

        async def nearly_all() -> AsyncIterator[bytes]:
            async for piece in _pieces(21):
                yield piece
            await last.wait()
            yield bytes(MIB)

        first = asyncio.create_task(send_stream(broker, bucket, nearly_all(), 22 * MIB, 1.0))
        await _holds(broker, 20 * MIB)
        second = await send_stream(broker, bucket, _pieces(24), 24 * MIB, 1.0)
        with pytest.raises(FleetFull):
            await send_stream(broker, bucket, _pieces(3), 3 * MIB, 0.2)
        last.set()
        assert ((await first).size, second.size) == (22 * MIB, 24 * MIB)


async def test_an_upload_of_unknown_size_takes_no_space_that_others_have_reserved(settings: Settings) -> None:
    async with a_broker(settings.model_copy(update={"results_bytes": 32 * MIB})) as broker:  # 24 for media
        bucket, go_on = broker.names.blobs, asyncio.Event()
        known = asyncio.create_task(send_stream(broker, bucket, _pieces(16, go_on), 16 * MIB, 5.0))
        await eventually(lambda: broker.uploads.reserved[f"OBJ_{bucket}"] > 14 * MIB)  # the first one may be stored
        with pytest.raises(FleetFull):
            await send_stream(broker, bucket, _pieces(12), None, 0.2)
        go_on.set()
        assert (await known).size == 16 * MIB
        with pytest.raises(NeverFits):
            await send_stream(broker, bucket, _pieces(40), 33 * MIB, 0.2)


async def test_media_leave_space_for_what_workers_make_of_them(settings: Settings) -> None:
    async with a_broker(settings.model_copy(update={"results_bytes": 32 * MIB})) as broker:
        bucket = broker.names.blobs
        await send_stream(broker, bucket, _pieces(23), 23 * MIB, 1.0)
        with pytest.raises(FleetFull):
            await send_stream(broker, bucket, _pieces(2), 2 * MIB, 0.2)
        async with asyncio.timeout(60.0):
            await put_blob(broker, bucket, bytes(6 * MIB))


async def test_an_upload_goes_on_when_its_pipeline_was_updated_unless_a_revision_was_chosen(
    settings: Settings,
) -> None:
    async with a_fleet(settings) as (broker, publisher):
        newer = await publish_pipeline(broker, SPEC.model_copy(update={"segment_s": 2.0}), {})
        assert newer.revision != publisher.spec.revision
        uploads = Uploads(Client(broker))

        async def create(revision: str, chosen: bool) -> str:
            return (await uploads.create(revision, chosen, 9, "film", Priority.BULK, "film", "", 1.0)).revision

        assert await create(publisher.spec.revision, False) == publisher.spec.revision
        assert await create(newer.revision, False) == publisher.spec.revision
        with pytest.raises(UploadMoved, match="of other options"):
            await create(newer.revision, True)
