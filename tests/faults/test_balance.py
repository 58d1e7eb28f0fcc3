"""Balance without a scheduler: workers take what they can do, and none sits on work that others could begin.

Everything is compared with what the same run measured, for the machine may be busy with other things.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fleet import Trial, answers_of, paced
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet
from workers.process import ALL_STAGES


def test_slow_workers_take_less_and_hold_nobody_up(tmp_path: Path) -> None:
    paces = (25.0, 50.0, 200.0)

    async def trial(fleet: Fleet) -> tuple[float, float, float]:
        async with Trial(fleet, tmp_path) as jobs:
            flooded = await jobs.run(120)
            fed = await jobs.run(60, 0.8 * flooded.rate)
            return flooded.rate, flooded.seconds, fed.tail_s

    with Fleet(ONE_WORKER * len(paces), tmp_path / "cache", paces) as fleet:
        rate, seconds, tail_s = asyncio.run(trial(fleet))
    assert rate > 1000 / min(paces), f"no faster than the fastest alone: {rate:.1f}/s in {seconds:.2f} s"
    assert tail_s < 3 * max(paces) / 1000, "a slow worker sat on the end of the job"


@pytest.mark.parametrize("helpers", [ALL_STAGES, ("infer", "encode")], ids=["alike", "of later stages"])
def test_one_long_segment_spills_to_workers_that_wait(helpers: tuple[str, ...], tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=1536, gop=1536, b_frames=0, size=(32, 32)))
    spec = paced().model_copy(update={"segment_s": 1000.0})
    seconds = {}
    for count in (0, 3):
        with Fleet([ALL_STAGES, *[helpers] * count], tmp_path / str(count), [2.0] * (count + 1)) as fleet:
            fleet.run(paced(), [make_clip(tmp_path, Clip(frames=40, gop=4, size=(32, 32)))], tmp_path)
            (outcome,) = fleet.run(spec, [clip], tmp_path / str(count))
        assert outcome.done is not None, outcome.error
        assert outcome.done.segments == 1
        seconds[count] = outcome.seconds
        with np.load(outcome.target.parent / outcome.done.files[0]) as found:
            np.testing.assert_array_equal(found["crc32"], answers_of(clip, spec))
    assert seconds[3] < 0.8 * seconds[0], f"alone {seconds[0]:.2f} s, with three helpers {seconds[3]:.2f} s"
