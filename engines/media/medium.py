"""Kinds of media: each is one class, which recognises its files, splits them into segments, and decodes segments.

No other code depends on the content of files or of buffers of segments. `engines.registry` finds the classes by name; a
pipeline names the kinds that it takes.
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
from engines.media.source import Source, open_media, readable_head
from engines.media.tracks import SoundChoice
from engines.options import Options, check_decode_options, parse_decode_options
from engines.part import Part, Tick, no_tick
from engines.planned import INDEX, Arrays, DecodePlan, Tensor
from engines.registry import load, names
from schemas.errors import MediaError, OtherMedia, PipelineError, RigflowError, UsageError
from schemas.grid import Clock, Grid
from schemas.media import MediaInfo
from schemas.pipeline import DecodeStage, PipelineSpec
from schemas.segments import Segment
from schemas.wire import Buffer

OptionsT = TypeVar("OptionsT", bound=Options)
_PLAIN = DecodeStage(kind="decode")
_MOST_FPS, _MOST_FRAMES = 1000, 1024  # of pictures: those of a window are in memory together


class Match(IntEnum):
    """How certain it is that a file is of one kind of media."""

    NO = 0
    BESIDE = 1
    """The file may hold it beside something else, as a video holds sound, or only look like it; others go first."""
    POSSIBLE = 2
    """Only opening the file shows it; a medium that is certain goes first."""
    CERTAIN = 3


class Shown(NamedTuple):
    """A picture as it is stored, with its orientation as in EXIF, and the aspect ratio of its pixels."""

    frame: av.VideoFrame
    orientation: int = UPRIGHT
    aspect: Fraction = Fraction(1)


class Input(NamedTuple):
    """A file, or its content, and its name; `real` is the path with links resolved, empty if not known."""

    source: Source
    name: str
    real: str = ""


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """How a publisher wants media to be split: by the pipeline's time grid, at least `segment_s` seconds in a segment.

    `sound`: how sound that mp4 cannot hold is written; None: tracks beside the picture are left out. Files in `shared`
    folders may be sent as paths.
    """

    grid: Grid
    segment_s: float
    sound: SoundChoice | None = None
    limits: Limits = DEFAULT_LIMITS
    shared: SharedFolders = NO_FOLDERS

    def needed_until(self, clock: Clock, end: int) -> int:
        """Return the pts after the last frame that windows of a segment `[.., end)` use, for frames 0, 1, 2 ..."""
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
    """A kind of media. The decode stage, from which it is made, has the options of all media of the pipeline.

    `timed`: its windows have times, and each file is a job. Otherwise its items have names, and all files of a run are
    one job.
    """

    kind: ClassVar[str]
    timed: ClassVar[bool]
    options_class: ClassVar[type[BaseModel]]

    def __init__(self, stage: DecodeStage) -> None: ...

    def sniff(self, head: bytes, given: Input) -> Match:
        """Return whether a file is of this kind, by its first 512 bytes, its content or its name. Raises MediaError."""
        ...

    def split(self, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        """Yield the segments of files in order, at least one; the last one is `final`. A `timed` medium gets one file.

        A segment contains all that its windows use, also beyond its end. Segments depend only on the files and the
        request. Raises UsageError, MediaError, ItemTooLarge.
        """
        ...

    def plan(self, grid: Grid) -> Arrays:
        """Return the arrays of decoded parts beside the pictures that stages need: `index`, if the medium has pictures.

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
        """Yield the parts of a segment in order, at least one. `convert` makes pictures of a frame.

        Segments come from other programs and may contain anything. Raises MediaError, ItemTooLarge.
        """
        ...

    def has_items(self, given: Input) -> bool:
        """Return whether a file holds items with names of their own, each of which has a result."""
        ...

    def picture(self, path: Path, at_s: float) -> Shown:
        """Return a picture that represents a file, `at_s` seconds from its start.

        Raises MediaError, and UsageError if the media has no such time.
        """
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
        """Return `index`, the frames of each window. Raises PipelineError if windows or rates are too large."""
        if (grid.fps or 0) > _MOST_FPS or max(grid.frames, grid.stride) > _MOST_FRAMES:
            raise PipelineError(
                f"stage `{self._stage.name}`: a window of pictures has at most {_MOST_FRAMES} of them",
                f"and there are at most {_MOST_FPS} a second",
            )
        return {INDEX: Tensor("int32", ("W", grid.frames))}

    def has_items(self, given: Input) -> bool:
        """Return whether a file holds items with names of their own, each of which has a result. Here: False."""
        return False

    def picture(self, path: Path, at_s: float) -> Shown:
        """Raise MediaError; media that can show a picture override this."""
        raise MediaError(f"{path}: no picture is made of this kind of media")


def medium_of(media: MediaInfo, plan: DecodePlan) -> Medium:
    """Return the medium of a message. Raises MediaError if the pipeline does not take it, or `timed` differs."""
    if media.kind not in plan.media:
        what = f"a message has media of kind {media.kind}, and its pipeline takes {' and '.join(plan.media)}"
        raise MediaError(what, "publish the file again")
    made: Medium = load("media", media.kind)(plan.stage)
    if made.timed != media.timed:
        raise MediaError(f"media of kind {media.kind} have {'' if made.timed else 'no '}times, unlike the message")
    return made


def media_of(stage: DecodeStage, kinds: Iterable[str]) -> dict[str, Medium]:
    """Return the media of these names. Raises PipelineError for one that does not exist, and for unknown options."""
    classes = {kind: load("media", kind) for kind in kinds}
    check_decode_options(stage, [each.options_class for each in classes.values()])
    return {kind: made(stage) for kind, made in classes.items()}


def decoded_arrays(stage: DecodeStage, kinds: Sequence[str], grid: Grid) -> Arrays:
    """Return the arrays of decoded parts, without pictures. Raises PipelineError if the media of a pipeline differ."""
    plans = {kind: medium.plan(grid) for kind, medium in media_of(stage, kinds).items()}
    first = plans[kinds[0]]
    for kind, plan in plans.items():
        if plan != first:
            what = f"{kinds[0]} is decoded to {_listed(first)}, and {kind} to {_listed(plan)}"
            raise PipelineError(what, "make a pipeline for each kind of media")
    return dict(first)


class PipelineMedia:
    """The media that a pipeline takes. Raises PipelineError as `media_of` does."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec
        self._media = media_of(spec.decode, spec.media)

    def recognised(self, given: Input) -> Medium:
        """Return the medium of a file: the one with the most certain match, of several the first.

        Only media that the pipeline names are tried, so that the result does not depend on installed packages. Raises
        UsageError if none of them matches, and UsageError or MediaError if the file cannot be read or is empty.
        """
        head = readable_head(given.source)
        found = _surest(head, given, self._media.values())
        if found is None:
            raise self._other(head, given)[0]
        return found

    def split(self, kind: str, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        """Yield the segments of files of one kind; raises as `Medium.split`.

        A file that is surely of another kind is refused as `recognised` refuses it: only opening shows that some are.
        """
        begun = False
        try:
            for segment in self._media[kind].split(inputs, request):
                begun = True
                yield segment
        except MediaError as error:
            if begun:
                raise
            [given, *_] = inputs
            other, is_certain = self._other(readable_head(given.source), given)
            if not is_certain and not isinstance(error, OtherMedia):
                raise  # it may be damaged
            source = given.source if isinstance(given.source, Path) else given.name
            raise OtherMedia(f"{source}: {other.what}", other.hint) from error

    def _other(self, head: bytes, given: Input) -> tuple[OtherMedia, bool]:
        """Return the error of a file that is none of these media, and whether it is certain of which kind it is."""
        kinds = self._spec.media
        others = media_of(_PLAIN, [name for name in names("media") if name not in kinds])
        other = _surest(head, given, others.values())
        is_certain = other is not None and other.sniff(head, given) is Match.CERTAIN
        found = "of no kind of media that is known"
        if other is not None and (is_certain or _is_container(given)):
            found = "video without sound" if other.kind == "video" and "audio" in kinds else other.kind
        what = f"pipeline {self._spec.name} takes {' and '.join(kinds)}, this is {found}"
        return OtherMedia(what, "see `rigflow pipelines list`"), is_certain


def any_recognised(given: Input) -> Medium:
    """Return the medium of a file, of all that exist. Raises as `PipelineMedia.recognised` does."""
    found = _surest(readable_head(given.source), given, media_of(_PLAIN, names("media")).values())
    if found is None:
        raise UsageError(f"{given.name} is of no kind of media that is known", f"give {' or '.join(names('media'))}")
    return found


def _is_container(given: Input) -> bool:
    """Return whether FFmpeg reads a file; its first bytes alone do not always show it."""
    try:
        with open_media(given.source, label=given.name, decoders=False):
            return True
    except RigflowError:
        return False


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
