"""Measures a detector over a video, beside a plain script: `python -m benchmarks.detect [--short] [--seconds 60]
[--rounds 3]`.

Both find the boxes of each frame of a 720p video by NanoDet: letterbox, normalisation, the model, its head and the
suppression. The script (`benchmarks.peers.plain_detector`) is one process of PyAV, NumPy and ONNX Runtime with its
default threads; rigflow has two workers and its pipeline `detect`. They run in turn, each warm, and their boxes are
compared.

The model is nanodet_g_416.onnx in the folder that TEST_WEIGHTS names; where there is none, a network of its
shape with seeded random weights.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.contest import Meter
from benchmarks.peers.plain_detector import BINS, CLASSES, SIDE, STRIDES, Detector
from benchmarks.peers.rigflow import FilmFleet
from benchmarks.workloads import looped
from engines.models.catalogue import load_model
from pipelines.registry import builtin_pipeline

WORKERS = 2
NEAR_SCORE, NEAR_PIXELS = 0.005, 1.0  # of the same box
SCORE_BIAS = -7.0  # of random weights: a few boxes a frame
REAL = "nanodet_g_416.onnx"
CARD = """
[[inputs]]
name = "images"
colours = "bgr"
fit = "letterbox"
resize = "bilinear"
mean = [103.53, 116.28, 123.675]
std = [57.375, 57.12, 58.395]
[[heads]]
kind = "detect"
decoder = "nanodet"
reg_max = 10
"""
Box = tuple[Any, float, int]


def random_detector() -> bytes:
    """`images [1, 3, 416, 416]` -> `scores_sS [1, cells, 80]`, `regs_sS [1, cells, 44]` for the strides S."""
    random = np.random.default_rng(0)
    nodes, kept, outputs = [], [], []

    def op(kind: str, *names: str, result: str = "", **attributes: Any) -> str:
        result = result or f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, names, [result], **attributes))
        return result

    def constant(values: Any) -> str:
        kept.append(numpy_helper.from_array(np.asarray(values), f"c{len(kept)}"))
        return str(kept[-1].name)

    def conv(value: str, into: int, out: int, kernel: int, stride: int = 1, bias: float = 0.0) -> str:
        spread = np.sqrt(2 / (into * kernel**2))
        weights = constant((random.standard_normal((out, into, kernel, kernel)) * spread).astype(np.float32))
        bias_name = constant(np.full(out, bias, np.float32))
        return op("Conv", value, weights, bias_name, strides=[stride] * 2, pads=[kernel // 2] * 4)

    value, width = "images", 3
    for level, wide in enumerate((12, 24, 48, 96, 192)):
        value = op("Relu", conv(value, width, wide, 3, 2))
        for _ in range(2):
            value = op("Relu", conv(value, wide, wide, 3 if wide < 192 else 1))
        width = wide
        stride = 2 << level
        if stride in STRIDES:
            for name, columns, bias in (("scores", CLASSES, SCORE_BIAS), ("regs", 4 * BINS, 0.0)):
                flat = op("Reshape", conv(value, wide, columns, 1, bias=bias), constant(np.array([1, columns, -1])))
                cells = op("Transpose", flat, perm=[0, 2, 1], result=f"regs_s{stride}" if name == "regs" else "")
                if name == "scores":
                    op("Sigmoid", cells, result=f"scores_s{stride}")
                shape = [1, (SIDE // stride) ** 2, columns]
                outputs.append(helper.make_tensor_value_info(f"{name}_s{stride}", TensorProto.FLOAT, shape))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "detector", [images], outputs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def model_in(folder: Path) -> tuple[Path, str]:
    """The model's file with its card beside it, and which model it is."""
    path = folder / "detector.onnx"
    real = Path(os.environ.get("TEST_WEIGHTS", ""), REAL)
    path.write_bytes(real.read_bytes() if real.is_file() else random_detector())
    path.with_suffix(".toml").write_text(CARD)
    return path, REAL if real.is_file() else "random weights"


def boxes_in(path: Path) -> list[list[Box]]:
    """The boxes of each frame, as a job's file has them."""
    lines = path.read_text().splitlines()
    return [[(b["box"], b["score"], b["class"]) for b in json.loads(line)["boxes"]] for line in lines]


def alike(found: Sequence[Sequence[Box]], expected: Sequence[Sequence[Box]]) -> tuple[int, int]:
    """How many of the expected boxes were found too, and how many boxes there are on either side at most."""
    same = 0
    for frame, other in zip(found, expected, strict=True):
        left = list(frame)
        for box, score, label in other:
            for number, (corners, value, kind) in enumerate(left):
                near = np.abs(np.subtract(corners, box)).max() <= NEAR_PIXELS and abs(value - score) <= NEAR_SCORE
                if kind == label and near:
                    del left[number]
                    same += 1
                    break
    return same, max(sum(map(len, found)), sum(map(len, expected)))


async def compare(seconds: float, rounds: int, folder: Path) -> dict[str, Any]:
    """The medians of both, in frames a second, and their ratio, the median of each round's."""
    model, about = model_in(folder)
    video, warm = looped(folder / "video.mp4", seconds), looped(folder / "warm.mp4", 1.0)
    script = Detector(model)
    rates: dict[str, list[float]] = {"script": [], "rigflow": []}
    cpu: dict[str, list[float]] = {"script": [], "rigflow": []}  # ms a frame, of all processes
    spec, models = builtin_pipeline("detect").with_model("detector"), {"detector": load_model(model)}
    async with FilmFleet(spec, models, WORKERS, folder / "out") as rigflow:
        await rigflow.run(warm)
        list(script.detect(warm))
        for _ in range(rounds):
            began, meter = time.perf_counter(), Meter()
            expected = list(script.detect(video))
            between = time.perf_counter()
            used, _ = meter.stop()
            rates["script"].append(len(expected) / (between - began))
            cpu["script"].append(1000 * used / len(expected))
            began, meter = time.perf_counter(), Meter()
            found = boxes_in(Path(f"{await rigflow.run(video)}.jsonl"))
            ended = time.perf_counter()
            used, _ = meter.stop()
            rates["rigflow"].append(len(found) / (ended - began))
            cpu["rigflow"].append(1000 * used / len(found))
            print(f"  script {rates['script'][-1]:6.1f} frames/s  rigflow {rates['rigflow'][-1]:6.1f}", flush=True)
    same, boxes = alike(found, expected)
    ratios = [mine / other for mine, other in zip(rates["rigflow"], rates["script"], strict=True)]
    medians = {name: median(each) for name, each in rates.items()}
    costs = {f"cpu_ms_{name}": median(each) for name, each in cpu.items()}
    result = {"model": about, "frames": len(found), **medians, "ratio": median(ratios), **costs}
    return {**result, "same": same, "boxes": boxes}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where boxes differ: fewer than 98 of 100 are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few seconds, once, as a check")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the video")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    seconds, rounds = (4.0, 1) if options.short else (options.seconds, options.rounds)
    with tempfile.TemporaryDirectory(prefix="rigflow-detect-") as name:
        result = asyncio.run(compare(seconds, rounds, Path(name)))
    print(json.dumps(result))
    return 0 if result["same"] >= 0.98 * result["boxes"] else 1


if __name__ == "__main__":
    sys.exit(main())
