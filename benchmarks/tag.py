"""Tags of many pictures beside a plain script: `python -m benchmarks.tag [--short] [--pictures 400] [--width 1]`.

Both tag jpegs of 720p and write a text of each. The script (`benchmarks.peers.plain_tagger`) is one process of Pillow,
NumPy and ONNX Runtime with its default threads; rigflow has two workers. They run by turns, each warm, and the scores
are held against each other.

Two models: a network of a WD tagger's form, 448 x 448 and 10,861 tags, with seeded random weights; and
efficientnet-lite0.onnx in the folder that TEST_WEIGHTS names, where there is one.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.contest import Meter
from benchmarks.peers.plain_tagger import Classifier, Tagger
from benchmarks.peers.rigflow import LocalFleet
from benchmarks.workloads import images
from engines.models.catalogue import load_model
from pipelines.registry import builtin_pipeline

WORKERS = 2
SIDE, TAGS = 448, 10_861
REAL = "efficientnet-lite0.onnx"
NEAR = 1e-4  # of a score
WD_CARD = """
[[inputs]]
name = "input"
colours = "bgr"
scale = 1.0
fit = "pad"
pad_value = 255
background = 255
resize = "bicubic"
antialias = true
[[heads]]
kind = "tag"
threshold = 0.6
"""
CLASSIFIER_CARD = """
[[inputs]]
name = "input"
mean = 127.0
std = 128.0
resize = "bicubic"
antialias = true
[[heads]]
kind = "tag"
activation = "softmax"
threshold = 0.1
"""


def random_tagger(width: int) -> bytes:
    """`input [N, 448, 448, 3]` -> `output [N, 10861]`: convolutions of some 0.6 GFLOP times `width`², and a sigmoid."""
    random, nodes, kept = np.random.default_rng(0), [], []
    nodes.append(helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]))
    kept.append(numpy_helper.from_array(np.array(1 / 255, "f4"), "scale"))
    nodes.append(helper.make_node("Mul", ["planes", "scale"], ["v0"]))
    widths = (3, *(width * wide for wide in (16, 32, 64, 128, 256)))
    for level, (into, out) in enumerate(pairwise(widths)):
        spread = np.sqrt(2 / (9 * into))
        kept.append(
            numpy_helper.from_array((random.standard_normal((out, into, 3, 3)) * spread).astype("f4"), f"w{level}")
        )
        nodes.append(helper.make_node("Conv", [f"v{level}", f"w{level}"], [f"c{level}"], strides=[2, 2], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{level}"], [f"v{level + 1}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [f"v{len(widths) - 1}"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    kept.append(numpy_helper.from_array(random.standard_normal((widths[-1], TAGS)).astype("f4") * 0.1, "wt"))
    kept.append(numpy_helper.from_array(random.normal(-1.5, 1.0, TAGS).astype("f4"), "bt"))
    nodes.append(helper.make_node("Gemm", ["flat", "wt", "bt"], ["logits"]))
    nodes.append(helper.make_node("Sigmoid", ["logits"], ["output"]))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", SIDE, SIDE, 3])
    made = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", TAGS])
    graph = helper.make_graph(nodes, "tagger", [given], [made], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def models_in(folder: Path, width: int) -> dict[str, tuple[Path, Tagger]]:
    """Each model's file, with its card beside it, and the script that runs it."""
    real = Path(os.environ.get("TEST_WEIGHTS", ""), REAL)
    kinds = {"wd": (random_tagger(width), WD_CARD, TAGS, Tagger, 0.6)}
    if real.is_file():
        kinds["efficientnet"] = (real.read_bytes(), CLASSIFIER_CARD, 1000, Classifier, 0.1)
    models = {}
    for name, (body, card, count, script, threshold) in kinds.items():
        path, labels = folder / f"{name}.onnx", [f"tag_{number}" for number in range(count)]
        path.write_bytes(body)
        path.with_suffix(".toml").write_text(f"{card}labels = {json.dumps(labels)}\n")
        models[name] = path, script(path, labels, threshold)
    return models


def worst(found: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> float:
    """The largest difference of a score that both give; infinite where one gives a tag that is not near a threshold."""
    most = 0.0
    for one, other in zip(found, expected, strict=True):
        most = max([most, *(abs(one[name] - other[name]) for name in one.keys() & other.keys())])
        floor = min([*one.values(), *other.values()], default=0.0)
        odd = {**one, **other}
        most = max([most, *(odd[name] - floor for name in one.keys() ^ other.keys())])
    return most


async def compare(
    name: str, model: Path, script: Tagger, paths: Sequence[Path], rounds: int, out: Path, backend: str
) -> Any:
    """The medians of both, in pictures a second, their ratio, the median of each round's, and CPU of a picture."""
    spec, models = builtin_pipeline("tag").with_model(name), {name: load_model(model)}
    rates: list[tuple[float, float]] = []
    cpu: list[tuple[float, float]] = []
    fleet = LocalFleet(WORKERS, backend)
    await fleet.start()
    try:
        for number in range(-1, rounds):  # the first one is to warm up
            given = paths[:16] if number < 0 else paths
            (plain := out / f"{name}-plain{number}").mkdir(parents=True)
            (made := out / f"{name}-rigflow{number}").mkdir(parents=True)
            began, meter = time.perf_counter(), Meter()
            expected = script.tag(given, plain)
            plain_s, plain_cpu = time.perf_counter() - began, meter.stop()[0]
            began, meter = time.perf_counter(), Meter()
            [outcome] = await fleet.outcomes(spec, models, given, made)
            own_s, own_cpu = time.perf_counter() - began, meter.stop()[0]
            if not outcome.ok:
                sys.exit(f"rigflow: {outcome.error or outcome.done}")
            if number >= 0:
                rates.append((len(given) / plain_s, len(given) / own_s))
                cpu.append((1000 * plain_cpu / len(given), 1000 * own_cpu / len(given)))
                print(f"  {name}: script {rates[-1][0]:6.1f} pictures/s  rigflow {rates[-1][1]:6.1f}", flush=True)
    finally:
        await fleet.stop()
    rows = json.loads(Path(f"{outcome.target}.json").read_text())
    found = [{tag["tag"]: tag["score"] for tag in row["tags"]} for row in rows]
    both = {
        key: {"script": median(each[0] for each in pairs), "rigflow": median(each[1] for each in pairs)}
        for key, pairs in (("rate", rates), ("cpu_ms", cpu))
    }
    return {**both, "ratio": median(own / plain for plain, own in rates), "difference": worst(found, expected)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where scores differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few pictures, once: does it still run?")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="onnxruntime", help="what rigflow runs the models with, as ncnn")
    parser.add_argument("--width", type=int, default=1, help="of the random network, whose time grows with its square")
    options = parser.parse_args(arguments)
    count, rounds = (24, 1) if options.short else (options.pictures, options.rounds)
    result: dict[str, Any] = {"pictures": count}
    with tempfile.TemporaryDirectory(prefix="rigflow-tag-") as name:
        folder = Path(name)
        paths = images(folder, count)
        for model, (path, script) in models_in(folder, options.width).items():
            result[model] = asyncio.run(compare(model, path, script, paths, rounds, folder / "out", options.backend))
    print(json.dumps(result))
    return int(any(each["difference"] > NEAR for key, each in result.items() if key != "pictures"))


if __name__ == "__main__":
    sys.exit(main())
