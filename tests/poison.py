"""A worker whose engine dies of one input: a fork server's module, `tests.poison`, with real workers otherwise.

A white frame ends its process at once, as a driver's fault on damaged data would.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np

import engines.inference.paced
from engines.inference.paced import PacedSession
from engines.part import Array
from workers.forkserver import main

WHITE = 225  # of 255, and nothing else in a clip of ours is that bright all over


class Poisoned(PacedSession):
    """`paced`, until it is given a white frame."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answers of one batch, or nothing ever again."""
        if any(np.all(row >= WHITE) for row in inputs["pixels"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(inputs)


def poisoned_clip(path: Path, groups: int, gop: int, poison: tuple[int, ...], seed: int = 0, size: int = 32) -> Path:
    """Noise, 25 frames a second, a keyframe each `gop` frames; white all through the groups in `poison`."""
    dice = np.random.default_rng(seed)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0"})
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        for number in range(groups * gop):
            white = number // gop in poison
            picture = (
                np.full((size, size, 3), 255, np.uint8) if white else dice.integers(0, 160, (size, size, 3), np.uint8)
            )
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(video.encode(None))
    return path


if __name__ == "__main__":
    engines.inference.paced.PacedSession = Poisoned  # type: ignore[misc]
    main()
