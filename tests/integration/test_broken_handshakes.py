"""Connections that break during their handshake, with the event loop of workers, uvloop: it raises its own errors."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop

from pipelines.broker import Broker
from pipelines.inbox import Away
from schemas.settings import Settings

ENOUGH_S = 20.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close resets the connection


class Breaking:
    """A proxy of a broker. While `breaks`, it resets each connection after `lines` lines of the server: INFO, PONG."""

    def __init__(self, port: int, lines: int) -> None:
        self._port, self._lines = port, lines
        self.breaks = False
        self.broken = 0
        self.more_broke = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Break all connections."""
        for writer in self._open:
            if not writer.is_closing():
                writer.transport.abort()
        self._open.clear()

    async def end(self) -> None:
        """Break all connections, and wait until they are closed."""
        self.cut()
        if self._serving:
            await asyncio.wait(self._serving)
        await asyncio.sleep(0)

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        self._serving.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, to_server}
        onward = asyncio.create_task(_copy(reader, to_server))
        if self.breaks:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            for _ in range(self._lines):
                writer.write(await from_server.readline())
            self.broken += 1
            self.more_broke.set()
        else:
            await _copy(from_server, writer)
        onward.cancel()
        writer.transport.abort()
        to_server.transport.abort()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            sink.write(data)
    except OSError:
        pass


@asynccontextmanager
async def breaking(settings: Settings, lines: int) -> AsyncIterator[tuple[Breaking, Broker]]:
    proxy = Breaking(urlsplit(settings.nats).port or 0, lines)
    listening = await asyncio.start_server(proxy.take, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    broker = await Broker.connect(settings.model_copy(update={"nats": url}))
    try:
        yield proxy, broker
        await broker.close()
    finally:
        listening.close()
        await proxy.end()


@pytest.mark.parametrize("lines", [1, 2])
def test_a_connection_is_made_anew_after_handshakes_that_broke(settings: Settings, lines: int) -> None:
    async def trial() -> None:
        async with asyncio.timeout(ENOUGH_S), breaking(settings, lines) as (proxy, broker):
            proxy.breaks = True
            proxy.cut()
            while proxy.broken < 3:
                proxy.more_broke.clear()
                await proxy.more_broke.wait()
            proxy.breaks = False
            await broker.connection.wait_connected()
            assert "total" in await broker.api("STREAM.NAMES")

    uvloop.run(trial())


def test_what_is_sent_on_a_broken_connection_is_no_traceback_and_it_is_closed(settings: Settings) -> None:
    reported = []

    async def trial() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with asyncio.timeout(ENOUGH_S), breaking(settings, 1) as (_, broker):
            client = broker.connection.nc
            transport: Any = client._transport
            transport._io_writer.transport.abort()
            client.post("x", b"first")  # nats-py does not know yet
            await client.hand_over(1.0)
            client._pending, client._pending_data_size = [b"PING\r\n"], 6
            await broker.close()
            assert broker.connection.closed

    uvloop.run(trial())
    assert not reported


def test_a_wait_for_a_connection_that_has_just_broken_says_so(settings: Settings) -> None:
    async def trial() -> None:
        async with asyncio.timeout(ENOUGH_S), breaking(settings, 1) as (_, broker):
            connection = broker.connection
            subscription = await connection.nc.subscribe("x")
            transport: Any = connection.nc._transport
            transport._io_writer.transport.abort()
            with pytest.raises(Away):  # nats-py does not know yet
                await connection.flush()
            await connection.wait_connected()
            transport = connection.nc._transport
            transport._io_writer.transport.abort()
            await connection.unsubscribe(subscription)

    uvloop.run(trial())
