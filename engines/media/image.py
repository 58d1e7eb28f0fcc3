"""image: files of one picture each, many in a segment."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engines.media.albums import album_segments
from engines.media.decode import Convert
from engines.media.images import decode_image, decode_images
from engines.media.medium import BaseMedium, DecodePlace, Input, Match, Shown, SplitRequest
from engines.media.segment_data import SegmentData
from engines.media.shared import SharedFolders, read_image
from engines.media.source import is_still, media_errors
from engines.options import Options
from engines.part import Part, Tick, no_tick
from engines.planned import DecodePlan
from schemas.errors import UsageError
from schemas.media import Item
from schemas.segments import Segment
from schemas.wire import Buffer


class Image(BaseMedium[Options]):
    """See `engines.media.images.decode_images`."""

    kind = "image"
    timed = False
    options_class = Options

    def sniff(self, head: bytes, given: Input) -> Match:
        """By the signature; an animation is none."""
        return Match.CERTAIN if is_still(head, given.source, given.name) else Match.NO

    def split(self, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        """Small ones travel together. One that cannot be read is a failed item."""
        return album_segments(self.kind, image_items(inputs, request.shared), len(inputs))

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """Those in shared folders are read here."""
        return decode_images(segment, buffers, plan, convert, place.limits, place.shared, tick)

    def picture(self, path: Path, at_s: float) -> Shown:
        """Return the image itself. Raises UsageError: a time is asked for."""
        if at_s > 0:
            raise UsageError(f"{path} is an image and has no picture at {at_s:g} s", "leave the time out")
        with media_errors(str(path)):
            still = decode_image(path.read_bytes())
        return Shown(still.frame, still.orientation)


def image_items(inputs: Iterable[Input], shared: SharedFolders) -> Iterator[tuple[Item, Buffer]]:
    """Yield the item and the content of each image, one in folders that workers see without its content."""
    for given in inputs:
        if not isinstance(given.source, Path):
            yield Item(name=given.name), given.source
            continue
        path = given.real or os.path.realpath(given.source)
        if shared.hold(path):
            yield Item(name=given.name, path=path), b""
        else:
            yield read_image(Item(name=given.name), path)
