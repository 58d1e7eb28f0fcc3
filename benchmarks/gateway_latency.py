"""Measures how long a clip of five seconds takes from its upload to its Done: by the gateway, and by plain NATS.

`python -m benchmarks.gateway_latency [--pairs 30]`. Pairs of one job each way, in turns, on one fleet of two workers;
the first two pairs are not counted. Three clips are real films, of which `bigbuckbunny` has 5 s at 720p; one was
generated, so small that the ways are most of the time.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

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


class Http:
    """One connection of HTTP/1.1, with as little between as curl has: the gateway is measured, not a library."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, url: str) -> Self:
        """Connect."""
        place = urlsplit(url)
        return cls(*await asyncio.open_connection(place.hostname, place.port))

    async def send(self, line: str, body: bytes = b"") -> None:
        """Send a request, and take the head of its answer."""
        head = f"{line} HTTP/1.1\r\nHost: localhost\r\n" + (f"Content-Length: {len(body)}\r\n" if body else "")
        self._writer.writelines((f"{head}\r\n".encode(), body))
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert answer.startswith("http/1.1 20"), answer
        self.size = int(found[1]) if (found := re.search(r"content-length: (\d+)", answer)) else 0

    async def body(self) -> bytes:
        """Take a body that has a size."""
        return await self._reader.readexactly(self.size)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Take a body that has none, to its end."""
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()


async def by_gateway(http: Http, body: bytes) -> float:
    """Seconds from the upload to the event `done`. The stream is read to its end, which keeps its connection."""
    began_s, took_s = time.monotonic(), 0.0
    await http.send("POST /api/v1/jobs?pipeline=fingerprint&name=clip.mp4", body)
    job = json.loads(await http.body())["id"]
    await http.send(f"GET /api/v1/jobs/{job}/events")
    async for chunk in http.chunks():
        if b"event: done" in chunk:
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
    http = await Http.to(url)
    for pair in range(pairs + WARM):
        for way in (0, 1) if pair % 2 else (1, 0):
            (gateway_s if way else nats_s).append(await (by_gateway(http, body) if way else by_nats(client, body)))
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
            real = [(name, real_clip(name)) for name in ("bigbuckbunny", "bikes", "carphone_pristine")]
            for what, clip in (*real, ("generated", small)):
                body = clip.read_bytes()
                gateway_s, nats_s = asyncio.run(measure(fleet.settings, url, body, given.pairs))
                _report(f"{what}, {len(body) / 1e3:.0f} kB", gateway_s, nats_s)
        finally:
            gateway.terminate()
            gateway.wait()
            gateway.stdout.close()


def _report(what: str, gateway_s: list[float], nats_s: list[float]) -> None:
    ratios = [one / other for one, other in zip(gateway_s, nats_s, strict=True)]
    medians = statistics.median(gateway_s), statistics.median(nats_s)
    print(f"{len(ratios)} pairs at load {os.getloadavg()[0]:.0f}, {what}")
    print(f"medians: gateway {medians[0] * 1e3:.0f} ms, NATS {medians[1] * 1e3:.0f} ms: {medians[0] / medians[1]:.2f}")
    print(f"median of the pairs' ratios {statistics.median(ratios):.2f}; least {min(gateway_s) / min(nats_s):.2f}")


if __name__ == "__main__":
    main()
