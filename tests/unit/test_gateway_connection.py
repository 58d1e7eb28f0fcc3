"""Connections to the gateway: what is slow, too large, broken or unread is answered or cut off, and nothing waits."""

import asyncio
import gc
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from gateway.connection import Connection, Limits
from gateway.server import Server, listen

QUICK = Limits(head_s=0.3, body_s=0.2, body_bytes=1000, unread_s=0.4, linger_s=0.3)
LEFT: list[str] = []  # requests whose clients went away


def _app() -> FastAPI:
    app = FastAPI()
    app.state.stop = lambda: None

    @app.post("/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.post("/slowly")
    async def slowly(request: Request) -> int:
        total = 0
        async for piece in request.stream():
            total += len(piece)
            await asyncio.sleep(0.5)
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

    return app


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    listening = listen("127.0.0.1", 0)
    before, Connection.limits = Connection.limits, QUICK
    server = Server(_app())
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    yield listening.getsockname()[1]
    server.stop()
    thread.join()
    Connection.limits = before
    listening.close()


def _answers(port: int, *pieces: bytes, pause_s: float = 0.0, ends: bool = False) -> tuple[bytes, float]:
    """All that comes back until the gateway closes, and after how many seconds it has closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(pause_s)
        if ends:
            client.shutdown(socket.SHUT_WR)
        began_s, came = time.monotonic(), b""
        while piece := client.recv(1 << 16):
            came += piece
        return came, time.monotonic() - began_s


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
    port: int, pieces: tuple[bytes, ...], status: int
) -> None:
    answer, took_s = _answers(port, *pieces)
    assert _status(answer) == status, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert json.loads(body)["status"] == status
    assert b"connection: close" in head.lower()
    assert took_s < 5.0


def test_a_request_without_an_end_gets_an_answer(port: int) -> None:
    for pieces in ((HEAD + b"Content-Length: 100\r\n\r\nabc",), (b"GET / HT",)):
        answer, _ = _answers(port, *pieces, ends=True)
        assert _status(answer) == 400
        assert b"before its end" in answer


def test_a_client_that_says_nothing_is_let_go(port: int) -> None:
    assert _answers(port)[0] == b""


def test_a_body_a_byte_at_a_time_is_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        client.settimeout(0.05)
        for _ in range(200):
            client.sendall(b"a")
            try:
                came = client.recv(100)
                break
            except TimeoutError:
                continue
        assert _status(came) == 408


def test_a_body_that_the_gateway_takes_slowly_is_not_refused(port: int) -> None:
    body = bytes(200_000)
    answer, _ = _answers(
        port, HEAD.replace(b"read", b"slowly") + b"Connection: close\r\nContent-Length: 200000\r\n\r\n", body
    )
    assert _status(answer) == 200
    assert answer.endswith(b"200000")


def test_a_body_that_pauses_for_a_moment_is_taken(port: int) -> None:
    pieces = [HEAD + b"Connection: close\r\nContent-Length: 8000\r\n\r\n", *[bytes(2000)] * 4]
    assert _answers(port, *pieces, pause_s=0.15)[0].endswith(b"8000")


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
def test_an_answer_that_comes_early_reaches_a_client_that_still_sends(port: int, header: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(HEAD.replace(b"read", b"full") + header + b"Content-Length: 1000000000\r\n\r\n")
        sent = 0
        try:
            while sent < 1_000_000_000:
                sent += client.send(bytes(1 << 16))
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert _status(client.recv(1 << 16)) == 503


def test_an_early_answer_to_a_small_body_keeps_the_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(HEAD.replace(b"read", b"full") + b"Content-Length: 10\r\n\r\n")
        assert _status(client.recv(1 << 16)) == 503
        client.sendall(bytes(10) + HEAD + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc")
        assert client.makefile("rb").read().endswith(b"3")


def test_requests_in_a_row_are_answered_in_order(port: int) -> None:
    bodies = (b"a", b"bb", b"ccc")
    requests = b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies)
    answer, _ = _answers(port, requests + HEAD + b"Connection: close\r\nContent-Length: 4\r\n\r\ndddd")
    assert answer.count(b"HTTP/1.1 200") == 4
    assert [part[-1:] for part in answer.split(b"\r\n\r\n")[1:]][-1] == b"4"


def test_a_client_that_does_not_read_is_cut_off(port: int) -> None:
    LEFT.clear()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        until_s = time.monotonic() + 10
        while not LEFT and time.monotonic() < until_s:
            time.sleep(0.05)
    assert LEFT == ["endless"]


def test_old_clients_are_answered(port: int) -> None:
    answer, _ = _answers(port, b"POST /read HTTP/1.0\r\nContent-Length: 2\r\n\r\nab")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"2")


def test_a_server_that_stops_at_once_closes_every_connection() -> None:
    listening = listen("127.0.0.1", 0)
    server = Server(_app())
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    with socket.create_connection(listening.getsockname(), timeout=5) as client:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100")  # its body never comes
        gc.disable()
        try:
            server.stop()
            server.stop()
            thread.join()
            with suppress(ConnectionResetError):
                assert client.recv(100) == b""
        finally:
            gc.enable()
