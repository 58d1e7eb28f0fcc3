"""Protocols of formats and of encoders of pictures, and the values that they pass.

Of engines, it imports only parts and options, so that every folder can import it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator

from engines.extras import Needs
from engines.options import Options
from engines.part import Array, Part, Tick, no_tick
from engines.planned import Tensor
from schemas.media import MediaInfo
from schemas.parts import PartMeta
from schemas.segments import Fragment


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one part: the arrays and `facts` (plain JSON) of its Result."""

    arrays: dict[str, Array]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """What the results of a job were made of: the revision of its pipeline, and its models, name -> identity.

    `sources`: the paths of its inputs, in order, on the machine where the results are written; empty if unknown there.
    """

    revision: str
    models: Mapping[str, str]
    sources: tuple[str, ...] = ()


@runtime_checkable
class Traced(Protocol):
    """An assembler that writes where its results come from."""

    def set_origin(self, origin: Origin) -> None:
        """Take the origin of the job, before any part of it."""
        ...


@runtime_checkable
class Lengthy(Protocol):
    """An assembler whose `close` may take minutes; other threads use it meanwhile."""

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        ...

    def stop(self) -> None:
        """Make a `close` that runs in another thread raise OutputError soon."""
        ...


@runtime_checkable
class Needing(Protocol):
    """A format whose assembler imports optional packages."""

    def needs(self, arrays: Mapping[str, Tensor]) -> Needs | None:
        """Return what it imports to write parts that hold such arrays; None if it imports nothing."""
        ...


class Assembler(Protocol):
    """Makes a job's files from its parts. After an error, from here or elsewhere, call `abort`."""

    @property
    def notes(self) -> list[str]:
        """What was out of the ordinary, in words."""
        ...

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Takes the next part in order of (segment, part). Raises OutputError when it cannot be written."""
        ...

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Takes what a segment has beside the picture, before the segment's parts."""
        ...

    def close(self) -> list[Path]:
        """Gives the finished files their names, and returns them. Raises OutputError when they cannot be written."""
        ...

    def abort(self) -> None:
        """Leaves nothing behind. May be called twice; after `close` it does nothing."""
        ...


class Format(Protocol):
    """One kind of result. Has no state: any worker may encode any part, in any order."""

    anywhere: bool
    """Whether it takes arrays where they are, on a GPU too."""
    stored: Mapping[str, float]
    """The share that it stores of the bytes of an array, by name, in the mean; of other arrays it stores all. By this
    predictions know how large results are."""

    @property
    def each(self) -> tuple[str, ...]:
        """Suffixes of the files that it writes of each image, `<target>/<name>.<suffix>`; empty if it writes none."""
        ...

    @property
    def sound(self) -> Literal["copy", "aac"] | None:
        """What becomes of a media's sound; None: the format has no place for what is beside the picture."""
        ...

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Raise PipelineError if parts that hold such arrays can never be encoded for one of these kinds of media."""
        ...

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """What the part becomes; a function of the part and the stage's options alone.

        `tick` is called after each picture, where encoding one takes long.
        Raises PipelineError when the part lacks the arrays that the format is about.
        """
        ...

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """Starts the files of a job. `target` has no suffix; the format adds its own.

        Nothing is at the final path before `close`. Raises OutputError when the folder cannot be written.
        """
        ...


class _Crf(NamedTuple):
    default: float
    most: int


_CRF = {"h264": _Crf(18, 51), "hevc": _Crf(22, 51), "av1": _Crf(26, 63)}


class VideoOptions(Options):
    """`codec` of films, and `bits` of their samples. `crf` is the codec's constant quality: lower is better and larger;
    None: 18 of h264, 22 of hevc, 26 of av1. `preset` trades time for size.

    NVENC takes both for the nearest that it knows, see engines.device.nvenc. `sound` "aac" encodes sound that mp4
    cannot hold to AAC; "copy" takes it to mov or mkv, and leaves out what neither holds.
    """

    codec: Literal["h264", "hevc", "av1"] = "h264"
    bits: Literal[8, 10] = 8
    crf: float | None = Field(default=None, ge=0, le=63)
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"] = (
        "veryfast"
    )
    sound: Literal["copy", "aac"] = "copy"

    @model_validator(mode="after")
    def _crf_of_codec(self) -> Self:
        if self.crf is not None and self.crf > _CRF[self.codec].most:
            raise ValueError(f"crf of {self.codec} is at most {_CRF[self.codec].most}")
        return self

    @property
    def quantiser(self) -> float:
        """Return `crf`, or the codec's default."""
        return _CRF[self.codec].default if self.crf is None else self.crf

    @property
    def suffix(self) -> str:
        """The suffix of the files of images."""
        return "png"


class Colour(NamedTuple):
    """What the encoded pictures say about their colours, in FFmpeg's numbers."""

    range: int
    space: int
    primaries: int
    transfer: int


class Pictures(NamedTuple):
    """What to encode: luma and, if there is colour, two chroma planes, each `[N, H, W] uint8`, maybe on a GPU.

    On the host also uint16 with values of 10 bits, for a film of 10 bits.
    """

    planes: Sequence[Array]
    colour: Colour
    media: MediaInfo


class PictureEncoder(Protocol):
    """Encodes the pictures of films in the codec of the options. `on_gpu`: it takes planes where they are, without the
    host.
    """

    on_gpu: bool

    def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
        """One closed GOP, which needs nothing of any other. Raises PipelineError, and MediaError when it cannot."""
        ...
