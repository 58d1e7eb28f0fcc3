"""What the runner promises: any list of stages, a person never waits behind a queue, bad items hurt nobody else."""

import asyncio
import os
import signal
from pathlib import Path

import av
import pytest
from nats.aio.msg import Msg

from engines.media.medium import Input
from pipelines.answers import headers_of
from pipelines.broker import Broker
from pipelines.publish import Publisher
from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec, parse_pipeline
from schemas.subjects import HEADER_TYPE
from tests.clips import Clip, make_clip
from tests.fleet import ONE_STAGE_EACH, ONE_WORKER, Fleet, Silent
from workers.definitions import find_models, register
from workers.inputs import JobOutcome

TWICE = """
name = "upscale4x"
media = "video"

[[stage]]
kind = "decode"

[[stage]]
kind = "resize"
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
    """Stops the worker of a bulk job once it has done five parts."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self.fleet = fleet
        self.stopped = asyncio.Event()

    def part(self, job: str, meta: PartMeta) -> None:
        super().part(job, meta)
        if self.parts == 5:
            os.kill(self.fleet.workers[0].pid, signal.SIGSTOP)
            self.stopped.set()


async def overtaking(fleet: Fleet, spec: PipelineSpec, backlog: Path, short: Path, out: Path) -> tuple[int, JobOutcome]:
    """How many bulk parts were done before the last of an interactive clip that came after them, and the bulk job.

    The worker is stopped while the clip is sent, so it does not matter how slowly this process runs.
    """
    listener = Watching(fleet)
    bulk = asyncio.create_task(fleet.run_async(spec, [backlog], out, listener))
    await listener.stopped.wait()
    broker = await Broker.connect(fleet.settings)
    parts: list[str] = []

    async def hear(message: Msg) -> None:
        if headers_of(message).get(HEADER_TYPE) == "part":
            parts.append(message.subject.rpartition(".")[2])

    await broker.connection.nc.subscribe(f"{broker.names.prefix}.results.>", cb=hear)
    pinned = await register(broker, fleet.settings, spec, find_models(spec, None))
    publisher = Publisher(broker, pinned, "main", Priority.INTERACTIVE)
    await publisher.publish(publisher.ref("person"), "video", [Input(short, short.name)])
    os.kill(fleet.workers[0].pid, signal.SIGCONT)
    (outcome,) = await bulk
    await broker.connection.flush()
    await broker.close()
    last = max(number for number, job in enumerate(parts) if job == "person")
    return sum(job != "person" for job in parts[:last]), outcome


def test_an_interactive_clip_overtakes_a_queue_of_bulk_segments(tmp_path: Path) -> None:
    backlog = make_clip(tmp_path, Clip(frames=300, gop=2, b_frames=0))
    short = make_clip(tmp_path, Clip(frames=50, seed=1))
    spec = builtin_pipeline("fingerprint").model_copy(update={"segment_s": 0.01})
    with Fleet(ONE_WORKER, tmp_path / "cache", ack_wait_s=300.0) as fleet:
        ahead, bulk = asyncio.run(overtaking(fleet, spec, backlog, short, tmp_path))
    assert bulk.ok
    assert bulk.done is not None
    assert bulk.done.segments == 150
    assert ahead < 50, "the person waited behind the queue"
