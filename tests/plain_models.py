"""Real models as a script of PyAV, NumPy and ONNX Runtime runs them: nothing here is of the product."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
from av.video.reformatter import Interpolation

Array = np.ndarray[Any, Any]
MEAN, STD = np.float32([103.53, 116.28, 123.675]), np.float32([57.375, 57.12, 58.395])  # of blue, green, red
ACCURATE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def rgb_of(path: Path, numbers: set[int]) -> dict[int, Array]:
    """Some frames of a video, converted by swscale's accurate ways, or the one of a picture file."""
    with av.open(str(path)) as container:
        return {
            number: frame.reformat(format="rgb24", interpolation=ACCURATE).to_ndarray()
            for number, frame in enumerate(container.decode(video=0))
            if number in numbers
        }


def session(path: Path) -> Callable[[Array], list[Array]]:
    """Runs a model of one input on a batch of floats."""
    loaded = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = loaded.get_inputs()[0].name
    return lambda batch: list(loaded.run(None, {name: np.ascontiguousarray(batch, np.float32)}))


def bilinear(pixels: Array, size: tuple[int, int]) -> Array:
    """As PyTorch's interpolate without antialias does, with weights of 11 bits, rounded."""
    return _filtered(pixels, size, (0, 1), lambda away: 1 - away, edge=True)


def bicubic(pixels: Array, size: tuple[int, int]) -> Array:
    """Keys' filter with a = -0.75 without antialias, as OpenCV's, with weights of 11 bits, rounded."""

    def weight(away: Array) -> Array:
        near = 1.25 * away**3 - 2.25 * away**2 + 1
        return np.where(away <= 1, near, -0.75 * away**3 + 3.75 * away**2 - 6 * away + 3)

    return _filtered(pixels, size, (-1, 0, 1, 2), weight, edge=False)


def _filtered(
    pixels: Array, size: tuple[int, int], taps: tuple[int, ...], weight: Callable[[Array], Array], edge: bool
) -> Array:
    found = pixels.astype(np.float64)
    for axis, to in enumerate(size):
        length = found.shape[axis]
        place = (np.arange(to) + 0.5) * length / to - 0.5
        place = np.maximum(place, 0) if edge else place
        first = np.floor(place).astype(int)
        shape = [-1 if each == axis else 1 for each in range(found.ndim)]
        weights = [np.rint(weight(np.abs(place - first - tap)) * 2048) / 2048 for tap in taps]
        weights[1] += 1 - sum(weights)
        near = [found.take(np.clip(first + tap, 0, length - 1), axis) for tap in taps]
        found = np.sum([each * weight.reshape(shape) for each, weight in zip(near, weights, strict=True)], axis=0)
    return np.clip(np.floor(found + 0.5), 0, 255).astype(np.uint8)


def nanodet(run: Callable[[Array], list[Array]], rgb: Array) -> list[tuple[list[float], float, int]]:
    """Boxes in pixels of the picture, score and class, by falling score."""
    height, width = rgb.shape[:2]
    ratio = min(416 / height, 416 / width)
    size = int(height * ratio + 0.5), int(width * ratio + 0.5)
    top, left = (416 - size[0]) // 2, (416 - size[1]) // 2
    canvas = np.zeros((416, 416, 3), np.uint8)
    canvas[top : top + size[0], left : left + size[1]] = bilinear(rgb, size)
    outputs = run(((canvas[..., ::-1] - MEAN) / STD).transpose(2, 0, 1)[None])
    boxes, scores = [], []
    for stride in (8, 16, 32):
        side = 416 // stride
        (level,) = (each[0] for each in outputs if each.shape[1:] == (side * side, 80))
        (bins,) = (each[0] for each in outputs if each.shape[1:] == (side * side, 44))
        shares = np.exp(bins.reshape(-1, 4, 11) - bins.reshape(-1, 4, 11).max(-1, keepdims=True))
        away = (shares / shares.sum(-1, keepdims=True) @ np.arange(11)) * stride
        y, x = (np.mgrid[:side, :side].reshape(2, -1) + 0.5) * stride
        boxes.append(np.stack([x - away[:, 0], y - away[:, 1], x + away[:, 2], y + away[:, 3]], -1))
        scores.append(level)
    corners, score = np.clip(np.concatenate(boxes), 0, 416), np.concatenate(scores)
    label, best = score.argmax(1), score.max(1)
    kept: list[int] = []
    for number in np.argsort(-best, kind="stable"):
        if best[number] <= 0.35:
            break
        if all(label[number] != label[other] or overlap(corners[number], corners[other]) <= 0.6 for other in kept):
            kept.append(int(number))
    scale = np.array([width / size[1], height / size[0]] * 2)
    placed = (corners - [left, top, left, top]) * scale
    placed = np.clip(placed, 0, [width, height, width, height])
    return [(placed[number].tolist(), float(best[number]), int(label[number])) for number in kept]


def overlap(a: Array, b: Array) -> float:
    """Intersection over union of two boxes."""
    across, down = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = max(across, 0) * max(down, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(both / (sum(areas) - both))


def efficientnet(run: Callable[[Array], list[Array]], rgb: Array) -> Array:
    """Probabilities of 1000 classes: the short side at 256, and 224 of both sides from the middle."""
    height, width = rgb.shape[:2]
    size = (256, 256 * width // height) if width > height else (256 * height // width, 256)
    top, left = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    cut = bicubic(rgb, size)[top : top + 224, left : left + 224]
    (logits,) = run(((cut - np.float32(127)) / np.float32(128)).transpose(2, 0, 1)[None])
    shares = np.exp(logits[0] - logits[0].max())
    return np.asarray(shares / shares.sum())
