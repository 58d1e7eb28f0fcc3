"""Small networks with seeded random weights, shaped like those that people bring."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from engines.building.engine import Recipe
from engines.building.store import EngineStore
from engines.models.graph import FLOAT, Graph
from engines.part import Array
from schemas.engine import EngineBasis, EngineSpec
from schemas.pipeline import ModelSpec, TensorSpec


class _Weights:
    """Random weights that keep a signal's size (He et al., 2015)."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> Array:
        fan_in = int(np.prod(shape[1:]))
        return (self._random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def _floats(graph: Graph, name: str, perm: list[int]) -> str:
    """Bytes to planes of floats from -1 to 1."""
    cast = graph.op("Cast", name, to=FLOAT)
    scaled = graph.op("Sub", graph.op("Mul", cast, np.float32(1 / 127.5)), np.float32(1))
    return graph.op("Transpose", scaled, perm=perm)


def resnet(size: int = 64, width: int = 16, classes: int = 10) -> tuple[ModelSpec, bytes]:
    """A residual classifier: `pixels [N, size, size, 3] uint8` -> `scores [N, classes] float32`."""
    graph, weights = Graph(), _Weights(1)

    def conv(value: str, into: int, out: int, kernel: int, stride: int) -> str:
        pads = [kernel // 2] * 4
        bias = np.zeros(out, np.float32)
        return graph.op("Conv", value, weights(out, into, kernel, kernel), bias, strides=[stride] * 2, pads=pads)

    def block(value: str, into: int, out: int, stride: int) -> str:
        inner = graph.op("Relu", conv(value, into, out, 3, stride))
        around = value if into == out and stride == 1 else conv(value, into, out, 1, stride)
        return graph.op("Relu", graph.op("Add", conv(inner, out, out, 3, 1), around))

    value = graph.op("Relu", conv(_floats(graph, "pixels", [0, 3, 1, 2]), 3, width, 7, 2))
    value = graph.op("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for into, out, stride in ((width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2)):
        value = block(value, into, out, stride)
    flat = graph.op("Flatten", graph.op("GlobalAveragePool", value))
    graph.op("Gemm", flat, weights(4 * width, classes), np.zeros(classes, np.float32), result="scores")
    return _finish(graph, "resnet", ("N", size, size, 3), "scores", ("N", classes))


def upscaler(width: int = 16) -> tuple[ModelSpec, bytes]:
    """Super-resolution by two: `pixels [N, H, W, 3] uint8` -> `doubled [N, 3, 2H, 2W] float32`."""
    graph, weights = Graph(), _Weights(2)

    def conv(value: str, into: int, out: int) -> str:
        return graph.op("Conv", value, weights(out, into, 3, 3), np.zeros(out, np.float32), pads=[1] * 4)

    value = _floats(graph, "pixels", [0, 3, 1, 2])
    for into in (3, width, width):
        value = graph.op("Relu", conv(value, into, width))
    graph.op("DepthToSpace", conv(value, width, 12), blocksize=2, mode="CRD", result="doubled")
    return _finish(graph, "upscaler", ("N", "H", "W", 3), "doubled", ("N", 3, "H2", "W2"))


def _finish(graph: Graph, name: str, pixels: Any, output: str, shape: Any) -> tuple[ModelSpec, bytes]:
    return graph.finish(
        ModelSpec(
            name=name,
            inputs=(TensorSpec(name="pixels", dtype="uint8", shape=pixels),),
            outputs=(TensorSpec(name=output, dtype="float32", shape=shape),),
            sha256="",
        )
    )


def kept_engine(folder: Path, **changed: object) -> tuple[EngineStore, EngineSpec]:
    """A store with one engine whose plan is none: what a store does needs no builder."""
    made = Recipe.make(*resnet(), "fp16", {})
    basis = EngineBasis(
        model_sha256=made.spec.sha256,
        graph_sha256=hashlib.sha256(made.graph).hexdigest(),
        backend="tensorrt_rtx",
        version="1.7.1",
        targets=("sm86",),
        precision="fp16",
        profiles=made.profiles,
        recipe=1,
    ).model_copy(update=changed)
    plan = b"vtrt" + bytes(100)
    spec = EngineSpec(
        model="resnet@1",
        basis=basis,
        inputs=made.spec.inputs,
        outputs=made.spec.outputs,
        sha256=hashlib.sha256(plan).hexdigest(),
        size_bytes=len(plan),
        build_s=0.1,
        agreement=made.agreement,
    )
    store = EngineStore(folder)
    store.keep(spec, plan, made.graph)
    return store, spec
