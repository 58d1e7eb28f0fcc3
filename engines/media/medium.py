"""Kinds of media: what decodes a segment of each, and whether its windows have times or its items have names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from engines.media.decode import Convert, Decoders
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.shared import NO_FOLDERS, SharedFolders
from engines.part import Part, Tick, no_tick
from engines.planned import DecodePlan
from engines.registry import load
from schemas.media import MediaInfo
from schemas.segments import Segment
from schemas.wire import Buffer


@dataclass(frozen=True, slots=True)
class DecodePlace:
    """Where a segment is decoded: the worker's limits and shared folders, and the decoders of its GPU."""

    limits: Limits = DEFAULT_LIMITS
    shared: SharedFolders = NO_FOLDERS
    decoders: Decoders | None = None


class Medium(Protocol):
    """A kind of media. `timed`: its windows have times; otherwise its items have names, and each stands alone.

    `pixel_format`, in FFmpeg's words: that of a frame where a part has none to look at.
    """

    kind: ClassVar[str]
    timed: ClassVar[bool]
    pixel_format: ClassVar[str]

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """The parts of a segment, in order: one at least, the last one marked so. Raises MediaError."""
        ...


def medium_of(media: MediaInfo) -> Medium:
    """The kind of media. Raises PipelineError when there is none of that name."""
    made: Medium = load("media", media.kind)()
    return made


def is_timed(media: MediaInfo) -> bool:
    """Whether its windows have times; otherwise its items have names. Raises as `medium_of` does."""
    timed: bool = load("media", media.kind).timed
    return timed
