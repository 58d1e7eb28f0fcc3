"""FastStream on NATS JetStream, as its documentation recommends: a pull subscriber that publishes each result.

`workers` processes are started by its own command line. A message is a unit; the handler is a plain function, which
FastStream runs in a thread of its own, because the work would block its loop.
"""

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import nats
from nats.js.api import RetentionPolicy, StreamConfig

from benchmarks.chain import Arrived, Finished, Task, units_of, write
from benchmarks.peers.rigflow import broker_bytes
from pipelines.server import EmbeddedServer

ENVIRONMENT = "BENCH_QUEUE"
WORK, RESULTS = "bench.work", "bench.results"
IN_FLIGHT = 8


class Queue:
    """A nats-server, `workers` processes, and this process, which publishes and gathers."""

    def __init__(self, task: Task, workers: int, split: bool) -> None:
        self._task = task
        self._workers = workers
        self._split = split
        self._server = EmbeddedServer()

    async def start(self) -> None:
        self._server.start()
        self._client = await nats.connect(self._server.url, pending_size=64 << 20)
        self._stream = self._client.jetstream()
        await self._stream.add_stream(StreamConfig(name="work", subjects=[WORK], retention=RetentionPolicy.WORK_QUEUE))
        await self._stream.add_stream(StreamConfig(name="results", subjects=[RESULTS]))
        given = json.dumps([self._server.url, self._task.pipeline, self._task.models_folder])
        faststream = Path(sysconfig.get_path("scripts")) / "faststream"
        self._service = subprocess.Popen(
            [str(faststream), "run", "benchmarks.peers.queue_app:app", "--workers", str(self._workers)],
            env={**os.environ, ENVIRONMENT: given, "PYTHONPATH": os.getcwd()},
            stdout=sys.stderr,
            start_new_session=True,  # it signals its process group, which would end this process too
        )
        self._results = await self._stream.subscribe(RESULTS, ordered_consumer=True, pending_msgs_limit=1 << 20)

    async def run(self, paths: Sequence[Path], out: Path, arrived: Arrived) -> None:
        sent = 0
        flying: set[asyncio.Task[object]] = set()
        for unit in units_of(self._task, paths, self._split):
            sent += 1
            flying.add(asyncio.create_task(self._stream.publish(WORK, pickle.dumps(unit))))
            if len(flying) == IN_FLIGHT:
                _, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
        finished: list[Finished] = []
        while len(finished) < sent:
            message = await self._results.next_msg(timeout=600)
            arrived()
            finished.append(pickle.loads(message.data))
        await asyncio.gather(*flying)
        write(self._task, paths, finished, out)

    async def stop(self) -> None:
        await self._client.close()
        self._service.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self._service.wait, 20)
        self._server.stop()

    def broker_bytes(self) -> int:
        return broker_bytes(self._server)


make = Queue
