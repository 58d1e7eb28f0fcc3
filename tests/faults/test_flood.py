"""Law 4: a publisher pushes as fast as it can against a fleet that eats a tenth of it or less; nothing grows.

Memory is counted as the share of each page (PSS), for forked workers have most of theirs in common.
"""

import asyncio
import os
import time
from pathlib import Path

import pytest

from benchmarks.fleet import PIPELINE
from benchmarks.measure import tree
from benchmarks.workloads import looped
from engines.media.split import Splitter
from pipelines.broker import Broker
from schemas.pipeline import parse_pipeline
from schemas.settings import MIB
from tests.cli import Running
from tests.fleet import ONE_WORKER, Fleet
from tests.simulated import write_model

QUEUE_BYTES = 4 * MIB
FIRST_QUEUE = "RIGFLOW_WORK_simulated_decode"
GENEROUS_S = 90.0
PACE_MS = 8.0  # a frame
SPARE_BYTES = 24 * MIB  # what a process may grow by when it is warm: heaps breathe


def pss_bytes(pid: int) -> int:
    """A process's share of memory; 0 when it is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])


def role_of(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    if pid == os.getpid():
        return ""  # the test itself
    for role, words in {"broker": b"nats-server", "publisher": b"-m\0cli\0", "worker": b"workers."}.items():
        if words in command:
            return f"{role} {pid}"
    return ""


async def stream_bytes(broker: Broker) -> dict[str, int]:
    listed = await broker.api("STREAM.LIST")
    return {info["config"]["name"]: info["state"]["bytes"] for info in listed["streams"]}


def splitting_rate(clip: Path) -> float:
    """Bytes a second that a publisher could send if nothing held it."""
    spec = parse_pipeline(PIPELINE, "simulated.toml")
    began = time.monotonic()
    with Splitter(clip, spec.grid, spec.segment_s) as splitter:
        sent = sum(sum(map(len, segment_data.buffers)) for segment_data in splitter.segments())
    return sent / (time.monotonic() - began)


async def watched(fleet: Fleet, seconds: float, every_s: float) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Memory of every process and bytes of every stream, for so many seconds after the first queue is full."""
    broker = await Broker.connect(fleet.settings)
    began = time.monotonic()
    full_s: float | None = None
    seen = []
    while full_s is None or time.monotonic() - began - full_s < seconds:
        now = time.monotonic() - began
        assert full_s is not None or now < GENEROUS_S, "the queue never filled: the pressure was not felt"
        memory = {role: pss_bytes(pid) for pid in tree() if (role := role_of(pid))}
        streams = await stream_bytes(broker)
        seen.append((memory, streams))
        if full_s is None and streams.get(FIRST_QUEUE, 0) > QUEUE_BYTES // 2:
            full_s = now
        reported = ", ".join(f"{role} {size >> 20}" for role, size in sorted(memory.items()))
        queued = ", ".join(f"{name.removeprefix('RIGFLOW_')} {size >> 10}" for name, size in streams.items() if size)
        print(f"{now:5.0f} s  MiB: {reported};  KiB: {queued}")
        await asyncio.sleep(every_s)
    await broker.close()
    return seen


@pytest.mark.parametrize(
    ("seconds", "every_s"), [(1.5, 0.25), pytest.param(185.0, 10.0, marks=[pytest.mark.slow, pytest.mark.timeout(400)])]
)
def test_memory_and_streams_stay_flat_under_a_flood(seconds: float, every_s: float, tmp_path: Path) -> None:
    first = looped(tmp_path / "0.mp4", 60, "carphone_pristine")
    clips = [first, *(tmp_path / f"{number}.mp4" for number in range(1, 60))]
    for clip in clips[1:]:
        os.link(first, clip)
    pipeline = tmp_path / "flood.toml"
    pipeline.write_text(PIPELINE)
    write_model(tmp_path)
    settings = tmp_path / "settings.toml"
    settings.write_text(f"queue_bytes = {QUEUE_BYTES}\n")
    print(f"\na publisher cuts {splitting_rate(first) / MIB:.0f} MiB/s; the fleet eats", end=" ")
    frame_bytes = first.stat().st_size / (60 * 30)
    print(f"{2 * frame_bytes * 1000 / PACE_MS / MIB:.1f} MiB/s")
    command = ("run", pipeline, *clips, "--out", tmp_path / "out", "--settings", settings)
    with (
        Fleet(ONE_WORKER * 2, tmp_path / "cache", (PACE_MS,) * 2, queue_bytes=QUEUE_BYTES) as fleet,
        Running(*command, "--nats", fleet.settings.nats) as publisher,
    ):
        seen = asyncio.run(watched(fleet, seconds, every_s))
        assert publisher.process.poll() is None, publisher.output
    assert max(streams.get(FIRST_QUEUE, 0) for _, streams in seen) <= QUEUE_BYTES
    if seconds < 60:
        return
    third = len(seen) // 3
    for name in seen[-1][1]:
        early, late = (max(streams.get(name, 0) for _, streams in part) for part in (seen[1:third], seen[-third:]))
        assert late <= 1.5 * early + MIB, f"stream {name} grew from {early} to {late} bytes"
    for role in seen[-1][0]:
        early, late = (max(memory.get(role, 0) for memory, _ in part) for part in (seen[1:third], seen[-third:]))
        assert late <= 1.1 * early + SPARE_BYTES, f"{role} grew from {early} to {late} bytes"
