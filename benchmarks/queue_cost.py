"""Measures the cost of one queue: CPU milliseconds to move a part between two stages, in one process and between two.

`python -m benchmarks.queue_cost [--rounds 5] [--json FILE]`. In one process a part is passed as it is; between two it
is packed, published with its PubAck awaited, stored, delivered, unpacked and acked. CPU of publisher, broker and
receiver are summed.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import measure
from engines.part import Part, decode_part, encode_part
from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.pull import Pull
from pipelines.registry import builtin_pipeline
from pipelines.server import EmbeddedServer
from pipelines.topology import apply_topology
from schemas.jobs import JobRef, Key, Priority
from schemas.media import MediaInfo
from schemas.messages import decode
from schemas.parts import PartMessage, PartMeta
from schemas.settings import Settings

SIZES = {"64 KB": 1 << 16, "1 MB": 1 << 20, "8 MB": 8 << 20}
ROUNDS = 5


def part_of(nbytes: int, number: int) -> Part:
    """A part that weighs `nbytes`."""
    key = Key(job=JobRef(id=f"queue-{nbytes}", pipeline="fingerprint", revision="bench"), segment=number)
    return Part(PartMeta(key=key, media=MediaInfo(kind="video")), {"pixels": np.zeros(nbytes, np.uint8)})


async def in_process(nbytes: int, count: int) -> float:
    """CPU seconds a part through an asyncio queue and the computing thread's hand-over."""
    queue: asyncio.Queue[Part] = asyncio.Queue(2)

    async def take() -> None:
        for _ in range(count):
            part = await queue.get()
            await asyncio.get_running_loop().run_in_executor(None, lambda part=part: part.nbytes)

    parts = [part_of(nbytes, number) for number in range(8)]
    before = time.process_time()
    taking = asyncio.create_task(take())
    for number in range(count):
        await queue.put(parts[number % 8])
    await taking
    return (time.process_time() - before) / count


async def between_processes(settings: Settings, server_pid: int, nbytes: int, count: int, turn: int) -> float:
    """CPU seconds a part through the queue in front of `infer`: this process publishes and receives, as two would."""
    broker = await Broker.connect(settings, name="queue_cost")
    received = asyncio.Event()
    left = count

    async def take(delivery: Delivery) -> None:
        nonlocal left
        message, buffers = decode(await delivery.load())
        assert isinstance(message, PartMessage)
        assert decode_part(message, buffers).nbytes == nbytes
        await delivery.ack()
        left -= 1
        if not left:
            received.set()

    pull = Pull(broker, broker.names.work_stream("fingerprint", "infer"), Priority.BULK.value, take)
    await pull.open()
    pull.request(count)
    pids = [os.getpid(), server_pid]
    before = sum(measure.cpu_s(pids).values())
    for number in range(count):
        part = part_of(nbytes, number + turn * count)
        subject = broker.names.work("fingerprint", "infer", Priority.BULK)
        await broker.publish(subject, encode_part(part), part.meta.key.message_id("infer"))
    await received.wait()
    used = (sum(measure.cpu_s(pids).values()) - before) / count
    await pull.close()
    await broker.close()
    return used


async def run(rounds: int, keep: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder) / "store")
        server.start()
        try:
            settings = Settings(nats=server.url)
            broker = await Broker.connect(settings, name="setup")
            await apply_topology(broker, settings, [builtin_pipeline("fingerprint")])
            await broker.close()
            print(f"{'part':8} {'one process':>14} {'two processes':>16}   CPU ms a part, median of {rounds}")
            for label, nbytes in SIZES.items():
                count = max(8, min(400, (64 << 20) // nbytes))
                local, between = [], []
                for turn in range(rounds):
                    local.append(1000 * await in_process(nbytes, 400))
                    between.append(1000 * await between_processes(settings, server.pid, nbytes, count, turn))
                print(f"{label:8} {median(local):14.3f} {median(between):16.3f}")
                if keep:
                    record = {
                        "kind": "queue_cost",
                        "bytes": nbytes,
                        "in_process_ms": median(local),
                        "between_ms": median(between),
                    }
                    with keep.open("a") as lines:
                        lines.write(json.dumps(record) + "\n")
        finally:
            server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="append a line of json for each size to this file")
    options = parser.parse_args()
    asyncio.run(run(options.rounds, options.json))
