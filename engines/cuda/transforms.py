"""Converts frames to arrays on a GPU, as `engines.transforms.Picture` does on the host.

One kernel reads the frames of a part in place, as the GPU's decoder left them. Where a filter resizes their pixels (all
but area), one or two more do so. Frames that the host decoded are uploaded as small as possible: scaled by the host,
and as YCbCr of two bytes a pixel if colours are needed.

Scaled pictures differ from swscale's by at most two levels, gray ones by one, if both sides shrink or both grow, by
four if one shrinks and one grows. Colours of the host's frames differ by twelve at sharp edges, an eighth of a level on
average (tests/unit/test_cuda.py).
"""

import threading
from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import av
import numpy as np

from engines.cuda.arrays import GpuRow
from engines.cuda.batches import Batches, Work
from engines.cuda.burst_frame import BurstFrame
from engines.cuda.copies import kept_table
from engines.cuda.filters import ACROSS_ONE, DOWN_ONE, colour_table, taps
from engines.cuda.kernels import SCALE
from engines.cuda.kinds import Kind
from engines.cuda.pictures import (
    FULL,
    SURFACES,
    Layout,
    Picture,
    Place,
    entire_picture,
    name_on_gpu,
    plane_kinds,
    surface,
    upright_strides,
)
from engines.cuda.recipes import Recipe, traced
from engines.cuda.resampling import Resampler
from engines.geometry import middle_of, padded_from, scaled_size, square_of
from engines.media.colours import colour_matrix
from engines.media.frames import plane_rows
from engines.media.orientation import UPRIGHT, transposes
from engines.media.stills import Decoded, as_frame
from engines.part import Array
from engines.pictures import FramePictures
from engines.transforms import Picture as HostPicture
from engines.transforms import check_scalable
from schemas.picture import PictureSpec

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_COLUMNS, _MOST_PARTS = 32, 8  # of a block of the kernel `scale`
_SMALL = "yuv422p"  # swscale makes RGB of this format after it has halved the chroma across


class CudaPictures:
    """Makes all pictures of a pipeline from each frame, on a GPU. Threads share it; each has its own stream."""

    def __init__(self, pictures: Mapping[str, PictureSpec], gpu: "CudaGpu") -> None:
        self._gpu = gpu
        self._batches = Batches(gpu)
        self._pictures = pictures
        self._made = self._by(self._batches)
        self._recipes: dict[Any, Recipe] = {}
        self._lock = threading.Lock()

    def convert(self, decoded: Decoded, orientation: int = UPRIGHT) -> dict[str, Array]:
        """Convert as `engines.pictures.HostPictures.convert`, to `GpuRow`s. Raises the same errors, and DeviceLost.

        Rows are not complete before this thread calls `synchronize`.
        """
        frame = as_frame(decoded)
        try:
            self._gpu.enter()
            on_gpu = frame.format.name == "cuda"
            if on_gpu and name_on_gpu(frame) not in SURFACES:
                frame = frame.reformat(format=name_on_gpu(frame))  # for example 4:4:4, which only few GPUs decode
                on_gpu = False
            self._batches.flush_full()
            arrays = self._made(frame, orientation)
            if on_gpu:
                self._batches.hold(frame, frame.height * frame.width * 3 // 2)
        except self._gpu.driver.Error as error:
            raise self._gpu.lost(error) from error
        return arrays

    def recipe(self, frame: BurstFrame, orientation: int = UPRIGHT) -> Recipe | None:
        """Return how kernels alone make the arrays of such frames; None: the host must read them. Raises DeviceLost."""
        if self.by_host or frame.sw_format is None or name_on_gpu(frame) not in SURFACES:
            return None
        key = name_on_gpu(frame), frame.height, frame.width, frame.colorspace, frame.color_range, frame.in_memory()[1]
        with self._lock, self._gpu.guarded():
            if (key, orientation) not in self._recipes:
                self._recipes[key, orientation] = traced(
                    self._gpu, lambda trace: self._by(trace)(cast(Any, frame), orientation)
                )
            return self._recipes[key, orientation]

    def _by(self, work: Work) -> FramePictures:
        return FramePictures(self._pictures, lambda spec: CudaPicture(spec, self._gpu, work))

    @property
    def by_host(self) -> bool:
        """Whether some of the pictures are made by the host, which then reads each frame."""
        return any(maker.by_host for maker in self._made.makers if isinstance(maker, CudaPicture))

    def synchronize(self) -> None:
        """Wait until all conversions of this thread are done; no frame is held after that. Raises DeviceLost."""
        with self._gpu.guarded():
            self._batches.synchronize()


class _Laid(NamedTuple):
    """How frames of one kind come onto their rows of `shape`, and how a filter resizes the row's pixels."""

    shape: tuple[int, ...]
    nbytes: int
    kind: Kind
    place: Place
    native: tuple[int, ...] | None  # the shape of the pixels that a filter reads; None: the kernel makes the row


class CudaPicture:
    """Makes one kind of picture of single frames on a GPU.

    The host makes pictures whose border is repeated, and those that are padded and then scaled by area.
    """

    def __init__(self, spec: PictureSpec, gpu: "CudaGpu", batches: Work) -> None:
        self.spec = spec
        self._gpu = gpu
        self._batches = batches
        self._channels = (3,) if spec.layout == "rgb" else ()
        pads = spec.fit == "pad"
        self._resampler = None if spec.resize == "area" else Resampler(gpu, spec.resize, spec.antialias, pads)
        self.by_host = spec.pad_value == "edge" or (pads and self._resampler is None)
        self._kept: dict[Any, Any] = {}  # what is the same for all frames of a kind
        self._lock = threading.Lock()
        self._here = threading.local()

    def convert(self, decoded: Decoded, orientation: int) -> list[GpuRow]:
        """Convert as `engines.transforms.Picture.convert`; a frame is the host's, or one of `SURFACES`."""
        frame = as_frame(decoded)
        on_gpu = frame.format.name == "cuda"
        if self.by_host and on_gpu:
            frame, on_gpu = frame.reformat(format=name_on_gpu(frame)), False
        if not on_gpu:
            return self._from_host(frame, orientation)
        picture = surface(frame)
        if self.spec.layout == "planes":
            return self._planes(picture, orientation)
        return [self._scaled(frame, picture, orientation)]

    # frames of the host

    def _from_host(self, frame: av.VideoFrame, orientation: int) -> list[GpuRow]:
        host, size = self._host(), "source" if self.by_host else self.spec.size
        if size != "source" and (self.spec.layout, self.spec.resize) == ("rgb", "area") and host.is_planar(frame):
            target = size[::-1] if transposes(orientation) else size
            height, width = scaled_size((frame.height, frame.width), target, self.spec)
            if width % 2 == 0 and (height < frame.height or width < frame.width):
                small = host.reduced(frame, (height, width), _SMALL)
                return [self._scaled(frame, self._uploaded(small), orientation)]
        return [self._upload(array) for array in host.convert(frame, orientation)]

    def _host(self) -> HostPicture:
        if not hasattr(self._here, "host"):
            self._here.host = HostPicture(self.spec)
        return cast(HostPicture, self._here.host)

    def _uploaded(self, frame: av.VideoFrame) -> Picture:
        rows = [self._upload(plane_rows(frame, number)) for number in range(3)]
        luma, cb, cr = (row.block.pointer for row in rows)
        (height, width), (chroma_height, chroma_width) = rows[0].shape, rows[1].shape
        chroma = chroma_height, chroma_width
        return Picture(Layout(height, width, (width, chroma_width), chroma, 1, 8, 0, left=False), (luma, cb, cr))

    def _upload(self, array: Array) -> GpuRow:
        gpu = self._gpu
        row = self._batches.row(array.shape, array.nbytes)
        if array.nbytes:
            pinned = gpu.pinned.take(array.nbytes)
            staged = pinned.host(np.uint8, array.shape)
            staged[...] = array
            gpu.upload(row.block.pointer, staged, gpu.stream())
            self._batches.hold(pinned, array.nbytes)
        return row

    # kernels

    def _scaled(self, frame: av.VideoFrame, picture: Picture, orientation: int) -> GpuRow:
        """Return a frame at the picture's size."""
        if self.spec.fit != "pad" or self.spec.size == "source":
            return self._laid(frame, picture, orientation, self.spec)
        source = (frame.width, frame.height) if transposes(orientation) else (frame.height, frame.width)
        square = square_of(source, self.spec.size)
        laid = self.spec.model_copy(update={"fit": "letterbox", "size": square})
        native = self._laid(frame, picture, orientation, laid)
        if square == self.spec.size:
            return native
        assert self._resampler is not None, "the host does what has no filter"
        shape = (*self.spec.size, *self._channels)
        row = self._batches.row(shape, prod(shape))
        self._batches.resize(self._resampler, native, row, entire_picture(self.spec.size, prod(self._channels)))
        return row

    def _laid(self, frame: av.VideoFrame, picture: Picture, orientation: int, spec: PictureSpec) -> GpuRow:
        """Return a frame as `spec` lays it on its row; filters read its pixels."""
        key = picture.layout, frame.height, frame.width, frame.colorspace, frame.color_range, orientation, spec.size
        laid: _Laid | None = self._kept.get(key)
        if laid is None:
            laid = self._kept_as(key, lambda: self._made(frame, picture.layout, orientation, spec))
        batches, place = self._batches, laid.place
        row = made = batches.row(laid.shape, laid.nbytes)
        if place.padded:
            batches.fill(row, cast(int, spec.pad_value))
        if laid.native:
            made = batches.row(laid.native, prod(laid.native))
        begin = 0 if laid.native else place.begin
        batches.put(laid.kind, (*picture.pointers, made.block.pointer + begin))
        if laid.native:
            batches.resize(cast(Resampler, self._resampler), made, row, place)
        return row

    def _kept_as(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what is kept as `key`, made once for all threads."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            return self._kept[key]

    def _made(self, frame: av.VideoFrame, layout: Layout, orientation: int, spec: PictureSpec) -> _Laid:
        source = frame.height, frame.width
        place, canvas = self._place(source, orientation, spec)
        shape = (*canvas, *self._channels)
        native = (*source, *self._channels) if self._resampler and place.scaled != source else None
        target = entire_picture(source, prod(self._channels)) if native else place
        kind = self._kind(source, layout, colour_matrix(frame), int(frame.color_range) == FULL, target)
        return _Laid(shape, prod(shape), kind, place, native)

    def _place(self, source: tuple[int, int], orientation: int, spec: PictureSpec) -> tuple["Place", tuple[int, int]]:
        """Return the place of a picture in its row, and the (height, width) of the upright row."""
        turned = transposes(orientation)
        shown = (source[::-1] if turned else source) if spec.size == "source" else spec.size
        height, width = (-(-side // spec.multiple) * spec.multiple for side in shown)
        target = shown[::-1] if turned else shown
        scaled = scaled_size(source, target, spec)
        check_scalable(source, scaled)
        first, size = middle_of(scaled, target, orientation)
        pixel_bytes = prod(self._channels)
        top, left = padded_from(size[::-1] if turned else size, shown, spec)
        begin, stride_y, stride_x = upright_strides(size, orientation, pixel_bytes, width * pixel_bytes)
        begin += (top * width + left) * pixel_bytes
        padded = (size[::-1] if turned else size) != (height, width)
        return Place(scaled, first, size, begin, (stride_y, stride_x), padded), (height, width)

    def _kind(self, source: tuple[int, int], layout: Layout, matrix: int, full: bool, place: "Place") -> Kind:
        """Return the kernel that makes rows of frames of one kind."""
        height, width = place.scaled
        cubic = height >= source[0] and width >= source[1]
        gray, each = self.spec.layout == "gray", bool(width % 2)
        given = np.zeros((), SCALE)
        tables: list[Any] = []
        for name, have, want, one, left in (
            ("luma_x", layout.width, width, ACROSS_ONE, False),
            ("luma_y", layout.height, height, DOWN_ONE, False),
            ("chroma_x", layout.chroma[1], width if each else width // 2, ACROSS_ONE, layout.left),
            ("chroma_y", layout.chroma[0], height, DOWN_ONE, False),
        ):
            if not (gray and name.startswith("chroma")):
                filtered = taps(have, want, cubic, one, left)
                given[f"{name}_first"] = kept_table(self._gpu, filtered.first, tables)
                given[name] = kept_table(self._gpu, filtered.weights, tables)
                given[f"{name}_taps"] = filtered.count
        given["luma_pitch"], given["chroma_pitch"] = layout.pitches
        given["chroma_step"], given["low_bits"] = layout.step, layout.low_bits
        given["deep"], given["across"] = layout.bits > 8, 7 if layout.bits == 8 else layout.bits - 1
        given["gray"], given["each"], given["stretch"] = gray, each, gray and not full
        given["colours"] = colour_table(matrix, full, each)
        place.into(given)
        grid = -(-place.size[1] // _COLUMNS), place.size[0]
        block = _COLUMNS, min(_MOST_PARTS, int(given["luma_y_taps"])), 1  # the lines that a pixel is made of are shared
        return Kind("scale", given, grid, block, 4, tables)

    def _planes(self, picture: Picture, orientation: int) -> list[GpuRow]:
        """Return each plane in 8 bits, at its own size."""
        key = picture.layout, orientation
        kinds = self._kept.get(key) or self._kept_as(key, lambda: plane_kinds(picture.layout, orientation))
        rows = []
        for pointer, (kind, shape, begin) in zip(picture.pointers, kinds, strict=True):
            row = self._batches.row(shape, prod(shape))
            self._batches.put(kind, (pointer, row.block.pointer + begin))
            rows.append(row)
        return rows
