"""What a gateway holds: after any number of requests the same objects, and of uploads that wait a bounded part."""

import asyncio
import gc
import socket
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from pipelines.server import EmbeddedServer  # noqa: E402
from schemas.settings import MIB, Settings  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from tests.integration.test_gateway import JOBS, _registered, client  # noqa: E402

KEPT = 64 * MIB  # of media, of which uploads may fill 48
SUBMIT = f"{JOBS}?pipeline=simulated"
BODY = bytes(47 * MIB)
WAITING = 40 * MIB  # more than the system holds for a connection
HEAD = f"POST {SUBMIT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {WAITING}\r\n\r\n".encode()
UPLOADS, HELD = 16, 3 << 16  # most bytes of an upload that waits
OURS = ("gateway", "pipelines", "schemas", "uvicorn", "h11", "starlette", "fastapi", "nats", "asyncio", "_asyncio")


@pytest.fixture
def full(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A gateway of a fleet whose store of media is full, and which has no workers."""
    settings = Settings(nats=server.url, results_bytes=KEPT)
    asyncio.run(_registered(settings))
    with Gateway(settings) as gateway:
        with client(gateway.url) as http:
            assert http.post(SUBMIT, content=BODY[: 47 * MIB]).status_code == 201
        for module in ("gateway.uploads", "gateway.api.tus"):
            monkeypatch.setattr(f"{module}.PATIENCE_S", 0.01)
        yield gateway.url


def _objects() -> Counter[str]:
    """How many objects there are of each class of the gateway and what it is made of, without frozen ones.

    An event loop keeps cancelled timers, some hundred at most.
    """
    gc.collect()
    kinds = Counter(type(each) for each in gc.get_objects() if not isinstance(each, asyncio.TimerHandle))
    return Counter({repr(kind): n for kind, n in kinds.items() if str(kind.__module__).split(".")[0] in OURS})


def _bytes() -> int:
    """Bytes that code of those packages allocated and still holds."""
    gc.collect()
    filters = [tracemalloc.Filter(True, f"*/{name}/*") for name in OURS]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(filters).traces)


def _round(http: httpx.Client, number: int) -> None:
    """Requests of each kind: refused, taken, followed by a client that goes away, deleted, unknown."""
    refused = http.post(SUBMIT, content=iter([BODY[:MIB]] * 2))
    assert (refused.status_code, refused.json()["code"]) == (503, "fleet-full")
    with socket.create_connection((http.base_url.host, http.base_url.port)) as sender:  # before any byte is sent
        sender.sendall(HEAD)
        assert b" 503 " in sender.recv(100)
    for size, status in ((2 * MIB, 503), (65 * MIB, 413)):
        begin = {"Tus-Resumable": "1.0.0", "Upload-Length": str(size)}
        assert http.post("/api/v1/uploads?pipeline=simulated", headers=begin).status_code == status
    job = http.post(SUBMIT, content=b"media", headers={"Idempotency-Key": f"job-{number}"}).json()["id"]
    assert [each["id"] for each in http.get(f"{JOBS}?limit=1").json()["jobs"]] == [job]
    for _ in range(3):
        with http.stream("GET", f"{JOBS}/{job}/events") as stream:
            next(stream.iter_lines())
    assert http.delete(f"{JOBS}/{job}").status_code == 204
    assert http.get(f"{JOBS}/{job}").status_code == 404


def test_a_gateway_holds_no_more_after_many_requests(full: str) -> None:
    with client(full) as http:
        for number in range(2):
            _round(http, number)
    gc.collect()
    gc.freeze()  # what is there now is not counted
    try:
        with client(full) as http:
            for number in range(2, 6):
                _round(http, number)
        for _ in range(50):  # what ends a moment after its answer
            grown = _objects()
            if max(grown.values(), default=0) < 10:
                break
            time.sleep(0.1)
        assert max(grown.values(), default=0) < 10, f"of 4 rounds: {grown.most_common(8)}"
    finally:
        gc.unfreeze()


def test_uploads_that_wait_for_a_full_fleet_are_held_by_their_senders(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.uploads.PATIENCE_S", 300.0)
    port = int(full.rpartition(":")[2])
    tracemalloc.start()
    try:
        with ExitStack() as stack:
            senders = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(UPLOADS)]
            for sender in senders:
                sender.sendall(HEAD)
                sender.setblocking(False)
            left, calm = dict.fromkeys(senders, WAITING), 0
            while calm < 20:  # until nothing more is taken
                calm += 1
                for sender in senders:
                    with suppress(BlockingIOError):
                        left[sender] -= sender.send(memoryview(BODY)[: left[sender]])
                        calm = 0
                time.sleep(0.05)
            assert all(left.values()), "each waits"
            assert _bytes() < UPLOADS * HELD
    finally:
        tracemalloc.stop()
    with client(full) as http:  # with room, the gateway reads on and sees that they have gone
        for job in http.get(JOBS).json()["jobs"]:
            http.delete(f"{JOBS}/{job['id']}")
