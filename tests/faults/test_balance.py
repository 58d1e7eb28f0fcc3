"""Balance without a scheduler: workers take what they can do, and none sits on work that others could begin.

The bounds are far from what is measured on a quiet machine (benchmarks/fleet.py), for this one may be busy.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fleet import Trial, answers_of, simulated
from pipelines.broker import Broker
from schemas.rig import ALL_STAGES
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet

pytestmark = pytest.mark.slow  # `make faults`

FRAMES = 1536  # twelve parts of one segment
LATER = ("infer", "encode")


def test_slow_workers_take_less_and_hold_nobody_up(tmp_path: Path) -> None:
    paces = (100.0, 200.0, 800.0)

    async def trial(fleet: Fleet) -> tuple[float, float]:
        async with Trial(fleet, tmp_path) as jobs:
            flooded = await jobs.run(60)
            fed = await jobs.run(30, 0.8 * flooded.rate)
            return flooded.rate, fed.tail_s

    with Fleet(ONE_WORKER * len(paces), tmp_path / "cache", paces) as fleet:
        rate, tail_s = asyncio.run(trial(fleet))
        hoarded_s = fleet.settings.credit_items * max(paces) / 1000
    assert rate > 1000 / min(paces), "together they do no more than the fastest alone could"
    assert tail_s < hoarded_s / 2, "a slow worker sat on the end of the job"


@pytest.mark.parametrize("helpers", [(), (ALL_STAGES,) * 3, (LATER,) * 3], ids=["none", "alike", "of later stages"])
def test_a_long_segment_spills_to_workers_that_wait_and_never_otherwise(
    helpers: tuple[tuple[str, ...], ...], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path, Clip(frames=FRAMES, gop=FRAMES, b_frames=0, size=(32, 32)))
    spec = simulated().model_copy(update={"segment_s": 1000.0})
    pace_ms = 3.0 if helpers else 0.5
    with Fleet([ALL_STAGES, *helpers], tmp_path / "cache", [pace_ms] * (1 + len(helpers))) as fleet:
        (outcome,) = fleet.run(spec, [clip], tmp_path / "out")
        spilled = asyncio.run(parts_ever_queued(fleet, "infer"))
    assert outcome.done is not None, outcome.error
    with np.load(tmp_path / "out" / outcome.done.files[0]) as found:
        np.testing.assert_array_equal(found["crc32"], answers_of(clip, spec))
    assert outcome.done.segments == 1
    assert (spilled > 0) == bool(helpers)


async def parts_ever_queued(fleet: Fleet, stage: str) -> int:
    """How many messages the queue in front of a stage ever held."""
    broker = await Broker.connect(fleet.settings)
    try:
        info = await broker.api(f"STREAM.INFO.{broker.names.work_stream('simulated', stage)}")
        return int(info["state"]["last_seq"])
    finally:
        await broker.close()
