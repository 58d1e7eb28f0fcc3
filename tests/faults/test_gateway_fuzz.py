"""Odd requests to a gateway: no answer is an error of the gateway, and nothing is written outside of the store."""

import asyncio
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from onnx import helper

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from pipelines.broker import Broker  # noqa: E402
from pipelines.registry import builtin_pipeline  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.cli import COMMAND, environment  # noqa: E402
from tests.clips import real_clip  # noqa: E402
from tests.faults.odd_requests import OddRequests  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.onnx_graphs import FLOAT, model_of, value  # noqa: E402
from workers.definitions import find_models, register, register_builtin  # noqa: E402

SEED, AT_ONCE = 20261128, 16
SHORT, ENTIRE = 300, 10_000
WAIT_S = 60.0  # for an answer
# of Triton's protocol, which say in words that they are not offered; nothing else answers 501
NOT_OFFERED = re.compile(
    r"/v2/(systemsharedmemory|cudasharedmemory)/|/v2/logging|(/v2/models/[^/]*)?/trace/setting"
    r"|/v2/repository/models/[^/]*/[^/]*$|/v2/models/[^/]*(/versions/[^/]*)?/generate(_stream)?$"
)


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway in a process of its own. `home` is its home, temporary folder and working folder."""

    port: int
    process: "subprocess.Popen[bytes]"
    home: Path
    log: Path


@contextmanager
def served(nats: str, folder: Path) -> Iterator[Served]:
    """A gateway for a block."""
    home, log = folder / "home", folder / "log"
    home.mkdir()
    command = [*COMMAND, "gateway", "--port", "0", "--nats", nats]
    with log.open("wb") as written:
        own = environment() | {"HOME": str(home), "TMPDIR": str(home)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written, env=own, cwd=home)
    assert process.stdout is not None
    try:
        found = re.search(rb"http://\S+:(\d+)", process.stdout.readline())
        assert found is not None, log.read_text()
        yield Served(int(found[1]), process, home, log)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


async def _registered(settings: Settings, folder: Path) -> None:
    """The pipeline `fingerprint`, and a model for /v2."""
    folder.mkdir()
    graph = model_of(
        [helper.make_node("Relu", ["x"], ["y"])], [value("x", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 4])]
    )
    (folder / "net.onnx").write_bytes(graph)
    spec = builtin_pipeline("infer").with_model("net")
    await register_builtin(settings)
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, spec, find_models(spec, folder), variant=True)


def _is_allowed(status: int, path: str) -> bool:
    """Whether a status is an answer: 503 of a full fleet, and 501 of what is not offered."""
    return (
        100 < status < 500 or status == 503 or (status == 501 and NOT_OFFERED.match(path.partition("?")[0]) is not None)
    )


async def _answer(port: int, sent: bytes, has_no_end: bool) -> int:
    """The status of a request's answer; 0 where there is none. A request that has no end is ended after a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = b""
    with suppress(ConnectionError, TimeoutError):
        writer.write(sent)
        await writer.drain()
        answer = asyncio.create_task(reader.readline())
        await asyncio.wait([answer], timeout=1.0 if has_no_end else WAIT_S)
        if has_no_end and not answer.done():
            writer.write_eof()
        async with asyncio.timeout(WAIT_S):
            line = await answer
    writer.close()
    found = re.match(rb"HTTP/1\.[01] (\d{3})", line)
    return int(found[1]) if found else 0


async def _fuzzed(port: int, requests: int, file: str) -> tuple[Counter[int], list[tuple[int, str, bytes]]]:
    """How many answers have each status, and the requests that failed the gateway."""
    made, statuses, wrong = OddRequests(SEED, file), Counter[int](), list[tuple[int, str, bytes]]()
    left = iter([made.request() for _ in range(requests)])

    async def send() -> None:
        for path, sent, has_no_end in left:
            status = await _answer(port, sent, has_no_end)
            statuses[status] += 1
            if not _is_allowed(status, path):
                wrong.append((status, path, sent[:2000]))

    await asyncio.gather(*(send() for _ in range(AT_ONCE)))
    return statuses, wrong


def _fuzz(tmp_path: Path, requests: int) -> None:
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        asyncio.run(_registered(fleet.settings, tmp_path / "models"))
        with served(fleet.settings.nats, tmp_path) as gateway:
            url = f"http://127.0.0.1:{gateway.port}"
            with httpx.Client(base_url=f"{url}/api/v1", timeout=60) as http:
                body = real_clip("bikes").read_bytes()
                http.post("/jobs?pipeline=fingerprint&name=a.mp4", content=body, headers={"Idempotency-Key": "known"})
                with http.stream("GET", "/jobs/known/events") as events:
                    assert any("event: done" in line for line in events.iter_lines())
                before = sorted(gateway.home.rglob("*"))
                statuses, wrong = asyncio.run(_fuzzed(gateway.port, requests, "a.fingerprint.npz"))
                print(f"{requests} odd requests, seed {SEED}: {dict(sorted(statuses.items()))}")
                assert gateway.process.poll() is None
                assert http.get("/jobs/known").status_code in (200, 404)  # one of them may delete it
                log = gateway.log.read_text()
                assert wrong == []
                assert "Traceback" not in log, log[-6000:]
                assert statuses[200] > requests / 50
                assert sorted(gateway.home.rglob("*")) == before


def test_odd_requests_get_answers_in_words(tmp_path: Path) -> None:
    _fuzz(tmp_path, SHORT)


@pytest.mark.slow
def test_ten_thousand_odd_requests_get_answers_in_words(tmp_path: Path) -> None:
    _fuzz(tmp_path, ENTIRE)
