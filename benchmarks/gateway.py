"""Shows the memory of a gateway while many large uploads come at once, into a store that holds only some of them.

`python -m benchmarks.gateway [--uploads 50] [--megabytes 2048] [--store 8192] [--seconds 1800]`. No worker runs: each
upload is deleted once it is a job, so that there is space for the next. An upload that is refused, because the store is
full for longer than a gateway waits, is sent again after `Retry-After`.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from benchmarks.fleet import simulated
from pipelines.broker import Broker
from pipelines.server import EmbeddedServer
from schemas.settings import MIB, Settings
from tests.simulated import models_of
from workers.definitions import register

PIECE = bytes(64 << 10)
JOBS = "/api/v1/jobs"


@dataclass(slots=True)
class Seen:
    """Resident memory of the gateway in bytes, and what became of requests."""

    rss: list[int] = field(default_factory=list)
    refused: int = 0
    done: int = 0
    sent: int = 0  # bytes


async def send(url: str, number: int, nbytes: int, seen: Seen) -> tuple[int, float]:
    """Send one media as curl does, which stops at an answer that comes early; its status, and when to send it again."""
    place = urlsplit(url)
    assert place.hostname is not None
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    try:
        head = f"POST {JOBS}?pipeline=simulated HTTP/1.1\r\nHost: x\r\nContent-Length: {nbytes}\r\n"
        writer.write(f"{head}Idempotency-Key: upload-{number}\r\n\r\n".encode())
        for at in range(0, nbytes, len(PIECE)):
            if answer.done():
                break
            writer.write(PIECE[: nbytes - at])
            await writer.drain()
            seen.sent += len(PIECE)
        found = (await answer).decode().lower()
        wait = re.search(r"retry-after: (\d+)", found)
        return int(found.split()[1]), float(wait[1]) if wait else 0.0
    finally:
        answer.cancel()
        writer.close()
        with suppress(Exception):  # it was cut off
            await asyncio.gather(writer.wait_closed(), answer, return_exceptions=True)


async def upload(http: httpx.AsyncClient, number: int, nbytes: int, seen: Seen) -> None:
    """Send one media until it is taken, then delete its job."""
    while True:
        status, wait_s = await send(str(http.base_url), number, nbytes, seen)
        if status == 201:
            break
        assert status == 503, status
        seen.refused += 1
        await asyncio.sleep(wait_s)
    seen.done += 1
    (await http.delete(f"{JOBS}/upload-{number}")).raise_for_status()


async def watch(pid: int, seen: Seen) -> None:
    """Note the gateway's memory regularly."""
    while True:
        with open(f"/proc/{pid}/statm") as statm:
            seen.rss.append(int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        await asyncio.sleep(0.2)


async def measure(
    settings: Settings, url: str, pid: int, uploads: int, nbytes: int, seconds: float
) -> tuple[int, list[int]]:
    """All uploads at once, for so long at most; prints what was seen.

    Returns the gateway's memory when idle, and the most in each quarter of the time.
    """
    async with Broker.connected(settings, "benchmark") as broker:
        await register(broker, settings, simulated(), models_of(simulated()))
    seen, began_s = Seen(), time.monotonic()
    limits = httpx.Limits(max_connections=2 * uploads)
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits) as http:
        watching = asyncio.create_task(watch(pid, seen))
        await asyncio.sleep(0.5)
        idle = max(seen.rss)
        sending = [asyncio.create_task(upload(http, number, nbytes, seen)) for number in range(uploads)]
        done, left = await asyncio.wait(sending, timeout=seconds)
        watching.cancel()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in done:
            task.result()
    took_s = time.monotonic() - began_s
    print(f"{uploads} uploads of {nbytes / MIB:,.0f} MiB at once: {seen.sent / 1e6:,.0f} MB sent in {took_s:.0f} s")
    print(f"refused with Retry-After and sent again: {seen.refused}; taken: {seen.done}")
    step = max(1, -(-len(seen.rss) // 4))
    quarters = [max(seen.rss[at : at + step]) for at in range(0, len(seen.rss), step)]
    print(f"memory of the gateway: idle {idle / MIB:.0f} MiB, most {max(seen.rss) / MIB:.0f} MiB")
    print(f"most in each quarter of the time: {', '.join(f'{each / MIB:.0f}' for each in quarters)} MiB")
    return idle, quarters


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--store", type=int, default=8192, help="MiB of media that the broker keeps")
    parser.add_argument("--seconds", type=float, default=1800.0, help="after these, uploads that go on are given up")
    given = parser.parse_args()
    run(given.uploads, given.megabytes, given.store, given.seconds)


def run(uploads: int, megabytes: int, store: int, seconds: float) -> tuple[int, list[int]]:
    """Measure it, see `measure`, with `store` MiB of media that the broker keeps."""
    room = (3 * store + 4096) * MIB  # of all streams
    server = EmbeddedServer(max_store_bytes=room)
    server.start()
    try:
        settings = Settings(nats=server.url, results_bytes=store * MIB, store_bytes=room)
        command = [sys.executable, "-m", "cli", "gateway", "--port", "0", "--nats", server.url]
        gateway = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert gateway.stdout is not None
        found = re.search(r"http://\S+", gateway.stdout.readline())
        assert found is not None
        try:
            return asyncio.run(measure(settings, found[0], gateway.pid, uploads, megabytes * MIB, seconds))
        finally:
            gateway.stdout.close()
            gateway.send_signal(signal.SIGTERM)
            print(f"the gateway ended with code {gateway.wait()}")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
