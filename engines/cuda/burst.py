"""Decodes and converts the frames of a part in one call, during which the interpreter's lock is free.

PyAV takes the lock some five times a frame, and with many decoding threads each time means a wait for the others. Here
a thread takes it once for a part, and frames become no objects of Python: kernels read them as they leave the decoder.
"""

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from engines.cuda import burst_library as lib
from engines.cuda.arrays import GpuRow
from engines.cuda.burst_frame import BurstFrame
from engines.cuda.burst_library import BurstLibrary, Launch, Output, Times, pointer_of
from engines.cuda.memory import SLAB_ROW_BYTES, Block, aligned
from engines.cuda.recipes import Recipe
from engines.media.bursts import Expected, IrregularBurst
from engines.media.uniform import Uniform
from engines.part import Array, Tick
from schemas.wire import Buffer

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

TOGETHER, _TOGETHER_BYTES = 4, 16 << 20  # frames of one launch; twice as many are kept from the decoder
_PACKETS = 256  # of a call, after which progress is reported

Cook = Callable[[BurstFrame, int], Recipe | None]
"""How the arrays of such frames of an orientation are made; None: not by kernels alone."""


class BurstDecoder:
    """Decodes by `decoder`, which is open. Used by one thread at a time, in the GPU's context."""

    def __init__(self, library: BurstLibrary, gpu: "CudaGpu", decoder: VideoCodecContext) -> None:
        if not decoder.is_open:
            decoder.open()
        self._library, self._gpu, self.decoder = library, gpu, decoder
        self._burst = library.new(decoder, gpu.calls.addresses)
        together = together_of(decoder.width, decoder.height)
        self._slots = [av.VideoFrame() for _ in range(2 * together)]
        self._packet: Any = av.Packet()
        self._addresses = (ctypes.c_void_p * len(self._slots))(*map(pointer_of, self._slots))
        with gpu.guarded():
            events = [gpu.calls.new_event() for _ in range(3)]
        for event in events:
            weakref.finalize(self, gpu.calls.end_event, event).atexit = False
        burst = self._burst
        burst.slots, burst.together = ctypes.addressof(self._addresses), together
        burst.packet, burst.events = pointer_of(self._packet), (ctypes.c_void_p * 3)(*events)
        self._cook: Cook = lambda frame, orientation: None
        self._held: list[Any] = []  # what the struct's addresses point to, of this segment
        self._held_rows: list[Any] = []  # and of this part
        self._recipe: Recipe | None = None

    def begin(
        self, table: Buffer, data: Buffer, expected: Expected, uniform: Uniform, orientation: int, cook: Cook
    ) -> None:
        """See `engines.media.bursts.PartDecoder.begin`; `cook` says how frames become arrays."""
        burst, rows = self._burst, np.frombuffer(table, np.int64)
        body, seen = np.frombuffer(data, np.uint8), np.zeros(len(expected.owned), np.int64)
        self._held = [rows, body, seen, expected]
        self._expected, self._uniform, self._orientation, self._cook = expected, uniform, orientation, cook
        self._recipe, self._at, self._counted, self._seen = None, 0, 0, seen
        burst.checked = self._library.checked
        burst.stream = self._gpu.stream().handle
        burst.table, burst.data, burst.packet_count = rows.ctypes.data, body.ctypes.data, len(rows) // 4
        for name in ("due", "hidden", "entries", "owned"):
            setattr(burst, name, _times(getattr(expected, name)))
        burst.ranks = _times(np.empty(0, np.int64) if expected.ranks is None else expected.ranks)
        burst.by_rank, burst.skips = expected.ranks is not None, expected.skips
        burst.wanted, burst.seen, burst.since = expected.wanted.ctypes.data, seen.ctypes.data, expected.since
        burst.at = burst.offset = burst.next = burst.seen_count = burst.rank = burst.some = 0
        burst.skipping = burst.done = burst.over = burst.known = burst.half = burst.error = 0

    def rows(self, goal: int, tick: Tick) -> Sequence[dict[str, Array]]:
        """See `engines.media.bursts.PartDecoder.rows`."""
        library, burst = self._library, self._burst
        count = int(np.count_nonzero(self._expected.wanted[self._at : goal]))
        self._at = goal
        if self._expected.skips and not len(self._expected.due):
            return []
        made = self._outputs(count) if self._recipe else []
        while True:
            status = library.decode(ctypes.addressof(burst), goal, _PACKETS)
            tick()
            if status == lib.DONE:
                break
            if status == lib.IRREGULAR:
                raise IrregularBurst(None)
            if status == lib.FAILED:
                raise self._gpu.lost(f"CUDA error {burst.error}")
            if status == lib.FIRST:
                library.check_first(burst, self._slots[burst.half * burst.together + burst.count])
                burst.checked = 1
            if status == lib.UNKNOWN:
                self._prepare()
                made = self._outputs(count)
        return self._arrays(made, count)

    def seen(self) -> Sequence[int]:
        """See `engines.media.bursts.PartDecoder.seen`."""
        before, self._counted = self._counted, self._burst.seen_count
        times: list[int] = self._seen[before : self._counted].tolist()
        return times

    def end(self) -> None:
        """See `engines.media.bursts.PartDecoder.end`."""
        self._library.release(ctypes.addressof(self._burst))
        self._held, self._held_rows = [], []

    def _prepare(self) -> None:
        """Find out how frames like the one that came become arrays. Raises IrregularBurst."""
        burst = self._burst
        frame = self._frame(burst.facts)
        alike = cast(object, self._uniform(cast(Any, frame))) is frame
        recipe = self._cook(frame, self._orientation) if alike else None
        if recipe is None:
            raise IrregularBurst(None)
        launches = (Launch * len(recipe.launches))()
        held: list[Any] = [launches]
        for given, (kind, *places) in zip(launches, recipe.launches, strict=True):
            struct, sources, offsets = kind.template.copy(), *(np.array(each, np.int64) for each in places)
            held += struct, sources, offsets
            with self._gpu.guarded():
                given.function, given.given = self._gpu.calls.function(kind.name), struct.ctypes.data
            given.sources, given.offsets, given.each = sources.ctypes.data, offsets.ctypes.data, kind.each
            given.across, given.down, given.block = kind.across, kind.down, kind.block
        burst.launches, burst.launch_count, burst.known = ctypes.addressof(launches), len(launches), 1
        self._held += held
        self._recipe = recipe

    def _frame(self, facts: Sequence[int]) -> BurstFrame:
        return BurstFrame(facts, self._library.format_name)

    def _outputs(self, count: int) -> list[list[Block]]:
        """Take memory for the rows of `count` frames; rows that only kernels use are used again."""
        assert self._recipe is not None
        arrays = {number for number in self._recipe.arrays.values() if isinstance(number, int)}
        made = [
            self._blocks(nbytes, count if number in arrays else self._burst.together)
            for number, nbytes in enumerate(self._recipe.nbytes)
        ]
        outputs = (Output * len(made))()
        addresses = [np.array([block.pointer for block in blocks], np.int64) for blocks in made]
        for output, each in zip(outputs, addresses, strict=True):
            output.addresses, output.count = each.ctypes.data, len(each)
        self._burst.outputs = ctypes.addressof(outputs)
        self._held_rows = [outputs, addresses, made]
        return made

    def _blocks(self, nbytes: int, count: int) -> list[Block]:
        memory = self._gpu.memory
        if nbytes >= SLAB_ROW_BYTES or not count:
            return [memory.take(nbytes) for _ in range(count)]
        step = aligned(nbytes)
        slab = memory.take(step * count)
        return [Block(slab.pointer + number * step, nbytes, slab) for number in range(count)]

    def _arrays(self, made: list[list[Block]], count: int) -> list[dict[str, Array]]:
        recipe, gpu = self._recipe, self._gpu
        self._held_rows = []
        if recipe is None or not count:
            return []
        columns: list[Sequence[Any]] = []
        for number in recipe.arrays.values():
            if isinstance(number, int):
                shape = recipe.shapes[number]
                columns.append([GpuRow(gpu, block, shape) for block in made[number]])
            else:
                columns.append([number] * count)
        names = list(recipe.arrays)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


class Converting:
    """A decoder for the pictures of one pipeline."""

    def __init__(self, decoder: BurstDecoder, cook: Cook) -> None:
        self._decoder, self._cook = decoder, cook
        self.rows, self.seen, self.end = decoder.rows, decoder.seen, decoder.end

    def begin(self, table: Buffer, data: Buffer, expected: Expected, uniform: Uniform, orientation: int) -> None:
        """See `engines.media.bursts.PartDecoder.begin`."""
        self._decoder.begin(table, data, expected, uniform, orientation, self._cook)


def together_of(width: int, height: int) -> int:
    """Return how many frames of a size are converted together."""
    return max(1, min(TOGETHER, _TOGETHER_BYTES // max(1, width * height * 3 // 2)))


def _times(values: Array) -> Times:
    return Times(values.ctypes.data, len(values))
