"""One segment of a media as `split` gives it, before it has its place in a job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from engines.media.tracks import TrackPackets
from schemas.jobs import Key
from schemas.media import CodecParameters, Item, MediaInfo
from schemas.segments import Segment
from schemas.wire import Buffer, Pieces


@dataclass(frozen=True, slots=True)
class SegmentData:
    """The fields and buffers of one segment, see `schemas.segments.Segment`; `final`: it is the last of its media.

    `content` are its buffers, which may be in pieces. `tracks` are the packets of the tracks beside the picture.
    """

    media: MediaInfo
    content: Sequence[Buffer | Pieces]
    final: bool
    start: int = 0
    end: int | None = None
    codec: CodecParameters | None = None
    by_rank: bool = False
    items: tuple[Item, ...] = ()
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tracks: TrackPackets | None = None

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The buffers, each in one piece; those that are not are joined anew at each call."""
        return tuple(bytes(buffer) if isinstance(buffer, Pieces) else buffer for buffer in self.content)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(map(len, self.content))

    def segment(self, key: Key) -> Segment:
        """Return the message that goes with `content`."""
        return Segment(
            key=key,
            media=self.media,
            codec=self.codec,
            start=self.start,
            end=self.end,
            by_rank=self.by_rank,
            items=self.items,
            facts=dict(self.facts),
            notes=self.notes,
        )

    @property
    def end_s(self) -> float:
        """The second of the media at which it ends; 0 for items."""
        return self.media.duration_s if self.end is None else self.media.clock.seconds(self.end)
