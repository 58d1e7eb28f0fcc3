"""NanoDet without a framework: one loop of PyAV, NumPy and one session of ONNX Runtime.

`detect(video, model)` gives the boxes of each frame; see https://github.com/RangiLyu/nanodet for what it computes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
from av.video.reformatter import Interpolation

Array = np.ndarray[Any, Any]
SIDE, STRIDES, BINS, CLASSES = 416, (8, 16, 32), 11, 80
MATRIX = "ITU709"  # of 720p. Without it PyAV takes BT.601, and without the flags colours are two levels off
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
THRESHOLD, NMS = 0.35, 0.6
MEAN = np.array([103.53, 116.28, 123.675], np.float32)
STD = np.array([57.375, 57.12, 58.395], np.float32)


class Detector:
    """A session with its default threads, and the neighbours and weights of the resize."""

    def __init__(self, model: Path) -> None:
        self._session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._taps: dict[tuple[int, int], tuple[Array, Array, Array]] = {}
        self._centers = []
        for stride in STRIDES:
            y, x = np.mgrid[: SIDE // stride, : SIDE // stride].reshape(2, -1)
            self._centers.append((np.stack([x, y, x, y], 1) + 0.5) * stride)

    def detect(self, video: Path) -> Iterator[list[tuple[Array, float, int]]]:
        """Box, score and class of all boxes of each frame."""
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                bgr = frame.reformat(format="bgr24", src_colorspace=MATRIX, dst_colorspace=MATRIX, interpolation=EXACT)
                yield self._boxes(bgr.to_ndarray())

    def _boxes(self, bgr: Array) -> list[tuple[Array, float, int]]:
        height, width = bgr.shape[:2]
        ratio = min(SIDE / height, SIDE / width)
        inner = round(height * ratio), round(width * ratio)
        top, left = (SIDE - inner[0]) // 2, (SIDE - inner[1]) // 2
        canvas = np.zeros((SIDE, SIDE, 3), np.float32)
        canvas[top : top + inner[0], left : left + inner[1]] = self._resized(bgr, inner)
        canvas = (canvas - MEAN) / STD
        given = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])
        outputs = dict(zip(self._outputs, self._session.run(None, {self._input: given}), strict=True))
        boxes, scores, labels = self._candidates(outputs)
        back = np.array([width / inner[1], height / inner[0]] * 2)
        placed = np.clip((boxes - [left, top, left, top]) * back, 0, [width, height, width, height])
        seen = np.flatnonzero((placed[:, 2:] > placed[:, :2]).all(1))  # the others lie in the border alone
        kept = seen[suppressed(boxes[seen], scores[seen], labels[seen])]
        return [(placed[n], float(scores[n]), int(labels[n])) for n in kept]

    def _resized(self, picture: Array, size: tuple[int, int]) -> Array:
        top, bottom, down = self._neighbours(picture.shape[0], size[0])
        left, right, across = self._neighbours(picture.shape[1], size[1])
        upper, lower = picture[top], picture[bottom]
        across = across[:, None]
        upper = upper[:, left] * (1 - across) + upper[:, right] * across
        lower = lower[:, left] * (1 - across) + lower[:, right] * across
        down = down[:, None, None]
        return np.asarray(np.floor(upper * (1 - down) + lower * down + np.float32(0.5)))

    def _neighbours(self, length: int, to: int) -> tuple[Array, Array, Array]:
        if (length, to) not in self._taps:
            place = np.maximum((np.arange(to) + 0.5) * length / to - 0.5, 0)
            first = place.astype(int)
            weights = np.rint((place - first) * 2048) / 2048  # as rigflow's, so that both see the same pixels
            self._taps[length, to] = first, np.minimum(first + 1, length - 1), weights.astype(np.float32)
        return self._taps[length, to]

    def _candidates(self, outputs: dict[str, Array]) -> tuple[Array, Array, Array]:
        boxes, scores, labels = [], [], []
        for stride, centers in zip(STRIDES, self._centers, strict=True):
            level = outputs[f"scores_s{stride}"][0]
            best = level.max(1)
            kept = np.flatnonzero(best > THRESHOLD)
            bins = outputs[f"regs_s{stride}"][0][kept].reshape(-1, 4, BINS)
            shares = np.exp(bins - bins.max(-1, keepdims=True))
            away = shares @ np.arange(BINS, dtype=np.float32) / shares.sum(-1) * stride
            boxes.append(np.clip(centers[kept] + away * [-1, -1, 1, 1], 0, SIDE))
            scores.append(best[kept])
            labels.append(level[kept].argmax(1))
        return np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels)


def suppressed(boxes: Array, scores: Array, labels: Array) -> list[int]:
    """Greedy suppression within a class: the numbers of what stays, by falling score."""
    apart = boxes + labels[:, None] * 10_000.0
    areas = (apart[:, 2] - apart[:, 0]) * (apart[:, 3] - apart[:, 1])
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(int(first))
        sides = np.minimum(apart[first, 2:], apart[rest, 2:]) - np.maximum(apart[first, :2], apart[rest, :2])
        both = np.maximum(sides, 0).prod(1)
        order = rest[both <= NMS * (areas[first] + areas[rest] - both)]
    return kept
