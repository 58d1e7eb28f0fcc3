"""What a GPU is to do all day: detect in 1080p while it is busy, and upscale 720p without the host."""

import argparse
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
from av.video.frame import CudaContext

from benchmarks.gpu_busy import Busy
from benchmarks.gpu_chain import on_gpu, timed
from benchmarks.gpu_clips import hd, real_full_hd
from benchmarks.gpu_outputs import CARD, DETECT, parts_of, with_few_candidates
from benchmarks.peers.plain_upscaler import Upscaler
from benchmarks.upscale import model_in
from benchmarks.yolo import yolov8n
from engines.backends.onnxruntime import OnnxRuntime
from engines.device.cuda import CudaDevice
from engines.device.nvenc import gpu_frames
from engines.inference.session import RowBatch
from engines.inference.sources import Source
from engines.inference.tiles import Tiles
from engines.machine import find_gpu
from engines.media.split import Splitter
from engines.models.catalogue import load_model
from engines.outputs.colour import picture_planes
from engines.outputs.gop import geometry_of
from engines.part import Array, Part, no_tick
from engines.plan import Plan, plan_pipeline
from engines.planned import model_picture_name
from pipelines.registry import builtin_pipeline
from schemas.jobs import JobRef, Key
from schemas.model_profile import ComputeOptions
from schemas.pipeline import OperatorStage, parse_pipeline
from schemas.settings import Settings

FRAMES_A_WORKER, WARM_FRAMES = 6000, 1200
ARRANGED = ((4, 4, False), (8, 4, False), (12, 2, False), (8, 4, True))  # workers, decoders in each, TF32
COMPUTED = {
    "TF32": ComputeOptions(precision="tf32"),
    "float16": ComputeOptions(precision="fp16"),
    "float16, own kernels": ComputeOptions(precision="fp16", kernels=True),
}
HD_FRAMES, SCRIPT_FRAMES, SECONDS, ROUNDS = 450, 12, 3.0, 2
TILE = (720, 1280)
ONE_PICTURE_BYTES = 3 * 720 * 1280
DETECTOR = """
name = "detector"
media = "video"
[[stage]]
kind = "decode"
[[stage]]
kind = "infer"
model = "yolov8"
max_batch = 16
[[stage]]
kind = "encode"
format = "detections"
"""


def detect(options: argparse.Namespace) -> dict[str, Any]:
    """Every frame of a 1080p film through NVDEC, kernels and a network of YOLOv8's shape to boxes in a file."""
    path = options.folder / "yolov8.onnx"
    path.write_bytes(yolov8n())
    path.with_suffix(".toml").write_text(CARD + DETECT)
    threshold = _threshold(path, options)
    path.with_suffix(".toml").write_text(f"{CARD}{DETECT}threshold = {threshold}\n")
    spec = parse_pipeline(DETECTOR, "detector.toml")
    warm, options = real_full_hd(options.folder, WARM_FRAMES), argparse.Namespace(**{**vars(options), "model": path})
    found: dict[str, Any] = {}
    for workers, decoders, tf32 in ARRANGED:
        frames, watch = workers * FRAMES_A_WORKER, Busy(find_gpu(options.device)[1].uuid)
        fleet = on_gpu(options, workers, decoders=decoders, tf32=tf32)
        figures = timed(fleet, spec, [real_full_hd(options.folder, frames)], frames, options, watch, [warm])
        for side in ("to", "from"):
            figures[f"bytes {side} the GPU a frame"] = figures.pop(f"{side}_gpu_bytes, of the job") / frames
        found[f"{workers} x {decoders}, {'TF32' if tf32 else 'float32'}"] = figures | watch.found
    return found


def _threshold(path: Path, options: argparse.Namespace) -> float:
    """The threshold that some hundred candidates of a picture exceed."""
    device = CudaDevice(options.device, Settings(tf32=True), options.folder / "cache")
    spec, body = load_model(path)
    session: Any = OnnxRuntime(Settings(tf32=True)).open(body, spec, device)
    session.reduce(())
    stage = OperatorStage(kind="infer", name="infer", model=spec.name, max_batch=16)
    spec = with_few_candidates(session, spec, stage, parts_of(device.gpu, spec, 0))
    session.close()
    device.close()
    return float(spec.heads[0].options["threshold"])  # type: ignore[arg-type]


def upscale(options: argparse.Namespace) -> dict[str, Any]:
    """720p four times as large: rigflow's stages, a bare loop over the same session, a script through the host."""
    settings = Settings(tf32=True)
    device = CudaDevice(options.device, settings, options.folder / "cache")
    path, about = model_in(options.folder, TILE)
    spec, body = load_model(path)
    plan = plan_pipeline(builtin_pipeline("upscale").with_model(path.stem), {path.stem: spec})
    film, gpu = hd(options.folder, HD_FRAMES), device.gpu
    found: dict[str, Any] = {"GPU": gpu.facts.name, "model": about, "tile": f"{TILE}"}
    found["script through the host"], script = scripted(path, film)
    for name, computed in COMPUTED.items():
        session: Any = OnnxRuntime(settings).open_with(body, spec, device, computed)
        session.warm_up()
        found[name] = _upscaled(device, plan, session, film, script)
        session.close()
    return found


def _upscaled(device: CudaDevice, plan: Plan, session: Any, film: Path, script: float) -> dict[str, Any]:
    """Figures of one session."""
    gpu = device.gpu
    found: dict[str, Any] = {}
    ways: dict[str, Callable[[], tuple[int, float]]] = {
        "bare loop": lambda: bare(session, next(decoded(device, plan, film))),
        "rigflow, to frames for NVENC": lambda: stages(device, plan, session, film, _frames_for_nvenc(device)),
        "rigflow, to planes on the host": lambda: stages(device, plan, session, film, _copied),
    }
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            before, cpu_s = (gpu.counters.to_gpu_bytes, gpu.counters.from_gpu_bytes), time.process_time()
            with Busy(gpu.facts.uuid) as busy:
                frames, took_s = run()
            cpu_s, after = time.process_time() - cpu_s, (gpu.counters.to_gpu_bytes, gpu.counters.from_gpu_bytes)
            rates.setdefault(way, []).append(frames / took_s)
            found[way] = {
                "frames/s, each round": ", ".join(f"{rate:.2f}" for rate in rates[way]),
                "CPU s a 1,000 frames": 1000 * cpu_s / frames,
                "MB to the GPU a frame": (after[0] - before[0]) / frames / 1e6,
                "MB from the GPU a frame": (after[1] - before[1]) / frames / 1e6,
                **busy.found,
            }
    for way in list(ways)[1:]:
        pairs = list(zip(rates[way], rates["bare loop"], strict=True))
        found[way]["beside the bare loop, each round"] = ", ".join(f"{mine / other:.3f}" for mine, other in pairs)
        found[way]["beside the script"] = sorted(rates[way])[ROUNDS // 2] / script
    return found


def decoded(device: CudaDevice, plan: Plan, film: Path) -> Iterator[Part]:
    """The parts of a film, as a worker decodes them: of several segments by turns."""
    convert, job = device.preprocess(plan.decode.pictures), JobRef(id="b", pipeline="b", revision="b")
    waiting: deque[Any] = deque()
    with Splitter(film, plan.spec.grid, plan.spec.segment_s) as splitter:
        for number, data in enumerate(splitter.segments()):
            segment = data.segment(Key(job=job, segment=number, final=data.final))
            buffers = [memoryview(buffer).cast("B") for buffer in data.buffers]
            waiting.append(device.decode(segment, buffers, plan.decode, convert))
    readers: deque[Any] = deque()
    while readers or waiting:
        while waiting and len(readers) < device.concurrency:
            readers.append(waiting.popleft())
            readers[-1].begin()
        reader = readers.popleft()
        part = next(reader, None)
        if part is not None:
            readers.append(reader)
            yield part


def stages(
    device: CudaDevice, plan: Plan, session: Any, film: Path, encode: Callable[[Sequence[Array]], int]
) -> tuple[int, float]:
    """Frames, and seconds from the first part on, as a worker's two threads compute them.

    One runs the network, a part a step; the other runs `scale`, makes planes of 4:2:0 and calls `encode` with them.
    """
    infer = plan.spec.operators[0]
    made: Queue[Part | None] = Queue(1)

    def encode_apart() -> int:
        count = 0
        while (part := made.get()) is not None:
            [part] = plan.operators["scale"].run([part], None, no_tick)  # type: ignore[list-item]
            assert isinstance(part, Part), part
            count += encode(picture_planes(part.with_arrays({"pixels": part.array("image")}))[0])
        device.leave()
        return count

    parts = decoded(device, plan, film)
    first = next(parts)
    began_s = time.perf_counter()
    with ThreadPoolExecutor(1) as thread:
        counted = thread.submit(encode_apart)
        for each in chain([first], parts):
            [outcome] = plan.operators[infer.name].run([each], session, no_tick)
            made.put(plan.kept(infer.name, each, outcome), timeout=60)  # type: ignore[arg-type]
        made.put(None)
        frames = counted.result()
    return frames, time.perf_counter() - began_s


def _frames_for_nvenc(device: CudaDevice) -> Callable[[Sequence[Array]], int]:
    context = CudaContext(device.gpu.number, primary_ctx=False, current_ctx=True)

    def encode(planes: Sequence[Array]) -> int:
        return sum(1 for _ in gpu_frames(device.gpu, planes, geometry_of(planes), context))

    return encode


def _copied(planes: Sequence[Array]) -> int:
    for number in range(len(planes[0])):
        for plane in planes:
            np.asarray(plane[number])
    return len(planes[0])


def bare(session: Any, part: Part) -> tuple[int, float]:
    """The session alone, one frame a batch, two batches in flight, its pictures left on the GPU."""
    [tensor] = session.spec.inputs
    tiles = Tiles(Source(part.array(model_picture_name("infer", tensor.name))), tensor.picture)
    name, rows = tensor.name, RowBatch([tiles.chosen(0, 1)])
    for _ in range(3):
        session.run({name: rows})
    queued: deque[Any] = deque()
    done, began_s = 0, time.perf_counter()
    while time.perf_counter() - began_s < SECONDS:
        queued.append(session.start({name: rows}))
        if len(queued) == 2:
            queued.popleft()()
            done += 1
    took_s = time.perf_counter() - began_s
    for finish in queued:
        finish()
    return done, took_s


def scripted(model: Path, film: Path) -> tuple[dict[str, Any], float]:
    """PyAV, NumPy and ONNX Runtime on the same GPU: whole frames as floats to the GPU and back."""
    script = Upscaler(model, [("CUDAExecutionProvider", {"use_tf32": "1"}), "CPUExecutionProvider"])
    pictures = script.pictures(film)
    next(pictures)
    used_s, began_s, done = time.process_time(), time.perf_counter(), 0
    while done < SCRIPT_FRAMES:
        next(pictures)
        done += 1
    took_s, used_s = time.perf_counter() - began_s, time.process_time() - used_s
    figures = {
        "frames/s": done / took_s,
        "CPU s a 1,000 frames": 1000 * used_s / done,
        "MB to the GPU a frame": 4 * ONE_PICTURE_BYTES / 1e6,
        "MB from the GPU a frame": 16 * 4 * ONE_PICTURE_BYTES / 1e6,
    }
    return figures, done / took_s
