"""A card as a worker sees it: decodes several segments at a time, converts and infers on the card."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from engines.cuda.ahead import Prefetcher
from engines.cuda.card import CudaCard
from engines.cuda.nvdec import CardDecoders
from engines.cuda.transforms import CudaPreprocess
from engines.device.nvenc import NAME, CardEncoder
from engines.media.decode import decode_video
from engines.media.frames import pack_frame
from engines.media.images import decode_images
from engines.media.limits import Limits
from engines.media.shared import SharedFolders
from engines.outputs.h264 import X264
from engines.part import Part, Tick, no_tick
from engines.ports import PictureEncoder, Preprocessing, Session
from schemas.errors import RigflowError, UsageError
from schemas.messages import Lane, Segment
from schemas.pipeline import ModelSpec, PipelineSpec, PreprocessStage
from schemas.settings import Settings


class CudaDevice:
    """One card; everything of it is made when it is first used. Raises UsageError, DeviceLost and CompilerMissing.

    UsageError also when the settings want it to encode, and it opens no encoder.
    """

    def __init__(self, name: str, settings: Settings, cache: Path) -> None:
        self.name = name
        self.abreast = settings.decoders
        self._settings = settings
        self.card = CudaCard(name, cache)
        self.decoders = CardDecoders(self.card, settings.decoders, settings.decoder)
        try:
            self.encoder = self._encoder()
        except RigflowError:
            self.close()
            raise
        self.leave()

    def _encoder(self) -> PictureEncoder:
        """What encodes for this card: itself, where settings allow it and it really can."""
        host, wanted = X264(), self._settings.encoder
        if wanted == "host":
            return host
        mine = CardEncoder(self.card, host if wanted == "any" else None)
        if mine.opens():
            return mine
        if wanted == "any":
            return host
        what = f"device {self.name}: {self.card.facts.name} opens no encoder of H.264 ({NAME})"
        raise UsageError(what, "set `encoder` to any or host, see docs/cards.md")

    @cached_property
    def _ahead(self) -> Prefetcher:
        return Prefetcher(self.abreast, self.card.enter, self._settle, self.card.leave)

    def _settle(self) -> None:
        with self.card.guarded():
            self.card.stream().synchronize()

    def preprocess(self, stage: PreprocessStage) -> CudaPreprocess:
        """Conversion of frames on the card."""
        return CudaPreprocess(stage, self.card)

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        spec: PipelineSpec,
        preprocess: Preprocessing | None,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Parts of a segment, decoded ahead; without `preprocess` raw frames for a hop, which the host decodes."""
        parts: Iterator[Part]
        convert = preprocess.convert if preprocess else pack_frame
        limits = Limits.of(self._settings)
        if segment.media.kind == "image":
            shared = SharedFolders.of(self._settings.shared)
            parts = decode_images(segment, buffers, spec, convert, limits, shared, tick)
        else:
            decoders = None if preprocess is None else self.decoders
            parts = decode_video(segment, buffers, spec, convert, decoders, limits, tick)
        return self._ahead.reader(parts, int(segment.key.job.lane is not Lane.INTERACTIVE))

    def session(self, model: bytes, spec: ModelSpec) -> Session:
        """A model on the card. Raises ModelError."""
        from engines.inference.cuda import CudaSession

        return CudaSession(model, spec, self.card, tf32=self._settings.tf32, pictures_stay=self.encoder.on_card)

    def leave(self) -> None:
        """This thread is about to end, or needs the card no more."""
        self.card.leave()

    def facts(self) -> dict[str, object]:
        """What the card is and did, for `rigflow status`."""
        card = self.card.facts
        told = {"name": card.name, "uuid": card.uuid, "memory_bytes": card.memory_bytes, "link": card.link}
        told |= {"capability": ".".join(map(str, card.capability)), "encodes": self.encoder.on_card}
        return told | asdict(self.card.counters)

    def close(self) -> None:
        """End the threads and give back the memory."""
        if "_ahead" in self.__dict__:
            self._ahead.close()
        self.decoders.close()
        self.card.close()
