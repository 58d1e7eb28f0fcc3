"""A GPU as a worker's device: decodes several segments at a time, converts and infers on the GPU."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

from engines.cuda.burst_library import load_bursts
from engines.cuda.decoder_engines import decoder_engines
from engines.cuda.gpu import CudaGpu
from engines.cuda.nvdec import GpuDecoders
from engines.cuda.prefetch import Prefetcher
from engines.cuda.transforms import CudaPictures
from engines.device.nvenc import NAME, GpuEncoder
from engines.device.sensors import GpuSensors
from engines.encoding import PictureEncoder
from engines.machine import cores, driver_version
from engines.media.limits import Limits
from engines.media.medium import DecodePlace, medium_of
from engines.media.shared import SharedFolders
from engines.outputs.software import Software
from engines.part import Part, Tick, no_tick
from engines.planned import DecodePlan
from engines.ports import Preprocessing
from placement.fleet import GPU_DECODERS, decoded_at_a_time
from schemas.errors import RigflowError, UsageError
from schemas.jobs import Priority
from schemas.picture import PictureSpec
from schemas.segments import Segment
from schemas.settings import Settings

_SWITCH_S = 0.0005  # each picture needs the interpreter's lock, and other threads may usually keep it for 5 ms


class CudaDevice:
    """One GPU; its parts are created at their first use. Raises UsageError, DeviceLost and CompilerMissing.

    UsageError is also raised if the settings require its encoder and it opens none.
    """

    host_is_free = True

    def __init__(self, name: str, settings: Settings, cache: Path) -> None:
        sys.setswitchinterval(_SWITCH_S)
        self.name = name
        self._settings = settings
        self.gpu = CudaGpu(name, cache)
        engines = 0 if settings.decoder == "host" else decoder_engines()
        self.concurrency = decoded_at_a_time(engines, cores(), settings.decoders)
        self._sensors, self._driver = GpuSensors.open(), driver_version()
        self._bursts = load_bursts(cache)
        self.decoders = GpuDecoders(self.gpu, max(GPU_DECODERS, self.concurrency), settings.decoder, self._bursts)
        self._host_place = DecodePlace(Limits.of(settings), SharedFolders.of(settings.shared))
        try:
            self.encoder = self._encoder()
        except RigflowError:
            self.close()
            raise
        self.leave()

    def _encoder(self) -> PictureEncoder:
        """Return the encoder for this GPU's worker: the GPU itself, if the settings allow it and it opens."""
        host, wanted = Software(), self._settings.encoder
        if wanted == "host":
            return host
        mine = GpuEncoder(self.gpu, host if wanted == "any" else None)
        if mine.opens():
            return mine
        if wanted == "any":
            return host
        what = f"device {self.name}: {self.gpu.facts.name} opens no encoder of H.264 ({NAME})"
        raise UsageError(what, "set `encoder` to any or host, see docs/gpus.md")

    @cached_property
    def _prefetcher(self) -> Prefetcher:
        return Prefetcher(self.concurrency, self.gpu.enter, self.gpu.leave)

    def preprocess(self, pictures: Mapping[str, PictureSpec]) -> CudaPictures:
        """Return the conversion of frames on the GPU."""
        return CudaPictures(pictures, self.gpu)

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        plan: DecodePlan,
        preprocess: Preprocessing,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Return the parts of a segment, decoded ahead; the host decodes if `preprocess` needs frames on the host."""
        place = self._host_place
        if isinstance(preprocess, CudaPictures):
            place = replace(place, decoders=self.decoders.into(preprocess))
        medium = medium_of(segment.media, plan)
        parts = medium.decode(segment, buffers, plan, preprocess.convert, place, tick)
        rank = int(segment.key.job.priority is not Priority.INTERACTIVE)
        return self._prefetcher.reader(_complete(parts, preprocess), rank)

    def leave(self) -> None:
        """Release the GPU for this thread, which ends or no longer needs it."""
        self.gpu.leave()

    def facts(self) -> dict[str, object]:
        """Return the properties, the counters and the sensors of the GPU, for `rigflow status`.

        It may take milliseconds. Other threads may call it.
        """
        gpu = self.gpu.facts
        facts = {"name": gpu.name, "uuid": gpu.uuid, "memory_bytes": gpu.memory_bytes, "link": gpu.link}
        facts["driver"] = self._driver
        facts |= {"capability": ".".join(map(str, gpu.capability)), "encodes": self.encoder.on_gpu}
        facts["bursts"] = self._bursts is not None and not self._bursts.fault
        sensors = self._sensors.facts(gpu.uuid) if self._sensors else {}
        return facts | asdict(self.gpu.counters) | {"sensors": sensors}

    def close(self) -> None:
        """End the threads and free the memory."""
        if "_prefetcher" in self.__dict__:
            self._prefetcher.close()
        self.decoders.close()
        self.gpu.close()
        if self._sensors:
            self._sensors.close()


def _complete(parts: Iterator[Part], preprocess: Preprocessing) -> Iterator[Part]:
    """Yield parts whose pictures are there: what was queued for them on this thread is over."""
    for part in parts:
        preprocess.synchronize()
        yield part
