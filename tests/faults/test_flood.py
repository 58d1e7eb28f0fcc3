"""Law 4: while a publisher pushes many times what the fleet can eat, memory stays flat and streams within limits."""

import asyncio
import os
import shutil
from pathlib import Path

from benchmarks.measure import rss_bytes, tree
from benchmarks.workloads import looped
from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from tests.fleet import ONE_WORKER, Fleet

HOP_BYTES = 4 << 20
FILES = 10


async def watched(fleet: Fleet, clips: list[Path], out: Path) -> tuple[list[int], list[int]]:
    """Run fingerprint over `clips`; resident memory of all processes and bytes in the first hop, sampled meanwhile."""
    broker = await Broker.connect(fleet.settings)
    stream = broker.names.work_stream("fingerprint", "decode")
    running = asyncio.create_task(fleet.run_async(builtin_pipeline("fingerprint"), clips, out))
    before = rss_bytes([os.getpid()])  # what other tests left in this process, which publishes and collects
    memory: list[int] = []
    queued: list[int] = []
    while not (await asyncio.wait([running], timeout=0.25))[0]:
        info = await broker.api_unless_gone(f"STREAM.INFO.{stream}")
        if info is not None:
            queued.append(int(info["state"]["bytes"]))
            memory.append(rss_bytes(tree()) - before)
    await broker.close()
    assert all(outcome.ok for outcome in running.result())
    return memory, queued


def test_memory_and_streams_stay_flat_under_a_flood(tmp_path: Path) -> None:
    first = looped(tmp_path / "0.mp4", 20)
    clips = [first, *(Path(shutil.copy(first, tmp_path / f"{number}.mp4")) for number in range(1, FILES))]
    total = sum(clip.stat().st_size for clip in clips)
    with Fleet(ONE_WORKER, tmp_path / "cache", hop_bytes=HOP_BYTES) as fleet:
        memory, queued = asyncio.run(watched(fleet, clips, tmp_path / "out"))
    print(f"published {total >> 20} MB through {HOP_BYTES >> 20} MB; resident MB: {[one >> 20 for one in memory[::4]]}")
    assert total > 7 * HOP_BYTES, "this is no flood"
    assert max(queued) > HOP_BYTES // 2, "the queue never filled: the pressure was not felt"
    assert max(queued) <= HOP_BYTES
    warm = len(memory) // 3
    assert max(memory[warm:]) < 1.25 * max(memory[:warm]), "memory grows with what is published"
