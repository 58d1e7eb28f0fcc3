"""Frames in another pixel format or size, by swscale, with the same bytes on every machine."""

import av
from av.video.reformatter import Interpolation, VideoReformatter

from engines.media.colours import colour_matrix, plane_range
from engines.media.filters import FrameFilter

EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Reshape:
    """Brings frames to another pixel format and size; colours stay what they are. Not thread-safe."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._siting = Siting()

    def __call__(
        self, frame: av.VideoFrame, layout: str, size: tuple[int, int], color_range: int | None = None
    ) -> av.VideoFrame:
        """The frame in `layout` at `size` (height, width); itself where it is so.

        Of YCbCr `color_range` is AVColorRange of what is made, as `plane_range` says where it is left out. Without a
        matrix of its own (RGB) a frame becomes YCbCr by the one that `colour_matrix` tells.
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


class Siting:
    """Says where a frame's chroma samples lie: at the left, in the middle for JPEG.

    Swscale uses what a frame says of that, containers do not keep it, and PyAV cannot read it: a frame that was carried
    to another process would come out a little different. A filter is the only way to set it (3 us).
    """

    def __init__(self) -> None:
        self._left = FrameFilter(("setparams", "chroma_location=left"))
        self._middle = FrameFilter(("setparams", "chroma_location=center"))

    def settled(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The same picture, not copied, with its siting set."""
        return (self._middle if frame.format.name.startswith("yuvj") else self._left)(frame)
