"""Measures how long a clip of five seconds takes from its upload to its Done: by the gateway, and by plain NATS.

`python -m benchmarks.gateway_latency [--pairs 30]`. Pairs of one job each way, in turns, on one fleet of two workers;
the first two pairs are not counted. One clip is real, of 720p; one is so small that the ways are most of the time.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import httpx
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from schemas.settings import Settings
from tests.cli import COMMAND
from tests.clips import Clip, make_clip, real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.simulated import models_of
from workers.definitions import register

WARM = 2
SMALL = Clip(frames=125)


async def by_gateway(http: httpx.AsyncClient, body: bytes) -> float:
    """Seconds from the upload to the event `done`. The stream is read to its end, which keeps its connection."""
    began_s, took_s = time.monotonic(), 0.0
    job = (await http.post("/jobs?pipeline=fingerprint&name=clip.mp4", content=body)).raise_for_status().json()["id"]
    async with http.stream("GET", f"/jobs/{job}/events") as events:
        async for line in events.aiter_lines():
            if line == "event: done":
                took_s = time.monotonic() - began_s
    assert took_s, "the events end without done"
    return took_s


async def by_nats(client: Client, body: bytes) -> float:
    """Seconds from the publish to the message Done, by a program that has nothing but NATS."""
    job, over = uuid.uuid4().hex[:20], asyncio.Event()

    async def take(message: Msg) -> None:
        if (message.headers or {}).get("Rigflow-Type") == "done":
            over.set()

    subscription = await client.subscribe(f"rigflow.results.main.fingerprint.{job}", cb=take)
    began_s = time.monotonic()
    headers = {"Rigflow-Job": job, "Rigflow-Name": "clip.mp4"}
    await client.jetstream().publish("rigflow.media.main.fingerprint", body, headers=headers)
    await asyncio.wait_for(over.wait(), 60)
    took_s = time.monotonic() - began_s
    await subscription.unsubscribe()
    return took_s


async def measure(settings: Settings, url: str, body: bytes, pairs: int) -> tuple[list[float], list[float]]:
    """The times of both ways, pair by pair."""
    spec = builtin_pipeline("fingerprint")
    async with Broker.connected(settings, "benchmark") as broker:
        await register(broker, settings, spec, models_of(spec))
    client = await nats.connect(settings.nats)
    gateway_s, nats_s = list[float](), list[float]()
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=60) as http:
        for pair in range(pairs + WARM):
            for way in (0, 1) if pair % 2 else (1, 0):
                (gateway_s if way else nats_s).append(
                    await by_gateway(http, body) if way else await by_nats(client, body)
                )
    await client.close()
    return gateway_s[WARM:], nats_s[WARM:]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Fleet([*ONE_WORKER] * 2, Path(folder) / "cache") as fleet:
        command = [*COMMAND, "gateway", "--port", "0", "--nats", fleet.settings.nats]
        gateway = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert gateway.stdout is not None
        url = gateway.stdout.readline().split()[-1]
        try:
            small = make_clip(Path(folder), SMALL)
            for what, clip in (("128 x 72", small), ("720p", real_clip("bigbuckbunny"))):
                body = clip.read_bytes()
                gateway_s, nats_s = asyncio.run(measure(fleet.settings, url, body, given.pairs))
                _report(f"{what} and {len(body) / 1e3:.0f} kB", gateway_s, nats_s)
        finally:
            gateway.terminate()
            gateway.wait()
            gateway.stdout.close()


def _report(what: str, gateway_s: list[float], nats_s: list[float]) -> None:
    ratios = [one / other for one, other in zip(gateway_s, nats_s, strict=True)]
    medians = statistics.median(gateway_s), statistics.median(nats_s)
    print(f"{len(ratios)} pairs at load {os.getloadavg()[0]:.0f}, a clip of 5 s, {what}")
    print(f"medians: gateway {medians[0] * 1e3:.0f} ms, NATS {medians[1] * 1e3:.0f} ms: {medians[0] / medians[1]:.2f}")
    print(f"median of the pairs' ratios {statistics.median(ratios):.2f}; least {min(gateway_s) / min(nats_s):.2f}")


if __name__ == "__main__":
    main()
