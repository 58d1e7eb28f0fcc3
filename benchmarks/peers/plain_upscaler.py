"""Super-resolution without a framework: PyAV, NumPy and one session of ONNX Runtime."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
from av.video.reformatter import Interpolation

from benchmarks.peers.plain_film import write_film

Array = np.ndarray[Any, Any]
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Upscaler:
    """A session with its default threads, by default on the CPU. `network_s`: seconds of the network so far."""

    network_s = 0.0

    def __init__(self, model: Path, providers: Sequence[Any] = ("CPUExecutionProvider",)) -> None:
        self._session = onnxruntime.InferenceSession(str(model), providers=list(providers))
        self._input = self._session.get_inputs()[0].name

    def pictures(self, video: Path) -> Iterator[Array]:
        """The pictures of a video, `[H, W, 3]` uint8, as the network makes them."""
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                rgb = frame.reformat(format="rgb24", interpolation=EXACT).to_ndarray()
                given = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)
                began_s = time.perf_counter()
                [values] = self._session.run(None, {self._input: given})
                self.network_s += time.perf_counter() - began_s
                yield np.rint(np.clip(values[0], 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)

    def upscale(self, video: Path, out: Path, rate: int = 25) -> int:
        """Write the pictures as H.264 of rigflow's quality and preset; how many there are."""
        return write_film(self.pictures(video), out, rate)
