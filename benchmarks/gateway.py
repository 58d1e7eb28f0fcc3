"""Shows the memory of a gateway, a broker and workers while many large films are uploaded at once.

`python -m benchmarks.gateway [--uploads 50] [--megabytes 2048] [--store 8192] [--workers 2] [--seconds 1800]`. The
broker holds some of the films only. Workers take them through the pipeline `fingerprint`, and each job is deleted once
it is done. An upload that is refused, because the store is full for longer than a gateway waits, is sent again after
`Retry-After`.

It also prints what limits the rate: how busy the processors are, how long they wait for disks, the processor time of a
film, and for how long no film was sent or worked on while some waited, which is what the rule of admission costs.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.large_films import write_film
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from pipelines.server import EmbeddedServer
from schemas.settings import MIB, Settings
from tests.fleet import ONE_WORKER, Fleet
from tests.simulated import models_of
from workers.definitions import register

PIECE_BYTES = 1 << 16
ADMITTED_BYTES = 16 << 20  # more than buffers take of an upload that waits
JOBS = "/api/v1/jobs"


@dataclass(slots=True)
class Seen:
    """Resident memory in bytes by kind of process, what became of requests and jobs, and bytes sent.

    `machine_s` are seconds of all processors: busy, waiting for a disk, all. `films_s` are, for each film that is done,
    the seconds that it was sent, and those that it was worked on. `admitted_s` is when films that are sent or worked
    on now were admitted; for `idle_s` there was none.
    """

    rss: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    idle: dict[str, int] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    digests: Counter[str] = field(default_factory=Counter)
    cpu_s: dict[str, float] = field(default_factory=dict)
    machine_s: tuple[float, ...] = (0.0, 0.0, 1.0)
    films_s: list[tuple[float, float]] = field(default_factory=list)
    sent: int = 0
    admitted_s: dict[str, float] = field(default_factory=dict)
    idle_s: float = 0.0
    seconds: float = 0.0

    def quarters(self, kind: str) -> list[int]:
        """The most in each quarter of the time."""
        known = self.rss[kind]
        step = max(1, -(-len(known) // 4))
        return [max(known[at : at + step]) for at in range(0, len(known), step)]

    def lines(self) -> Iterator[str]:
        """All of it, for people."""
        yield f"sent {self.sent / 1e6:,.0f} MB in {self.seconds:.0f} s; answers {dict(self.answers)}"
        yield f"jobs by how they ended: {dict(self.states)}, digests {dict(self.digests)}"
        busy, disk, everything = self.machine_s
        shares = busy / everything, sum(self.cpu_s.values()) / everything, disk / everything
        yield "processors {:.0%} busy, {:.0%} with gateway, broker and workers, {:.0%} wait for disks".format(*shares)
        if self.films_s:
            sent_s, worked_s = (statistics.median(each) for each in zip(*self.films_s, strict=True))
            yield f"a film is sent in {sent_s:.0f} s and worked on for {worked_s:.0f} s (medians)"
        yield f"no film was sent or worked on for {self.idle_s:.1f} s"
        for kind in self.rss:
            quarters = ", ".join(f"{each / MIB:.0f}" for each in self.quarters(kind))
            memory = f"idle {self.idle[kind] / MIB:.0f} MiB, most in each quarter {quarters} MiB"
            yield f"{kind}: {self.cpu_s[kind]:.0f} s of CPU; memory {memory}"


async def send(url: str, key: str, film: Path, seen: Seen) -> tuple[int, float]:
    """Send a film as curl does, which stops at an answer that comes early; its status, and when to send it again."""
    place = urlsplit(url)
    assert place.hostname is not None
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    try:
        head = f"POST {JOBS}?pipeline=fingerprint&name=film.mkv HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        writer.write(f"{head}{film.stat().st_size}\r\nIdempotency-Key: {key}\r\n\r\n".encode())
        with film.open("rb") as file, suppress(ConnectionError):
            while not answer.done() and (piece := file.read(PIECE_BYTES)):
                writer.write(piece)
                await writer.drain()
                seen.sent += len(piece)
                if file.tell() > ADMITTED_BYTES:
                    seen.admitted_s.setdefault(key, time.monotonic())
        found = (await answer).decode().lower()
        wait = re.search(r"retry-after: (\d+)", found)
        return int(found.split()[1]), float(wait[1]) if wait else 0.0
    finally:
        answer.cancel()
        writer.close()
        with suppress(Exception):  # it was cut off
            await asyncio.gather(writer.wait_closed(), answer, return_exceptions=True)


async def upload(http: httpx.AsyncClient, key: str, film: Path, seen: Seen) -> None:
    """Send a film until it is taken, wait until its job is over, and delete the job."""
    while True:
        status, wait_s = await send(str(http.base_url), key, film, seen)
        seen.answers[status] += 1
        if status == 201:
            break
        seen.admitted_s.pop(key, None)
        assert status in (429, 503), status
        assert wait_s > 0, "it says when to come again"
        await asyncio.sleep(wait_s)
    sent_s = time.monotonic()
    began_s = seen.admitted_s.setdefault(key, sent_s)
    async with http.stream("GET", f"{JOBS}/{key}/events") as events:
        lines = [line async for line in events.aiter_lines() if line.startswith("data:")]
    done = json.loads(lines[-1].removeprefix("data:"))
    seen.states[done["state"]] += 1
    seen.digests[done["digest"]] += 1
    seen.films_s.append((sent_s - began_s, time.monotonic() - sent_s))
    (await http.delete(f"{JOBS}/{key}")).raise_for_status()
    del seen.admitted_s[key]


async def watch(processes: Mapping[str, list[int]], seen: Seen) -> None:
    """Note the memory of processes regularly, of workers that of all together, and whether a film is under way."""
    began, looked_s = _processors(), time.monotonic()
    while True:
        for kind, pids in processes.items():
            pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
            shared = [int(Path(f"/proc/{pid}/statm").read_text().split()[2]) for pid in pids]
            ticks = [
                sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) for pid in pids
            ]
            seen.cpu_s[kind] = sum(ticks) / os.sysconf("SC_CLK_TCK")
            own = [all_of - of_files for all_of, of_files in zip(pages, shared, strict=True)]
            seen.rss[kind].append(sum(own) * os.sysconf("SC_PAGE_SIZE"))
        seen.machine_s = tuple(now - then for now, then in zip(_processors(), began, strict=True))
        await asyncio.sleep(0.2)
        looked_s, since_s = time.monotonic(), looked_s
        seen.idle_s += 0.0 if seen.admitted_s else looked_s - since_s


def _processors() -> tuple[float, ...]:
    """Seconds since the machine started of all its processors: busy, waiting for a disk, all. See proc(5)."""
    ticks = [int(each) / os.sysconf("SC_CLK_TCK") for each in Path("/proc/stat").read_text().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], ticks[4], sum(ticks)


async def measure(url: str, processes: Mapping[str, list[int]], uploads: int, film: Path, seconds: float) -> Seen:
    """All uploads at once, for so long at most."""
    seen, began_s = Seen(), time.monotonic()
    limits = httpx.Limits(max_connections=2 * uploads)
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits) as http:
        watching = asyncio.create_task(watch(processes, seen))
        await asyncio.sleep(0.5)
        seen.idle = {kind: max(known) for kind, known in seen.rss.items()}
        sending = [asyncio.create_task(upload(http, f"upload-{number}", film, seen)) for number in range(uploads)]
        done, left = await asyncio.wait(sending, timeout=seconds)
        watching.cancel()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in done:
            task.result()
    seen.seconds = time.monotonic() - began_s
    return seen


def run(uploads: int, megabytes: int, store: int, workers: int, seconds: float) -> Seen:
    """Measure it, with `store` MiB of media that the broker keeps."""
    space = (3 * store + 4096) * MIB  # of all streams
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mkv"
        write_film(film, megabytes * MIB)
        server = EmbeddedServer(max_store_bytes=space)
        server.start()
        try:
            settings = Settings(nats=server.url, results_bytes=store * MIB, store_bytes=space)
            asyncio.run(_register(settings))
            given = {"nats": server.url, "results_bytes": store * MIB, "store_bytes": space}
            with Fleet([*ONE_WORKER] * workers, Path(folder) / "cache", **given) as fleet:
                return _with_gateway(server, fleet, uploads, film, seconds)
        finally:
            server.stop()


async def _register(settings: Settings) -> None:
    spec = builtin_pipeline("fingerprint")
    async with Broker.connected(settings, "benchmark") as broker:
        await register(broker, settings, spec, models_of(spec))


def _with_gateway(server: EmbeddedServer, fleet: Fleet, uploads: int, film: Path, seconds: float) -> Seen:
    command = [sys.executable, "-m", "cli", "gateway", "--port", "0", "--nats", server.url]
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert gateway.stdout is not None
    try:
        found = re.search(r"http://\S+", gateway.stdout.readline())
        assert found is not None
        pids = {"gateway": [gateway.pid], "broker": [server.pid], "workers": [each.pid for each in fleet.workers]}
        return asyncio.run(measure(found[0], pids, uploads, film, seconds))
    finally:
        gateway.stdout.close()
        gateway.send_signal(signal.SIGTERM)
        print(f"the gateway ended with code {gateway.wait()}")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--store", type=int, default=8192, help="MiB of media that the broker keeps")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1800.0, help="after these, uploads that go on are given up")
    given = parser.parse_args()
    seen = run(given.uploads, given.megabytes, given.store, given.workers, given.seconds)
    print(
        f"{given.uploads} uploads of {given.megabytes:,} MiB at once, {given.store:,} MiB kept", *seen.lines(), sep="\n"
    )


if __name__ == "__main__":
    main()
