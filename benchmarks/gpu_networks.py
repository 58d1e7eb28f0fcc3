"""Three networks on a GPU, each by ONNX Runtime, by own kernels and by torch.compile; and frames to boxes."""

import argparse
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu_chain import every_frame
from benchmarks.gpu_clips import hd, real
from benchmarks.gpu_outputs import CARD, DETECT, parts_of, timed, with_few_candidates
from benchmarks.gpu_path import bodies_of, decoded_parts, frame_path
from benchmarks.upscale import model_in
from benchmarks.yolo import yolov8n
from engines.backends.onnxruntime import OnnxRuntime
from engines.content import Content, graph_of
from engines.cuda.arrays import GpuRow, GpuRows
from engines.cuda.copies import copied
from engines.device.cuda import CudaDevice
from engines.inference.batch import infer_parts
from engines.inference.filling import rows_of
from engines.inference.heads import Heads
from engines.inference.session import RowBatch, RowSelection
from engines.inference.work import Begun
from engines.models.catalogue import load_model
from engines.part import Part
from engines.plan import plan_pipeline
from engines.ragged import Ragged
from pipelines.registry import builtin_pipeline
from schemas.errors import RigflowError
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions
from schemas.pipeline import OperatorStage
from schemas.settings import Settings
from tests.nets import x3d

SECONDS, TILE, SIDE = 2.0, (720, 1280), 320
FRAMES, STEP = 3_000, 8  # frames of a film, and batches of a step: as many as a worker gives to short ones
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
    """YOLOv8n at 320 to boxes on the host: the session alone, the stage over parts that lie on the GPU, and films.

    Films are decoded and converted as a worker does it, by the threads of its device, and the stage runs on a thread of
    its own: the C library gives memory of the main thread back after each batch, and takes new pages for the next one.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_boxes, options).result()


def _boxes(options: argparse.Namespace) -> dict[str, Any]:
    settings = Settings(tf32=True, precision="fp16")
    device = CudaDevice(options.device, settings, options.folder / "cache")
    network = networks_in(options.folder)["YOLOv8n 320"]
    found: dict[str, Any] = {"GPU": device.gpu.facts.name}
    for turn in range(2):
        for name, graph in (("", False), ("CUDA graph, ", True)):
            try:
                made = _by(device, settings, network, graph, options, films=turn > 0)
            except RigflowError as error:
                made = {"failed": str(error)}
            found |= {f"{name}{what}, round {turn + 1}": figure for what, figure in made.items()}
    return found


def _by(
    device: CudaDevice, settings: Settings, network: Network, graph: bool, options: argparse.Namespace, films: bool
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
    found |= _of_films(device, session, heads, stage, options) if films else {}
    found["graphs were used to the end"] = bool(session._recordings)
    session.close()
    return found


def _of_films(
    device: CudaDevice, session: Any, heads: Heads, stage: OperatorStage, options: argparse.Namespace
) -> dict[str, Any]:
    """The way from films to boxes, and to pictures alone."""
    found: dict[str, Any] = {}
    films = {"720p": hd(options.folder, FRAMES), "360p": real(options.folder, "real-360p", (360, 640), FRAMES)}
    detect = every_frame(builtin_pipeline("detect").with_model(session.spec.name))
    plan = plan_pipeline(detect, {session.spec.name: session.spec}).decode
    for name, film in films.items():
        bodies = bodies_of(film, detect)
        found[f"films of {name}, decoded and converted alone"] = frame_path(device, bodies, plan, device.concurrency)
        parts = decoded_parts(device, bodies, plan, device.concurrency)
        found[f"films of {name} to boxes"] = _to_boxes(session, heads, stage, parts)
    return found


def _to_boxes(session: Any, heads: Heads, stage: OperatorStage, parts: Iterator[Part]) -> dict[str, float]:
    """This thread runs the stage in steps of as many batches as a worker's, and leaves what fills no batch."""
    waiting: list[Part] = []
    images = found = 0

    def step() -> None:
        nonlocal waiting, images, found
        while sum(sum(rows_of(stage, session, part).values()) for part in waiting) < STEP * stage.max_batch:
            waiting.append(next(parts))
        outcomes, waiting = infer_parts(stage, session, waiting, heads=heads, only_full=True), []
        for part in outcomes:
            assert isinstance(part, Part), part
            if isinstance(part, Begun):
                waiting.append(part)
                continue
            scores = part.arrays["scores"]
            assert isinstance(scores, Ragged)
            images += len(part.meta.pts)
            found += len(scores.values)

    for _ in range(5):
        step()
    images = found = 0
    used_s, began_s = time.process_time(), time.perf_counter()
    while time.perf_counter() - began_s < 2 * SECONDS:
        step()
    took_s, used_s = time.perf_counter() - began_s, time.process_time() - used_s
    return {
        "images/s": images / took_s,
        "boxes an image": found / images,
        "CPU s a 1,000 images": 1000 * used_s / images,
    }
