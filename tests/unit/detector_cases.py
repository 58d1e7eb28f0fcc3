"""Seeded random outputs of each family of detectors, and how a loop over candidates reads them, in plain Python."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.heads.view import view_of
from schemas.picture import PictureSpec
from tests.unit.head_reference import Box, Boxes, Outputs

SIDE, ROWS, CLASSES = 64, 3, 4
SPEC = PictureSpec(size=(SIDE, SIDE), fit="letterbox", pad_value=114)
VIEWS = [view_of(size, SPEC) for size in ((48, 64), (101, 37), (30, 200))]
RNG = np.random.default_rng(20261127)
STRIDES = (8, 16, 32)
Lists = Mapping[str, Any]


@dataclass
class Case:
    """Outputs of a decoder for `ROWS` pictures, and how to read one picture's, a candidate at a time."""

    decoder: str
    outputs: Outputs
    boxes: Boxes
    options: Mapping[str, Any] = field(default_factory=dict)
    threshold: float = 0.25
    nms: float = 0.45
    most: int = 300
    points: int = 0  # that it gives with a box


def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    return RNG.uniform(low, high, (ROWS, *shape)).astype(np.float32)


def from_center(x: float, y: float, width: float, height: float) -> list[float]:
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def best(scores: Sequence[float]) -> dict[int, float]:
    label = max(range(len(scores)), key=lambda each: scores[each])
    return {label: scores[label]}


def all_of(scores: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(scores))


def scaled(values: Sequence[float], factor: float = SIDE) -> list[float]:
    return [value * factor for value in values]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def softmax(values: Sequence[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def center_rows(count: int, *more: np.ndarray, side: float = SIDE) -> np.ndarray:
    """`[ROWS, count, 4 + ...]`: centers and sizes that overlap often, and what stands behind."""
    centers, sizes = uniform(count, 2, high=side), uniform(count, 2, low=side / 8, high=side / 2)
    return np.concatenate([centers, sizes, *more], axis=-1)


def corner_rows(count: int, side: float = SIDE) -> np.ndarray:
    """`[ROWS, count, 4]`: corners of such boxes."""
    rows = center_rows(count, side=side)
    return np.concatenate([rows[..., :2] - rows[..., 2:] / 2, rows[..., :2] + rows[..., 2:] / 2], axis=-1)


def cells(stride: int) -> Iterator[tuple[int, int]]:
    """Column and row of each cell, row by row."""
    for row in range(SIDE // stride):
        for column in range(SIDE // stride):
            yield column, row


def cell_count(stride: int) -> int:
    return len(list(cells(stride)))


def yolov8(transposed: bool) -> Case:
    rows = center_rows(300, uniform(300, CLASSES) ** 3)

    def read(o: Lists) -> list[Box]:
        found = o["rows"] if transposed else zip(*o["rows"], strict=True)
        return [Box(from_center(*row[:4]), best(row[4:])) for row in found]

    outputs = {"rows": rows if transposed else np.ascontiguousarray(rows.swapaxes(1, 2))}
    return Case("yolov8", outputs, read, {"transposed": transposed}, nms=0.7)


def yolov5(multi_label: bool) -> Case:
    rows = center_rows(300, uniform(300, 1), uniform(300, CLASSES))
    of = all_of if multi_label else best

    def read(o: Lists) -> list[Box]:
        return [Box(from_center(*row[:4]), of([row[4] * score for score in row[5:]])) for row in o["output"]]

    return Case("yolov5", {"output": rows}, read, {"multi_label": multi_label}, most=1000)


def end2end() -> Case:
    rows = np.concatenate([corner_rows(30), uniform(30, 1), np.floor(uniform(30, 1, high=CLASSES))], axis=-1)
    return Case("end2end", {"o": rows}, lambda o: [Box(row[:4], {int(row[5]): row[4]}) for row in o["o"]], nms=1)


def end2end_columns() -> Case:
    rows = np.concatenate([uniform(30, 2), center_rows(30, side=1)], axis=-1)

    def read(o: Lists) -> list[Box]:
        return [Box(scaled(from_center(*row[2:])), {0: row[1]}) for row in o["o"]]

    return Case(
        "end2end", {"o": rows}, read, {"columns": ["-", "score", "cx", "cy", "w", "h"], "normalised": True}, nms=1
    )


def arrays() -> Case:
    boxes = corner_rows(30, side=1)[..., [1, 0, 3, 2]]
    labels = np.floor(uniform(30, low=1, high=CLASSES + 1))
    counts = np.array([[20], [30], [11]], np.float32)
    outputs = {"boxes": boxes, "scores": uniform(30), "classes": labels, "count": counts}
    options = {
        "boxes": "boxes",
        "scores": "scores",
        "class_output": "classes",
        "count": "count",
        "order": ["y1", "x1", "y2", "x2"],
        "normalised": True,
        "first_class": 1,
    }

    def read(o: Lists) -> list[Box]:
        each = zip(o["boxes"], o["scores"], o["classes"], strict=True)
        found = [Box(scaled([left, top, right, bottom]), {int(c) - 1: s}) for (top, left, bottom, right), s, c in each]
        return found[: int(o["count"][0])]

    return Case("arrays", outputs, read, options, nms=1)


def arrays_with_scores() -> Case:
    outputs = {"dets": np.concatenate([corner_rows(30), uniform(30, 1)], -1), "labels": np.floor(uniform(30, high=4))}
    options = {"boxes": "dets", "class_output": "labels"}

    def read(o: Lists) -> list[Box]:
        return [Box(row[:4], {int(label): row[4]}) for row, label in zip(o["dets"], o["labels"], strict=True)]

    return Case("arrays", {**outputs, "labels": outputs["labels"].astype(np.int64)}, read, options, nms=1)


def yolox() -> Case:
    count = sum(map(cell_count, STRIDES))
    raw = [uniform(count, 2), uniform(count, 2, low=-1, high=1), uniform(count, 1), uniform(count, CLASSES)]

    def read(o: Lists) -> list[Box]:
        found, rows = [], iter(o["o"])
        for stride in STRIDES:
            for column, row in cells(stride):
                x, y, width, height, thing, *scores = next(rows)
                center = (x + column) * stride, (y + row) * stride
                size = math.exp(width) * stride, math.exp(height) * stride
                found.append(Box(from_center(*center, *size), best([thing * score for score in scores])))
        return found

    return Case("yolox", {"o": np.concatenate(raw, axis=-1)}, read, threshold=0.3)


def distances(column: float, row: float, stride: int, sides: Sequence[float]) -> list[float]:
    """The box of distances, in strides, from a point, in strides too."""
    left, top, right, bottom = sides
    return scaled([column - left, row - top, column + right, row + bottom], stride)


def nanodet_box(column: int, row: int, stride: int, raw: Sequence[float], offset: float) -> list[float]:
    bins = len(raw) // 4
    sides = [
        sum(number * share for number, share in enumerate(softmax(raw[side * bins : (side + 1) * bins])))
        for side in range(4)
    ]
    return [min(max(each, 0), SIDE) for each in distances(column + offset, row + offset, stride, sides)]


def nanodet() -> Case:
    outputs = {}
    for stride in reversed(STRIDES):  # the order of outputs is not that of strides
        outputs[f"r{stride}"] = uniform(cell_count(stride), 4 * 11, low=-4, high=4)
        outputs[f"s{stride}"] = uniform(cell_count(stride), CLASSES) ** 2

    def read(o: Lists) -> list[Box]:
        return [
            Box(nanodet_box(*cell, stride, raw, 0.5), best(scores))
            for stride in STRIDES
            for cell, raw, scores in zip(cells(stride), o[f"r{stride}"], o[f"s{stride}"], strict=True)
        ]

    return Case("nanodet", outputs, read, {"reg_max": 10}, threshold=0.35, nms=0.6)


def nanodet_plus() -> Case:
    strides = (8, 16, 32, 64)
    count = sum(map(cell_count, strides))
    rows = np.concatenate([uniform(count, CLASSES) ** 2, uniform(count, 32, low=-4, high=4)], axis=-1)

    def read(o: Lists) -> list[Box]:
        places = [(*cell, stride) for stride in strides for cell in cells(stride)]
        return [
            Box(nanodet_box(*place, row[CLASSES:], 0), best(row[:CLASSES]))
            for place, row in zip(places, o["output"], strict=True)
        ]

    return Case("nanodet", {"output": rows}, read, {"strides": strides, "offset": 0}, threshold=0.35, nms=0.6)


def ssd() -> Case:
    outputs = {"boxes": corner_rows(200, side=1), "scores": uniform(200, CLASSES + 1, low=-2, high=2)}

    def read(o: Lists) -> list[Box]:
        return [
            Box(scaled(box), all_of(softmax(scores)[1:])) for box, scores in zip(o["boxes"], o["scores"], strict=True)
        ]

    return Case("ssd", outputs, read, {"activation": "softmax"})


def ultraface() -> Case:
    outputs = {"scores": uniform(200, 2), "boxes": corner_rows(200, side=1)}

    def read(o: Lists) -> list[Box]:
        return [Box(scaled(box), {0: scores[1]}) for box, scores in zip(o["boxes"], o["scores"], strict=True)]

    return Case("ultraface", outputs, read, threshold=0.7, nms=0.3)


def yunet() -> Case:
    outputs = {}
    for stride in STRIDES:
        count = cell_count(stride)
        outputs |= {
            f"cls_{stride}": uniform(count, 1, high=1.3) ** 0.25,
            f"obj_{stride}": uniform(count, 1, low=0.5, high=1.2),
            f"bbox_{stride}": uniform(count, 4, low=-1),
            f"kps_{stride}": uniform(count, 10, low=-1),
        }

    def read(o: Lists) -> list[Box]:
        found = []
        for s in STRIDES:
            each = zip(cells(s), o[f"cls_{s}"], o[f"obj_{s}"], o[f"bbox_{s}"], o[f"kps_{s}"], strict=True)
            for (column, row), (label,), (thing,), (x, y, width, height), points in each:
                score = math.sqrt(min(max(label, 0), 1) * min(max(thing, 0), 1))
                corners = from_center((column + x) * s, (row + y) * s, math.exp(width) * s, math.exp(height) * s)
                extra = [v for k in range(5) for v in ((points[2 * k] + column) * s, (points[2 * k + 1] + row) * s, 1)]
                found.append(Box(corners, {0: score}, extra))
        return found

    return Case("yunet", outputs, read, threshold=0.9, nms=0.3, points=5)


def pnet() -> Case:
    shape = (SIDE - 12) // 2 + 1, (SIDE - 12) // 2 - 3  # P-Net's grid need not be square
    outputs = {"prob": uniform(*shape, 2) ** 0.3, "reg": uniform(*shape, 4, low=-0.3, high=0.3)}

    def read(o: Lists) -> list[Box]:
        found = []
        for row, (scores, regs) in enumerate(zip(o["prob"], o["reg"], strict=True)):
            for column, ((_, score), reg) in enumerate(zip(scores, regs, strict=True)):
                corners = column * 2, row * 2, column * 2 + 12, row * 2 + 12
                found.append(Box([place + 12 * shift for place, shift in zip(corners, reg, strict=True)], {0: score}))
        return found

    return Case("mtcnn", outputs, read, {"nms": 0.4}, threshold=0.7, nms=0.4)


def onet() -> Case:
    outputs = {"reg": uniform(4, low=-0.3, high=0.3), "points": uniform(10), "prob": uniform(2) / 2 + np.float32(0.5)}

    def read(o: Lists) -> list[Box]:
        corners = [place + SIDE * shift for place, shift in zip((0, 0, SIDE, SIDE), o["reg"], strict=True)]
        extra = [value for k in range(5) for value in (o["points"][k] * SIDE, o["points"][k + 5] * SIDE, 1)]
        return [Box(corners, {0: o["prob"][1]}, extra)]

    return Case("mtcnn", outputs, read, {"threshold": 0.4}, threshold=0.4, nms=0.7, points=5)


def scrfd() -> Case:
    outputs = {}
    for kind, columns in (("score", 1), ("bbox", 4), ("kps", 10)):
        outputs |= {f"{kind}{s}": uniform(2 * cell_count(s), columns, high=1 + 2 * (columns > 1)) for s in STRIDES}

    def read(o: Lists) -> list[Box]:
        found = []
        for s in STRIDES:
            places = [cell for cell in cells(s) for _ in range(2)]
            for (column, row), (score,), sides, points in zip(
                places, o[f"score{s}"], o[f"bbox{s}"], o[f"kps{s}"], strict=True
            ):
                extra = [v for k in range(5) for v in ((points[2 * k] + column) * s, (points[2 * k + 1] + row) * s, 1)]
                found.append(Box(distances(column, row, s, sides), {0: score}, extra))
        return found

    return Case("scrfd", outputs, read, threshold=0.5, nms=0.4, points=5)


def retinaface() -> Case:
    sizes = ((16, 32), (64, 128), (256, 512))
    count = 2 * sum(map(cell_count, STRIDES))
    outputs = {"conf": uniform(count, 2), "loc": uniform(count, 4, low=-2, high=2), "landms": uniform(count, 10)}

    def read(o: Lists) -> list[Box]:
        found, rows = [], zip(o["loc"], o["conf"], o["landms"], strict=True)
        for stride, sides in zip(STRIDES, sizes, strict=True):
            for column, row in cells(stride):
                for side in sides:
                    (dx, dy, dw, dh), (_, score), points = next(rows)
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    size = side * math.exp(dw * 0.2), side * math.exp(dh * 0.2)
                    extra = []
                    for k in range(5):
                        extra += [x + points[2 * k] * 0.1 * side, y + points[2 * k + 1] * 0.1 * side, 1]
                    found.append(Box(from_center(x + dx * 0.1 * side, y + dy * 0.1 * side, *size), {0: score}, extra))
        return found

    return Case("retinaface", outputs, read, threshold=0.6, nms=0.4, points=5)


def detr() -> Case:
    outputs = {"dets": center_rows(40, side=1), "labels": uniform(40, CLASSES + 1, low=-3, high=2)}

    def read(o: Lists) -> list[Box]:
        return [
            Box(scaled(from_center(*box)), all_of([sigmoid(each) for each in row]))
            for box, row in zip(o["dets"], o["labels"], strict=True)
        ]

    return Case("detr", outputs, read, threshold=0.5, nms=1)


def detr_joint() -> Case:
    def read(o: Lists) -> list[Box]:
        return [Box(scaled(from_center(*row[:4])), best(row[4:])) for row in o["o"]]

    options = {"activation": "none", "multi_label": False}
    return Case("detr", {"o": center_rows(40, uniform(40, CLASSES), side=1)}, read, options, threshold=0.5, nms=1)


def detr_background() -> Case:
    boxes, logits = center_rows(40, side=1), uniform(40, CLASSES + 1, low=-3, high=4)

    def read(o: Lists) -> list[Box]:
        return [
            Box(scaled(from_center(*box)), best(softmax(row)[:-1]))
            for box, row in zip(o["boxes"], o["logits"], strict=True)
        ]

    options = {"activation": "softmax", "background": True, "multi_label": False}
    return Case("detr", {"boxes": boxes, "logits": logits}, read, options, threshold=0.5, nms=1)


ONET = onet()  # one box a picture: too little for the tests that all families share
CASES = {
    "arrays": arrays(),
    "arrays with scores": arrays_with_scores(),
    "detr": detr(),
    "detr joint": detr_joint(),
    "detr background": detr_background(),
    "end2end": end2end(),
    "end2end columns": end2end_columns(),
    "mtcnn p-net": pnet(),
    "nanodet": nanodet(),
    "nanodet plus": nanodet_plus(),
    "retinaface": retinaface(),
    "scrfd": scrfd(),
    "ssd": ssd(),
    "ultraface": ultraface(),
    "yolov5": yolov5(multi_label=False),
    "yolov5 multi label": yolov5(multi_label=True),
    "yolov8": yolov8(transposed=False),
    "yolov8 transposed": yolov8(transposed=True),
    "yolox": yolox(),
    "yunet": yunet(),
}
