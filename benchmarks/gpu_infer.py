"""Measures X3D-S on a GPU: the stage beside a loop over its session, latency, bytes over the bus, several GPUs."""

import argparse
import os
import time
from collections import deque
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.gpu_chain import run, timed
from benchmarks.gpu_clips import hd
from benchmarks.workloads import named
from engines.cuda.arrays import GpuRow, GpuRows
from engines.cuda.copies import copied
from engines.cuda.gpu import CudaGpu
from engines.inference.batch import infer_parts
from engines.inference.cuda import CudaSession
from engines.inference.session import RowBatch, RowSelection
from engines.machine import gpus as all_gpus
from engines.models.catalogue import load_model
from engines.part import Part
from pipelines.registry import builtin_pipeline
from schemas.jobs import JobRef, Key, Priority
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage
from schemas.rig import ALL_STAGES
from tests.fleet import Fleet

SIDE, FRAMES, STRIDE, BATCH, SECONDS = 182, 13, 6, 16, 4.0
FILMS = 4  # for each GPU


class Timeline(CudaSession):
    """A session that notes when the GPU began and ended each batch."""

    spans: list[tuple[Any, Any]]

    def _go(self, binding: Any) -> None:
        began, ended = (self._gpu.driver.Event() for _ in range(2))
        began.record(self._runs)
        super()._go(binding)
        ended.record(self._runs)
        self.__dict__.setdefault("spans", []).append((began, ended))

    def busy(self) -> tuple[float, float]:
        """Milliseconds that the GPU was busy, and from the first beginning to the last end."""
        spans = self.spans
        spans[-1][1].synchronize()
        return sum(began.time_till(ended) for began, ended in spans), spans[0][0].time_till(spans[-1][1])


def infer(options: argparse.Namespace) -> dict[str, Any]:
    """Windows a second and latency of X3D-S."""
    if options.model is None:
        return {"left out": "no --model"}
    gpu = CudaGpu(options.device, options.folder / "cache")
    spec, model = load_model(options.model)
    found: dict[str, Any] = {}
    choices: dict[str, dict[str, Any]] = {
        "float32, heuristic": {"search": "HEURISTIC"},
        "float32, exhaustive": {"search": "EXHAUSTIVE"},
        "TF32, heuristic": {"tf32": True, "search": "HEURISTIC"},
        "TF32, exhaustive": {"tf32": True, "search": "EXHAUSTIVE"},
    }
    for label, given in choices.items():
        before_mb = measure.rss_bytes([os.getpid()]) / 1e6
        session = Timeline(model, spec, gpu, **given)
        began_s = time.perf_counter()
        rows = windows_on(gpu, BATCH)
        session.run({"pixels": rows})
        runtime_mb = measure.rss_bytes([os.getpid()]) / 1e6
        found.setdefault("resident MB of the runtime", runtime_mb - before_mb)
        found[f"{label}: first batch, s"] = time.perf_counter() - began_s
        found[f"{label}: bare loop, windows/s"] = bare = loop(session, rows)
        if label == "TF32, exhaustive":
            found |= stage(session, gpu, bare)
            found |= latency(session, gpu, bare)
            found["resident MB beyond the runtime"] = measure.rss_bytes([os.getpid()]) / 1e6 - runtime_mb
        session.close()
    gpu.close()
    return found


def frames_on(gpu: CudaGpu, count: int) -> GpuRows:
    """Noise in the GPU's memory, a block each frame."""
    generator = np.random.default_rng(0)
    shape = (SIDE, SIDE, 3)
    rows = []
    for _ in range(count):
        rows.append(GpuRow(gpu, copied(gpu, generator.integers(0, 256, shape, np.uint8)), shape))
    return GpuRows(rows)


def index_of(windows: int) -> Any:
    return (np.arange(windows)[:, None] * STRIDE + np.arange(FRAMES)).astype(np.int32)


def windows_on(gpu: CudaGpu, count: int) -> RowBatch:
    """Windows that share frames, in the GPU's memory."""
    frames: Any = frames_on(gpu, FRAMES + STRIDE * (count - 1))
    return RowBatch([RowSelection(frames, index_of(count), 0, len(frames))])


def loop(session: CudaSession, rows: RowBatch) -> float:
    """Windows a second of the session alone, two batches in flight."""
    waiting: deque[Any] = deque()
    for _ in range(3):
        session.run({"pixels": rows})
    began_s, done = time.perf_counter(), 0
    while time.perf_counter() - began_s < SECONDS:
        waiting.append(session.start({"pixels": rows}))
        if len(waiting) == 2:
            waiting.popleft()()
            done += rows.shape[0]
    took_s = time.perf_counter() - began_s
    for finish in waiting:
        finish()
    return done / took_s


def stage(session: Timeline, gpu: CudaGpu, bare: float) -> dict[str, Any]:
    """The infer stage over parts of eight windows in the GPU's memory."""
    spec = OperatorStage(kind="infer", name="infer", model="x3d_s", max_batch=BATCH)
    parts = [part_of(gpu, number) for number in range(16)]
    infer_parts(spec, session, parts)
    session.spans = []
    used_s, done, began_s = time.process_time(), 0, time.perf_counter()
    before = (gpu.counters.allocations, gpu.counters.to_gpu_bytes, gpu.counters.from_gpu_bytes)
    while time.perf_counter() - began_s < SECONDS:
        made = infer_parts(spec, session, parts[:8])
        assert all(isinstance(part, Part) for part in made), made
        parts = parts[8:] + parts[:8]
        done += 8 * 8
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - used_s
    after = (gpu.counters.allocations, gpu.counters.to_gpu_bytes, gpu.counters.from_gpu_bytes)
    busy_ms, span_ms = session.busy()
    return {
        "infer stage, windows/s": done / took_s,
        "infer stage beside the bare loop": done / took_s / bare,
        "GPU busy over the run": busy_ms / span_ms,
        "CPU s a 1,000 windows": 1000 * cpu_s / done,
        "allocations in steady state": after[0] - before[0],
        "bytes to the GPU a window": (after[1] - before[1]) / done,
        "bytes from the GPU a window": (after[2] - before[2]) / done,
    }


def part_of(gpu: CudaGpu, number: int) -> Part:
    frames: Any = frames_on(gpu, FRAMES + STRIDE * 7)
    media = MediaInfo(kind="video", width=SIDE, height=SIDE)
    key = Key(
        job=JobRef(id="bench", tenant="main", pipeline="clip-features", revision="0" * 16, priority=Priority.BULK),
        segment=number,
        part=0,
        last=True,
    )
    return Part(PartMeta(key=key, media=media, pts=tuple(range(8)), frames=8), {"pixels": frames, "index": index_of(8)})


def latency(session: CudaSession, gpu: CudaGpu, bare: float) -> dict[str, float]:
    """Milliseconds from a batch of windows to its answer, at half of what the GPU can do."""
    rows = windows_on(gpu, BATCH)
    for _ in range(3):
        session.run({"pixels": rows})
    every_s, took = BATCH / (bare / 2), []
    begin_s = time.perf_counter()
    for number in range(max(2, int(SECONDS / every_s))):
        due_s = begin_s + number * every_s
        time.sleep(max(0.0, due_s - time.perf_counter()))
        session.run({"pixels": rows})
        took.append(1000 * (time.perf_counter() - due_s))
    return {f"latency of {BATCH} at half load, mean ms": float(np.mean(took)), "p99 ms": float(np.percentile(took, 99))}


def windows(options: argparse.Namespace) -> dict[str, Any]:
    """Bytes over the bus a window of `clip-features`, decoded by the GPU and by the host; and its rate."""
    if options.model is None:
        return {"left out": "no --model"}
    spec, found = builtin_pipeline("clip-features"), {}
    for decoder in ("gpu", "host"):
        path, frames = hd(options.folder, 6000), 6000
        fleet = Fleet(
            (ALL_STAGES,),
            options.folder / "cache",
            devices=[options.device],
            ack_wait_s=20.0,
            decoder=decoder,
            tf32=True,
        )
        measured = timed(fleet, spec, [path], frames, options)
        count = frames / 25 * 5 / STRIDE
        for side in ("to", "from"):
            measured[f"MB {side} the GPU a window"] = measured.pop(f"{side}_gpu_bytes, of the job") / count / 1e6
        found[f"decoded by the {decoder}"] = measured | {"windows/s": measured["frames/s"] / 25 * 5 / STRIDE}
    return found


def gpus(options: argparse.Namespace) -> dict[str, Any]:
    """`clip-features` over one GPU, two, and all: windows a second, and each GPU's share of one GPU's alone."""
    if options.model is None:
        return {"left out": "no --model"}
    names = [f"cuda:{gpu.uuid}" for gpu in all_gpus()]
    spec, found, alone = builtin_pipeline("clip-features"), {}, 0.0
    warm, film = hd(options.folder, 1500), hd(options.folder, 6000)
    for count in sorted({1, 2, len(names)}):
        if count > len(names):
            continue
        fleet = Fleet(
            (ALL_STAGES,) * count, options.folder / "cache", devices=names[:count], ack_wait_s=20.0, tf32=True
        )
        with fleet:
            run(fleet, spec, named(warm, [warm], count), options)
            began_s = time.perf_counter()
            outcomes = run(fleet, spec, named(film, [film], FILMS * count), options)
            took_s = time.perf_counter() - began_s
        assert all(outcome.ok for outcome in outcomes), [str(outcome.error) for outcome in outcomes]
        rate = len(outcomes) * 6000 / took_s / 25 * 5 / STRIDE
        alone = alone or rate
        found[f"{count} GPUs"] = {"windows/s": rate, "of one GPU's, each": rate / count / alone}
    return found
