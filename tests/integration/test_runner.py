"""What the runner promises: any list of stages, a person never waits behind a queue, bad items hurt nobody else."""

import asyncio
from pathlib import Path

import av
import pytest

from pipelines.registry import builtin_pipeline
from schemas.messages import Lane, PartMeta
from schemas.pipeline import PipelineSpec, parse_pipeline
from tests.clips import Clip, make_clip
from tests.fleet import ONE_STAGE_EACH, ONE_WORKER, Fleet, Silent
from workers.local import Outcome, find_models, run_jobs

TWICE = """
name = "upscale4x"

[[stage]]
kind = "decode"

[[stage]]
kind = "preprocess"
layout = "planes"

[[stage]]
kind = "infer"
name = "first"
model = "lanczos2x"
each = ["plane0", "plane1", "plane2"]
max_batch = 8

[[stage]]
kind = "infer"
name = "second"
model = "lanczos2x"
each = ["plane0", "plane1", "plane2"]
max_batch = 8

[[stage]]
kind = "encode"
format = "video"
"""


@pytest.mark.parametrize("stages", [ONE_WORKER, ONE_STAGE_EACH], ids=["one worker", "a process for each stage"])
def test_a_pipeline_may_have_two_infer_stages(stages: tuple[tuple[str, ...], ...], tmp_path: Path) -> None:
    clip = make_clip(tmp_path, Clip(frames=20))
    with Fleet(stages, tmp_path / "cache") as fleet:
        (outcome,) = fleet.run(parse_pipeline(TWICE, "twice.toml"), [clip], tmp_path / "out")
    assert outcome.done is not None, outcome.error
    with av.open(tmp_path / "out" / outcome.done.files[0]) as video:
        frames = list(video.decode(video=0))
    assert len(frames) == 20
    assert (frames[0].height, frames[0].width) == (4 * 72, 4 * 128)


class Watching(Silent):
    """Counts the parts of a bulk job, and remembers how many there were when another job was done."""

    def __init__(self) -> None:
        super().__init__()
        self.enough = asyncio.Event()

    def part(self, job: str, meta: PartMeta) -> None:
        super().part(job, meta)
        if self.parts == 5:
            self.enough.set()


async def run_in_lane(fleet: Fleet, spec: PipelineSpec, clip: Path, out: Path, lane: Lane, screen: Silent) -> Outcome:
    models = find_models(spec, None)
    (outcome,) = await run_jobs(fleet.settings, spec, models, [clip], out, lane, screen)
    return outcome


def test_an_interactive_clip_overtakes_a_thousand_bulk_segments(tmp_path: Path) -> None:
    backlog = make_clip(tmp_path, Clip(frames=2000, gop=2, b_frames=0))
    short = make_clip(tmp_path, Clip(frames=50, seed=1))
    spec = builtin_pipeline("fingerprint").model_copy(update={"segment_s": 0.01})

    async def both(fleet: Fleet) -> tuple[int, Outcome, Outcome]:
        screen = Watching()
        bulk = asyncio.create_task(run_in_lane(fleet, spec, backlog, tmp_path, Lane.BULK, screen))
        await screen.enough.wait()
        ahead = await run_in_lane(fleet, spec, short, tmp_path, Lane.INTERACTIVE, Silent())
        bulk_parts = screen.parts
        return bulk_parts, ahead, await bulk

    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        bulk_parts, ahead, bulk = asyncio.run(both(fleet))
    assert ahead.ok
    assert bulk.ok
    assert bulk.done is not None
    assert bulk.done.segments == 1000
    assert bulk_parts < 500, "the person waited behind the queue"
