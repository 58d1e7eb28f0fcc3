"""Media as messages describe them: their times and pictures, codecs and items."""

from fractions import Fraction
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, FailFast, Field

from schemas.declared import Name
from schemas.fields import GivenName, Label, Number, PositiveTerm, Ratio, Size, Ticks
from schemas.grid import Clock

MOST_REORDERED = 16  # frames that any codec holds back: FFmpeg's decoder of H.264 writes beyond its tables with more
Color: TypeAlias = Annotated[int, Field(ge=0, le=255)]


class MediaInfo(BaseModel):
    """Describes a media: in a segment as it is stored, in a part as decode made it (pictures are upright then).

    `timed`: its windows have times in units of `time_base`; otherwise its items have names, and each stands alone.

    Media without pictures have no `width` and `height`. `orientation` is EXIF's number of how stored pictures are
    turned and mirrored (1: not at all), `origin` the pts of the first presented frame in units of `time_base`.
    `frame_rate` is the number of windows a second that the pipeline makes, or of all frames of the source; `last` is
    the pts of the last of these, which lasts until `end`. Colour fields are FFmpeg's numbers (for example AVColorSpace;
    2 is unspecified).
    """

    model_config = ConfigDict(frozen=True)
    kind: Name  # of a class in the registry of media
    timed: bool = True
    name: GivenName = ""
    codec: Label = ""
    width: Size = 0
    height: Size = 0
    orientation: Annotated[int, Field(ge=1, le=8)] = 1
    time_base: tuple[PositiveTerm, PositiveTerm] = (1, 1)
    origin: Ticks = 0
    last: Ticks | None = None
    end: Ticks | None = None
    pixel_format: Label = ""
    frame_rate: Ratio = (0, 1)
    sample_aspect: Ratio = (1, 1)
    color_range: Color = 0
    color_space: Color = 2
    color_primaries: Color = 2
    color_transfer: Color = 2

    @property
    def duration_s(self) -> float:
        """Seconds from the origin to the end; 0 if that is unknown."""
        return 0.0 if self.end is None else self.clock.seconds(self.end)

    @property
    def clock(self) -> Clock:
        """The media's own clock."""
        return Clock(Fraction(*self.time_base), self.origin)


class CodecParameters(BaseModel):
    """The parameters that a decoder needs beside packets and extradata, as in FFmpeg's AVCodecParameters.

    `tag` is the FOURCC, `bits` are those of a coded sample, `reorder` is how many frames at most a decoder holds back;
    `level` and `field_order` are FFmpeg's numbers. The colours are those of the header.
    """

    model_config = ConfigDict(frozen=True)
    decoder: Label
    tag: Annotated[str, Field(max_length=4)] = ""
    pixel_format: Label = ""
    width: Size = 0
    height: Size = 0
    profile: Label = ""
    level: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = -99
    bits: Color = 0
    field_order: Color = 0
    reorder: Annotated[int, Field(ge=0, le=MOST_REORDERED)] = 0
    sample_aspect: Ratio = (0, 1)
    color_range: Color = 0
    color_space: Color = 2
    color_primaries: Color = 2
    color_transfer: Color = 2


class Item(BaseModel):
    """One item of a segment of a medium without times: its name, and its own outcome once it has failed.

    `path` names a file that publisher and workers share; the segment then has no buffers. `gray`: its picture is stored
    without colours, which decode says. `line`: it is a line of a file, and its name is not that of a file. `piece_of`:
    pieces of one file have the same number; what is whole has none. `more`: a further piece of it follows.
    """

    model_config = ConfigDict(frozen=True)
    name: GivenName
    path: str = ""
    error: str = ""
    gray: bool = False
    line: bool = False
    piece_of: Number | None = None
    more: bool = False


Items: TypeAlias = Annotated[tuple[Item, ...], FailFast()]  # the errors of all items could fill the memory
