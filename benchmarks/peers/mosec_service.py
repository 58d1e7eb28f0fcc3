"""mosec, as its documentation recommends: a service in a process of its own (`mosec_app`) and a client.

The client posts units with aiohttp, a few in flight. The service's limits on time and size are raised: the defaults
(3 s, 10 MiB) are for single images.
"""

import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from benchmarks.chain import Arrived, Finished, Task, Unit, units_of, write

ENVIRONMENT = "BENCH_MOSEC"
IN_FLIGHT = 6
READY_S = 60.0


class Mosec:
    """`workers` processes that decode and one that infers up to `batch` requests at once."""

    def __init__(self, task: Task, workers: int, split: bool, batch: int = 64) -> None:
        self._task = task
        self._workers = workers
        self._split = split
        self._batch = batch

    async def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.peers.mosec_app", "--address", "127.0.0.1", "--port", str(port)]
        command += ["--timeout", "600000", "--max-request-size", str(1 << 30), "--log-level", "warning"]
        task = json.dumps([self._task.pipeline, self._task.models_folder, self._workers, self._batch])
        self._service = subprocess.Popen(command, env={**os.environ, ENVIRONMENT: task})
        self._url = f"http://127.0.0.1:{port}"
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        async with asyncio.timeout(READY_S):
            while not await self._is_ready():
                await asyncio.sleep(0.05)

    async def run(self, paths: Sequence[Path], out: Path, arrived: Arrived) -> None:
        turn = asyncio.Semaphore(IN_FLIGHT)
        units = units_of(self._task, paths, self._split)

        async def post(unit: Unit) -> Finished:
            try:
                body = pickle.dumps(unit)
                async with self._client.post(f"{self._url}/inference", data=body) as answer:
                    answer.raise_for_status()
                    finished: Finished = pickle.loads(await answer.read())
                    arrived()
                    return finished
            finally:
                turn.release()

        posts = []
        async with asyncio.TaskGroup() as group:
            while True:
                await turn.acquire()
                if (unit := next(units, None)) is None:
                    break
                posts.append(group.create_task(post(unit)))
        write(self._task, paths, [each.result() for each in posts], out)

    async def stop(self) -> None:
        await self._client.close()
        self._service.send_signal(signal.SIGINT)
        await asyncio.to_thread(self._service.wait, 20)

    def broker_bytes(self) -> int:
        return 0

    async def _is_ready(self) -> bool:
        assert self._service.poll() is None, "the service ended"
        try:
            async with self._client.get(f"{self._url}/metrics") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


make = Mosec
