"""Small networks with seeded random weights, shaped like those that people bring."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engines.building.engine import Recipe
from engines.building.store import EngineStore
from engines.models.graph import FLOAT, Graph
from engines.models.x3d import FRAMES, MEAN, SIDE, STD
from engines.part import Array
from schemas.engine import Agreement, EngineBasis, EngineSpec
from schemas.model import ModelSpec, TensorSpec


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
    return _finish(graph, "resnet", ("N", size, size, 3), {"scores": ("N", classes)})


def upscaler(width: int = 16) -> tuple[ModelSpec, bytes]:
    """Super-resolution by two: `pixels [N, H, W, 3] uint8` -> `doubled [N, 3, 2H, 2W] float32`."""
    graph, weights = Graph(), _Weights(2)

    def conv(value: str, into: int, out: int) -> str:
        return graph.op("Conv", value, weights(out, into, 3, 3), np.zeros(out, np.float32), pads=[1] * 4)

    value = _floats(graph, "pixels", [0, 3, 1, 2])
    for into in (3, width, width):
        value = graph.op("Relu", conv(value, into, width))
    graph.op("DepthToSpace", conv(value, width, 12), blocksize=2, mode="CRD", result="doubled")
    return _finish(graph, "upscaler", ("N", "H", "W", 3), {"doubled": ("N", 3, "H2", "W2")})


X3D_S = ((24, 3), (48, 5), (96, 11), (192, 7))  # channels and blocks of its stages


def x3d(
    stages: Sequence[tuple[int, int]] = X3D_S,
    features: int = 2048,
    classes: int = 400,
    first_stride: int = 2,
    side: int = SIDE,
) -> tuple[ModelSpec, bytes]:
    """X3D (Feichtenhofer, 2020) with its normalisations folded in, by default X3D-S.

    `pixels [N, 13, side, side, 3] uint8` -> `features [N, features]`, `scores [N, classes]`, both float32. Weights are
    random; `first_stride` is the stem's.
    """
    graph, weights = Graph(), _Weights(3)

    def conv(
        clip: str,
        into: int,
        out: int,
        kernel: tuple[int, int, int] = (1, 1, 1),
        stride: int = 1,
        group: int = 1,
        gain: float = 1.0,  # below 1 before a sum, so that sums of many blocks stay small: what training sees to
    ) -> str:
        pads = [side // 2 for side in kernel] * 2
        given = weights(out, into // group, *kernel) * np.float32(gain), np.zeros(out, np.float32)
        return graph.op("Conv", clip, *given, pads=pads, strides=[1, stride, stride], group=group)

    def gate(clip: str, channels: int) -> str:
        narrow = max(8, round(channels / 128) * 8)
        squeezed = graph.op("Relu", conv(graph.op("GlobalAveragePool", clip), channels, narrow))
        return graph.op("Mul", clip, graph.op("Sigmoid", conv(squeezed, narrow, channels)))

    def block(clip: str, into: int, out: int, stride: int, gated: bool) -> str:
        wide = out * 9 // 4
        inner = graph.op("Relu", conv(clip, into, wide))
        inner = conv(inner, wide, wide, (3, 3, 3), stride, group=wide)
        inner = gate(inner, wide) if gated else inner
        inner = conv(graph.op("Mul", inner, graph.op("Sigmoid", inner)), wide, out, gain=0.1)
        around = clip if into == out and stride == 1 else conv(clip, into, out, stride=stride)
        return graph.op("Relu", graph.op("Add", inner, around))

    floats = graph.op("Mul", graph.op("Cast", "pixels", to=FLOAT), np.float32(1 / (255 * STD)))
    clip = graph.op("Transpose", graph.op("Sub", floats, np.float32(MEAN / STD)), perm=[0, 4, 1, 2, 3])
    into = stages[0][0]
    clip = conv(conv(clip, 3, into, (1, 3, 3), first_stride), into, into, (5, 1, 1), group=into)
    clip = graph.op("Relu", clip)
    for out, depth in stages:
        for number in range(depth):
            clip = block(clip, into, out, 1 if number else 2, number % 2 == 0)
            into = out
    wide = into * 9 // 4
    pooled = graph.op("GlobalAveragePool", graph.op("Relu", conv(clip, into, wide)))
    pooled = graph.op("Relu", conv(pooled, wide, features))
    seen = graph.op("Flatten", pooled, result="features")
    last = graph.op("Gemm", seen, weights(features, classes), np.zeros(classes, np.float32))
    graph.op("Softmax", last, axis=1, result="scores")
    outputs = {"features": ("N", features), "scores": ("N", classes)}
    return _finish(graph, "x3d_s", ("N", FRAMES, side, side, 3), outputs)


def small_x3d() -> tuple[ModelSpec, bytes]:
    """A network of X3D's kind for 1/1000 of its work."""
    return x3d(((8, 1), (16, 1)), features=64, classes=10, first_stride=8)


def _finish(graph: Graph, name: str, pixels: Any, outputs: Mapping[str, Any]) -> tuple[ModelSpec, bytes]:
    return graph.finish(
        ModelSpec(
            name=name,
            inputs=(TensorSpec(name="pixels", dtype="uint8", shape=pixels),),
            outputs=tuple(TensorSpec(name=each, dtype="float32", shape=shape) for each, shape in outputs.items()),
            sha256="",
        )
    )


@cache
def _resnet_in_fp16() -> tuple[Recipe, Agreement]:
    made = Recipe.make(*resnet(), "fp16", {})
    return made, made.agreement


def kept_engine(folder: Path, **changed: object) -> tuple[EngineStore, EngineSpec]:
    """A store with one engine whose plan is none: what a store does needs no builder."""
    made, agreement = _resnet_in_fp16()
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
        agreement=agreement,
    )
    store = EngineStore(folder)
    store.keep(spec, plan, made.graph)
    return store, spec
