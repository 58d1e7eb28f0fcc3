"""Kinds of media: each is one class, which recognises its files, splits them into segments, and decodes those.

Nothing else knows what is in a file or in the buffers of a segment. The classes are found by name in
`engines.registry`; a pipeline names the kinds that it takes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar

import av
from pydantic import BaseModel

from engines.media.decode import Convert, Decoders
from engines.media.limits import DEFAULT_LIMITS, Limits
from engines.media.orientation import UPRIGHT
from engines.media.segment_data import SegmentData
from engines.media.shared import NO_FOLDERS, SharedFolders
from engines.media.source import Source, readable_head
from engines.media.tracks import SoundChoice
from engines.options import Options, check_decode_options, parse_decode_options
from engines.part import Part, Tick, no_tick
from engines.planned import INDEX, Arrays, DecodePlan, Tensor
from engines.registry import load, names
from schemas.errors import MediaError, PipelineError, UsageError
from schemas.grid import Clock, Grid
from schemas.media import MediaInfo
from schemas.pipeline import DecodeStage, PipelineSpec
from schemas.segments import Segment
from schemas.wire import Buffer

OptionsT = TypeVar("OptionsT", bound=Options)
_PLAIN = DecodeStage(kind="decode")
_MOST_FPS, _MOST_FRAMES = 1000, 1024  # of pictures: those of a window are in memory together


class Match(IntEnum):
    """How sure a medium is that a file is one of its own."""

    NO = 0
    POSSIBLE = 1
    """Opening the file would tell, and no other medium is sure of it."""
    CERTAIN = 2


class Shown(NamedTuple):
    """A picture as it is stored: EXIF's number of how it is turned, and the shape of its pixels."""

    frame: av.VideoFrame
    orientation: int = UPRIGHT
    aspect: Fraction = Fraction(1)


class Input(NamedTuple):
    """A file, or its content, and its name; `real` is the file's path with links resolved, where that is known."""

    source: Source
    name: str
    real: str = ""


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """What a publisher wants of segments: the pipeline's time grid, and at least `segment_s` seconds in each.

    `sound`: what becomes of sound that mp4 cannot hold; None: what is beside the picture is left out. Files in `shared`
    folders may travel as paths.
    """

    grid: Grid
    segment_s: float
    sound: SoundChoice | None = None
    limits: Limits = DEFAULT_LIMITS
    shared: SharedFolders = NO_FOLDERS

    def needed_until(self, clock: Clock, end: int) -> int:
        """Return the first pts after all that the windows of a segment `[.., end)` look at.

        Frames have the pts 0, 1, 2 ...
        """
        if self.grid.fps is None:
            return end + self.grid.frames - 1
        return self.grid.last_pts(clock, clock.origin, end) + 1


@dataclass(frozen=True, slots=True)
class DecodePlace:
    """Where a segment is decoded: the worker's limits and shared folders, and the decoders of its GPU."""

    limits: Limits = DEFAULT_LIMITS
    shared: SharedFolders = NO_FOLDERS
    decoders: Decoders | None = None


class Medium(Protocol):
    """A kind of media; made of the decode stage, whose options are those of all media of the pipeline.

    `timed`: its windows have times, and a file is a job. Otherwise its items have names, and files travel together.
    """

    kind: ClassVar[str]
    timed: ClassVar[bool]
    options_class: ClassVar[type[BaseModel]]

    def __init__(self, stage: DecodeStage) -> None: ...

    def sniff(self, head: bytes, given: Input) -> Match:
        """Whether a file is of this kind, by its first 512 bytes, or else by its content or name. Raises MediaError."""
        ...

    def split(self, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        """The segments of files, in order: one at least, the last one `final`. One file, if the medium is `timed`.

        A segment's answer depends on the segment alone: it has what its windows look at beyond its end. The segments
        depend on the files and the request alone. Raises UsageError, MediaError, ItemTooLarge.
        """
        ...

    def plan(self, grid: Grid) -> Arrays:
        """What decode leaves in parts beside the pictures that stages ask for; `index` where it has pictures.

        Raises PipelineError for a grid that does not suit the medium.
        """
        ...

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        """The parts of a segment, in order: one at least, the last one marked so. `convert` makes pictures of a frame.

        Segments come from outside and may hold anything. Raises MediaError, ItemTooLarge.
        """
        ...

    def picture(self, path: Path, at_s: float) -> Shown:
        """The picture by which a person recognises a file, `at_s` seconds from its start. Raises MediaError."""
        ...


class BaseMedium(Generic[OptionsT]):
    """Base of media with pictures; a medium adds `kind`, `sniff`, `split` and `decode`."""

    kind: ClassVar[str]
    timed: ClassVar[bool] = True
    options_class: type[OptionsT]

    def __init__(self, stage: DecodeStage) -> None:
        self._stage = stage
        self._options = parse_decode_options(self.options_class, stage)

    def plan(self, grid: Grid) -> Arrays:
        """Return `index`: which frames each window looks at."""
        if (grid.fps or 0) > _MOST_FPS or max(grid.frames, grid.stride) > _MOST_FRAMES:
            raise PipelineError(
                f"stage `{self._stage.name}`: a window of pictures has at most {_MOST_FRAMES} of them",
                f"and there are at most {_MOST_FPS} a second",
            )
        return {INDEX: Tensor("int32", ("W", grid.frames))}

    def picture(self, path: Path, at_s: float) -> Shown:
        """Raise MediaError: it shows none, unless a medium replaces this."""
        raise MediaError(f"{path}: no picture is made of this kind of media")


def medium_of(media: MediaInfo, stage: DecodeStage) -> Medium:
    """The medium of a message. Raises PipelineError when there is none, MediaError when the message is none of its."""
    made: Medium = load("media", media.kind)(stage)
    if made.timed != media.timed:
        raise MediaError(f"{media.kind} {'has' if made.timed else 'has no'} times, and a message says otherwise")
    return made


def media_of(stage: DecodeStage, kinds: Iterable[str]) -> dict[str, Medium]:
    """The media of these names. Raises PipelineError for one that is not there, and for options that none has."""
    classes = {kind: load("media", kind) for kind in kinds}
    check_decode_options(stage, [each.options_class for each in classes.values()])
    return {kind: made(stage) for kind, made in classes.items()}


def decoded_arrays(stage: DecodeStage, kinds: Sequence[str], grid: Grid) -> Arrays:
    """What the decode stage of a pipeline leaves, beside pictures. Raises PipelineError where its media differ."""
    plans = {kind: medium.plan(grid) for kind, medium in media_of(stage, kinds).items()}
    first = plans[kinds[0]]
    for kind, plan in plans.items():
        if plan != first:
            what = f"{kinds[0]} is decoded to {_listed(first)}, and {kind} to {_listed(plan)}"
            raise PipelineError(what, "make a pipeline for each kind of media")
    return dict(first)


class PipelineMedia:
    """The media that a pipeline takes. Raises PipelineError as `media_of`."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec
        self._media = media_of(spec.decode, spec.media)

    def recognised(self, given: Input) -> Medium:
        """Return which of them a file is: the one that is the surest, of several the first.

        Kinds that the pipeline does not name are not asked. So the answer is the same on every machine. Raises
        UsageError if it is none of them, and UsageError or MediaError if it cannot be read or is empty.
        """
        head = readable_head(given.source)
        found = _surest(head, given, self._media.values())
        if found is None:
            kinds = self._spec.media
            others = media_of(_PLAIN, [name for name in names("media") if name not in kinds])
            other = _surest(head, given, others.values())
            found_here = f"this is {other.kind}" if other else "this is of no kind of media that is known"
            what = f"pipeline {self._spec.name} takes {' and '.join(kinds)}, {found_here}"
            raise UsageError(what, "see `rigflow pipelines list`")
        return found


def any_recognised(given: Input) -> Medium:
    """Return which of all kinds of media a file is. Raises as `PipelineMedia.recognised` does."""
    found = _surest(readable_head(given.source), given, media_of(_PLAIN, names("media")).values())
    if found is None:
        raise UsageError(f"{given.name} is of no kind of media that is known", f"give {' or '.join(names('media'))}")
    return found


def _surest(head: bytes, given: Input, media: Iterable[Medium]) -> Medium | None:
    best: tuple[Match, Medium | None] = Match.NO, None
    for medium in media:
        match = medium.sniff(head, given)
        if match > best[0]:
            best = match, medium
        if match is Match.CERTAIN:
            break
    return best[1]


def _listed(arrays: Arrays) -> str:
    return ", ".join(f"`{name}`" for name in arrays) or "none"
