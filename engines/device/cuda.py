"""A card as a worker sees it: decodes several segments at a time, converts and infers on the card."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from engines.cuda.ahead import Prefetcher
from engines.cuda.card import CudaCard
from engines.cuda.nvdec import CardDecoders
from engines.cuda.transforms import CudaPictures
from engines.device.nvenc import NAME, CardEncoder
from engines.media.decode import decode_video
from engines.media.images import decode_images
from engines.media.limits import Limits
from engines.media.shared import SharedFolders
from engines.outputs.h264 import X264
from engines.part import Part, Tick, no_tick
from engines.planned import DecodePlan
from engines.ports import PictureEncoder, Preprocessing, Session
from schemas.errors import RigflowError, UsageError
from schemas.messages import Lane, Segment
from schemas.model import ModelSpec, PictureSpec
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

    def preprocess(self, pictures: Mapping[str, PictureSpec]) -> CudaPictures:
        """Conversion of frames on the card."""
        return CudaPictures(pictures, self.card)

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[memoryview],
        plan: DecodePlan,
        preprocess: Preprocessing,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Parts of a segment, decoded ahead; by the host where `preprocess` wants its frames."""
        parts: Iterator[Part]
        convert = preprocess.convert
        limits = Limits.of(self._settings)
        if segment.media.kind == "image":
            shared = SharedFolders.of(self._settings.shared)
            parts = decode_images(segment, buffers, plan, convert, limits, shared, tick)
        else:
            decoders = self.decoders if isinstance(preprocess, CudaPictures) else None
            parts = decode_video(segment, buffers, plan, convert, decoders, limits, tick)
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
