"""Measures what tenants get of a fleet, on real workers of a simulated pace.

`python -m benchmarks.shares [--seconds 600] [--bulk 10000] [--clips 40]`. First two tenants of weights 1 and 3 keep
their queues full, and the shares of what workers did for each are printed; `--seconds 0` leaves that out. Then a person
sends clips of five seconds, one after the other: with nothing else to do, and behind so many segments of bulk work of
another tenant, of the same weight. There a pause as long as a clip takes follows each clip, so that the person's tenant
stays within its share; then without one, and so with more than its share, which `placement.fair_share` limits.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections import Counter
from contextlib import aclosing, suppress
from pathlib import Path

import nats
from nats.aio.msg import Msg

from benchmarks.fleet import simulated
from engines.media.medium import Input
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.job_events import Ended
from pipelines.publish import Publisher
from pipelines.tenant_admin import set_tenants
from schemas.jobs import Priority
from schemas.parts import PartHeader
from schemas.pipeline import PipelineSpec
from schemas.subjects import HEADER_TYPE
from schemas.tenants import Tenant
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.simulated import models_of
from workers.definitions import register

WEIGHTS = {"one": 1.0, "three": 3.0}
AT_ONCE = 4  # jobs of a tenant that are sent at the same time, so that its queue is never empty
WARM_S = 5.0  # until both tenants have work and paces are known


async def keep_busy(broker: Broker, spec: PipelineSpec, tenant: str, clip: Path, name: str) -> None:
    """Publish jobs of a tenant one after the other, for ever."""
    publisher, number = Publisher(broker, spec, tenant, Priority.BULK), 0
    while True:
        number += 1
        await publisher.publish(publisher.ref(f"job-{name}-{number}"), "video", [Input(clip, "clip")])


async def shares(fleet: Fleet, clip: Path, seconds: float) -> None:
    """Print the share of each tenant in the frames that workers did."""
    async with Broker.connected(fleet.settings, "shares") as broker:
        spec = await register(broker, fleet.settings, simulated(), models_of(simulated()))
        await set_tenants(broker, fleet.settings, {name: Tenant(weight=weight) for name, weight in WEIGHTS.items()})
        done: Counter[str] = Counter()

        async def count(message: Msg) -> None:
            headers = message.headers or {}
            if headers.get(HEADER_TYPE) == "part":
                done[message.subject.split(".")[2]] += PartHeader.parse(headers).frames

        client = await nats.connect(fleet.settings.nats)
        await client.subscribe("rigflow.results.*.>", cb=count)
        busy = [(tenant, str(number)) for tenant in WEIGHTS for number in range(AT_ONCE)]
        tasks = [asyncio.create_task(keep_busy(broker, spec, tenant, clip, name)) for tenant, name in busy]
        await asyncio.sleep(WARM_S)
        done.clear()
        began_s, steps = time.monotonic(), max(1, round(seconds / 60))
        for step in range(steps):
            await asyncio.sleep(max(0.0, began_s + (step + 1) * seconds / steps - time.monotonic()))
            share = done["three"] / max(1, done.total())
            print(
                f"  {time.monotonic() - began_s:4.0f} s: {done.total()} frames, share of weight 3: {share:.4f}",
                flush=True,
            )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()


async def latencies(broker: Broker, spec: PipelineSpec, clip: bytes, clips: int, pause_s: float = 0.0) -> list[float]:
    """Seconds from sending a clip to its end, one after the other, with a pause behind each."""
    found, client = [], Client(broker, "person")
    for number in range(clips):
        began_s = time.monotonic()
        job = await client.submit(spec, clip, job=f"clip-{time.time_ns()}-{number}", priority=Priority.INTERACTIVE)
        async with aclosing(job.events()) as events:
            async for event in events:
                if isinstance(event, Ended):
                    break
        found.append(time.monotonic() - began_s)
        await asyncio.sleep(pause_s)
    return found


async def waiting(fleet: Fleet, bulk_clip: Path, clip: Path, bulk: int, clips: int) -> None:
    """Print how long a person waits, idle and behind bulk work."""
    async with Broker.connected(fleet.settings, "shares") as broker:
        spec = await register(broker, fleet.settings, simulated(), models_of(simulated()))
        tenants = {"person": Tenant(), "bulk": Tenant()}
        await set_tenants(broker, fleet.settings, tenants)
        content = clip.read_bytes()
        await latencies(broker, spec, content, 3)
        idle = await latencies(broker, spec, content, clips)
        publisher = Publisher(broker, spec, "main", Priority.BULK)  # whose queue is not kept short
        sent = 0
        while sent < bulk:
            sent += await publisher.publish(publisher.ref(f"bulk-{sent}"), "video", [Input(bulk_clip, "bulk")])
        behind = await latencies(broker, spec, content, clips, statistics.median(idle))
        queue = f"CONSUMER.INFO.{broker.names.work_stream(spec.name, 'decode')}.bulk"
        left = (await broker.api(queue))["num_pending"]
        greedy = await latencies(broker, spec, content, clips)
    rows = (("idle", idle), (f"behind {left} segments", behind), ("and without pauses", greedy))
    for name, found in rows:
        print(f"  {name}: p50 {statistics.median(found):.3f} s, p99 {percentile(found):.3f} s of {len(found)}")
    for name, found in rows[1:]:
        print(f"  p99 {name} is {percentile(found) / percentile(idle):.2f} x that of an idle fleet", flush=True)


def percentile(found: list[float], of: float = 0.99) -> float:
    """The value that so many are not above."""
    return sorted(found)[min(len(found) - 1, int(of * len(found)))]


def main() -> None:
    """Measure both, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--bulk", type=int, default=10_000)
    parser.add_argument("--clips", type=int, default=40, help="0 leaves the person out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bulk_clip, clip = make_clip(folder, Clip(frames=500, gop=5)), make_clip(folder, Clip(frames=125, gop=25))
        if given.seconds:
            print(f"two tenants of weights 1 and 3 (load {os.getloadavg()[0]:.1f})")
            with Fleet(ONE_WORKER * 2, folder / "cache", pace_ms=20.0) as fleet:
                asyncio.run(shares(fleet, bulk_clip, given.seconds))
        if not given.clips:
            return
        print(f"a person's clip of 5 s (load {os.getloadavg()[0]:.1f})")
        with Fleet(ONE_WORKER, folder / "cache", pace_ms=8.0) as fleet, suppress(KeyboardInterrupt):
            asyncio.run(waiting(fleet, bulk_clip, clip, given.bulk, given.clips))


if __name__ == "__main__":
    main()
