"""Writes a film as a plain script does, for the scripts that rigflow is compared with."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


def write_film(pictures: Iterable[NDArray[Any]], out: Path, rate: int) -> int:
    """Write pictures `[H, W, 3]` uint8 as H.264 of rigflow's quality and preset; how many there are."""
    count = 0
    with av.open(str(out), "w") as target:
        stream: Any = None
        for picture in pictures:
            if stream is None:
                stream = target.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts, frame.time_base = count, Fraction(1, rate)
            target.mux(stream.encode(frame))
            count += 1
        if stream is not None:
            target.mux(stream.encode())
    return count
