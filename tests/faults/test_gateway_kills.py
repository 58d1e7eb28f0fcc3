"""A gateway that is killed loses nothing: clients that repeat their requests with their keys get each job once."""

import asyncio
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from benchmarks.fleet import simulated  # noqa: E402
from pipelines.broker import Broker  # noqa: E402
from pipelines.job_records import all_manifests  # noqa: E402
from pipelines.result_index import result_index  # noqa: E402
from schemas.settings import Settings  # noqa: E402
from tests.cli import COMMAND, environment  # noqa: E402
from tests.clips import Clip, make_clip  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.simulated import models_of  # noqa: E402
from workers.definitions import register  # noqa: E402

JOBS, AT_ONCE, KILLS = 1000, 1000, 3


class Killed:
    """A gateway in a process of its own, on the same port after each kill."""

    def __init__(self, nats: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._nats = nats
        self.start()

    def start(self) -> None:
        command = [*COMMAND, "gateway", "--port", str(self.port), "--nats", self._nats]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
        assert self._process.stdout is not None
        assert re.search(rb"http://", self._process.stdout.readline())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


async def _job(http: "httpx.AsyncClient", number: int, body: bytes) -> str:
    """Submit a job under its key until it is taken, and wait until it is over; its digest."""
    key = f"job-{number}"
    digest = ""
    while not digest:
        try:
            made = await http.post("/jobs?pipeline=simulated", content=body, headers={"Idempotency-Key": key})
            assert made.status_code in (200, 201, 503), made.text
            if made.status_code != 503:
                async with http.stream("GET", f"/jobs/{key}/events") as events:
                    lines = [line async for line in events.aiter_lines()]
                text = "".join(lines)
                assert '"state": "failed"' not in text, text
                digest = "".join(re.findall(r'"digest": "(\w+)"', text))
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    return digest


async def _all(settings: Settings, gateway: Killed, body: bytes) -> list[str]:
    async with Broker.connected(settings, "test") as broker:
        await register(broker, settings, simulated(), models_of(simulated()))
    limits = httpx.Limits(max_connections=2 * AT_ONCE)
    base = f"http://127.0.0.1:{gateway.port}/api/v1"
    ended: list[str] = []
    async with httpx.AsyncClient(base_url=base, timeout=120, limits=limits) as http:
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with turn:
                ended.append(await _job(http, number, body))

        async with asyncio.TaskGroup() as tasks:
            for number in range(JOBS):
                tasks.create_task(one(number))
            for kill in range(1, KILLS + 1):
                while len(ended) < kill * JOBS // (KILLS + 1):
                    await asyncio.sleep(0.05)
                await asyncio.to_thread(gateway.kill)
                await asyncio.to_thread(gateway.start)
    return ended


async def _counted(settings: Settings) -> tuple[int, set[str], int]:
    """Jobs that the broker knows, their states, and files of results."""
    async with Broker.connected(settings, "test") as broker:
        known = await all_manifests(broker)
        subject = f"{broker.names.prefix}.results.main.simulated.*"
        kinds = [stored.headers["Rigflow-Type"] async for stored in result_index(broker, [subject])]
    return len(known), {each.state.value for each in known}, kinds.count("file")


@pytest.mark.slow
def test_every_job_is_done_once_though_the_gateway_is_killed(tmp_path: Path) -> None:
    body = make_clip(tmp_path, Clip(frames=10)).read_bytes()
    with Fleet([*ONE_WORKER] * 2, tmp_path / "cache", pace_ms=0.0) as fleet:
        gateway = Killed(fleet.settings.nats)
        try:
            ended = asyncio.run(_all(fleet.settings, gateway, body))
        finally:
            gateway.kill()
        assert len(ended) == JOBS
        assert len(set(ended)) == 1, "all jobs have the same media"
        assert asyncio.run(_counted(fleet.settings)) == (JOBS, {"done"}, JOBS)
