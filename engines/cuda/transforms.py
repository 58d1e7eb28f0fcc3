"""Converts frames to arrays on a GPU, as `engines.transforms.Picture` does on the host.

One kernel reads a frame of the GPU's decoder in place. Where a filter resizes its pixels (all but area), the frames of
a part are resized together, by one or two launches. Frames that the host decoded are uploaded as small as possible:
scaled by the host, and as YCbCr of two bytes a pixel if colours are needed.

Scaled pictures differ from swscale's by at most two levels, gray ones by one, if both sides shrink or both grow, by
four if one shrinks and one grows. Colours of the host's frames differ by twelve at sharp edges, an eighth of a level on
average (tests/unit/test_cuda.py).
"""

import threading
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np

from engines.cuda.arrays import GpuRow
from engines.cuda.copies import kept_table
from engines.cuda.filters import ACROSS_ONE, DOWN_ONE, colour_table, taps
from engines.cuda.held import Held, Waiting
from engines.cuda.kernels import PLANE, SCALE
from engines.cuda.pictures import FULL, SURFACES, Picture, Place, entire_picture, name_on_gpu, surface, upright_strides
from engines.cuda.resampling import Resampler
from engines.geometry import middle_of, padded_from, scaled_size, square_of
from engines.media.colours import colour_matrix
from engines.media.frames import plane_rows
from engines.media.orientation import UPRIGHT, transposes
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
        self._held = Held(gpu)
        self._waiting = Waiting(gpu, self._held)
        self._made = FramePictures(pictures, lambda spec: CudaPicture(spec, gpu, self._held, self._waiting))

    def convert(self, frame: av.VideoFrame, orientation: int = UPRIGHT) -> dict[str, Array]:
        """Convert as `engines.pictures.HostPictures.convert`, to `GpuRow`s. Raises the same errors, and DeviceLost.

        Rows are not complete before this thread calls `synchronize`.
        """
        with self._gpu.guarded():
            self._gpu.enter()
            if frame.format.name == "cuda" and name_on_gpu(frame) not in SURFACES:
                frame = frame.reformat(format=name_on_gpu(frame))  # for example 4:4:4, which only few GPUs decode
            on_gpu = frame.format.name == "cuda"
            if on_gpu:
                self._after_decoder()
            arrays = self._made(frame, orientation)
            if on_gpu:
                self._held.add(frame)
        return arrays

    def synchronize(self) -> None:
        """Wait until all conversions of this thread are done; no frame is held after that. Raises DeviceLost."""
        with self._gpu.guarded():
            self._waiting.flush()
            self._gpu.stream().synchronize()
        self._held.clear()

    def _after_decoder(self) -> None:
        """Make this thread's stream wait for the decoder; FFmpeg copies its surfaces on the null stream."""
        event = self._gpu.event()
        event.record()
        self._gpu.stream().wait_for_event(event)


class CudaPicture:
    """Makes one kind of picture of single frames on a GPU.

    The host makes pictures whose border is repeated, and those that are padded and then scaled by area.
    """

    def __init__(self, spec: PictureSpec, gpu: "CudaGpu", held: Held, waiting: Waiting) -> None:
        self.spec = spec
        self._gpu = gpu
        self._held = held
        self._waiting = waiting
        pads = spec.fit == "pad"
        self._resampler = None if spec.resize == "area" else Resampler(gpu, spec.resize, spec.antialias, pads)
        self._by_host = spec.pad_value == "edge" or (pads and self._resampler is None)
        self._kept: dict[Any, tuple[Any, list[Any]]] = {}  # structs, and the tables they point to
        self._lock = threading.Lock()
        self._here = threading.local()

    def convert(self, frame: av.VideoFrame, orientation: int) -> list[GpuRow]:
        """Convert as `engines.transforms.Picture.convert`; the frame is the host's, or one of `SURFACES`."""
        frame = frame.reformat(format=name_on_gpu(frame)) if self._by_host and frame.format.name == "cuda" else frame
        if frame.format.name != "cuda":
            return self._from_host(frame, orientation)
        picture = surface(frame)
        if self.spec.layout == "planes":
            return self._planes(picture, orientation)
        return [self._scaled(frame, picture, orientation)]

    # frames of the host

    def _from_host(self, frame: av.VideoFrame, orientation: int) -> list[GpuRow]:
        host, size = self._host(), "source" if self._by_host else self.spec.size
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
        for row in rows:
            self._held.add(row)
        luma, cb, cr = (row.block.pointer for row in rows)
        (height, width), (chroma_height, chroma_width) = rows[0].shape, rows[1].shape
        chroma = chroma_height, chroma_width
        return Picture(height, width, (luma, cb, cr), (width, chroma_width), chroma, 1, 8, 0, left=False)

    def _upload(self, array: Array) -> GpuRow:
        gpu = self._gpu
        row = GpuRow(gpu, gpu.memory.take(array.nbytes), array.shape)
        if array.nbytes:
            pinned = gpu.pinned.take(array.nbytes)
            staged = pinned.host(np.uint8, array.shape)
            staged[...] = array
            gpu.upload(row.block.pointer, staged, gpu.stream())
            self._held.add(pinned)
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
        row = self._row((*self.spec.size, *native.shape[2:]))
        place = entire_picture(self.spec.size, prod(native.shape[2:]))
        self._waiting.add(self._resampler, native, row, place)
        return row

    def _laid(self, frame: av.VideoFrame, picture: Picture, orientation: int, spec: PictureSpec) -> GpuRow:
        """Return a frame as `spec` lays it on its row; filters read its pixels."""
        channels = (3,) if spec.layout == "rgb" else ()
        source = frame.height, frame.width
        place, canvas = self._place(source, orientation, spec)
        row = self._row((*canvas, *channels))
        if place.padded:
            self._gpu.driver.memset_d8_async(row.block.pointer, spec.pad_value, row.nbytes, self._gpu.stream())
        if self._resampler and place.scaled != source:
            native = self._row((*source, *channels))
            self._scale(frame, picture, native, entire_picture(source, 3 if channels else 1))
            self._waiting.add(self._resampler, native, row, place)
        else:
            self._scale(frame, picture, row, place)
        return row

    def _row(self, shape: tuple[int, ...]) -> GpuRow:
        return GpuRow(self._gpu, self._gpu.memory.take(prod(shape)), shape)

    def _place(self, source: tuple[int, int], orientation: int, spec: PictureSpec) -> tuple["Place", tuple[int, int]]:
        """Return the place of a picture in its row, and the (height, width) of the upright row."""
        turned = transposes(orientation)
        shown = (source[::-1] if turned else source) if spec.size == "source" else spec.size
        height, width = (-(-side // spec.multiple) * spec.multiple for side in shown)
        target = shown[::-1] if turned else shown
        scaled = scaled_size(source, target, spec)
        check_scalable(source, scaled)
        first, size = middle_of(scaled, target, orientation)
        pixel_bytes = 3 if spec.layout == "rgb" else 1
        top, left = padded_from(size[::-1] if turned else size, shown, spec)
        begin, stride_y, stride_x = upright_strides(size, orientation, pixel_bytes, width * pixel_bytes)
        begin += (top * width + left) * pixel_bytes
        padded = (size[::-1] if turned else size) != (height, width)
        return Place(scaled, first, size, begin, (stride_y, stride_x), padded), (height, width)

    def _scale(self, frame: av.VideoFrame, picture: Picture, row: GpuRow, place: "Place") -> None:
        """Queue the kernel that makes a row of a picture."""
        template = self._template(frame, picture, place)
        given = template.copy()
        given["luma"], given["out"] = picture.pointers[0], row.block.pointer + place.begin
        if template["cb"]:
            given["cb"], given["cr"] = picture.pointers[1:]
        given["luma_pitch"], given["chroma_pitch"] = picture.pitches
        grid = -(-place.size[1] // _COLUMNS), place.size[0]
        block = _COLUMNS, min(_MOST_PARTS, int(given["luma_y_taps"])), 1  # the lines that a pixel is made of are shared
        self._gpu.kernels.launch("scale", grid, block, self._gpu.stream(), given[()])

    def _template(self, frame: av.VideoFrame, picture: Picture, place: "Place") -> Any:
        """Return a frame's struct without its pointers; it is made once for all frames of the same kind."""
        matrix, full = colour_matrix(frame), int(frame.color_range) == FULL
        key = (picture.kind, (frame.height, frame.width), matrix, full, place)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._made((frame.height, frame.width), picture, matrix, full, place)
            return self._kept[key][0]

    def _made(self, source: tuple[int, int], picture: Picture, matrix: int, full: bool, place: "Place") -> Any:
        height, width = place.scaled
        cubic = height >= source[0] and width >= source[1]
        gray, each = self.spec.layout == "gray", bool(width % 2)
        given = np.zeros((), SCALE)
        tables: list[Any] = []
        for name, have, want, one, left in (
            ("luma_x", picture.width, width, ACROSS_ONE, False),
            ("luma_y", picture.height, height, DOWN_ONE, False),
            ("chroma_x", picture.chroma[1], width if each else width // 2, ACROSS_ONE, picture.left),
            ("chroma_y", picture.chroma[0], height, DOWN_ONE, False),
        ):
            if not (gray and name.startswith("chroma")):
                filtered = taps(have, want, cubic, one, left)
                given[f"{name}_first"] = kept_table(self._gpu, filtered.first, tables)
                given[name] = kept_table(self._gpu, filtered.weights, tables)
                given[f"{name}_taps"] = filtered.count
        given["chroma_step"], given["low_bits"] = picture.step, picture.low_bits
        given["deep"], given["across"] = picture.bits > 8, 7 if picture.bits == 8 else picture.bits - 1
        given["each"], given["stretch"] = each, gray and not full
        given["cb"] = not gray  # replaced by a pointer
        given["colours"] = colour_table(matrix, full, each)
        place.into(given)
        return given, tables

    def _planes(self, picture: Picture, orientation: int) -> list[GpuRow]:
        """Return each plane in 8 bits, at its own size."""
        gpu, rows = self._gpu, []
        sizes = ((picture.height, picture.width), picture.chroma, picture.chroma)
        for number, (height, width) in enumerate(sizes):
            shape = (width, height) if transposes(orientation) else (height, width)
            row = GpuRow(gpu, gpu.memory.take(height * width), shape)
            begin, stride_y, stride_x = upright_strides((height, width), orientation, 1)
            given = np.zeros((), PLANE)
            given["source"], given["out"] = picture.pointers[number], row.block.pointer + begin
            given["pitch"], given["step"] = picture.pitches[number > 0], picture.step if number else 1
            given["deep"], given["drop"] = picture.bits > 8, picture.bits + picture.low_bits - 8
            given["width"], given["height"] = width, height
            given["stride_x"], given["stride_y"] = stride_x, stride_y
            gpu.kernels.launch("plane", (-(-width // 128), height), (128, 1, 1), gpu.stream(), given[()])
            rows.append(row)
        return rows
