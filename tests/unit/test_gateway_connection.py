"""Connections to the gateway: what is slow, too large, broken or unread is answered or cut off, and nothing waits.

The gateway's clock is the tests' own: its limits pass when a test says so, however slow the machine is.
"""

import asyncio
import gc
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from gateway.connection import Limits
from gateway.server import Server, listen

LIMITS = Limits()
STEP_S = 5.0  # what a test has the gateway's clock go forward at a time
LEFT: list[str] = []  # requests whose clients went away
BEGUN, GONE = threading.Event(), threading.Event()  # an answer was begun, and its client has gone


def _app() -> FastAPI:
    app = FastAPI()
    app.state.stop, app.state.methods_of = (lambda: None), (lambda _: set())

    @app.post("/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.post("/slowly")
    async def slowly(request: Request) -> int:
        total = 0
        async for piece in request.stream():
            total += len(piece)
            await asyncio.sleep(LIMITS.body_s)
        return total

    @app.post("/full")
    async def full() -> Response:
        return Response(b"full", 503, {"Retry-After": "5"})

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(1 << 16)
                    await asyncio.sleep(0)
            finally:
                LEFT.append("endless")

        return StreamingResponse(pieces())

    @app.get("/gone")
    async def gone() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            BEGUN.set()
            GONE.wait(60)  # in one step of the event loop, which learns only then that the client has gone
            for _ in range(20):
                yield bytes(1 << 16)

        return StreamingResponse(pieces())

    return app


class Loop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s

    def forward(self, seconds: float) -> None:
        """Bytes that were sent before are read before what is due then."""
        self.ahead_s += seconds
        self.call_soon_threadsafe(lambda: None)


class Gateway:
    """A server in a thread, on a port of its own."""

    def __init__(self) -> None:
        self.listening = listen("127.0.0.1", 0)
        self.server = Server(_app())
        self.loop = Loop()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self.server.serve([self.listening]))

    def stop(self) -> None:
        self.server.stop()
        self.thread.join()
        self.listening.close()

    def client(self) -> socket.socket:
        return socket.create_connection(self.listening.getsockname(), timeout=60)

    def received(self, client: socket.socket) -> bytes:
        """What comes next, while the gateway's time passes; nothing where the connection was closed."""
        client.settimeout(0.005)
        for _ in range(10_000):
            try:
                return client.recv(1 << 16)
            except TimeoutError:
                self.loop.forward(STEP_S)
        raise AssertionError("neither an answer nor an end")

    def answers(self, *pieces: bytes, pause_s: float = 0.0, ends: bool = False, passes: bool = False) -> bytes:
        """All that comes back until the gateway closes; `pause_s` between pieces. No time `passes` else."""
        with self.client() as client:
            for piece in pieces:
                client.sendall(piece)
                self.loop.forward(pause_s)
            if ends:
                client.shutdown(socket.SHUT_WR)
            came = b""
            while piece := self.received(client) if passes else client.recv(1 << 16):
                came += piece
            return came


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.stop()


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


HEAD = b"POST /read HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((b"GET /read HTTP/1.1\r\nHost: x\r\nX-A: ",), 408),
        ((b"GET ",), 408),
        ((HEAD + b"Content-Length: 100\r\n\r\nabc",), 408),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",), 408),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab",), 400),
        ((HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabXX",), 400),
        ((HEAD + b"Transfer-Encoding: gzip\r\n\r\n",), 400),
        ((HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",), 400),
        ((HEAD + b"Content-Length: -1\r\n\r\n",), 400),
        ((b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",), 431),
        ((HEAD + b"X-A: " + b"a" * 300_000 + b"\r\n\r\n",), 431),
        ((b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",), 400),
        ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",), 400),
        ((b"GET /read HTTP/1.1\r\n\r\n",), 400),
    ],
)
def test_a_request_that_is_slow_broken_or_too_large_gets_an_answer_and_an_end(
    gateway: Gateway, pieces: tuple[bytes, ...], status: int
) -> None:
    answer = gateway.answers(*pieces, passes=status == 408)
    assert _status(answer) == status, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert json.loads(body)["status"] == status
    assert b"connection: close" in head.lower()


def test_a_request_without_an_end_gets_an_answer(gateway: Gateway) -> None:
    for pieces in ((HEAD + b"Content-Length: 100\r\n\r\nabc",), (b"GET / HT",)):
        answer = gateway.answers(*pieces, ends=True)
        assert _status(answer) == 400
        assert b"before its end" in answer


def test_a_client_that_says_nothing_is_let_go(gateway: Gateway) -> None:
    assert gateway.answers(passes=True) == b""


def test_a_body_a_byte_at_a_time_is_refused(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        client.settimeout(0.02)
        came = b""
        while not came:
            client.sendall(b"a")
            try:
                came = client.recv(100)
            except TimeoutError:
                gateway.loop.forward(STEP_S)
        assert _status(came) == 408


def test_a_body_that_the_gateway_takes_slowly_is_not_refused(gateway: Gateway) -> None:
    body = bytes(200_000)
    head = HEAD.replace(b"read", b"slowly") + b"Connection: close\r\nContent-Length: 200000\r\n\r\n"
    answer = gateway.answers(head, body, passes=True)
    assert _status(answer) == 200
    assert answer.endswith(b"200000")


def test_a_body_that_pauses_for_a_moment_is_taken(gateway: Gateway) -> None:
    piece, pause_s = bytes(2 * LIMITS.body_bytes), 0.75 * LIMITS.body_s
    head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (4 * len(piece))
    assert gateway.answers(head, *[piece] * 4, pause_s=pause_s).endswith(b"%d" % (4 * len(piece)))


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
def test_an_answer_that_comes_early_reaches_a_client_that_still_sends(gateway: Gateway, header: bytes) -> None:
    with gateway.client() as client:
        client.sendall(HEAD.replace(b"read", b"full") + header + b"Content-Length: 1000000000\r\n\r\n")
        sent = 0
        try:
            while sent < 1_000_000_000:
                sent += client.send(bytes(1 << 16))
                gateway.loop.forward(LIMITS.linger_s / 100)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert _status(client.recv(1 << 16)) == 503


def test_an_early_answer_to_a_small_body_keeps_the_connection(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.sendall(HEAD.replace(b"read", b"full") + b"Content-Length: 10\r\n\r\n")
        assert _status(client.recv(1 << 16)) == 503
        client.sendall(bytes(10) + HEAD + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc")
        assert client.makefile("rb").read().endswith(b"3")


def test_requests_in_a_row_are_answered_in_order(gateway: Gateway) -> None:
    bodies = (b"a", b"bb", b"ccc")
    requests = b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies)
    answer = gateway.answers(requests + HEAD + b"Connection: close\r\nContent-Length: 4\r\n\r\ndddd")
    assert answer.count(b"HTTP/1.1 200") == 4
    assert [part[-1:] for part in answer.split(b"\r\n\r\n")[1:]][-1] == b"4"


def test_a_client_that_does_not_read_is_cut_off(gateway: Gateway) -> None:
    LEFT.clear()
    with gateway.client() as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        while not LEFT:
            gateway.loop.forward(STEP_S)
            time.sleep(0.005)
    assert LEFT == ["endless"]


def test_old_clients_are_answered(gateway: Gateway) -> None:
    answer = gateway.answers(b"POST /read HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"2")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_a_request_that_may_be_one_of_another_protocol_is_one_of_http(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, protocol: bytes
) -> None:
    upgrade = b"Connection: Upgrade, close\r\nUpgrade: %b\r\nContent-Length: 2\r\n\r\nab" % protocol
    assert gateway.answers(HEAD + upgrade).startswith(b"HTTP/1.1 200")
    # clients of earlier tests may have gone only now
    gone = [each for each in caplog.records if each.exc_info and each.exc_info[0] is ClientDisconnect]
    assert caplog.records == gone, "nobody may fill the log"


def test_a_server_that_stops_at_once_closes_every_connection() -> None:
    gateway = Gateway()
    with gateway.client() as client:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100")  # its body never comes
        gc.disable()
        try:
            gateway.server.stop()
            gateway.stop()
            with suppress(ConnectionResetError):
                assert client.recv(100) == b""
        finally:
            gc.enable()


def test_what_is_written_to_a_client_that_has_gone_is_no_warning(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    BEGUN.clear()
    GONE.clear()
    with gateway.client() as client:
        client.sendall(b"GET /gone HTTP/1.1\r\nHost: a\r\n\r\n")
        assert BEGUN.wait(60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it resets the connection
    GONE.set()
    assert gateway.answers(b"POST /full HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 503")
    assert [record.getMessage() for record in caplog.records] == []
