"""One worker is far slower than the others: what it holds is done again by a free one, and counts once."""

import asyncio
from pathlib import Path

from benchmarks.fleet import simulated
from pipelines.broker import Broker
from pipelines.client import Client
from pipelines.status import fleet_status
from schemas.results import Done
from tests.clips import Clip, make_clip
from tests.fleet import Fleet
from tests.simulated import models_of
from workers.definitions import register

SPEC = simulated()
CLIP = Clip(frames=60, gop=5)  # 12 segments of 5 frames
FAST_MS, SLOW_MS = 20.0, 4000.0  # a frame: the slow worker takes 20 s for a segment


async def job_on(fleet: Fleet, media: bytes, workers: int) -> tuple[Done, int, int]:
    """The job's end, the segments that workers had at that moment, and the dead letters."""
    async with Broker.connected(fleet.settings, name="test") as broker:
        spec = await register(broker, fleet.settings, SPEC, models_of(SPEC))
        async with asyncio.timeout(60):
            while len((await fleet_status(broker)).workers) < workers:
                await asyncio.sleep(0.1)
        client = Client(broker)
        first = await client.submit(spec, media, job="first")
        done = await first.done()
        status = await fleet_status(broker)
        queues = [queue for queue in status.queues if queue.stage == SPEC.decode.name]
        held = sum(each.in_flight for queue in queues for each in queue.priorities.values())
        return done, held, status.dead.messages


def test_a_free_worker_does_again_what_a_slow_one_holds(tmp_path: Path) -> None:
    media = make_clip(tmp_path, CLIP).read_bytes()
    with Fleet([("all",)] * 2, tmp_path / "cache", paces=(FAST_MS, SLOW_MS)) as fleet:
        done, held, dead = asyncio.run(job_on(fleet, media, 2))
    with Fleet([("all",)], tmp_path / "cache", pace_ms=0.0) as alone:
        expected, _, _ = asyncio.run(job_on(alone, media, 1))
    assert held >= 1, "the slow worker never had a segment, or ended it before the job"
    assert (done.frames, done.failures, done.lost, dead) == (60, (), 0, 0)
    assert done.digest == expected.digest
