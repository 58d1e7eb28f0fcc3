"""What heads of detectors should give, worked out a picture and a candidate at a time, with ONNX Runtime's suppression.

Shares no code with `engines.heads`: what a test compares is two independent answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from engines.heads.view import View
from engines.planned import Tensor

Outputs = Mapping[str, np.ndarray]


@dataclass
class Box:
    """A candidate: corners in pixels of the picture, and a score for each class that it may be of."""

    corners: Sequence[float]
    scores: Mapping[int, float]
    extra: Sequence[float] = ()


@dataclass
class Answer:
    """A box that stays."""

    corners: list[float]
    score: float
    label: int
    extra: list[float] = field(default_factory=list)


Boxes = Callable[[Mapping[str, Any]], list[Box]]  # of the outputs of one picture


@cache
def suppression() -> onnxruntime.InferenceSession:
    """A graph of the operator NonMaxSuppression alone."""
    given = (
        ("boxes", TensorProto.FLOAT, [1, "B", 4]),
        ("scores", TensorProto.FLOAT, [1, "C", "B"]),
        ("most", TensorProto.INT64, [1]),
        ("overlap", TensorProto.FLOAT, [1]),
        ("least", TensorProto.FLOAT, [1]),
    )
    inputs = [helper.make_tensor_value_info(*each) for each in given]
    output = helper.make_tensor_value_info("kept", TensorProto.INT64, ["K", 3])
    node = helper.make_node("NonMaxSuppression", [name for name, _, _ in given], ["kept"])
    model = helper.make_model(
        helper.make_graph([node], "nms", inputs, [output]), opset_imports=[helper.make_opsetid("", 11)], ir_version=8
    )
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def has_area(corners: Sequence[float]) -> bool:
    """Whether a box of x1, y1, x2, y2 has any."""
    return corners[2] > corners[0] and corners[3] > corners[1]


def kept(view: View, boxes: Sequence[Box], threshold: float, nms: float, most: int, class_aware: bool) -> list[Answer]:
    """What suppression leaves of the candidates of one picture that have an area in the source, by falling score."""
    boxes = [box for box in boxes if has_area(in_source(view, box.corners))]
    found = [(b, s, label) for b in boxes for label, s in b.scores.items() if np.float32(s) > np.float32(threshold)]
    if not found:
        return []
    classes = max(label for _, _, label in found) + 1 if class_aware else 1
    table = np.full((1, classes, len(found)), -1, np.float32)
    for number, (_, score, label) in enumerate(found):
        table[0, label if class_aware else 0, number] = score
    given = {
        "boxes": np.array([[b.corners for b, _, _ in found]], np.float32),
        "scores": table,
        "most": np.array([len(found)], np.int64),
        "overlap": np.array([nms], np.float32),
        "least": np.array([threshold], np.float32),
    }
    chosen = [number for _, _, number in suppression().run(None, given)[0].tolist()]
    chosen.sort(key=lambda number: -found[number][1])
    return [Answer(list(found[n][0].corners), found[n][1], found[n][2], list(found[n][0].extra)) for n in chosen[:most]]


def to_source(view: View, x: float, y: float) -> tuple[float, float]:
    """A point of the picture in pixels of the source, not clipped."""
    return (x - view.left) * view.source[1] / view.scaled[1], (y - view.top) * view.source[0] / view.scaled[0]


def clipped(view: View, x: float, y: float) -> tuple[float, float]:
    """The same, moved to the border of the source where it lies outside."""
    x, y = to_source(view, x, y)
    return min(max(x, 0), view.source[1]), min(max(y, 0), view.source[0])


def in_source(view: View, corners: Sequence[float]) -> list[float]:
    """A box of the picture in pixels of the source."""
    return [*clipped(view, corners[0], corners[1]), *clipped(view, corners[2], corners[3])]


def rows_of(outputs: Outputs, number: int) -> dict[str, Any]:
    """The outputs of one picture, as lists."""
    return {name: value[number].tolist() for name, value in outputs.items()}


def described(outputs: Outputs) -> dict[str, Tensor]:
    """What a head is told of outputs: the batch is free."""
    return {name: Tensor(str(value.dtype), ("N", *value.shape[1:])) for name, value in outputs.items()}
