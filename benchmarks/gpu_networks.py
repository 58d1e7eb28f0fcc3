"""Three networks on a GPU, each by ONNX Runtime, by own kernels and by torch.compile; and frames to boxes."""

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu_clips import hd
from benchmarks.gpu_outputs import CARD, DETECT, PART, parts_of, timed, with_few_candidates
from benchmarks.gpu_parts import decoded
from benchmarks.upscale import model_in
from benchmarks.yolo import yolov8n
from engines.backends.onnxruntime import OnnxRuntime
from engines.content import Content, graph_of
from engines.cuda.arrays import GpuRow, GpuRows
from engines.cuda.copies import copied
from engines.device.cuda import CudaDevice
from engines.inference.batch import infer_parts
from engines.inference.heads import Heads
from engines.inference.session import RowBatch, RowSelection
from engines.models.catalogue import load_model
from engines.part import Part
from engines.pictures import FramePictures
from engines.planned import FRAME_SIZE, INDEX, model_picture_name
from engines.ragged import Ragged
from schemas.errors import RigflowError
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions
from schemas.parts import PartMeta
from schemas.pipeline import OperatorStage
from schemas.settings import Settings
from tests.nets import x3d

SECONDS, TILE, SIDE = 2.0, (720, 1280), 320
PRODUCERS, STEP = 2, 16  # threads that convert frames, and parts of a call of the infer stage
_MOST_PARTS = 64


class Network(NamedTuple):
    """A model as it travels, the bytes of a batch, and the ways to compute it."""

    spec: ModelSpec
    model: Content
    shape: tuple[int, ...]
    ways: dict[str, ComputeOptions]


def networks_in(folder: Path) -> dict[str, Network]:
    """The networks, with random weights where there are no real ones."""
    path, about = model_in(folder, TILE)
    detector = folder / "yolov8.onnx"
    detector.write_bytes(yolov8n(SIDE))
    detector.with_suffix(".toml").write_text(CARD + DETECT)
    tf32, half = ComputeOptions(precision="tf32"), ComputeOptions(precision="fp16")
    usual = {"ONNX Runtime, TF32": tf32, "ONNX Runtime, float16": half}
    own = {"own kernels": ComputeOptions(precision="fp16", kernels=True)}
    last = {"ONNX Runtime, float16, channels last": half.model_copy(update={"layout": "nhwc"})}
    return {
        f"animevideov3 720p, {about}": Network(*load_model(path), (1, *TILE, 3), usual | last | own),
        "YOLOv8n 320": Network(*load_model(detector), (64, SIDE, SIDE, 3), usual | last),
        "X3D-S": Network(*x3d(), (64, 13, 182, 182, 3), usual | own),
    }


def networks(options: argparse.Namespace) -> dict[str, Any]:
    """Rows a second of each network: bytes on the GPU in, outputs where a worker leaves them, two batches in flight."""
    given = networks_in(options.folder)
    peers = {
        name: _torch(options.folder / f"torch-{number}.onnx", each) for number, (name, each) in enumerate(given.items())
    }
    for peer in peers.values():
        peer.stdout.readline()  # it is compiled, or failed
    device = CudaDevice(options.device, Settings(tf32=True, precision="fp16"), options.folder / "cache")
    found: dict[str, Any] = {"GPU": device.gpu.facts.name}
    for name, network in given.items():
        found[name] = {way: _measured(device, network, computed) for way, computed in network.ways.items()}
        found[name]["torch.compile, float16"] = _answer(peers[name])
    return found


def _torch(path: Path, network: Network) -> Any:
    """A process that compiles the same graph by PyTorch, and waits."""
    path.write_bytes(graph_of(network.model))
    command = [sys.executable, "-m", "benchmarks.peers.torch_graph", str(path), "--wait"]
    command += ["--shape", ",".join(map(str, network.shape)), "--seconds", str(SECONDS)]
    with path.with_suffix(".log").open("w") as log:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        return subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]


def _answer(peer: Any) -> str:
    out, _ = peer.communicate("\n", timeout=60)
    if peer.returncode:
        return f"failed: {Path(peer.args[3]).with_suffix('.log').read_text()[-300:]}"
    figures = json.loads(out.splitlines()[-1])
    return f"{figures['rows/s']:,.1f} rows/s (torch {figures['torch']}, compiled in {figures['compiled in s']:.0f} s)"


def _measured(device: CudaDevice, network: Network, given: ComputeOptions) -> str:
    given = given.model_copy(update={"batch": network.shape[0]})
    try:
        session: Any = OnnxRuntime(Settings(tf32=True)).open_with(network.model, network.spec, device, given)
        session.warm_up()
        rate, queued_ms, _ = bare(session, rows_on(device.gpu, network.shape))
        session.close()
    except RigflowError as error:
        return f"failed: {error}"
    return f"{rate:,.1f} rows/s, {queued_ms:.2f} ms to queue a batch"


def rows_on(gpu: Any, shape: Sequence[int]) -> RowBatch:
    """Noise in the GPU's memory."""
    gpu.enter()
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    rows: Any = GpuRows([GpuRow(gpu, copied(gpu, row), row.shape) for row in noise])
    return RowBatch([RowSelection(rows, None, 0, len(rows))])


def bare(session: Any, rows: RowBatch) -> tuple[float, float, float]:
    """A session alone, two batches in flight: rows a second; of a batch, host ms to queue it, and of all threads."""
    name = session.spec.inputs[0].name
    for _ in range(3):
        session.run({name: rows})
    waiting: deque[Any] = deque()
    used_s, began_s, done, queued_s = time.process_time(), time.perf_counter(), 0, list[float]()
    while time.perf_counter() - began_s < SECONDS:
        queues_s = time.perf_counter()
        waiting.append(session.start({name: rows}))
        queued_s.append(time.perf_counter() - queues_s)
        if len(waiting) == 2:
            waiting.popleft()()
            done += rows.shape[0]
    took_s, used_s = time.perf_counter() - began_s, time.process_time() - used_s
    for finish in waiting:
        finish()
    return done / took_s, 1000 * median(queued_s), 1000 * used_s / len(queued_s)


def boxes(options: argparse.Namespace) -> dict[str, Any]:
    """Frames of 720p that lie on the GPU to boxes on the host: conversion, batches, YOLOv8n at 320, suppression."""
    settings = Settings(tf32=True, precision="fp16")
    device = CudaDevice(options.device, settings, options.folder / "cache")
    network = networks_in(options.folder)["YOLOv8n 320"]
    found: dict[str, Any] = {"GPU": device.gpu.facts.name}
    for turn in range(2):
        for name, graph in (("", False), ("CUDA graph, ", True)):
            try:
                made = _to_boxes(device, settings, network, graph, options)
            except RigflowError as error:
                made = {"failed": str(error)}
            found |= {f"{name}{what}, round {turn + 1}": figure for what, figure in made.items()}
    return found


def _to_boxes(
    device: CudaDevice, settings: Settings, network: Network, graph: bool, options: argparse.Namespace
) -> dict[str, Any]:
    """The way to boxes by a session whose batches are CUDA graphs or not."""
    spec, model, shape, _ = network
    computed = ComputeOptions(precision="tf32", batch=shape[0], graph=graph)
    session: Any = OnnxRuntime(settings).open_with(model, spec, device, computed)
    session.warm_up()
    session.reduce(())
    stage = OperatorStage(kind="infer", name="infer", model=spec.name, max_batch=shape[0])
    device.gpu.enter()
    heads = Heads(with_few_candidates(session, spec, stage, parts_of(device.gpu, spec, 0)))
    session.reduce(heads.reductions)
    rate, queued_ms, used_ms = bare(session, rows_on(device.gpu, shape))
    found: dict[str, Any] = {"session alone, images/s": rate}
    found |= {"session alone, host ms to queue a batch": queued_ms, "session alone, CPU ms a batch": used_ms}
    given = [parts_of(device.gpu, spec, number) for number in range(8)] * (_MOST_PARTS // 8)
    for count in (_MOST_PARTS // 4, _MOST_PARTS // 2, _MOST_PARTS):
        _, rate, cpu_ms = timed(session, device.gpu, heads, stage, given[:count], SECONDS)
        found[f"stage, {count} parts a step, images/s"] = rate
        found[f"stage, {count} parts a step, CPU ms a batch"] = cpu_ms * shape[0]
    frames = [mine for _, mine in decoded(device.gpu, hd(options.folder, 50), PART)]
    found |= _boxes(device, session, heads, stage, frames)
    found["graphs were used to the end"] = bool(session._recordings)
    session.close()
    return found


def _boxes(device: CudaDevice, session: Any, heads: Heads, stage: OperatorStage, frames: Sequence[Any]) -> Any:
    """Producers convert the same frames again and again; this thread runs the stage."""
    ready: queue.Queue[Part] = queue.Queue(4 * STEP)
    over = threading.Event()
    [tensor] = session.spec.inputs
    convert = device.preprocess({model_picture_name("infer", tensor.name): tensor.picture})
    makers = [threading.Thread(target=_convert, args=(device, convert, frames, ready, over)) for _ in range(PRODUCERS)]
    for maker in makers:
        maker.start()
    counts = [0, 0]

    def step() -> None:
        for part in infer_parts(stage, session, [ready.get() for _ in range(STEP)], heads=heads):
            assert isinstance(part, Part), part
            scores = part.arrays["scores"]
            assert isinstance(scores, Ragged)
            counts[0] += len(part.meta.pts)
            counts[1] += len(scores.values)

    for _ in range(5):
        step()
    counts[:] = [0, 0]
    used_s, began_s = time.process_time(), time.perf_counter()
    while time.perf_counter() - began_s < 2 * SECONDS:
        step()
    took_s, used_s = time.perf_counter() - began_s, time.process_time() - used_s
    over.set()
    while any(maker.is_alive() for maker in makers):
        while not ready.empty():
            ready.get()
        time.sleep(0.01)
    images, found = counts
    return {
        "frames to boxes, images/s": images / took_s,
        "boxes an image": found / images,
        "CPU s a 1,000 images": 1000 * used_s / images,
    }


def _convert(
    device: CudaDevice, convert: FramePictures, frames: Sequence[Any], ready: "queue.Queue[Part]", over: threading.Event
) -> None:
    key = Key(job=JobRef(id="bench", pipeline="bench", revision="0" * 16), segment=0, part=0, last=True)
    height, width = frames[0].height, frames[0].width
    media = MediaInfo(kind="video", width=width, height=height)
    sizes, index = np.full((PART, 2), (height, width), np.int32), np.arange(PART, dtype=np.int32)[:, None]
    while not over.is_set():
        made = [convert.convert(frame) for frame in frames]
        convert.synchronize()
        arrays: dict[str, Any] = {name: np.stack([each[name] for each in made]) for name in made[0]}
        arrays |= {INDEX: index, FRAME_SIZE: sizes}
        ready.put(Part(PartMeta(key=key, media=media, pts=tuple(range(PART)), frames=PART), arrays))
    device.leave()
