"""Models by card alone, on a GPU: its kernels make their pictures, and a fleet without one answers alike."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from schemas.pipeline import parse_pipeline
from schemas.rig import ALL_STAGES
from tests.clips import real_clip
from tests.fleet import Fleet

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
CARD = """
[[inputs]]
name = "images"
fit = "letterbox"
resize = "{resize}"
pad_value = 114
{more}
[[heads]]
kind = "detect"
decoder = "yolov8"
threshold = 0.0001
nms = 1.0
max = 64
"""
PIPELINE = """
name = "seen"
media = "video"
[[stage]]
kind = "decode"
fps = 5
[[stage]]
kind = "infer"
model = "boxes"
[[stage]]
kind = "encode"
format = "npz"
"""


def detector(path: Path) -> None:
    """A graph laid out as YOLOv8's, of seeded random weights: `[N, 3, 64, 64]` -> `[N, 4 + 2, 64]`."""
    random = np.random.default_rng(7)
    weights = random.normal(0, 0.05, (6, 3, 8, 8)).astype(np.float32)
    cells = np.stack(np.meshgrid(np.arange(8), np.arange(8)), 0).reshape(1, 2, 64) * 8.0 + 4
    boxes = np.concatenate([cells, np.full((1, 2, 64), 12.0)], 1).astype(np.float32)
    constants = {"w": weights, "shape": np.array([0, 6, 64]), "cells": boxes, "four": np.array([4, 2])}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], strides=[8, 8]),
        helper.make_node("Reshape", ["c", "shape"], ["r"]),
        helper.make_node("Split", ["r", "four"], ["b", "k"], axis=1),
        helper.make_node("Tanh", ["b"], ["t"]),
        helper.make_node("Add", ["t", "cells"], ["xywh"]),
        helper.make_node("Sigmoid", ["k"], ["s"]),
        helper.make_node("Concat", ["xywh", "s"], ["output0"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 64, 64])]
    outputs = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["N", 6, 64])]
    graph = helper.make_graph(
        nodes, "boxes", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.mark.parametrize(
    ("resize", "more"), [("bilinear", ""), ("area", 'pad_place = "corner"'), ("bicubic", "antialias = true")]
)
def test_a_detector_finds_on_a_gpu_what_it_finds_on_the_host(tmp_path: Path, resize: str, more: str) -> None:
    detector(tmp_path / "boxes.onnx")
    (tmp_path / "boxes.toml").write_text(CARD.format(resize=resize, more=more))
    spec = parse_pipeline(PIPELINE, "seen.toml")
    found = {}
    for device in ("cpu", "cuda:0"):
        with Fleet((ALL_STAGES,), tmp_path / f"cache-{device[:4]}", devices=[device]) as fleet:
            (outcome,) = fleet.run(spec, [real_clip("bigbuckbunny")], tmp_path / device[:4], folder=tmp_path)
        assert outcome.ok, outcome.error
        with np.load(f"{outcome.target}.npz") as arrays:
            found[device] = {name: arrays[name] for name in arrays.files}
    host, gpu = found["cpu"], found["cuda:0"]
    np.testing.assert_array_equal(gpu["boxes_offsets"], host["boxes_offsets"])
    for start, stop in zip(host["boxes_offsets"][:-1], host["boxes_offsets"][1:], strict=True):
        by_place = [np.lexsort(np.round(each["boxes"][start:stop] / 20).T) for each in (host, gpu)]
        one, other = (each["scores"][start:stop][order] for each, order in zip((host, gpu), by_place, strict=True))
        assert abs(np.sort(one) - np.sort(other)).max() < 0.02
