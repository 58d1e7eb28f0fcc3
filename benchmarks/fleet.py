"""Measures fleets of simulated workers: the balance of work, and one job over all workers.

`python -m benchmarks.fleet [mixed] [scale] [--seconds 10] [--json FILE]`. Every worker is a real process with the model
`simulated`, which sleeps where another would compute, so that a machine can hold a fleet larger than itself. The rest
is real: a segment of one tiny frame has a message, is decoded, and its result is collected. Every answer is checked.

`mixed`: workers of 10, 20, 40 and 80 ms a segment, each measured alone first; then all together, flooded with the whole
job at once, and fed at 97 % of what they did then, where the time from the last segment published to the last result is
the tail. `scale`: one job over N workers of one pace, N = 1, 2, 4 ... 32, and the CPU cores that it kept busy.
"""

import argparse
import asyncio
import json
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from benchmarks import measure
from engines.media.split import Splitter
from engines.part import Array
from pipelines.broker import Broker
from pipelines.collect import Collector
from schemas.jobs import JobRef, Key, Priority
from schemas.media import MediaInfo
from schemas.pipeline import PipelineSpec, parse_pipeline
from schemas.rig import ALL_STAGES
from tests.clips import Clip, make_clip
from tests.fleet import Fleet
from tests.plans import converter
from tests.simulated import models_of
from workers.definitions import register

PIPELINE = """
name = "simulated"
media = "video"
segment_s = 0.001

[[stage]]
kind = "decode"

[[stage]]
kind = "resize"
size = [16, 16]
layout = "gray"

[[stage]]
kind = "infer"
model = "simulated"

[[stage]]
kind = "encode"
format = "npz"
"""
MIXED_MS = (10.0, 20.0, 40.0, 80.0)
SCALE = (1, 2, 4, 8, 16, 32)
FRAMES = 500  # of the clip; a job of more segments takes it again and again
START_S = 600.0  # of a machine that is busy otherwise


@dataclass(slots=True)
class Run:
    """The times of one job, in seconds of one clock: when each segment was published, and when its result came."""

    published_s: list[float] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """From the first segment published to the last result."""
        return self.arrived_s[-1] - self.published_s[0]

    @property
    def rate(self) -> float:
        """Segments a second, start and tail included."""
        return len(self.arrived_s) / self.seconds

    @property
    def tail_s(self) -> float:
        """From the last segment published to the last result."""
        return self.arrived_s[-1] - self.published_s[-1]

    @property
    def cores(self) -> float:
        """CPU cores that all processes kept busy."""
        return sum(self.cpu_s.values()) / self.seconds


class Trial:
    """Jobs of one-frame segments on a fleet, published at a given rate, collected and checked."""

    def __init__(self, fleet: Fleet, folder: Path, warm_up: int = 8) -> None:
        """`warm_up`: segments for each worker before the first job."""
        self._warm_up = warm_up
        self._fleet = fleet
        self._folder = folder
        self._jobs = 0
        clip = make_clip(folder, Clip(frames=FRAMES, gop=1, b_frames=0, size=(32, 32)))
        self._spec = simulated()
        self._answers = answers_of(clip, self._spec)
        with Splitter(clip, self._spec.grid, self._spec.segment_s) as splitter:
            self._media: MediaInfo = splitter.media
            self._segments = list(splitter.segments())
        assert len(self._segments) == FRAMES

    async def __aenter__(self) -> "Trial":
        self._broker = await Broker.connect(self._fleet.settings, name="trial")
        self._spec = await register(self._broker, self._fleet.settings, self._spec, models_of(self._spec))
        await self._wait_for_workers()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._broker.close()

    async def _wait_for_workers(self) -> None:
        """Wait until every worker has done a first segment and waits for work: its start is not part of its pace."""
        consumer = f"{self._broker.names.work_stream(self._spec.name, 'decode')}.{Priority.BULK.value}"
        waiting = 0
        async with asyncio.timeout(START_S):
            while waiting < len(self._fleet.workers):
                await asyncio.sleep(0.1)
                waiting = int((await self._broker.api(f"CONSUMER.INFO.{consumer}"))["num_waiting"])
        await self.run(self._warm_up * len(self._fleet.workers))

    async def run(self, segments: int, rate: float = float("inf")) -> Run:
        """A job of so many segments, published at `rate` a second; its answers are checked."""
        self._jobs += 1
        job = JobRef(
            id=f"job-{self._jobs}", pipeline=self._spec.name, revision=self._spec.revision, priority=Priority.BULK
        )
        run = Run()
        collector = Collector(self._broker, self._spec, lambda _job, _meta: run.arrived_s.append(time.monotonic()))
        await collector.open({job: self._folder / job.id})
        pids = measure.tree()
        before = measure.cpu_s(pids)
        await self._publish(job, segments, rate, run)
        done = await collector.wait(job.id)
        after = measure.cpu_s(pids)
        for pid in pids:
            role = measure.role_of(pid)
            run.cpu_s[role] = run.cpu_s.get(role, 0.0) + after[pid] - before[pid]
        await collector.close()
        with np.load(self._folder / done.files[0]) as found:
            expected = np.resize(self._answers, segments)
            np.testing.assert_array_equal(found["crc32"], expected)
        assert not done.failures
        return run

    async def _publish(self, job: JobRef, segments: int, rate: float, run: Run) -> None:
        started = time.monotonic()
        sending: set[asyncio.Task[bool]] = set()
        for number in range(segments):
            late = started + number / rate - time.monotonic()
            if late > 0:
                await asyncio.sleep(late)
            segment_data = self._segments[number % FRAMES]
            key = Key(job=job, segment=number, final=number == segments - 1)
            segment = segment_data.segment(key)
            subject = self._broker.names.work(self._spec.name, "decode", job.priority)
            run.published_s.append(time.monotonic())
            task = asyncio.create_task(
                self._broker.publish(subject, segment.pieces(segment_data.content), key.message_id("decode"))
            )
            sending.add(task)
            task.add_done_callback(sending.discard)
            if len(sending) >= 64:
                await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*sending)


def simulated() -> PipelineSpec:
    """The pipeline of all trials: a checksum for each frame."""
    return parse_pipeline(PIPELINE, "simulated.toml")


def answers_of(clip: Path, spec: PipelineSpec) -> Array:
    """What `simulated` must answer for each frame, by one sequential pass."""
    preprocess = converter(spec)
    with av.open(clip) as container:
        frames = [preprocess.convert(frame)["pixels"] for frame in container.decode(video=0)]
    return np.array([zlib.crc32(np.ascontiguousarray(frame).data) for frame in frames], np.uint32)


async def measured(folder: Path, paces: Sequence[float], segments: int) -> Run:
    """One job, flooding a fleet of these paces."""
    with Fleet([ALL_STAGES] * len(paces), folder / "cache", paces) as fleet:
        async with Trial(fleet, folder) as trial:
            return await trial.run(segments)


async def mixed(folder: Path, seconds: float, paces: Sequence[float]) -> None:
    """Workers of different pace: each alone, all flooded, all fed at 97 %."""
    print(f"{'workers':24} {'segments/s':>10} {'of 1/pace':>10} {'of alone':>9} {'tail ms':>8} {'cores':>6}")
    alone = 0.0
    for pace in paces:
        run = await measured(folder, [pace], int(seconds * 1000 / pace))
        alone += run.rate
        print(f"{f'{pace:.0f} ms alone':24} {run.rate:10.1f} {run.rate * pace / 1000:10.3f} {'':18} {run.cores:6.2f}")
    nominal = sum(1000 / pace for pace in paces)
    with Fleet([ALL_STAGES] * len(paces), folder / "cache", paces) as fleet:
        async with Trial(fleet, folder) as trial:
            flooded = await trial.run(int(seconds * alone))
            fed = await trial.run(int(seconds * alone), 0.97 * flooded.rate)
    for name, run, tail in (("flooded", flooded, ""), ("fed at 97 %", fed, f"{1000 * fed.tail_s:.0f}")):
        ratios = f"{run.rate / nominal:10.3f} {run.rate / alone:9.3f}"
        print(f"{f'all, {name}':24} {run.rate:10.1f} {ratios} {tail:>8} {run.cores:6.2f}")


async def scale(folder: Path, seconds: float, pace: float, counts: Sequence[int], keep: Path | None) -> None:
    """One job over N workers of one pace."""
    print(f"{f'workers of {pace:.0f} ms':24} {'segments/s':>10} {'of N x one':>10} {'cores':>6}  CPU ms a segment")
    one = 0.0
    for count in counts:
        run = await measured(folder, [pace] * count, int(seconds * count * 1000 / pace))
        one = one or run.rate / count
        costs = ", ".join(f"{role} {1000 * used / len(run.arrived_s):.1f}" for role, used in sorted(run.cpu_s.items()))
        print(f"{count:24} {run.rate:10.1f} {run.rate / (count * one):10.3f} {run.cores:6.2f}  {costs}")
        if keep:
            record = {"kind": "workers", "workers": count, "pace_ms": pace, "rate": run.rate, "cores": run.cores}
            with keep.open("a") as lines:
                lines.write(json.dumps(record) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["mixed", "scale"])
    parser.add_argument("--seconds", type=float, default=10.0, help="about how long each job shall take")
    parser.add_argument("--mixed-ms", type=float, nargs="*", default=MIXED_MS, help="paces of the workers of `mixed`")
    parser.add_argument("--scale-ms", type=float, default=200.0, help="pace of the workers of `scale`")
    parser.add_argument("--counts", type=int, nargs="*", default=SCALE)
    parser.add_argument("--json", type=Path, help="append a line of json for each row of `scale` to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rigflow-fleet-") as name:
        if "mixed" in options.what:
            asyncio.run(mixed(Path(name), options.seconds, options.mixed_ms))
        if "scale" in options.what:
            asyncio.run(scale(Path(name), options.seconds, options.scale_ms, options.counts, options.json))


if __name__ == "__main__":
    main()
