"""Measures limits of the hardware: decoding alone, the model alone, copying the raw frames once.

`decode` is PyAV with AUTO threads in one process and every frame; `decode-2` is how rigflow and the pool decode, in two
processes with one thread each, leaving out what no window looks at; `engine` has all pixels in memory and runs the
model over them in one thread; `copy` moves as many bytes as the decoded frames have (4:2:0, 8 bits).
"""

from collections.abc import Sequence
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np

from benchmarks.chain import Arrived, Chain, Task, Unit, decoded, units_of
from engines.part import Array, Part
from engines.plan import plan_pipeline

_PIXEL = {"pixels": np.zeros((1, 1), np.uint8)}
_BLOCK_BYTES = 64 << 20


class Limit:
    """One of them, by its name. Nothing is written."""

    def __init__(self, task: Task, workers: int, what: str) -> None:
        self._task = task
        self._workers = workers
        self._what = what
        self._parts: list[Part] = []
        self._frame_bytes = 0
        self._of: Sequence[Path] = ()

    async def start(self) -> None:
        if self._what == "decode-2":
            self._pool = get_context("fork").Pool(self._workers)
        if self._what == "engine":
            self._chain = Chain(self._task)
        if self._what == "copy":
            self._source, self._target = (np.ones(_BLOCK_BYTES, np.uint8) for _ in range(2))

    async def run(self, paths: Sequence[Path], out: Path, arrived: Arrived) -> None:
        if self._what == "decode":
            for path in paths:
                _decode_all(path)
        elif self._what == "decode-2":
            for _ in self._pool.imap(partial(decode_one, self._task), units_of(self._task, paths, True)):
                arrived()
        elif self._what == "engine":
            self._chain.infer(self._parts)
        else:
            for done in range(0, self._frame_bytes, _BLOCK_BYTES):
                size = min(_BLOCK_BYTES, self._frame_bytes - done)
                np.copyto(self._target[:size], self._source[:size])

    def prepare(self, paths: Sequence[Path]) -> None:
        """The work that is not timed: decode the model's pictures, or count the bytes of the frames."""
        if self._what == "engine":
            self._parts = [part for unit in units_of(self._task, paths, True) for part in self._chain.decode(unit)]
        if self._what == "copy":
            self._frame_bytes = sum(map(_raw_bytes, paths))

    async def stop(self) -> None:
        if self._what == "decode-2":
            self._pool.terminate()
            self._pool.join()

    def broker_bytes(self) -> int:
        return 0


def decode_one(task: Task, unit: Unit) -> int:
    """Decode a unit and drop its pixels, in a process of the pool."""
    return len(decoded(unit, task.spec, _plan(task), _drop))


_plan = cache(lambda task: plan_pipeline(task.spec, {name: card for name, (card, _) in task.models.items()}).decode)


def _drop(frame: av.VideoFrame, orientation: int) -> dict[str, Array]:
    return _PIXEL


def _decode_all(path: Path) -> None:
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in container.decode(video=0):
            pass


def _raw_bytes(path: Path) -> int:
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = sum(1 for packet in container.demux(stream) if packet.size)
        return frames * stream.codec_context.width * stream.codec_context.height * 3 // 2


make = Limit
