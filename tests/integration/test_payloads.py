"""Payloads of any size that come in one go, among others."""

import asyncio
import random
from typing import Any

import pytest
from nats.aio.msg import Msg

from pipelines.connection import Connection
from schemas.settings import Settings

MIB = 1 << 20
SIZES = (0, 1, 70_000, 200, 3 * MIB, 5, 5, 7 * MIB, 65_536, 0, 262_144, MIB, 33)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("with_headers", [False, True])
async def test_they_come_as_they_were_sent_and_in_order(settings: Settings, with_headers: bool, at_once: bool) -> None:
    """Together they are more than a connection holds before it stops reading."""
    made = random.Random(0)
    bodies = [made.randbytes(size) for size in (*SIZES, *made.sample(SIZES, len(SIZES)))]
    came: list[tuple[bytes, str]] = []
    complete = asyncio.Event()

    def take_now(message: Msg) -> None:
        came.append((message.data, (message.headers or {}).get("Number", "")))
        if len(came) == len(bodies):
            complete.set()

    async def take(message: Msg) -> None:
        take_now(message)

    publisher, receiver = [await Connection.open(settings, name) for name in ("publisher", "receiver")]
    if at_once:
        await receiver.nc.subscribe_now("payloads", take_now)
    else:
        await receiver.nc.subscribe("payloads", cb=take, pending_bytes_limit=0)
    await receiver.flush()
    numbers = [str(number) if with_headers else "" for number in range(len(bodies))]
    for number, body in zip(numbers, bodies, strict=True):
        publisher.send("payloads", body, headers={"Number": number} if number else None)
    async with asyncio.timeout(60):
        await complete.wait()
    assert came == list(zip(bodies, numbers, strict=True))
    assert all(type(body) is bytes for body, _ in came)
    for connection in (publisher, receiver):
        await connection.close()


async def test_what_is_sent_in_one_step_of_the_event_loop_is_written_in_one_go(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await Connection.open(settings, "sender")
    await connection.flush()
    transport: Any = connection.nc._transport
    write, writes = transport.writelines, []

    def written(pieces: list[bytes]) -> None:
        writes.append(len(pieces))
        write(pieces)

    monkeypatch.setattr(transport, "writelines", written)
    for number in range(3):
        connection.send("steps", b"%d" % number)
    await connection.flush()
    assert writes == [3]
    await connection.close()
