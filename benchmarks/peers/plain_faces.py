"""Restored faces as a user writes it without a framework: PyAV, OpenCV and two sessions of ONNX Runtime."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnxruntime
from av.video.reformatter import Interpolation

from benchmarks.peers.plain_film import write_film

Array = np.ndarray[Any, Any]
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
SIDE = 512
# TencentARC/GFPGAN: eyes, nose and corners of the mouth
TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)


class Restorer:
    """Sessions with their default threads; each frame's faces one by one, as GFPGAN's own script does."""

    def __init__(self, detector: Path, restorer: Path) -> None:
        self._detector, self._restorer = (
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (detector, restorer)
        )

    def pictures(self, video: Path) -> Iterator[Array]:
        """The frames of a video, `[H, W, 3]` uint8, with restored faces."""
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                rgb = frame.reformat(format="rgb24", interpolation=EXACT).to_ndarray()
                given = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]).astype(np.float32)
                [found] = self._detector.run(None, {"images": given})
                for row in found[0][::-1]:
                    if row[4] >= 0.5:
                        rgb = self._with_face(rgb, row[6:].reshape(5, 3)[:, :2].astype(np.float64))
                yield rgb

    def _with_face(self, rgb: Array, points: Array) -> Array:
        matrix, _ = cv2.estimateAffinePartial2D(points, TEMPLATE, method=cv2.LMEDS)
        crop = cv2.warpAffine(rgb, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=(135, 133, 132))
        values = ((crop.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1)
        [[answer]] = self._restorer.run(None, {"input": np.ascontiguousarray(values[None])})
        face = (np.clip(answer, -1, 1).transpose(1, 2, 0) + 1) * np.float32(127.5)
        back, size = cv2.invertAffineTransform(matrix), (rgb.shape[1], rgb.shape[0])
        placed = cv2.warpAffine(face, back, size)
        mask = cv2.warpAffine(np.ones((SIDE, SIDE), np.float32), back, size)
        mask = cv2.erode(mask, np.ones((2, 2), np.uint8))
        edge = max(1, int(mask.sum() ** 0.5) // 20)
        mask = cv2.erode(mask, np.ones((2 * edge, 2 * edge), np.uint8))
        mask = cv2.GaussianBlur(mask, (2 * edge + 1, 2 * edge + 1), 0)[..., None]
        return np.asarray(np.rint(mask * placed + (1 - mask) * rgb), np.uint8)

    def restore(self, video: Path, out: Path, rate: int = 25) -> int:
        """Write the pictures as H.264 of rigflow's quality and preset; how many there are."""
        return write_film(self.pictures(video), out, rate)
