"""Measures streams with 100,000 queued parts: the rates of publishing and fetching, and the server's memory.

`python -m benchmarks.depth [--parts 100000] [--json FILE]`. Small parts are published into one queue without a
consumer, then all of them are pulled and acked as by a worker. Rates are of each tenth of them.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.queue_cost import part_of
from engines.part import decode_part, encode_part
from pipelines.broker import Broker
from pipelines.delivery import Delivery
from pipelines.pull import Pull
from pipelines.registry import builtin_pipeline
from pipelines.server import EmbeddedServer
from pipelines.topology import apply_topology
from schemas.jobs import Priority
from schemas.messages import decode
from schemas.parts import PartMessage
from schemas.settings import Settings

PARTS, PART_BYTES, STEPS = 100_000, 1024, 10
IN_FLIGHT = 64
FETCHED = 256  # parts asked for and not settled yet
QUEUE_BYTES = 1 << 30


async def depth(parts: int) -> list[dict[str, Any]]:
    """A record for each tenth: parts queued at its end, its rates, and the server's memory."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder) / "store")
        server.start()
        try:
            settings = Settings(nats=server.url, queue_bytes=QUEUE_BYTES)
            broker = await Broker.connect(settings, name="depth")
            await apply_topology(broker, settings, [builtin_pipeline("fingerprint")])
            step = parts // STEPS
            idle = measure.rss_bytes([server.pid])
            published = [await _publish(broker, turn * step, step, server.pid) for turn in range(STEPS)]
            fetched = await _fetch(broker, step, server.pid)
            await broker.close()
        finally:
            server.stop()
    records = []
    for turn, (rate, held) in enumerate(published):
        # the tenth that begins at a depth is fetched from that depth down
        fetch_rate, fetch_held = fetched[STEPS - 1 - turn]
        at = {"kind": "depth", "queued": (turn + 1) * step, "idle_bytes": idle}
        record = {**at, "publish_rate": rate, "server_bytes": held, "fetch_rate": fetch_rate}
        records.append({**record, "server_bytes_fetching": fetch_held})
    return records


async def _publish(broker: Broker, first: int, count: int, server_pid: int) -> tuple[float, int]:
    """Parts a second, and the server's memory after them."""
    bodies = [(number, part_of(PART_BYTES, number)) for number in range(first, first + count)]
    subject = broker.names.work("fingerprint", "infer", Priority.BULK)
    began = time.perf_counter()
    flying: set[asyncio.Task[Any]] = set()
    for _, part in bodies:
        sending = broker.publish(subject, encode_part(part), part.meta.key.message_id("infer"))
        flying.add(asyncio.create_task(sending))
        if len(flying) >= IN_FLIGHT:
            _, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*flying)
    return count / (time.perf_counter() - began), measure.rss_bytes([server_pid])


async def _fetch(broker: Broker, step: int, server_pid: int) -> list[tuple[float, int]]:
    """The same of each tenth as it is pulled, read and acked; the deepest first."""
    tenths: list[tuple[float, int]] = []
    done = 0
    over = asyncio.Event()
    began = time.perf_counter()

    async def take(delivery: Delivery) -> None:
        nonlocal done, began
        message, buffers = decode(await delivery.load())
        assert isinstance(message, PartMessage)
        assert decode_part(message, buffers).nbytes == PART_BYTES
        await delivery.ack()
        done += 1
        pull.request(1)
        if done % step == 0:
            now = time.perf_counter()
            tenths.append((step / (now - began), measure.rss_bytes([server_pid])))
            began = now
            if len(tenths) == STEPS:
                over.set()

    pull = Pull(broker, broker.names.work_stream("fingerprint", "infer"), Priority.BULK.value, take)
    await pull.open()
    pull.request(FETCHED)
    await over.wait()
    await pull.close()
    return tenths


def show(records: list[dict[str, Any]]) -> None:
    """The figures as a table."""
    print(f"{'queued':>10} {'published/s':>12} {'fetched/s':>10} {'server MB':>10} {'fetching':>9}")
    for record in records:
        held = [record[name] / 1e6 for name in ("server_bytes", "server_bytes_fetching")]
        print(
            f"{record['queued']:10,} {record['publish_rate']:12,.0f} {record['fetch_rate']:10,.0f}"
            f" {held[0]:10.0f} {held[1]:9.0f}"
        )


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=PARTS)
    parser.add_argument("--json", type=Path, help="append a line of json for each row to this file")
    options = parser.parse_args()
    records = uvloop.run(depth(options.parts))
    show(records)
    if options.json:
        with options.json.open("a") as lines:
            lines.writelines(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()
