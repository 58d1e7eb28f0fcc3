"""The messages that `split` makes of media: segments for the first stage, and fragments of the tracks beside the
picture.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.arrays import Arrays, check_arrays
from schemas.base import Message
from schemas.errors import MessageError
from schemas.fields import Label, Number, PositiveTerm, Ticks
from schemas.jobs import Key
from schemas.media import CodecParameters, Items, MediaInfo
from schemas.wire import Buffer


class Segment(Message):
    """A segment of compressed media, the input of `decode`. Two buffers for video, one for each item of images.

    Video: the packets from a keyframe on, without a container. The first buffer is a table of them (its columns are in
    engines.media.packets), the second holds their bytes; `codec` has the parameters of their decoder. The segment owns
    the frames (and the windows that start) in `[start, end)`, in pts of the media's clock; `end` None: to the end of
    the media. `by_rank`: frames take the packets' times in rising order, because the media does not state the order in
    which they are shown. `notes`: anything unusual in the media, on its first segment.
    """

    type: Literal["segment"] = "segment"
    key: Key
    media: MediaInfo
    codec: CodecParameters | None = None
    start: Ticks = 0
    end: Ticks | None = None
    by_rank: bool = False
    notes: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=64)] = ()
    items: Items = ()

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Check that the buffers are those of this kind of media. Raises MessageError."""
        self.key.check()
        if self.media.kind == "image":
            if not self.items:
                raise MessageError("a segment of images has no items")
            if len(buffers) != len(self.items) and (buffers or not all(item.path or item.error for item in self.items)):
                raise MessageError(f"a segment of {len(self.items)} images has {len(buffers)} buffers")
            return
        if len(buffers) != 2 or self.codec is None:
            codec = "no codec" if self.codec is None else "a codec"
            raise MessageError(f"a segment of video has {len(buffers)} buffers and {codec}")
        if not (self.media.width and self.media.height):
            raise MessageError("a segment of video has a picture without size")
        if self.end is not None and self.end < self.start:
            raise MessageError(f"a segment of video ends at {self.end}, before its start at {self.start}")

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds of the media that it covers; (0, 0) for images."""
        if self.media.kind == "image":
            return 0.0, 0.0
        clock = self.media.clock
        end_s = self.media.duration_s if self.end is None else clock.seconds(self.end)
        return clock.seconds(self.start), max(end_s, clock.seconds(self.start))


class TrackInfo(BaseModel):
    """A track beside the picture: the unit of its times in seconds, and the samples of a packet (0: it varies)."""

    model_config = ConfigDict(frozen=True)
    time_base: tuple[PositiveTerm, PositiveTerm]
    frame: Number = 0


class Fragment(Message):
    """Tracks that no stage changes (sound, subtitles), stream-copied by `split`: packets of one segment for `collect`.

    Track N has the arrays `tableN` and `dataN`, see `engines.media.packets`. The fragment of the first segment also
    describes all `tracks`: its array `head` is a small file of format `container` that has them in that order, with the
    media's chapters and tags; the finished file has that format. `notes` name the tracks that are left out.
    """

    type: Literal["fragment"] = "fragment"
    key: Key
    media: MediaInfo
    container: Label = ""
    tracks: Annotated[tuple[TrackInfo, ...], Field(max_length=4096)] = ()
    notes: Annotated[tuple[str, ...], Field(max_length=4096)] = ()
    arrays: Arrays = Field(default_factory=dict)

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Check that each array fits its buffer. Raises MessageError."""
        self.key.check()
        check_arrays(self.arrays, buffers)
