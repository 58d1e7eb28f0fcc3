"""The contestants, each a process of its own: `python -m benchmarks.contestants NAME WORKLOAD FOLDER` prints json.

`script` is what a user would write; `decode` and `decode2` are the limit, decoding alone in one process and in two;
`pool` does rigflow's own segment-parallel work in a process pool without any broker; `rigflow` is rigflow.
"""

import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime

from benchmarks import measure, workloads
from engines.inference.batch import infer_parts
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.media.decode import decode_video
from engines.media.images import decode_images
from engines.media.split import Splitter
from engines.models.catalogue import builtin_model
from engines.outputs.format import load_format
from engines.transforms import Preprocess
from pipelines.publish import albums
from pipelines.registry import builtin_pipeline
from schemas.messages import JobRef, Key, Lane, MediaInfo, Segment
from schemas.settings import Settings
from workers.local import Outcome, find_models, local_fleet, run_jobs

SPEC = builtin_pipeline("fingerprint")
CARD, MODEL = builtin_model("fingerprint")
JOB = JobRef(id="bench", pipeline="fingerprint", revision="bench")
Work = tuple[Segment, list[bytes]]


def inputs_of(workload: str, folder: Path) -> list[Path]:
    """The files of a workload."""
    if workload == "long":
        return [workloads.looped(folder / "long.mp4", 60)]
    if workload == "clip":
        return [workloads.looped(folder / "clip.mp4", 5)]
    return workloads.images(folder / "images", 2000)


# the script a user would write


def script(paths: list[Path]) -> int:
    """Decode with frame threads, resize with swscale, ONNX Runtime as it comes; a window a second, one by one."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    done = 0
    for path in paths:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            window: list[np.ndarray[Any, Any]] = []
            tick = 0
            for frame in container.decode(stream):
                done += 1
                if frame.time is None or frame.time < tick / 5 - 1e-6:
                    continue
                tick += 1
                window.append(frame.reformat(32, 32, "gray", interpolation="AREA").to_ndarray())
                if len(window) == 5:
                    session.run(None, {"pixels": np.stack(window)[None]})
                    window = []
            if window:
                session.run(None, {"pixels": np.stack(window + [window[-1]] * (5 - len(window)))[None]})
    return done


# the limit


def decode_alone(paths: list[Path], threads: str = "AUTO") -> int:
    """Decode and drop."""
    done = 0
    for path in paths:
        with av.open(path) as container:
            container.streams.video[0].thread_type = threads
            done += sum(1 for _ in container.decode(video=0))
    return done


def decode_one(work: Work) -> int:
    """Decode the frames a segment owns and drop them."""
    segment, buffers = work
    if segment.media.kind == "image":
        codec = av.CodecContext.create("mjpeg", "r")
        return sum(len(codec.decode(av.Packet(Path(item.path).read_bytes()))) for item in segment.items)
    import io

    with av.open(io.BytesIO(buffers[0])) as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(1 for _ in container.decode(video=0))


# the pool: rigflow's own work without a broker


class _Chain:
    """Decode to result in one process."""

    def __init__(self) -> None:
        self.preprocess = Preprocess(SPEC.preprocess)
        self.session = OnnxRuntimeSession(MODEL, CARD)
        self.format = load_format(SPEC.encode)

    def __call__(self, work: Work) -> tuple[int, list[Any]]:
        segment, buffers = work
        if segment.media.kind == "image":
            parts = list(decode_images(segment, buffers, SPEC, self.preprocess.convert))
        else:
            parts = list(decode_video(segment, buffers[0], SPEC, self.preprocess.convert))
        outcomes = infer_parts(SPEC.infers[0], self.session, parts)
        return sum(part.meta.frames for part in parts), [self.format.encode(part).arrays for part in outcomes]  # type: ignore[arg-type]


_chain: _Chain | None = None


def chain_one(work: Work) -> tuple[int, list[Any]]:
    """The whole chain over one segment, in a pool's process."""
    global _chain
    _chain = _chain or _Chain()
    return _chain(work)


def segments_of(paths: list[Path]) -> Iterator[Work]:
    """What `publish` would send."""
    if paths[0].suffix == ".jpg":
        for number, (items, buffers) in enumerate(albums(paths, [path.name for path in paths], shared=True)):
            media = MediaInfo(kind="image")
            yield Segment(key=Key(job=JOB, segment=number), media=media, items=tuple(items)), buffers
        return
    for path in paths:
        with Splitter(path, SPEC.grid, SPEC.segment_s) as splitter:
            for number, piece in enumerate(splitter.pieces()):
                key = Key(job=JOB, segment=number)
                segment = Segment(
                    key=key, media=splitter.media, container=piece.container, start=piece.start, end=piece.end
                )
                yield segment, [piece.data]


def pooled(
    one: Callable[[Work], Any], count: Callable[[Any], int], paths: list[Path], rounds: int
) -> list[tuple[float, int]]:
    """`one` over all segments in two processes, after a warm-up."""
    times = []
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(one, list(segments_of(paths[:1]))[:1] * 4, chunksize=1)
        for _ in range(rounds):
            started = time.perf_counter()
            done = sum(count(outcome) for outcome in pool.imap(one, segments_of(paths)))
            times.append((time.perf_counter() - started, done))
    return times


# rigflow


async def rigflow(paths: list[Path], rounds: int, report: dict[str, Any]) -> list[tuple[float, int]]:
    """A broker and two workers that are up and warm; then the job, from publish to its file, `rounds` times."""

    class Quiet:
        def planned(self, outcomes: list[Outcome]) -> None: ...
        def sent(self, job: str, seconds: float, segments: int) -> None: ...
        def part(self, job: str, meta: object) -> None: ...
        def event(self, text: str) -> None:
            print(text, file=sys.stderr)

    times = []
    models = find_models(SPEC, None)
    with tempfile.TemporaryDirectory() as folder:
        async with local_fleet(Settings(), 2, Quiet()) as settings:
            for number in range(2):
                warm = workloads.looped(Path(folder) / f"warm{number}.mp4", 1)
                await run_jobs(settings, SPEC, models, [warm], Path(folder), Lane.BULK, Quiet())
            pids = measure.tree()
            before = measure.cpu_s(pids)
            for number in range(rounds):
                out = Path(folder) / str(number)
                out.mkdir()
                for path in paths:
                    path.touch()  # another time of change is another job
                started = time.perf_counter()
                outcomes = await run_jobs(settings, SPEC, models, paths, out, Lane.BULK, Quiet())
                taken = time.perf_counter() - started
                assert all(outcome.ok for outcome in outcomes), outcomes
                times.append((taken, sum(outcome.done.frames for outcome in outcomes if outcome.done)))
            after = measure.cpu_s(pids)
            used: dict[str, float] = {}
            for pid in after:
                role = measure.role_of(pid)
                used[role] = used.get(role, 0.0) + (after[pid] - before.get(pid, 0.0)) / rounds
            report["cpu_s_by_role"] = used
            report["broker_share"] = used["broker"] / sum(used.values())
            report["rss_mb"] = measure.rss_bytes(pids) / 1e6
    return times


def main() -> None:
    name, workload, folder, rounds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    paths = inputs_of(workload, folder)
    report: dict[str, Any] = {"name": name, "workload": workload}
    before = sum(measure.cpu_s(measure.tree()).values())
    if name in ("script", "decode"):
        work = script if name == "script" else decode_alone
        work(paths[:1])
        before = sum(measure.cpu_s(measure.tree()).values())
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            done = work(paths)
            times.append((time.perf_counter() - started, done))
    elif name == "decode2":
        times = pooled(decode_one, int, paths, rounds)
    elif name == "pool":
        times = pooled(chain_one, lambda outcome: outcome[0], paths, rounds)
    else:
        times = asyncio.run(rigflow(paths, rounds, report))
    if "cpu_s_by_role" in report:
        report["cpu_s"] = sum(report["cpu_s_by_role"].values())
    else:
        report["cpu_s"] = (sum(measure.cpu_s(measure.tree()).values()) - before) / rounds
    report["seconds"] = [seconds for seconds, _ in times]
    report["items"] = times[0][1]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
