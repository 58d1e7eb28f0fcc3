"""Laws 1 and 2 under kill -9: of workers, and of the server, in the middle of jobs."""

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.workloads import looped
from pipelines.registry import builtin_pipeline
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.reference import answers_of


async def killed_meanwhile(fleet: Fleet, clip: Path, out: Path, kills: list[str], seed: int) -> Path:
    """Run fingerprint over `clip`, killing one thing after the other while parts arrive; the result."""
    chance = random.Random(seed)
    screen = Silent()
    spec = builtin_pipeline("fingerprint")
    running = asyncio.create_task(fleet.run_async(spec, [clip], out, screen))
    for victim in kills:
        seen = screen.parts
        while screen.parts == seen and not running.done():
            await asyncio.sleep(chance.uniform(0.005, 0.05))
        if victim == "server":
            await asyncio.to_thread(fleet.server.kill)
            await asyncio.to_thread(fleet.server.restart)
        else:
            await asyncio.to_thread(fleet.kill, chance.randrange(len(fleet.workers)))
    (outcome,) = await running
    assert outcome.done is not None, outcome.error
    assert not outcome.done.failures
    return outcome.target.parent / outcome.done.files[0]


@pytest.mark.parametrize("kills", [["worker"] * 3, ["server"], ["worker", "server", "worker"]], ids="-".join)
def test_a_job_outlives_kills_with_equal_results(kills: list[str], tmp_path: Path) -> None:
    clip = looped(tmp_path / "clip.mp4", 50)
    times, descriptors = answers_of(clip, builtin_pipeline("fingerprint"))
    with Fleet(ONE_WORKER * 2, tmp_path / "cache", ack_wait_s=1.5) as fleet:
        result = asyncio.run(killed_meanwhile(fleet, clip, tmp_path, kills, seed=len(kills)))
    with np.load(result) as found:
        np.testing.assert_array_equal(found["times"], times)
        np.testing.assert_array_equal(found["descriptor"], descriptors)
