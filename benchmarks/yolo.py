"""A detector with the layers of YOLOv8n and seeded random weights: what a GPU has to do for the real one.

Of each layer: kernel, stride and channels as in ultralytics' yolov8.yaml at depth 0.33 and width 0.25, without batch
normalisation, which an export folds into the convolutions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CLASSES, BINS = 80, 16


def yolov8n(side: int = 640) -> bytes:
    """`images [N, 3, side, side]` -> `output0 [N, 4 + 80, A]`: x, y, width, height, and scores."""
    net = _Layers()
    value = net.conv(net.conv("images", 3, 16, 3, 2), 16, 32, 3, 2)
    value = net.conv(net.c2f(value, 32, 32, 1), 32, 64, 3, 2)
    eighth = net.c2f(value, 64, 64, 2)
    sixteenth = net.c2f(net.conv(eighth, 64, 128, 3, 2), 128, 128, 2)
    value = net.c2f(net.conv(sixteenth, 128, 256, 3, 2), 256, 256, 1)
    deep = net.pooled(value, 256)
    middle = net.c2f(net.joined(net.doubled(deep), sixteenth), 384, 128, 1, False)
    fine = net.c2f(net.joined(net.doubled(middle), eighth), 192, 64, 1, False)
    middle = net.c2f(net.joined(net.conv(fine, 64, 64, 3, 2), middle), 192, 128, 1, False)
    coarse = net.c2f(net.joined(net.conv(middle, 128, 128, 3, 2), deep), 384, 256, 1, False)
    levels = [(fine, 64, 8), (middle, 128, 16), (coarse, 256, 32)]
    return net.finish(net.head(levels, side), side)


class _Layers:
    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._nodes: list[Any] = []
        self._kept: list[Any] = []

    def op(self, kind: str, *names: str, outputs: int = 1, **attributes: Any) -> Any:
        made = [f"v{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, names, made, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, values: Any) -> str:
        self._kept.append(numpy_helper.from_array(np.asarray(values), f"c{len(self._kept)}"))
        return str(self._kept[-1].name)

    def bare_conv(
        self, value: str, into: int, out: int, kernel: int, stride: int = 1, gain: float = 1, bias: float = 0
    ) -> str:
        spread = gain * np.sqrt(2 / (into * kernel**2))
        weights = (self._random.standard_normal((out, into, kernel, kernel)) * spread).astype(np.float32)
        offsets = self.constant(np.full(out, bias, np.float32))
        return str(
            self.op("Conv", value, self.constant(weights), offsets, strides=[stride] * 2, pads=[kernel // 2] * 4)
        )

    def conv(self, value: str, into: int, out: int, kernel: int, stride: int = 1) -> str:
        made = self.bare_conv(value, into, out, kernel, stride)
        return str(self.op("Mul", made, self.op("Sigmoid", made)))

    def c2f(self, value: str, into: int, out: int, depth: int, adds: bool = True) -> str:
        half = out // 2
        parts = self.op(
            "Split", self.conv(value, into, out, 1), self.constant(np.array([half, half])), outputs=2, axis=1
        )
        for _ in range(depth):
            inner = self.conv(self.conv(parts[-1], half, half, 3), half, half, 3)
            parts.append(self.op("Add", parts[-1], inner) if adds else inner)
        return self.conv(self.joined(*parts), half * (2 + depth), out, 1)

    def pooled(self, value: str, width: int) -> str:
        parts = [self.conv(value, width, width // 2, 1)]
        for _ in range(3):
            parts.append(self.op("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4, strides=[1, 1]))
        return self.conv(self.joined(*parts), 2 * width, width, 1)

    def doubled(self, value: str) -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        return str(self.op("Resize", value, "", scales, mode="nearest"))

    def joined(self, *values: str, axis: int = 1) -> str:
        return str(self.op("Concat", *values, axis=axis))

    def head(self, levels: Sequence[tuple[str, int, int]], side: int) -> str:
        sides, scores, places, steps = [], [], [], []
        for value, width, stride in levels:
            for into, wide, out, gain, bias in ((sides, 64, 4 * BINS, 1, 0), (scores, 80, CLASSES, 30, -5)):
                made = self.conv(self.conv(value, width, wide, 3), wide, wide, 3)
                made = self.bare_conv(made, wide, out, 1, gain=gain, bias=bias)  # most scores are nearly 0
                into.append(self.op("Reshape", made, self.constant(np.array([0, out, -1]))))
            cells = side // stride
            rows, columns = np.divmod(np.arange(cells * cells), cells)
            places.append(np.stack([columns, rows]) + 0.5)
            steps.append(np.full(cells * cells, stride))
        bins = self.op("Reshape", self.joined(*sides, axis=2), self.constant(np.array([0, 4, BINS, -1])))
        shares = self.op("Softmax", bins, axis=2)
        numbers = self.constant(np.arange(BINS, dtype=np.float32).reshape(1, 1, BINS, 1))
        apart = self.op("ReduceSum", self.op("Mul", shares, numbers), self.constant(np.array([2])), keepdims=0)
        before, after = self.op("Split", apart, self.constant(np.array([2, 2])), outputs=2, axis=1)
        place = self.constant(np.concatenate(places, 1)[None].astype(np.float32))
        low, high = self.op("Sub", place, before), self.op("Add", place, after)
        middle = self.op("Mul", self.op("Add", low, high), self.constant(np.array(0.5, np.float32)))
        boxes = self.joined(middle, self.op("Sub", high, low))
        boxes = self.op("Mul", boxes, self.constant(np.concatenate(steps).astype(np.float32)))
        return self.joined(boxes, self.op("Sigmoid", self.joined(*scores, axis=2)))

    def finish(self, value: str, side: int) -> bytes:
        self._nodes.append(helper.make_node("Identity", [value], ["output0"]))
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, side, side])
        places = sum((side // stride) ** 2 for stride in (8, 16, 32))
        output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["N", 4 + CLASSES, places])
        graph = helper.make_graph(self._nodes, "yolov8n", [images], [output], self._kept)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(model.SerializeToString())
