"""Makes arrays of frames on the CPU, by swscale; tests compare the transforms of other devices with these.

Resizing averages areas if a side shrinks, and is bicubic if both grow; `resize = "bilinear"` uses two pixels in each
direction, as PyTorch does. swscale rounds accurately and bit-exactly, so that machines with different vector units give
the same bytes. Colours are explained in `engines.media.colours`.
"""

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from engines.canvas import laid_on, padded
from engines.geometry import Middle, entire, middle_of, padded_from, scaled_size, square_of
from engines.media.colours import BT601, colour_matrix, plane_format
from engines.media.frames import plane_rows
from engines.media.orientation import UPRIGHT, transposes, upright
from engines.media.reshape import EXACT, Reshape, Siting
from engines.media.stills import Decoded, as_frame, upright_image
from engines.part import Array
from engines.resizing import filtered, image_by_pillow, image_padded_by_pillow, is_pillows, padded_by_pillow
from schemas.errors import ItemTooLarge, MediaError
from schemas.picture import PictureSpec

_SHRINKING, _GROWING = Interpolation.AREA | EXACT, Interpolation.BICUBIC | EXACT
_MOST_PIXELS = 100_000_000
_FORMATS = {"rgb": "rgb24", "gray": "gray"}
_IMAGES = {"rgb24": 3, "rgba": 4}  # what images are decoded to for planes, and its channels


class Picture:
    """Makes pictures of one `PictureSpec` of single frames. Not thread-safe: use one instance for each thread."""

    def __init__(self, spec: PictureSpec) -> None:
        self.spec = spec
        self._reformatter = VideoReformatter()
        self._siting = Siting()
        self._reshape = Reshape()

    def convert(self, frame: Decoded, orientation: int = UPRIGHT) -> list[Array]:
        """Return the picture of one frame, uint8, contiguous and upright; `orientation` is EXIF's, from 1 to 8.

        `rgb`: one array `[H, W, 3]`; `gray`: one array `[H, W]`, luma in full range, of RGB by BT.601; `planes`: one
        array for each plane, `[H, W]`, `[H', W']` ... in 8 bits, see `plane_format`; of images, which are rgb24 or
        rgba, R, G, B (and A). Raises ItemTooLarge and MediaError for sizes that cannot be scaled.
        """
        if isinstance(frame, Image.Image):
            upright_first = orientation == UPRIGHT or self.spec.fit == "pad"
            if self.spec.size != "source" and upright_first and self._takes_images:
                return [self._of_image(upright_image(frame, orientation), self.spec.size)]
            frame = as_frame(frame)
        if self.spec.layout == "planes":
            return [upright(plane, orientation) for plane in self._planes(frame)]
        if self.spec.layout == "alpha":
            return [np.ascontiguousarray(upright(_opacity(frame), orientation))]
        if self.spec.size != "source":
            return [self._pixels(frame, self.spec.size, orientation)]
        size = (frame.width, frame.height) if transposes(orientation) else (frame.height, frame.width)
        return [_multiple(self._pixels(frame, size, orientation), self.spec)]

    @property
    def _takes_images(self) -> bool:
        repeated = self.spec.fit == "pad" and self.spec.pad_value == "edge"
        return self.spec.layout == "rgb" and is_pillows(self.spec) and not repeated

    def _of_image(self, image: Image.Image, size: tuple[int, int]) -> Array:
        """Return an upright RGB picture of Pillow at `size`, without a frame of it: that is copied several times."""
        source = image.height, image.width
        if self.spec.fit == "pad":
            return image_padded_by_pillow(image, square_of(source, size), size, self.spec)
        scaled = scaled_size(source, size, self.spec)
        check_scalable(source, scaled)
        pixels = image_by_pillow(image, scaled, self.spec)
        return self._padded(middle_of(scaled, size).cut(pixels), size)

    def _planes(self, frame: av.VideoFrame) -> list[Array]:
        channels = _IMAGES.get(frame.format.name)
        if channels:
            pixels = plane_rows(frame, 0).reshape(frame.height, frame.width, channels)
            return [pixels[..., channel] for channel in range(channels)]
        frame = self._reshape(frame, plane_format(frame.format.name), (frame.height, frame.width))
        return [plane_rows(frame, number) for number in range(len(frame.planes))]

    def _pixels(self, frame: av.VideoFrame, size: tuple[int, int], orientation: int) -> Array:
        """Return the frame at `size` (height, width). It is scaled before it is turned, which moves fewer bytes."""
        if self.spec.background is not None and frame.format.name == "rgba":
            rgba = plane_rows(frame, 0).reshape(frame.height, frame.width, 4)
            frame = av.VideoFrame.from_ndarray(laid_on(rgba, self.spec.background), "rgb24")
        if self.spec.fit == "pad" and self.spec.size != "source":
            return self._squared(frame, size, orientation)
        target = size[::-1] if transposes(orientation) else size
        scaled = scaled_size((frame.height, frame.width), target, self.spec)
        pixels = upright(self._resized(frame, scaled, middle_of(scaled, target, orientation)), orientation)
        return self._padded(pixels, size)

    def _padded(self, pixels: Array, size: tuple[int, int]) -> Array:
        first = padded_from((pixels.shape[0], pixels.shape[1]), size, self.spec)
        return padded(pixels, size, first, self.spec.pad_value)

    def _squared(self, frame: av.VideoFrame, size: tuple[int, int], orientation: int) -> Array:
        """Return the frame, upright, padded to the shape of `size`, and scaled."""
        source = frame.height, frame.width
        pixels = upright(self._resized(frame, source, entire(source)), orientation)
        canvas = square_of((pixels.shape[0], pixels.shape[1]), size)
        if canvas == size:
            return self._padded(pixels, size)
        if is_pillows(self.spec):
            return padded_by_pillow(pixels, canvas, size, self.spec)
        check_scalable(source, canvas)
        frame = av.VideoFrame.from_ndarray(self._padded(pixels, canvas), _FORMATS[self.spec.layout])
        return self._resized(frame, size, entire(size))

    def _resized(self, frame: av.VideoFrame, size: tuple[int, int], middle: Middle) -> Array:
        """Return the `middle` of the frame at `size` (height, width)."""
        check_scalable((frame.height, frame.width), size)
        by_area = self.spec.resize == "area"
        height, width = size if by_area else (frame.height, frame.width)
        out = self.reduced(frame, (height, width), _FORMATS[self.spec.layout])
        rows = plane_rows(out, 0)
        pixels = rows.reshape(height, width, 3) if self.spec.layout == "rgb" else rows
        if by_area or pixels.shape[:2] == size:
            return middle.cut(pixels)
        return filtered(pixels, size, middle, self.spec)

    def reduced(self, frame: av.VideoFrame, size: tuple[int, int], layout: str) -> av.VideoFrame:
        """Return a frame at `size` (height, width) in the pixel format `layout`. Raises MediaError."""
        height, width = size
        shrinks = height < frame.height or width < frame.width
        if layout == _FORMATS["gray"]:
            matrix = BT601  # swscale's default: with another matrix it converts YCbCr to RGB, and that to gray
        else:
            matrix, frame = colour_matrix(frame), self._siting.settled(frame)
        try:
            return self._reformatter.reformat(
                frame,
                width=width,
                height=height,
                format=layout,
                src_colorspace=matrix,
                dst_colorspace=matrix,
                interpolation=_SHRINKING if shrinks else _GROWING,
                threads=1,
            )
        except (av.error.ArgumentError, av.error.PatchWelcomeError) as error:
            what = _not_scalable((frame.height, frame.width), size)
            raise MediaError(what, "choose another size in the pipeline") from error

    @staticmethod
    def is_planar(frame: av.VideoFrame) -> bool:
        """Return whether a frame is YCbCr 4:2:0 in 8 bits."""
        return frame.format.name in ("yuv420p", "yuvj420p")


def _opacity(frame: av.VideoFrame) -> Array:
    """How opaque each pixel is, `[H, W]` uint8."""
    if frame.format.name != "rgba":
        return np.full((frame.height, frame.width), 255, np.uint8)
    return plane_rows(frame, 0).reshape(frame.height, frame.width, 4)[..., 3]


def check_scalable(source: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise ItemTooLarge if a picture of `source` (height, width) would have too many pixels at `size`."""
    if size[0] * size[1] > _MOST_PIXELS:
        raise ItemTooLarge(_not_scalable(source, size), 'use `fit = "letterbox"`')


def _not_scalable(source: tuple[int, int], size: tuple[int, int]) -> str:
    return f"a picture of {source[1]}x{source[0]} cannot be scaled to {size[1]}x{size[0]}"


def _multiple(pixels: Array, spec: PictureSpec) -> Array:
    """Pad right and below until both sides are multiples of `spec.multiple`."""
    height, width = (-(-side // spec.multiple) * spec.multiple for side in pixels.shape[:2])
    return padded(pixels, (height, width), (0, 0), spec.pad_value)
