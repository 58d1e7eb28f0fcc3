"""Decodes the packets of a segment in bursts: some frames a call, during which the interpreter's lock is free.

PyAV takes the lock some five times a frame, and with many decoding threads each time means a wait for the others. Here
a thread takes it once for a burst of frames, and frames that no window needs become no objects of Python.
"""

import ctypes
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from engines.cuda.burst_library import ROW, Burst, BurstLibrary, pointer_of
from engines.media.bursts import IrregularBurst
from engines.part import Tick

_NO_PTS = -(1 << 63)
_MOST_FRAMES, _MOST_BYTES = 16, 24 << 20  # of a burst: all of it is held as long as one of its frames is


class _Format(NamedTuple):
    name: str


class _Held:
    """Frames that came out together; they are released when the last `BurstFrame` of them is gone."""

    __slots__ = ("__weakref__",)


class BurstFrame:
    """A frame of the decoder as numbers: what is read of an `av.VideoFrame` on the way to the GPU's kernels.

    One that is not `kept` is there for its time alone.
    """

    __slots__ = (
        "_held",
        "_lines",
        "_pointers",
        "color_range",
        "colorspace",
        "format",
        "height",
        "interlaced_frame",
        "is_corrupt",
        "kept",
        "pts",
        "sw_format",
        "width",
    )

    def __init__(self, row: Any, formats: tuple[_Format, _Format | None], held: _Held) -> None:
        self.kept, pts, corrupt, interlaced, _, _, self.width, self.height = row[:8]
        self.color_range, self.colorspace, self._pointers, self._lines = row[8], row[9], row[10:13], row[13:]
        self.pts = None if pts == _NO_PTS else pts
        self.is_corrupt, self.interlaced_frame = corrupt != 0, interlaced != 0
        self.format, self.sw_format = formats
        self._held = held

    def in_memory(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the addresses and the bytes a line of its planes. Raises IrregularBurst if it is not kept."""
        if not self.kept:
            raise IrregularBurst(self.pts)
        return self._pointers, self._lines

    def reformat(self, **_: Any) -> av.VideoFrame:
        """Raise IrregularBurst: the host must read the frame, for which PyAV decodes it."""
        raise IrregularBurst(self.pts)


class BurstDecoder:
    """Decodes by `decoder`, which is open, in bursts. Used by one thread at a time; frames may outlive it."""

    def __init__(self, library: BurstLibrary, decoder: VideoCodecContext) -> None:
        if not decoder.is_open:
            decoder.open()
        self._library = library
        self._burst = library.new(decoder)
        self.decoder = decoder
        self._most = max(1, min(_MOST_FRAMES, _MOST_BYTES // max(1, decoder.width * decoder.height * 3 // 2)))
        self._rows = np.zeros(self._most, ROW)
        self._free: deque[tuple[list[av.VideoFrame], Any]] = deque()

    def frames(
        self, packets: Sequence["Packet[Any]"], due: Sequence[int] | None, needed: Sequence[bool] | None, tick: Tick
    ) -> Iterator[av.VideoFrame]:
        """Yield the frames of all packets; with `due`, until the last of these times, and only those are `kept`.

        `needed`: of each packet whether its frame is; others may be skipped. Raises IrregularBurst for any error.
        """
        burst = self._burst
        addresses = (ctypes.c_void_p * len(packets))(*map(pointer_of, packets))
        wanted = np.array([] if due is None else due, np.int64)
        flags = np.array([] if needed is None else needed, np.uint8)
        burst.packets, burst.packet_count = ctypes.addressof(addresses), len(packets)
        burst.due, burst.due_count = (None if due is None else wanted.ctypes.data), len(wanted)
        burst.needed = None if needed is None else flags.ctypes.data
        burst.at, burst.skipping, burst.over, burst.error = 0, -1, 0, 0
        while not burst.over:
            yield from self._one()
            tick()

    def _one(self) -> list[av.VideoFrame]:
        library, burst, rows = self._library, self._burst, self._rows
        slots, addresses = self._free.pop() if self._free else self._slots()
        count = library.decode(ctypes.addressof(burst), addresses, rows.ctypes.data, self._most)
        held = _Held()
        weakref.finalize(held, _release, library, burst, slots, addresses, max(0, count), self._free).atexit = False
        if count < 0:
            raise IrregularBurst(None)
        library.check_once(burst, [frame for frame, kept in zip(slots, rows["kept"][:count], strict=False) if kept])
        formats = {}
        made = []
        for row in rows[:count].tolist():
            kind = row[4], row[5]
            if kind not in formats:
                hidden = _Format(library.format_name(kind[1])) if kind[1] >= 0 else None
                formats[kind] = _Format(library.format_name(kind[0])), hidden
            made.append(BurstFrame(row, formats[kind], held))
        return cast(list[av.VideoFrame], made)

    def _slots(self) -> tuple[list[av.VideoFrame], Any]:
        slots = [av.VideoFrame() for _ in range(self._most)]
        return slots, (ctypes.c_void_p * self._most)(*map(pointer_of, slots))


def _release(library: BurstLibrary, burst: Burst, slots: Any, addresses: Any, count: int, free: Any) -> None:
    library.unref(ctypes.addressof(burst), addresses, count)
    free.append((slots, addresses))
