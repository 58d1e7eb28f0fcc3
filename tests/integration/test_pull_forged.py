"""Messages with odd subjects and headers, as any client may publish them."""

import asyncio
from collections.abc import Sequence

from pipelines.pull import Pull
from schemas.settings import Settings
from tests.integration.queues import Taken, a_broker

ODD_SUBJECTS = (b"\xff\xfe", "\u202e".encode(), b"\x0b", b"\x0c", b"\x1c", b"\x00", b"\x1b[31m", b"x" * 3000)

ODD_HEADERS = (
    b"NATS/1.0",
    b"X",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0 \xff\xff\xff \xff\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0\r\nStatus: 404\r\n\r\n",
    b"NATS/1.0\r\n\xff: \xff\r\nA: \xff\r\n\r\n",
    b"NATS/1.0\r\nNats-Sequence: x\r\nStatus: 503\r\n\r\n",
)


async def publish_raw(url: str, messages: Sequence[tuple[bytes, bytes]]) -> None:
    """Publish messages of one byte, given as subject and headers, as no client library would."""
    host, port = url.rpartition("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"verbose": false, "headers": true}\r\n')
    for subject, headers in messages:
        size = b"%d %d" % (len(headers), len(headers) + 1) if headers else b"1"
        writer.write((b"HPUB " if headers else b"PUB ") + subject + b" " + size + b"\r\n" + headers + b"x\r\n")
    writer.write(b"PING\r\n")
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"PONG\r\n")).count(b"-ERR") == 0
    writer.close()


async def test_odd_subjects_and_headers_of_any_client_stop_no_reader(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        media = [(b"rigflow.media." + token + b".p", b"") for token in ODD_SUBJECTS]
        media += [(b"rigflow.media.main.p", headers) for headers in ODD_HEADERS]
        await publish_raw(settings.nats, media)
        taken = Taken()
        pull = Pull(broker, broker.names.media_stream("p"), "interactive", taken.take)
        await pull.open()
        pull.request(100)
        await taken.until(len(media), within_s=20)
        assert {delivery.deliveries for delivery in taken.deliveries} == {1}
        await pull.close()
        assert broker.connection.losses == 0


async def test_a_status_that_a_client_wrote_ends_no_list_and_hides_no_value(settings: Settings) -> None:
    async with a_broker(settings) as broker:
        bucket = broker.names.jobs
        forged = [(f"$KV.{bucket}.main.b{number}".encode(), odd) for number, odd in enumerate(ODD_HEADERS)]
        await publish_raw(settings.nats, forged)
        await broker.put(bucket, "main.z", b"good")
        items = await broker.items(bucket, "main.*")
        assert items["main.z"] == b"good"
        assert len(items) == len(forged) + 1
        stored = [await broker.last(f"KV_{bucket}", subject.decode()) for subject, _ in forged]
        assert [each.body for each in stored if each is not None] == [b"x"] * len(forged)
