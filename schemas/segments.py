"""The messages that `split` makes of media: segments for the first stage, and fragments of the tracks beside the
picture.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.arrays import Arrays, check_arrays
from schemas.base import Message
from schemas.errors import MessageError
from schemas.fields import Label, Number, PositiveTerm, Ticks
from schemas.jobs import Key
from schemas.media import CodecParameters, Items, MediaInfo
from schemas.wire import Buffer


class Segment(Message):
    """A segment of media, the input of `decode`. Only its medium knows what is in its buffers.

    A medium with times: the segment owns the frames (and the windows that start) in `[start, end)`, in pts of the
    media's clock; `end` None: to the end of the media. One without times has `items`, with a buffer for each, or none
    where all are named by paths. `facts` are the medium's own, whatever its decode needs beside the buffers. `notes`:
    anything unusual in the media, on its first segment.

    Packets of video: `codec` has the parameters of their decoder. `by_rank`: frames take the packets' times in rising
    order, because the media does not state the order in which they are shown.
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
    facts: dict[str, JsonValue] = Field(default_factory=dict)

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Check its times, or the number of its items. Its medium checks the rest. Raises MessageError."""
        self.key.check()
        if self.media.timed:
            if self.end is not None and self.end < self.start:
                raise MessageError(f"a segment ends at {self.end}, before its start at {self.start}")
            return
        if not self.items:
            raise MessageError("a segment without times has no items")
        if len(buffers) != len(self.items) and (buffers or not all(item.path or item.error for item in self.items)):
            raise MessageError(f"a segment of {len(self.items)} items has {len(buffers)} buffers")

    @property
    def span_s(self) -> tuple[float, float]:
        """The seconds of the media that it covers; (0, 0) without times."""
        if not self.media.timed:
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
