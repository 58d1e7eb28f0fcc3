"""A worker whose decoders take their time without work: what is left of its CPU time is that of the code around them.

It reads segments as a GPU's worker does: packets are listed, windows planned, and a part is asked for in one call.
"""

import ctypes
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from av.video.codeccontext import VideoCodecContext

import engines.device
from engines.cuda.prefetch import Prefetcher
from engines.device.cuda import _SWITCH_S
from engines.device.host import Host
from engines.media.bursts import Expected, PartDecoder
from engines.media.medium import medium_of
from engines.media.uniform import Uniform
from engines.part import Array, Part, Tick, no_tick
from engines.pictures import HostPictures
from engines.planned import DecodePlan
from engines.ports import Preprocessing
from schemas.segments import Segment
from schemas.settings import Settings
from schemas.wire import Buffer
from workers.options import WorkerOptions
from workers.process import start_worker

DECODERS, FRAMES_PER_S = 8, 10_000.0
_PR_SET_NAME = 15


class _FreeDecoder:
    """Gives grey pictures, as late as a decoder of so many frames a second gives them."""

    def __init__(self, frame_s: float, side: int) -> None:
        self._frame_s = frame_s
        self._row = {"pixels": np.zeros((side, side), np.uint8)}

    def begin(self, table: Buffer, data: Buffer, expected: Expected, uniform: Uniform, orientation: int) -> None:
        self._expected, self._at, self._seen = expected, 0, 0

    def rows(self, goal: int, tick: Tick) -> Sequence[dict[str, Array]]:
        wanted = int(np.count_nonzero(self._expected.wanted[self._at : goal]))
        ended = goal == len(self._expected.due)
        until = (
            len(self._expected.owned)
            if ended
            else int(np.searchsorted(self._expected.owned, self._expected.due[goal - 1], side="right"))
        )
        time.sleep(self._frame_s * max(0, until - self._until))
        tick()
        self._at, self._until = goal, until
        return [self._row] * wanted

    _until = 0

    def seen(self) -> Sequence[int]:
        before, self._seen = self._seen, self._until
        times: list[int] = self._expected.owned[before : self._until].tolist()
        return times

    def end(self) -> None:
        self._until = 0


class _FreeDecoders:
    def __init__(self, frame_s: float, side: int) -> None:
        self._given = frame_s, side

    @contextmanager
    def lease(
        self, like: VideoCodecContext, label: str, bursts: bool = False
    ) -> Iterator[VideoCodecContext | PartDecoder]:
        assert bursts, "its pictures are as expected"
        yield _FreeDecoder(*self._given)


class FreeDevice(Host):
    """The host's cores, but for the decoders."""

    host_is_free = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        sys.setswitchinterval(_SWITCH_S)
        self.concurrency = DECODERS
        self._prefetcher = Prefetcher(DECODERS, lambda: None, lambda: None)
        self._decoders = _FreeDecoders(DECODERS / FRAMES_PER_S, 32)

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        plan: DecodePlan,
        preprocess: Preprocessing,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        place = replace(self._place, decoders=self._decoders)
        convert = HostPictures(plan.pictures).convert
        parts = medium_of(segment.media, plan).decode(segment, buffers, plan, convert, place, tick)
        return self._prefetcher.reader(parts, 0)


def start_free(options: WorkerOptions, heartbeats: socket.socket | None) -> None:
    """What such a worker runs. The kernel knows the names of its threads."""
    libc, set_id = ctypes.CDLL(None), threading.Thread._set_native_id

    def named(thread: threading.Thread) -> None:
        set_id(thread)
        libc.prctl(_PR_SET_NAME, thread.name.encode()[:15])

    threading.Thread._set_native_id = named
    engines.device.Host = FreeDevice
    start_worker(options, heartbeats)
