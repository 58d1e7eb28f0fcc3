"""Frames to arrays on a card: what `engines.transforms.Preprocess` does, by one kernel a frame.

Frames of the card's decoder are read where they lie. Those that the host decoded come over as small as they can be:
scaled there, and as YCbCr of two bytes a pixel where colours are wanted. Against swscale, scaled pictures differ by two
levels at most where both sides shrink or both grow, by four where one shrinks and one grows; colours of the host's
frames by twelve at sharp edges, a tenth of a level on average (tests/unit/test_cuda.py).
"""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np

from engines.cuda.arrays import CardRow
from engines.cuda.filters import ACROSS_ONE, DOWN_ONE, Taps, colour_table, taps
from engines.cuda.kernels import PLANE, SCALE
from engines.media.frames import plane_rows
from engines.part import Array
from engines.transforms import Preprocess, check_scalable, colour_matrix, scaled_size
from schemas.pipeline import PreprocessStage

if TYPE_CHECKING:
    from engines.cuda.card import CudaCard

SURFACES = {"nv12": (8, 0), "p010le": (10, 6), "p016le": (12, 4)}  # of NVDEC: bits a sample, unused low bits
HELD_FRAMES = 4  # a thread's decoder waits while kernels still read so many of its surfaces
_BT601 = (5, 6)
_FULL = 2  # AVColorRange
_BLOCK = (32, 8, 1)
_SMALL = "yuv422p"  # what swscale would make RGB of, when it has halved the picture's chroma across


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame's planes in the card's memory: Y, Cb and Cr, `step` samples apart, of `bits`, above `low_bits` unused."""

    height: int
    width: int
    pointers: tuple[int, int, int]
    pitches: tuple[int, int]
    chroma: tuple[int, int]  # height, width
    step: int
    bits: int
    low_bits: int
    left: bool  # chroma samples lie with the left one of two pixels


class CudaPreprocess:
    """A preprocess stage's conversion of single frames on a card. Threads share it, each with its own stream."""

    def __init__(self, stage: PreprocessStage, card: "CudaCard") -> None:
        self.stage = stage
        self._card = card
        self._kept: dict[Any, tuple[Any, list[Any]]] = {}
        self._lock = threading.Lock()
        self._here = threading.local()

    def convert(self, frame: av.VideoFrame, rotation: int = 0) -> dict[str, Array]:
        """As `Preprocess.convert`, with `CardRow`s for arrays. Raises what it raises, and DeviceLost."""
        turns = round(rotation / 90) % 4
        with self._card.guarded():
            self._card.enter()
            if frame.format.name == "cuda" and _name_on_card(frame) not in SURFACES:
                frame = frame.reformat(format=_name_on_card(frame))  # 4:4:4, say, which only few cards decode
            if frame.format.name == "cuda":
                picture = _surface(frame, self.stage.layout == "gray")
                self._after_decoder()
                rows = self._planes(picture, turns) if self.stage.size is None else self._scaled(frame, picture, turns)
                self._hold(frame)
            else:
                rows = self._from_host(frame, rotation, turns)
        return cast("dict[str, Array]", rows)

    def settle(self) -> None:
        """Wait until all that this thread has converted is there; nothing is held any more. Raises DeviceLost."""
        with self._card.guarded():
            self._card.stream().synchronize()
        self._held.clear()

    # frames of the host

    def _from_host(self, frame: av.VideoFrame, rotation: int, turns: int) -> dict[str, CardRow]:
        host, size = self._host(), self.stage.size
        if size is not None and self.stage.layout == "rgb" and host.is_planar(frame):
            target = size[::-1] if turns % 2 else size
            height, width = scaled_size((frame.height, frame.width), target, self.stage.fit)
            if width % 2 == 0 and (height < frame.height or width < frame.width):
                small = host.reduced(frame, (height, width), _SMALL)
                return self._scaled(frame, self._uploaded(small), turns)
        return {name: self._upload(array) for name, array in host.convert(frame, rotation).items()}

    def _host(self) -> Preprocess:
        if not hasattr(self._here, "host"):
            self._here.host = Preprocess(self.stage)
        return cast(Preprocess, self._here.host)

    def _uploaded(self, frame: av.VideoFrame) -> Picture:
        rows = [self._upload(plane_rows(frame, number)) for number in range(3)]
        for row in rows:
            self._hold(row)
        luma, cb, cr = (row.block.pointer for row in rows)
        (height, width), (chroma_height, chroma_width) = rows[0].shape, rows[1].shape
        chroma = chroma_height, chroma_width
        return Picture(height, width, (luma, cb, cr), (width, chroma_width), chroma, 1, 8, 0, left=False)

    def _upload(self, array: Array) -> CardRow:
        card = self._card
        row = CardRow(card, card.memory.take(array.nbytes), array.shape)
        if array.nbytes:
            pinned = card.pinned.take(array.nbytes)
            staged = pinned.host(np.uint8, array.shape)
            staged[...] = array
            card.upload(row.block.pointer, staged, card.stream())
            self._hold(pinned)
        return row

    # order and lifetime

    def _after_decoder(self) -> None:
        """Have this thread's stream wait for what the decoder queued; FFmpeg copies its surfaces on the null stream."""
        event = self._card.event()
        event.record()
        self._card.stream().wait_for_event(event)

    @property
    def _held(self) -> list[tuple[Any, Any]]:
        if not hasattr(self._here, "held"):
            self._here.held = []
        return cast(list[tuple[Any, Any]], self._here.held)

    def _hold(self, thing: Any) -> None:
        """Keep a frame or a block until the kernels queued so far have read it; few at a time."""
        event = self._card.event()
        event.record(self._card.stream())
        held = self._held
        held.append((event, thing))
        while len(held) > HELD_FRAMES:
            held.pop(0)[0].synchronize()

    # kernels

    def _scaled(self, frame: av.VideoFrame, picture: Picture, turns: int) -> dict[str, CardRow]:
        assert self.stage.size is not None
        card, (height, width) = self._card, self.stage.size
        channels = (3,) if self.stage.layout == "rgb" else ()
        row = CardRow(
            card, card.memory.take(height * width * 3 if channels else height * width), (height, width, *channels)
        )
        template, grid, padded = self._template(frame, picture, turns)
        given = template.copy()
        given["luma"], given["out"] = picture.pointers[0], row.block.pointer + int(template["out"])
        if template["cb"]:
            given["cb"], given["cr"] = picture.pointers[1:]
        given["luma_pitch"], given["chroma_pitch"] = picture.pitches
        stream = card.stream()
        if padded:
            card.driver.memset_d8_async(row.block.pointer, 0, row.nbytes, stream)
        card.kernels.launch("scale", grid, _BLOCK, stream, given[()])
        return {"pixels": row}

    def _template(self, frame: av.VideoFrame, picture: Picture, turns: int) -> tuple[Any, tuple[int, int], bool]:
        """A frame's struct but for its pointers, made once for all frames like it, with the grid to launch."""
        matrix, full = colour_matrix(frame), int(frame.color_range) == _FULL
        source = (frame.height, frame.width)
        key = (source, picture.height, picture.width, picture.chroma, picture.step, picture.bits, matrix, full, turns)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._made(source, picture, matrix, full, turns)
            return cast(tuple[Any, tuple[int, int], bool], self._kept[key][:3])

    def _made(self, source: tuple[int, int], picture: Picture, matrix: int, full: bool, turns: int) -> Any:
        assert self.stage.size is not None
        target = self.stage.size[::-1] if turns % 2 else self.stage.size
        height, width = scaled_size(source, target, self.stage.fit)
        check_scalable(source, (height, width))
        cubic = height >= source[0] and width >= source[1]
        gray = self.stage.layout == "gray"
        luma_only, each = gray and matrix in _BT601, bool(width % 2)
        given = np.zeros((), SCALE)
        tables: list[Any] = []
        for name, have, want, one, left in (
            ("luma_x", picture.width, width, ACROSS_ONE, False),
            ("luma_y", picture.height, height, DOWN_ONE, False),
            ("chroma_x", picture.chroma[1], width if each else width // 2, ACROSS_ONE, picture.left),
            ("chroma_y", picture.chroma[0], height, DOWN_ONE, False),
        ):
            if not (luma_only and name.startswith("chroma")):
                self._put(given, name, taps(have, want, cubic, one, left), tables)
        given["chroma_step"], given["low_bits"] = picture.step, picture.low_bits
        given["deep"], given["across"] = picture.bits > 8, 7 if picture.bits == 8 else picture.bits - 1
        given["each"], given["gray"], given["stretch"] = each, gray, luma_only and not full
        given["cb"] = not luma_only  # replaced by a pointer
        given["colours"] = colour_table(matrix, full, each)
        # what is computed: the middle of what is too large; it goes to the middle of what it does not fill
        rows, columns = min(height, target[0]), min(width, target[1])
        given["top"], given["left"] = (height - rows) // 2, (width - columns) // 2
        given["height"], given["width"] = rows, columns
        begin, stride_y, stride_x = turned_strides(target, turns, 1 if gray else 3)
        top, left_edge = (target[0] - rows) // 2, (target[1] - columns) // 2
        given["out"] = begin + top * stride_y + left_edge * stride_x
        given["stride_y"], given["stride_x"] = stride_y, stride_x
        return given, (-(-columns // _BLOCK[0]), rows), (rows, columns) != target, tables

    def _put(self, given: Any, name: str, filtered: Taps, tables: list[Any]) -> None:
        for field, array in ((f"{name}_first", filtered.first), (name, filtered.weights)):
            block = self._card.memory.take(array.nbytes)
            self._card.driver.memcpy_htod(block.pointer, np.ascontiguousarray(array))
            self._card.counters.to_card_bytes += array.nbytes
            given[field] = block.pointer
            tables.append(block)
        given[f"{name}_taps"] = filtered.count

    def _planes(self, picture: Picture, turns: int) -> dict[str, CardRow]:
        """Each plane in 8 bits, at its own size."""
        card, rows = self._card, {}
        sizes = ((picture.height, picture.width), picture.chroma, picture.chroma)
        for number, (height, width) in enumerate(sizes):
            shape = (width, height) if turns % 2 else (height, width)
            row = CardRow(card, card.memory.take(height * width), shape)
            begin, stride_y, stride_x = turned_strides((height, width), turns, 1)
            given = np.zeros((), PLANE)
            given["source"], given["out"] = picture.pointers[number], row.block.pointer + begin
            given["pitch"], given["step"] = picture.pitches[number > 0], picture.step if number else 1
            given["deep"], given["drop"] = picture.bits > 8, picture.bits + picture.low_bits - 8
            given["width"], given["height"] = width, height
            given["stride_x"], given["stride_y"] = stride_x, stride_y
            card.kernels.launch("plane", (-(-width // 128), height), (128, 1, 1), card.stream(), given[()])
            rows[f"plane{number}"] = row
        return rows


def turned_strides(size: tuple[int, int], turns: int, pixel_bytes: int) -> tuple[int, int, int]:
    """Where a picture's first pixel goes when it is turned counterclockwise by quarters, and steps down and right."""
    height, width = size
    line = (height if turns % 2 else width) * pixel_bytes
    return (
        (0, line, pixel_bytes),
        ((width - 1) * line, pixel_bytes, -line),
        ((height - 1) * line + (width - 1) * pixel_bytes, -line, -pixel_bytes),
        ((height - 1) * pixel_bytes, -pixel_bytes, line),
    )[turns]


def _name_on_card(frame: av.VideoFrame) -> str:
    assert frame.sw_format is not None
    return frame.sw_format.name


def _surface(frame: av.VideoFrame, gray: bool) -> Picture:
    """A decoder's frame, read in place."""
    bits, low_bits = SURFACES[_name_on_card(frame)]
    luma, chroma = frame.planes[:2]
    sample = 1 if bits == 8 else 2
    pointers = (luma.buffer_ptr, chroma.buffer_ptr, chroma.buffer_ptr + sample)
    half = -(-frame.height // 2), -(-frame.width // 2)
    pitches = luma.line_size, chroma.line_size
    # 8-bit full range is what FFmpeg calls yuvj420p, for which `engines.transforms` assumes the siting of JPEG
    left = gray or bits > 8 or int(frame.color_range) != _FULL
    return Picture(frame.height, frame.width, pointers, pitches, half, 2, bits, low_bits, left)
