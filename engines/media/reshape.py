"""Converts frames to another pixel format or size by swscale, with the same bytes on every machine."""

import av
from av.video.reformatter import Interpolation, VideoReformatter

from engines.media.colours import colour_matrix, plane_range
from engines.media.filters import FrameFilter
from engines.media.frames import plane_rows

EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Reshape:
    """Converts frames to another pixel format and size; colours stay the same. Not thread-safe."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._siting = Siting()

    def __call__(
        self, frame: av.VideoFrame, layout: str, size: tuple[int, int], color_range: int | None = None
    ) -> av.VideoFrame:
        """Return the frame in `layout` at `size` (height, width); the same frame if it already matches.

        For YCbCr, `color_range` is the AVColorRange of the result; by default `plane_range` chooses it. A frame without
        a matrix of its own (RGB) becomes YCbCr by the matrix of `colour_matrix`.
        """
        height, width = size
        if (frame.format.name, frame.height, frame.width) == (layout, height, width):
            return frame
        matrix = colour_matrix(frame)
        if color_range is None:
            color_range = plane_range(frame.format.name, int(frame.color_range))
        return self._reformatter.reformat(
            self._siting.settled(frame),
            width,
            height,
            layout,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            dst_color_range=color_range,
            interpolation=Interpolation.BICUBIC | EXACT,
            threads=1,
        )


def is_transparent(frame: av.VideoFrame) -> bool:
    """Return whether any pixel of a frame with an alpha channel is not opaque, in 8 bits."""
    try:
        rgba = frame.reformat(format="rgba", interpolation=Interpolation.POINT, threads=1)
    except av.error.FFmpegError:
        return True  # swscale does not read the format: some pixel may be
    return bool(plane_rows(rgba, 0)[:, 3::4].min() < 255)


class Siting:
    """Sets the position of a frame's chroma samples: at the left, or in the middle for JPEG.

    Swscale uses this property of a frame, but containers do not keep it and PyAV cannot read it. Without this class a
    frame that was sent to another process would be converted a little differently. Only a filter can set it (3 us).
    """

    def __init__(self) -> None:
        self._left = FrameFilter(("setparams", "chroma_location=left"))
        self._middle = FrameFilter(("setparams", "chroma_location=center"))

    def settled(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the same picture, not copied, with its siting set."""
        return (self._middle if frame.format.name.startswith("yuvj") else self._left)(frame)
